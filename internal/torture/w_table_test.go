package torture_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"lockstep/internal/pgdb/pgtest"
)

func TestW33RowMovesToAnotherPartition(t *testing.T) {
	t.Parallel()
	scenario{
		before: []string{
			"CREATE TABLE a (v int, region int, id int, PRIMARY KEY (id, region)) PARTITION BY LIST (region)",
			"CREATE TABLE a1 PARTITION OF a FOR VALUES IN (1)",
			"CREATE TABLE a2 (id int NOT NULL, gone text, v int, region int NOT NULL)", "ALTER TABLE a2 DROP COLUMN gone",
			"ALTER TABLE a ATTACH PARTITION a2 FOR VALUES IN (2)",
		},
		in: []string{"INSERT INTO a VALUES (9, 1, 1)", "UPDATE a SET region = 2", "UPDATE a SET v = 8", "INSERT INTO a2 (id, v, region) VALUES (5, 5, 2)", "DELETE FROM a2 WHERE id = 1"},
		out: []string{
			`insert a[1,1] {"v":9,"region":1,"id":1}`, `delete a[1,1] {"region":1,"id":1} key only`, `insert a[1,2] {"v":9,"region":2,"id":1}`,
			`update a[1,2] {"v":8,"region":2,"id":1} was ?`, `insert a[5,2] {"v":5,"region":2,"id":5}`, `delete a[1,2] {"region":2,"id":1} key only`,
		},
	}.run(t)
}

func TestW34TruncateOfSeveralTables(t *testing.T) {
	t.Parallel()
	scenario{
		before: []string{"CREATE TABLE a (id int PRIMARY KEY)", "CREATE TABLE b (id int PRIMARY KEY REFERENCES a)", "CREATE TABLE c (id int PRIMARY KEY)"},
		in: []string{
			"INSERT INTO a VALUES (1)", "INSERT INTO b VALUES (1)", "TRUNCATE a CASCADE", "INSERT INTO a VALUES (1)", "INSERT INTO c VALUES (3)",
			"BEGIN; TRUNCATE c, b; INSERT INTO c VALUES (4); COMMIT", "BEGIN; TRUNCATE c; ROLLBACK",
		},
		out: []string{
			`insert a[1] {"id":1}`, `insert b[1] {"id":1}`, `truncate a`, `truncate b`, `insert a[1] {"id":1}`, `insert c[3] {"id":3}`, `truncate c`, `truncate b`, `insert c[4] {"id":4}`,
		},
	}.run(t)
}

// altering runs a case of a change that Postgres tells nobody of, until the gap that
// says so, and repairs it.
func altering(t *testing.T, reason string, before, in []string, after string, given terms) {
	n := newNode(t, pgtest.Database(t))
	n.exec(before...)
	n.start()
	n.exec(in[:len(in)-1]...)
	n.fence()
	n.exec(in[len(in)-1])
	n.untilGap()
	n.says(reason)
	n.exec(after)
	given.gaps = true
	n.check(given)
	if !slices.ContainsFunc(n.lines(), func(l string) bool { return strings.HasSuffix(l, "start "+reason) }) {
		t.Errorf("no gap of the reason %s in\n%s", reason, strings.Join(n.lines(), "\n"))
	}
	n.repair(t)
}

func TestW34TruncateOfAPartition(t *testing.T) {
	t.Parallel()
	altering(t, "leaf_truncated",
		[]string{
			"CREATE TABLE a (id int PRIMARY KEY) PARTITION BY RANGE (id)", "CREATE TABLE a1 PARTITION OF a FOR VALUES FROM (0) TO (100)",
			"CREATE TABLE a2 PARTITION OF a FOR VALUES FROM (100) TO (200)",
		},
		[]string{"INSERT INTO a VALUES (1), (2), (101)", "TRUNCATE a1"}, "INSERT INTO a VALUES (3)", terms{})
}

// TRUNCATE of the table empties its partitions, and is in the log: no gap, unlike that
// of the other table, which is told after the look at both.
func TestW34TruncateOfAPartitionedTable(t *testing.T) {
	t.Parallel()
	n := newNode(t, pgtest.Database(t))
	n.exec("CREATE TABLE a (id int PRIMARY KEY) PARTITION BY RANGE (id)", "CREATE TABLE a1 PARTITION OF a FOR VALUES FROM (0) TO (100)",
		"CREATE TABLE a2 PARTITION OF a FOR VALUES FROM (100) TO (200)", "CREATE TABLE b (id int PRIMARY KEY)")
	n.start()
	n.exec("INSERT INTO a VALUES (1), (101)", "INSERT INTO b VALUES (1)", "TRUNCATE a", "INSERT INTO a VALUES (2)", "ALTER TABLE b ADD COLUMN w double precision DEFAULT random()")
	n.untilGap()
	n.check(terms{gaps: true})
	n.expect(`insert a[1] {"id":1}`, `insert a[101] {"id":101}`, `insert b[1] {"id":1}`, `truncate a`, `insert a[2] {"id":2}`, `gap b start table_rewritten`)
	n.repair(t)
}

func TestW35ColumnWithAVolatileDefault(t *testing.T) {
	t.Parallel()
	altering(t, "table_rewritten", []string{"CREATE TABLE a (id int PRIMARY KEY)"},
		[]string{"INSERT INTO a VALUES (1), (2)", "ALTER TABLE a ADD COLUMN w double precision DEFAULT random()"}, "INSERT INTO a VALUES (3, 1)", terms{})
}

func TestW35ColumnOfAnotherType(t *testing.T) {
	t.Parallel()
	altering(t, "table_rewritten", []string{"CREATE TABLE a (id int PRIMARY KEY, v int)"},
		[]string{"INSERT INTO a VALUES (1, 1), (2, 2)", "ALTER TABLE a ALTER COLUMN v TYPE text USING 'v' || v"}, "INSERT INTO a VALUES (3, 'w')", terms{})
}

// VACUUM FULL writes every row anew and changes none: that is no gap.
func TestW35VacuumFullIsNoGap(t *testing.T) {
	t.Parallel()
	scenario{
		before: []string{"CREATE TABLE a (id int PRIMARY KEY, v int)"},
		in:     []string{"INSERT INTO a VALUES (1, 1), (2, 2)", "VACUUM FULL a", "CLUSTER a USING a_pkey", "UPDATE a SET v = 3 WHERE id = 1"},
		out:    []string{`insert a[1] {"id":1,"v":1}`, `insert a[2] {"id":2,"v":2}`, `update a[1] {"id":1,"v":3} was ?`},
	}.run(t)
}

// The node is down while the definitions change: everything is decoded when the
// last one is long in the catalog.
func TestW36DefinitionsAreThoseOfTheirMoment(t *testing.T) {
	t.Parallel()
	n := newNode(t, pgtest.Database(t))
	n.exec("CREATE TABLE a (id int PRIMARY KEY, v text, w int)", "CREATE TABLE k (b int, a int, v int, PRIMARY KEY (a, b))")
	n.start()
	n.kill()
	n.exec(
		"INSERT INTO a VALUES (1, 'x', 1)",
		"ALTER TABLE a RENAME COLUMN v TO renamed", "INSERT INTO a VALUES (2, 'x', 2)",
		"ALTER TABLE a RENAME TO a_renamed", "INSERT INTO a_renamed VALUES (3, 'x', 3)",
		"ALTER TABLE a_renamed DROP COLUMN renamed", "ALTER TABLE a_renamed ADD COLUMN renamed bool", "INSERT INTO a_renamed VALUES (4, 4, true)",
		"BEGIN; ALTER TABLE a_renamed RENAME COLUMN w TO t; ALTER TABLE a_renamed RENAME COLUMN renamed TO w; ALTER TABLE a_renamed RENAME COLUMN t TO renamed; COMMIT",
		"INSERT INTO a_renamed VALUES (5, 5, false)", "DELETE FROM a_renamed WHERE id < 5",
		"INSERT INTO k VALUES (1, 2, 3)", "ALTER TABLE k RENAME COLUMN a TO aa", "DELETE FROM k")
	n.start()
	n.check(terms{renamed: map[string]string{"public.a": "public.a_renamed"}})
	n.expect(
		`insert a[1] {"id":1,"v":"x","w":1}`, `insert a[2] {"id":2,"renamed":"x","w":2}`, `insert a_renamed[3] {"id":3,"renamed":"x","w":3}`,
		`insert a_renamed[4] {"id":4,"w":4,"renamed":true}`, `insert a_renamed[5] {"id":5,"renamed":5,"w":false}`,
		`delete a_renamed[1] {"id":1} key only`, `delete a_renamed[2] {"id":2} key only`, `delete a_renamed[3] {"id":3} key only`, `delete a_renamed[4] {"id":4} key only`,
		`insert k[2,1] {"b":1,"a":2,"v":3}`, `delete k[2,1] {"b":1,"aa":2} key only`)
}

func TestW37NamesAreData(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("ü", 31) + "x"
	if len(long) != 63 || !utf8.ValidString(long) {
		t.Fatal("a name of 63 bytes, the most that Postgres keeps, has", len(long))
	}
	names := []string{`public."we.ird"`, `public."Mixed"`, `public.mixed`, `"Ünï cödé"."a""b"`, `"Ünï cödé".mixed`, `public."` + long + `"`, `public."select"`, `"we"."ird"`, `public."*"`, `public." "`}
	shown := []string{"we.ird", "Mixed", "mixed", `Ünï cödé.a"b`, "Ünï cödé.mixed", long, "select", "we.ird", "*", " "}
	s := scenario{before: []string{`CREATE SCHEMA "Ünï cödé"`, `CREATE SCHEMA we`}}
	patterns := make([]string, 0, len(names))
	for i, name := range names {
		s.before = append(s.before, fmt.Sprintf(`CREATE TABLE %s ("select" int PRIMARY KEY, "Col" int, col int, "a.b" text, "q""uote\" text, "%s" text)`, name, long))
		s.in = append(s.in, fmt.Sprintf("INSERT INTO %s VALUES (%d, 1, 2, 'x', 'y', 'z')", name, i))
		s.out = append(s.out, fmt.Sprintf(`insert %s[%d] {"select":%d,"Col":1,"col":2,"a.b":"x","q\"uote\\":"y","%s":"z"}`, shown[i], i, i, long))
		schema, table, _ := strings.Cut(name, ".")
		if schema == "public" {
			schema = `"public"`
		}
		if !strings.HasPrefix(table, `"`) {
			table = `"` + table + `"`
		}
		patterns = append(patterns, fmt.Sprintf("%q", schema+"."+table))
	}
	// Each is configurable: all of them by their exact names, and the fence.
	s.config = ", tables: [" + strings.Join(patterns, ", ") + ", public." + fenceTable + "]"
	s.run(t)
}

func TestW38UnusualShapesOfTables(t *testing.T) {
	t.Parallel()
	columns, values := make([]string, 1600), make([]string, 1600)
	for i := range columns {
		columns[i], values[i] = fmt.Sprintf("c%d int", i), fmt.Sprint(i%10)
	}
	n := newNode(t, pgtest.Database(t))
	n.exec("CREATE TABLE zero ()", "CREATE TABLE dropped (a int, id int PRIMARY KEY, b int, c int)", "ALTER TABLE dropped DROP COLUMN a, DROP COLUMN b",
		"CREATE TABLE wide ("+strings.Join(columns, ",")+", PRIMARY KEY (c0))", "CREATE TABLE defaults (id serial PRIMARY KEY, v text DEFAULT 'd')",
		"CREATE TABLE identity (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, v text)")
	n.start()
	n.exec("INSERT INTO zero DEFAULT VALUES", "INSERT INTO zero DEFAULT VALUES", "INSERT INTO dropped VALUES (1, 2)", "INSERT INTO wide VALUES ("+strings.Join(values, ",")+")",
		"UPDATE wide SET c1599 = NULL", "INSERT INTO defaults DEFAULT VALUES", "INSERT INTO identity (v) VALUES ('i')")
	n.check(terms{})
	lines := n.lines()
	want := []string{"insert zero {}", "insert zero {}", `insert dropped[1] {"id":1,"c":2}`, "", "", `insert defaults[1] {"id":1,"v":"d"}`, `insert identity[1] {"id":1,"v":"i"}`}
	if len(lines) != len(want) {
		t.Fatalf("%d changes, want %d", len(lines), len(want))
	}
	for i := range want {
		if want[i] != "" && lines[i] != want[i] {
			t.Errorf("got %s, want %s", lines[i], want[i])
		}
	}
	if strings.Count(lines[3], ":") != 1600 || !strings.HasSuffix(lines[4], `,"c1599":null} was ?`) {
		t.Errorf("the wide rows came as %.100s… and …%s", lines[3], lines[4][max(0, len(lines[4])-100):])
	}
}

func TestW39WhatHasNoEventsIsSaidAndSpoilsNothing(t *testing.T) {
	t.Parallel()
	n := newNode(t, pgtest.Database(t))
	n.exec("CREATE TABLE a (id int PRIMARY KEY)", "CREATE UNLOGGED TABLE quick (id int PRIMARY KEY)", "CREATE MATERIALIZED VIEW stale AS SELECT 1 AS id",
		"CREATE VIEW seen AS SELECT * FROM a", "CREATE SEQUENCE counter", "CREATE EXTENSION file_fdw", "CREATE SERVER files FOREIGN DATA WRAPPER file_fdw",
		"CREATE FOREIGN TABLE elsewhere (line text) SERVER files OPTIONS (filename '/dev/null')")
	n.start()
	n.exec("BEGIN; INSERT INTO quick VALUES (1); INSERT INTO a VALUES (1); CREATE TEMP TABLE mine (id int PRIMARY KEY); INSERT INTO mine VALUES (1); SELECT nextval('counter'); SELECT lo_create(0); COMMIT",
		"REFRESH MATERIALIZED VIEW stale", "DROP TABLE quick", "CREATE UNLOGGED TABLE later (id int PRIMARY KEY)", "INSERT INTO a VALUES (2)")
	n.check(terms{})
	n.expect(`insert a[1] {"id":1}`, `insert a[2] {"id":2}`)
	pgtest.Eventually(t, 20*time.Second, "the table that came later is told", func() bool { return n.reasonOf("public.later") != "" })
	for table, text := range map[string]string{
		"public.later": "not in the write-ahead log", "public.stale": "materialized view", "public.elsewhere": "foreign table",
	} {
		n.warns(table, text)
	}
}
