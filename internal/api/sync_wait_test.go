package api_test

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"lockstep"
	"lockstep/internal/api"
	"lockstep/internal/auth"
	"lockstep/internal/pull"
	"lockstep/internal/pull/verify"
	"lockstep/internal/syncs"
	"lockstep/source"
)

func TestWaitHoldsUntilTheMirrorIsThere(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	n.syncs.made(t, "acme")
	n.syncs.holds, n.syncs.entered = make(chan struct{}), make(chan struct{}, 1)
	answered := make(chan response, 1)
	go func() { answered <- n.do("GET", "/v1/syncs/acme/wait?timeout=5m&consumer=orders", "") }()
	<-n.syncs.entered
	select {
	case got := <-answered:
		t.Fatalf("answered before: %d %s", got.status, got.body)
	default:
	}
	close(n.syncs.holds)
	got := <-answered
	if v := mustJSON[map[string]int64](t, got.body); got.status != 200 || len(v) != 1 || v["waited_ms"] < 0 {
		t.Errorf("%d %s", got.status, got.body)
	}
	if n.syncs.last() != "wait orders" {
		t.Errorf("asked %q", n.syncs.last())
	}
}

func TestWaitEndsInTimeAndSaysHowTheSyncIs(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	n.syncs.made(t, "acme")
	n.syncs.tell("acme", func(v *syncs.View) { v.Status = pull.Status{State: pull.Failing, Reason: "503 of the API"} })
	n.syncs.holds = make(chan struct{})
	p := wantProblem(t, n.do("GET", "/v1/syncs/acme/wait?timeout=20", ""), 504)
	if !strings.Contains(p.Detail, "after 20ms") || !strings.Contains(p.Detail, "failing: 503 of the API") {
		t.Errorf("detail %q", p.Detail)
	}
	for _, wrong := range []string{"0", "-1s", "11m", "soon", ""} {
		wantProblem(t, n.do("GET", "/v1/syncs/acme/wait?timeout="+wrong, ""), 400)
	}
	wantProblem(t, n.do("GET", "/v1/syncs/nobody/wait", ""), 404)
	n.syncs.holds, n.syncs.fails = nil, fmt.Errorf("sync acme is paused: resume it: %w", lockstep.ErrConflict)
	wantProblem(t, n.do("GET", "/v1/syncs/acme/wait", ""), 409)
}

func TestVerifyTellsWhatDiffers(t *testing.T) {
	t.Parallel()
	n := newNode(t, auth.Static{Name: "boss", Token: "boss", Scopes: []string{"admin"}})
	n.syncs.made(t, "acme")
	n.syncs.found = verify.Result{
		Checked: 9, Missing: []verify.Difference{{Collection: "stripe:customer", ID: "cus_1"}}, MissingN: 1500, Unchecked: []verify.Unchecked{{Collection: "stripe:upcoming_invoice", Reason: "it is computed"}},
		StartedAt: time.Unix(1, 0), EndedAt: time.Unix(2, 0),
	}
	ask := func(body string) response {
		return n.do("POST", "/v1/syncs/acme/verify", body, "Authorization: Bearer boss")
	}
	got := ask("")
	want := `{"equal":false,"checked":9,"missing":[{"collection":"stripe:customer","id":"cus_1"}],"stale":[],"extra":[],"missing_count":1500,"stale_count":0,"extra_count":0,"repaired":0,` +
		`"unchecked":[{"collection":"stripe:upcoming_invoice","reason":"it is computed"}],"started_at":"1970-01-01T00:00:01Z","ended_at":"1970-01-01T00:00:02Z"}`
	if got.status != 200 || strings.TrimSpace(got.body) != want || n.syncs.last() != "verify [] false" {
		t.Errorf("%d %s", got.status, got.body)
	}
	n.syncs.found.Repaired = 1500
	if got := ask(`{"repair":true,"collections":["stripe:customer"]}`); !strings.Contains(got.body, `"equal":true`) || n.syncs.last() != "verify [stripe:customer] true" {
		t.Errorf("%s; asked %s", got.body, n.syncs.last())
	}
	entries := n.audit.all()
	if e := entries[len(entries)-1]; e.Action != "sync.verify" || e.Target != "acme" || string(e.After) != `{"collections":["stripe:customer"],"repair":true,"missing":1500,"stale":0,"extra":0,"repaired":1500}` {
		t.Errorf("audit %s %s %s", e.Action, e.Target, e.After)
	}
	wantProblem(t, ask(`{"repare":true}`), 400)
	wantProblem(t, ask(`{"repair":true}}`), 400)
	n.syncs.fails = fmt.Errorf("compare: %w", &source.Error{Kind: source.Forbidden, Status: 403, Message: "Stripe refuses /v1/customers: the key lacks rak_customer_read"})
	if p := wantProblem(t, ask(""), 502); !strings.Contains(p.Detail, "rak_customer_read") {
		t.Errorf("detail %q", p.Detail)
	}
	n.syncs.fails = fmt.Errorf("a collection \"x\" is not mirrored: %w", lockstep.ErrInvalid)
	wantProblem(t, ask(`{"collections":["x"]}`), 422)
	if len(n.audit.all()) != len(entries) {
		t.Error("a comparison that failed was recorded")
	}
}

func TestACallerThatGoesAwayEndsItsVerify(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	n.syncs.made(t, "acme")
	n.syncs.holds, n.syncs.entered, n.syncs.left = make(chan struct{}), make(chan struct{}, 1), make(chan struct{}, 1)
	base, _ := n.serve(t, api.Server{WriteTimeout: 50 * time.Millisecond})
	ctx, cancel := context.WithCancel(t.Context())
	gone := make(chan error, 1)
	go func() {
		r, _ := http.NewRequestWithContext(ctx, http.MethodPost, base+"/v1/syncs/acme/verify", strings.NewReader("{}"))
		response, err := http.DefaultClient.Do(r)
		if err == nil {
			response.Body.Close()
		}
		gone <- err
	}()
	<-n.syncs.entered
	cancel()
	if err := <-gone; err == nil {
		t.Error("it was answered")
	}
	<-n.syncs.left
}

func TestAWebhookNeedsASignatureAndNoToken(t *testing.T) {
	t.Parallel()
	n := newNode(t, auth.Static{Name: "boss", Token: "boss", Scopes: []string{"admin"}})
	id := n.syncs.made(t, "acme").Definition.ID
	wantProblem(t, n.do("POST", "/v1/syncs/acme/webhook", `{}`), 401)
	wantProblem(t, n.do("POST", "/v1/syncs/nobody/webhook", `{}`), 404)
	var got []string
	n.syncs.hook = func(ref string, h http.Header, body []byte) error {
		got = append(got, fmt.Sprintf("%s %s %s %d", ref, h.Get("Stripe-Signature"), h.Get("Content-Type"), len(body)))
		return nil
	}
	large := strings.Repeat("x", 4<<20)
	for _, method := range []string{"POST", "PUT", "PATCH", "DELETE", "GET"} {
		if a := n.do(method, "/v1/syncs/"+id+"/webhook", large, "Stripe-Signature: s", "Content-Type: application/x-www-form-urlencoded"); a.status != 202 || a.body != "" {
			t.Errorf("%s: %d %s", method, a.status, a.body)
		}
	}
	want := id + " s application/x-www-form-urlencoded 4194304"
	for _, one := range got {
		if one != want {
			t.Errorf("it came as %q, want %q", one, want)
		}
	}
	wantProblem(t, n.do("POST", "/v1/syncs/acme/webhook", large+large), 413)
	n.syncs.hook = func(string, http.Header, []byte) error {
		return fmt.Errorf("too many hints: %w", lockstep.ErrUnavailable)
	}
	wantProblem(t, n.do("POST", "/v1/syncs/acme/webhook", "{}"), 503)
	if len(n.audit.all()) != 0 {
		t.Error("webhooks are in the audit")
	}
}
