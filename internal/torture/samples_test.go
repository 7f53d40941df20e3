package torture_test

import (
	"fmt"
	"strings"
)

// sample is a type, and values of it as SQL expressions without the cast.
type sample struct {
	typ    string
	values []string
}

// samples has every type that a column of a table can have. The case fails when the
// server knows one that is missing here.
func samples() []sample {
	return append(append(append(numericSamples(), textSamples()...), timeSamples()...), append(oddSamples(), nestedSamples()...)...)
}

func numericSamples() []sample {
	return []sample{
		{"bool", []string{`true`, `false`}},
		{"int2", []string{`'-32768'`, `0`, `32767`}},
		{"int4", []string{`'-2147483648'`, `2147483647`}},
		{"int8", []string{`'-9223372036854775808'`, `9223372036854775807`, `9007199254740993`}},
		{"numeric", []string{`0`, `12.50`, `'NaN'`, `'Infinity'`, `'-Infinity'`, `'-0.000'`, `repeat('9', 5000) || '.' || repeat('1', 3000)`, `'1e-30'`, `123456789012345.12345`}},
		{"numeric(20,5)", []string{`123456789012345.12345`, `1`, `'NaN'`, `-0.00001`}},
		{"float4", []string{`'0.1'`, `'NaN'`, `'Infinity'`, `'-Infinity'`, `'-0'`, `'3.4028235e38'`, `'1e-45'`}},
		{"float8", []string{`'0.1'`, `1.0/3`, `'NaN'`, `'Infinity'`, `'-Infinity'`, `'-0'`, `'1.7976931348623157e308'`, `'5e-324'`, `123456789012345680`}},
		{"money", []string{`'$1,234.50'`, `'-$0.01'`, `'92233720368547758.07'`}},
		{"oid", []string{`0`, `4294967295`}},
		{"xid", []string{`'4294967295'`}},
		{"xid8", []string{`'18446744073709551615'`}},
		{"cid", []string{`'4294967295'`}},
		{"tid", []string{`'(4294967295,65535)'`}},
		{"bit", []string{`B'1'`, `B'0'`}},
		{"bit(5)", []string{`B'10110'`}},
		{"varbit", []string{`B''`, `B'101'`}},
		{"pg_lsn", []string{`'16/B374D848'`, `'FFFFFFFF/FFFFFFFF'`}},
	}
}

// characters are every code point below 256 but NUL, and some above the first plane.
func characters() string {
	var b strings.Builder
	for i := 1; i < 256; i++ {
		fmt.Fprintf(&b, "chr(%d)||", i)
	}
	return "(" + b.String() + "'😀 漢字 ' || chr(8232) || chr(65533) || chr(1114109))"
}

func textSamples() []sample {
	return []sample{
		{"text", []string{`''`, `'null'`, `'NULL'`, `'\N'`, `'\.'`, characters(), `repeat('long ', 5000)`, `E' \t\n\r '`, `'"}],{['`}},
		{"varchar", []string{`''`, `'a "b" \'`}},
		{"varchar(3)", []string{`'äöü'`}},
		{"bpchar", []string{`'a   '`, `''`}},
		{"char(5)", []string{`'a'`, `'é'`, `''`}},
		{`"char"`, []string{`'a'`, `''`, `'"'`, `'\'`}},
		{"name", []string{`'n'`, `repeat('ü', 31)`}},
		{"citext", []string{`'CaSe'`, `''`}},
		{"bytea", []string{`'\x'`, `'\x00'`, `'\x00ff10'`, `decode(repeat('00ff5c22270a', 1000), 'hex')`, `'\x5c78'`}},
		{"uuid", []string{`'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11'`, `'00000000-0000-0000-0000-000000000000'`}},
		{"xml", []string{`'<a b="c">x &amp; y</a>'`, `''`, `E'<?xml version="1.0"?>\n<a/>'`}},
		{"tsvector", []string{`'''a b'':1A,3 c:2 ''it''''s'''`, `''`}},
		{"tsquery", []string{`'a & !(b | c:*) <-> d'`, `''`}},
		{"jsonpath", []string{`'$.a[*] ? (@ > 1.10)'`, `'strict $'`}},
		{"ltree", []string{`'a.b.c'`, `''`}},
		{"lquery", []string{`'*.a*@|b.!c{1,2}'`}},
		{"ltxtquery", []string{`'a & (b | !c)'`}},
		{"refcursor", []string{`'c'`}},
		{"aclitem", []string{`'=r/postgres'`}},
		{"mood", []string{`'glad'`, `'so "so", it''s {\}'`, `'later'`, `'blue'`}},
	}
}

func timeSamples() []sample {
	return []sample{
		{"timestamptz", []string{`'2026-11-21 10:00:00.123456+02'`, `'infinity'`, `'-infinity'`, `'0044-03-15 12:00:00.5+00 BC'`, `'4714-11-24 00:00:00+00 BC'`,
			`'294276-12-31 23:59:59.999999+00'`, `'10000-01-01 00:00:00+00'`, `'1582-10-10 00:00:00+00'`, `'0001-01-01 00:00:00+00'`}},
		{"timestamp", []string{`'2026-11-21 10:00:00'`, `'infinity'`, `'-infinity'`, `'0044-03-15 12:00:00 BC'`, `'294276-12-31 23:59:59.999999'`, `'2026-11-21 10:00:00.1'`}},
		{"timestamp(0)", []string{`'2026-11-21 10:00:00.6'`}},
		{"date", []string{`'2026-11-21'`, `'infinity'`, `'-infinity'`, `'0044-03-15 BC'`, `'5874897-12-31'`, `'4714-11-24 BC'`}},
		{"time", []string{`'24:00:00'`, `'23:59:59.999999'`, `'00:00:00.1'`}},
		{"timetz", []string{`'24:00:00-15:59:59'`, `'10:00:00.5+15:59:59'`, `'00:00:00Z'`}},
		{"interval", []string{`'1 year 2 mons -3 days +04:05:06.7'`, `'-178000000 years'`, `'0'`, `'-1 mon +1 day -00:00:00.000001'`, `'2147483647:59:59.999999'`}},
		{"interval day to second(3)", []string{`'1 day 2:03:04.5678'`}},
	}
}

// The name of the first type of each registry is one that every version has.
func oddSamples() []sample {
	return []sample{
		{"point", []string{`'(1.5,-2)'`, `'(Infinity,NaN)'`, `'(-0,1e-300)'`}},
		{"lseg", []string{`'[(0,0),(1,1)]'`}},
		{"path", []string{`'((0,0),(1,1))'`, `'[(0,0),(1,1)]'`}},
		{"box", []string{`'((0,0),(1,1))'`, `'(2,2),(-3,-3)'`}},
		{"polygon", []string{`'((0,0),(1,1),(1,0))'`}},
		{"line", []string{`'{1,-1,0}'`}},
		{"circle", []string{`'<(0,0),1.5>'`}},
		{"inet", []string{`'10.0.0.1'`, `'10.1.2.3/8'`, `'::ffff:1.2.3.4/64'`}},
		{"cidr", []string{`'10.0.0.0/8'`, `'2001:db8::/32'`, `'0.0.0.0/0'`}},
		{"macaddr", []string{`'08:00:2b:01:02:03'`}},
		{"macaddr8", []string{`'08:00:2b:01:02:03:04:05'`}},
		{"regproc", []string{`'version'`, `'-'`}},
		{"regprocedure", []string{`'abs(integer)'`}},
		{"regoper", []string{`'||/'`}},
		{"regoperator", []string{`'+(integer,integer)'`}},
		{"regclass", []string{`'pg_class'`, `'"we.ird ""x"""'`, `'-'`}},
		{"regtype", []string{`'integer'`, `'mood[]'`}},
		{"regrole", []string{`'pg_monitor'`}},
		{"regnamespace", []string{`'public'`}},
		{"regconfig", []string{`'simple'`}},
		{"regdictionary", []string{`'simple'`}},
		{"regcollation", []string{`'"C"'`}},
		{"pg_snapshot", []string{`'10:20:10,14,15'`}},
		{"txid_snapshot", []string{`'10:20:10,14,15'`}},
		{"cube", []string{`'(1,2),(3,4.5)'`, `'(-0)'`, `cube(array[]::float8[])`}},
		{"earth", []string{`ll_to_earth(52.5, 13.4)`}},
		{"seg", []string{`'1.50 .. 2'`, `'~6.5'`, `'<5'`}},
		{"isbn", []string{`'978-0-393-04002-9'`}},
		{"isbn13", []string{`'978-0-393-04002-9'`}},
		{"ismn", []string{`'979-0-060-11561-5'`}},
		{"ismn13", []string{`'979-0-060-11561-5'`}},
		{"issn", []string{`'1436-4522'`}},
		{"issn13", []string{`'977-1436-452-00-8'`}},
		{"upc", []string{`'220356483481'`}},
		{"ean13", []string{`'220-356483481-6'`}},
		{"lo", []string{`4294967295`}},
		{"query_int", []string{`'1&(2|!3)'`}},
	}
}

func nestedSamples() []sample {
	const tail = `" \ , ( ) {é`
	return []sample{
		{"json", []string{`'{"b": 1.10, "a": 123456789012345678901234567890, "b": 1e400}'`, `E'\n{"a"\n:\t[1 ,2 ]}  '`, `' null '`, `'"\ud800 \u0000"'`, `'0'`, `'""'`, `'[]'`}},
		{"jsonb", []string{`'{"b": 1.10, "a": 12345678901234567890.10, "é": "\\\" "}'`, `'null'`, `'1e40'`, `'"text"'`, `'true'`, `'[[]]'`}},
		{"doc", []string{`'{"a": [1.10]}'`, `'null'`}},
		{"hstore", []string{`''`, `hstore(ARRAY['a', NULL, 'q"\', E'l\n', '', '', 'NULL', 'NULL'])`}},
		{"positive", []string{`7`}},
		{"ids", []string{`'{1,NULL,2}'`, `'{}'`, `'[0:1]={1,2}'`}},
		{"pair", []string{`ROW(1, '` + tail + `')`, `ROW(NULL, NULL)`, `ROW(1, '')`}},
		{"outer_pair", []string{`ROW(ROW(1, '` + tail + `'), ARRAY[ROW(2, 'x"')::pair, NULL])`}},
		{"int4range", []string{`'[1,5)'`, `'empty'`, `'(,)'`}},
		{"int8range", []string{`'[-9223372036854775808,)'`}},
		{"numrange", []string{`'(1.10,2.200]'`, `'[-Infinity,NaN)'`}},
		{"tsrange", []string{`'[-infinity,2026-11-21 10:00)'`}},
		{"tstzrange", []string{`'(,infinity]'`, `'["0044-01-01 00:00+00 BC",)'`}},
		{"daterange", []string{`'[2026-11-21,infinity]'`}},
		{"textrange", []string{`textrange('a "b', 'c\,')`}},
		{"int4multirange", []string{`'{[1,2),[5,)}'`, `'{}'`}},
		{"int8multirange", []string{`'{(,)}'`}},
		{"nummultirange", []string{`'{(1.10,2.200],[5,Infinity]}'`}},
		{"tsmultirange", []string{`'{[-infinity,2026-11-21 10:00)}'`}},
		{"tstzmultirange", []string{`'{(,infinity]}'`}},
		{"datemultirange", []string{`'{[2026-11-21,2026-11-22)}'`}},
		{"textmultirange", []string{`textmultirange(textrange('a "b', 'c\,'))`}},
		{"int2vector", []string{`'1 2 3'`, `''`}},
		{"oidvector", []string{`'1 4294967295'`}},
	}
}

// sampleSchema makes the types that are not built in.
func sampleSchema() []string {
	return []string{
		"CREATE EXTENSION hstore", "CREATE EXTENSION citext", "CREATE EXTENSION ltree", "CREATE EXTENSION cube", "CREATE EXTENSION earthdistance",
		"CREATE EXTENSION seg", "CREATE EXTENSION isn", "CREATE EXTENSION lo", "CREATE EXTENSION intarray",
		`CREATE TYPE mood AS ENUM ('glad', 'so "so", it''s {\}', 'sad')`, `ALTER TYPE mood ADD VALUE 'later'`, `ALTER TYPE mood RENAME VALUE 'sad' TO 'blue'`,
		`CREATE TYPE pair AS (a int, b text)`, `CREATE TYPE outer_pair AS (p pair, q pair[])`,
		`CREATE DOMAIN positive AS int CHECK (value > 0)`, `CREATE DOMAIN ids AS int[]`, `CREATE DOMAIN doc AS jsonb`,
		`CREATE TYPE textrange AS RANGE (subtype = text)`, `CREATE SCHEMA unwatched`, `CREATE TABLE unwatched."we.ird ""x""" (id int)`,
		`SET search_path = public, unwatched; ALTER TABLE unwatched."we.ird ""x""" SET SCHEMA public; DROP TABLE public."we.ird ""x"""; CREATE VIEW public."we.ird ""x""" AS SELECT 1`,
	}
}
