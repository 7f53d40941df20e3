package wal

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"lockstep"
	"lockstep/internal/pgdb/pgtest"
)

// gapBook is what Config.Gap was called with, and what the log held then.
type gapBook struct {
	mu    sync.Mutex
	log   *memoryLog
	fails int // calls that fail first
	told  []string
	had   []uint64 // the log's last seq at each call
}

func (b *gapBook) note(_ context.Context, g Gap) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.fails > 0 {
		b.fails--
		return errors.New("the book is closed")
	}
	text := g.Reason
	for _, t := range g.Tables {
		text += " " + t.String()
	}
	b.told = append(b.told, fmt.Sprintf("%s from %v", text, g.From != 0))
	b.had = append(b.had, b.log.mark().Seq)
	return nil
}

func (b *gapBook) all() []string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.told
}

// gapMarks returns "state reason table" of every gap in the log.
func gapMarks(t testing.TB, log *memoryLog) []string {
	t.Helper()
	var all []string
	log.each(t, func(r lockstep.Record) {
		if r.Action() != lockstep.Gap {
			return
		}
		rest := strings.TrimPrefix(string(r.Extra()), `,"gap":{"state":"`)
		state, rest, _ := strings.Cut(rest, `","reason":"`)
		reason, _, _ := strings.Cut(rest, `"`)
		all = append(all, state+" "+reason+" "+r.Table().String())
	})
	return all
}

// Whoever keeps the gaps knows of each one before the log has it, and keeps capture
// from going on until it does.
func TestGapIsToldBeforeItIsWritten(t *testing.T) {
	t.Parallel()
	url := pgtest.Database(t)
	pgtest.Exec(t, url, "CREATE TABLE a (id int PRIMARY KEY)", "CREATE TABLE b (id int PRIMARY KEY)")
	publishTables(t, url, "a", "b")
	log := newMemoryLog(t)
	book := &gapBook{log: log}
	config := func(c *Config, _ *tuning) { c.JoinSecret, c.Gap, c.Tables = "secret", book.note, []string{"public.*"} }
	r := begin(t, url, log, config)
	pgtest.Exec(t, url, "INSERT INTO a VALUES (1)")
	r.caughtUp()
	message := func(content string) string {
		return "SELECT pg_logical_emit_message(true, 'lockstep:gap:secret', '" + content + "')"
	}
	pgtest.Exec(t, url, message(`{"reason":"table_rewritten","tables":[{"oid":7,"schema":"public","name":"a"}]}`),
		message(`{"reason":"leaf_truncated","tables":[{"oid":7,"schema":"public","name":"a"},{"oid":8,"schema":"public","name":"b"},{"oid":9,"schema":"other","name":"c"}]}`),
		message(`{"reason":"leaf_truncated","tables":[{"oid":9,"schema":"other","name":"c"}]}`), // none of ours
		message(""), message("publication_rebuilt"), message(`{"reason":"rows_missing","tables":[]}`))
	r.caughtUp()
	equal(t, book.all(), []string{
		"table_rewritten public.a from false", "leaf_truncated public.a public.b from false",
		"publication_rebuilt from false", "publication_rebuilt from false", "rows_missing from false",
	})
	r.stop()
	pgtest.Exec(t, url, "SELECT pg_drop_replication_slot('"+r.config.Slot+"')")
	book.fails = 2
	r = begin(t, url, log, config)
	equal(t, book.all()[5:], []string{"slot_lost from true"})
	book.mu.Lock()
	book.fails = 2
	book.mu.Unlock()
	pgtest.Exec(t, url, message(`{"reason":"table_rewritten","tables":[{"oid":7,"schema":"public","name":"b"}]}`), "INSERT INTO a VALUES (2)")
	r.caughtUp()
	equal(t, book.all()[6:], []string{"table_rewritten public.b from false"})
	equal(t, gapMarks(t, log), []string{
		"start table_rewritten public.a", "start leaf_truncated public.a", "start leaf_truncated public.b",
		"start publication_rebuilt .", "start publication_rebuilt .", "start rows_missing .", "start slot_lost .", "start table_rewritten public.b",
	})
	equal(t, r.Status().Gap, "table_rewritten")
	for i, seq := range []uint64{2, 3, 5, 6, 7, 8, 9} {
		if book.had[i] >= seq {
			t.Errorf("the log had seq %d when the gap with seq %d was told", book.had[i], seq)
		}
	}
}

func TestEndOfAGap(t *testing.T) {
	t.Parallel()
	url := pgtest.Database(t)
	publishTables(t, url)
	log := newMemoryLog(t)
	r := begin(t, url, log)
	end := GapEnd{
		Gap:      Gap{Reason: "slot_lost", From: 5, To: 7},
		Complete: true, Reads: 3, Deletes: 2,
	}
	seq, err := r.EndGap(t.Context(), end)
	ok(t, err)
	equal(t, seq, uint64(1))
	equal(t, log.mark().Seq, seq)
	end.From, end.Complete, end.Unrepaired = 0, false, []string{`public.a: "x"`, "b"}
	end.Tables = []lockstep.Table{{OID: 1, Schema: "public", Name: "a", Key: lockstep.KeyPrimary}, {OID: 2, Schema: "public", Name: "b"}}
	seq, err = r.EndGap(t.Context(), end)
	ok(t, err)
	equal(t, seq, uint64(3))
	changes := log.changes(t)
	equal(t, changes, []seen{
		{Action: "gap", Table: ".", PKs: "[]", Extra: `,"gap":{"state":"end","reason":"slot_lost","from_lsn":5,"to_lsn":7,"missed":null,"complete":true,"reads":3,"deletes":2,"unrepaired":[]}`},
		{Action: "gap", Table: "public.a", PKs: "[]", Extra: `,"gap":{"state":"end","reason":"slot_lost","from_lsn":null,"to_lsn":7,"missed":null,"complete":false,"reads":3,"deletes":2,"unrepaired":["public.a: \"x\"","b"]}`},
		{Action: "gap", Table: "public.b", PKs: "[]", Extra: changes[1].Extra},
	})
	_, err = r.EndGap(t.Context(), GapEnd{})
	equal(t, errors.Is(err, lockstep.ErrInvalid), true)
	r.stop()
	_, err = r.EndGap(t.Context(), end)
	equal(t, errors.Is(err, lockstep.ErrUnavailable), true)
	r = begin(t, url, log)
	r.caughtUp()
	equal(t, len(log.changes(t)), 3)
}

// Beyond the budget and stuck, the slot goes rather than the server's disk. It is
// announced before, and the log has the gap.
func TestSlotBeyondItsBudgetIsGivenUpWhenItIsStuck(t *testing.T) {
	t.Parallel()
	c := pgtest.Cluster(t, map[string]string{"min_wal_size": "32MB", "max_wal_size": "32MB"})
	url := c.URL("postgres")
	pgtest.Exec(t, url, "CREATE TABLE a (id int PRIMARY KEY)", "CREATE TABLE noise (v text)")
	publishTables(t, url, "a")
	log := newMemoryLog(t)
	book := &gapBook{log: log}
	r := begin(t, url, log, func(c *Config, tune *tuning) {
		c.Slot, c.RetainWAL, c.Gap = "s", 40<<20, book.note
		tune.stuck = 500 * time.Millisecond
	})
	warns := func(text string) {
		t.Helper()
		pgtest.Eventually(t, 20*time.Second, "capture warns of "+text, func() bool { return strings.Contains(r.Status().Warning, text) })
	}
	pgtest.Exec(t, url, "INSERT INTO a VALUES (1)")
	r.caughtUp()
	equal(t, r.Status().Warning, "")
	log.stop()
	noise := func(mb int) {
		pgtest.Exec(t, url, "INSERT INTO a SELECT coalesce(max(id), 0) + 1 FROM a",
			fmt.Sprintf("INSERT INTO noise SELECT repeat('x', 1000) FROM generate_series(1, %d)", mb*900), "CHECKPOINT")
	}
	noise(25)
	warns("more than half of its budget of 40 MB")
	noise(25)
	pgtest.Eventually(t, 20*time.Second, "the slot is given up", func() bool {
		return pgtest.Query(t, url, "SELECT count(*) FROM pg_replication_slots WHERE pg_wal_lsn_diff(pg_current_wal_lsn(), restart_lsn) > 20 << 20")[0][0] == "0"
	})
	log.start()
	pgtest.Eventually(t, 20*time.Second, "capture goes on", func() bool { return r.Status().Connected && r.Status().Gap == "wal_budget" })
	pgtest.Exec(t, url, "INSERT INTO a VALUES (99)")
	r.caughtUp()
	equal(t, gapMarks(t, log), []string{"start wal_budget ."})
	equal(t, len(book.all()) > 0, true)
	rows := log.rows(t)
	equal(t, rows[len(rows)-1], `insert {"id":99}`)
	pgtest.Eventually(t, 20*time.Second, "the warning goes", func() bool { return r.Status().Warning == "" })
}

// What moves is let be, however much it keeps.
func TestProgressIsToldFromStandstill(t *testing.T) {
	t.Parallel()
	var b budget
	at := time.Unix(1000, 0)
	for i, c := range []struct {
		name string
		at   progress
		want time.Duration
	}{
		{"the first look", progress{confirmed: 100, position: 50, marks: 3}, 0},
		{"nothing", progress{confirmed: 100, position: 50, marks: 3}, 1},
		{"the slot", progress{confirmed: 101, position: 50, marks: 3}, 0},
		{"a connection that begins anew", progress{confirmed: 101, position: 10, marks: 3}, 1},
		{"no connection", progress{confirmed: 101, marks: 3}, 2},
		{"reads the same again", progress{confirmed: 101, position: 50, marks: 3}, 3},
		{"reads on", progress{confirmed: 101, position: 51, marks: 3}, 0},
		{"parts of a transaction land", progress{confirmed: 101, position: 51, marks: 4}, 0},
		{"nothing again", progress{confirmed: 101, position: 51, marks: 4}, 1},
		{"Postgres works", progress{confirmed: 101, position: 51, marks: 4, busy: true}, 0},
	} {
		if got := b.stuck(at.Add(time.Duration(i)*time.Second), c.at); got != c.want*time.Second {
			t.Errorf("%s: stuck for %s, want %s", c.name, got, c.want*time.Second)
		}
	}
}

func TestWarningsOfTheSlotNameWhatToDo(t *testing.T) {
	t.Parallel()
	c := &Capture{config: Config{Slot: "s", RetainWAL: 100 << 20}}
	for want, s := range map[string]Slot{
		"":                      {WALStatus: "reserved", RetainedBytes: 10 << 20, SafeBytes: -1},
		"has lost WAL":          {WALStatus: "lost", SafeBytes: -1},
		"the next checkpoint":   {WALStatus: "unreserved", RetainedBytes: 200 << 20},
		"more than its budget":  {WALStatus: "extended", RetainedBytes: 101 << 20, SafeBytes: -1},
		"more than half of its": {WALStatus: "extended", RetainedBytes: 51 << 20, SafeBytes: -1},
		"after 1 MB more":       {WALStatus: "reserved", RetainedBytes: 20 << 20, SafeBytes: 1 << 20},
		"max_wal_size":          {WALStatus: "extended", RetainedBytes: 20 << 20, SafeBytes: -1},
	} {
		if _, got := c.walWarning(s); !strings.Contains(got, want) || want == "" && got != "" {
			t.Errorf("%+v: %q, want %q", s, got, want)
		}
	}
}

// W19
func TestOldTransactionIsNamed(t *testing.T) {
	t.Parallel()
	c := pgtest.Cluster(t, map[string]string{"max_prepared_transactions": "2"})
	url := c.URL("postgres")
	pgtest.Exec(t, url, "CREATE TABLE a (id int PRIMARY KEY)")
	publishTables(t, url, "a")
	log := newMemoryLog(t)
	r := begin(t, url, log, func(c *Config, tune *tuning) { c.Slot, tune.old = "s", time.Second })
	old := connectSQL(t, url)
	old("BEGIN")
	old("INSERT INTO a VALUES (1)")
	pid := pgtest.Query(t, url, "SELECT pid FROM pg_stat_activity WHERE state = 'idle in transaction'")[0][0]
	pgtest.Eventually(t, 20*time.Second, "capture names the transaction", func() bool {
		return strings.Contains(r.Status().Warning, "SELECT pg_terminate_backend("+pid+")")
	})
	o := r.Status().OldestTransaction
	equal(t, fmt.Sprint(o.PID, o.State), pid+"idle in transaction")
	equal(t, o.Age >= time.Second && o.XID != "", true)
	before := r.Status().Confirmed
	pgtest.Exec(t, url, "INSERT INTO a VALUES (2)")
	r.caughtUp() // goes on
	equal(t, r.Status().Confirmed > before, true)
	old("PREPARE TRANSACTION 'it''s'")
	pgtest.Eventually(t, 20*time.Second, "capture names the prepared transaction", func() bool {
		return strings.Contains(r.Status().Warning, "ROLLBACK PREPARED 'it''s'")
	})
	old("COMMIT PREPARED 'it''s'")
	pgtest.Eventually(t, 20*time.Second, "the warning goes", func() bool {
		s := r.Status()
		return s.Warning == "" && s.OldestTransaction == nil
	})
}
