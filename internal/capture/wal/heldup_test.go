package wal

import (
	"testing"
	"time"

	"lockstep/internal/pgdb/pgtest"
)

// held is a capture whose disk hangs and whose walsender is stuck in sending.
func held(t *testing.T, url string, change ...settings) (*running, *memoryLog) {
	t.Helper()
	pgtest.Exec(t, url, "CREATE TABLE a (id int PRIMARY KEY, v text)", "CREATE TABLE noise (v text)")
	publishTables(t, url, "a")
	log := newMemoryLog(t)
	log.budget = 1
	r := begin(t, url, log, append(change, func(c *Config, _ *tuning) { c.BatchBytes = 4 << 10 })...)
	log.stop()
	pgtest.Exec(t, url, "INSERT INTO a SELECT i, repeat('x', 1000) FROM generate_series(1, 20000) i")
	pgtest.Eventually(t, 20*time.Second, "the walsender waits for us", func() bool {
		rows := pgtest.Query(t, url, "SELECT a.wait_event FROM pg_stat_activity a JOIN pg_replication_slots s ON s.active_pid = a.pid WHERE s.slot_name = $1::text", r.config.Slot)
		return len(rows) == 1 && rows[0][0] == "WalSenderWriteData"
	})
	return r, log
}

// goesOn checks that everything arrives once the disk is well again.
func goesOn(t *testing.T, r *running, log *memoryLog, rows int) {
	t.Helper()
	log.start()
	r.caughtUp()
	equal(t, len(log.rows(t)), rows)
}

// Who ends a walsender waits for its end, which must not depend on our disk.
func TestWalsenderThatIsEndedDoesNotWaitForOurDisk(t *testing.T) {
	t.Parallel()
	url := pgtest.Database(t)
	r, log := held(t, url)
	pid := walsender(t, r)
	pgtest.Exec(t, url, "SELECT pg_terminate_backend("+pid+")")
	pgtest.Eventually(t, 10*time.Second, "the walsender ends", func() bool {
		return pgtest.Query(t, url, "SELECT count(*) FROM pg_stat_activity WHERE pid = "+pid)[0][0] == "0"
	})
	goesOn(t, r, log, 20000)
}

// The checkpointer ends the walsender before it takes the slot's WAL away.
func TestCheckpointsOfPostgresDoNotWaitForOurDisk(t *testing.T) {
	t.Parallel()
	c := pgtest.Cluster(t, map[string]string{"max_slot_wal_keep_size": "16MB", "min_wal_size": "32MB", "max_wal_size": "1GB"})
	url := c.URL("postgres")
	r, log := held(t, url, func(c *Config, _ *tuning) { c.Slot = "s" })
	for i := 0; i < 30 && r.Status().Gap == ""; i++ {
		pgtest.Exec(t, url, "INSERT INTO noise SELECT repeat('x', 1000) FROM generate_series(1, 5000)", "SELECT pg_switch_wal()")
		checkpoint(t, url)
	}
	log.start()
	pgtest.Eventually(t, 20*time.Second, "capture goes on", func() bool { return r.Status().Connected && r.Status().Gap == "slot_lost" })
	pgtest.Exec(t, url, "INSERT INTO a VALUES (0, 'after')")
	r.caughtUp()
	rows := log.rows(t)
	equal(t, rows[len(rows)-1], `insert {"id":0,"v":"after"}`)
}

// checkpoint fails the test when a checkpoint takes long.
func checkpoint(t *testing.T, url string) {
	t.Helper()
	began := time.Now()
	pgtest.Exec(t, url, "SET statement_timeout = '20s'; CHECKPOINT")
	if took := time.Since(began); took > 10*time.Second {
		t.Errorf("a checkpoint took %s", took)
	}
}

// While nobody wants the connection to end it is let be: see TestConnectionSurvivesBackPressure.
func TestHeldUpIsTheTimeWithoutReadingAndLanding(t *testing.T) {
	t.Parallel()
	s := &session{flight: &flight{}}
	ago := func(d time.Duration) int64 { return time.Now().Add(-d).UnixNano() }
	for _, c := range []struct {
		name    string
		working int64
		landed  int64
		want    time.Duration
	}{
		{"waits for Postgres", 0, ago(time.Hour), 0},
		{"waits for the log, which never took anything", ago(time.Hour), 0, time.Hour},
		{"waits for the log, which takes little", ago(time.Hour), ago(time.Minute), time.Minute},
		{"has just read", ago(time.Minute), ago(time.Hour), time.Minute},
	} {
		s.working.Store(c.working)
		s.flight.last.Store(c.landed)
		if got := s.heldUp(); got.Round(time.Second) != c.want {
			t.Errorf("%s: held up for %s, want %s", c.name, got, c.want)
		}
	}
}
