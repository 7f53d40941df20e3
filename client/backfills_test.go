package client_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"sync/atomic"
	"testing"

	"github.com/google/go-cmp/cmp"

	"lockstep"
	"lockstep/client"
)

const backfillJSON = `{"id":"b1","n":3,"consumer":{"id":"c1","name":"orders"},"database":"app","gap":false,"where":"amount > 100","origin":"api","state":"running",` +
	`"reason":"","tables":[{"name":"public.orders","state":"running","reason":"","rows":5,"total":10}],"rows":5,"total":10,"overridden":1,"deletes":0,` +
	`"rows_per_second":2.5,"seconds_left":2,"created_at":"2026-11-21T10:00:00Z","started_at":"2026-11-21T10:00:01Z","ended_at":null,"new_field":12345678901234567890}`

func TestEveryCallOfBackfillsIsTheContracts(t *testing.T) {
	t.Parallel()
	var got string
	c := serve(t, func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		got = r.Method + " " + r.URL.RequestURI() + " " + string(body)
		_, _ = io.WriteString(w, backfillJSON)
	})
	ctx := t.Context()
	for want, do := range map[string]func() (client.Backfill, error){
		`POST /v1/consumers/a%2Fb/backfills {"tables":["public.orders"],"where":"amount \u003e 100"}`: func() (client.Backfill, error) {
			return c.StartBackfill(ctx, "a/b", client.BackfillRequest{Tables: []string{"public.orders"}, Where: "amount > 100"})
		},
		`POST /v1/consumers/orders/backfills {}`:       func() (client.Backfill, error) { return c.StartBackfill(ctx, "orders", client.BackfillRequest{}) },
		`POST /v1/databases/app/gaps/backfill `:        func() (client.Backfill, error) { return c.RepairGaps(ctx, "app") },
		`GET /v1/backfills/b1 `:                        func() (client.Backfill, error) { return c.Backfill(ctx, "b1") },
		`GET /v1/consumers/orders/backfills/3 `:        func() (client.Backfill, error) { return c.ConsumerBackfill(ctx, "orders", 3) },
		`PATCH /v1/backfills/b1 {"state":"paused"}`:    func() (client.Backfill, error) { return c.PauseBackfill(ctx, "b1") },
		`PATCH /v1/backfills/b1 {"state":"running"}`:   func() (client.Backfill, error) { return c.ResumeBackfill(ctx, "b1") },
		`PATCH /v1/backfills/b1 {"state":"cancelled"}`: func() (client.Backfill, error) { return c.CancelBackfill(ctx, "b1") },
	} {
		b, err := do()
		if got != want {
			t.Errorf("got %s, want %s", got, want)
		}
		if err != nil || b.N != 3 || b.Consumer.Name != "orders" || *b.SecondsLeft != 2 || b.Tables[0].Rows != 5 || b.EndedAt != nil || b.Ended() || string(b.Raw) != backfillJSON {
			t.Errorf("%s: %+v, %v", want, b, err)
		}
	}
}

func TestBackfillsAreListedToTheEnd(t *testing.T) {
	t.Parallel()
	var asked []string
	c := serve(t, func(w http.ResponseWriter, r *http.Request) {
		asked = append(asked, r.URL.RawQuery)
		next := `"x"`
		if r.URL.Query().Get("cursor") != "" {
			next = "null"
		}
		_, _ = fmt.Fprintf(w, `{"data":[%s],"next_cursor":%s}`, backfillJSON, next)
	})
	list, err := c.Backfills(t.Context(), client.BackfillFilter{Consumer: "orders", Database: "app", Active: true})
	if err != nil || len(list) != 2 || len(list[1].Raw) == 0 {
		t.Errorf("got %d, %v", len(list), err)
	}
	want := []string{"active=true&consumer=orders&database=app&limit=1000", "active=true&consumer=orders&cursor=x&database=app&limit=1000"}
	if d := cmp.Diff(want, asked); d != "" {
		t.Errorf("asked (-want +got):\n%s", d)
	}
}

// A start that was lost on its way may have begun: only what may be done twice is
// repeated.
func TestAStartIsMadeOnceAndAPauseRepeated(t *testing.T) {
	t.Parallel()
	var calls atomic.Int64
	c := serve(t, func(w http.ResponseWriter, _ *http.Request) {
		if calls.Add(1)%2 == 1 {
			refuse(w, http.StatusServiceUnavailable, "")
			return
		}
		_, _ = io.WriteString(w, backfillJSON)
	})
	if _, err := c.StartBackfill(t.Context(), "orders", client.BackfillRequest{}); !errors.Is(err, lockstep.ErrUnavailable) || calls.Load() != 1 {
		t.Errorf("start: %v after %d calls", err, calls.Load())
	}
	calls.Store(0)
	if _, err := c.PauseBackfill(t.Context(), "b1"); err != nil || calls.Load() != 2 {
		t.Errorf("pause: %v after %d calls", err, calls.Load())
	}
}

func TestAReadTellsWhichBackfillReadIt(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{`,"backfill":{"id":"b1"}`: `{"id":"b1"}`, `,"backfill":null`: "", "": ""} {
		c, err := client.ParseChange([]byte(`{"record":{},"changes":null,"action":"read","metadata":{"seq":1` + text + `}}`))
		if err != nil || string(c.Metadata.Backfill) != want {
			t.Errorf("%s: got %s, %v", text, c.Metadata.Backfill, err)
		}
	}
}

func TestADatabaseTellsOfGapsAndWarnings(t *testing.T) {
	t.Parallel()
	c := serve(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/v1/databases/app" {
			t.Errorf("path %s", r.URL.Path)
		}
		_, _ = io.WriteString(w, `{"name":"app","status":"warn","slot":{"name":"s","safe_bytes":7},"gaps":[{"reason":"slot_lost","tables":[],"from_lsn":"0/1","to_lsn":"0/2",
			"at":"2026-11-21T10:00:00Z","remedy":"lockstep backfill --gap --database app"}],"warnings":["w"],"oldest_transaction":{"pid":7,"xid":"733","age_s":90,"state":"active","user":"u"}}`)
	})
	d, err := c.Database(t.Context(), "app")
	if err != nil || d.Gaps[0].Remedy != "lockstep backfill --gap --database app" || d.Warnings[0] != "w" || *d.Slot.SafeBytes != 7 || d.OldestTransaction.AgeS != 90 {
		t.Errorf("%+v, %v", d, err)
	}
	var consumer client.Consumer
	if err := json.Unmarshal([]byte(`{"name":"a","backfill":true}`), &consumer); err != nil || !consumer.Backfill {
		t.Errorf("%+v, %v", consumer, err)
	}
}
