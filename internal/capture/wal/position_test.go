package wal

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"lockstep"
	"lockstep/internal/pgdb/pgtest"
)

// connectSQL gives a test a connection that stays open over several statements.
func connectSQL(t testing.TB, url string) func(sql string) {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		_ = conn.Close(ctx)
	})
	return func(sql string) {
		t.Helper()
		if _, err := conn.Exec(t.Context(), sql); err != nil {
			t.Fatalf("%s: %v", sql, err)
		}
	}
}

// W1
func TestRowsOfOneCopyAndOneInsertHaveTheirOwnPositions(t *testing.T) {
	t.Parallel()
	url := pgtest.Database(t)
	pgtest.Exec(t, url, "CREATE TABLE a (id int PRIMARY KEY)")
	publishTables(t, url, "a")
	log := newMemoryLog(t)
	r := begin(t, url, log)
	conn, err := pgx.Connect(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := conn.PgConn().CopyFrom(t.Context(), strings.NewReader("1\n2\n3\n"), "COPY a FROM STDIN"); err != nil {
		t.Fatal(err)
	}
	_ = conn.Close(t.Context())
	pgtest.Exec(t, url, "INSERT INTO a VALUES (4), (5), (6)")
	r.caughtUp()
	equal(t, log.rows(t), []string{
		`insert {"id":1}`, `insert {"id":2}`, `insert {"id":3}`, `insert {"id":4}`, `insert {"id":5}`, `insert {"id":6}`,
	})
	keys := map[string]bool{}
	log.each(t, func(r lockstep.Record) { keys[string(lockstep.AppendIdempotencyKey(nil, r))] = true })
	equal(t, len(keys), 6)
}

// W2
func TestChangesComeInCommitOrderNotInOrderOfTheirLSN(t *testing.T) {
	t.Parallel()
	url := pgtest.Database(t)
	pgtest.Exec(t, url, "CREATE TABLE a (id int PRIMARY KEY)")
	publishTables(t, url, "a")
	log := newMemoryLog(t)
	r := begin(t, url, log)
	long := connectSQL(t, url)
	long("BEGIN")
	long("INSERT INTO a VALUES (1)")
	pgtest.Exec(t, url, "INSERT INTO a VALUES (2)")
	r.caughtUp()
	// A restart between the two must not take row 1 for something already seen:
	// its LSN lies before that of row 2.
	r.stop()
	r = begin(t, url, log)
	long("INSERT INTO a VALUES (11)")
	long("COMMIT")
	r.caughtUp()
	equal(t, log.rows(t), []string{`insert {"id":2}`, `insert {"id":1}`, `insert {"id":11}`})
}

// W3, and a log that breaks rather than a process: both leave a transaction cut
// at any place.
func TestTransactionCutByAFailingLogIsCompletedExactlyOnce(t *testing.T) {
	t.Parallel()
	url := pgtest.Database(t)
	pgtest.Exec(t, url, "CREATE TABLE a (id int PRIMARY KEY, v text)")
	publishTables(t, url, "a")
	log := newMemoryLog(t)
	r := begin(t, url, log, func(c *Config, _ *tuning) { c.BatchBytes = 4 << 10 })
	pgtest.Exec(t, url, "INSERT INTO a SELECT i, repeat('x', 100) FROM generate_series(1, 10000) i")
	for cut := 1; cut <= 5; cut++ {
		pgtest.Eventually(t, 20*time.Second, "some batches more", func() bool { return len(log.all()) > 40*cut || log.mark().Seq == 10000 })
		log.fail(fmt.Errorf("the disk failed for the %d. time", cut))
	}
	r.caughtUp()
	want := make([]string, 10000)
	for i := range want {
		want[i] = fmt.Sprintf(`insert {"id":%d,"v":"%s"}`, i+1, strings.Repeat("x", 100))
	}
	equal(t, log.rows(t), want)
}

// W4: a slot that stands before what the log has is what a crash between the
// log's fsync and the confirmation leaves, however long ago.
func TestReplayAfterALostConfirmationIsSkipped(t *testing.T) {
	t.Parallel()
	url := pgtest.Database(t)
	pgtest.Exec(t, url, "CREATE TABLE a (id int PRIMARY KEY)")
	publishTables(t, url, "a")
	log := newMemoryLog(t)
	r := begin(t, url, log)
	pgtest.Exec(t, url, "SELECT pg_copy_logical_replication_slot('"+r.config.Slot+"', '"+r.config.Slot+"_before')")
	pgtest.Exec(t, url, "INSERT INTO a VALUES (1)", "INSERT INTO a VALUES (2), (3)")
	r.caughtUp()
	r.stop()
	equal(t, len(peek(t, url, r.config.Slot+"_before")) > 0, true)
	before := func(c *Config, _ *tuning) { c.Slot += "_before" }
	pgtest.Exec(t, url, "INSERT INTO a VALUES (4)")
	r = begin(t, url, log, before)
	r.caughtUp()
	equal(t, log.rows(t), []string{`insert {"id":1}`, `insert {"id":2}`, `insert {"id":3}`, `insert {"id":4}`})
}

// W5
func TestSlotIsNeverConfirmedAheadOfTheDisk(t *testing.T) {
	t.Parallel()
	url := pgtest.Database(t)
	pgtest.Exec(t, url, "CREATE TABLE a (id int PRIMARY KEY)", "CREATE TABLE other (id int)",
		"ALTER DATABASE "+pgtest.Query(t, url, "SELECT quote_ident(current_database())")[0][0]+" SET wal_sender_timeout = '1s'") // an answer every 333 ms
	publishTables(t, url, "a")
	log := newMemoryLog(t)
	r := begin(t, url, log)
	r.caughtUp()
	log.stop()
	for i := range 50 {
		// Rows for us and WAL that brings keepalives, in turn.
		pgtest.Exec(t, url, fmt.Sprintf("INSERT INTO a VALUES (%d)", i), "INSERT INTO other VALUES (1)")
	}
	durable := log.mark().EndLSN
	const query = "SELECT confirmed_flush_lsn, COALESCE(reply_time, now()) FROM pg_replication_slots s LEFT JOIN pg_stat_replication r ON r.pid = s.active_pid WHERE slot_name = $1::text"
	answers := map[string]bool{}
	pgtest.Eventually(t, 20*time.Second, "several answers were given", func() bool {
		row := pgtest.Query(t, url, query, r.config.Slot)[0]
		if got := lsnOf(t, row[0]); got > durable {
			t.Fatalf("confirmed %s, on disk %s", got, durable)
		}
		answers[row[1]] = true
		return len(answers) > 4
	})
	log.start()
	r.caughtUp()
	pgtest.Eventually(t, 10*time.Second, "the slot follows", func() bool { return lsnOf(t, pgtest.Query(t, url, query, r.config.Slot)[0][0]) > durable })
	equal(t, len(log.rows(t)), 50)
}

func lsnOf(t testing.TB, s string) lockstep.LSN {
	t.Helper()
	lsn, err := lockstep.ParseLSN(s)
	if err != nil {
		t.Fatal(err)
	}
	return lsn
}

// A slot of a database in which nothing happens that concerns us still moves.
func TestIdleSlotAdvances(t *testing.T) {
	t.Parallel()
	url := pgtest.Database(t)
	pgtest.Exec(t, url, "CREATE TABLE a (id int PRIMARY KEY)", "CREATE TABLE noise (v text)")
	publishTables(t, url, "a")
	log := newMemoryLog(t)
	r := begin(t, url, log)
	pgtest.Exec(t, url, "INSERT INTO noise SELECT repeat('x', 1000) FROM generate_series(1, 20000)")
	written := lsnOf(t, pgtest.Query(t, url, "SELECT pg_current_wal_lsn()")[0][0])
	pgtest.Eventually(t, 20*time.Second, "the slot has passed the noise", func() bool {
		return lsnOf(t, pgtest.Query(t, url, "SELECT confirmed_flush_lsn FROM pg_replication_slots WHERE slot_name = $1::text", r.config.Slot)[0][0]) >= written
	})
	equal(t, log.rows(t), nil)
}

// Several restarts under load, at no chosen moment.
func TestRestartsUnderLoadLoseAndDoubleNothing(t *testing.T) {
	t.Parallel()
	url := pgtest.Database(t)
	pgtest.Exec(t, url, "CREATE TABLE a (id int PRIMARY KEY, v int)")
	publishTables(t, url, "a")
	log := newMemoryLog(t)
	r := begin(t, url, log, func(c *Config, _ *tuning) { c.BatchBytes = 2 << 10 })
	written := make(chan struct{})
	go func() {
		defer close(written)
		for i := range 300 {
			pgtest.Exec(t, url, fmt.Sprintf("INSERT INTO a SELECT i, %d FROM generate_series(%d, %d) i", i, i*20, i*20+19))
		}
	}()
	for restart := range 6 {
		at := log.mark().Seq
		pgtest.Eventually(t, 20*time.Second, "something more arrived", func() bool { return log.mark().Seq > at || log.mark().Seq == 6000 })
		if restart%2 == 0 {
			r.stop()
			r = begin(t, url, log, func(c *Config, _ *tuning) { c.BatchBytes = 2 << 10 })
			continue
		}
		pgtest.Exec(t, url, "SELECT pg_terminate_backend(active_pid) FROM pg_replication_slots WHERE active AND slot_name = '"+r.config.Slot+"'")
	}
	<-written
	r.caughtUp()
	rows := log.rows(t)
	equal(t, len(rows), 6000)
	slices.Sort(rows)
	equal(t, len(slices.Compact(rows)), 6000)
}
