package api_test

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"testing"

	"lockstep/internal/api"
	"lockstep/internal/auth"
)

// matrix says which scope each route needs. It is written down a second time on
// purpose: a route that appears or changes has to be thought about here.
func matrix() map[string]string {
	m := map[string]string{
		"GET /v1/databases": "read", "GET /v1/databases/{name}": "read", "GET /v1/status": "read", "GET /v1/databases/{name}/tables": "read",
		"POST /v1/databases": "admin", "PATCH /v1/databases/{name}": "admin", "DELETE /v1/databases/{name}": "admin",
		"GET /v1/databases/{name}/changes": "read", "GET /v1/databases/{name}/changes/{seq}": "read",
		"GET /v1/backfills": "read", "GET /v1/backfills/{id}": "read", "PATCH /v1/backfills/{id}": "write", "POST /v1/databases/{name}/gaps/backfill": "write",
		"GET /v1/audit": "admin", "GET /v1/doctor": "admin", "POST /v1/doctor": "admin", "POST /v1/doctor/fix": "admin", "GET /v1/history": "read", "GET /v1/tokens": "admin", "POST /v1/tokens": "admin", "DELETE /v1/tokens/{id}": "admin",
		"GET /healthz": "none", "GET /readyz": "none", "GET /metrics": "none",
		"GET /v1/consumers/{id}/attempts": "read", "POST /v1/consumers/{id}/test": "write", "POST /v1/consumers/{id}/replay": "write",
		"POST /v1/databases/{name}/trial": "read",
		"GET /events":                     "peek", "OPTIONS /events": "none", "POST /v1/events/tickets": "peek",
		"GET /openapi.json": "none", "GET /docs": "none", "GET /docs/docs.css": "none", "GET /docs/docs.js": "none",
	}
	for route, need := range map[string]string{
		"GET ": "read", "POST ": "write", "GET /{id}": "read", "PATCH /{id}": "write", "DELETE /{id}": "write",
		"POST /{id}/run": "write", "POST /{id}/pause": "write", "POST /{id}/resume": "write", "POST /{id}/resync": "write",
		"GET /{id}/wait": "read", "POST /{id}/verify": "write", "GET /{id}/log": "read",
		"POST /{id}/webhook": "none", "PUT /{id}/webhook": "none", "PATCH /{id}/webhook": "none", "DELETE /{id}/webhook": "none", "GET /{id}/webhook": "none",
	} {
		method, path, _ := strings.Cut(route, " ")
		m[method+" /v1/syncs"+path] = need
	}
	for _, base := range []string{"/v1/consumers", "/v1/http-consumers"} {
		for route, need := range map[string]string{
			"GET ": "read", "POST ": "write", "GET /{id}": "read", "PATCH /{id}": "write", "DELETE /{id}": "write",
			"POST /{id}/pause": "write", "POST /{id}/resume": "write", "POST /{id}/seek": "write",
			"GET /{id}/next": "consume", "POST /{id}/next": "consume", "POST /{id}/ack": "consume", "POST /{id}/nack": "consume", "POST /{id}/extend": "consume",
			"GET /{id}/peek": "peek", "GET /{id}/dead": "read", "GET /{id}/dead/{seq}": "read", "POST /{id}/dead/{seq}/retry": "write", "DELETE /{id}/dead/{seq}": "write",
			"POST /{id}/dead/retry": "write", "POST /{id}/dead/drop": "write",
			"GET /{id}/backfills": "read", "POST /{id}/backfills": "write", "GET /{id}/backfills/{n}": "read", "PATCH /{id}/backfills/{n}": "write",
		} {
			method, path, _ := strings.Cut(route, " ")
			m[method+" "+base+path] = need
		}
	}
	return m
}

func TestEveryRouteWithEveryScope(t *testing.T) {
	t.Parallel()
	allowed := map[string]string{ // by what the route needs: which of the tokens below come in
		"none":    "admin write read consume mine theirs nobody",
		"read":    "admin write read",
		"peek":    "admin write read consume mine",
		"consume": "admin write consume mine",
		"write":   "admin write",
		"admin":   "admin",
	}
	static := []auth.Static{
		{Name: "admin", Token: "admin", Scopes: []string{"admin"}}, {Name: "write", Token: "write", Scopes: []string{"write"}},
		{Name: "read", Token: "read", Scopes: []string{"read"}}, {Name: "consume", Token: "consume", Scopes: []string{"consume"}},
		{Name: "mine", Token: "mine", Scopes: []string{"consume:orders"}}, {Name: "theirs", Token: "theirs", Scopes: []string{"consume:filed"}},
	}
	n := newNode(t, static...)
	n.parts = []api.Part{{Name: "capture app", Ready: true}}
	want := matrix()
	for _, rt := range n.Routes() {
		route := rt.Method + " " + rt.Path
		need, ok := want[route]
		if !ok {
			t.Errorf("%s is not in the matrix", route)
			continue
		}
		delete(want, route)
		for _, token := range []string{"admin", "write", "read", "consume", "mine", "theirs", "nobody", "wrong"} {
			got := try(n, rt, token)
			in := strings.Contains(" "+allowed[need]+" ", " "+token+" ") || need == "none"
			switch {
			case in && (got.status == 401 || got.status == 403):
				t.Errorf("%s by %s: %d %s", route, token, got.status, got.body)
			case !in && (token == "nobody" || token == "wrong") && (got.status != 401 || got.header.Get("WWW-Authenticate") == ""):
				t.Errorf("%s by %s: %d; want 401 with WWW-Authenticate", route, token, got.status)
			case !in && token != "nobody" && token != "wrong" && got.status != 403:
				t.Errorf("%s by %s: %d; want 403", route, token, got.status)
			}
		}
	}
	for route := range want {
		t.Errorf("%s is in the matrix and does not exist", route)
	}
}

// try calls a route so that nothing changes when it is let in: what it names does
// not exist, or the body is wrong.
func try(n *node, rt api.Route, token string) response {
	path := strings.NewReplacer("{name}", "nope", "{seq}", "1", "{n}", "1").Replace(rt.Path)
	id := "orders"
	if !rt.Consumer || rt.Method == http.MethodDelete && strings.HasSuffix(rt.Path, "{id}") {
		id = "none"
	}
	path = strings.ReplaceAll(path, "{id}", id)
	body := ""
	if rt.Method == http.MethodPost || rt.Method == http.MethodPatch {
		body = `{"nonsense":1}`
	}
	options := []string{"X-Consumer-Id: orders"}
	if token != "nobody" {
		options = append(options, "Authorization: Bearer "+token)
	}
	return n.do(rt.Method, path, body, options...)
}

func TestATokenOfAConsumerFollowsTheConsumersID(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	id := n.consumer("orders").Definition().ID
	plain, _, err := n.tokens.Create(t.Context(), "t", auth.Scopes{"consume:" + id}, noExpiry)
	if err != nil {
		t.Fatal(err)
	}
	for target, want := range map[string]int{"/v1/consumers/orders/next": 200, "/v1/consumers/" + id + "/next": 200, "/v1/consumers/filed/next": 403} {
		if got := n.do("GET", target, "", "Authorization: Bearer "+plain); got.status != want {
			t.Errorf("%s: %d, want %d: %s", target, got.status, want, got.body)
		}
	}
}

func TestTheSchemeOfAuthorizationIsNotCaseSensitiveAndMustBeBearer(t *testing.T) {
	t.Parallel()
	n := newNode(t, auth.Static{Name: "a", Token: "secret", Scopes: []string{"read"}})
	for header, want := range map[string]int{"Bearer secret": 200, "bearer secret": 200, "Basic secret": 401, "Bearer": 401, "secret": 401, "Bearer  secret": 200} {
		if got := n.do("GET", "/v1/consumers", "", "Authorization: "+header); got.status != want {
			t.Errorf("%q: %d, want %d", header, got.status, want)
		}
	}
}

func TestAnOpenNodeAnswersToNamesOfThisMachineOnly(t *testing.T) {
	t.Parallel()
	open := newNode(t)
	closed := newNode(t, auth.Static{Name: "a", Token: "secret", Scopes: []string{"read"}})
	for host, want := range map[string]int{
		"127.0.0.1:7300": 200, "localhost:7300": 200, "localhost": 200, "[::1]:7300": 200, "127.0.0.1": 200,
		"evil.example:7300": 403, "127.0.0.1.evil.example": 403, "localhost.evil.example:7300": 403, "10.0.0.1:7300": 403, "": 403,
	} {
		for _, target := range []string{"/v1/consumers", "/healthz", "/openapi.json"} {
			if got := open.do("GET", target, "", "Host: "+host); got.status != want {
				t.Errorf("open node, %s, Host %q: %d, want %d", target, host, got.status, want)
			}
			if got := closed.do("GET", target, "", "Host: "+host, "Authorization: Bearer secret"); got.status != 200 {
				t.Errorf("node with a token, %s, Host %q: %d, want 200", target, host, got.status)
			}
		}
	}
}

func TestPagesOfOtherSitesCannotCall(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	n.consumer("orders").give(`"record":1`)
	for _, c := range []struct {
		method, target, body, header string
		want                         int
	}{
		{"POST", "/v1/consumers/orders/ack", `{"ack_tokens":["a"]}`, "Sec-Fetch-Site: cross-site", 403},
		{"POST", "/v1/consumers/orders/ack", `{"ack_tokens":["a"]}`, "Origin: https://evil.example", 403},
		{"POST", "/v1/consumers/orders/ack", `{"ack_tokens":["a"]}`, "Sec-Fetch-Site: same-origin", 204},
		{"GET", "/v1/consumers/orders/next", "", "Sec-Fetch-Site: cross-site", 403},
		{"GET", "/v1/consumers/orders/next", "", "Sec-Fetch-Site: same-site", 403},
		{"GET", "/v1/consumers/orders/next", "", "Sec-Fetch-Site: same-origin", 200},
	} {
		got := n.do(c.method, c.target, c.body, c.header)
		if got.status != c.want {
			t.Errorf("%s %s with %s: %d, want %d", c.method, c.target, c.header, got.status, c.want)
		}
		if c.want == 403 {
			wantProblem(t, got, 403)
		}
	}
}

func TestEveryAnswerHasTheSecurityHeaders(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	for _, target := range []string{"/v1/consumers", "/nowhere", "/v1/consumers/nobody", "/docs"} {
		h := n.do("GET", target, "").header
		for name, want := range map[string]string{"X-Content-Type-Options": "nosniff", "X-Frame-Options": "DENY", "Referrer-Policy": "no-referrer"} {
			if h.Get(name) != want {
				t.Errorf("%s: %s is %q, want %q", target, name, h.Get(name), want)
			}
		}
		if csp := h.Get("Content-Security-Policy"); !strings.Contains(csp, "default-src 'none'") || !strings.Contains(csp, "frame-ancestors 'none'") {
			t.Errorf("%s: Content-Security-Policy is %q", target, csp)
		}
	}
}

func TestEveryCallThatChangesTheControlPlaneIsAuditedOnce(t *testing.T) {
	t.Parallel()
	n := newNodeWith(t, func(c *api.Config) { c.Managed, c.Doctor = memManaged{}, memDoctor{} }, auth.Static{Name: "boss", Token: "boss", Scopes: []string{"admin"}})
	for _, rt := range n.Routes() {
		mutates := rt.Method != http.MethodGet && !rt.Takes && (rt.Need == auth.NeedWrite || rt.Need == auth.NeedAdmin)
		if mutates != (rt.Audit != "") {
			t.Errorf("%s %s: audit %q", rt.Method, rt.Path, rt.Audit)
		}
		if rt.Audit == "" {
			continue
		}
		before := len(n.audit.all())
		got := succeed(t, n, rt)
		entries := n.audit.all()
		if got.status >= 300 || len(entries) != before+1 {
			t.Errorf("%s %s: %d %s, %d entries; want success and one entry", rt.Method, rt.Path, got.status, got.body, len(entries)-before)
			continue
		}
		e := entries[before]
		if e.Action != rt.Audit || e.Actor != "boss" || e.Target == "" || e.Remote != "192.0.2.1" || e.At.IsZero() {
			t.Errorf("%s %s: entry %+v", rt.Method, rt.Path, e)
		}
	}
	before := len(n.audit.all())
	wantProblem(t, n.do("DELETE", "/v1/consumers/filed", "", "Authorization: Bearer boss"), 409)
	if len(n.audit.all()) != before {
		t.Error("a call that failed was recorded")
	}
}

// succeed makes what a mutating route needs and calls it.
func succeed(t *testing.T, n *node, rt api.Route) response {
	t.Helper()
	name := fmt.Sprintf("c%d", len(n.audit.all()))
	body, id := "", name
	switch {
	case rt.Path == "/v1/databases/{name}/gaps/backfill":
		n.backfills.openGap()
	case rt.Path == "/v1/databases":
		body = `{"name":"app","url":"postgres://db/app"}`
	case rt.Path == "/v1/databases/{name}" && rt.Method == http.MethodPatch:
		body = `{"tables":["public.*"]}`
	case rt.Path == "/v1/backfills/{id}":
		id, body = startedBackfill(t, n, "orders").ID, `{"state":"paused"}`
	case rt.Path == "/v1/tokens":
		body = `{"name":"t","scopes":["read"]}`
	case strings.HasPrefix(rt.Path, "/v1/tokens/"):
		_, token, err := n.tokens.Create(t.Context(), "x", auth.Scopes{"read"}, noExpiry)
		if err != nil {
			t.Fatal(err)
		}
		id = token.ID
	case strings.HasPrefix(rt.Path, "/v1/syncs"):
		id = n.syncs.made(t, name).Definition.ID
		switch {
		case rt.Path == "/v1/syncs":
			body = `{"name":"new-` + name + `","provider":"stripe","credential":{"properties":{"secret":"s"}}}`
		case rt.Method == http.MethodPatch:
			body = `{"every":"5s"}`
		}
	case rt.Path == "/v1/doctor/fix":
		body = `{"id":"publication","target":"database app"}`
	case strings.HasPrefix(rt.Path, "/v1/databases"):
		switch rt.Method {
		case http.MethodPost:
			body = `{"name":"app","url":"postgres://db.example.com/shop"}` // what is made is there
		case http.MethodPatch:
			body = `{"tables":["public.*"]}`
		}
	case !rt.Consumer:
		body = `{"name":"` + name + `"}`
	default:
		c := n.define(t, name, "api", "http")
		c.letters = []api.Letter{{Seq: 7, State: "parked"}}
		if rt.Method == http.MethodPatch {
			body = `{"max_attempts":5}`
		}
		if strings.HasSuffix(rt.Path, "/seek") {
			body = `{"to":"beginning"}`
		}
		if strings.HasSuffix(rt.Path, "/replay") {
			body = `{"seq":7}`
		}
		if strings.HasSuffix(rt.Path, "/dead/retry") || strings.HasSuffix(rt.Path, "/dead/drop") {
			body = `{"seqs":[7]}`
		}
		if strings.HasSuffix(rt.Path, "/backfills/{n}") {
			startedBackfill(t, n, name)
			body = `{"action":"cancel"}`
		}
	}
	path := strings.NewReplacer("{id}", id, "{seq}", "7", "{n}", "1", "{name}", "app").Replace(rt.Path)
	return n.do(rt.Method, path, body, "Authorization: Bearer boss")
}

func startedBackfill(t *testing.T, n *node, consumer string) api.Backfill {
	t.Helper()
	b, err := n.backfills.Start(t.Context(), api.BackfillRequest{ConsumerID: n.consumer(consumer).Definition().ID})
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// memManaged makes and deletes databases by saying so.
type memManaged struct{}

func (memManaged) Loaded() bool { return true }

func (memManaged) Create(context.Context, api.DatabaseDefinition) error { return nil }

func (memManaged) Change(context.Context, string, []string) error { return nil }

func (memManaged) Delete(context.Context, string, api.LeaveSlot) (api.DatabaseRemoval, error) {
	return api.DatabaseRemoval{}, nil
}

// memDoctor finds everything in order.
type memDoctor struct{}

func (memDoctor) Last() api.DoctorReport { return api.DoctorReport{} }

func (memDoctor) Examine(context.Context) (api.DoctorReport, error) { return api.DoctorReport{}, nil }

func (memDoctor) Fix(context.Context, string, string) ([]api.DoctorDone, error) { return nil, nil }
