package match_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
	"go.uber.org/goleak"
	"pgregory.net/rapid"

	"lockstep/internal/capture/value"
	"lockstep/internal/pgdb/pgtest"
	"lockstep/internal/realtime/match"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(pgtest.Suite{M: m}) }

// column is a column of the table that filters are tried on, with texts that are
// values of its type, and some that are not.
type column struct {
	name, typname, sql string
	values             []string
	wrong              []string
	text, unordered    bool
}

func columns() []column {
	texts := []string{"", "a", "A", "ab", "a b", "b", "abc", `a,b`, `a"b`, `a\b`, "a%", "a_c", "(x)", "null", "NULL", "élan", "12", "1.0", "a\nb", " a", "a "}
	return []column{
		{"t", "text", "text", texts, nil, true, false},
		{"v", "varchar", "varchar(9)", texts, nil, true, false},
		{"n", "name", "name", texts, nil, true, false},
		{"c", "bpchar", "char(5)", []string{"", "a", "ab", "b", "abcde", "a b", "A"}, nil, true, false},
		{"ci", "citext", "citext", []string{"a", "A", "ab", "AB", "b"}, nil, true, false},
		{"i2", "int2", "int2", []string{"0", "1", "-1", "32767", "-32768", " 7 ", "+5"}, []string{"x", "1.5", "", "40000"}, false, false},
		{"i4", "int4", "int4", []string{"0", "1", "-1", "2147483647", "100"}, []string{"x", "1.5", "", "2147483648", "--1"}, false, false},
		{"i8", "int8", "int8", []string{"0", "1", "9007199254740993", "9007199254740992", "-9223372036854775808"}, []string{"9223372036854775808"}, false, false},
		{"o", "oid", "oid", []string{"0", "1", "4294967295", "16384"}, []string{"x"}, false, false},
		{"d", "numeric", "numeric", []string{"0", "0.00", "-0.1", "1", "1.0", "1.00", "10", "1e1", "12345678901234567890.123", "12345678901234567890.124", "NaN", "Infinity", "-Infinity", "1e-30", ".5", "5."}, []string{"x", "1..2", "", "1e", "-NaN"}, false, false},
		{"f4", "float4", "float4", []string{"0", "-0", "0.1", "1.1", "NaN", "Infinity", "-Infinity", "1e30", "16777217"}, []string{"x", "1e99", ""}, false, false},
		{"f8", "float8", "float8", []string{"0", "-0", "0.1", "1.1", "NaN", "inf", "-Infinity", "1e300", "16777217"}, []string{"x", "1e999", "0x"}, false, false},
		{"b", "bool", "bool", []string{"t", "f", "true", "FALSE", "yes", "no", "1", "0", "on", "off", "tr"}, []string{"x", "o", "", "2"}, false, false},
		{"u", "uuid", "uuid", []string{"0191f0a0-0000-7000-8000-000000000001", "0191F0A0-0000-7000-8000-000000000001", "{a0eebc999c0b4ef8bb6d6bb9bd380a11}", "00000000-0000-0000-0000-000000000000"}, []string{"x", "0191f0a0"}, false, false},
		{"dt", "date", "date", []string{"2026-11-21", "2026-11-22", "1999-12-31", "2000-02-29", "0044-03-15 BC", "infinity", "-infinity", "12026-01-01", "2026-11-21 10:00"}, []string{"x", "2026-02-30", "2026-13-01", "1900-02-29"}, false, false},
		{"ts", "timestamp", "timestamp", []string{"2026-11-21", "2026-11-21T10:00:00", "2026-11-21 10:00:00.000001", "2026-11-21 10:00:00+05", "infinity", "-infinity", "0044-03-15 10:00:00 BC", "12026-01-01 00:00:00", "1969-12-31 23:59:59.999999", "2026-11-21 24:00:00"}, []string{"x", "2026-11-21 25:00"}, false, false},
		{"tz", "timestamptz", "timestamptz", []string{"2026-11-21", "2026-11-21T10:00:00Z", "2026-11-21T12:00:00+02:00", "2026-11-21 10:00:00.000001+00", "2026-11-21 04:30-0530", "infinity", "-infinity", "0044-03-15 10:00:00+00 BC"}, []string{"x"}, false, false},
		{"tm", "time", "time", []string{"00:00", "10:00:00", "10:00:00.5", "23:59:59.999999", "24:00:00"}, []string{"x", "25:00"}, false, false},
		{"by", "bytea", "bytea", []string{`\x`, `\x00`, `\x00ff`, `\xFF`, "abc"}, []string{`\xz`, `\x0`}, false, false},
		{"jb", "jsonb", "jsonb", []string{`{"a":1,"b":[1.0,2]}`, `{"b":[1,2.00],"a":1.0}`, `[]`, `"x"`, `1`, `1.0`, `true`, `{"a":1,"a":2}`, `{"a":2}`}, []string{"x", "{"}, false, true},
		{"js", "json", "json", []string{`{"a":1}`, `1`}, nil, false, true},
		{"m", "mood", "mood", []string{"glad", "sad"}, nil, false, true},
		{"ia", "_int4", "int4[]", []string{"{1,2}", "{}"}, nil, false, true},
	}
}

// sample is the table in a database, and its rows as messages show them.
type sample struct {
	conn *pgx.Conn
	ids  []string
	rows [][]byte
}

func newSample(t *testing.T) *sample {
	t.Helper()
	url := pgtest.Database(t)
	pgtest.Exec(t, url, `CREATE EXTENSION citext`, `CREATE TYPE mood AS ENUM ('sad', 'glad')`)
	conn, err := pgx.Connect(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close(context.WithoutCancel(t.Context())) })
	s := &sample{conn: conn}
	s.exec(t, `SET datestyle = 'ISO'; SET timezone = 'UTC'; SET bytea_output = 'hex'; SET extra_float_digits = 3`)
	var defs []string
	most := 0
	for _, c := range columns() {
		defs = append(defs, c.name+" "+c.sql)
		most = max(most, len(c.values))
	}
	s.exec(t, "CREATE TABLE sample (id serial PRIMARY KEY, "+strings.Join(defs, ", ")+")")
	for i := range most + 1 { // the last row is all NULL
		var names, values []string
		for _, c := range columns() {
			if i < len(c.values) {
				names = append(names, c.name)
				values = append(values, quote(c.values[i])+"::"+c.sql)
			}
		}
		if len(names) == 0 {
			s.exec(t, "INSERT INTO sample DEFAULT VALUES")
			continue
		}
		s.exec(t, "INSERT INTO sample ("+strings.Join(names, ", ")+") VALUES ("+strings.Join(values, ", ")+")")
	}
	s.read(t)
	return s
}

func (s *sample) exec(t *testing.T, sql string) {
	t.Helper()
	if _, err := s.conn.PgConn().Exec(t.Context(), sql).ReadAll(); err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
}

// read writes the rows as capture does.
func (s *sample) read(t *testing.T) {
	t.Helper()
	catalog := value.NewCatalog(func(ctx context.Context, asked []uint32) ([]value.Type, error) {
		return value.FetchTypes(ctx, s.conn, asked)
	}, value.Options{})
	result := s.conn.PgConn().ExecParams(t.Context(), "SELECT * FROM sample ORDER BY id", nil, nil, nil, nil).Read()
	if result.Err != nil {
		t.Fatal(result.Err)
	}
	for _, row := range result.Rows {
		s.ids = append(s.ids, string(row[0]))
		json := []byte("{")
		for i, f := range result.FieldDescriptions {
			json = fmt.Appendf(json, "%q:", f.Name)
			if row[i] == nil {
				json = append(json, "null,"...)
				continue
			}
			encoder, err := catalog.Encoder(t.Context(), f.DataTypeOID)
			if err != nil {
				t.Fatal(err)
			}
			json, _ = encoder.Append(json, row[i])
			json = append(json, ',')
		}
		s.rows = append(s.rows, append(json[:len(json)-1], '}'))
	}
}

func quote(s string) string { return "'" + strings.ReplaceAll(s, "'", "''") + "'" }

// drawn is a condition as the protocol and as SQL write it.
type drawn struct {
	column      column
	filter, sql string
}

func draw(t *rapid.T) drawn {
	c := rapid.SampledFrom(columns()).Draw(t, "column")
	operators := []string{"eq", "neq", "in", "isdistinct", "is"}
	if !c.unordered {
		operators = append(operators, "lt", "lte", "gt", "gte")
	}
	if c.text {
		operators = append(operators, "like", "ilike", "match", "imatch")
	}
	if strings.HasPrefix(c.typname, "_") {
		operators = []string{"is"} // arrays are not compared here, as the package says
	}
	operator := rapid.SampledFrom(operators).Draw(t, "operator")
	any := rapid.SampledFrom(c.values)
	if len(c.wrong) > 0 {
		any = rapid.OneOf(any, any, any, rapid.SampledFrom(c.wrong))
	}
	d := drawn{column: c}
	operand := c.name
	if c.text {
		operand = c.name + ` COLLATE "C"`
	}
	switch operator {
	case "is":
		word := rapid.SampledFrom([]string{"null", "true", "false", "unknown", "other"}).Draw(t, "word")
		d.filter, d.sql = "is."+word, c.name+" IS "+word
	case "in":
		list := rapid.SliceOfN(any, 0, 4).Draw(t, "list")
		var items, values []string
		for _, v := range list {
			items, values = append(items, double(v)), append(values, quote(v))
		}
		if rapid.IntRange(0, 4).Draw(t, "null") == 0 {
			items, values = append(items, "null"), append(values, "NULL")
		}
		d.filter = "in.(" + strings.Join(items, ",") + ")"
		d.sql = c.name + " = ANY (ARRAY[" + strings.Join(values, ", ") + "]::" + c.sql + "[])"
	case "like", "ilike":
		pattern := rapid.StringMatching(`[aAbc%_ ]{0,5}(\\%|\\_|\\\\|\\a)?[ab%]{0,2}`).Draw(t, "pattern")
		d.filter, d.sql = operator+"."+double(pattern), c.name+" "+strings.ToUpper(operator)+" "+quote(pattern)
	case "match", "imatch":
		pattern := rapid.SampledFrom(patterns()).Draw(t, "pattern")
		d.filter = operator + "." + double(pattern)
		d.sql = c.name + map[string]string{"match": " ~ ", "imatch": " ~* "}[operator] + quote(pattern)
	case "isdistinct":
		v := any.Draw(t, "value")
		d.filter, d.sql = "isdistinct."+double(v), operand+" IS DISTINCT FROM "+quote(v)+"::"+c.sql
	default:
		v := any.Draw(t, "value")
		sign := map[string]string{"eq": "=", "neq": "<>", "lt": "<", "lte": "<=", "gt": ">", "gte": ">="}[operator]
		d.filter, d.sql = operator+"."+double(v), operand+" "+sign+" "+quote(v)+"::"+c.sql
	}
	if rapid.Bool().Draw(t, "not") {
		d.filter, d.sql = "not."+d.filter, "NOT ("+d.sql+")"
	}
	d.filter = c.name + "=" + d.filter
	return d
}

func double(s string) string {
	return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(s) + `"`
}

func patterns() []string {
	return []string{
		"a", "^a", "b$", "^a.b$", "[ab]+", "[^a]", "a|b", "(a)(b)?", `\d+`, `[[:digit:]]`, `\s`, `[\d]`, "^$", "a{1,2}", `\ya`, `a\Y`, `\.`, `[]a]`, `[a\]]`,
		"(", "[a", "*a", `a\`, "a.*c", "(?i)AB", "(?:a|b)c", `\Aa`, `c\Z`, "[[:alpha:]]", "[[:nope:]]", `\(x\)`, `"`, `^[^"]*$`,
	}
}

// TestFiltersMeanWhatPostgresMeans draws conditions and asks Postgres which rows they
// select.
func TestFiltersMeanWhatPostgresMeans(t *testing.T) {
	t.Parallel()
	s := newSample(t)
	met := map[string]int{}
	rapid.Check(t, func(r *rapid.T) {
		for range 10 {
			d := draw(r)
			want, refused := s.ask(t, d.sql)
			got, err := s.match(d)
			switch {
			case refused != nil && err == nil:
				r.Fatalf("%s: Postgres refuses %s (%v), and it was taken here", d.filter, d.sql, refused)
			case refused == nil && err != nil:
				r.Fatalf("%s: %v, and Postgres takes %s", d.filter, err, d.sql)
			case !slices.Equal(got, want):
				r.Fatalf("%s on a column of type %s selects %v, Postgres with %s %v", d.filter, d.column.typname, got, d.sql, want)
			}
			met[fmt.Sprint(refused != nil, len(want) > 0)]++
		}
	})
	if met["true false"] < 20 || met["false true"] < 100 || met["false false"] < 20 {
		t.Errorf("refused, and with rows: %v: the drawing is one-sided", met)
	}
}

func (s *sample) ask(t *testing.T, condition string) (ids []string, refused error) {
	result := s.conn.PgConn().ExecParams(t.Context(), "SELECT id FROM sample WHERE "+condition+" ORDER BY id", nil, nil, nil, nil).Read()
	for _, row := range result.Rows {
		ids = append(ids, string(row[0]))
	}
	return ids, result.Err
}

func (s *sample) match(d drawn) (ids []string, err error) {
	conditions, err := match.Parse(d.filter)
	if err != nil {
		return nil, err
	}
	if len(conditions) != 1 {
		return nil, fmt.Errorf("%d conditions", len(conditions))
	}
	test, err := conditions[0].Compile(d.column.typname)
	if err != nil {
		return nil, err
	}
	var row match.Row
	for i, json := range s.rows {
		if !row.Reset(json) {
			return nil, fmt.Errorf("row %s cannot be read", json)
		}
		matched := test.Match(&row)
		if keys, ok := test.Keys(); ok {
			cell, _ := row.Find(d.column.name)
			key, has := test.AppendKey(nil, cell)
			if found := has && slices.Contains(keys, string(key)); found != matched {
				return nil, fmt.Errorf("row %s: matched %v, found by its key %q %v", json, matched, key, found)
			}
		}
		if matched {
			ids = append(ids, s.ids[i])
		}
	}
	return ids, nil
}
