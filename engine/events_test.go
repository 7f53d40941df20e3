package engine_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"golang.org/x/sync/errgroup"

	"lockstep/internal/pgdb/pgtest"
)

const eventsTable = `CREATE TABLE events (id bigserial PRIMARY KEY, type text NOT NULL, timestamp timestamptz NOT NULL DEFAULT now(), subscriber text NOT NULL, payload jsonb NOT NULL)`

func insertEvent(subscriber string, n int) string {
	return fmt.Sprintf(`INSERT INTO events (type, subscriber, payload) VALUES ('order.paid', '%s', '{"n": %d}')`, subscriber, n)
}

// newEventsNode makes a database with an events table, and a node that runs.
func newEventsNode(t *testing.T, slot string) (url string, n *node) {
	t.Helper()
	url = pgtest.Database(t)
	pgtest.Exec(t, url, eventsTable)
	n = newNode(t, url, "  []\n")
	n.slot(slot)
	n.start()
	return url, n
}

// subscriber is an SSE client that comes back as an EventSource does.
type subscriber struct {
	address, name string

	mu     sync.Mutex
	lastID string   // guarded by mu
	got    []string // guarded by mu: ids of events
	gaps   []string // guarded by mu
}

func (s *subscriber) seen() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.got)
}

// follow follows until ctx ends.
func (s *subscriber) follow(ctx context.Context, c *http.Client) error {
	for ctx.Err() == nil {
		if err := s.connect(ctx, c); err != nil && ctx.Err() == nil {
			return err
		}
		timer := time.NewTimer(rand.N(100 * time.Millisecond))
		select {
		case <-ctx.Done():
		case <-timer.C:
		}
	}
	return nil
}

// connect follows one connection to its end. An error is one for which an EventSource
// would not come back.
func (s *subscriber) connect(ctx context.Context, c *http.Client) error {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, s.address+"/events", nil)
	if err != nil {
		return err
	}
	r.Header.Set("X-Consumer-Id", s.name)
	s.mu.Lock()
	if s.lastID != "" {
		r.Header.Set("Last-Event-Id", s.lastID)
	}
	s.mu.Unlock()
	w, err := c.Do(r)
	if err != nil {
		return nil // the node is away
	}
	defer w.Body.Close()
	if w.StatusCode != http.StatusOK {
		return fmt.Errorf("%s: status %d", s.name, w.StatusCode)
	}
	s.read(w.Body)
	return nil
}

func (s *subscriber) read(body io.Reader) {
	event := map[string]string{}
	for lines := bufio.NewScanner(body); lines.Scan(); {
		if name, value, _ := strings.Cut(lines.Text(), ": "); name != "" {
			event[name] = value
			continue
		}
		s.mu.Lock()
		if id, ok := event["id"]; ok {
			s.lastID = id
		}
		switch {
		case event["event"] == "gap":
			s.gaps = append(s.gaps, event["data"])
		case event["data"] != "":
			s.got = append(s.got, event["id"])
		}
		s.mu.Unlock()
		event = map[string]string{}
	}
}

// await waits until the subscriber has so many events.
func (s *subscriber) await(t *testing.T, n int) {
	t.Helper()
	pgtest.Eventually(t, 20*time.Second, fmt.Sprintf("%d events", n), func() bool { return len(s.seen()) >= n })
}

// Two transactions: the later id commits first, and the client goes away in between.
func TestAnEarlierIDThatCommitsLaterIsNotLost(t *testing.T) {
	t.Parallel()
	url, n := newEventsNode(t, "events_late")
	var g errgroup.Group
	defer func() {
		if err := g.Wait(); err != nil {
			t.Error(err)
		}
	}()
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	s := &subscriber{address: "http://" + n.server, name: "toto"}
	once, leave := context.WithCancel(t.Context())
	g.Go(func() error { return s.follow(once, client) })
	conn, err := pgx.Connect(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(t.Context())
	tx, err := conn.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := tx.Exec(t.Context(), insertEvent("toto", 1)); err != nil {
		t.Fatal(err)
	}
	pgtest.Exec(t, url, insertEvent("toto", 2))
	s.await(t, 1)
	leave()
	if err := tx.Commit(t.Context()); err != nil {
		t.Fatal(err)
	}
	pgtest.Exec(t, url, insertEvent("toto", 3))
	again, end := context.WithCancel(t.Context())
	defer end()
	g.Go(func() error { return s.follow(again, client) })
	s.await(t, 3)
	if got := strings.Join(s.seen(), " "); got != "2 1 3" {
		t.Errorf("got %s, want 2 1 3: what was committed later comes later", got)
	}
}

// A replay needs no database, and clients need no connection of it.
func TestEventsAreReplayedWhilePostgresIsAway(t *testing.T) {
	t.Parallel()
	own := pgtest.Cluster(t, nil)
	if err := own.CreateDatabase(t.Context(), "app"); err != nil {
		t.Fatal(err)
	}
	url := own.URL("app")
	pgtest.Exec(t, url, eventsTable)
	n := newNode(t, url, "  []\n")
	n.start()
	for i := range 5 {
		pgtest.Exec(t, url, insertEvent("toto", i))
	}
	inStream(t, n, 5)
	connections := func() string {
		return pgtest.Query(t, url, `SELECT count(*) FROM pg_stat_activity WHERE application_name LIKE 'lockstep%'`)[0][0]
	}
	before := connections()
	ctx, end := context.WithCancel(t.Context())
	var g errgroup.Group
	transport := &http.Transport{}
	defer transport.CloseIdleConnections()
	defer func() {
		end()
		if err := g.Wait(); err != nil {
			t.Error(err)
		}
	}()
	all := make([]*subscriber, 200)
	for i := range all {
		all[i] = &subscriber{address: "http://" + n.server, name: "toto", lastID: "1"}
		g.Go(func() error { return all[i].follow(ctx, &http.Client{Transport: transport}) })
	}
	for _, s := range all {
		s.await(t, 4)
	}
	if now := connections(); number(t, now) > number(t, before) {
		t.Errorf("%s connections to Postgres with %d clients, %s without", now, len(all), before)
	}
	if err := own.Kill(); err != nil {
		t.Fatal(err)
	}
	n.kill()
	n.launch()
	late := &subscriber{address: "http://" + n.server, name: "toto", lastID: "3"}
	g.Go(func() error { return late.follow(ctx, &http.Client{Transport: transport}) })
	late.await(t, 2)
	if got := strings.Join(late.seen(), " "); got != "4 5" {
		t.Errorf("got %s, want 4 5", got)
	}
}

// TestKilledNodeLosesNoEventOfItsSubscribers kills a node while 500 clients come back to
// it again and again, some of them two of one subscriber.
func TestKilledNodeLosesNoEventOfItsSubscribers(t *testing.T) {
	t.Parallel()
	const clients, names, kills = 500, 250, 3
	url, n := newEventsNode(t, "events_kill")
	pgtest.Exec(t, url, insertEvent("nobody", 0)) // there is an id to begin behind
	inStream(t, n, 1)
	ctx, end := context.WithCancel(t.Context())
	defer end()
	var following, writing errgroup.Group
	transport := &http.Transport{MaxConnsPerHost: 0}
	defer transport.CloseIdleConnections()
	all := make([]*subscriber, clients)
	for i := range all {
		all[i] = &subscriber{address: "http://" + n.server, name: fmt.Sprint("s", i%names), lastID: "1"}
		following.Go(func() error { return all[i].follow(ctx, &http.Client{Transport: transport}) })
	}
	stop, over := context.WithCancel(t.Context())
	for range 3 {
		writing.Go(func() error { return insertEvents(stop, url, names) })
	}
	for range kills {
		timer := time.NewTimer(1500*time.Millisecond + rand.N(1500*time.Millisecond))
		<-timer.C
		n.kill()
		n.launch()
	}
	pgtest.Eventually(t, 60*time.Second, "the node to be back", func() bool { return n.api.Ready(t.Context()) == nil })
	over()
	if err := writing.Wait(); err != nil {
		t.Fatal(err)
	}
	want := map[string][]string{}
	for _, row := range pgtest.Query(t, url, `SELECT subscriber, id FROM events WHERE id > 1 ORDER BY id`) {
		want[row[0]] = append(want[row[0]], row[1])
	}
	total := 0
	for _, s := range all {
		s.await(t, len(want[s.name]))
	}
	end()
	if err := following.Wait(); err != nil {
		t.Error(err)
	}
	for _, s := range all {
		got := s.seen()
		total += len(got)
		slices.SortFunc(got, func(a, b string) int { return number(t, a) - number(t, b) })
		if !slices.Equal(got, want[s.name]) {
			t.Errorf("%s got %d events, want %d: some are missing or doubled", s.name, len(got), len(want[s.name]))
		}
		if len(s.gaps) > 0 {
			t.Errorf("%s was told of gaps: %v", s.name, s.gaps)
		}
	}
	t.Logf("%d kills, %d clients of %d subscribers, %d events received", kills, clients, names, total)
}

func number(t *testing.T, text string) int {
	n, err := strconv.Atoi(text)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// inStream waits until the stream holds so many changes.
func inStream(t *testing.T, n *node, changes uint64) {
	t.Helper()
	pgtest.Eventually(t, 20*time.Second, "the stream to have the event", func() bool {
		d, err := n.api.Database(t.Context(), "app")
		return err == nil && d.LastSeq >= changes
	})
}

// insertEvents commits events to random subscribers until ctx ends, in transactions that
// overlap and take their time.
func insertEvents(ctx context.Context, url string, names int) error {
	conn, err := pgx.Connect(context.WithoutCancel(ctx), url)
	if err != nil {
		return err
	}
	defer conn.Close(context.WithoutCancel(ctx))
	for ctx.Err() == nil {
		err := pgx.BeginFunc(context.WithoutCancel(ctx), conn, func(tx pgx.Tx) error {
			for range 1 + rand.IntN(5) {
				if _, err := tx.Exec(context.WithoutCancel(ctx), insertEvent(fmt.Sprint("s", rand.IntN(names)), 1)); err != nil {
					return err
				}
				timer := time.NewTimer(rand.N(5 * time.Millisecond))
				<-timer.C
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	return nil
}
