package backfill

import (
	"context"
	"net/url"
	"strings"
	"testing"
	"time"

	"lockstep"
	"lockstep/internal/capture/wal"
	"lockstep/internal/pgdb"
	"lockstep/internal/pgdb/pgtest"
)

func TestWhatCannotBeBackfilledIsRefusedWithTheReason(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "CREATE TABLE a (id int PRIMARY KEY, v text)", "CREATE VIEW v AS SELECT * FROM a", "CREATE MATERIALIZED VIEW m AS SELECT * FROM a",
		"CREATE TABLE bare (v text)", "CREATE TABLE every (v text)", "ALTER TABLE every REPLICA IDENTITY FULL",
		"CREATE UNLOGGED TABLE u (id int PRIMARY KEY)", "CREATE TABLE other (id int PRIMARY KEY)", "CREATE SEQUENCE s",
		"CREATE TABLE p (id int PRIMARY KEY) PARTITION BY RANGE (id)", "CREATE TABLE p1 PARTITION OF p FOR VALUES FROM (1) TO (10)",
		"CREATE TABLE q (id int NOT NULL) PARTITION BY LIST (id)", "CREATE TABLE q1 PARTITION OF q FOR VALUES IN (1)", "CREATE UNIQUE INDEX q1_id ON q1 (id)", "ALTER TABLE q1 REPLICA IDENTITY USING INDEX q1_id").capturing("a")
	w.source.Patterns = patterns(t, "public.*", "-public.other")
	w.people.put(Consumer{ID: orders, Name: "orders", Database: "app", Selects: func(_, name string) bool { return name != "u" && name != "nothere" }})
	r := w.runner()
	for name, want := range map[string][]string{
		"public.v":        {"a view has no events", "capture the tables that it reads"},
		"public.m":        {"a materialized view has no events"},
		"public.s":        {"a sequence has no events"},
		"public.bare":     {"no key", `ALTER TABLE "public"."bare" ADD PRIMARY KEY`},
		"public.every":    {"no key", "ADD PRIMARY KEY"},
		"public.q":        {"partitions have keys of their own"},
		"public.u":        {"does not select", "add it to its tables"},
		"public.other":    {"not captured", "in the configuration"},
		"public.p1":       {"is a partition", "name that one"},
		"public.nothere":  {"there is no table"},
		"public.*":        {"there is no table"},
		"lockstep.token":  {"never captured"},
		"a":               {"write public.a"},
		`public."a`:       {"no closing double quote"},
		"pg_catalog.pg_x": {"never captured"},
	} {
		_, err := r.Start(t.Context(), Request{Consumer: "orders", Tables: []string{name}})
		refused(t, err, lockstep.ErrInvalid, want...)
	}
	_, err := r.Start(t.Context(), Request{Consumer: "nobody", Tables: []string{"public.a"}})
	refused(t, err, lockstep.ErrNotFound, "nobody")
	_, err = r.Start(t.Context(), Request{Gap: true, Database: "app"})
	refused(t, err, lockstep.ErrConflict, "no gap is open")
	_, err = r.Start(t.Context(), Request{Gap: true, Database: "nothere"})
	refused(t, err, lockstep.ErrNotFound)
}

func TestABrokenConditionIsRefused(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "CREATE TABLE a (id int PRIMARY KEY, v text)", "INSERT INTO a VALUES (1, 'it''s (a) ; -- trap'), (2, 'x')").capturing("a")
	r, _ := w.running()
	for where, want := range map[string]string{
		"id = 1; DROP TABLE a":      "semicolon",
		"id = 1 -- x":               "comment",
		"id = 1 /* x":               "comment",
		"id = 1) OR (1 = 1":         "closes a parenthesis",
		"(id = 1":                   "does not close",
		"v = 'x":                    "not closed",
		`"v = 1`:                    "not closed",
		`v = E'\'`:                  "not closed",
		"v = $1":                    "no parameters",
		"v = $$x$$":                 "outside of quotes",
		"id = 1 \x00":               "not valid UTF-8",
		"nothere = 1":               "nothere",
		"id = 1 ORDER BY id":        "syntax error",
		"id":                        "boolean",
		"count(*) > 1":              "aggregate",
		"id = 1 UNION SELECT 2":     "syntax error",
		"generate_series(1, 2) > 0": "set-returning",
	} {
		_, err := r.Start(t.Context(), Request{Consumer: orders, Tables: []string{"public.a"}, Where: where})
		refused(t, err, lockstep.ErrInvalid, want)
	}
	v := awaits(t, r, start(t, r, Request{Tables: []string{"public.a"}, Where: `v = 'it''s (a) ; -- trap' AND "v" <> E'\'' AND a.id < 10 AND id IN (SELECT 1)`}).ID, Completed)
	if v.Rows != 1 {
		t.Errorf("%d rows, want 1", v.Rows)
	}
}

// An Interleaver that does something to the table between two pages.
type between struct {
	Interleaver
	page  int
	after map[int]func()
}

// InterleaveEach implements [Interleaver].
func (b *between) InterleaveEach(ctx context.Context, oid uint32, read func(context.Context, uint64) (wal.Page, error), placed func(wal.Interleaved) error) error {
	return alone(ctx, b, oid, read, placed)
}

// Interleave implements [Interleaver].
func (b *between) Interleave(ctx context.Context, oid uint32, read func(context.Context, uint64) (wal.Page, error)) (wal.Interleaved, error) {
	if f := b.after[b.page]; f != nil {
		delete(b.after, b.page)
		f()
	}
	b.page++
	return b.Interleaver.Interleave(ctx, oid, read)
}

func TestATableThatChangesInTheMiddle(t *testing.T) {
	t.Parallel()
	cases := []struct {
		name  string
		sql   []string
		state State  // of the table
		want  string // in its reason
		more  bool   // rows of the second half go out
	}{
		{"dropped", []string{"DROP TABLE a"}, Failed, "was dropped", false},
		{"dropped and made again", []string{"DROP TABLE a", "CREATE TABLE a (id int PRIMARY KEY, v text)"}, Failed, "was dropped", false},
		{"column added", []string{"ALTER TABLE a ADD COLUMN w int DEFAULT 7"}, Completed, "", true},
		{"column dropped", []string{"ALTER TABLE a DROP COLUMN v"}, Completed, "", true},
		{"column of another type", []string{"ALTER TABLE a ALTER v TYPE varchar(20)"}, Completed, "", true},
		{"rewritten", []string{"ALTER TABLE a ADD COLUMN r float DEFAULT random()"}, Completed, "", true},
		{"renamed", []string{"ALTER TABLE a RENAME TO renamed"}, Completed, "", true},
		{"renamed out of sight", []string{"ALTER TABLE a RENAME TO hidden"}, Failed, "does not select", false},
		{"moved to another schema", []string{"CREATE SCHEMA s", "ALTER TABLE a SET SCHEMA s"}, Completed, "", true},
		{"swapped with another", []string{"BEGIN; ALTER TABLE a RENAME TO x; ALTER TABLE b RENAME TO a; ALTER TABLE x RENAME TO b; COMMIT"}, Completed, "", true},
		{"truncated", []string{"TRUNCATE a"}, Completed, "", false},
		{"identity full", []string{"ALTER TABLE a REPLICA IDENTITY FULL"}, Completed, "", true},
		{"key dropped", []string{"ALTER TABLE a DROP CONSTRAINT a_pkey"}, Failed, "key was changed", false},
		{"key of other columns", []string{"ALTER TABLE a DROP CONSTRAINT a_pkey", "ALTER TABLE a ADD PRIMARY KEY (v)"}, Failed, "key was changed", false},
		{"key of another type", []string{"ALTER TABLE a ALTER id TYPE text"}, Failed, "key was changed", false},
		{"key renamed", []string{"ALTER TABLE a RENAME id TO ident"}, Failed, "key was changed", false},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, "CREATE TABLE a (id int PRIMARY KEY, v text)", "INSERT INTO a SELECT i, 'v' || i FROM generate_series(1, 40) i",
				"CREATE TABLE b (id int PRIMARY KEY, v text)", "CREATE TABLE z (id int PRIMARY KEY, v text)", "INSERT INTO z SELECT i, 'z' FROM generate_series(1, 10) i").capturing("a", "b", "z")
			oid := pgtest.Query(t, w.url, "SELECT 'a'::regclass::oid")[0][0]
			w.people.put(Consumer{ID: orders, Name: "orders", Database: "app", Selects: func(_, name string) bool { return name != "hidden" }})
			w.source.Capture = &between{Interleaver: w.capture, after: map[int]func(){2: func() { pgtest.Exec(t, w.url, c.sql...) }}}
			r, _ := w.running(func(t *tuning) { t.most = 10 })
			v := awaits(t, r, start(t, r, Request{Tables: []string{"public.a", "public.z"}}).ID, Completed)
			got := v.Tables[0]
			if got.State != c.state || !strings.Contains(got.Reason, c.want) {
				t.Errorf("got %+v, want %s with %q", got, c.state, c.want)
			}
			out := 0
			w.records(func(r lockstep.Record) {
				if r.Action() == lockstep.Read && parsed(oid) == r.Table().OID {
					out++
				}
			})
			if want := map[bool]int{true: 40, false: 20}[c.more]; out != want {
				t.Errorf("%d rows went out, want %d", out, want)
			}
			once(t, w.reads(orders, "z"), 10)
			if c.state == Failed && !strings.Contains(v.Reason, "1 of 2 tables") {
				t.Errorf("the job says %q", v.Reason)
			}
		})
	}
}

func parsed(oid string) uint32 { return parseOID([]byte(oid)) }

func TestARoleThatMayNotReadIsToldWhatToGrant(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "CREATE TABLE a (id int PRIMARY KEY, v text)", "INSERT INTO a VALUES (1, 'x')", "CREATE TABLE b (id int PRIMARY KEY, v text)", "INSERT INTO b VALUES (1, 'x')",
		"ALTER TABLE b ENABLE ROW LEVEL SECURITY", "CREATE POLICY none ON b USING (id > 1)").capturing("a", "b")
	user := "reader_" + pgtest.Query(t, w.url, "SELECT current_database()")[0][0]
	pgtest.Exec(t, w.url, "CREATE ROLE "+user+" LOGIN", "GRANT SELECT ON a, b TO "+user)
	t.Cleanup(func() { pgtest.Exec(t, w.url, "DROP OWNED BY "+user, "DROP ROLE "+user) })
	u, err := url.Parse(w.url)
	if err != nil {
		t.Fatal(err)
	}
	u.User = url.User(user)
	pool, err := pgdb.Open(t.Context(), u.String(), "reader")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(pool.Close)
	w.source.Pool = pool
	w.source.Capture = &between{Interleaver: w.capture, after: map[int]func(){0: func() { pgtest.Exec(t, w.url, "REVOKE SELECT ON a FROM "+user) }}}
	r, _ := w.running()
	v := awaits(t, r, start(t, r, Request{}).ID, Failed)
	if !strings.Contains(v.Tables[0].Reason, "GRANT SELECT ON public.a") || !strings.Contains(v.Tables[1].Reason, "BYPASSRLS") {
		t.Errorf("got %+v", v.Tables)
	}
}

// A table that is locked is waited for, and says so; others are not held up by it
// for longer than the lock timeout.
func TestALockedTableIsWaitedFor(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "CREATE TABLE a (id int PRIMARY KEY, v text)", "INSERT INTO a VALUES (1, 'x')").capturing("a")
	r, _ := w.running()
	tx, err := w.pool.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	paused := start(t, r, Request{Tables: []string{"public.a"}, Where: "id > 100"})
	awaits(t, r, paused.ID, Completed)
	locked := false
	w.source.Capture = &between{Interleaver: w.capture, after: map[int]func(){0: func() {
		if _, err := tx.Exec(t.Context(), "LOCK TABLE a"); err != nil {
			t.Error(err)
		}
		locked = true
	}}}
	v := awaits(t, r, start(t, r, Request{Tables: []string{"public.a"}}).ID, Waiting)
	if !locked || !strings.Contains(v.Reason, "lock on public.a") {
		t.Errorf("got reason %q", v.Reason)
	}
	if err := tx.Rollback(t.Context()); err != nil {
		t.Fatal(err)
	}
	awaits(t, r, v.ID, Completed)
}

// A table that is rewritten looks empty to snapshots from before: a page that has
// waited for its lock must not take that for the table's end.
func TestAPageThatWaitsForARewriteSeesTheRows(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "CREATE TABLE a (id int PRIMARY KEY, v text)", "INSERT INTO a SELECT i, 'v' FROM generate_series(1, 10) i")
	tx, err := w.pool.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := tx.Exec(t.Context(), "ALTER TABLE a ADD COLUMN r float DEFAULT random()"); err != nil {
		t.Fatal(err)
	}
	s := &slice{oid: parsed(pgtest.Query(t, w.url, "SELECT 'a'::regclass::oid")[0][0]), schema: "public", name: "a", keys: []string{"id"}, limit: 100}
	done := make(chan error, 1)
	var got *rows
	go func() {
		var err error
		got, err = s.read(t.Context(), w.pool)
		done <- err
	}()
	pgtest.Eventually(t, 10*time.Second, "the page waits for the lock", func() bool {
		return pgtest.Query(t, w.url, "SELECT count(*) FROM pg_locks WHERE NOT granted AND database = (SELECT oid FROM pg_database WHERE datname = current_database())")[0][0] == "1"
	})
	if err := tx.Commit(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	if got.count != 10 || len(got.shape.columns) != 3 {
		t.Errorf("%d rows of %d columns, want 10 of 3", got.count, len(got.shape.columns))
	}
}

func TestRowsOfAnySizeAreCutIntoPages(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "CREATE TABLE a (id int PRIMARY KEY, v text)",
		"INSERT INTO a SELECT i, 'v' FROM generate_series(1, 300) i", "INSERT INTO a SELECT i, repeat('x', 3000000) FROM generate_series(301, 312) i",
		"INSERT INTO a VALUES (313, repeat('y', 12000000)), (314, 'z')").capturing("a")
	w.complete(Request{Tables: []string{"public.a"}})
	once(t, w.reads(orders, "a"), 314)
	page := map[uint64]int{}
	w.records(func(r lockstep.Record) {
		if len(r.Row()) > 1<<20 {
			page[r.Batch().First] += len(r.Row())
		}
	})
	for first, size := range page {
		if size > hardBytes+(1<<20) && size < 12_000_000 {
			t.Errorf("the page at %d has %d bytes", first, size)
		}
	}
}

func TestPacesFollowTime(t *testing.T) {
	t.Parallel()
	p := newPace(maxLimit)
	for range 20 {
		p.took(p.limit, p.limit*100, time.Duration(p.limit)*10*time.Microsecond)
	}
	if p.limit < 9000 || p.limit > 21000 {
		t.Errorf("rows of 10 µs and 100 bytes: %d in a page, want about 10,000", p.limit)
	}
	p.took(p.limit, 64<<20, time.Second)
	if p.limit > 1000 {
		t.Errorf("after 64 MB: %d", p.limit)
	}
	for range 10 {
		p.tooLong()
	}
	if p.limit != 1 || p.tooLong() {
		t.Errorf("it does not end at one row: %d", p.limit)
	}
}
