package api_test

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

type trialAnswer struct {
	Looked  int    `json:"looked_at"`
	From    uint64 `json:"from_seq"`
	Stopped string
	Matched int
	Passed  int
	Failed  int
	Results []trialResult
}

type trialResult struct {
	Seq           uint64
	Table, Action string
	Passed        bool
	Error         string
	Message       *tried
	Before        *tried
	Large         int
}

type tried struct{ Record json.RawMessage }

func (n *node) try(t *testing.T, body string) trialAnswer {
	t.Helper()
	got := n.do("POST", "/v1/databases/app/trial", body)
	if got.status != 200 {
		t.Fatalf("trial: %d %s", got.status, got.body)
	}
	return mustJSON[trialAnswer](t, got.body)
}

func TestATrialShowsWhatFilterAndTransformDoToTheLastChanges(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	n.log.add(`{"id":1,"amount":5}`, `{"id":2,"amount":  50}`)
	n.log.addFor("somebody", `{"id":9,"amount":90}`) // read for one consumer: no news to others
	n.log.add(`{"id":3,"amount":"much"}`)
	got := n.try(t, `{"tables":["public.orders"],"filter":"record.amount > 10","transform":"{\"id\": record.id}"}`)
	want := trialAnswer{Looked: 4, From: 1, Stopped: "beginning", Matched: 3, Passed: 1, Failed: 1, Results: []trialResult{
		{Seq: 4, Table: "public.orders", Action: "insert", Error: got.Results[0].Error, Before: &tried{json.RawMessage(`{"id":3,"amount":"much"}`)}},
		{Seq: 2, Table: "public.orders", Action: "insert", Passed: true, Message: &tried{json.RawMessage(`{"id":2}`)}, Before: &tried{json.RawMessage(`{"id":2,"amount":  50}`)}},
		{Seq: 1, Table: "public.orders", Action: "insert", Before: &tried{json.RawMessage(`{"id":1,"amount":5}`)}},
	}}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("-want +got\n%s", diff)
	}
	if !strings.HasPrefix(got.Results[0].Error, "filter: ") {
		t.Errorf("the failure is told as %q", got.Results[0].Error)
	}
	if entries := n.audit.all(); len(entries) != 0 {
		t.Errorf("a trial changes nothing, the audit says %+v", entries)
	}
}

func TestATrialSaysHowFarItLooked(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	if got := n.try(t, `{}`); got.Stopped != "beginning" || got.Looked != 0 || got.From != 0 || got.Results == nil {
		t.Errorf("of an empty stream: %+v", got)
	}
	rows := make([]string, 1000)
	for i := range rows {
		rows[i] = `{"id":1}`
	}
	for range 60 {
		n.log.add(rows...)
	}
	if got := n.try(t, `{"limit":3}`); got.Stopped != "limit" || got.Looked != 3 || got.From != 59_998 || len(got.Results) != 3 || got.Results[0].Seq != 60_000 {
		t.Errorf("of three: %+v", got)
	}
	if got := n.try(t, `{"actions":["delete"]}`); got.Stopped != "looked_at" || got.Looked != 50_000 || got.From != 10_001 || got.Matched != 0 {
		t.Errorf("of none that matches: %+v", got)
	}
	n.log.forget(59_001)
	if got := n.try(t, `{"tables":["public.other"]}`); got.Stopped != "beginning" || got.Looked != 1000 || got.From != 59_001 {
		t.Errorf("of what retention left: %+v", got)
	}
}

func TestATrialCutsLargeMessagesOut(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	row := fmt.Sprintf(`{"id":1,"text":%q}`, strings.Repeat("x", 70_000))
	n.log.add(row)
	got := n.try(t, `{"transform":"{\"id\": record.id}"}`).Results[0]
	if got.Before != nil || got.Message == nil || string(got.Message.Record) != `{"id":1}` || got.Large <= len(row) {
		t.Errorf("the row is cut out and its size told, what the transform makes is not: %+v", got)
	}
	medium := fmt.Sprintf(`{"id":1,"text":%q}`, strings.Repeat("x", 60_000))
	for range 1000 {
		n.log.add(medium)
	}
	answer := n.do("POST", "/v1/databases/app/trial", `{"limit":1000}`)
	if len(answer.body) > 17<<20 {
		t.Errorf("the answer has %d bytes", len(answer.body))
	}
	if all := mustJSON[trialAnswer](t, answer.body).Results; all[0].Before == nil || all[999].Before != nil || all[999].Large < 60_000 {
		t.Errorf("the first has its message, the last one none but its size: %+v", all[999])
	}
}

func TestATrialRefusesWhatCreatingAConsumerRefuses(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	n.log.add(`{"id":1}`)
	for body, location := range map[string]string{
		`{"filter":"record.amount >"}`:                     "body.filter",
		`{"transform":"{\"id\": nothing.id}"}`:             "body.transform",
		`{"tables":["a.b.c.d"]}`:                           "body.tables",
		`{"actions":["upsert"]}`:                           "body.actions[0]",
		`{"collections":["stripe"]}`:                       "body.collections[0]",
		`{"tables":["a.b"],"collections":["stripe:plan"]}`: "body.collections",
		`{"limit":1001}`:                                   "body.limit",
		`{"limit":0}`:                                      "body.limit",
	} {
		p := wantProblem(t, n.do("POST", "/v1/databases/app/trial", body), 422)
		if len(p.Errors) != 1 || p.Errors[0].Location != location {
			t.Errorf("%s: faults %+v, want one of %s", body, p.Errors, location)
		}
	}
	wantProblem(t, n.do("POST", "/v1/databases/app/trial", `{"filtre":"true"}`), 400)
	wantProblem(t, n.do("POST", "/v1/databases/other/trial", `{}`), 404)
	made := wantProblem(t, n.do("POST", "/v1/consumers", `{"name":"x","filter":"record.amount >"}`), 422)
	tried := wantProblem(t, n.do("POST", "/v1/databases/app/trial", `{"filter":"record.amount >"}`), 422)
	if diff := cmp.Diff(made.Errors, tried.Errors); diff != "" {
		t.Errorf("the words differ: -creating +trying\n%s", diff)
	}
}
