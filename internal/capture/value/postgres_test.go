package value

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5"

	"lockstep/internal/pgdb/pgtest"
)

func TestMain(m *testing.M) { pgtest.Main(m) }

// pinned is what capture sets in its session.
func pinned() []string {
	return []string{
		"SET datestyle = 'ISO'", "SET intervalstyle = 'postgres'", "SET timezone = 'UTC'",
		"SET extra_float_digits = 3", "SET bytea_output = 'hex'",
	}
}

// hostile is what a database may have set, all of which pinning must undo.
func hostile() []string {
	return []string{
		`DO $$ BEGIN EXECUTE format('ALTER DATABASE %I SET datestyle = ''SQL, DMY''', current_database()); END $$`,
		`DO $$ BEGIN EXECUTE format('ALTER DATABASE %I SET intervalstyle = ''iso_8601''', current_database()); END $$`,
		`DO $$ BEGIN EXECUTE format('ALTER DATABASE %I SET timezone = ''Asia/Kathmandu''', current_database()); END $$`,
		`DO $$ BEGIN EXECUTE format('ALTER DATABASE %I SET extra_float_digits = -5', current_database()); END $$`,
		`DO $$ BEGIN EXECUTE format('ALTER DATABASE %I SET bytea_output = ''escape''', current_database()); END $$`,
	}
}

func schema() []string {
	return []string{
		`CREATE EXTENSION hstore`,
		`CREATE EXTENSION citext`,
		// A stand-in for pgvector, which has the same text: a base type of that name.
		`CREATE TYPE vector`,
		`CREATE FUNCTION vector_in(cstring) RETURNS vector AS 'textin' LANGUAGE internal IMMUTABLE STRICT`,
		`CREATE FUNCTION vector_out(vector) RETURNS cstring AS 'textout' LANGUAGE internal IMMUTABLE STRICT`,
		`CREATE TYPE vector (INPUT = vector_in, OUTPUT = vector_out, LIKE = text)`,
		`CREATE TYPE mood AS ENUM ('glad', 'so "so"', 'sad')`,
		`ALTER TYPE mood ADD VALUE 'later'`,
		`ALTER TYPE mood RENAME VALUE 'sad' TO 'blue'`,
		`CREATE TYPE pair AS (a int, b text)`,
		`CREATE DOMAIN positive AS int CHECK (value > 0)`,
		`CREATE DOMAIN nested AS positive`,
		`CREATE DOMAIN ids AS int[]`,
		`CREATE DOMAIN doc AS jsonb`,
		`CREATE TABLE plain (id int, t text)`,
		`CREATE TABLE other (id int, t text)`,
		`CREATE DOMAIN others AS other[]`,
	}
}

// expectations is the value table of the contract: an SQL expression and the JSON
// that its value becomes.
func expectations() []struct{ sql, want string } {
	return slices.Concat(numbers(), documents(), times(), textual(), nestedValues())
}

func numbers() []struct{ sql, want string } {
	return []struct{ sql, want string }{
		{`true`, `true`},
		{`false`, `false`},
		{`'-32768'::int2`, `-32768`},
		{`'-2147483648'::int4`, `-2147483648`},
		{`'9223372036854775807'::int8`, `9223372036854775807`},
		{`'-9223372036854775808'::int8`, `-9223372036854775808`},
		{`12.50`, `"12.50"`},
		{`'1e-30'::numeric`, `"0.000000000000000000000000000001"`},
		{`12345678901234567890.123456789012345678901234567890`, `"12345678901234567890.123456789012345678901234567890"`},
		{`'NaN'::numeric`, `"NaN"`},
		{`'Infinity'::numeric`, `"Infinity"`},
		{`'-Infinity'::numeric`, `"-Infinity"`},
		{`100::numeric(10, 4)`, `"100.0000"`},
		{`'0.1'::float8`, `0.1`},
		{`'0.1'::float4`, `0.1`},
		{`1.0::float8 / 3`, `0.3333333333333333`},
		{`'-0'::float8`, `-0`},
		{`'1e300'::float8`, `1e+300`},
		{`'5e-324'::float8`, `5e-324`},
		{`'NaN'::float8`, `"NaN"`},
		{`'Infinity'::float4`, `"Infinity"`},
		{`'-Infinity'::float8`, `"-Infinity"`},
		{`4294967295::oid`, `"4294967295"`},
		{`'$1,234.50'::money`, `"$1,234.50"`},
	}
}

func documents() []struct{ sql, want string } {
	return []struct{ sql, want string }{
		{`'{"b": 1.10, "a": 123456789012345678901234567890, "b": 1e400}'::json`, `{"b": 1.10, "a": 123456789012345678901234567890, "b": 1e400}`},
		{`E'{"a"\n:\t[1 ,2]}'::json`, "{\"a\"\n:\t[1 ,2]}"},
		{`'"\ud800 \u0000"'::json`, `"\ud800 \u0000"`},
		{`'{"b": 1.10, "a": 123456789012345678901234567890, "b": 2}'::jsonb`, `{"a": 123456789012345678901234567890, "b": 2}`},
		{`'1e20'::jsonb`, `100000000000000000000`},
		{`'"text \u00e9"'::jsonb`, `"text é"`},
		{`'true'::jsonb`, `true`},
		{`'null'::jsonb`, `null`},
		{`'{"a": 1}'::doc`, `{"a": 1}`},
		{`repeat('[', 1000)::text || repeat(']', 1000)`, `"` + repeated("[", 1000) + repeated("]", 1000) + `"`},
		{`(repeat('[', 1000) || repeat(']', 1000))::jsonb`, repeated("[", 1000) + repeated("]", 1000)},
	}
}

func times() []struct{ sql, want string } {
	return []struct{ sql, want string }{
		{`'2026-11-21 10:00:00.123456+02'::timestamptz`, `"2026-11-21T08:00:00.123456Z"`},
		{`'2026-11-21 10:00:00+00'::timestamptz`, `"2026-11-21T10:00:00.000000Z"`},
		{`'2026-11-21 10:00:00.1'::timestamp`, `"2026-11-21T10:00:00.100000"`},
		{`'0001-01-01 00:00:00'::timestamp`, `"0001-01-01T00:00:00.000000"`},
		{`'9999-12-31 23:59:59.999999+00'::timestamptz`, `"9999-12-31T23:59:59.999999Z"`},
		{`'10000-01-01 00:00:00+00'::timestamptz`, `"10000-01-01 00:00:00+00"`},
		{`'294276-12-31 23:59:59.999999'::timestamp`, `"294276-12-31 23:59:59.999999"`},
		{`'4714-11-24 00:00:00+00 BC'::timestamptz`, `"4714-11-24 00:00:00+00 BC"`},
		{`'0044-03-15 12:00:00.5 BC'::timestamp`, `"0044-03-15 12:00:00.5 BC"`},
		{`'infinity'::timestamptz`, `"infinity"`},
		{`'-infinity'::timestamp`, `"-infinity"`},
		{`'2026-11-21'::date`, `"2026-11-21"`},
		{`'infinity'::date`, `"infinity"`},
		{`'0044-03-15 BC'::date`, `"0044-03-15 BC"`},
		{`'5874897-12-31'::date`, `"5874897-12-31"`},
		{`'24:00:00'::time`, `"24:00:00"`},
		{`'23:59:59.999999'::time`, `"23:59:59.999999"`},
		{`'10:00:00+15:59:59'::timetz`, `"10:00:00+15:59:59"`},
		{`'1 year 2 mons -3 days +04:05:06.7'::interval`, `"1 year 2 mons -3 days +04:05:06.7"`},
	}
}

func textual() []struct{ sql, want string } {
	return []struct{ sql, want string }{
		{`'a'::char(5)`, `"a    "`},
		{`'a'::"char"`, `"a"`},
		{`'n'::name`, `"n"`},
		{`E'tab\tquote"back\\slash\x01\x7f'::text`, `"tab\tquote\"back\\slash\u0001` + "\x7f" + `"`},
		{`'😀 漢字 ' || chr(8232)`, "\"😀 漢字 \u2028\""},
		{`''::text`, `""`},
		{`'Case'::citext`, `"Case"`},
		{`'\x00ff10'::bytea`, `"AP8Q"`},
		{`'\x'::bytea`, `""`},
		{`'so "so"'::mood`, `"so \"so\""`},
		{`'later'::mood`, `"later"`},
		{`'blue'::mood`, `"blue"`},
		{`'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11'::uuid`, `"a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11"`},
		{`'10.0.0.1'::inet`, `"10.0.0.1"`},
		{`'10.0.0.0/8'::cidr`, `"10.0.0.0/8"`},
		{`'08:00:2b:01:02:03:04:05'::macaddr8`, `"08:00:2b:01:02:03:04:05"`},
		{`B'101'`, `"101"`},
		{`'0101'::varbit`, `"0101"`},
		{`'<a b="c">x</a>'::xml`, `"<a b=\"c\">x</a>"`},
		{`'(1,2)'::point`, `"(1,2)"`},
		{`'((0,0),(1,1))'::box`, `"(1,1),(0,0)"`},
		{`'[1,5)'::int4range`, `"[1,5)"`},
		{`'(,infinity]'::tstzrange`, `"(,infinity]"`},
		{`'{[1,2),[5,)}'::int4multirange`, `"{[1,2),[5,)}"`},
		{`to_tsvector('simple', 'it''s a b')`, `"'a':3 'b':4 'it':1 's':2"`},
		{`ROW(1, 'a "b", c')::pair`, `"(1,\"a \"\"b\"\", c\")"`},
		{`ROW(1, NULL)::plain`, `"(1,)"`},
		{`'1 2 3'::int2vector`, `"1 2 3"`},
		{`'1 2'::oidvector`, `"1 2"`},
		{`'16/B374D848'::pg_lsn`, `"16/B374D848"`},
		{`'[1,2.5,-3e-05]'::vector`, `[1,2.5,-3e-05]`},
		{`''::hstore`, `{}`},
		{`hstore(ARRAY['a', NULL, 'q"\', E'l\n']) || 'n=>1'`, `{"a":null,"n":"1","q\"\\":"l\n"}`},
	}
}

func nestedValues() []struct{ sql, want string } {
	return []struct{ sql, want string }{
		{`'{}'::int[]`, `[]`},
		{`'{1,NULL,3}'::int[]`, `[1,null,3]`},
		{`'{{1,2},{3,NULL}}'::int8[]`, `[[1,2],[3,null]]`},
		{`'{{{{{{1}}}}}}'::int2[]`, `[[[[[[1]]]]]]`},
		{`'[0:2]={1,2,3}'::int[]`, `"[0:2]={1,2,3}"`},
		{`'[1:1][0:1]={{1,2}}'::int[]`, `"[1:1][0:1]={{1,2}}"`},
		{`ARRAY['a', NULL, 'NULL', 'null', '', 'b c', 'q"\', '{x}', 'a,b', E'l\n', 'é']`,
			`["a",null,"NULL","null","","b c","q\"\\","{x}","a,b","l\n","é"]`},
		{`ARRAY[1.50, 'NaN']`, `["1.50","NaN"]`},
		{`'{1.5,NaN,-Infinity}'::float8[]`, `[1.5,"NaN","-Infinity"]`},
		{`'{t,f}'::bool[]`, `[true,false]`},
		{`ARRAY['\x00ff'::bytea, '\x']`, `["AP8=",""]`},
		{`ARRAY['{"a": [1.10, "x\\\"y"]}'::jsonb, 'null', NULL]`, `[{"a": [1.10, "x\\\"y"]},null,null]`},
		{`ARRAY['{ "b":1,"b":2 }'::json]`, `[{ "b":1,"b":2 }]`},
		{`ARRAY['2026-11-21 10:00:00+00'::timestamptz, 'infinity', NULL]`, `["2026-11-21T10:00:00.000000Z","infinity",null]`},
		{`ARRAY['2026-11-21'::date]`, `["2026-11-21"]`},
		{`ARRAY['((0,0),(1,1))'::box, '((2,2),(3,3))']`, `["(1,1),(0,0)","(3,3),(2,2)"]`},
		{`ARRAY['glad'::mood, 'so "so"']`, `["glad","so \"so\""]`},
		{`ARRAY[ROW(1, 'a,b')::pair, NULL]`, `["(1,\"a,b\")",null]`},
		{`ARRAY[ROW(1, 'x')::plain]`, `["(1,x)"]`},
		{`ARRAY[ROW(1, 'x')::other]::others`, `["(1,x)"]`},
		{`ARRAY['[1,3)'::int4range]`, `["[1,3)"]`},
		{`ARRAY['[1,2]'::vector, '[3]']`, `[[1,2],[3]]`},
		{`ARRAY['a=>1'::hstore, NULL]`, `[{"a":"1"},null]`},
		{`7::positive`, `7`},
		{`7::nested`, `7`},
		{`ARRAY[7]::nested[]`, `[7]`},
		{`'{1,2}'::ids`, `[1,2]`},
		{`'{"{1,2}","{}",NULL}'::ids[]`, `[[1,2],[],null]`},
		{`ARRAY['1 2'::int2vector]`, `["1 2"]`},
	}
}

func repeated(s string, n int) string {
	b := make([]byte, 0, n*len(s))
	for range n {
		b = append(b, s...)
	}
	return string(b)
}

func connect(t *testing.T, url string) *pgx.Conn {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := conn.Close(context.Background()); err != nil {
			t.Error(err)
		}
	})
	for _, sql := range pinned() {
		if _, err := conn.Exec(t.Context(), sql); err != nil {
			t.Fatal(err)
		}
	}
	return conn
}

// selectText returns the type and the text of one value, as the server writes it.
func selectText(t *testing.T, conn *pgx.Conn, expression string) (uint32, []byte) {
	t.Helper()
	results, err := conn.PgConn().Exec(t.Context(), "SELECT "+expression).ReadAll()
	if err != nil {
		t.Fatalf("%s: %v", expression, err)
	}
	return results[0].FieldDescriptions[0].DataTypeOID, results[0].Rows[0][0]
}

func TestValuesOfARealPostgres(t *testing.T) {
	t.Parallel()
	url := pgtest.Database(t)
	pgtest.Exec(t, url, hostile()...)
	pgtest.Exec(t, url, schema()...)
	conn, types := connect(t, url), connect(t, url)
	queries := 0
	catalog := NewCatalog(func(ctx context.Context, asked []uint32) ([]Type, error) {
		queries++
		return FetchTypes(ctx, types, asked)
	}, Options{})
	for _, e := range expectations() {
		oid, text := selectText(t, conn, e.sql)
		encoder, err := catalog.Encoder(t.Context(), oid)
		if err != nil {
			t.Fatal(err)
		}
		got, note := encoder.Append(nil, text)
		if diff := cmp.Diff(e.want, string(got)); diff != "" {
			t.Errorf("%s, text %s (-want +got):\n%s", e.sql, text, diff)
		}
		if note&^NoteJSONNull != 0 || (note == NoteJSONNull) != (e.sql == `'null'::jsonb`) {
			t.Errorf("%s: note %b", e.sql, note)
		}
		if !json.Valid(got) {
			t.Errorf("%s: %s is not JSON", e.sql, got)
		}
	}
	// One for all types, one for the row type of a table and one for its array.
	if queries != 3 {
		t.Errorf("%d queries of pg_type", queries)
	}
}

func TestTypeCreatedWhileRunning(t *testing.T) {
	t.Parallel()
	conn := connect(t, pgtest.Database(t))
	catalog := NewCatalog(func(ctx context.Context, asked []uint32) ([]Type, error) {
		return FetchTypes(ctx, conn, asked)
	}, Options{})
	for i := range 3 {
		name := fmt.Sprintf("t%d", i)
		if _, err := conn.Exec(t.Context(), "CREATE DOMAIN "+name+" AS int"); err != nil {
			t.Fatal(err)
		}
		oid, text := selectText(t, conn, "ARRAY[7::"+name+"]")
		encoder, err := catalog.Encoder(t.Context(), oid)
		if err != nil {
			t.Fatal(err)
		}
		if got, _ := encoder.Append(nil, text); string(got) != "[7]" {
			t.Errorf("%s: %s", name, got)
		}
	}
}

// TestBuiltinsAgreeWithPostgres: the table in the code says what pg_type says.
func TestBuiltinsAgreeWithPostgres(t *testing.T) {
	t.Parallel()
	conn := connect(t, pgtest.Database(t))
	types, err := FetchTypes(t.Context(), conn, nil)
	if err != nil {
		t.Fatal(err)
	}
	known := builtins(Options{})
	for _, typ := range types {
		const firstAssigned = 10000 // oids from here on differ from version to version
		if typ.OID >= firstAssigned || typ.Kind == "p" || typ.Kind == "c" {
			continue
		}
		s, ok := known[typ.OID]
		if !ok {
			t.Errorf("type %d %s is missing", typ.OID, typ.Name)
			continue
		}
		if isArray := s.kind == kindArray; isArray != (typ.Elem != 0) {
			t.Errorf("type %d %s: array %t, its element is %d", typ.OID, typ.Name, isArray, typ.Elem)
		} else if isArray && (s.elem != known[typ.Elem] || s.delim != typ.ElemDelim[0]) {
			t.Errorf("type %d %s: elements are of type %d, separated by %q", typ.OID, typ.Name, typ.Elem, typ.ElemDelim)
		}
	}
}

// TestFieldsOfARealRow: rows that travel as ROW(...)::text come apart into the
// same texts that their columns have by themselves.
func TestFieldsOfARealRow(t *testing.T) {
	t.Parallel()
	conn := connect(t, pgtest.Database(t))
	list := `1, NULL::text, '', 'a "b" \ (c), d', ARRAY['x y', NULL, '"'], '\x00ff'::bytea, '{"a": "b\"c"}'::jsonb, ROW(1, 'x "y"', NULL), 'a'::char(4), '10.0.0.1'::inet`
	results, err := conn.PgConn().Exec(t.Context(), "SELECT "+list).ReadAll()
	if err != nil {
		t.Fatal(err)
	}
	_, row := selectText(t, conn, "ROW("+list+")::text")
	fields, err := AppendFields(nil, row)
	if err != nil {
		t.Fatal(err)
	}
	got := make([]string, len(fields))
	want := make([]string, len(results[0].Rows[0]))
	for i, f := range fields {
		got[i] = fmt.Sprint(f.Null, string(f.Text))
	}
	for i, text := range results[0].Rows[0] {
		want[i] = fmt.Sprint(text == nil, string(text))
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}
