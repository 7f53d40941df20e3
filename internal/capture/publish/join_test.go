package publish

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5"
	"golang.org/x/sync/errgroup"

	"lockstep/internal/pgdb/pgtest"
)

// captured returns a database with a prepared reconciler and a slot, as after the
// first start.
func captured(t *testing.T, configure ...func(*Config)) (db string, r *Reconciler, s *slot) {
	t.Helper()
	db = pgtest.Database(t)
	r = newReconciler(t, db, configure...)
	prepare(t, r)
	return db, r, newSlot(t, db)
}

func TestRowsOfANewTableTravelInOneTransaction(t *testing.T) {
	t.Parallel()
	db, r, s := captured(t)
	pgtest.Exec(t, db, "CREATE TABLE t (b int, gone int, v text, a int, g int GENERATED ALWAYS AS (a + 1) STORED, PRIMARY KEY (a, b))",
		"ALTER TABLE t DROP COLUMN gone", `INSERT INTO t VALUES (1, 'one', 10), (2, NULL, 20), (3, 'q"u,o(t)e', 30)`)
	state := stateOf(t, ensure(t, r), "public.t")
	if state.Joined != RowsSent || state.Published != Full || state.Reason != "" {
		t.Errorf("state: %+v", state)
	}
	pgtest.Exec(t, db, "INSERT INTO t VALUES (4, 'four', 40)")
	got := s.read(t)
	want := []string{"begin", "table", "row (1,one,10)", "row (2,,20)", `row (3,"q""u,o(t)e",30)`, "commit", "begin", "insert public.t (4,four,40)", "commit"}
	m := TableMessage{OID: state.OID, Schema: "public", Name: "t", KeyKind: "primary_key", Identity: "d", KeyColumns: []string{"a", "b"}, Rows: Follow,
		Columns: []Column{{"b", 23, true}, {"v", 25, false}, {"a", 23, true}}}
	if serverVersion(t, db) >= 18 { // generated columns are published, so they are in the rows too
		want = []string{"begin", "table", "row (1,one,10,11)", "row (2,,20,21)", `row (3,"q""u,o(t)e",30,31)`, "commit", "begin", "insert public.t (4,four,40,41)", "commit"}
		m.Columns = append(m.Columns, Column{"g", 23, false})
	}
	if diff := cmp.Diff(want, lines(got)); diff != "" {
		t.Errorf("stream (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(m, announcement(t, got)); diff != "" {
		t.Errorf("announcement (-want +got):\n%s", diff)
	}
	if changed, _, err := r.Ensure(t.Context()); changed != 0 || err != nil || len(lines(s.read(t))) != 0 {
		t.Errorf("a second round changed %d, %v, or sent something", changed, err)
	}
}

func TestJoinedRowsReadAsTheStreamsDo(t *testing.T) {
	t.Parallel()
	db := pgtest.Database(t)
	name := currentDatabase(t, db)
	for _, set := range []string{"DateStyle = 'SQL, DMY'", "IntervalStyle = 'iso_8601'", "TimeZone = 'Asia/Tokyo'", "extra_float_digits = 0", "bytea_output = 'escape'", "default_transaction_isolation = 'serializable'"} {
		pgtest.Exec(t, db, "ALTER DATABASE "+name+" SET "+set)
	}
	r := newReconciler(t, db)
	prepare(t, r)
	s := newSlot(t, db)
	pgtest.Exec(t, db, "CREATE TABLE t (id int PRIMARY KEY, d date, z timestamptz, i interval, f float8, b bytea, n numeric)",
		`INSERT INTO t VALUES (1, '2026-11-21', '2026-11-21 10:00:00.123456+00', '1 day 2 hours', 0.1::float8 + 0.2::float8, '\x00ff', 1.10)`)
	ensure(t, r)
	want := `row (1,2026-11-21,"2026-11-21 10:00:00.123456+00","1 day 02:00:00",0.30000000000000004,"\\x00ff",1.10)`
	if got := lines(s.read(t)); !slices.Contains(got, want) {
		t.Errorf("got %q, want %s in it", got, want)
	}
}

func TestWhatJoinsWithoutRows(t *testing.T) {
	t.Parallel()
	few := func(c *Config) { c.JoinRows, c.JoinBytes = 10, 100_000 }
	cases := []struct {
		name, create string
		configure    func(*Config)
		reason       string
	}{
		{"too many", "CREATE TABLE t (id int PRIMARY KEY); INSERT INTO t SELECT generate_series(1, 11)", few, "more than 10"},
		{"too long", "CREATE TABLE t (id int PRIMARY KEY, v text); INSERT INTO t SELECT i, repeat('x', 30000) FROM generate_series(1, 4) i", few, "they have 0 MB"},
		{"too large on disk", "CREATE TABLE t (id int PRIMARY KEY, v text); INSERT INTO t SELECT i, repeat('x', 1000) FROM generate_series(1, 1000) i", few, "on disk"},
		{"no secret", "CREATE TABLE t (id int PRIMARY KEY); INSERT INTO t VALUES (1)", func(c *Config) { c.JoinSecret = "" }, "no join secret"},
		{"unreadable", "CREATE TABLE t (id int PRIMARY KEY); INSERT INTO t VALUES (1); ALTER TABLE t ENABLE ROW LEVEL SECURITY; ALTER TABLE t FORCE ROW LEVEL SECURITY",
			nil, "cannot be read: query would be affected by row-level security"},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			if c.configure == nil {
				c.configure = func(*Config) {}
			}
			db := pgtest.Database(t)
			role, as := roleURL(t, db, "GRANT ALL ON SCHEMA public TO ROLE", "GRANT CREATE ON DATABASE "+currentDatabase(t, db)+" TO ROLE")
			r := newReconciler(t, as, c.configure)
			prepare(t, r)
			s := newSlot(t, db)
			pgtest.Exec(t, db, c.create, "ALTER TABLE t OWNER TO "+role)
			state := stateOf(t, ensure(t, r), "public.t")
			if state.Joined != RowsMissing || state.Published != Full {
				t.Errorf("got %+v", state)
			}
			contains(t, "reason", state.Reason, "without the rows it had", c.reason)
			contains(t, "remedy", state.Remedy, "backfill")
			pgtest.Exec(t, db, "INSERT INTO t (id) VALUES (999999)")
			got := s.read(t)
			if i := slices.IndexFunc(got, func(s sent) bool { return s.kind == "row" }); i >= 0 {
				t.Error("a row was sent")
			}
			if c.name != "no secret" {
				if m := announcement(t, got); m.Rows != Missing || m.Reason == "" {
					t.Errorf("the log says %+v, want missing rows", m)
				}
				if gaps := gapsIn(t, got); len(gaps) > 0 {
					t.Errorf("nobody wrote beside it, and yet there is more to tell: %q", gaps)
				}
			}
			if all := strings.Join(lines(got), "\n"); !strings.Contains(all, "insert public.t (999999") {
				t.Errorf("the table is not captured: %s", all)
			}
			if again := stateOf(t, ensure(t, r), "public.t"); again.Joined != RowsMissing {
				t.Errorf("a round later it is forgotten: %+v", again)
			}
		})
	}
}

func TestWhatIsThereBeforeTheSlotIsNotSent(t *testing.T) {
	t.Parallel()
	db := pgtest.Database(t)
	name := "slot_" + currentDatabaseName(t, db)
	r := newReconciler(t, db, func(c *Config) { c.Slot = name })
	pgtest.Exec(t, db, "CREATE TABLE a (id int PRIMARY KEY)", "INSERT INTO a VALUES (1)")
	if s := stateOf(t, ensure(t, r), "public.a"); s.Published != Full || s.Joined != "" {
		t.Errorf("without a slot: %+v", s)
	}
	s := newSlot(t, db)
	pgtest.Exec(t, db, "CREATE TABLE b (id int PRIMARY KEY)", "INSERT INTO b VALUES (1)")
	if s := stateOf(t, ensure(t, r), "public.b"); s.Published != Full || s.Joined != RowsSent {
		t.Errorf("with the slot: %+v", s)
	}
	want := []string{"begin", "table", "row (1)", "commit"}
	if got := lines(s.read(t)); !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestTableMadeWhileLockstepWasDownJoinsAtTheNextStart(t *testing.T) {
	t.Parallel()
	db, _, s := captured(t)
	pgtest.Exec(t, db, "CREATE TABLE t (id int PRIMARY KEY)", "INSERT INTO t VALUES (1)")
	ensure(t, newReconciler(t, db))
	if got := lines(s.read(t)); !slices.Contains(got, "row (1)") {
		t.Errorf("got %q", got)
	}
}

func TestMovedAndEmptyTablesSendNoRows(t *testing.T) {
	t.Parallel()
	db, r, s := captured(t)
	pgtest.Exec(t, db, "CREATE TABLE t (id int)")
	if state := stateOf(t, ensure(t, r), "public.t"); state.Joined != "" {
		t.Errorf("an empty table: %+v", state)
	}
	pgtest.Exec(t, db, "INSERT INTO t VALUES (1)", "ALTER TABLE t ADD PRIMARY KEY (id)")
	ensure(t, r)
	pgtest.Exec(t, db, "ALTER TABLE t REPLICA IDENTITY NOTHING")
	ensure(t, r)
	want := []string{"begin", "insert public.t (1)", "commit"}
	if got := lines(s.read(t)); !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestPartitionedTableJoinsThroughItsRoot(t *testing.T) {
	t.Parallel()
	db, r, s := captured(t)
	pgtest.Exec(t, db, "CREATE TABLE t (id int PRIMARY KEY, v text) PARTITION BY RANGE (id)", "CREATE TABLE t1 PARTITION OF t FOR VALUES FROM (0) TO (10)",
		"CREATE TABLE t2 (v text, id int NOT NULL)", "ALTER TABLE t ATTACH PARTITION t2 FOR VALUES FROM (10) TO (20)",
		"INSERT INTO t VALUES (1, 'a'), (11, 'b')")
	ensure(t, r)
	pgtest.Exec(t, db, "INSERT INTO t VALUES (12, 'c')")
	want := []string{"begin", "table", "row (1,a)", "row (11,b)", "commit", "begin", "insert public.t (12,c)", "commit"}
	if got := lines(s.read(t)); !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
	wantMembers(t, db, testPublication, "public.t")
}

func TestPartitionsMoveUnderTheirTableWhenItIsMatched(t *testing.T) {
	t.Parallel()
	db, r, s := captured(t)
	pgtest.Exec(t, db, "CREATE TABLE leaf (id int PRIMARY KEY)", "INSERT INTO leaf VALUES (1)")
	ensure(t, r)
	pgtest.Exec(t, db, "CREATE TABLE root (id int PRIMARY KEY) PARTITION BY RANGE (id)", "ALTER TABLE root ATTACH PARTITION leaf DEFAULT")
	ensure(t, r)
	wantMembers(t, db, testPublication, "public.root")
	pgtest.Exec(t, db, "INSERT INTO leaf VALUES (2)")
	want := []string{"begin", "table", "row (1)", "commit", "begin", "table", "row (1)", "commit", "begin", "insert public.root (2)", "commit"}
	if got := lines(s.read(t)); !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestInheritanceParentJoinsAlone(t *testing.T) {
	t.Parallel()
	db, r, s := captured(t, withPatterns(t, "public.parent"))
	pgtest.Exec(t, db, "CREATE TABLE parent (id int PRIMARY KEY)", "CREATE TABLE child () INHERITS (parent)", "INSERT INTO parent VALUES (1)", "INSERT INTO child VALUES (2)")
	ensure(t, r)
	wantMembers(t, db, testPublication, "public.parent")
	want := []string{"begin", "table", "row (1)", "commit"}
	if got := lines(s.read(t)); !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
	pgtest.Exec(t, db, "UPDATE parent SET id = id + 10") // the child has no identity
}

// The table joins in the middle of writes: what the stream says must be exactly what
// the table holds, and no row may come twice.
func TestJoinIsExactUnderWrites(t *testing.T) {
	t.Parallel()
	db, _, s := captured(t)
	// Under a role with such a default, too, what was committed before the lock is seen.
	r := newReconciler(t, withOption(db, "default_transaction_isolation", "serializable"), func(c *Config) { c.JoinLockTimeout = 5 * time.Second })
	pgtest.Exec(t, db, "CREATE TABLE t (id int PRIMARY KEY, v int)")
	ctx, stop := context.WithCancel(t.Context())
	group, ctx := errgroup.WithContext(ctx)
	for w := range 4 {
		group.Go(func() error { return writeUntil(ctx, db, w) })
	}
	pgtest.Eventually(t, 20*time.Second, "writers have begun", func() bool {
		return pgtest.Query(t, db, "SELECT count(*) > 50 FROM t")[0][0] == "t"
	})
	pgtest.Eventually(t, 30*time.Second, "the table has joined", func() bool {
		return stateOf(t, ensure(t, r), "public.t").Joined == RowsSent
	})
	before := pgtest.Query(t, db, "SELECT pg_current_wal_lsn()")[0][0]
	pgtest.Eventually(t, 20*time.Second, "writers have gone on", func() bool {
		return pgtest.Query(t, db, "SELECT pg_current_wal_lsn() > $1::pg_lsn + 20000", before)[0][0] == "t"
	})
	stop()
	if err := group.Wait(); err != nil {
		t.Fatal(err)
	}
	replayed := replay(t, s.read(t))
	table := make(map[string]string)
	for _, row := range pgtest.Query(t, db, "SELECT id, v FROM t") {
		table[row[0]] = row[1]
	}
	if diff := cmp.Diff(table, replayed); diff != "" {
		t.Errorf("the stream and the table differ (-table +stream):\n%s", diff)
	}
}

func replay(t *testing.T, list []sent) map[string]string {
	t.Helper()
	rows := make(map[string]string)
	for _, m := range list {
		switch m.kind {
		case "row":
			id, v, _ := strings.Cut(strings.Trim(m.text, "()"), ",")
			rows[id] = v
		case "insert":
			if _, twice := rows[m.tuple[0]]; twice {
				t.Fatalf("row %s came twice", m.tuple[0])
			}
			rows[m.tuple[0]] = m.tuple[1]
		case "update":
			if _, known := rows[m.tuple[0]]; !known {
				t.Fatalf("row %s is updated before it came", m.tuple[0])
			}
			rows[m.tuple[0]] = m.tuple[1]
		case "delete":
			if _, known := rows[m.tuple[0]]; !known {
				t.Fatalf("row %s is deleted before it came", m.tuple[0])
			}
			delete(rows, m.tuple[0])
		}
	}
	return rows
}

// writeUntil writes rows of its own in transactions of a few statements.
func writeUntil(ctx context.Context, db string, worker int) error {
	conn, err := pgx.Connect(ctx, db)
	if err != nil {
		return err
	}
	defer conn.Close(context.WithoutCancel(ctx))
	random := rand.New(rand.NewPCG(uint64(worker), 1))
	for ctx.Err() == nil {
		var batch []string
		for range 1 + random.IntN(5) {
			id := worker*1000 + random.IntN(200)
			batch = append(batch, []string{
				fmt.Sprintf("INSERT INTO t VALUES (%d, %d) ON CONFLICT (id) DO UPDATE SET v = excluded.v", id, random.IntN(1000)),
				fmt.Sprintf("UPDATE t SET v = v + 1 WHERE id = %d", id),
				fmt.Sprintf("DELETE FROM t WHERE id = %d", id),
			}[min(random.IntN(5), 2)%3])
		}
		// Its own context: a transaction that was begun is ended, not cut.
		if _, err := conn.PgConn().Exec(context.WithoutCancel(ctx), strings.Join(batch, ";")).ReadAll(); err != nil {
			return err
		}
	}
	return nil
}

func TestTableThatIsNeverQuietJoinsWithoutItsRows(t *testing.T) {
	t.Parallel()
	db, r, s := captured(t, func(c *Config) {
		c.JoinLockTimeout, c.JoinAttempts, c.Interval = 50*time.Millisecond, 3, time.Millisecond
	})
	pgtest.Exec(t, db, "CREATE TABLE t (id int PRIMARY KEY)", "CREATE TABLE quiet (id int PRIMARY KEY)", "INSERT INTO quiet VALUES (1)")
	conn, err := pgx.Connect(t.Context(), db)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(context.WithoutCancel(t.Context()))
	if _, err := conn.PgConn().Exec(t.Context(), "BEGIN; INSERT INTO t VALUES (1)").ReadAll(); err != nil {
		t.Fatal(err)
	}
	states := ensure(t, r)
	if q := stateOf(t, states, "public.quiet"); q.Joined != RowsSent {
		t.Errorf("the quiet table waits for the other: %+v", q)
	}
	contains(t, "reason", stateOf(t, states, "public.t").Reason, "holds a lock")
	pgtest.Exec(t, db, "INSERT INTO t VALUES (2)") // the application is not held up
	pgtest.Eventually(t, 20*time.Second, "the table is taken in without its rows", func() bool {
		return stateOf(t, ensure(t, r), "public.t").Joined == RowsMissing
	})
	contains(t, "reason", stateOf(t, r.States(), "public.t").Reason, "never left it alone", "3 attempts")
	ensure(t, r)
	if _, err := conn.Exec(t.Context(), "COMMIT"); err != nil {
		t.Fatal(err)
	}
	pgtest.Exec(t, db, "INSERT INTO t VALUES (3)")
	before := s.read(t)
	if got := lines(before); !slices.Contains(got, "insert public.t (3)") || len(gapsIn(t, before)) > 0 {
		t.Errorf("got %q", got)
	}
	// A repair that came before the writer's end has not read what he wrote before.
	untilGaps(t, r, s, "publication_rebuilt public.t")
}
