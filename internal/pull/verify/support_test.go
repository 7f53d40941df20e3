package verify_test

import (
	"context"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"
	"github.com/jackc/pgx/v5/pgxpool"
	"go.uber.org/goleak"

	"lockstep/internal/mirror"
	"lockstep/internal/pgdb"
	"lockstep/internal/pgdb/pgtest"
	"lockstep/internal/pull/limit"
	"lockstep/internal/pull/verify"
	sandbox "lockstep/sandbox/stripe"
	"lockstep/source"
	"lockstep/source/rest"
	"lockstep/source/stripe"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(pgtest.Suite{M: m}) }

// account is a Stripe account that lives in the sandbox, and its mirror.
type account struct {
	t           testing.TB
	world       *sandbox.Sandbox
	url         string // of the API
	database    string
	pool        *pgxpool.Pool
	mirror      *mirror.Mirror
	source      source.Source
	collections []source.Collection
	start       source.Cursor // of the feed, from before the backfill
}

const key = "sk_live_123456789"

// open starts an account and mirrors these collections.
func open(t testing.TB, o sandbox.Options, collections ...string) *account {
	t.Helper()
	world, err := sandbox.New(o)
	if err != nil {
		t.Fatal(err)
	}
	api := httptest.NewServer(world.Handler())
	t.Cleanup(api.Close)
	a := &account{t: t, world: world, url: api.URL, database: pgtest.Database(t)}
	a.source = a.connect(nil)
	all, err := a.source.Collections(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range all {
		if slices.Contains(collections, c.Name) {
			a.collections = append(a.collections, c)
		}
	}
	a.openMirror()
	if a.start, err = a.source.Start(t.Context(), "events"); err != nil {
		t.Fatal(err)
	}
	for _, c := range a.collections {
		a.backfill(c.Name)
	}
	return a
}

func (a *account) connect(l source.Limiter) source.Source {
	a.t.Helper()
	s, err := stripe.New(rest.Options{BaseURL: a.url, Credential: map[string]string{"secret": key}, Limiter: l})
	if err != nil {
		a.t.Fatal(err)
	}
	return s
}

func (a *account) openMirror() {
	a.t.Helper()
	ctx := a.t.Context()
	if err := pgdb.Migrate(ctx, a.database); err != nil {
		a.t.Fatal(err)
	}
	pool, err := pgdb.Open(ctx, a.database, "test")
	if err != nil {
		a.t.Fatal(err)
	}
	a.t.Cleanup(pool.Close)
	if a.mirror, err = mirror.Open(ctx, mirror.Config{Pool: pool, Sync: uuid.NewString(), Name: "acme", Provider: "stripe"}); err != nil {
		a.t.Fatal(err)
	}
	release, err := a.mirror.Lock(ctx)
	if err != nil {
		a.t.Fatal(err)
	}
	a.t.Cleanup(release)
	if err := a.mirror.Prepare(ctx, a.collections); err != nil {
		a.t.Fatal(err)
	}
	a.pool = pool
}

func (a *account) apply(ctx context.Context, collection string, page source.Page) error {
	_, err := a.mirror.Apply(ctx, mirror.Change{Collection: collection, Records: page.Records, At: page.At})
	return err
}

func (a *account) backfill(collection string) {
	a.t.Helper()
	for at := source.Cursor(nil); ; {
		page, err := a.source.Backfill(a.t.Context(), collection, at)
		if err == nil {
			err = a.apply(a.t.Context(), collection, page)
		}
		if err != nil {
			a.t.Fatal(err)
		}
		if at = page.Next; at == nil {
			return
		}
	}
}

// live lets things happen in the world, and mirrors them, in turns: however slow the
// machine is, the mirror is never further behind than one turn. It ends with the test.
func (a *account) live() {
	ctx, cancel := context.WithCancel(a.t.Context())
	var wait sync.WaitGroup
	wait.Go(func() {
		tick := time.NewTicker(100 * time.Millisecond)
		defer tick.Stop()
		for at := a.start; ; {
			a.world.Core().Step(1)
			page, err := a.source.Changes(ctx, "events", at, 0)
			if err == nil {
				page.Records = slices.DeleteFunc(page.Records, func(r source.Record) bool {
					return !slices.ContainsFunc(a.collections, func(c source.Collection) bool { return c.Name == r.Collection })
				})
				err = a.apply(ctx, "", page)
			}
			if err == nil {
				at = page.Next
			} else if ctx.Err() == nil {
				a.t.Error(err)
			}
			select {
			case <-tick.C:
			case <-ctx.Done():
				return
			}
		}
	})
	a.t.Cleanup(func() { cancel(); wait.Wait() })
}

func (a *account) exec(sql ...string) { a.t.Helper(); pgtest.Exec(a.t, a.database, sql...) }

// ids runs a statement that returns ids.
func (a *account) ids(sql string) (ids []string) {
	a.t.Helper()
	for _, row := range pgtest.Query(a.t, a.database, sql) {
		ids = append(ids, row[0])
	}
	slices.Sort(ids)
	return ids
}

func (a *account) config() verify.Config {
	return verify.Config{
		Source: a.source, Mirror: a.mirror, Pool: a.pool, Collections: a.collections, Provider: "stripe", Settle: 300 * time.Millisecond,
	}
}

func (a *account) verify(o verify.Options) verify.Result {
	a.t.Helper()
	return a.run(a.config(), o)
}

func (a *account) run(c verify.Config, o verify.Options) verify.Result {
	a.t.Helper()
	r, err := verify.Run(a.t.Context(), c, o)
	if err != nil {
		a.t.Fatal(err)
	}
	return r
}

// short is a result in one line per difference.
func short(r verify.Result) []string {
	list := []string{}
	for kind, differences := range map[string][]verify.Difference{"missing": r.Missing, "stale": r.Stale, "extra": r.Extra} {
		for _, d := range differences {
			list = append(list, strings.TrimSpace(kind+" "+d.Collection+" "+d.ID+" "+d.Hint))
		}
	}
	for _, u := range r.Unchecked {
		list = append(list, "unchecked "+u.Collection)
	}
	slices.Sort(list)
	return list
}

func (a *account) want(r verify.Result, want ...string) {
	a.t.Helper()
	slices.Sort(want)
	if diff := cmp.Diff(append([]string{}, want...), short(r)); diff != "" {
		a.t.Errorf("found (-want +got):\n%s", diff)
	}
}

// limited is a source of the account that keeps to Stripe's limits.
func (a *account) limited() (source.Source, *limit.Limiter) {
	spec, err := stripe.Spec(key)
	if err != nil {
		a.t.Fatal(err)
	}
	bucket := func(b rest.Bucket) limit.Bucket {
		return limit.Bucket{Rate: b.Rate, Per: b.Per, Burst: b.Burst, Concurrency: b.Concurrency, Penalty: b.Penalty, Reserve: b.Reserve}
	}
	l := limit.New(limit.Config{Buckets: map[string]limit.Bucket{"account": bucket(*spec.Limits["account"])}, Bucket: func(name string) (limit.Bucket, bool) {
		b, ok := spec.Bucket(name)
		return bucket(b), ok
	}})
	return a.connect(l), l
}

// faulty is a source whose calls may be answered by the test.
type faulty struct {
	source.Source
	backfill func(collection string, at source.Cursor) (source.Page, error, bool)
	get      func(collection string, ids []string, page source.Page) (source.Page, error)
}

func (f faulty) Backfill(ctx context.Context, collection string, at source.Cursor) (source.Page, error) {
	if f.backfill != nil {
		if page, err, mine := f.backfill(collection, at); mine {
			return page, err
		}
	}
	return f.Source.Backfill(ctx, collection, at)
}

func (f faulty) Get(ctx context.Context, collection string, ids []string) (source.Page, error) {
	page, err := f.Source.Get(ctx, collection, ids)
	if f.get == nil || err != nil {
		return page, err
	}
	return f.get(collection, ids, page)
}
