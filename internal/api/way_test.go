package api_test

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"lockstep"
	"lockstep/internal/api"
	"lockstep/internal/pgdb/pgtest"
)

type shownChange struct {
	Mirror    map[string]any
	Consumers []shownWay
}

type shownWay struct {
	Name, State, Reason, Matches, Fault string
	Attempts                            int
	BeforeStart                         bool      `json:"before_start"`
	NextAttempt                         time.Time `json:"next_attempt_at"`
	Until                               time.Time
	Dead                                *struct {
		State, Reason string
		Attempts      int
		At            time.Time
	}
	Log []struct {
		ID, Outcome, Error string
		Seqs               []uint64
	} `json:"attempt_log"`
}

func (s shownChange) of(t *testing.T, name string) shownWay {
	t.Helper()
	for _, w := range s.Consumers {
		if w.Name == name {
			return w
		}
	}
	t.Fatalf("there is no consumer %s: %+v", name, s)
	return shownWay{}
}

func TestTheWholeWayOfAChange(t *testing.T) {
	t.Parallel()
	r := newReal(t)
	for _, definition := range []string{
		`{"name":"orders","start":"beginning","max_attempts":1}`, `{"name":"waits","start":"beginning"}`,
		`{"name":"picky","start":"beginning","filter":"record.id > 1"}`, `{"name":"broken","start":"beginning","filter":"record.note > 1"}`,
		`{"name":"elsewhere","start":"beginning","tables":["public.other"]}`,
	} {
		r.want(201, "POST", "/v1/http-consumers", definition)
	}
	r.commit(1)
	r.want(201, "POST", "/v1/http-consumers", `{"name":"younger"}`)
	r.want(204, "POST", "/v1/http-consumers/orders/nack", `{"ack_tokens":`+r.next("wait_for=10s").tokens()+`,"reason":"no stock"}`)
	waits := mustJSON[taken](t, r.want(200, "GET", "/v1/http-consumers/waits/next?wait_for=10s", "").body)
	r.want(204, "POST", "/v1/http-consumers/waits/nack", `{"ack_tokens":`+waits.tokens()+`,"delay":"1h"}`)
	r.want(200, "GET", "/v1/http-consumers/broken/next?wait_for=1ms", "") // finds out

	var got shownChange
	pgtest.Eventually(t, 10*time.Second, "the letters are written", func() bool {
		got = mustJSON[shownChange](t, r.want(200, "GET", "/v1/databases/app/changes/1", "").body)
		return got.of(t, "orders").Dead != nil && got.of(t, "orders").State == "parked" && got.of(t, "broken").Dead != nil
	})
	if w := got.of(t, "orders"); w.Matches != "yes" || w.Dead.State != "parked" || w.Dead.Reason != "no stock" || w.Dead.Attempts != 1 || w.Dead.At.IsZero() {
		t.Errorf("in the dead letters: %+v", w)
	}
	if w := got.of(t, "waits"); w.State != "waiting" || w.Attempts != 1 || w.NextAttempt.Before(time.Now().Add(30*time.Minute)) || w.Dead != nil {
		t.Errorf("waiting: %+v", w)
	}
	for name, matches := range map[string]string{"picky": "filtered", "elsewhere": "not_selected"} {
		if w := got.of(t, name); w.State != "not_matching" || w.Matches != matches {
			t.Errorf("%s: %+v, want %s", name, w, matches)
		}
	}
	if w := got.of(t, "broken"); w.Matches != "failed" || w.Fault == "" {
		t.Errorf("with a filter that fails: %+v", w)
	}
	if w := got.of(t, "younger"); w.State != "settled" || !w.BeforeStart {
		t.Errorf("made later: %+v", w)
	}
	if got.of(t, "orders").BeforeStart || got.Mirror != nil {
		t.Errorf("a change of no mirror, behind the start: %+v", got)
	}
}

func TestAChangeOfAMirrorTellsWhereItComesFrom(t *testing.T) {
	t.Parallel()
	r := newReal(t)
	r.pull(lockstep.Insert, "a title")
	got := mustJSON[shownChange](t, r.want(200, "GET", "/v1/databases/app/changes/1", "").body).Mirror
	at, _ := time.Parse(time.RFC3339, got["committed_at"].(string))
	if time.Since(at) > time.Minute {
		t.Errorf("committed at %s", at)
	}
	delete(got, "committed_at")
	if diff := cmp.Diff(map[string]any{
		"sync_id": acme, "sync": "acme", "provider": "github", "collection_id": "github:pull_request",
		"id": "1b959a7a-09c2-4a32-9c48-31565ba42e15", "upstream_id": "1785067841", "upstream_created_at": "2024-03-21T17:47:28.000000Z",
		"upstream_updated_at": "2024-03-21T17:49:32.000000Z", "fetched_at": "2024-03-21T17:49:33.250000Z", "fingerprint": "AAE=", "notes": nil,
	}, got); diff != "" {
		t.Errorf("-want +got\n%s", diff)
	}
}

func TestAChangeTellsTheAttemptsOfKindsThatSend(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	n.log.add(`{"id":1}`, `{"id":2}`)
	n.sending.attempts = []api.Attempt{
		{ID: 1, Outcome: "retry", Seqs: []uint64{1, 2}, Error: "endpoint: answered 500"}, {ID: 2, Outcome: "delivered", Seqs: []uint64{2}}, {ID: 3, Outcome: "delivered", Seqs: []uint64{1}},
	}
	got := mustJSON[shownChange](t, n.do("GET", "/v1/databases/app/changes/1", "").body)
	log := got.of(t, "printed").Log
	if len(log) != 2 || log[0].ID != "3" || log[0].Outcome != "delivered" || log[1].ID != "1" || log[1].Error != "endpoint: answered 500" {
		t.Errorf("the attempts of change 1, the newest first: %+v", log)
	}
	if pulled := got.of(t, "orders"); pulled.Log != nil {
		t.Errorf("nothing is sent to a pull consumer: %+v", pulled)
	}
}
