package api_test

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"lockstep"
	"lockstep/internal/api"
)

// event is one event as a client sees it.
type event struct{ id, name, data string }

// client reads a stream of events as browsers do.
type client struct {
	began string // the id that stands before the first event
	t     testing.TB
	lines *bufio.Scanner
	stop  context.CancelFunc
	got   http.Header
}

func (n *node) follow(t testing.TB, query string, headers ...string) *client {
	t.Helper()
	server := httptest.NewServer(n)
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	t.Cleanup(func() { cancel(); server.Close() })
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, server.URL+"/v1/databases/app/changes"+query, nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, h := range headers {
		name, value, _ := strings.Cut(h, ": ")
		r.Header.Set(name, value)
	}
	w, err := server.Client().Do(r)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = w.Body.Close() })
	if w.StatusCode != http.StatusOK {
		t.Fatalf("status %d", w.StatusCode)
	}
	c := &client{t: t, lines: newLines(w.Body), stop: cancel, got: w.Header}
	if first := c.block(); len(first) != 2 || first[0] != "retry: 2000" || !strings.HasPrefix(first[1], "id: ") {
		t.Fatalf("the stream begins with %q, want retry: 2000 and the place before the first event", first)
	} else {
		c.began = strings.TrimPrefix(first[1], "id: ")
	}
	return c
}

func newLines(r io.Reader) *bufio.Scanner {
	lines := bufio.NewScanner(r)
	lines.Buffer(nil, 16<<20)
	return lines
}

// block returns the lines up to the next empty one; none at the end.
func (c *client) block() []string {
	c.t.Helper()
	var out []string
	for c.lines.Scan() {
		if c.lines.Text() == "" {
			return out
		}
		out = append(out, c.lines.Text())
	}
	if len(out) > 0 {
		c.t.Errorf("the stream ended within an event: %q", out)
	}
	return nil
}

// event returns the next event; comments are skipped.
func (c *client) event() event {
	c.t.Helper()
	for {
		lines := c.block()
		if lines == nil {
			c.t.Fatal("the stream ended")
		}
		var e event
		for _, line := range lines {
			name, value, _ := strings.Cut(line, ": ")
			switch name {
			case "id":
				e.id = value
			case "event":
				e.name = value
			case "data":
				e.data += value
			}
		}
		if e.data != "" {
			return e
		}
	}
}

func (c *client) ids(n int) []string {
	c.t.Helper()
	var out []string
	for range n {
		out = append(out, c.event().id)
	}
	return out
}

func TestAStreamOfEventsHasTheFormOfTheContract(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	n.log.add(`{"id": 1, "doc": {"a":` + "\n" + `  1.10}}`)
	c := n.follow(t, "?from=beginning")
	for name, want := range map[string]string{"Content-Type": "text/event-stream", "Cache-Control": "no-store, no-transform", "X-Accel-Buffering": "no"} {
		if got := c.got.Get(name); got != want {
			t.Errorf("%s: %q, want %q", name, got, want)
		}
	}
	e := c.event()
	if e.id != "1" || e.name != "insert" || !strings.HasPrefix(e.data, `{"record":{"id": 1, "doc": {"a":   1.10}},"changes":null,"action":"insert","metadata":{"database":"app",`) || !json.Valid([]byte(e.data)) {
		t.Errorf("event %+v", e)
	}
	n.log.add(`{"id": 2}`)
	if e := c.event(); e.id != "2" || !strings.Contains(e.data, `"seq":2,`) {
		t.Errorf("the live event: %+v", e)
	}
}

func TestAStreamOfEventsBeginsWhereItIsAsked(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		query, header string
		first         string
	}{
		{"?from=beginning", "", "1"},
		{"?from=seq:3", "", "3"},
		{"?from=3", "", "3"},
		{"?from=1h", "", "1"},
		{"", "", "5"},
		{"?from=now", "", "5"},
		{"", "Last-Event-ID: 2", "3"},
		{"", "Last-Event-Id: 2", "3"},
		{"?last_event_id=3", "", "4"},
		{"?from=beginning", "Last-Event-ID: 4", "5"},
		{"", "Last-Event-ID: 0", "1"},
	} {
		t.Run(c.query+c.header, func(t *testing.T) {
			t.Parallel()
			n := newNode(t)
			n.log.add(`{"id":1}`, `{"id":2}`, `{"id":3}`)
			n.log.add(`{"id":4}`)
			var headers []string
			if c.header != "" {
				headers = append(headers, c.header)
			}
			stream := n.follow(t, c.query, headers...)
			if before, _ := strconv.Atoi(stream.began); strconv.Itoa(before+1) != c.first {
				t.Errorf("a client that is cut off at once resumes after %s, want the place before %s", stream.began, c.first)
			}
			n.log.add(`{"id":5}`)
			if got := stream.event().id; got != c.first {
				t.Errorf("begins with %s, want %s", got, c.first)
			}
		})
	}
}

func TestAStreamOfEventsSendsWhatWasSelected(t *testing.T) {
	t.Parallel()
	n := newNodeWith(t, func(c *api.Config) {
		c.Tables = func(patterns []string) (func(*lockstep.Table) bool, error) {
			if len(patterns) > 0 && patterns[0] == "bad" {
				return nil, fmt.Errorf("bad is not a pattern")
			}
			return func(t *lockstep.Table) bool { return len(patterns) == 0 || patterns[0] == t.String() }, nil
		}
	})
	n.log.add(`{"id":1,"n":5}`, `{"id":2,"n":50}`, `{"id":3,"n":7}`)
	for query, want := range map[string][]string{
		"&filter=record.n+%3C+10":                   {"1", "3"},
		"&tables=public.orders&filter=record.id==2": {"2"},
		"&actions=insert,delete":                    {"1", "2", "3"},
	} {
		if got := n.follow(t, "?from=beginning"+query).ids(len(want)); !cmp.Equal(got, want) {
			t.Errorf("%s: %v, want %v", query, got, want)
		}
	}
	for _, query := range []string{"&tables=public.other", "&actions=delete", "&filter=record.n+%3E+1000"} {
		c := n.follow(t, "?from=1"+query)
		n.log.add(`{"id":4,"n":1}`)
		c.stop()
		for {
			lines := c.block()
			if lines == nil {
				break
			}
			t.Errorf("%s: %q was sent", query, lines)
		}
	}
	wantProblem(t, n.do("GET", "/v1/databases/app/changes?tables=bad", ""), 400)
}

func TestAFailingFilterIsAnEventNotAGap(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	n.log.add(`{"id":1,"n":"text"}`, `{"id":2,"n":1}`)
	c := n.follow(t, "?from=beginning&filter=record.n+%2B+1+%3E+0")
	e := c.event()
	var told struct {
		Seq    int
		Reason string
	}
	if err := json.Unmarshal([]byte(e.data), &told); err != nil || e.name != "error" || e.id != "1" || told.Seq != 1 || told.Reason == "" {
		t.Errorf("event %+v", e)
	}
	if e := c.event(); e.id != "2" || e.name != "insert" {
		t.Errorf("the change after it: %+v", e)
	}
}

func TestAGapIsAnEvent(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	n.log.add(`{"id":1}`, `{"id":2}`)
	n.log.add(`{"id":3}`)
	n.log.forget(3)
	type gap struct {
		Record   json.RawMessage
		Action   string
		Metadata struct {
			Gap struct {
				State, Reason string
				Missed        *uint64
				First         uint64 `json:"first_seq"`
			}
		}
	}
	one := uint64(1)
	for id, want := range map[string]struct {
		reason string
		missed *uint64
	}{"1": {"retention", &one}, "77": {"unknown_position", nil}} {
		c := n.follow(t, "", "Last-Event-ID: "+id)
		e := c.event()
		got := mustJSON[gap](t, e.data)
		g := got.Metadata.Gap
		if e.name != "gap" || e.id != "2" || got.Action != "gap" || string(got.Record) != "null" || g.Reason != want.reason || !cmp.Equal(g.Missed, want.missed) || g.First != 3 || g.State == "" {
			t.Errorf("behind %s: %+v", id, e)
		}
		if e := c.event(); e.id != "3" {
			t.Errorf("after the gap: %+v", e)
		}
	}
}

func TestASilentStreamBeats(t *testing.T) {
	t.Parallel()
	n := newNodeWith(t, func(c *api.Config) { c.Heartbeat = 10 * time.Millisecond })
	c := n.follow(t, "")
	if got := c.block(); len(got) != 1 || got[0] != ": heartbeat" {
		t.Errorf("got %q, want a comment", got)
	}
	if got := n.follow(t, "?heartbeat=event").block(); len(got) != 2 || got[0] != "event: heartbeat" || got[1] != "data: {}" {
		t.Errorf("got %q, want an event without id", got)
	}
	c = n.follow(t, "?filter=false")
	for range 3 { // changes that are not wanted must not silence it
		n.log.add(`{"id":1}`)
		if got := c.block(); len(got) != 1 || got[0] != ": heartbeat" {
			t.Errorf("got %q, want a comment", got)
		}
	}
}

// A backfill of one consumer is no news to those who watch the database.
func TestAStreamLeavesOutRowsThatAreForOneConsumer(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	n.log.add(`{"id":1}`)
	n.log.addFor(n.consumer("orders").Definition().ID, `{"id":2}`, `{"id":3}`)
	n.log.add(`{"id":4}`)
	for _, query := range []string{"?from=beginning", "?from=1&actions=insert,read", "?from=beginning&filter=true"} {
		c := n.follow(t, query)
		for _, want := range []string{"1", "4"} {
			if e := c.event(); e.id != want || !strings.Contains(e.data, `"record":{"id":`+want+`}`) {
				t.Errorf("%s: got %+v, want change %s", query, e, want)
			}
		}
		c.stop()
	}
	if e := n.follow(t, "?from=beginning", "Last-Event-ID: 2").event(); e.id != "4" {
		t.Errorf("resumed within such rows: %+v, want change 4", e)
	}
}

func TestOneChangeShowsWhereItIs(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	n.log.add(`{"id":1,"a":  1.10}`)
	got := n.do("GET", "/v1/databases/app/changes/1", "")
	if !strings.HasPrefix(got.body, `{"record":{"id":1,"a":  1.10},"changes":null,"action":"insert","metadata":{`) {
		t.Errorf("%d %s", got.status, got.body)
	}
	type found struct {
		Consumers []struct {
			Name, State, Reason, Until string
			Attempts                   int
		}
	}
	all := mustJSON[found](t, got.body).Consumers
	if len(all) != 3 || all[1].Name != "orders" || all[1].State != "in_flight" || all[1].Attempts != 2 || all[1].Until != "1970-01-01T00:00:01Z" {
		t.Errorf("consumers %+v", all)
	}
	n.log.forget(2)
	wantProblem(t, n.do("GET", "/v1/databases/app/changes/1", ""), http.StatusGone)
}
