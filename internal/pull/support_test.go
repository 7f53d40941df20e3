package pull_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5/pgxpool"
	"go.uber.org/goleak"

	"lockstep"
	"lockstep/internal/mirror"
	"lockstep/internal/pgdb"
	"lockstep/internal/pgdb/pgtest"
	"lockstep/internal/pull"
	"lockstep/source"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(pgtest.Suite{M: m}) }

// soon is how long a test waits for what should happen at once, on a machine that has
// other things to do.
const soon = time.Minute

// bench is a database with a sync, whose engines come and go.
type bench struct {
	t      testing.TB
	url    string
	id     string
	schema string
	config pull.Config
	tune   func(*pull.Sync)
}

func newBench(t testing.TB, provider string, src source.Source, collections ...string) *bench {
	t.Helper()
	return benchAt(t, pgtest.Database(t), provider, src, collections...)
}

func benchAt(t testing.TB, url, provider string, src source.Source, collections ...string) *bench {
	t.Helper()
	b := &bench{t: t, url: url, id: uuid.NewString(), schema: provider}
	if err := pgdb.Migrate(t.Context(), b.url); err != nil {
		t.Fatal(err)
	}
	b.config = pull.Config{Name: "acme", Provider: provider, Source: src, Collections: collections, Every: 50 * time.Millisecond}
	b.config.Logger = slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelDebug}))
	return b
}

// engine is one running sync.
type engine struct {
	*pull.Sync
	mirror *mirror.Mirror
	pool   *pgxpool.Pool
	cancel context.CancelFunc
	done   chan error
}

// run starts an engine, which ends with the test at the latest.
func (b *bench) run() *engine {
	b.t.Helper()
	pool, err := pgdb.Open(b.t.Context(), b.url, "test")
	if err != nil {
		b.t.Fatal(err)
	}
	m, err := mirror.Open(b.t.Context(), mirror.Config{Pool: pool, Sync: b.id, Name: b.config.Name, Provider: b.config.Provider, Schema: b.schema})
	if err != nil {
		pool.Close()
		b.t.Fatal(err)
	}
	config := b.config
	config.Mirror = m
	ctx, cancel := context.WithCancel(context.Background())
	e := &engine{Sync: pull.New(config), mirror: m, pool: pool, cancel: cancel, done: make(chan error, 1)}
	e.Hurry()
	if b.tune != nil {
		b.tune(e.Sync)
	}
	go func() { e.done <- e.Run(ctx) }()
	b.t.Cleanup(func() { e.kill(b.t) })
	return e
}

// kill ends the engine without grace: what is under way is broken off.
func (e *engine) kill(t testing.TB) {
	t.Helper()
	e.cancel()
	e.gone(t)
}

// gone waits until the engine has ended.
func (e *engine) gone(t testing.TB) {
	t.Helper()
	select {
	case err := <-e.done:
		if err != nil {
			t.Errorf("Run returned %v", err)
		}
		e.done <- nil
	case <-time.After(soon):
		t.Error("Run did not return")
	}
	e.pool.Close()
}

func (e *engine) collection(t testing.TB, name string) pull.Collection {
	t.Helper()
	all := e.Status().Collections
	i := slices.IndexFunc(all, func(c pull.Collection) bool { return c.Name == name })
	if i < 0 {
		return pull.Collection{}
	}
	return all[i]
}

func (e *engine) becomes(t testing.TB, want pull.State) {
	t.Helper()
	e.eventually(t, "state "+string(want), func() bool { return e.Status().State == want })
}

func (e *engine) eventually(t testing.TB, what string, cond func() bool) {
	t.Helper()
	if !holds(soon, cond) {
		t.Fatalf("%s never came; status %+v", what, e.Status())
	}
}

func holds(within time.Duration, cond func() bool) bool {
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(within); !cond(); <-tick.C {
		if time.Now().After(deadline) {
			return false
		}
	}
	return true
}

func (e *engine) wait(t testing.TB) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), soon)
	defer cancel()
	err := e.Wait(ctx)
	for errors.Is(err, lockstep.ErrUnavailable) && ctx.Err() == nil {
		err = e.Wait(ctx) // a slow machine takes the lock late
	}
	if err != nil {
		t.Fatalf("%v; status %+v", err, e.Status())
	}
}

func (b *bench) query(sql string, args ...any) [][]string {
	b.t.Helper()
	return pgtest.Query(b.t, b.url, sql, args...)
}

// rows are the mirror's records of a collection as the API gave them.
func (b *bench) rows(table string) map[string]json.RawMessage {
	b.t.Helper()
	out := map[string]json.RawMessage{}
	if b.query("SELECT to_regclass($1::text)", b.schema+"."+table)[0][0] == "NULL" {
		return out
	}
	for _, row := range b.query(fmt.Sprintf("SELECT id, _raw FROM %s.%s", b.schema, table)) {
		out[row[0]] = json.RawMessage(row[1])
	}
	return out
}

// log is the sync's log as "kind collection outcome", oldest first.
func (b *bench) log() []string {
	b.t.Helper()
	var out []string
	for _, row := range b.query("SELECT kind || ' ' || collection || ' ' || outcome FROM lockstep.sync_log ORDER BY id") {
		out = append(out, row[0])
	}
	return out
}

func (b *bench) logged(t testing.TB, line string) {
	t.Helper()
	if !holds(soon, func() bool { return slices.Contains(b.log(), line) }) {
		t.Fatalf("the log has no %q: %v", line, b.log())
	}
}

// difference says where two sets of records differ; empty: nowhere.
func difference(got, want map[string]json.RawMessage) string {
	var b bytes.Buffer
	for _, id := range slices.Sorted(maps.Keys(want)) {
		switch have, ok := got[id]; {
		case !ok:
			fmt.Fprintf(&b, "%s is missing\n", id)
		case !equal(have, want[id]):
			fmt.Fprintf(&b, "%s is\n%s\nwant\n%s\n", id, have, want[id])
		}
	}
	for _, id := range slices.Sorted(maps.Keys(got)) {
		if _, ok := want[id]; !ok {
			fmt.Fprintf(&b, "%s should not be there\n", id)
		}
	}
	if b.Len() > 3000 {
		b.Truncate(3000)
	}
	return b.String()
}

func equal(a, b json.RawMessage) bool {
	x, err1 := mirror.Fingerprint(a, nil)
	y, err2 := mirror.Fingerprint(b, nil)
	return err1 == nil && err2 == nil && x == y
}
