package backfill

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"go.uber.org/goleak"

	"lockstep"
	"lockstep/internal/capture/wal"
	"lockstep/internal/pattern"
	"lockstep/internal/pgdb"
	"lockstep/internal/pgdb/pgtest"
	"lockstep/internal/stream"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(pgtest.Suite{M: m}) }

// world is a database with its capture, its log, and the control plane in it.
type world struct {
	t    testing.TB
	url  string
	pool *pgxpool.Pool
	log  *stream.Log

	capture *wal.Capture
	source  Source
	people  *people
	keep    *keep
	gaps    *Gaps
	store   Store
}

// orders is the id of the consumer of most tests.
const orders = "018f0000-0000-7000-8000-000000000001"

// newWorld makes the tables that ddl says, and captures everything.
func newWorld(t testing.TB, ddl ...string) *world {
	t.Helper()
	return newWorldAt(t, pgtest.Database(t), ddl...)
}

// newWorldAt does it in a database of one's own.
func newWorldAt(t testing.TB, url string, ddl ...string) *world {
	t.Helper()
	w := &world{t: t, url: url, people: &people{}, keep: &keep{}}
	if err := pgdb.Migrate(t.Context(), w.url); err != nil {
		t.Fatal(err)
	}
	pgtest.Exec(t, w.url, ddl...)
	pgtest.Exec(t, w.url, "ANALYZE")
	pool, err := pgdb.Open(t.Context(), w.url, "backfill-test")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(pool.Close)
	w.pool, w.store, w.gaps = pool, Postgres{pool}, NewGaps(w.keep)
	w.openLog()
	w.people.put(Consumer{ID: orders, Name: "orders", Database: "app"})
	w.source = Source{Pool: pool, Publication: "p", Log: logOf{w.log}}
	return w
}

func (w *world) openLog() {
	w.t.Helper()
	server, err := stream.Open(w.t.Context(), stream.Config{Dir: w.t.TempDir()})
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() {
		if err := server.Close(); err != nil {
			w.t.Error(err)
		}
	})
	if w.log, err = server.Log(w.t.Context(), "app"); err != nil {
		w.t.Fatal(err)
	}
}

// capturing starts capture over the tables.
func (w *world) capturing(tables ...string) *world {
	w.t.Helper()
	list := ""
	if len(tables) > 0 {
		list = "FOR TABLE " + strings.Join(tables, ", ")
	}
	pgtest.Exec(w.t, w.url, "CREATE PUBLICATION p "+list+" WITH (publish_via_partition_root = true)",
		"CREATE PUBLICATION p_inserts WITH (publish = 'insert,truncate', publish_via_partition_root = true)")
	w.startCapture()
	return w
}

func (w *world) startCapture() (stop func()) {
	w.t.Helper()
	name := w.url[:strings.IndexByte(w.url+"?", '?')]
	c, err := wal.New(wal.Config{
		Database: "app", URL: w.url, Slot: "s_" + name[strings.LastIndexByte(name, '/')+1:], Publication: "p", Log: w.log, Logger: logger(w.t),
		JoinSecret: "secret", Gap: func(ctx context.Context, g wal.Gap) error { return w.gaps.Open(ctx, "app", g) },
	})
	if err != nil {
		w.t.Fatal(err)
	}
	w.capture, w.source.Capture = c, c
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- c.Run(ctx) }()
	stop = sync.OnceFunc(func() {
		cancel()
		if err := <-ended; err != nil {
			w.t.Error("capture:", err)
		}
	})
	w.t.Cleanup(stop)
	pgtest.Eventually(w.t, 20*time.Second, "capture streams", func() bool { return c.Status().Connected })
	return stop
}

func logger(t testing.TB) *slog.Logger {
	level := slog.LevelWarn
	if testing.Verbose() {
		level = slog.LevelInfo
	}
	return slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: level}))
}

// runner makes a Runner that does not run.
func (w *world) runner(change ...func(*tuning)) *Runner {
	r := New(Config{
		Store: w.store, Consumers: w.people, Gaps: w.gaps, Logger: logger(w.t),
		Database: func(name string) (Source, error) {
			if name != "app" {
				return Source{}, fmt.Errorf("no database %s: %w", name, lockstep.ErrNotFound)
			}
			return w.source, nil
		},
	})
	r.tune.poll, r.tune.longest = 20*time.Millisecond, 200*time.Millisecond
	for _, f := range change {
		f(&r.tune)
	}
	return r
}

// running makes a Runner that runs until stop, or the end of the test.
func (w *world) running(change ...func(*tuning)) (r *Runner, stop func()) {
	r = w.runner(change...)
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- r.Run(ctx) }()
	stop = sync.OnceFunc(func() {
		cancel()
		if err := <-ended; err != nil {
			w.t.Error("Run:", err)
		}
	})
	w.t.Cleanup(stop)
	return r, stop
}

func start(t testing.TB, r *Runner, q Request) Job {
	t.Helper()
	if q.Consumer == "" && !q.Gap {
		q.Consumer = orders
	}
	v, err := r.Start(t.Context(), q)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// awaits waits until the job is in a state.
func awaits(t testing.TB, r *Runner, id string, want State) Job {
	t.Helper()
	var v Job
	var err error
	defer func() {
		if t.Failed() {
			t.Logf("the job is %+v, %v", v, err)
		}
	}()
	pgtest.Eventually(t, 60*time.Second, "the backfill is "+string(want), func() bool {
		v, err = r.Get(t.Context(), id)
		if err == nil && v.State.Ended() && v.State != want {
			t.Fatalf("the backfill is %s (%s, %v), want %s", v.State, v.Reason, v.Tables, want)
		}
		return err == nil && v.State == want
	})
	return v
}

// complete runs a backfill to its end.
func (w *world) complete(q Request) Job {
	w.t.Helper()
	r, stop := w.running()
	defer stop()
	return awaits(w.t, r, start(w.t, r, q).ID, Completed)
}

// alone gives pages one after the other to an Interleaver's Interleave.
func alone(ctx context.Context, to Interleaver, oid uint32, read func(context.Context, uint64) (wal.Page, error), placed func(wal.Interleaved) error) error {
	for {
		result, err := to.Interleave(ctx, oid, read)
		if errors.Is(err, wal.ErrNoPage) {
			return nil
		}
		if err == nil {
			err = placed(result)
		}
		if err != nil {
			return err
		}
	}
}

// caughtUp waits until the log has everything committed so far: what lies before a
// low watermark does.
func (w *world) caughtUp() {
	w.t.Helper()
	pgtest.Eventually(w.t, 60*time.Second, "the log has everything", func() bool {
		_, err := w.capture.Interleave(w.t.Context(), 1, func(context.Context, uint64) (wal.Page, error) { return wal.Page{}, errNothing })
		return errors.Is(err, errNothing)
	})
}

// records calls f for every change in the log.
func (w *world) records(f func(lockstep.Record)) {
	w.t.Helper()
	last := w.log.Last().Seq
	reader := w.log.Reader(0)
	defer reader.Close()
	for next := uint64(1); next <= last; {
		ctx, cancel := context.WithTimeout(w.t.Context(), 20*time.Second)
		b, err := reader.Next(ctx)
		cancel()
		if err != nil {
			w.t.Fatal(err)
		}
		for i := range b.Len() {
			f(b.Record(i))
		}
		next = b.Mark.Seq + 1
	}
}

// reads returns how often each key of the table went out as read for the consumer.
func (w *world) reads(consumer, table string) map[string]int {
	w.t.Helper()
	n := map[string]int{}
	w.records(func(r lockstep.Record) {
		if r.Action() == lockstep.Read && r.Table().Name == table && r.Table().Consumer == consumer {
			n[string(r.PKs())]++
		}
	})
	return n
}

// view is what a consumer that stores what it is told has in the end: rows by key,
// columns as JSON.
func (w *world) view(consumer, table string) map[string]map[string]string {
	w.t.Helper()
	rows := map[string]map[string]string{}
	var deleted map[string]string // by the change before
	w.records(func(r lockstep.Record) {
		t := r.Table()
		if t.Name != table || t.Consumer != "" && t.Consumer != consumer {
			return
		}
		key := string(r.PKs())
		switch r.Action() {
		case lockstep.Truncate:
			clear(rows)
		case lockstep.Delete:
			deleted = rows[key]
			delete(rows, key)
		case lockstep.Gap:
		default:
			if rows[key] == nil || r.Action() != lockstep.Update {
				rows[key] = map[string]string{}
			}
			if r.Action() == lockstep.Insert && bytes.Contains(r.Extra(), []byte(`"unchanged"`)) {
				// A changed key: the row is the one that was deleted just before.
				maps.Copy(rows[key], deleted)
			}
			maps.Copy(rows[key], decode(w.t, r.Row()))
		}
	})
	return rows
}

func decode(t testing.TB, row []byte) map[string]string {
	t.Helper()
	var raw map[string]json.RawMessage
	if err := json.Unmarshal(row, &raw); err != nil {
		t.Fatalf("%s: %v", row, err)
	}
	m := map[string]string{}
	for k, v := range raw {
		m[k] = string(v)
	}
	return m
}

// table is what the table holds: one column of keys, one of values, both as text.
func (w *world) table(query string) map[string]string {
	w.t.Helper()
	m := map[string]string{}
	for _, row := range pgtest.Query(w.t, w.url, query) {
		m[row[0]] = row[1]
	}
	return m
}

// same compares a consumer's view of a table with an integer key id and a text v
// with the table itself.
func (w *world) same(consumer, table string) {
	w.t.Helper()
	want := w.table(`SELECT '["' || id || '"]', coalesce(to_json(v)::text, 'null') FROM ` + pgdb.QuoteIdent(table))
	got := w.view(consumer, table)
	wrong := 0
	for key, v := range want {
		if got[key]["v"] != v && wrong < 5 {
			w.t.Errorf("%s: the consumer has %.60v, the table %.60s", key, got[key], v)
			wrong++
		}
	}
	for key := range got {
		if _, ok := want[key]; !ok && wrong < 10 {
			w.t.Errorf("%s: the consumer has it, the table has not", key)
			wrong++
		}
	}
	if len(want) != len(got) {
		w.t.Errorf("the consumer has %d rows, the table %d", len(got), len(want))
	}
}

func once(t testing.TB, reads map[string]int, want int) {
	t.Helper()
	for key, n := range reads {
		if n != 1 {
			t.Errorf("%s went out %d times", key, n)
		}
	}
	if len(reads) != want {
		t.Errorf("%d rows went out, want %d", len(reads), want)
	}
}

func refused(t testing.TB, err, kind error, parts ...string) {
	t.Helper()
	if !errors.Is(err, kind) {
		t.Errorf("got error %v, want one of kind %v", err, kind)
		return
	}
	for _, p := range parts {
		if !strings.Contains(err.Error(), p) {
			t.Errorf("got error %v, want %q in it", err, p)
		}
	}
}

// people are the consumers.
type people struct {
	mu   sync.Mutex
	list []Consumer
}

func (p *people) put(c Consumer) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.list = slices.DeleteFunc(p.list, func(o Consumer) bool { return o.ID == c.ID })
	p.list = append(p.list, c)
}

func (p *people) remove(id string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.list = slices.DeleteFunc(p.list, func(o Consumer) bool { return o.ID == id })
}

// Lookup implements [Consumers].
func (p *people) Lookup(idOrName string) (Consumer, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, c := range p.list {
		if c.ID == idOrName || c.Name == idOrName {
			return c, nil
		}
	}
	return Consumer{}, fmt.Errorf("consumer %q: %w", idOrName, lockstep.ErrNotFound)
}

// keep is a Keep in memory.
type keep struct {
	mu     sync.Mutex
	values map[string][]byte
}

// Load implements [Keep].
func (k *keep) Load(_ context.Context, database string) ([]byte, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if v, ok := k.values[database]; ok {
		return bytes.Clone(v), nil
	}
	return nil, lockstep.ErrNotFound
}

// Save implements [Keep].
func (k *keep) Save(_ context.Context, database string, value []byte) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.values == nil {
		k.values = map[string][]byte{}
	}
	k.values[database] = bytes.Clone(value)
	return nil
}

// logOf gives a stream's log in this package's words.
type logOf struct{ *stream.Log }

// Reader implements [Log].
func (l logOf) Reader(from uint64) Reader { return l.Log.Reader(from) }

func patterns(t testing.TB, list ...string) pattern.Patterns {
	t.Helper()
	p, err := pattern.Parse(list)
	if err != nil {
		t.Fatal(err)
	}
	return p
}
