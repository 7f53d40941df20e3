package backfill

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"lockstep/internal/pgdb"
	"lockstep/internal/pgdb/pgtest"
)

// Pages of two rows: every row is a place where the next page begins.
func small(t *tuning) { t.most = 2 }

func TestEveryTypeOfKeyIsReadToTheEnd(t *testing.T) {
	t.Parallel()
	cases := []struct {
		name, before, columns, key string
		rows                       []string
	}{
		{"int2", "", "k int2", "k", []string{"(-32768)", "(0)", "(32767)"}},
		{"int8", "", "k int8", "k", []string{"(-9223372036854775808)", "(0)", "(9223372036854775807)"}},
		{"numeric", "", "k numeric", "k", []string{"('NaN')", "('Infinity')", "('-Infinity')", "(1.10)", "(1.1000000000000000000001)", "(-0.5)", "(1e100)"}},
		{"float8", "", "k float8", "k", []string{"('NaN')", "('Infinity')", "('-Infinity')", "(0.1)", "(0.30000000000000004)", "(1e-320)", "('-0')"}},
		{"float4", "", "k float4", "k", []string{"('NaN')", "('Infinity')", "(0.1)", "(16777216)", "(1e-45)"}},
		{"boolean", "", "k bool", "k", []string{"(true)", "(false)"}},
		{"timestamptz", "", "k timestamptz", "k", []string{"('infinity')", "('-infinity')", "('0044-03-15 BC')", "('2026-01-01 12:00:00.000001+05:30')", "('294276-12-31')"}},
		{"timestamp", "", "k timestamp", "k", []string{"('infinity')", "('-infinity')", "('4713-01-01 BC')", "('2026-01-01')"}},
		{"date", "", "k date", "k", []string{"('infinity')", "('-infinity')", "('0001-01-01 BC')", "('2026-12-31')"}},
		{"time", "", "k time", "k", []string{"('24:00')", "('00:00')", "('12:00:00.000001')"}},
		{"timetz", "", "k timetz", "k", []string{"('24:00+00')", "('00:00+15:59')", "('12:00-07:30:15')"}},
		{"interval", "", "k interval", "k", []string{"('1 mon')", "('-1 days 2 hours')", "('1 year -3 days')", "('00:00:00.000001')"}},
		{"uuid", "", "k uuid", "k", []string{"('ffffffff-ffff-ffff-ffff-ffffffffffff')", "('00000000-0000-0000-0000-000000000000')", "('018f0000-0000-7000-8000-000000000001')"}},
		{"bytea", "", "k bytea", "k", []string{`('')`, `('\x00')`, `('\x00ff5c27')`, `('\xdeadbeef')`}},
		{"text", "", "k text", "k", []string{"('')", "('a')", "('B')", "('b')", "('ä')", "('z''\"\\')", "(E'tab\\tand\\nline')", "('日本')", "('😀')", "(' a')"}},
		{"text of another collation", "", `k text COLLATE "C"`, "k", []string{"('a')", "('B')", "('b')", "('A')", "('ä')", "('Z')"}},
		{"text of a collation without case", `CREATE COLLATION nocase (provider = icu, locale = 'und-u-ks-level2', deterministic = false)`, "k text COLLATE nocase", "k", []string{"('a')", "('B')", "('c')", "('Ä')", "('z')"}},
		{"varchar", "", "k varchar(10)", "k", []string{"('a')", "('a ')", "('b')"}},
		{"char(n)", "", "k char(4)", "k", []string{"('a')", "('ab')", "('')", "('abcd')"}},
		{`"char"`, "", `k "char"`, "k", []string{"('a')", "('Z')", "('')", "('~')"}},
		{"name", "", "k name", "k", []string{"('a')", "('pg')", "('Zz')"}},
		{"enum", "CREATE TYPE mood AS ENUM ('z last', 'a \"first\"', 'm')", "k mood", "k", []string{"('m')", "('z last')", "('a \"first\"')"}},
		{"domain", "CREATE DOMAIN \"Positive One\" AS numeric CHECK (VALUE > 0)", `k "Positive One"`, "k", []string{"(1)", "(2.50)", "(10)"}},
		{"domain over text", "CREATE DOMAIN code AS varchar(5)", "k code", "k", []string{"('x')", "('Y')", "('y')"}},
		{"composite", `CREATE TYPE pair AS (a int, "B b" text)`, "k pair", "k", []string{`('(1,"a,b")')`, `('(1,)')`, `('(,"x""y")')`, `('(2,c)')`}},
		{"array", "", "k text[]", "k", []string{"('{}')", "('{a,NULL}')", "('{a,b}')", `('{"x,y","\""}')`}},
		{"range", "", "k int4range", "k", []string{"('empty')", "('[1,5)')", "('(,5)')", "('[1,)')"}},
		{"jsonb", "", "k jsonb", "k", []string{`('null')`, `('{"a": 1}')`, `('[]')`, `('"x"')`, `('1.10')`}},
		{"inet", "", "k inet", "k", []string{"('10.0.0.1')", "('10.0.0.0/8')", "('::1')"}},
		{"macaddr", "", "k macaddr", "k", []string{"('08:00:2b:01:02:03')", "('00:00:00:00:00:00')"}},
		{"bit", "", "k bit varying(8)", "k", []string{"(B'')", "(B'0')", "(B'00')", "(B'1')"}},
		{"money", "", "k money", "k", []string{"(-1)", "(0)", "(1000)"}},
		{"regclass", "", "k regclass", "k", []string{"('pg_class')", "('pg_type')", "('pg_proc')"}},
		{"pg_lsn", "", "k pg_lsn", "k", []string{"('0/0')", "('16/B374D848')"}},
		{"tsvector", "", "k tsvector", "k", []string{"('a:1 b:2')", "('fat')", "('')"}},
		{"citext", "CREATE SCHEMA ext; CREATE EXTENSION citext SCHEMA ext", "k ext.citext", "k", []string{"('a')", "('B')", "('c')", "('Z')", "('y')", "('_')"}},
		{"composite of odd names", "", `"a ""b" int, "Ä" text, "select" bool`, `"Ä", "select", "a ""b"`, []string{"(1, 'x', true)", "(2, 'x', true)", "(1, 'x', false)", "(1, 'w', true)", "(1, '', true)"}},
		{"composite of several operators", "CREATE SCHEMA ext; CREATE EXTENSION citext SCHEMA ext", "a ext.citext, b int, c text", "b, a, c", []string{"('x', 1, 'p')", "('Y', 1, 'p')", "('x', 1, 'q')", "('x', 2, '')", "('a', 2, 'Z')"}},
	}
	var ddl, tables []string
	seen := map[string]bool{}
	for i, c := range cases {
		if c.before != "" && !seen[c.before] {
			ddl = append(ddl, c.before)
			seen[c.before] = true
		}
		table := fmt.Sprintf("t%d", i)
		tables = append(tables, table)
		ddl = append(ddl, fmt.Sprintf("CREATE TABLE %s (%s, v text DEFAULT 'x', PRIMARY KEY (%s))", table, c.columns, c.key),
			fmt.Sprintf("INSERT INTO %s VALUES %s", table, strings.Join(c.rows, ", ")))
	}
	w := newWorld(t, ddl...).capturing(tables...)
	r, _ := w.running(small)
	awaits(t, r, start(t, r, Request{}).ID, Completed)
	for i, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			once(t, w.reads(orders, tables[i]), len(c.rows))
			w.byIndex(tables[i], tables[i]+"_pkey")
		})
	}
}

// byIndex checks that pages of a table come off its key's index, in order: a sort
// would read the whole table for each page.
func (w *world) byIndex(table, index string) {
	w.t.Helper()
	states, err := survey(w.t.Context(), &w.source)
	if err != nil {
		w.t.Fatal(err)
	}
	conn, err := w.pool.Acquire(w.t.Context())
	if err != nil {
		w.t.Fatal(err)
	}
	defer conn.Release()
	pg := conn.Conn().PgConn()
	for _, t := range states {
		if t.Name != table {
			continue
		}
		s := &slice{oid: t.OID, schema: t.Schema, name: t.Name, keys: t.KeyColumns, limit: 1}
		first, err := s.read(w.t.Context(), w.pool)
		if err != nil {
			w.t.Fatal(err)
		}
		s.after = first.last
		q := newQuery(s, first.shape)
		text := q.selectRows(nil) + " LIMIT 10"
		if err := exec(w.t.Context(), pg, pinned()); err != nil {
			w.t.Fatal(err)
		}
		plan := pg.ExecParams(w.t.Context(), "EXPLAIN "+text, q.values, q.types, nil, nil).Read()
		if err := errors.Join(plan.Err, exec(w.t.Context(), pg, "ROLLBACK")); err != nil {
			w.t.Fatal(err)
		}
		var lines []string
		for _, row := range plan.Rows {
			lines = append(lines, string(row[0]))
		}
		all := strings.Join(lines, "\n")
		if !strings.Contains(all, " using "+index+" ") || !strings.Contains(all, "Index Cond") || strings.Contains(all, "Sort  (") {
			w.t.Errorf("%s\n%s", text, all)
		}
		return
	}
	w.t.Errorf("no table %s", table)
}

// An index that is the replica identity may order by another class and another
// collation than the column, and a table may be partitioned, with several levels.
func TestKeysOfOtherIndexes(t *testing.T) {
	t.Parallel()
	w := newWorld(t,
		`CREATE TABLE a (id int, k text NOT NULL, v text)`, `CREATE UNIQUE INDEX a_k ON a (k COLLATE "C" text_pattern_ops)`, "ALTER TABLE a REPLICA IDENTITY USING INDEX a_k",
		`INSERT INTO a SELECT i, CASE WHEN i % 2 = 0 THEN 'a' ELSE 'B' END || i, 'v' FROM generate_series(1, 50) i`,
		`CREATE TABLE p (id int, at date, v text, PRIMARY KEY (at, id)) PARTITION BY RANGE (at)`,
		`CREATE TABLE p1 PARTITION OF p FOR VALUES FROM ('2026-01-01') TO ('2026-02-01')`,
		`CREATE TABLE p2 PARTITION OF p FOR VALUES FROM ('2026-02-01') TO ('2026-03-01') PARTITION BY HASH (id)`,
		`CREATE TABLE p21 PARTITION OF p2 FOR VALUES WITH (MODULUS 2, REMAINDER 0)`, `CREATE TABLE p22 PARTITION OF p2 FOR VALUES WITH (MODULUS 2, REMAINDER 1)`,
		`INSERT INTO p SELECT i, date '2026-01-01' + i % 59, 'v' FROM generate_series(1, 100) i`,
		`CREATE TABLE parent (id int PRIMARY KEY, v text)`, `CREATE TABLE child (PRIMARY KEY (id)) INHERITS (parent)`,
		`INSERT INTO parent VALUES (1, 'p')`, `INSERT INTO child VALUES (2, 'c')`,
		`CREATE TABLE d (id int PRIMARY KEY DEFERRABLE, v text)`, `INSERT INTO d VALUES (1, 'x'), (2, 'y'), (3, 'z')`,
	).capturing("a", "p", "ONLY parent", "child")
	pgtest.Exec(t, w.url, "ALTER PUBLICATION p_inserts ADD TABLE d")
	r, _ := w.running(small)
	awaits(t, r, start(t, r, Request{}).ID, Completed)
	for table, want := range map[string]int{"a": 50, "p": 100, "parent": 1, "child": 1, "d": 3} {
		t.Run(table, func(t *testing.T) { once(t, w.reads(orders, table), want) })
	}
	w.byIndex("a", "a_k")
	w.byIndex("p", "p1_pkey")
}

func TestManyColumns(t *testing.T) {
	t.Parallel()
	columns, values := make([]string, 1600), make([]string, 1600)
	for i := range columns {
		columns[i], values[i] = fmt.Sprintf("c%d int", i), "i"
	}
	columns[1599] += " PRIMARY KEY"
	w := newWorld(t, "CREATE TABLE a ("+strings.Join(columns, ", ")+")",
		"INSERT INTO a SELECT "+strings.Join(values, ", ")+" FROM generate_series(1, 30) i").capturing("a")
	w.complete(Request{Tables: []string{"public.a"}, Where: "c7 > 0"})
	once(t, w.reads(orders, "a"), 30)
	for key, row := range w.view(orders, "a") {
		if len(row) != 1600 {
			t.Fatalf("%s has %d columns", key, len(row))
		}
	}
}

// What a column list or a row filter keeps back, a backfill keeps back too.
func TestAPublicationThatIsNarrow(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "CREATE TABLE a (id int PRIMARY KEY, secret text, v text)",
		"INSERT INTO a SELECT i, 's', 'v' || i FROM generate_series(1, 10) i")
	if version := pgtest.Query(t, w.url, "SHOW server_version_num")[0][0]; version < "150000" {
		t.Skip("Postgres has column lists and row filters since version 15, this one is", version)
	}
	w.capturing("a (id, v) WHERE (id > 4)")
	w.complete(Request{Tables: []string{"public.a"}, Where: "id < 9"})
	once(t, w.reads(orders, "a"), 4)
	for key, row := range w.view(orders, "a") {
		if _, leaked := row["secret"]; leaked || len(row) != 2 {
			t.Errorf("%s has %v", key, row)
		}
	}
}

func TestNamesThatNeedQuotes(t *testing.T) {
	t.Parallel()
	name := pgdb.QuoteIdent("We.Ird", `Ta"ble 日本`)
	w := newWorld(t, `CREATE SCHEMA "We.Ird"`, "CREATE TABLE "+name+` ("K ""1" int PRIMARY KEY, v text)`, "INSERT INTO "+name+" VALUES (1, 'x'), (2, 'y'), (3, 'z')").capturing(name)
	r, _ := w.running(small)
	v := awaits(t, r, start(t, r, Request{Tables: []string{name}, Where: `"K ""1" <> 2`}).ID, Completed)
	if v.Tables[0].Name != `We.Ird.Ta"ble 日本` {
		t.Errorf("got name %s", v.Tables[0].Name)
	}
	once(t, w.reads(orders, `Ta"ble 日本`), 2)
}
