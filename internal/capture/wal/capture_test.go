package wal

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"lockstep"
	"lockstep/internal/pgdb/pgtest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(pgtest.Suite{M: m}) }

// running is a capture that runs.
type running struct {
	*Capture
	t     testing.TB
	log   *memoryLog
	url   string
	ended chan error
	end   context.CancelFunc
}

// settings is what a test changes in the configuration.
type settings func(*Config, *tuning)

// publish makes the two publications of a test over the tables.
func publishTables(t testing.TB, url string, tables ...string) {
	t.Helper()
	list := ""
	if len(tables) > 0 {
		list = "FOR TABLE " + strings.Join(tables, ", ")
	}
	pgtest.Exec(t, url, "CREATE PUBLICATION p "+list+" WITH (publish_via_partition_root = true)",
		"CREATE PUBLICATION p_inserts WITH (publish = 'insert,truncate', publish_via_partition_root = true)")
}

// slotOf gives each database a slot of its own: slots are the cluster's.
func slotOf(url string) string {
	name := url[:strings.IndexByte(url+"?", '?')]
	return "s_" + name[strings.LastIndexByte(name, '/')+1:]
}

// begin starts a capture of url into log and waits until it streams.
func begin(t testing.TB, url string, log *memoryLog, change ...settings) *running {
	t.Helper()
	r := launch(t, url, log, change...)
	pgtest.Eventually(t, 20*time.Second, "capture streams", func() bool { return r.Status().Connected })
	return r
}

// launch starts a capture of url into log.
func launch(t testing.TB, url string, log *memoryLog, change ...settings) *running {
	t.Helper()
	r := launchOn(t, url, log, change...)
	r.log = log
	return r
}

func launchOn(t testing.TB, url string, log Log, change ...settings) *running {
	t.Helper()
	config := Config{
		Database: "app", URL: url, Slot: slotOf(url), Publication: "p", Log: log,
		Logger: slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelInfo})),
	}
	var tune tuning
	for _, change := range change {
		change(&config, &tune)
	}
	c, err := New(config)
	if err != nil {
		t.Fatal(err)
	}
	c.tune.idle, c.tune.poll, c.tune.longest, c.tune.leaving = 20*time.Millisecond, 100*time.Millisecond, 200*time.Millisecond, time.Second
	for _, change := range change {
		change(&config, &c.tune)
	}
	ctx, cancel := context.WithCancel(context.Background())
	r := &running{Capture: c, t: t, url: url, ended: make(chan error, 1), end: cancel}
	go func() { r.ended <- c.Run(ctx) }()
	t.Cleanup(r.stop)
	return r
}

// stop ends the capture in order.
func (r *running) stop() {
	r.end()
	if r.ended == nil {
		return
	}
	if err := <-r.ended; err != nil && !errors.Is(err, lockstep.ErrConflict) && !errors.Is(err, lockstep.ErrFenced) {
		r.t.Error("Run:", err)
	}
	r.ended = nil
}

// caughtUp waits until the log has everything committed so far.
func (r *running) caughtUp() {
	r.t.Helper()
	r.log.caughtUp(r.t, r.url)
}

func (l *memoryLog) caughtUp(t testing.TB, url string) {
	t.Helper()
	pgtest.Exec(t, url, "SELECT pg_logical_emit_message(true, 'test', '')")
	now, err := lockstep.ParseLSN(pgtest.Query(t, url, "SELECT pg_current_wal_lsn()")[0][0])
	if err != nil {
		t.Fatal(err)
	}
	pgtest.Eventually(t, 30*time.Second, "the log is at "+now.String(), func() bool { return l.mark().EndLSN >= now })
}

// captured runs the statements under a capture of the tables that ddl makes, and
// returns what came out.
func captured(t testing.TB, ddl []string, tables []string, statements ...string) *memoryLog {
	t.Helper()
	url := pgtest.Database(t)
	pgtest.Exec(t, url, ddl...)
	publishTables(t, url, tables...)
	log := newMemoryLog(t)
	r := begin(t, url, log)
	pgtest.Exec(t, url, statements...)
	r.caughtUp()
	return log
}

func TestInsertUpdateDelete(t *testing.T) {
	t.Parallel()
	log := captured(t, []string{"CREATE TABLE a (id int PRIMARY KEY, v text)"}, []string{"a"},
		"INSERT INTO a VALUES (1, 'x'), (2, NULL)",
		"UPDATE a SET v = 'y' WHERE id = 1",
		"DELETE FROM a WHERE id = 2",
	)
	equal(t, log.changes(t), []seen{
		{Action: "insert", Table: "public.a", Row: `{"id":1,"v":"x"}`, PKs: `["1"]`, OldKnown: true},
		{Action: "insert", Table: "public.a", Row: `{"id":2,"v":null}`, PKs: `["2"]`, OldKnown: true},
		{Action: "update", Table: "public.a", Row: `{"id":1,"v":"y"}`, PKs: `["1"]`},
		{Action: "delete", Table: "public.a", Row: `{"id":2}`, PKs: `["2"]`},
	})
}

// present stands for a Publish that finds everything as it should be.
func present(context.Context) error { return nil }
