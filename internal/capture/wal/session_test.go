package wal

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"lockstep/internal/pgdb/cluster"
	"lockstep/internal/pgdb/pgtest"
)

func walsender(t testing.TB, r *running) string {
	t.Helper()
	return pgtest.Query(t, r.url, "SELECT COALESCE(active_pid, 0) FROM pg_replication_slots WHERE slot_name = $1::text", r.config.Slot)[0][0]
}

// W6
func TestConnectionSurvivesBackPressure(t *testing.T) {
	t.Parallel()
	url := pgtest.Database(t)
	pgtest.Exec(t, url, "CREATE TABLE a (id int PRIMARY KEY, v text)",
		"ALTER DATABASE "+pgtest.Query(t, url, "SELECT quote_ident(current_database())")[0][0]+" SET wal_sender_timeout = '1s'")
	publishTables(t, url, "a")
	log := newMemoryLog(t)
	r := begin(t, url, log, func(c *Config, _ *tuning) { c.BatchBytes = 4 << 10 })
	pid := walsender(t, r)
	log.stop()
	pgtest.Exec(t, url, "INSERT INTO a SELECT i, repeat('x', 1000) FROM generate_series(1, 5000) i")
	pressed := time.Now()
	pgtest.Eventually(t, 10*time.Second, "three times wal_sender_timeout have passed", func() bool { return time.Since(pressed) > 3*time.Second })
	equal(t, walsender(t, r), pid)
	equal(t, r.Status().Connected, true)
	log.start()
	r.caughtUp()
	equal(t, len(log.rows(t)), 5000)
	equal(t, walsender(t, r), pid)
}

// W9: two processes on one slot.
func TestSecondCaptureWaitsForTheSlot(t *testing.T) {
	t.Parallel()
	url := pgtest.Database(t)
	pgtest.Exec(t, url, "CREATE TABLE a (id int PRIMARY KEY)")
	publishTables(t, url, "a")
	log := newMemoryLog(t)
	first := begin(t, url, log)
	pid := walsender(t, first)
	second := launch(t, url, log)
	pgtest.Eventually(t, 10*time.Second, "the second one says that it waits", func() bool {
		return strings.Contains(second.Status().LastError, "is read by pid "+pid)
	})
	pgtest.Exec(t, url, "INSERT INTO a VALUES (1)")
	first.caughtUp()
	equal(t, walsender(t, first), pid)
	first.stop()
	pgtest.Eventually(t, 10*time.Second, "the second one takes over", func() bool { return second.Status().Connected })
	pgtest.Exec(t, url, "INSERT INTO a VALUES (2)")
	second.caughtUp()
	equal(t, log.rows(t), []string{`insert {"id":1}`, `insert {"id":2}`})
}

// W9: a connection whose other end is gone without a word. The server, too, takes
// it for alive: its walsender holds the slot.
func TestHalfOpenConnectionIsNoticedAndItsWalsenderEnded(t *testing.T) {
	t.Parallel()
	url := pgtest.Database(t)
	pgtest.Exec(t, url, "CREATE TABLE a (id int PRIMARY KEY)")
	publishTables(t, url, "a")
	proxy := newProxy(t, url)
	log := newMemoryLog(t)
	r := begin(t, proxy.url, log, func(c *Config, tune *tuning) { c.Slot, tune.silence = slotOf(url), time.Second })
	pgtest.Exec(t, url, "INSERT INTO a VALUES (1)")
	log.caughtUp(t, url)
	pid := walsender(t, r)
	proxy.freeze()
	pgtest.Exec(t, url, "INSERT INTO a VALUES (2)")
	log.caughtUp(t, url)
	equal(t, log.rows(t), []string{`insert {"id":1}`, `insert {"id":2}`})
	if now := walsender(t, r); now == pid {
		t.Error("the walsender is still", pid)
	}
}

func TestQuietConnectionIsNotTakenForDead(t *testing.T) {
	t.Parallel()
	url := pgtest.Database(t)
	publishTables(t, url)
	r := begin(t, url, newMemoryLog(t), func(_ *Config, tune *tuning) { tune.silence = time.Second })
	pid, began := walsender(t, r), time.Now()
	pgtest.Eventually(t, 10*time.Second, "three times the silence has passed", func() bool { return time.Since(began) > 3*time.Second })
	equal(t, walsender(t, r), pid)
}

// Also a large amount of data in the first moments: the driver must not have kept
// any of it.
func TestReplicationOverTLS(t *testing.T) {
	t.Parallel()
	url := pgtest.Database(t)
	pgtest.Exec(t, url, "CREATE TABLE a (id int PRIMARY KEY, v text)")
	publishTables(t, url, "a")
	pgtest.Exec(t, url, "SELECT pg_create_logical_replication_slot('"+slotOf(url)+"', 'pgoutput')",
		"INSERT INTO a SELECT i, repeat('x', 300) FROM generate_series(1, 5000) i")
	proxy := newProxy(t, url)
	proxy.encrypt(t)
	log := newMemoryLog(t)
	begin(t, proxy.url, log, func(c *Config, _ *tuning) { c.Slot = slotOf(url) })
	log.caughtUp(t, url)
	equal(t, len(log.rows(t)), 5000)
}

func TestCutConnectionIsMadeAgain(t *testing.T) {
	t.Parallel()
	url := pgtest.Database(t)
	pgtest.Exec(t, url, "CREATE TABLE a (id int PRIMARY KEY, v text)")
	publishTables(t, url, "a")
	proxy := newProxy(t, url)
	log := newMemoryLog(t)
	begin(t, proxy.url, log, func(c *Config, _ *tuning) { c.Slot = slotOf(url) })
	for i := range 5 {
		pgtest.Exec(t, url, fmt.Sprintf("INSERT INTO a SELECT i, repeat('x', 500) FROM generate_series(%d, %d) i", i*2000, i*2000+1999))
		at := log.mark().Seq
		pgtest.Eventually(t, 20*time.Second, "something arrives", func() bool { return log.mark().Seq > at || at == uint64(i+1)*2000 })
		proxy.cut()
	}
	log.caughtUp(t, url)
	equal(t, len(log.rows(t)), 10000)
}

func stopFast(t testing.TB, c *cluster.Cluster) time.Duration {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	start := time.Now()
	if err := c.Stop(ctx); err != nil {
		t.Fatal(err)
	}
	return time.Since(start)
}

// W11, and after it the restart.
func TestShutdownOfPostgresIsNotHeldUp(t *testing.T) {
	t.Parallel()
	c := pgtest.Cluster(t, nil)
	url := c.URL("postgres")
	pgtest.Exec(t, url, "CREATE TABLE a (id int PRIMARY KEY)", "CREATE TABLE other (id int)")
	publishTables(t, url, "a")
	log := newMemoryLog(t)
	r := begin(t, url, log)
	pgtest.Exec(t, url, "INSERT INTO a VALUES (1)", "INSERT INTO other SELECT generate_series(1, 10000)")
	if err := c.Restart(t.Context()); err != nil {
		t.Fatal(err)
	}
	pgtest.Eventually(t, 20*time.Second, "capture streams again", func() bool { return r.Status().Connected })
	pgtest.Exec(t, url, "INSERT INTO a VALUES (2)")
	r.caughtUp()
	equal(t, log.rows(t), []string{`insert {"id":1}`, `insert {"id":2}`})
	if took := stopFast(t, c); took > 4*time.Second {
		t.Errorf("the shutdown took %s", took)
	}
}

// A disk that takes nothing must not keep Postgres from shutting down either: what
// was not confirmed comes again.
func TestShutdownOfPostgresIsNotHeldUpByAFullDisk(t *testing.T) {
	t.Parallel()
	c := pgtest.Cluster(t, nil)
	url := c.URL("postgres")
	pgtest.Exec(t, url, "CREATE TABLE a (id int PRIMARY KEY)")
	publishTables(t, url, "a")
	log := newMemoryLog(t)
	r := begin(t, url, log)
	pgtest.Exec(t, url, "INSERT INTO a VALUES (0)")
	r.caughtUp()
	log.stop()
	pgtest.Exec(t, url, "INSERT INTO a VALUES (1)")
	restarted := time.Now()
	if err := c.Restart(t.Context()); err != nil {
		t.Fatal(err)
	}
	if took := time.Since(restarted); took > 15*time.Second {
		t.Errorf("the restart took %s", took)
	}
	log.start()
	pgtest.Eventually(t, 20*time.Second, "capture streams again", func() bool { return r.Status().Connected })
	pgtest.Exec(t, url, "INSERT INTO a VALUES (2)")
	r.caughtUp()
	equal(t, log.rows(t), []string{`insert {"id":0}`, `insert {"id":1}`, `insert {"id":2}`})
}

// Ending in order confirms everything that is on disk and frees the slot.
func TestStopConfirmsAndFreesTheSlot(t *testing.T) {
	t.Parallel()
	url := pgtest.Database(t)
	pgtest.Exec(t, url, "CREATE TABLE a (id int PRIMARY KEY)")
	publishTables(t, url, "a")
	log := newMemoryLog(t)
	r := begin(t, url, log)
	pgtest.Exec(t, url, "INSERT INTO a VALUES (1)")
	r.caughtUp()
	r.stop()
	equal(t, walsender(t, r), "0")
	equal(t, lsnOf(t, pgtest.Query(t, url, "SELECT confirmed_flush_lsn FROM pg_replication_slots WHERE slot_name = $1::text", r.config.Slot)[0][0]), log.mark().EndLSN)
	equal(t, r.Status().State, "stopped")
}

func TestStatusTellsWhereThingsAre(t *testing.T) {
	t.Parallel()
	url := pgtest.Database(t)
	pgtest.Exec(t, url, "CREATE TABLE a (id int PRIMARY KEY)")
	publishTables(t, url, "a")
	log := newMemoryLog(t)
	r := begin(t, url, log)
	pgtest.Exec(t, url, "INSERT INTO a VALUES (1), (2)", "INSERT INTO a VALUES (3)")
	r.caughtUp()
	pgtest.Eventually(t, 10*time.Second, "the slot was looked at", func() bool { return r.Status().Slot.WALStatus == "reserved" && r.Status().LagBytes == 0 })
	s := r.Status()
	equal(t, []any{s.State, s.LastError, s.Changes, s.Transactions, s.Slot.SafeBytes}, []any{"streaming", "", uint64(3), uint64(2), int64(-1)})
	if time.Since(s.LastHeard) > time.Minute || s.Bytes == 0 || s.Slot.RetainedBytes < 0 {
		t.Errorf("%+v", s)
	}
}
