package api_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"lockstep/internal/api"
	"lockstep/internal/deliver"
)

// memSending sends to everybody, and remembers what it is told to.
type memSending struct {
	mu       sync.Mutex
	state    string // default ok
	attempts []api.Attempt
	fails    error // what a test says
}

func (s *memSending) Destination(string) (api.Destination, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.state == "" {
		return api.Destination{State: "ok", Since: time.Now()}, true
	}
	return api.Destination{State: s.state, Reason: "endpoint: answered 500", Since: time.Now(), NextTry: time.Now().Add(time.Minute)}, true
}

func (s *memSending) Attempts(_ string, before uint64, limit int, which api.AttemptFilter) (list []api.Attempt, more bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, a := range slices.Backward(s.attempts) {
		if before != 0 && a.ID >= before || which == api.FailedAttempts && a.Outcome == "delivered" {
			continue
		}
		if len(list) == limit {
			return list, true
		}
		list = append(list, a)
	}
	return list, false
}

func (s *memSending) AttemptsOf(_ string, seq uint64, limit int) (list []api.Attempt) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, a := range slices.Backward(s.attempts) {
		if slices.Contains(a.Seqs, seq) && len(list) < limit {
			list = append(list, a)
		}
	}
	return list
}

func (s *memSending) Test(context.Context, string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.fails
}

// memKinds has the kind webhook with the settings url and secret.
type memKinds struct{}

func (memKinds) Names() []string { return []string{"webhook", "stdout"} }

func (memKinds) members(settings json.RawMessage) map[string]any {
	m := map[string]any{}
	if len(settings) > 0 {
		_ = json.Unmarshal(settings, &m)
	}
	return m
}

func (k memKinds) Check(kind string, settings json.RawMessage) (problems []deliver.Problem) {
	m := k.members(settings)
	if _, ok := m["url"]; !ok && kind == "webhook" {
		problems = append(problems, deliver.Problem{Field: "url", Message: "say where changes are sent"})
	}
	for name := range m {
		if name != "url" && name != "secret" {
			problems = append(problems, deliver.Problem{Field: name, Message: "unknown key"})
		}
	}
	return problems
}

func (k memKinds) Shown(_ string, settings json.RawMessage) json.RawMessage {
	if len(settings) == 0 {
		return nil
	}
	m := k.members(settings)
	if _, ok := m["secret"]; ok {
		m["secret"] = "[hidden]"
	}
	raw, _ := json.Marshal(m)
	return raw
}

func (k memKinds) Merge(_ string, old, change json.RawMessage) (json.RawMessage, error) {
	if len(change) == 0 || change[0] != '{' {
		return nil, errors.New("expected keys and values")
	}
	m := k.members(old)
	maps.Copy(m, k.members(change))
	return json.Marshal(m)
}

func TestSettingsOfAKindAreTakenAndNeverShown(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	made := n.do("POST", "/v1/consumers", `{"name":"hooks","kind":"webhook","webhook":{"url":"https://a.test","secret":"whsec_deep"},"batch":{"size":10,"wait":"50ms"}}`)
	if made.status != 201 || !strings.Contains(made.body, `"webhook":{"secret":"[hidden]","url":"https://a.test"}`) || !strings.Contains(made.body, `"batch":{"size":10,"wait":"50ms"}`) {
		t.Fatalf("made: %d %s", made.status, made.body)
	}
	c := n.consumer("hooks")
	if got := string(c.Definition().Settings); got != `{"secret":"whsec_deep","url":"https://a.test"}` {
		t.Errorf("settings: %s", got)
	}
	if got := n.do("PATCH", "/v1/consumers/hooks", `{"webhook":{"url":"https://b.test"}}`); got.status != 200 {
		t.Fatalf("changed: %d %s", got.status, got.body)
	}
	if got := string(c.Definition().Settings); got != `{"secret":"whsec_deep","url":"https://b.test"}` {
		t.Errorf("settings after a change: %s", got)
	}
	everything := n.logged.String() + n.do("GET", "/v1/consumers/hooks", "").body + n.do("GET", "/v1/consumers", "").body
	for _, e := range n.audit.all() {
		everything += string(e.Before) + string(e.After)
	}
	if strings.Contains(everything, "whsec_deep") || !strings.Contains(everything, "b.test") {
		t.Error("a secret shows, or nothing does")
	}
}

func TestFaultsOfSettings(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	for body, want := range map[string]string{
		`{"name":"a","kind":"webhook"}`:                                       "body.webhook.url",
		`{"name":"a","kind":"webhook","webhook":{"url":"x","urll":"y"}}`:      "body.webhook.urll",
		`{"name":"a","kind":"webhook","webhook":7}`:                           "body.webhook",
		`{"name":"a","webhook":{"url":"x"}}`:                                  "body.webhook",
		`{"name":"a","kind":"kafka","kafka":{}}`:                              "body.kind",
		`{"name":"a","kind":"stdout","batch":{"size":0}}`:                     "body.batch.size",
		`{"name":"a","kind":"webhook","webhook":{"url":"x"},"redis":{"a":1}}`: "body.redis",
	} {
		got := n.do("POST", "/v1/consumers", body)
		if wantProblem(t, got, 422); !strings.Contains(got.body, `"location":"`+want+`"`) {
			t.Errorf("%s: %s, want a fault at %s", body, got.body, want)
		}
	}
}

func TestHowSendingGoesIsShown(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	if got := n.do("GET", "/v1/consumers/printed", ""); !strings.Contains(got.body, `"destination":{"state":"ok"`) || !strings.Contains(got.body, `"health":{"status":"ok"}`) {
		t.Errorf("it goes well: %s", got.body)
	}
	n.sending.state = "open"
	if got := n.do("GET", "/v1/consumers/printed", ""); !strings.Contains(got.body, `"health":{"status":"error","reason":"endpoint: answered 500"}`) || !strings.Contains(got.body, `"next_try_at":"`) {
		t.Errorf("it does not go: %s", got.body)
	}
	n.sending.state = "retrying"
	if got := n.do("GET", "/v1/consumers/printed", ""); !strings.Contains(got.body, `"health":{"status":"warn"`) {
		t.Errorf("it is tried: %s", got.body)
	}
}

func TestAttemptsAreListedByPages(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	for id := range uint64(5) {
		a := api.Attempt{ID: id + 1, At: time.Now(), Duration: 1500 * time.Microsecond, Outcome: "delivered", Number: 1, Changes: 1, Seqs: []uint64{40 + id}, Method: "POST", URL: "https://a.test/…", Status: 200}
		if id == 2 {
			a.Outcome, a.Status, a.Error, a.Answer = "retry", 500, "endpoint: answered 500", "oh\xff"
		}
		n.sending.attempts = append(n.sending.attempts, a)
	}
	got := n.do("GET", "/v1/consumers/printed/attempts?limit=2", "")
	if got.status != 200 || !strings.Contains(got.body, `"id":"5"`) || !strings.Contains(got.body, `"duration_ms":1.5`) || !strings.Contains(got.body, `"next_cursor":"4"`) {
		t.Fatalf("the first page: %d %s", got.status, got.body)
	}
	if got = n.do("GET", "/v1/consumers/printed/attempts?limit=3&cursor=4", ""); !strings.Contains(got.body, `"id":"1"`) || !strings.Contains(got.body, `"next_cursor":null`) {
		t.Errorf("the last page: %s", got.body)
	}
	if got = n.do("GET", "/v1/consumers/printed/attempts?failed=true", ""); strings.Count(got.body, `"id":`) != 1 || !strings.Contains(got.body, `"answer":"oh�"`) {
		t.Errorf("those that failed: %s", got.body)
	}
	wantProblem(t, n.do("GET", "/v1/consumers/printed/attempts?cursor=x", ""), 400)
	wantProblem(t, n.do("GET", "/v1/consumers/nobody/attempts", ""), 404)
}

func TestATestEventTellsWhatTheDestinationSaid(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	if got := n.do("POST", "/v1/consumers/printed/test", ""); got.status != 200 || !strings.Contains(got.body, `"delivered":true`) {
		t.Errorf("it went well: %d %s", got.status, got.body)
	}
	n.sending.fails = errors.New("endpoint: answered 403")
	if got := n.do("POST", "/v1/consumers/printed/test", ""); got.status != 200 || !strings.Contains(got.body, `"delivered":false,"error":"endpoint: answered 403"`) {
		t.Errorf("it did not: %d %s", got.status, got.body)
	}
}

func TestReplaysAskForOneForm(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	for body, status := range map[string]int{
		`{"seq":42}`: 200, `{"from":40,"to":50}`: 200, `{"from":"2026-11-01T00:00:00Z"}`: 200, `{"from":"seq:4"}`: 200, `{"failed_since":"1h"}`: 200,
		`{}`: 422, `{"seq":42,"from":1}`: 422, `{"to":50}`: 422, `{"from":"yesterday"}`: 400, `{"from":50,"to":40}`: 400, `{"failed_since":"x"}`: 400, `{"seq":0}`: 422,
	} {
		if got := n.do("POST", "/v1/consumers/orders/replay", body); got.status != status {
			t.Errorf("%s: %d %s, want %d", body, got.status, got.body, status)
		}
	}
	if got := fmt.Sprint(len(n.audit.all())); got != "5" {
		t.Errorf("%s replays are in the audit", got)
	}
}
