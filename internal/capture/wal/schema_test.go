package wal

import (
	"fmt"
	"strings"
	"testing"
	"unicode/utf8"

	"lockstep/internal/pgdb/pgtest"
)

// W20
func TestColumnAddedInsideATransaction(t *testing.T) {
	t.Parallel()
	log := captured(t, []string{"CREATE TABLE a (id int PRIMARY KEY, v text)"}, []string{"a"},
		`BEGIN; INSERT INTO a VALUES (1, 'x'); ALTER TABLE a ADD COLUMN w int DEFAULT 5; INSERT INTO a VALUES (2, 'y', 6); UPDATE a SET v = 'z' WHERE id = 1; COMMIT`)
	equal(t, log.rows(t), []string{`insert {"id":1,"v":"x"}`, `insert {"id":2,"v":"y","w":6}`, `update {"id":1,"v":"z","w":5}`})
}

// W33
func TestPartitionedTableArrivesUnderItsRoot(t *testing.T) {
	t.Parallel()
	log := captured(t, []string{
		"CREATE TABLE a (v int, region int, id int, PRIMARY KEY (id, region)) PARTITION BY LIST (region)",
		"CREATE TABLE a1 PARTITION OF a FOR VALUES IN (1)",
		"CREATE TABLE a2 (id int NOT NULL, gone text, v int, region int NOT NULL)", "ALTER TABLE a2 DROP COLUMN gone",
		"ALTER TABLE a ATTACH PARTITION a2 FOR VALUES IN (2)",
	}, []string{"a"},
		"INSERT INTO a VALUES (9, 1, 1)", "UPDATE a SET region = 2", "UPDATE a SET v = 8", "UPDATE a SET id = 3", "DELETE FROM a", "TRUNCATE a")
	equal(t, log.changes(t), []seen{
		{Action: "insert", Table: "public.a", Row: `{"v":9,"region":1,"id":1}`, PKs: `["1","1"]`, OldKnown: true},
		{Action: "delete", Table: "public.a", Row: `{"region":1,"id":1}`, PKs: `["1","1"]`},
		{Action: "insert", Table: "public.a", Row: `{"v":9,"region":2,"id":1}`, PKs: `["1","2"]`, OldKnown: true},
		{Action: "update", Table: "public.a", Row: `{"v":8,"region":2,"id":1}`, PKs: `["1","2"]`},
		{Action: "delete", Table: "public.a", Row: `{"region":2,"id":1}`, PKs: `["1","2"]`},
		{Action: "insert", Table: "public.a", Row: `{"v":8,"region":2,"id":3}`, PKs: `["3","2"]`, OldKnown: true},
		{Action: "delete", Table: "public.a", Row: `{"region":2,"id":3}`, PKs: `["3","2"]`},
		{Action: "truncate", Table: "public.a", PKs: `[]`},
	})
}

// The root says that old rows are full while a partition's are its key only: what
// is unknown must not read as NULL.
func TestPartitionWithoutFullIdentityUnderAFullRoot(t *testing.T) {
	t.Parallel()
	log := captured(t, []string{
		"CREATE TABLE a (id int PRIMARY KEY, v int) PARTITION BY RANGE (id)", "CREATE TABLE a1 PARTITION OF a FOR VALUES FROM (0) TO (100)",
		"ALTER TABLE a REPLICA IDENTITY FULL", "INSERT INTO a VALUES (1, 7)",
	}, []string{"a"}, "UPDATE a SET v = 8", "UPDATE a SET id = 2", "DELETE FROM a")
	equal(t, log.changes(t), []seen{
		{Action: "update", Table: "public.a", Row: `{"id":1,"v":8}`, PKs: `["1"]`},
		{Action: "delete", Table: "public.a", Row: `{"id":1}`, PKs: `["1"]`},
		{Action: "insert", Table: "public.a", Row: `{"id":2,"v":8}`, PKs: `["2"]`, OldKnown: true},
		{Action: "delete", Table: "public.a", Row: `{"id":2}`, PKs: `["2"]`},
	})
}

// W34
func TestTruncateIsOneChangePerTableInOrder(t *testing.T) {
	t.Parallel()
	log := captured(t, []string{
		"CREATE TABLE a (id int PRIMARY KEY)", "CREATE TABLE b (id int PRIMARY KEY REFERENCES a)", "CREATE TABLE c (id int PRIMARY KEY)",
	}, []string{"a", "b", "c"}, "INSERT INTO a VALUES (1)", "TRUNCATE a CASCADE", "TRUNCATE c, b")
	equal(t, log.changes(t), []seen{
		{Action: "insert", Table: "public.a", Row: `{"id":1}`, PKs: `["1"]`, OldKnown: true},
		{Action: "truncate", Table: "public.a", PKs: `[]`},
		{Action: "truncate", Table: "public.b", PKs: `[]`},
		{Action: "truncate", Table: "public.c", PKs: `[]`},
		{Action: "truncate", Table: "public.b", PKs: `[]`},
	})
}

// W36
func TestDefinitionsAreThoseOfTheirMoment(t *testing.T) {
	t.Parallel()
	url := pgtest.Database(t)
	pgtest.Exec(t, url, "CREATE TABLE a (id int PRIMARY KEY, v text, w int)", "CREATE TABLE k (b int, a int, v int, PRIMARY KEY (a, b))")
	publishTables(t, url, "a", "k")
	log := newMemoryLog(t)
	r := begin(t, url, log)
	r.caughtUp()
	// Everything is decoded when the last definition is long in the catalog.
	log.stop()
	pgtest.Exec(t, url,
		"INSERT INTO a VALUES (1, 'x', 1)",
		"ALTER TABLE a RENAME COLUMN v TO renamed", "INSERT INTO a VALUES (2, 'x', 2)",
		"ALTER TABLE a RENAME TO a_renamed", "INSERT INTO a_renamed VALUES (3, 'x', 3)",
		"ALTER TABLE a_renamed DROP COLUMN renamed", "ALTER TABLE a_renamed ADD COLUMN renamed bool", "INSERT INTO a_renamed VALUES (4, 4, true)",
		"BEGIN; ALTER TABLE a_renamed RENAME COLUMN w TO t; ALTER TABLE a_renamed RENAME COLUMN renamed TO w; ALTER TABLE a_renamed RENAME COLUMN t TO renamed; COMMIT",
		"INSERT INTO a_renamed VALUES (5, 5, false)",
		"ALTER TABLE a_renamed ALTER COLUMN renamed TYPE text", "UPDATE a_renamed SET w = true WHERE id = 5",
		"INSERT INTO k VALUES (1, 2, 3)", "ALTER TABLE k RENAME COLUMN a TO aa", "DELETE FROM k")
	log.start()
	log.caughtUp(t, url)
	equal(t, log.changes(t), []seen{
		{Action: "insert", Table: "public.a", Row: `{"id":1,"v":"x","w":1}`, PKs: `["1"]`, OldKnown: true},
		{Action: "insert", Table: "public.a", Row: `{"id":2,"renamed":"x","w":2}`, PKs: `["2"]`, OldKnown: true},
		{Action: "insert", Table: "public.a_renamed", Row: `{"id":3,"renamed":"x","w":3}`, PKs: `["3"]`, OldKnown: true},
		{Action: "insert", Table: "public.a_renamed", Row: `{"id":4,"w":4,"renamed":true}`, PKs: `["4"]`, OldKnown: true},
		{Action: "insert", Table: "public.a_renamed", Row: `{"id":5,"renamed":5,"w":false}`, PKs: `["5"]`, OldKnown: true},
		{Action: "update", Table: "public.a_renamed", Row: `{"id":5,"renamed":"5","w":true}`, PKs: `["5"]`},
		{Action: "insert", Table: "public.k", Row: `{"b":1,"a":2,"v":3}`, PKs: `["2","1"]`, OldKnown: true},
		{Action: "delete", Table: "public.k", Row: `{"b":1,"aa":2}`, PKs: `["2","1"]`},
	})
}

// W37
func TestNamesAreData(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("ü", 31) + "x" // 63 bytes
	if len(long) != 63 || !utf8.ValidString(long) {
		t.Fatal(len(long))
	}
	names := []string{`public."we.ird"`, `public."Mixed"`, `public.mixed`, `"Ünï cödé"."a""b"`, `"Ünï cödé".mixed`, `public."` + long + `"`, `public."select"`}
	ddl := []string{`CREATE SCHEMA "Ünï cödé"`}
	var statements, want []string
	for i, name := range names {
		ddl = append(ddl, fmt.Sprintf(`CREATE TABLE %s ("select" int PRIMARY KEY, "Col" int, col int, "a.b" text, "q""uote\" text, "%s" text)`, name, long))
		statements = append(statements, fmt.Sprintf("INSERT INTO %s VALUES (%d, 1, 2, 'x', 'y', 'z')", name, i))
		want = append(want, fmt.Sprintf(`{"select":%d,"Col":1,"col":2,"a.b":"x","q\"uote\\":"y","%s":"z"}`, i, long))
	}
	log := captured(t, ddl, names, statements...)
	tables := []string{"public.we.ird", "public.Mixed", "public.mixed", `Ünï cödé.a"b`, "Ünï cödé.mixed", "public." + long, "public.select"}
	for i, c := range log.changes(t) {
		equal(t, c, seen{Action: "insert", Table: tables[i], Row: want[i], PKs: fmt.Sprintf(`["%d"]`, i), OldKnown: true})
	}
	equal(t, len(log.changes(t)), len(names))
}

// W38
func TestUnusualShapesOfTables(t *testing.T) {
	t.Parallel()
	var wide, values []string
	for i := range 1600 {
		wide = append(wide, fmt.Sprintf("c%d int", i))
		values = append(values, "1")
	}
	url := pgtest.Database(t)
	pgtest.Exec(t, url, "CREATE TABLE zero ()", "CREATE TABLE dropped (a int, id int PRIMARY KEY, b int, c int)", "ALTER TABLE dropped DROP COLUMN a, DROP COLUMN b",
		"CREATE TABLE wide ("+strings.Join(wide, ",")+")", "CREATE TABLE defaults (id serial PRIMARY KEY, v text DEFAULT 'd')",
		"CREATE TABLE generated (id int PRIMARY KEY, twice int GENERATED ALWAYS AS (id * 2) STORED)")
	publishTables(t, url, "dropped", "defaults", "generated")
	pgtest.Exec(t, url, "ALTER PUBLICATION p_inserts ADD TABLE zero, wide")
	log := newMemoryLog(t)
	r := begin(t, url, log)
	pgtest.Exec(t, url, "INSERT INTO zero DEFAULT VALUES", "INSERT INTO dropped VALUES (1, 2)", "INSERT INTO wide VALUES ("+strings.Join(values, ",")+")",
		"INSERT INTO defaults DEFAULT VALUES", "INSERT INTO generated VALUES (4)")
	r.caughtUp()
	rows := log.rows(t)
	equal(t, len(rows), 5)
	equal(t, rows[0], "insert {}")
	equal(t, rows[1], `insert {"id":1,"c":2}`)
	if !strings.HasPrefix(rows[2], `insert {"c0":1,"c1":1,`) || strings.Count(rows[2], ":1") != 1600 {
		t.Error(rows[2])
	}
	equal(t, rows[3:], []string{`insert {"id":1,"v":"d"}`, `insert {"id":4}`})
}

// A publication of the user's own may hold more than is configured. What is left
// out counts in positions, and not in the indices of changes.
func TestTablesThatAreNotConfiguredAreLeftOut(t *testing.T) {
	t.Parallel()
	url := pgtest.Database(t)
	pgtest.Exec(t, url, "CREATE TABLE a (id int PRIMARY KEY)", "CREATE TABLE b (id int PRIMARY KEY)")
	publishTables(t, url, "a", "b")
	log := newMemoryLog(t)
	r := begin(t, url, log, func(c *Config, _ *tuning) { c.Tables = []string{"public.a"} })
	pgtest.Exec(t, url, "BEGIN; INSERT INTO b VALUES (1); INSERT INTO a VALUES (1); INSERT INTO b VALUES (2); INSERT INTO a VALUES (2); TRUNCATE a, b; COMMIT", "INSERT INTO b VALUES (3)")
	r.caughtUp()
	equal(t, log.rows(t), []string{`insert {"id":1}`, `insert {"id":2}`, `truncate `})
	for _, b := range log.all() {
		if b.Len() > 0 {
			equal(t, b.Mark.Ordinal, 5)
			equal(t, b.Mark.CommitIdx, 2)
		}
	}
}
