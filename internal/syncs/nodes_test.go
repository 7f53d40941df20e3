package syncs_test

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"net/http"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"go.uber.org/goleak"

	"lockstep"
	"lockstep/internal/pgdb"
	"lockstep/internal/pgdb/pgtest"
	"lockstep/internal/pull"
	"lockstep/internal/syncs"
	"lockstep/source"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(pgtest.Suite{M: m}) }

// api is an account with one short list. It notes who asked it.
type api struct {
	mu      sync.Mutex
	asked   map[string]int // by the credential's key
	refused string         // the key that it refuses
}

func (a *api) ask(key string) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.asked[key]++; key == a.refused {
		return &source.Error{Kind: source.Unauthorized, Status: http.StatusUnauthorized, Message: "the key is revoked"}
	}
	return nil
}

func (a *api) count(key string) int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.asked[key]
}

// account is what a definition resolves to.
type account struct {
	api   *api
	names []string
	key   string
}

func (account) Prefix() string          { return "shop" }
func (a account) Names() []string       { return a.names }
func (a account) Collections() []string { return a.names }
func (a account) Open(syncs.Definition, syncs.Tokens) (syncs.Connection, error) {
	return syncs.Connection{Source: reader(a), Second: reader(a)}, nil
}

type reader account

func (r reader) Check(context.Context) (string, error) { return "shop", r.api.ask(r.key) }
func (r reader) Collections(context.Context) ([]source.Collection, error) {
	return []source.Collection{{Name: "order", Every: 50 * time.Millisecond}}, nil
}
func (r reader) Start(context.Context, string) (source.Cursor, error) { return nil, r.api.ask(r.key) }
func (r reader) Backfill(context.Context, string, source.Cursor) (source.Page, error) {
	return source.Page{Records: []source.Record{{Collection: "order", ID: "1", Rank: source.RankList, Data: json.RawMessage(`{"id":"1"}`)}}}, r.api.ask(r.key)
}
func (r reader) Changes(context.Context, string, source.Cursor, time.Duration) (source.Page, error) {
	return source.Page{}, r.api.ask(r.key)
}
func (r reader) IDs(context.Context, string, source.Cursor) (source.Page, error) {
	return source.Page{}, r.api.ask(r.key)
}
func (r reader) Get(context.Context, string, []string) (source.Page, error) {
	return source.Page{}, r.api.ask(r.key)
}

// plain seals nothing: what is sealed is another test's.
type plain struct{}

func (plain) Seal(text []byte, _ string) []byte            { return text }
func (plain) Open(sealed []byte, _ string) ([]byte, error) { return sealed, nil }

// place is a database that several nodes mirror into.
type place struct {
	t    *testing.T
	url  string
	pool *pgxpool.Pool
	api  *api
}

func newPlace(t *testing.T) *place {
	t.Helper()
	p := &place{t: t, url: pgtest.Database(t), api: &api{asked: map[string]int{}}}
	pool, err := pgdb.Open(t.Context(), p.url, "test")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(pool.Close)
	p.pool = pool
	return p
}

// node is one of them.
type node struct {
	*syncs.Set
	t     *testing.T
	stop  func()
	named sync.Map // by the table's name
}

func (p *place) node() *node {
	p.t.Helper()
	n := &node{t: p.t}
	set := syncs.New(syncs.Config{
		Targets: []syncs.Target{{Name: "app", Pool: p.pool, Prepare: func(ctx context.Context) error { return pgdb.Migrate(ctx, p.url) }}},
		Resolve: func(d syncs.Definition) (syncs.Account, []syncs.Problem) {
			return account{p.api, d.Collections, d.Credential.Properties["key"]}, nil
		},
		Named: func(_ context.Context, t syncs.Table) error {
			n.named.Store(t.Name, t)
			return nil
		},
		Settled: func(context.Context, string, string) error { return nil },
		Sealer:  plain{}, Logger: slog.New(slog.NewTextHandler(p.t.Output(), nil)),
	})
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = set.Work(ctx) // it only ends
	}()
	n.Set, n.stop = set, sync.OnceFunc(func() { cancel(); <-done })
	p.t.Cleanup(n.stop)
	return n
}

func keyed(key string) syncs.Definition {
	return syncs.Definition{Name: "acme", Provider: "rest", Credential: syncs.Credential{Properties: map[string]string{"key": key}}}
}

// becomes waits until the node shows the sync in a state.
func (n *node) becomes(want pull.State) {
	n.t.Helper()
	pgtest.Eventually(n.t, time.Minute, "state "+string(want), func() bool {
		v, err := n.Get(n.t.Context(), "acme")
		return err == nil && v.Status.State == want
	})
}

func (n *node) rekey(key string) {
	n.t.Helper()
	_, err := n.Update(n.t.Context(), "acme", func(d *syncs.Definition) error {
		d.Credential = syncs.Credential{Properties: map[string]string{"key": key}}
		return nil
	})
	if err != nil {
		n.t.Fatal(err)
	}
}

// A sync that is made on one node is known to the other, which takes it over.
func TestASyncMadeOnOneNodeIsTakenOverByAnother(t *testing.T) {
	t.Parallel()
	p := newPlace(t)
	one, two := p.node(), p.node()
	if _, err := one.Create(t.Context(), keyed("first")); err != nil {
		t.Fatal(err)
	}
	one.becomes(pull.Polling)
	two.becomes(pull.Waiting)
	// Its consumers need to know what is a mirror, whoever fills it.
	pgtest.Eventually(t, time.Minute, "the table on the node that waits", func() bool {
		named, _ := two.named.Load("order")
		got, _ := named.(syncs.Table)
		return got.Collection == "shop:order" && got.Sync == "acme" && got.Schema == "shop" && got.Database == "app"
	})
	one.stop()
	two.becomes(pull.Polling)
}

// A key that was revoked is replaced on the node that works: the node that waits must
// not take the sync over with the old one, and hold it blocked.
func TestAChangeIsNotOvertakenByANodeThatKnowsTheOldDefinition(t *testing.T) {
	t.Parallel()
	p := newPlace(t)
	one := p.node()
	if _, err := one.Create(t.Context(), keyed("first")); err != nil {
		t.Fatal(err)
	}
	one.becomes(pull.Polling)
	two := p.node()
	two.becomes(pull.Waiting)
	for _, key := range []string{"second", "third", "fourth"} {
		one.rekey(key)
		pgtest.Eventually(t, time.Minute, "the new key in use", func() bool { return p.api.count(key) > 3 })
	}
	one.stop()
	two.becomes(pull.Polling)
	before := p.api.count("fourth")
	pgtest.Eventually(t, time.Minute, "the new key in use by the other", func() bool { return p.api.count("fourth") > before+3 })
	old := [3]int{p.api.count("first"), p.api.count("second"), p.api.count("third")}
	two.rekey("fifth") // also on the node that has taken over
	pgtest.Eventually(t, time.Minute, "the newest key in use", func() bool { return p.api.count("fifth") > 3 })
	if now := [3]int{p.api.count("first"), p.api.count("second"), p.api.count("third")}; now != old {
		t.Errorf("old keys were used again: %v after %v", now, old)
	}
}

// A change is made on the node that waits: the one that works goes by it.
func TestAChangeOnTheNodeThatWaitsReachesTheOneThatWorks(t *testing.T) {
	t.Parallel()
	p := newPlace(t)
	one := p.node()
	if _, err := one.Create(t.Context(), keyed("first")); err != nil {
		t.Fatal(err)
	}
	one.becomes(pull.Polling)
	two := p.node()
	two.becomes(pull.Waiting)
	if _, err := two.Pause(t.Context(), "acme"); err != nil {
		t.Fatal(err)
	}
	one.becomes(pull.Paused)
	if _, err := two.Resume(t.Context(), "acme"); err != nil {
		t.Fatal(err)
	}
	two.rekey("second")
	pgtest.Eventually(t, time.Minute, "the new key in use", func() bool { return p.api.count("second") > 3 })
}

// A sync that was deleted on one node ends on the other, and does not come back.
func TestADeletedSyncEndsEverywhere(t *testing.T) {
	t.Parallel()
	p := newPlace(t)
	one := p.node()
	if _, err := one.Create(t.Context(), keyed("first")); err != nil {
		t.Fatal(err)
	}
	one.becomes(pull.Polling)
	two := p.node()
	two.becomes(pull.Waiting)
	if err := two.Delete(t.Context(), "acme"); err != nil {
		t.Fatal(err)
	}
	pgtest.Eventually(t, time.Minute, "its end on the node that worked", func() bool {
		_, err := one.Get(t.Context(), "acme")
		return errors.Is(err, lockstep.ErrNotFound)
	})
	if rows := pgtest.Query(t, p.url, "SELECT name FROM lockstep.sync"); len(rows) != 0 {
		t.Errorf("it is stored again: %v", rows)
	}
	// Its schema and its name are free.
	if _, err := one.Create(t.Context(), keyed("second")); err != nil {
		t.Fatal(err)
	}
	one.becomes(pull.Polling)
}

// Who hangs up while a sync is changed or deleted does not leave it stopped.
func TestACallerThatHangsUpLeavesTheSyncRunning(t *testing.T) {
	t.Parallel()
	p := newPlace(t)
	n := p.node()
	if _, err := n.Create(t.Context(), keyed("first")); err != nil {
		t.Fatal(err)
	}
	n.becomes(pull.Polling)
	ctx, cancel := context.WithCancel(t.Context())
	_, _ = n.Update(ctx, "acme", func(d *syncs.Definition) error { cancel(); return nil })
	before := p.api.count("first")
	pgtest.Eventually(t, time.Minute, "the sync at work", func() bool { return p.api.count("first") > before+3 })
}

// What asks for a poll of a sync that does not poll here says so.
func TestARunOfASyncThatReadsNothingIsRefused(t *testing.T) {
	t.Parallel()
	p := newPlace(t)
	one := p.node()
	if _, err := one.Create(t.Context(), keyed("first")); err != nil {
		t.Fatal(err)
	}
	one.becomes(pull.Polling)
	two := p.node()
	two.becomes(pull.Waiting)
	if _, err := two.Run(t.Context(), "acme"); !errors.Is(err, lockstep.ErrUnavailable) {
		t.Errorf("on the node that waits: %v", err)
	}
	if _, err := one.Pause(t.Context(), "acme"); err != nil {
		t.Fatal(err)
	}
	one.becomes(pull.Paused)
	if _, err := one.Run(t.Context(), "acme"); !errors.Is(err, lockstep.ErrConflict) {
		t.Errorf("paused: %v", err)
	}
}
