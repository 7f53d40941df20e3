package api_test

import (
	"encoding/json"
	"net/http"
	"regexp"
	"strings"
	"testing"

	"lockstep/internal/auth"
)

type document struct {
	OpenAPI    string
	Paths      map[string]map[string]operation
	Components struct {
		Schemas         map[string]json.RawMessage
		SecuritySchemes map[string]json.RawMessage
	}
}

type operation struct {
	OperationID string `json:"operationId"`
	Summary     string
	Tags        []string
	Security    *[]map[string][]string
	Parameters  []struct{ Name, In string }
	RequestBody *struct{ Content map[string]json.RawMessage }
	Responses   map[string]struct {
		Content map[string]json.RawMessage
	}
}

func TestEveryRouteIsInTheOpenAPIDocument(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	got := n.do("GET", "/openapi.json", "")
	doc := mustJSON[document](t, got.body)
	if !strings.HasPrefix(doc.OpenAPI, "3.1.") || doc.Components.SecuritySchemes["bearer"] == nil {
		t.Errorf("version %q, security schemes %v", doc.OpenAPI, doc.Components.SecuritySchemes)
	}
	ids := map[string]string{}
	documented := 0
	for _, rt := range n.Routes() {
		op, ok := doc.Paths[rt.Path][strings.ToLower(rt.Method)]
		name := rt.Method + " " + rt.Path
		if rt.Hidden {
			if ok {
				t.Errorf("%s is hidden and documented", name)
			}
			continue
		}
		if documented++; !ok {
			t.Errorf("%s is not documented", name)
			continue
		}
		if op.OperationID == "" || ids[op.OperationID] != "" {
			t.Errorf("%s: operationId %q is empty or that of %s", name, op.OperationID, ids[op.OperationID])
		}
		ids[op.OperationID] = name
		if op.Summary == "" || len(op.Tags) != 1 {
			t.Errorf("%s: summary %q, tags %v", name, op.Summary, op.Tags)
		}
		if open := op.Security != nil && len(*op.Security) == 0; open != (rt.Need == auth.NeedNothing) {
			t.Errorf("%s needs %q; security %v", name, rt.Need, op.Security)
		}
		if op.Responses["default"].Content["application/problem+json"] == nil {
			t.Errorf("%s: errors are not documented as problem documents", name)
		}
		for _, p := range regexp.MustCompile(`{(\w+)}`).FindAllStringSubmatch(rt.Path, -1) {
			found := false
			for _, q := range op.Parameters {
				found = found || q.In == "path" && q.Name == p[1]
			}
			if !found {
				t.Errorf("%s: the parameter %s is not documented", name, p[1])
			}
		}
		success := false
		for status := range op.Responses {
			success = success || status[0] == '2'
		}
		if !success {
			t.Errorf("%s: no success is documented: %v", name, op.Responses)
		}
	}
	total := 0
	for _, item := range doc.Paths {
		total += len(item)
	}
	if total != documented {
		t.Errorf("%d operations are documented, %d routes exist", total, documented)
	}
}

func TestEveryReferenceOfTheOpenAPIDocumentLeadsSomewhere(t *testing.T) {
	t.Parallel()
	body := newNode(t).do("GET", "/openapi.json", "").body
	doc := mustJSON[document](t, body)
	refs := regexp.MustCompile(`"\$ref":"([^"]+)"`).FindAllStringSubmatch(body, -1)
	if len(refs) == 0 {
		t.Fatal("no reference found")
	}
	for _, ref := range refs {
		if name, ok := strings.CutPrefix(ref[1], "#/components/schemas/"); !ok || doc.Components.Schemas[name] == nil {
			t.Errorf("%s leads nowhere", ref[1])
		}
	}
}

func TestTheDocsNeedNoOtherServer(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	kinds := map[string]string{"/docs": "text/html; charset=utf-8", "/docs/docs.js": "text/javascript; charset=utf-8", "/docs/docs.css": "text/css; charset=utf-8"}
	for target, kind := range kinds {
		got := n.do("GET", target, "")
		if got.status != http.StatusOK || got.header.Get("Content-Type") != kind {
			t.Errorf("%s: %d %s", target, got.status, got.header.Get("Content-Type"))
		}
		if strings.Contains(got.body, "://") {
			t.Errorf("%s names another server", target)
		}
		if strings.Contains(got.body, "innerHTML") || regexp.MustCompile(`<script>|\son\w+=|style=`).MatchString(got.body) {
			t.Errorf("%s holds what its own policy forbids", target)
		}
		for _, link := range regexp.MustCompile(`(?:href|src)="([^"]+)"`).FindAllStringSubmatch(got.body, -1) {
			if got := n.do("GET", "/"+link[1], ""); got.status != http.StatusOK {
				t.Errorf("%s links to %s, which is not there", target, link[1])
			}
		}
	}
}
