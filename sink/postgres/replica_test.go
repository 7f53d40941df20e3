package postgres

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"lockstep"
	"lockstep/internal/capture/value"
	"lockstep/internal/pgdb/pgtest"
	"lockstep/sink"
)

func typesDDL() []string {
	return []string{
		`CREATE EXTENSION hstore`,
		`CREATE TYPE vector`,
		`CREATE FUNCTION vector_in(cstring) RETURNS vector AS 'textin' LANGUAGE internal IMMUTABLE STRICT`,
		`CREATE FUNCTION vector_out(vector) RETURNS cstring AS 'textout' LANGUAGE internal IMMUTABLE STRICT`,
		`CREATE TYPE vector (INPUT = vector_in, OUTPUT = vector_out, LIKE = text)`,
		`CREATE TYPE mood AS ENUM ('glad', 'so "so"')`,
		`CREATE TYPE pair AS (a int, b text)`,
		`CREATE DOMAIN positive AS int CHECK (value > 0)`,
		`CREATE DOMAIN ids AS int[]`,
		`CREATE DOMAIN doc AS jsonb`,
		`CREATE SCHEMA "we.ird"`,
		`CREATE TYPE "we.ird"."T""ype" AS ENUM ('x')`,
		`CREATE TABLE orders (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, ` + strings.Join(columnsDDL(), ", ") + `)`,
	}
}

// typed is a type and values of it, as SQL.
type typed struct {
	typ  string
	list []string
}

// values are types and values of each. Every row has the nth value of each.
func values() []typed { return append(scalars(), arrays()...) }

func scalars() []typed {
	return []typed{
		{"boolean", []string{`true`, `false`}},
		{"int2", []string{`-32768`}},
		{"int8", []string{`9223372036854775807`, `-9223372036854775808`}},
		{"numeric", []string{`12.50`, `'NaN'`, `12345678901234567890.123456789012345678901234567890`, `1e-30`, `'-Infinity'`}},
		{"numeric(10,4)", []string{`100`}},
		{"float8", []string{`1.0::float8/3`, `'-0'`, `'5e-324'`, `'NaN'`, `'-Infinity'`}},
		{"float4", []string{`0.1`, `'Infinity'`}},
		{"money", []string{`'$1,234.50'`}},
		{"oid", []string{`4294967295`}},
		{"json", []string{`'{"b": 1.10,  "a":123456789012345678901234567890, "b": 1e400}'`, `E'{"a"\n:\t[1 ,2]}'`, `'null'`, `'"\ud800 \u0000"'`}},
		{"jsonb", []string{`'{"b": 1.10, "a": "x\\y"}'`, `'null'`, `'"text \u00e9"'`, `'[]'`, `'1e20'`}},
		{"doc", []string{`'{"a": 1}'`, `'null'`}},
		{"timestamptz", []string{`'2026-11-21 10:00:00.123456+02'`, `'infinity'`, `'4714-11-24 00:00:00+00 BC'`, `'294276-12-31 23:59:59.999999+00'`}},
		{"timestamp", []string{`'2026-11-21 10:00:00.1'`, `'-infinity'`, `'0044-03-15 12:00:00.5 BC'`, `'0001-01-01'`}},
		{"timestamptz(3)", []string{`'2026-11-21 10:00:00.123456+02'`}},
		{"date", []string{`'2026-11-21'`, `'5874897-12-31'`, `'0044-03-15 BC'`, `'infinity'`}},
		{"time", []string{`'24:00:00'`, `'23:59:59.999999'`}},
		{"timetz", []string{`'10:00:00+15:59:59'`}},
		{"interval", []string{`'1 year 2 mons -3 days +04:05:06.7'`, `'-1 year +2 mons'`}},
		{"char(5)", []string{`'a'`}},
		{"varchar(3)", []string{`'äöü'`, `''`}},
		{`"char"`, []string{`'a'`}},
		{"name", []string{`'n'`}},
		{"text", []string{`E'tab\tquote"back\\slash\x01\x7f\r\n'`, `'😀 漢字 ' || chr(8232)`, `''`, `'NULL'`, `repeat('long', 3000)`}},
		{"bytea", []string{`'\x00ff10'`, `''`, `'\x5c78'`, `decode(repeat('00ff', 5000), 'hex')`}},
		{"mood", []string{`'so "so"'`, `'glad'`}},
		{`"we.ird"."T""ype"`, []string{`'x'`}},
		{"uuid", []string{`'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11'`}},
		{"inet", []string{`'10.0.0.1'`, `'::1/64'`}},
		{"cidr", []string{`'10.0.0.0/8'`}},
		{"macaddr8", []string{`'08:00:2b:01:02:03:04:05'`}},
		{"bit(3)", []string{`B'101'`}},
		{"varbit", []string{`B'0101'`, `B''`}},
		{"xml", []string{`'<a b="c">x</a>'`}},
		{"point", []string{`'(1,2.5)'`}},
		{"box", []string{`'((0,0),(1,1))'`}},
		{"int4range", []string{`'[1,5)'`, `'empty'`}},
		{"tstzrange", []string{`'(,infinity]'`, `'["2026-11-21 10:00:00+02",)'`}},
		{"int4multirange", []string{`'{[1,2),[5,)}'`}},
		{"tsvector", []string{`to_tsvector('simple', 'it''s a b')`}},
		{"pair", []string{`ROW(1, 'a "b", c')`, `ROW(NULL, '')`}},
		{"int2vector", []string{`'1 2 3'`}},
		{"pg_lsn", []string{`'16/B374D848'`}},
		{"vector", []string{`'[1,2.5,-3e-05]'`}},
		{"hstore", []string{`''`, `hstore(ARRAY['a', NULL, 'q"\', E'l\n', 'comma,', '=>']) || 'n=>1'`}},
		{"positive", []string{`7`}},
	}
}

func arrays() []typed {
	return []typed{
		{"int[]", []string{`'{}'`, `'{1,NULL,3}'`, `'{{1,2},{3,NULL}}'`, `'{{{{{{1}}}}}}'`, `'[0:2]={1,2,3}'`}},
		{"text[]", []string{`ARRAY['a', NULL, 'NULL', 'null', '', 'b c', 'q"\', '{x}', 'a,b', E'l\n', 'é']`, `ARRAY[['[', ']'], ['{', '}']]`}},
		{"numeric[]", []string{`ARRAY[1.50, 'NaN']`}},
		{"float8[]", []string{`'{1.5,NaN,-Infinity}'`}},
		{"boolean[]", []string{`'{t,f}'`}},
		{"bytea[]", []string{`ARRAY['\x00ff'::bytea, '', NULL]`, `ARRAY[['\x00'::bytea], ['\xff'::bytea]]`}},
		{"jsonb[]", []string{`ARRAY['{"a": [1.10, "x\\\"y"]}'::jsonb, '[1]', NULL]`}},
		{"json[]", []string{`ARRAY['{ "b":1,"b":2 }'::json]`}},
		{"timestamptz[]", []string{`ARRAY['2026-11-21 10:00:00+00'::timestamptz, 'infinity', NULL]`}},
		{"box[]", []string{`ARRAY['((0,0),(1,1))'::box, '((2,2),(3,3))']`}},
		{"mood[]", []string{`ARRAY['glad'::mood, 'so "so"']`}},
		{"pair[]", []string{`ARRAY[ROW(1, 'a,b')::pair, NULL]`}},
		{"int4range[]", []string{`ARRAY['[1,3)'::int4range]`}},
		{"vector[]", []string{`ARRAY['[1,2]'::vector, '[3]']`}},
		{"hstore[]", []string{`ARRAY['a=>1'::hstore, NULL]`}},
		{"positive[]", []string{`ARRAY[7]::positive[]`}},
		{"ids", []string{`'{1,2}'`, `'{{1},{2}}'`}},
		{"ids[]", []string{`'{"{1,2}","{}",NULL}'`}},
		{"int2vector[]", []string{`ARRAY['1 2'::int2vector]`}},
	}
}

func columnsDDL() []string {
	var list []string
	for i, v := range values() {
		list = append(list, fmt.Sprintf("c%d %s", i, v.typ))
	}
	return append(list, `"Quo""ted, \Column" int`, `twice int GENERATED ALWAYS AS ("Quo""ted, \Column" * 2) STORED`)
}

// fill inserts as many rows as the longest list has values, and one of NULLs.
func fill(t *testing.T, url string) {
	t.Helper()
	for n := range 5 {
		var names, list []string
		for i, v := range values() {
			names = append(names, fmt.Sprintf("c%d", i))
			list = append(list, v.list[n%len(v.list)])
		}
		pgtest.Exec(t, url, fmt.Sprintf(`INSERT INTO orders (%s, "Quo""ted, \Column") VALUES (%s, %d)`, strings.Join(names, ", "), strings.Join(list, ", "), n))
	}
	pgtest.Exec(t, url, `INSERT INTO orders DEFAULT VALUES`)
}

// captured reads a table as capture does: the text of each value becomes JSON by type.
func captured(t *testing.T, url string) []sink.Message {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close(context.Background()) })
	for _, sql := range []string{"SET timezone = 'UTC'", "SET extra_float_digits = 3"} {
		if _, err := conn.Exec(t.Context(), sql); err != nil {
			t.Fatal(err)
		}
	}
	catalog := value.NewCatalog(func(ctx context.Context, asked []uint32) ([]value.Type, error) {
		return value.FetchTypes(ctx, conn, asked)
	}, value.Options{})
	results, err := conn.PgConn().Exec(t.Context(), "SELECT * FROM orders ORDER BY id").ReadAll()
	if err != nil {
		t.Fatal(err)
	}
	var list []sink.Message
	for n, r := range results[0].Rows {
		record, nulls := []byte{'{'}, []string{}
		for i, f := range results[0].FieldDescriptions {
			if i > 0 {
				record = append(record, ',')
			}
			record = append(lockstep.AppendJSONString(record, f.Name), ':')
			if r[i] == nil {
				record = append(record, "null"...)
				continue
			}
			e, err := catalog.Encoder(t.Context(), f.DataTypeOID)
			if err != nil {
				t.Fatal(err)
			}
			var note value.Note
			record, note = e.Append(record, r[i])
			if note&value.NoteJSONNull != 0 {
				nulls = append(nulls, fmt.Sprintf("%q", f.Name))
			}
		}
		m := change(uint64(n+1), lockstep.Insert, string(append(record, '}')))
		m.Body = fmt.Appendf(nil, `{"record":%s,"action":"insert","metadata":{"seq":%d,"json_null":[%s]}}`, m.Record, n+1, strings.Join(nulls, ","))
		list = append(list, m)
	}
	return list
}

func TestAReplicaHasTheSameBytesForEveryType(t *testing.T) {
	t.Parallel()
	source, replica := pgtest.Database(t), pgtest.Database(t)
	pgtest.Exec(t, source, typesDDL()...)
	pgtest.Exec(t, replica, typesDDL()...)
	// Settings of the target must not matter.
	for _, s := range []string{"datestyle = ''SQL, DMY''", "intervalstyle = ''sql_standard''", "timezone = ''Asia/Kathmandu''", "bytea_output = ''escape''"} {
		pgtest.Exec(t, replica, `DO $$ BEGIN EXECUTE format('ALTER DATABASE %I SET `+s+`', current_database()); END $$`)
	}
	fill(t, source)
	messages := captured(t, source)
	p := open(t, Config{URL: replica})
	write(t, p, messages...)
	for i := range values() {
		sql := fmt.Sprintf("SELECT id, c%d FROM orders ORDER BY id", i)
		got, want := asText(t, replica, sql), asText(t, source, sql)
		if got != want {
			t.Errorf("%s: got\n%.500s\nwant\n%.500s", values()[i].typ, got, want)
		}
	}
	same(t, asText(t, replica, `SELECT "Quo""ted, \Column", twice FROM orders ORDER BY id`), asText(t, source, `SELECT "Quo""ted, \Column", twice FROM orders ORDER BY id`))
	write(t, p, messages...)
	if c := p.Counts(); c.Stale != uint64(len(messages)) || c.Written != uint64(len(messages)) {
		t.Errorf("got %+v, want every row written once and stale once", c)
	}
}

// asText reads rows in a session whose settings are pinned.
func asText(t *testing.T, url, sql string) string {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close(context.Background()) }()
	results, err := conn.PgConn().Exec(t.Context(), "SET datestyle = 'ISO'; SET intervalstyle = 'postgres'; SET timezone = 'UTC'; SET bytea_output = 'hex'; "+sql).ReadAll()
	if err != nil {
		t.Fatal(err)
	}
	var b strings.Builder
	for _, r := range results[len(results)-1].Rows {
		for _, v := range r {
			if v == nil {
				b.WriteString("NULL|")
				continue
			}
			fmt.Fprintf(&b, "%q|", v)
		}
		b.WriteByte('\n')
	}
	return b.String()
}
