package mirror_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"lockstep"
	"lockstep/internal/mirror"
	"lockstep/internal/pgdb"
	"lockstep/internal/pgdb/pgtest"
	"lockstep/source"
)

func TestASecondEngineWaitsForTheFirst(t *testing.T) {
	t.Parallel()
	f := newFixture(t, customers())
	second, err := mirror.Open(t.Context(), mirror.Config{Pool: f.pool, Sync: f.id, Name: "acme", Provider: "api"})
	if err != nil {
		t.Fatal(err)
	}
	if err := second.Prepare(t.Context(), []source.Collection{customers()}); !errors.Is(err, lockstep.ErrFenced) {
		t.Errorf("prepare without the lock: got %v, want ErrFenced", err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	if _, err := second.Lock(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("got %v, want the end of the patience", err)
	}
	locked := make(chan error, 1)
	var release func()
	go func() {
		var err error
		release, err = second.Lock(t.Context())
		locked <- err
	}()
	f.put("customer", 1, customer("a", 1, 1))
	f.stop()
	if err := <-locked; err != nil {
		t.Fatal(err)
	}
	release()
	release()
}

// The session that writes is the one that holds the lock. When it breaks, it is made
// anew, unless another engine was faster.
func TestABrokenSessionIsMadeAnew(t *testing.T) {
	t.Parallel()
	f := newFixture(t, customers())
	f.put("customer", 1, customer("a", 1, 1))
	f.killWriter()
	for tries := 0; ; tries++ {
		_, err := f.Apply(t.Context(), mirror.Change{Collection: "customer", Records: []source.Record{customer("b", 1, 1)}, At: day(1)})
		if err == nil {
			break
		}
		if !lockstep.Retryable(err) || tries > 2 {
			t.Fatalf("try %d: %v", tries, err)
		}
	}
	f.want("SELECT count(*) FROM api.customer", row("2"))
}

func (f *fixture) killWriter() {
	f.t.Helper()
	f.query("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'lockstep sync acme' AND datname = current_database()")
}

func TestAnEngineThatWasOvertakenWritesNoMore(t *testing.T) {
	t.Parallel()
	f := newFixture(t, customers())
	second, err := mirror.Open(t.Context(), mirror.Config{Pool: f.pool, Sync: f.id, Name: "acme", Provider: "api"})
	if err != nil {
		t.Fatal(err)
	}
	f.killWriter() // as a firewall would: this engine does not notice
	release, err := second.Lock(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer release()
	change := mirror.Change{Collection: "customer", Records: []source.Record{customer("a", 1, 1)}}
	pgtest.Eventually(t, 10*time.Second, "the first engine is fenced", func() bool {
		_, err := f.Apply(t.Context(), change)
		if err == nil {
			t.Fatal("an engine without the lock has written")
		}
		return errors.Is(err, lockstep.ErrFenced)
	})
	// A fence that was raised by hand stops the session too, lock or not.
	pgtest.Exec(t, f.url, "UPDATE lockstep.sync SET fence = fence + 1")
	if err := second.Prepare(t.Context(), []source.Collection{customers()}); !errors.Is(err, lockstep.ErrFenced) {
		t.Errorf("got %v, want ErrFenced", err)
	}
}

// Whatever is cut off wherever: rows and cursor are of one page.
func TestCutOffAnywhereRowsAndCursorAgree(t *testing.T) {
	t.Parallel()
	f := newFixture(t, anything())
	const pages, size = 40, 20
	cuts := 0
	patience := 20 * time.Millisecond // grows until a page gets through on this machine, however busy
	for next := 0; next < pages; {
		ctx, cancel := context.WithTimeout(t.Context(), rand.N(patience))
		_, err := f.Apply(ctx, page(next, size))
		cancel()
		if err != nil {
			cuts++
			patience += patience / 10
		} else {
			patience = max(patience/2, 20*time.Millisecond)
		}
		next = f.agree(size)
	}
	if cuts == 0 {
		t.Error("nothing was cut off: the test is too slow or too patient")
	}
	f.want("SELECT count(*), sum(n) FROM api.thing", row(fmt.Sprint(pages*size), fmt.Sprint(pages*size*(pages*size-1)/2)))
}

func page(n, size int) mirror.Change {
	c := mirror.Change{Collection: "thing", At: day(n), States: []mirror.State{{Name: "backfill:thing", Cursor: []byte(fmt.Sprint(n + 1))}}}
	for i := n * size; i < (n+1)*size; i++ {
		c.Records = append(c.Records, record(fmt.Sprint("t", i), 1, fmt.Sprintf(`{"n":%d,"f%d":true}`, i, i/size)))
	}
	return c
}

// agree returns the next page, by the cursor, after comparing it with the rows.
func (f *fixture) agree(size int) int {
	f.t.Helper()
	rows := f.query(`SELECT coalesce((SELECT (cursors ->> 'backfill')::int FROM lockstep.sync_state WHERE collection = 'thing'), 0), count(*) FROM api.thing`)
	var next, count int
	for i, into := range []*int{&next, &count} {
		if _, err := fmt.Sscan(rows[0][i], into); err != nil {
			f.t.Fatal(err)
		}
	}
	if count != next*size {
		f.t.Fatalf("the cursor says %d pages of %d, and there are %d rows", next, size, count)
	}
	return next
}

// The backend is killed at random; the engine goes on by itself.
func TestKilledBackendsLoseAndDoubleNothing(t *testing.T) {
	t.Parallel()
	f := newFixture(t, anything())
	ctx, stop := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	wg.Go(func() {
		tick := time.NewTicker(100 * time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-tick.C:
				f.killWriter()
			case <-ctx.Done():
				return
			}
		}
	})
	const pages, size = 30, 50
	for next := 0; next < pages; next = f.agree(size) {
		if _, err := f.Apply(t.Context(), page(next, size)); err != nil && !lockstep.Retryable(err) {
			t.Error(err)
			break
		}
	}
	stop()
	wg.Wait()
	f.want("SELECT count(*) FROM api.thing", row(fmt.Sprint(pages*size)))
}

func TestManyCollectionsAtOnce(t *testing.T) {
	t.Parallel()
	f := newFixture(t, customers(), anything())
	var wg sync.WaitGroup
	for w := range 4 {
		wg.Go(func() {
			for i := range 20 {
				collection := []string{"customer", "thing"}[w%2]
				r := record(fmt.Sprint("x", i), i*4+w+1, fmt.Sprintf(`{"balance":%d}`, w))
				if _, err := f.Apply(t.Context(), mirror.Change{Collection: collection, Records: []source.Record{r}, At: day(1000)}); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	f.want("SELECT count(*), sum(balance) FROM api.customer", row("20", "40"))
	f.want("SELECT count(*), sum(balance) FROM api.thing", row("20", "60"))
}

func TestTransactionsCarryTheOriginOfSyncs(t *testing.T) {
	t.Parallel()
	f := newFixture(t, customers())
	f.query("SELECT pg_create_logical_replication_slot('s_' || current_database(), 'test_decoding')")
	f.put("customer", 1, customer("a", 1, 1))
	// Only what has no origin is asked for.
	f.want(`SELECT data FROM pg_logical_slot_get_changes('s_' || current_database(), NULL, NULL, 'only-local', 'on') WHERE data LIKE '%customer%'`)
	f.restart(customers()) // the origin is free again
	f.put("customer", 2, customer("a", 2, 2))
	f.want(`SELECT data FROM pg_logical_slot_get_changes('s_' || current_database(), NULL, NULL, 'only-local', 'on') WHERE data LIKE '%customer%'`)
	f.want("SELECT roname = 'lockstep_sync_"+compact(f.id)+"' FROM pg_replication_origin WHERE roname LIKE '%"+compact(f.id)+"'", row("t"))
	f.stop()
	f.query("SELECT pg_replication_origin_drop('lockstep_sync_" + compact(f.id) + "')")
}

// A session with an origin says itself when its transactions commit.
func TestTransactionsCarryTheirOwnCommitTime(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	f.query("SELECT pg_create_logical_replication_slot('t_' || current_database(), 'test_decoding')")
	began := time.Now()
	f.prepare(customers())
	for i := range 3 {
		f.put("customer", i, customer("a", i, i))
	}
	var last time.Time
	for _, line := range f.query(`SELECT data FROM pg_logical_slot_get_changes('t_' || current_database(), NULL, NULL, 'include-xids', 'off', 'include-timestamp', 'on', 'skip-empty-xacts', 'on')
		WHERE data LIKE 'COMMIT%'`) {
		at, err := time.Parse("COMMIT (at 2006-01-02 15:04:05-07)", line[0])
		if err != nil {
			t.Fatal(err)
		}
		if !at.After(last) || at.Before(began) || at.After(time.Now()) {
			t.Errorf("committed at %s, the one before at %s, the first after %s", at, last, began)
		}
		last = at
	}
	if last.IsZero() {
		t.Error("nothing was committed")
	}
}

func TestARoleWithoutOriginsMirrorsAllTheSame(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	name := f.query("SELECT current_database()")[0][0]
	f.stop()
	pgtest.Exec(t, f.url, "CREATE ROLE r_"+name+" LOGIN", "GRANT ALL ON DATABASE "+name+" TO r_"+name,
		"GRANT ALL ON SCHEMA lockstep TO r_"+name, "GRANT ALL ON ALL TABLES IN SCHEMA lockstep TO r_"+name, "GRANT ALL ON ALL SEQUENCES IN SCHEMA lockstep TO r_"+name)
	admin := f.url
	config, err := pgx.ParseConfig(f.url)
	if err != nil {
		t.Fatal(err)
	}
	f.url = as(t, f.url, "r_"+name)
	f.restart(customers())
	f.put("customer", 1, customer("a", 1, 1))
	f.want("SELECT id FROM api.customer", row("a"))
	f.stop()
	pgtest.Exec(t, admin, "REASSIGN OWNED BY r_"+name+" TO "+pgx.Identifier{config.User}.Sanitize(), "DROP OWNED BY r_"+name, "DROP ROLE r_"+name)
}

// Postgres has room for max_replication_slots origins: a sync that is gone must not keep
// its own.
func TestForgottenSyncLeavesNothingButItsTables(t *testing.T) {
	t.Parallel()
	f := newFixture(t, customers())
	f.put("customer", 1, customer("a", 1, 1))
	origin := "SELECT count(*) FROM pg_replication_origin WHERE roname = 'lockstep_sync_" + strings.ReplaceAll(f.id, "-", "") + "'"
	f.want(origin, []string{"1"})
	f.stop()
	pool, err := pgdb.Open(t.Context(), f.url, "test")
	if err != nil {
		t.Fatal(err)
	}
	defer pool.Close()
	pgtest.Eventually(t, 10*time.Second, "the sync to be forgotten", func() bool {
		if err := mirror.Forget(t.Context(), pool, f.id); err != nil {
			t.Fatal(err)
		}
		return f.query(origin)[0][0] == "0" // the session that had it may still be ending
	})
	f.want("SELECT count(*) FROM api.customer", []string{"1"})
	f.want("SELECT count(*) FROM lockstep.sync", []string{"0"})
}

// A page that waits for somebody's lock says so after a while, and lets other tables
// have their turn; it may be tried again.
func TestALockedTableIsToldAndHoldsUpNoOther(t *testing.T) {
	t.Parallel()
	f := newFixture(t, customers(), anything())
	f.put("customer", 0, customer("a", 0, 0))
	tx, err := f.pool.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := tx.Exec(t.Context(), "LOCK TABLE api.customer IN ACCESS EXCLUSIVE MODE"); err != nil {
		t.Fatal(err)
	}
	_, err = f.Apply(t.Context(), mirror.Change{Collection: "customer", Records: []source.Record{customer("a", 1, 1)}, At: day(1)})
	if err == nil || !lockstep.Retryable(err) || !strings.Contains(err.Error(), "api.customer") || !strings.Contains(err.Error(), "another session holds a lock") {
		t.Errorf("with the table locked: %v", err)
	}
	f.put("thing", 1, source.Record{ID: "1", Version: day(1), Data: []byte(`{"id":"1"}`)})
	if err := tx.Rollback(t.Context()); err != nil {
		t.Fatal(err)
	}
	f.result(f.put("customer", 1, customer("a", 1, 1)), mirror.Result{Updated: 1})
}
