package api_test

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"lockstep"
	"lockstep/internal/api"
	"lockstep/internal/auth"
	"lockstep/internal/events"
	"lockstep/internal/pgdb/pgtest"
)

// memEvents serves public.orders of a log in memory as the events table.
type memEvents struct {
	*events.Server
	log *memLog

	mu    sync.Mutex
	err   error  // guarded by mu: of Table
	asked string // guarded by mu: the last arguments of Table
}

func (e *memEvents) Table(database, table string) (api.EventTable, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.asked = database + "/" + table
	return api.EventTable{Database: "app", Table: events.Table{Schema: "public", Name: "orders"}}, e.err
}

func (e *memEvents) Log(string) (api.Log, error) { return api.LogOf(e.log), nil }

func (e *memEvents) fail(err error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.err = err
}

// newEvents makes a node that serves events, and its address.
func newEvents(t testing.TB, tune func(*api.Config), limits events.Limits, static ...auth.Static) (*node, *memEvents, string) {
	t.Helper()
	e := &memEvents{}
	n := newNodeWith(t, func(c *api.Config) {
		c.Events = e
		c.TableWait = 50 * time.Millisecond
		if tune != nil {
			tune(c)
		}
	}, static...)
	e.log = n.log
	e.Server = events.New(events.Config{Log: func(string) (events.Log, error) { return events.LogOf(n.log), nil }, Limits: limits})
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	done := make(chan error, 1)
	go func() { done <- e.Run(ctx) }()
	server := httptest.NewServer(n)
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
		server.Close()
	})
	return n, e, server.URL
}

func happening(id int, subscriber string) string {
	return fmt.Sprintf(`{"id":%d,"type":"made","subscriber":%q,"payload":{"n": %d}}`, id, subscriber, id)
}

// listen opens a stream of events; options are headers.
func listen(t testing.TB, address, query string, headers ...string) (*client, *http.Response) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	t.Cleanup(cancel)
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, address+"/events"+query, nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, h := range headers {
		name, value, _ := strings.Cut(h, ": ")
		r.Header[name] = []string{value} // as it is written: clients differ in case
	}
	w, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = w.Body.Close() })
	return &client{t: t, lines: newLines(w.Body), stop: cancel, got: w.Header}, w
}

func TestEventsHaveTheFormOfTheContract(t *testing.T) {
	t.Parallel()
	n, _, address := newEvents(t, nil, events.Limits{})
	c, w := listen(t, address, "", "X-Consumer-Id: toto")
	for name, want := range map[string]string{"Content-Type": "text/event-stream", "Cache-Control": "no-store, no-transform", "X-Accel-Buffering": "no"} {
		if got := c.got.Get(name); got != want {
			t.Errorf("%s: %q, want %q", name, got, want)
		}
	}
	if w.StatusCode != http.StatusOK {
		t.Errorf("status %d", w.StatusCode)
	}
	if first := c.block(); len(first) != 1 || first[0] != "retry: 2000" {
		t.Errorf("the stream begins with %q, before anything has happened", first)
	}
	n.log.add(happening(1, "tata"), happening(2, "toto"))
	if got := c.block(); strings.Join(got, "|") != `id: 2|event: made|data: {"n": 2}` {
		t.Errorf("got %q", got)
	}
	n.log.add(happening(3, "toto"))
	if e := c.event(); e.id != "3" {
		t.Errorf("got %+v", e)
	}
}

func TestAClientSaysInManyWaysWhereItIs(t *testing.T) {
	t.Parallel()
	n, _, address := newEvents(t, nil, events.Limits{})
	n.log.add(happening(5, "toto"), happening(4, "toto"))
	n.log.add(happening(6, "tata"), happening(7, "toto"))
	for options, first := range map[string]string{
		"?consumer_id=toto|Last-Event-ID: 5":                  "4",
		"?consumer_id=toto|Last-Event-Id: 4":                  "7",
		"?consumer_id=toto|last-event-id: 0":                  "5",
		"?consumer_id=toto&last_event_id=5|X-None: 1":         "4",
		"?consumer_id=toto&last_event_id=5|Last-Event-ID: 4":  "7",
		"?consumer_id=toto&from=beginning|X-None: 1":          "5",
		"?consumer_id=toto&from=1h|X-None: 1":                 "5",
		"?consumer_id=toto&from=beginning|Last-Event-ID: 4":   "7",
		"?consumer_id=toto&from=now&last_event_id=|X-None: 1": "9",
	} {
		query, header, _ := strings.Cut(options, "|")
		c, _ := listen(t, address, query, header)
		if c.block(); first == "9" {
			if b := c.block(); strings.Join(b, "") != "id: 7" {
				t.Errorf("%s: began with %q, want the id before the first event", options, b)
			}
			n.log.add(happening(9, "toto"))
		}
		if e := c.event(); e.id != first {
			t.Errorf("%s: the first event is %+v, want %s", options, e, first)
		}
	}
	for query, want := range map[string]int{"": 400, "?consumer_id=toto&from=tomorrow": 400} {
		if got := n.do("GET", "/events"+query, ""); got.status != want {
			t.Errorf("%s: %d, want %d", query, got.status, want)
		}
	}
	if got := n.do("HEAD", "/events?consumer_id=toto", ""); got.status != 200 || got.header.Get("Content-Type") != "text/event-stream" {
		t.Errorf("HEAD: %d %v", got.status, got.header)
	}
}

func TestAnUnknownIDIsNoSilence(t *testing.T) {
	t.Parallel()
	n, _, address := newEvents(t, nil, events.Limits{})
	n.log.add(happening(1, "toto"))
	for _, id := range []string{"77", "x", strings.Repeat("9", 3000), "é", "-1"} {
		c, w := listen(t, address, "", "X-Consumer-Id: toto", "Last-Event-ID: "+id)
		if w.StatusCode != 200 {
			t.Fatalf("id %.20q: status %d", id, w.StatusCode)
		}
		c.block()
		if e := c.event(); e.name != "gap" || !strings.Contains(e.data, `"first_id":"1"`) {
			t.Errorf("id %.20q: got %+v, want a gap", id, e)
		}
		if e := c.event(); e.id != "1" {
			t.Errorf("id %.20q: got %+v behind the gap", id, e)
		}
	}
}

func TestASilentSubscriberHearsABeat(t *testing.T) {
	t.Parallel()
	_, _, address := newEvents(t, func(c *api.Config) { c.Heartbeat = 10 * time.Millisecond }, events.Limits{})
	c, _ := listen(t, address, "", "X-Consumer-Id: toto")
	c.block()
	if got := c.block(); len(got) != 1 || got[0] != ": heartbeat" {
		t.Errorf("got %q, want a comment", got)
	}
	c, _ = listen(t, address, "?heartbeat=event", "X-Consumer-Id: toto")
	c.block()
	if got := strings.Join(c.block(), "|"); got != "event: heartbeat|data: {}" {
		t.Errorf("got %q, want an event without an id", got)
	}
}

// An EventSource takes every status but 200 as a reason never to come back.
func TestWhoCannotBeServedForNowIsToldToComeBack(t *testing.T) {
	t.Parallel()
	n, e, address := newEvents(t, nil, events.Limits{Sessions: 1})
	c, _ := listen(t, address, "", "X-Consumer-Id: toto")
	c.block()
	ask := func(what string) {
		t.Helper()
		got := n.do("GET", "/events", "", "X-Consumer-Id: toto")
		if got.status != 200 || !strings.HasPrefix(got.body, "retry: ") || got.header.Get("Content-Type") != "text/event-stream" {
			t.Errorf("%s: %d %q", what, got.status, got.body)
		}
	}
	ask("too many sessions")
	e.fail(fmt.Errorf("not known yet: %w", lockstep.ErrUnavailable))
	ask("the table is not known yet")
	e.fail(fmt.Errorf("no table: %w", lockstep.ErrNotFound))
	if got := n.do("GET", "/events", "", "X-Consumer-Id: toto"); got.status != 404 {
		t.Errorf("there is no table: %d, want 404", got.status)
	}
	wantProblem(t, newNode(t).do("GET", "/events", "", "X-Consumer-Id: toto"), 404)
}

func TestTheEndOfTheNodeEndsStreamsAfterAWholeEvent(t *testing.T) {
	t.Parallel()
	n, _, _ := newEvents(t, nil, events.Limits{})
	l, err := n.Listen(t.Context(), "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- (&api.Server{API: n.API, Listener: l}).Run(ctx) }()
	c, _ := listen(t, "http://"+l.Addr().String(), "", "X-Consumer-Id: toto")
	c.block()
	n.log.add(happening(1, "toto"))
	c.event()
	cancel()
	if rest := c.block(); rest != nil {
		t.Errorf("got %q, want the end", rest)
	}
	if err := c.lines.Err(); err != nil {
		t.Errorf("the stream was cut: %v", err)
	}
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// A client that takes nothing is let go, and nobody waits for it.
func TestAClientThatReadsNothingIsLetGo(t *testing.T) {
	t.Parallel()
	n, e, address := newEvents(t, func(c *api.Config) { c.WriteWait = 200 * time.Millisecond }, events.Limits{})
	quick, _ := listen(t, address, "", "X-Consumer-Id: toto")
	quick.block()
	conn, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", strings.TrimPrefix(address, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := io.WriteString(conn, "GET /events HTTP/1.1\r\nHost: localhost\r\nX-Consumer-Id: toto\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	pgtest.Eventually(t, 5*time.Second, "both clients", func() bool { return e.Sessions() == 2 })
	large := strings.Repeat("x", 64<<10)
	sent := 0
	for began := time.Now(); e.Sessions() == 2 && time.Since(began) < 20*time.Second; {
		sent++
		n.log.add(fmt.Sprintf(`{"id":%d,"type":"made","subscriber":"toto","payload":%q}`, sent, large))
		if got := quick.event(); got.id != strconv.Itoa(sent) {
			t.Fatalf("the client that reads got %s, want %d", got.id, sent)
		}
	}
	if left := e.Sessions(); left != 1 {
		t.Errorf("%d clients are left, after %d events", left, sent)
	}
}

func TestASubscriberThatMayNotFollowAnyMoreIsLetGo(t *testing.T) {
	t.Parallel()
	n, _, address := newEvents(t, func(c *api.Config) { c.Heartbeat = 20 * time.Millisecond }, events.Limits{}, auth.Static{Name: "boss", Token: "boss", Scopes: []string{"admin"}})
	plain, token, err := n.tokens.Create(t.Context(), "t", auth.Scopes{"consume:toto"}, noExpiry)
	if err != nil {
		t.Fatal(err)
	}
	made := mustJSON[api.TicketView](t, n.do("POST", "/v1/events/tickets", "", "Authorization: Bearer "+plain).body)
	direct, _ := listen(t, address, "", "Authorization: Bearer "+plain)
	ticket, w := listen(t, address, "?ticket="+made.Ticket)
	if w.StatusCode != 200 {
		t.Fatalf("the ticket: %d", w.StatusCode)
	}
	for _, c := range []*client{direct, ticket} {
		c.block()
		n.log.add(happening(1, "toto"))
		c.event()
	}
	if _, err := n.tokens.Revoke(t.Context(), token.ID); err != nil {
		t.Fatal(err)
	}
	for _, c := range []*client{direct, ticket} {
		for {
			block := c.block()
			if block == nil {
				break
			}
			if block[0] != ": heartbeat" && !strings.HasPrefix(block[0], "id:") {
				t.Errorf("got %q", block)
			}
		}
	}
	if got := n.do("HEAD", "/events?ticket="+made.Ticket, ""); got.status != 401 {
		t.Errorf("a ticket whose token was revoked: %d, want 401", got.status)
	}
}
