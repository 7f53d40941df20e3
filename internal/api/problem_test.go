package api_test

import (
	"net/http"
	"strings"
	"testing"
)

// badCall is a request that is wrong, and what the answer must say.
type badCall struct {
	method, target, body string
	status               int
	location, says       string
}

func badCalls() map[string]badCall {
	huge := `{"ack_tokens":["` + strings.Repeat("x", 1<<20) + `"]}`
	return map[string]badCall{
		"unknown address":           {"GET", "/v2", "", 404, "", "openapi.json"},
		"slash at the end":          {"GET", "/v1/consumers/", "", 404, "", ""},
		"wrong method":              {"PUT", "/v1/consumers", "", 405, "", "GET"},
		"unknown consumer":          {"GET", "/v1/consumers/nobody", "", 404, "", "nobody"},
		"unknown consumer, next":    {"GET", "/v1/http-consumers/nobody/next", "", 404, "", "nobody"},
		"consumer of another kind":  {"GET", "/v1/http-consumers/printed", "", 404, "", "stdout"},
		"next of another kind":      {"GET", "/v1/consumers/printed/next", "", 409, "", "stdout"},
		"batch 0":                   {"GET", "/v1/consumers/orders/next?batch_size=0", "", 400, "query.batch_size", "1 to 1000"},
		"batch 1001":                {"GET", "/v1/consumers/orders/next?batch_size=1001", "", 400, "query.batch_size", "1 to 1000"},
		"batch text":                {"GET", "/v1/consumers/orders/next?batch_size=many", "", 400, "query.batch_size", "1 to 1000"},
		"batch 0 in the body":       {"POST", "/v1/consumers/orders/next", `{"batch_size":0}`, 400, "body.batch_size", "1 to 1000"},
		"wait text":                 {"GET", "/v1/consumers/orders/next?wait_for=soon", "", 400, "query.wait_for", "soon"},
		"wait negative":             {"GET", "/v1/consumers/orders/next?wait_for=-1", "", 400, "query.wait_for", "-1"},
		"wait too long":             {"GET", "/v1/consumers/orders/next?wait_for=6m", "", 400, "query.wait_for", "5m"},
		"next, unknown member":      {"POST", "/v1/consumers/orders/next", `{"size":1}`, 400, "body.size", "size"},
		"ack without a body":        {"POST", "/v1/consumers/orders/ack", ``, 400, "body", "ends too early"},
		"ack, malformed":            {"POST", "/v1/consumers/orders/ack", "{\n\"ack_tokens\": [,]}", 400, "body", "line 2, column 16"},
		"ack, one brace too many":   {"POST", "/v1/consumers/orders/ack", `{"ack_tokens":["a"]}}`, 400, "body", "one closing bracket too many"},
		"ack, no tokens":            {"POST", "/v1/consumers/orders/ack", `{"ack_tokens":[]}`, 400, "body.ack_tokens", "at least one"},
		"ack, tokens of wrong type": {"POST", "/v1/consumers/orders/ack", `{"ack_tokens":"a"}`, 400, "body.ack_tokens", "expected an array"},
		"ack, empty token":          {"POST", "/v1/consumers/orders/ack", `{"ack_tokens":["a",""]}`, 400, "body.ack_tokens[1]", "empty"},
		"ack, unknown member":       {"POST", "/v1/consumers/orders/ack", `{"ack_tokens":["a"],"delay":"1s"}`, 400, "body.delay", "delay"},
		"ack, malformed token":      {"POST", "/v1/consumers/orders/ack", `{"ack_tokens":["malformed"]}`, 400, "", "malformed"},
		"nack, bad delay":           {"POST", "/v1/consumers/orders/nack", `{"ack_tokens":["a"],"delay":"later"}`, 400, "body", "later"},
		"extend without by":         {"POST", "/v1/consumers/orders/extend", `{"ack_tokens":["a"]}`, 400, "body.by", "60s"},
		"body too large":            {"POST", "/v1/consumers/orders/ack", huge, 413, "", "1048576"},
		"definition too large":      {"POST", "/v1/consumers", huge, 413, "", ""},
		"seek to nowhere":           {"POST", "/v1/consumers/orders/seek", `{"to":"nowhere"}`, 400, "", "nowhere"},
		"peek 0":                    {"GET", "/v1/consumers/orders/peek?limit=0", "", 400, "query.limit", "1 to 1000"},
		"dead, bad cursor":          {"GET", "/v1/consumers/orders/dead?cursor=x", "", 400, "query.cursor", "next_cursor"},
		"dead, bad seq":             {"GET", "/v1/consumers/orders/dead/x", "", 400, "path.seq", "x"},
		"dead, unknown seq":         {"GET", "/v1/consumers/orders/dead/7", "", 404, "", "7"},
		"definition, malformed":     {"POST", "/v1/consumers", `{"name":"x"}}`, 400, "body", "one closing bracket too many"},
		"definition, unknown key":   {"POST", "/v1/consumers", `{"name":"x","tabels":[]}`, 422, "body.tabels", "unexpected property"},
		"definition, wrong type":    {"POST", "/v1/consumers", `{"name":"x","tables":"public.a"}`, 422, "body.tables", "array"},
		"unknown database":          {"GET", "/v1/databases/nope", "", 404, "", "nope"},
		"changes, unknown database": {"GET", "/v1/databases/nope/changes", "", 404, "", "nope"},
		"changes, bad action":       {"GET", "/v1/databases/app/changes?actions=upsert", "", 400, "query.actions", "upsert"},
		"changes, bad filter":       {"GET", "/v1/databases/app/changes?filter=record.%2B", "", 400, "query.filter", ""},
		"changes, bad from":         {"GET", "/v1/databases/app/changes?from=yesterday", "", 400, "query.from", "yesterday"},
		"changes, bad id":           {"GET", "/v1/databases/app/changes?last_event_id=a", "", 400, "query.last_event_id", "a"},
		"change not there":          {"GET", "/v1/databases/app/changes/99", "", 404, "", "99"},
		"change, bad seq":           {"GET", "/v1/databases/app/changes/0", "", 400, "path.seq", "0"},
		"token without scope":       {"POST", "/v1/tokens", `{"name":"x","scopes":["root"]}`, 422, "body.scopes", "root"},
		"token not there":           {"DELETE", "/v1/tokens/none", "", 404, "", "none"},
		"HEAD of next":              {"HEAD", "/v1/consumers/orders/next", "", 405, "", ""},
	}
}

func TestErrorsAreProblemDocumentsWithTheDocumentedStatus(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	for name, c := range badCalls() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := wantProblem(t, n.do(c.method, c.target, c.body), c.status)
			if !strings.Contains(p.Detail, c.says) {
				t.Errorf("detail %q does not say %q", p.Detail, c.says)
			}
			if c.location == "" {
				return
			}
			if len(p.Errors) == 0 || p.Errors[0].Location != c.location || p.Errors[0].Message == "" {
				t.Errorf("errors %+v; want one at %s", p.Errors, c.location)
			}
		})
	}
}

func TestAWrongMethodNamesTheRightOnes(t *testing.T) {
	t.Parallel()
	got := newNode(t).do("PUT", "/v1/consumers", "")
	if allow := got.header.Get("Allow"); !strings.Contains(allow, "GET") || !strings.Contains(allow, "POST") {
		t.Errorf("Allow: %q", allow)
	}
}

func TestAPanicIsAnAnswerWithAnIDThatTheLogKnows(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	c := n.consumer("orders")
	c.mu.Lock()
	c.explodes = true
	c.mu.Unlock()
	p := wantProblem(t, n.do("GET", "/v1/consumers/orders/next", ""), http.StatusInternalServerError)
	if p.RequestID == "" || strings.Contains(p.Detail, "seen by the test only") {
		t.Errorf("problem %+v; want an id, and not the panic's text", p)
	}
	if logged := n.logged.String(); !strings.Contains(logged, p.RequestID) || !strings.Contains(logged, "seen by the test only") {
		t.Errorf("the log lacks the id or the text:\n%s", logged)
	}
}
