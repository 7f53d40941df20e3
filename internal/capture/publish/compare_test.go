package publish

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5"

	"lockstep/internal/pgdb/pgtest"
)

// gapsIn returns the tables of all gaps in what was sent, as "reason schema.name".
func gapsIn(t testing.TB, list []sent) []string {
	t.Helper()
	out := []string{}
	for _, m := range gapMessages(t, list) {
		for _, table := range m.Tables {
			out = append(out, m.Reason+" "+table.Schema+"."+table.Name)
		}
	}
	return out
}

func gapMessages(t testing.TB, list []sent) (out []GapMessage) {
	t.Helper()
	for _, s := range list {
		if s.kind != "gap" {
			continue
		}
		var m GapMessage
		if err := json.Unmarshal([]byte(s.text), &m); err != nil {
			t.Fatal(err)
		}
		out = append(out, m)
	}
	return out
}

func wantGaps(t testing.TB, s *slot, want ...string) {
	t.Helper()
	if diff := cmp.Diff(append([]string{}, want...), gapsIn(t, s.read(t))); diff != "" {
		t.Errorf("gaps (-want +got):\n%s", diff)
	}
}

// seenBefore returns a database whose tables were captured and then surveyed.
func seenBefore(t *testing.T, create ...string) (db string, r *Reconciler, s *slot) {
	t.Helper()
	db = pgtest.Database(t)
	pgtest.Exec(t, db, create...)
	r = newReconciler(t, db)
	prepare(t, r)
	s = newSlot(t, db)
	ensure(t, r)
	wantGaps(t, s)
	return db, r, s
}

const (
	plainTable = "CREATE TABLE t (id int PRIMARY KEY, v text, n int, vc varchar(10)); INSERT INTO t VALUES (1, 'a', 1, 'x'), (2, 'b', 2, 'y')"
	// p1 and p2 hold rows, p3 has never had one.
	partitionedTable = `CREATE TABLE t (id int PRIMARY KEY, v text, n int) PARTITION BY RANGE (id);
		CREATE TABLE p1 PARTITION OF t FOR VALUES FROM (0) TO (100);
		CREATE TABLE p2 PARTITION OF t FOR VALUES FROM (100) TO (200);
		CREATE TABLE p3 PARTITION OF t FOR VALUES FROM (200) TO (300);
		INSERT INTO t VALUES (1, 'a', 1), (101, 'b', 2)`
	nestedTable = `CREATE TABLE t (id int PRIMARY KEY, v text) PARTITION BY RANGE (id);
		CREATE TABLE mid PARTITION OF t FOR VALUES FROM (0) TO (100) PARTITION BY RANGE (id);
		CREATE TABLE p1 PARTITION OF mid FOR VALUES FROM (0) TO (50);
		INSERT INTO t VALUES (1, 'a')`
)

const (
	rewrittenT = "table_rewritten public.t"
	truncatedT = "leaf_truncated public.t"
)

func TestWhatChangesRowsWithoutEventsIsAGap(t *testing.T) {
	t.Parallel()
	cases := []struct {
		name, create string
		do           []string
		want         []string
	}{
		{"another type", plainTable, []string{"ALTER TABLE t ALTER n TYPE bigint"}, []string{rewrittenT}},
		{"another type without a rewrite", "CREATE TABLE t (id int PRIMARY KEY, v xml); INSERT INTO t VALUES (1, '<a/>')", []string{"ALTER TABLE t ALTER v TYPE text"}, []string{rewrittenT}},
		{"the same type with other values", plainTable, []string{"ALTER TABLE t ALTER n TYPE int USING n + 1"}, []string{rewrittenT}},
		{"volatile default", plainTable, []string{"ALTER TABLE t ADD w float8 DEFAULT random()"}, []string{rewrittenT}},
		{"serial", plainTable, []string{"ALTER TABLE t ADD w serial"}, []string{rewrittenT}},
		{"constant default, which rewrites nothing", plainTable, []string{"ALTER TABLE t ADD w int NOT NULL DEFAULT 5"}, []string{rewrittenT}},
		{"constant default that is gone again", plainTable, []string{"ALTER TABLE t ADD w int DEFAULT 5; ALTER TABLE t ALTER w DROP DEFAULT"}, []string{rewrittenT}},
		{"constant default, then VACUUM FULL", plainTable, []string{"ALTER TABLE t ADD w int DEFAULT 5", "VACUUM FULL t"}, []string{rewrittenT}},
		{"a column of that name again, with a default", plainTable, []string{"ALTER TABLE t DROP n; ALTER TABLE t ADD n int DEFAULT 7"}, []string{rewrittenT}},
		{"rewritten and truncated, then filled", plainTable, []string{"ALTER TABLE t ALTER n TYPE int USING n + 1", "TRUNCATE t", "INSERT INTO t VALUES (1)"}, []string{rewrittenT}},

		{"partitioned: another type", partitionedTable, []string{"ALTER TABLE t ALTER n TYPE bigint"}, []string{rewrittenT}},
		{"partitioned: constant default", partitionedTable, []string{"ALTER TABLE t ADD w int DEFAULT 5"}, []string{rewrittenT}},
		{"partition truncated", partitionedTable, []string{"TRUNCATE p1"}, []string{truncatedT}},
		{"partition truncated and filled", partitionedTable, []string{"TRUNCATE p1", "INSERT INTO t VALUES (1, 'again')"}, []string{truncatedT}},
		{"partition truncated, then VACUUM FULL", partitionedTable, []string{"TRUNCATE p1", "INSERT INTO t VALUES (1, 'again')", "VACUUM FULL p1"}, []string{truncatedT}},
		{"partition truncated, then filled by COPY FREEZE", partitionedTable, []string{"BEGIN; TRUNCATE p1; COPY p1 (id) FROM PROGRAM 'echo 1' WITH (FREEZE); COMMIT"}, []string{truncatedT}},
		{"all partitions truncated, one by one", partitionedTable, []string{"TRUNCATE p1", "TRUNCATE p2", "TRUNCATE p3"}, []string{truncatedT}},
		{"all partitions truncated by one statement", partitionedTable, []string{"TRUNCATE p1, p2, p3"}, []string{truncatedT}},
		{"middle table truncated", nestedTable, []string{"TRUNCATE mid"}, []string{truncatedT}},
		{"truncated and with a new type", partitionedTable, []string{"TRUNCATE p1", "ALTER TABLE t ALTER n TYPE bigint"}, []string{rewrittenT}},
		{"partition detached", partitionedTable, []string{"ALTER TABLE t DETACH PARTITION p1"}, []string{rewrittenT}},
		{"partition dropped", partitionedTable, []string{"DROP TABLE p1"}, []string{rewrittenT}},
		{"partition detached and attached again", partitionedTable, []string{"ALTER TABLE t DETACH PARTITION p1", "INSERT INTO p1 VALUES (2)", "ALTER TABLE t ATTACH PARTITION p1 FOR VALUES FROM (0) TO (100)"}, []string{rewrittenT}},
		{"partition attached with rows", partitionedTable, []string{"CREATE TABLE p4 (LIKE t INCLUDING ALL)", "INSERT INTO p4 VALUES (301)", "ALTER TABLE t ATTACH PARTITION p4 FOR VALUES FROM (300) TO (400)"}, []string{rewrittenT}},
		{"made, filled and attached by one transaction", partitionedTable, []string{"BEGIN; CREATE TABLE p4 (LIKE t INCLUDING ALL); SAVEPOINT s; INSERT INTO p4 VALUES (301); RELEASE s; ALTER TABLE t ATTACH PARTITION p4 FOR VALUES FROM (300) TO (400); COMMIT"}, []string{rewrittenT}},
		{"middle table attached with rows below it", partitionedTable, []string{
			"CREATE TABLE mid (LIKE t INCLUDING ALL) PARTITION BY RANGE (id); CREATE TABLE p4 PARTITION OF mid FOR VALUES FROM (300) TO (350)",
			"INSERT INTO mid VALUES (301)", "ALTER TABLE t ATTACH PARTITION mid FOR VALUES FROM (300) TO (400)"}, []string{rewrittenT}},
		{"middle table detached", nestedTable, []string{"ALTER TABLE t DETACH PARTITION mid"}, []string{rewrittenT}},
		{"partition moved to another table", partitionedTable + "; CREATE TABLE other (LIKE t INCLUDING ALL) PARTITION BY RANGE (id)", []string{"ALTER TABLE t DETACH PARTITION p1", "ALTER TABLE other ATTACH PARTITION p1 FOR VALUES FROM (0) TO (100)"}, []string{rewrittenT, "table_rewritten public.other"}},
		{"partition unlogged for a while", partitionedTable, []string{"ALTER TABLE p1 SET UNLOGGED", "INSERT INTO p1 VALUES (2)", "ALTER TABLE p1 SET LOGGED"}, []string{truncatedT}},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			db, r, s := seenBefore(t, c.create)
			pgtest.Exec(t, db, c.do...)
			ensure(t, r)
			wantGaps(t, s, c.want...)
			ensure(t, r)
			wantGaps(t, s) // once
		})
	}
}

func TestWhatLeavesRowsAsTheyAreIsNoGap(t *testing.T) {
	t.Parallel()
	cases := []struct {
		name, create string
		do           []string
	}{
		{"vacuum full", plainTable, []string{"VACUUM FULL t"}},
		{"cluster", plainTable, []string{"CLUSTER t USING t_pkey"}},
		{"reindex", plainTable, []string{"REINDEX TABLE t"}},
		{"tablespace", plainTable, []string{"SET allow_in_place_tablespaces = on", "CREATE TABLESPACE elsewhere LOCATION ''", "ALTER TABLE t SET TABLESPACE elsewhere"}},
		{"set logged", plainTable, []string{"ALTER TABLE t SET LOGGED"}},
		{"column without a default", plainTable, []string{"ALTER TABLE t ADD w int"}},
		{"column without a default, defaulted later", plainTable, []string{"ALTER TABLE t ADD w int; ALTER TABLE t ALTER w SET DEFAULT 5"}},
		{"default NULL", plainTable, []string{"ALTER TABLE t ADD w int DEFAULT NULL"}},
		{"dropped column", plainTable, []string{"ALTER TABLE t DROP n"}},
		{"dropped column, then vacuum full", plainTable, []string{"ALTER TABLE t DROP n", "VACUUM FULL t"}},
		{"renamed", plainTable, []string{"ALTER TABLE t RENAME n TO m; ALTER TABLE t RENAME TO u; ALTER TABLE u RENAME TO t"}},
		{"swapped names", plainTable, []string{"ALTER TABLE t RENAME v TO x; ALTER TABLE t RENAME vc TO v; ALTER TABLE t RENAME x TO vc"}},
		{"constraints, defaults, statistics", plainTable, []string{"ALTER TABLE t ALTER n SET NOT NULL, ALTER n SET DEFAULT 1, ALTER n SET STATISTICS 10", "VACUUM FULL t"}},
		{"wider varchar, and text", plainTable, []string{"ALTER TABLE t ALTER vc TYPE varchar(20)", "ALTER TABLE t ALTER vc TYPE text"}},
		{"truncate, which is in the log", plainTable, []string{"TRUNCATE t", "INSERT INTO t VALUES (1)"}},
		{"truncate cascade", plainTable + "; CREATE TABLE u (id int PRIMARY KEY REFERENCES t); INSERT INTO u VALUES (1)", []string{"TRUNCATE t CASCADE"}},
		{"analyze and vacuum", plainTable, []string{"VACUUM (FREEZE, ANALYZE) t"}},
		{"frozen, then vacuum full", plainTable, []string{"VACUUM FREEZE t", "VACUUM FULL t"}},
		{"volatile default of an empty table", "CREATE TABLE t (id int PRIMARY KEY)", []string{"ALTER TABLE t ADD w float8 DEFAULT random()", "ALTER TABLE t ADD x int DEFAULT 5"}},
		{"dropped table", plainTable, []string{"DROP TABLE t"}},
		{"made again", plainTable, []string{"DROP TABLE t", plainTable}},

		{"vacuum full of a partition", partitionedTable, []string{"VACUUM FULL p1"}},
		{"vacuum full of a partition with a value from the catalog", strings.ReplaceAll(partitionedTable, "v text", "v text DEFAULT 'x'"), []string{"VACUUM FULL p1", "VACUUM FULL p2"}},
		{"empty partition made", partitionedTable, []string{"CREATE TABLE p4 PARTITION OF t FOR VALUES FROM (300) TO (400)"}},
		{"partition made and filled", partitionedTable, []string{"CREATE TABLE p4 PARTITION OF t FOR VALUES FROM (300) TO (400)", "INSERT INTO t VALUES (301)"}},
		{"partition made and filled by one transaction", partitionedTable, []string{"BEGIN; CREATE TABLE p4 PARTITION OF t FOR VALUES FROM (300) TO (400); INSERT INTO t VALUES (301); COMMIT"}},
		{"partition made and filled, its key alone", "CREATE TABLE t (id int NOT NULL DEFAULT 1, v int NOT NULL, PRIMARY KEY (v, id)) PARTITION BY RANGE (id)", []string{"CREATE TABLE p1 PARTITION OF t DEFAULT", "INSERT INTO t VALUES (301, 1)"}},
		{"partition of a middle table made with it", partitionedTable, []string{"CREATE TABLE mid PARTITION OF t FOR VALUES FROM (300) TO (400) PARTITION BY RANGE (id)", "CREATE TABLE p4 PARTITION OF mid DEFAULT", "INSERT INTO t VALUES (301)"}},
		{"empty partition attached", partitionedTable, []string{"CREATE TABLE p4 (LIKE t INCLUDING ALL)", "ALTER TABLE t ATTACH PARTITION p4 FOR VALUES FROM (300) TO (400)"}},
		{"partition below a middle table", nestedTable, []string{"CREATE TABLE p2 PARTITION OF mid FOR VALUES FROM (50) TO (100)", "INSERT INTO t VALUES (51)"}},
		{"column added to every partition", partitionedTable, []string{"ALTER TABLE t ADD w int"}},
		{"whole partitioned table dropped", partitionedTable, []string{"DROP TABLE t"}},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			db, r, s := seenBefore(t, c.create)
			pgtest.Exec(t, db, c.do...)
			ensure(t, r)
			wantGaps(t, s)
			ensure(t, r)
			wantGaps(t, s)
		})
	}
}

// The catalog looks the same when each partition is truncated by one transaction, so
// the message names it: the log knows what it truncated.
func TestTruncateOfThePartitionedTableNamesItsTransaction(t *testing.T) {
	t.Parallel()
	db, r, s := seenBefore(t, partitionedTable)
	pgtest.Exec(t, db, "CREATE TABLE x (xid xid)", "BEGIN; INSERT INTO x SELECT pg_current_xact_id()::xid; TRUNCATE t; COMMIT")
	ensure(t, r)
	list := s.read(t)
	if !slices.ContainsFunc(list, func(m sent) bool { return m.kind == "truncate" }) {
		t.Fatal("TRUNCATE of the partitioned table is not in the log: the test shows nothing")
	}
	messages := gapMessages(t, list)
	if len(messages) != 1 || len(messages[0].Tables) != 1 {
		t.Fatalf("got %+v", messages)
	}
	want := pgtest.Query(t, db, "SELECT xid::text FROM x")[0][0]
	if got := fmt.Sprint(messages[0].Tables[0].TruncatedBy); got != "["+want+"]" {
		t.Errorf("truncated by %s, want %s", got, want)
	}
}

func TestGapNamesTheTableThatStandsForThePartition(t *testing.T) {
	t.Parallel()
	db, r, s := seenBefore(t, `CREATE SCHEMA "sch ema"; CREATE TABLE "sch ema"."Ta.b""le" (id int PRIMARY KEY) PARTITION BY RANGE (id);
		CREATE TABLE "le.af" PARTITION OF "sch ema"."Ta.b""le" DEFAULT; INSERT INTO "le.af" VALUES (1)`)
	pgtest.Exec(t, db, `TRUNCATE "le.af"`)
	state := stateOf(t, ensure(t, r), `sch ema.Ta.b"le`)
	m := gapMessages(t, s.read(t))
	if len(m) != 1 || len(m[0].Tables) != 1 {
		t.Fatalf("got %+v", m)
	}
	got := m[0].Tables[0]
	if got.OID != state.OID || got.Schema != state.Schema || got.Name != state.Name || m[0].Reason != GapTruncated {
		t.Errorf("got %+v, want oid %d", m[0], state.OID)
	}
	contains(t, "detail", got.Detail, "truncated", "le.af")
}

func TestTablesOfSeveralGapsTravelTogether(t *testing.T) {
	t.Parallel()
	db, r, s := seenBefore(t, plainTable, strings.NewReplacer("TABLE t ", "TABLE u ", "INTO t ", "INTO u ").Replace(plainTable))
	pgtest.Exec(t, db, "ALTER TABLE t ADD w int DEFAULT 1", "ALTER TABLE u ADD w int DEFAULT 1")
	ensure(t, r)
	if m := gapMessages(t, s.read(t)); len(m) != 1 || len(m[0].Tables) != 2 {
		t.Errorf("got %+v, want both tables in one message", m)
	}
}

func TestLockedTableIsComparedWhenItsLockIsFree(t *testing.T) {
	t.Parallel()
	db, r, s := seenBefore(t, partitionedTable)
	pgtest.Exec(t, db, "TRUNCATE p1", "INSERT INTO t VALUES (1)")
	conn, err := pgx.Connect(t.Context(), db)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(t.Context())
	if _, err := conn.PgConn().Exec(t.Context(), "BEGIN; LOCK TABLE p1 IN ACCESS EXCLUSIVE MODE").ReadAll(); err != nil {
		t.Fatal(err)
	}
	ensure(t, r)
	wantGaps(t, s)
	// Rows that are written meanwhile are no proof that nothing was truncated.
	if _, err := conn.Exec(t.Context(), "COMMIT"); err != nil {
		t.Fatal(err)
	}
	ensure(t, r)
	wantGaps(t, s, truncatedT)
}

func TestTableThatCannotBeReadIsAGapRatherThanNone(t *testing.T) {
	t.Parallel()
	db := pgtest.Database(t)
	role, as := roleURL(t, db, "GRANT ALL ON SCHEMA public TO ROLE", "GRANT CREATE ON DATABASE "+currentDatabase(t, db)+" TO ROLE")
	pgtest.Exec(t, db, partitionedTable, "ALTER TABLE t OWNER TO "+role, "REVOKE ALL ON p1 FROM "+role)
	r := newReconciler(t, as)
	prepare(t, r)
	s := newSlot(t, db)
	ensure(t, r)
	pgtest.Exec(t, db, "VACUUM FULL p1")
	ensure(t, r)
	wantGaps(t, s, truncatedT)
}

func TestTableThatWasOutOfItsPublicationIsAGap(t *testing.T) {
	t.Parallel()
	db, r, s := seenBefore(t, plainTable)
	pgtest.Exec(t, db, "ALTER PUBLICATION lockstep_app DROP TABLE t", "DELETE FROM t WHERE id = 1")
	ensure(t, r)
	list := s.read(t)
	if diff := cmp.Diff([]string{"publication_rebuilt public.t"}, gapsIn(t, list)); diff != "" {
		t.Errorf("gaps (-want +got):\n%s", diff)
	}
	// The rows came when the table joined, and come again when the gap is repaired.
	if slices.ContainsFunc(list, func(m sent) bool { return m.kind == "row" || m.kind == "table" }) {
		t.Errorf("rows that are known came once more: %q", lines(list))
	}
	pgtest.Exec(t, db, "INSERT INTO t (id) VALUES (3)")
	if diff := cmp.Diff([]string{"insert public.t (3,n,n,n)"}, changes(s.read(t))); diff != "" {
		t.Errorf("after it is back (-want +got):\n%s", diff)
	}
	ensure(t, r)
	wantGaps(t, s)
}

// A writer that was there before the table is back has changes on both sides: the gap
// must lie behind them, or its repair would come too early.
func TestTableComesBackBehindTheWritersThatWereThere(t *testing.T) {
	t.Parallel()
	db, r, s := seenBefore(t, plainTable)
	pgtest.Exec(t, db, "ALTER PUBLICATION lockstep_app DROP TABLE t")
	conn, err := pgx.Connect(t.Context(), db)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(t.Context())
	if _, err := conn.PgConn().Exec(t.Context(), "BEGIN; DELETE FROM t WHERE id = 1").ReadAll(); err != nil {
		t.Fatal(err)
	}
	if state := stateOf(t, ensure(t, r), "public.t"); state.Published != None {
		t.Errorf("it is back beside a writer: %+v", state)
	}
	wantGaps(t, s)
	if _, err := conn.Exec(t.Context(), "COMMIT"); err != nil {
		t.Fatal(err)
	}
	pgtest.Eventually(t, 20*time.Second, "the table is back", func() bool { return stateOf(t, ensure(t, r), "public.t").Published == Full })
	wantGaps(t, s, "publication_rebuilt public.t")
}

func TestTableThatIsNeverQuietComesBackAllTheSame(t *testing.T) {
	t.Parallel()
	db, _, s := seenBefore(t, plainTable)
	kept := new(shelf)
	r := newReconciler(t, db, kept.keep, func(c *Config) { c.JoinAttempts, c.Interval = 1, time.Millisecond })
	ensure(t, r)
	pgtest.Exec(t, db, "ALTER PUBLICATION lockstep_app DROP TABLE t")
	conn, err := pgx.Connect(t.Context(), db)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(t.Context())
	if _, err := conn.PgConn().Exec(t.Context(), "BEGIN; DELETE FROM t WHERE id = 1").ReadAll(); err != nil {
		t.Fatal(err)
	}
	pgtest.Eventually(t, 20*time.Second, "the table is back", func() bool { return stateOf(t, ensure(t, r), "public.t").Published == Full })
	list := s.read(t)
	if diff := cmp.Diff([]string{"publication_rebuilt public.t"}, gapsIn(t, list)); diff != "" {
		t.Errorf("gaps (-want +got):\n%s", diff)
	}
	if slices.ContainsFunc(list, func(m sent) bool { return m.kind == "table" }) {
		t.Error("its rows are said to be missing, too")
	}
	// What the writer did before is missing, and is in no page that was read before it
	// ends: the gap is told again behind it.
	ensure(t, r)
	wantGaps(t, s)
	if _, err := conn.Exec(t.Context(), "COMMIT"); err != nil {
		t.Fatal(err)
	}
	untilGaps(t, r, s, "publication_rebuilt public.t")
	ensure(t, r)
	wantGaps(t, s)
}

// untilGaps does rounds until they find gaps: writers of other databases of the server
// may hold them up.
func untilGaps(t *testing.T, r *Reconciler, s *slot, want ...string) {
	t.Helper()
	var got []string
	pgtest.Eventually(t, 30*time.Second, "the gap is told again", func() bool {
		ensure(t, r)
		got = gapsIn(t, s.read(t))
		return len(got) > 0
	})
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("gaps (-want +got):\n%s", diff)
	}
}

func TestTablesOfAPublicationThatWasDroppedComeBackWithAGap(t *testing.T) {
	t.Parallel()
	db, r, s := seenBefore(t, plainTable)
	pgtest.Exec(t, db, "BEGIN; DROP PUBLICATION lockstep_app; DELETE FROM t WHERE id = 1; COMMIT")
	pgtest.Exec(t, db, "SELECT pg_replication_slot_advance('"+s.name+"', pg_current_wal_lsn())")
	ensure(t, r)
	list := s.read(t)
	if got := gapsIn(t, list); !slices.Equal(got, []string{"publication_rebuilt public.t"}) {
		t.Errorf("gaps: %q", got)
	}
	if slices.ContainsFunc(list, func(m sent) bool { return m.kind == "row" }) {
		t.Errorf("rows that are known came once more: %q", lines(list))
	}
	ensure(t, r)
	wantGaps(t, s)
}

func TestPatternsThatTakeATableOutMakeNoGap(t *testing.T) {
	t.Parallel()
	kept := new(shelf)
	db, _, s := seenBefore(t, plainTable)
	ensure(t, newReconciler(t, db, kept.keep))
	ensure(t, newReconciler(t, db, kept.keep, withPatterns(t, "public.*", "-public.t")))
	pgtest.Exec(t, db, "ALTER TABLE t ADD w int DEFAULT 5")
	ensure(t, newReconciler(t, db, kept.keep))
	wantGaps(t, s)
}
