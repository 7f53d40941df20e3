package github_test

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"

	"lockstep/sandbox/github"
)

// openapi is GitHub's own description of the routes, as testdata/prune.mjs leaves it.
type openapi struct {
	Version string
	Paths   map[string]struct {
		Parameters []string
		Answers    map[string]object
	}
	Schemas map[string]object

	routes []described
}

// described is a route of the description with what its paths look like.
type described struct {
	name string
	form *regexp.Regexp
}

var description = sync.OnceValues(readOpenAPI)

func readOpenAPI() (*openapi, error) {
	packed, err := os.ReadFile("testdata/openapi.json.gz")
	if err != nil {
		return nil, err
	}
	z, err := gzip.NewReader(bytes.NewReader(packed))
	if err != nil {
		return nil, err
	}
	o := &openapi{}
	if err := json.NewDecoder(z).Decode(o); err != nil {
		return nil, err
	}
	variable := regexp.MustCompile(`\\\{[^}]*\}`)
	for name := range o.Paths {
		method, path, _ := strings.Cut(name, " ")
		form := variable.ReplaceAllString(regexp.QuoteMeta(path), `[^/]+`)
		o.routes = append(o.routes, described{name, regexp.MustCompile("^" + method + " " + form + "$")})
	}
	// A route with fewer variables goes first.
	slices.SortFunc(o.routes, func(a, b described) int {
		return strings.Count(a.name, "{") - strings.Count(b.name, "{")
	})
	return o, nil
}

// judge returns what an answer breaks of GitHub's description, nil also where that says
// nothing.
func judge(t testing.TB, method, path string, a answer) []string {
	t.Helper()
	o, err := description()
	if err != nil {
		t.Fatal(err)
	}
	if a.v == nil && a.text != "" {
		return nil // a page of HTML
	}
	path, _, _ = strings.Cut(path, "?")
	path = strings.TrimPrefix(path, "/github")
	if rest, ok := strings.CutPrefix(path, "/repositories/"); ok {
		_, rest, _ = strings.Cut(rest, "/")
		path = strings.TrimSuffix("/repos/o/r/"+rest, "/")
	}
	for _, r := range o.routes {
		if !r.form.MatchString(method + " " + path) {
			continue
		}
		schema, known := o.Paths[r.name].Answers[fmt.Sprint(a.status)]
		switch {
		case !known && a.status < 300:
			return []string{fmt.Sprintf("%s: status %d is not described", r.name, a.status)}
		case schema == nil && a.status < 300 && a.text != "":
			return []string{fmt.Sprintf("%s: %d has a body: %s", r.name, a.status, a.text)}
		case schema == nil:
			return nil
		}
		if a.status >= 400 && schema["$ref"] != nil {
			// Errors have a status that the description does not know.
			schema = o.joined([]any{schema, object{"properties": object{"status": object{}}}})
		}
		return o.validate(r.name, schema, a.v)
	}
	return nil
}

func (o *openapi) resolve(schema object) object {
	for {
		ref, ok := schema["$ref"].(string)
		if !ok {
			return schema
		}
		schema = o.Schemas[strings.TrimPrefix(ref, "#/components/schemas/")]
	}
}

func (o *openapi) validate(at string, schema object, v any) []string {
	schema = o.resolve(schema)
	if v == nil {
		if schema["nullable"] == true || schema["type"] == nil && schema["anyOf"] == nil && schema["oneOf"] == nil && schema["allOf"] == nil {
			return nil
		}
		for _, kind := range []string{"anyOf", "oneOf"} {
			options, _ := schema[kind].([]any)
			for _, option := range options {
				if o.validate(at, option.(object), v) == nil {
					return nil
				}
			}
		}
		return []string{at + " is null"}
	}
	if all, ok := schema["allOf"].([]any); ok {
		return o.validateObject(at, o.joined(all), v)
	}
	for _, kind := range []string{"anyOf", "oneOf"} {
		if options, ok := schema[kind].([]any); ok {
			return o.validateAny(at, options, v)
		}
	}
	return o.validateType(at, schema, v)
}

// joined is one schema with the properties of several.
func (o *openapi) joined(all []any) object {
	properties, required := object{}, []any{}
	for _, one := range all {
		schema := o.resolve(one.(object))
		if more, ok := schema["properties"].(object); ok {
			maps.Copy(properties, more)
		}
		if more, ok := schema["required"].([]any); ok {
			required = append(required, more...)
		}
	}
	return object{"properties": properties, "required": required}
}

func (o *openapi) validateAny(at string, options []any, v any) (broken []string) {
	for _, option := range options {
		problems := o.validate(at, option.(object), v)
		if problems == nil {
			return nil
		}
		if broken == nil || len(problems) < len(broken) {
			broken = problems
		}
	}
	return broken
}

func (o *openapi) validateType(at string, schema object, v any) (broken []string) {
	if enum, ok := schema["enum"].([]any); ok && !slices.Contains(enum, v) {
		return []string{fmt.Sprintf("%s is %v, not one of %v", at, v, enum)}
	}
	want := schema["type"]
	switch v := v.(type) {
	case string:
		if form, _ := schema["format"].(string); form == "date-time" && !regexp.MustCompile(`^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ$`).MatchString(v) {
			broken = append(broken, at+" is no time: "+v)
		}
		return mismatch(at, want, "string", broken)
	case bool:
		return mismatch(at, want, "boolean", nil)
	case float64:
		if want == "number" {
			return nil
		}
		return mismatch(at, want, "integer", nil)
	case []any:
		items, _ := schema["items"].(object)
		for i, element := range v {
			broken = append(broken, o.validate(fmt.Sprintf("%s[%d]", at, i), items, element)...)
		}
		return mismatch(at, want, "array", broken)
	}
	return mismatch(at, want, "object", o.validateObject(at, schema, v))
}

func (o *openapi) validateObject(at string, schema object, v any) (broken []string) {
	given, ok := v.(object)
	if !ok {
		return []string{at + " is no object"}
	}
	properties, _ := schema["properties"].(object)
	required, _ := schema["required"].([]any)
	for _, name := range required {
		if _, ok := given[name.(string)]; !ok {
			broken = append(broken, at+"."+name.(string)+" is missing")
		}
	}
	for _, name := range slices.Sorted(maps.Keys(given)) {
		below, ok := properties[name].(object)
		if ok {
			broken = append(broken, o.validate(at+"."+name, below, given[name])...)
			continue
		}
		if properties != nil && schema["additionalProperties"] == nil {
			broken = append(broken, at+"."+name+" is not in the schema")
		}
	}
	return broken
}

func mismatch(at string, want any, have string, broken []string) []string {
	if want != nil && want != have {
		return append(broken, fmt.Sprintf("%s is %s, not %v", at, have, want))
	}
	return broken
}

// Every answer in these tests is judged by GitHub's description; here all that can be
// read of a world is.
func TestAnswersAreAsGitHubDescribesThem(t *testing.T) {
	t.Parallel()
	h := open(t, github.Options{Unlimited: true, History: 600})
	paths := []string{"/user", "/rate_limit", "/orgs/acme", "/orgs/acme/members", "/user/repos?per_page=100", "/orgs/acme/repos", "/users/acme/repos"}
	for _, r := range h.all("/user/repos") {
		at := "/repos/" + r["full_name"].(string)
		for _, list := range []string{"", "/issues?state=all", "/pulls?state=all", "/issues/comments", "/pulls/comments", "/labels", "/milestones?state=all", "/releases", "/commits",
			"/branches", "/branches/main", "/activity", "/commits/main", "/compare/main...main", "/labels/bug"} {
			paths = append(paths, at+list+map[bool]string{true: "&", false: "?"}[strings.Contains(list, "?")]+"per_page=100")
		}
		for kind, part := range map[string]string{"issues/": "/issues?state=all", "issues/comments/": "/issues/comments", "pulls/": "/pulls?state=all", "pulls/comments/": "/pulls/comments",
			"milestones/": "/milestones", "releases/": "/releases"} {
			list := h.get(at + part).list()
			for _, o := range list[:min(1, len(list))] {
				id := "id"
				if o["number"] != nil {
					id = "number"
				}
				paths = append(paths, at+"/"+kind+text(o[id]))
				if kind == "pulls/" {
					paths = append(paths, at+"/pulls/"+text(o[id])+"/reviews", at+"/pulls/"+text(o[id])+"/commits", at+"/pulls/"+text(o[id])+"/comments", at+"/pulls/"+text(o[id])+"/requested_reviewers")
				}
			}
		}
	}
	for _, path := range paths {
		h.get(path)
	}
	if len(paths) < 80 {
		t.Errorf("only %d paths", len(paths))
	}
}

func TestTheDescriptionIsOfTheRoutesThatAreServed(t *testing.T) {
	t.Parallel()
	listed, err := os.ReadFile("testdata/routes.txt")
	if err != nil {
		t.Fatal(err)
	}
	if want := strings.Join(github.Routes(), "\n") + "\n"; string(listed) != want {
		t.Errorf("testdata/routes.txt must be:\n%s", want)
	}
	o, err := description()
	if err != nil {
		t.Fatal(err)
	}
	for _, route := range github.Routes() {
		if _, ok := o.Paths[route]; !ok {
			t.Errorf("%s is not in GitHub's description", route)
		}
	}
	if missing := github.Unresolved(); missing != nil {
		t.Errorf("in the GraphQL schema and not simulated: %v", missing)
	}
}
