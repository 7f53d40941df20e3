package torture_test

import (
	"context"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5"

	"lockstep/internal/pgdb"
)

// compare puts the replica's rows into clones of the tables, as Postgres text made
// of the messages' values by the rules of the contract, and compares clone and
// table by the text of every column.
func (r *replica) compare(t testing.TB, url string) {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(context.WithoutCancel(t.Context()))
	for _, s := range []string{"DateStyle = 'ISO'", "IntervalStyle = 'postgres'", "TimeZone = 'UTC'", "extra_float_digits = 3", "bytea_output = 'hex'"} {
		run(t, conn, "SET "+s)
	}
	for _, of := range tablesOf(t, conn) {
		if slices.Contains(r.insertsOnly, of.String()) {
			continue
		}
		rows := r.tables[of.schema+"."+of.name]
		if rows == nil {
			rows = &replicaTable{}
		}
		compareTable(t, conn, of, rows, slices.Contains(r.altered, of.String()))
		delete(r.tables, of.schema+"."+of.name)
	}
	for name, rows := range r.tables {
		if len(rows.rows) > 0 && !slices.Contains(r.insertsOnly, strings.TrimPrefix(name, "public.")) {
			t.Errorf("the stream has rows of %s, which is not there", name)
		}
	}
}

// table is a table that is captured, in the catalog of now.
type table struct {
	schema, name string
	partitioned  bool
	columns      []column
}

type column struct {
	name string
	typ  *form
	key  bool
}

func (t table) String() string { return strings.TrimPrefix(t.schema+"."+t.name, "public.") }

func (t table) quoted() string { return pgdb.QuoteIdent(t.schema, t.name) }

const capturedTables = `
SELECT c.oid, n.nspname::text, c.relname::text, c.relkind = 'p'
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind IN ('r', 'p') AND NOT c.relispartition AND c.relpersistence = 'p'
  AND n.nspname NOT IN ('pg_catalog', 'information_schema', 'pg_toast', 'lockstep')
  AND n.nspname NOT LIKE 'unwatched%'
ORDER BY 2, 3`

// Stored generated columns are absent from the stream before Postgres 18, virtual
// ones always: there is nothing to compare with.
const tableColumns = `
SELECT a.attname::text, a.atttypid,
       coalesce((SELECT a.attnum = ANY (i.indkey) FROM pg_index i WHERE i.indrelid = a.attrelid AND i.indisprimary), false)
FROM pg_attribute a
WHERE a.attrelid = $1 AND a.attnum > 0 AND NOT a.attisdropped
  AND (a.attgenerated = '' OR a.attgenerated = 's' AND current_setting('server_version_num')::int >= 180000)
ORDER BY a.attnum`

func tablesOf(t testing.TB, conn *pgx.Conn) []table {
	t.Helper()
	forms := readForms(t, conn)
	type found struct {
		oid uint32
		table
	}
	rows, err := conn.Query(t.Context(), capturedTables)
	if err != nil {
		t.Fatal(err)
	}
	list, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (f found, err error) {
		return f, row.Scan(&f.oid, &f.schema, &f.name, &f.partitioned)
	})
	if err != nil {
		t.Fatal(err)
	}
	all := make([]table, 0, len(list))
	for _, f := range list {
		rows, err := conn.Query(t.Context(), tableColumns, f.oid)
		if err != nil {
			t.Fatal(err)
		}
		f.columns, err = pgx.CollectRows(rows, func(row pgx.CollectableRow) (c column, err error) {
			var oid uint32
			err = row.Scan(&c.name, &oid, &c.key)
			c.typ = forms[oid]
			return c, err
		})
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, f.table)
	}
	return all
}

func run(t testing.TB, conn *pgx.Conn, sql string) {
	t.Helper()
	if _, err := conn.Exec(t.Context(), sql); err != nil {
		t.Fatalf("%.300s: %v", sql, err)
	}
}

// unsaid stands for a value that no change has told.
const unsaid = "(not told)"

// compareTable compares table and clone. altered: a value that was not told is
// taken for the table's.
func compareTable(t testing.TB, conn *pgx.Conn, of table, rows *replicaTable, altered bool) {
	t.Helper()
	want := readTable(t, conn, of, of.quoted())
	var told []row
	for _, key := range slices.Sorted(maps.Keys(rows.rows)) {
		told = append(told, rows.rows[key]...)
	}
	if len(of.columns) == 0 {
		if len(told) != len(want) {
			t.Errorf("%s has %d rows, the stream %d", of, len(want), len(told))
		}
		return
	}
	run(t, conn, "DROP TABLE IF EXISTS pg_temp.clone")
	run(t, conn, "CREATE TEMP TABLE clone (LIKE "+of.quoted()+")")
	fill(t, conn, of, told)
	got := readTable(t, conn, of, "pg_temp.clone")
	unknown := unsaidOf(of, told)
	if altered {
		mergeUnsaid(of, want, got, unknown)
	} else if len(unknown) > 0 {
		t.Errorf("%s: of %d rows no change has told every column", of, len(unknown))
	}
	sortRows(want)
	sortRows(got)
	if len(want) == len(got) && len(want) > 2000 && cmp.Equal(want, got) {
		return // the difference of large tables is not for eyes
	}
	if diff := cmp.Diff(head(want), head(got)); diff != "" {
		t.Errorf("%s has %d rows, its clone from the stream %d (-table +stream):\n%.4000s", of, len(want), len(got), diff)
	} else if !cmp.Equal(want, got) {
		t.Errorf("%s (%d rows) and its clone from the stream (%d rows) differ", of, len(want), len(got))
	}
}

func head(rows [][]string) [][]string { return rows[:min(len(rows), 500)] }

func sortRows(rows [][]string) { slices.SortFunc(rows, slices.Compare) }

// readTable returns the text of every column of every row. The clone's rows come in
// the order in which they were written.
func readTable(t testing.TB, conn *pgx.Conn, of table, from string) [][]string {
	t.Helper()
	list := make([]string, len(of.columns))
	for i, c := range of.columns {
		list[i] = pgdb.QuoteIdent(c.name) // no cast: it would strip what char pads, and is not what xml writes
	}
	only := "ONLY "
	if of.partitioned {
		only = ""
	}
	// The simple protocol: every value by its type's output function.
	results, err := conn.PgConn().Exec(t.Context(), "SELECT "+strings.Join(list, ", ")+" FROM "+only+from).ReadAll()
	if err != nil {
		t.Fatalf("read %s: %v", of, err)
	}
	rows := make([][]string, len(results[0].Rows))
	for i, r := range results[0].Rows {
		rows[i] = make([]string, len(r))
		for j, v := range r {
			rows[i][j] = "NULL"
			if v != nil {
				rows[i][j] = "=" + string(v)
			}
		}
	}
	return rows
}

// fill writes the replica's rows into the clone, as text.
func fill(t testing.TB, conn *pgx.Conn, of table, told []row) {
	t.Helper()
	names := make([]string, len(of.columns))
	for i, c := range of.columns {
		names[i] = pgdb.QuoteIdent(c.name)
		run(t, conn, "ALTER TABLE pg_temp.clone ALTER COLUMN "+names[i]+" DROP NOT NULL")
	}
	var b strings.Builder
	escape := strings.NewReplacer("\\", "\\\\", "\t", "\\t", "\n", "\\n", "\r", "\\r")
	for _, r := range told {
		for i, c := range of.columns {
			if i > 0 {
				b.WriteByte('\t')
			}
			value, known := r[c.name]
			if !known {
				b.WriteString("\\N")
				continue
			}
			text, null, err := c.typ.text(value)
			if err != nil {
				t.Fatalf("%s.%s: %v: %.200s", of, c.name, err, value.json)
			}
			if null {
				b.WriteString("\\N")
				continue
			}
			_, _ = escape.WriteString(&b, text)
		}
		b.WriteByte('\n')
	}
	if _, err := conn.PgConn().CopyFrom(t.Context(), strings.NewReader(b.String()), "COPY pg_temp.clone ("+strings.Join(names, ", ")+") FROM STDIN"); err != nil {
		t.Fatalf("restore %s: %v", of, err)
	}
}

// unsaidOf returns, by row, the columns that no change has told.
func unsaidOf(of table, told []row) map[int][]int {
	unknown := map[int][]int{}
	for i, r := range told {
		for j, c := range of.columns {
			if _, known := r[c.name]; !known {
				unknown[i] = append(unknown[i], j)
			}
		}
	}
	return unknown
}

// mergeUnsaid marks what was not told in the clone, and in the table's row of the
// same primary key.
func mergeUnsaid(of table, want, got [][]string, unknown map[int][]int) {
	key := func(r []string) string {
		var k []string
		for i, c := range of.columns {
			if c.key {
				k = append(k, r[i])
			}
		}
		return strings.Join(k, "\x00")
	}
	byKey := map[string][]string{}
	for _, r := range want {
		byKey[key(r)] = r
	}
	for i, columns := range unknown {
		for _, j := range columns {
			got[i][j] = unsaid
			if r := byKey[key(got[i])]; r != nil {
				r[j] = unsaid
			}
		}
	}
}

// form is how the contract writes a type, as far as a reader has to know.
type form struct {
	kind  string // text, raw, vector, bytea, json, array, hstore
	elem  *form  // of an array
	delim string // between the elements, in Postgres' text
}

const allTypes = `
SELECT t.oid, t.typname::text, t.typtype::text, t.typbasetype, t.typelem, t.typsubscript = 'array_subscript_handler'::regproc, coalesce(e.typdelim::text, ',')
FROM pg_type t LEFT JOIN pg_type e ON e.oid = t.typelem`

func readForms(t testing.TB, conn *pgx.Conn) map[uint32]*form {
	t.Helper()
	rows, err := conn.Query(t.Context(), allTypes)
	if err != nil {
		t.Fatal(err)
	}
	defer rows.Close()
	forms, base, elem := map[uint32]*form{}, map[uint32]uint32{}, map[uint32]uint32{}
	for rows.Next() {
		var oid, baseOID, elemOID uint32
		var name, typtype, delim string
		var array bool
		if err := rows.Scan(&oid, &name, &typtype, &baseOID, &elemOID, &array, &delim); err != nil {
			t.Fatal(err)
		}
		forms[oid] = &form{kind: kindOf(name, typtype), delim: delim}
		if typtype == "d" {
			base[oid] = baseOID
		} else if array && name[0] == '_' || array && delim == ";" {
			forms[oid].kind, elem[oid] = "array", elemOID
		}
	}
	if rows.Err() != nil {
		t.Fatal(rows.Err())
	}
	for oid := range base {
		last := oid
		for base[last] != 0 {
			last = base[last]
		}
		if elem[last] != 0 {
			elem[oid] = elem[last]
		}
		*forms[oid] = *forms[last]
	}
	for oid, e := range elem {
		forms[oid].elem = forms[e]
	}
	return forms
}

func kindOf(name, typtype string) string {
	switch {
	case typtype != "b":
		return "text"
	case name == "json" || name == "jsonb":
		return "json"
	case name == "bytea" || name == "hstore" || name == "vector":
		return name
	case slices.Contains([]string{"bool", "int2", "int4", "int8", "float4", "float8"}, name):
		return "raw"
	}
	return "text"
}

// text makes Postgres' text of a value as it came.
func (f *form) text(c cell) (text string, null bool, err error) {
	switch {
	case f.kind == "json" && !c.jsonNull && strings.TrimSpace(c.json) == "null":
		return "", true, nil
	case f.kind == "json":
		return c.json, false, nil
	case c.json == "null":
		return "", true, nil
	case strings.HasPrefix(c.json, `"`):
		text, err = unquote(c.json)
		if err == nil && f.kind == "bytea" {
			var b []byte
			b, err = base64.StdEncoding.DecodeString(text)
			text = `\x` + hex.EncodeToString(b)
		}
		return text, false, err
	case f.kind == "raw" || f.kind == "vector":
		return c.json, false, nil
	case f.kind == "array":
		text, err = f.array(c.json)
		return text, false, err
	case f.kind == "hstore":
		text, err = hstoreText(c.json)
		return text, false, err
	}
	return "", false, fmt.Errorf("the contract writes this type as a string")
}

// array makes an array's text. Where an element can itself begin with a bracket
// (json, vectors) the JSON does not tell its dimensions: it is read as one.
func (f *form) array(json string) (string, error) {
	items, err := splitItems([]byte(json), '[', ']')
	if err != nil {
		return "", err
	}
	texts := make([]string, len(items))
	for i, item := range items {
		if strings.HasPrefix(item, "[") && !slices.Contains([]string{"json", "vector", "array"}, f.elem.kind) {
			if texts[i], err = f.array(item); err != nil {
				return "", err
			}
			continue
		}
		text, null, err := f.elem.text(cell{json: item})
		if err != nil {
			return "", err
		}
		if texts[i] = "NULL"; !null {
			texts[i] = quoteIn(text)
		}
	}
	return "{" + strings.Join(texts, f.delim) + "}", nil
}

func quoteIn(text string) string {
	return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(text) + `"`
}

func hstoreText(json string) (string, error) {
	pairs, err := splitObject([]byte(json))
	if err != nil {
		return "", err
	}
	texts := make([]string, len(pairs))
	for i, p := range pairs {
		value := "NULL"
		if p.value != "null" {
			if value, err = unquote(p.value); err != nil {
				return "", err
			}
			value = quoteIn(value)
		}
		texts[i] = quoteIn(p.name) + "=>" + value
	}
	return strings.Join(texts, ", "), nil
}

func unquote(s string) (out string, err error) {
	err = json.Unmarshal([]byte(s), &out)
	return out, err
}
