package mirror_test

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"lockstep/internal/mirror"
	"lockstep/source"
)

// Each value, as each type of column takes it: what is in the column, or why not.
func TestValuesThatFitAndThatDoNot(t *testing.T) {
	t.Parallel()
	const misfit = "misfit"
	cases := []struct {
		typ         source.Type
		value, want string
	}{
		{source.Text, `"a\"b\\c\n\t\u00e9😀"`, "a\"b\\c\n\té😀"}, {source.Text, `12.50`, "12.50"}, {source.Text, `true`, "true"}, {source.Text, `""`, ""},
		{source.Text, `{"id":"cus_1","object":"customer"}`, "cus_1"}, {source.Text, `{"a":1}`, misfit}, {source.Text, `[1]`, misfit}, {source.Text, `null`, "NULL"},
		{source.Boolean, `true`, "t"}, {source.Boolean, `"false"`, "f"}, {source.Boolean, `"Yes"`, misfit}, {source.Boolean, `1`, misfit},
		{source.Integer, `9223372036854775807`, "9223372036854775807"}, {source.Integer, `9223372036854775808`, misfit}, {source.Integer, `"-12"`, "-12"},
		{source.Integer, `5.00`, "5"}, {source.Integer, `5.01`, misfit}, {source.Integer, `"1,234"`, misfit}, {source.Integer, `""`, "NULL"}, {source.Integer, `1e3`, misfit},
		{source.Integer, `"3092727991;3881228353"`, misfit}, {source.Integer, `true`, misfit}, {source.Integer, `{}`, misfit}, {source.Integer, `"-"`, misfit},
		{source.Numeric, `0.1`, "0.1"}, {source.Numeric, `12345678901234567890.123456789012345678901234567890`, "12345678901234567890.123456789012345678901234567890"},
		{source.Numeric, `1.10`, "1.10"}, {source.Numeric, `-0`, "0"}, {source.Numeric, `"NaN"`, misfit}, {source.Numeric, `1e400`, "1" + strings.Repeat("0", 400)}, {source.Numeric, `1e200000`, misfit},
		{source.Double, `1.5e10`, "15000000000"}, {source.Double, `1e400`, misfit}, {source.Double, `1e-400`, misfit}, {source.Double, `0e-400`, "0"},
		{source.Timestamp, `"2026-01-02T03:04:05.1234567Z"`, "2026-01-02 03:04:05.123456+00"}, {source.Timestamp, `"2026-01-02T03:04:05+0200"`, "2026-01-02 01:04:05+00"},
		{source.Timestamp, `"20222-01-05T00:00:00Z"`, misfit}, {source.Timestamp, `"0000-00-00T00:00:00Z"`, misfit}, {source.Timestamp, `"0000-01-01T00:00:00Z"`, misfit},
		{source.Timestamp, `"2016-12-31T23:59:60Z"`, misfit}, {source.Timestamp, `"2024-02-30T00:00:00Z"`, misfit}, {source.Timestamp, `17`, misfit}, {source.Timestamp, `"0001-01-01T00:00:00+14:00"`, misfit},
		{source.Unix, `1700000000`, "2023-11-14 22:13:20+00"}, {source.Unix, `"1700000000.5"`, "2023-11-14 22:13:20.5+00"}, {source.Unix, `-1.25`, "1969-12-31 23:59:58.75+00"},
		{source.Unix, `1700000000000`, misfit}, {source.Unix, `99999999999999999999`, misfit}, {source.UnixMilli, `1700000000123`, "2023-11-14 22:13:20.123+00"},
		{source.UnixMilli, `1700000000123.9`, "2023-11-14 22:13:20.1239+00"}, {source.UnixMilli, `"soon"`, misfit},
		{source.Date, `"2024-02-29"`, "2024-02-29"}, {source.Date, `"2023-02-29"`, misfit}, {source.Date, `"20222-01-05"`, misfit}, {source.Date, `"0000-00-00"`, misfit},
		{source.JSON, `{"a": 1.10}`, `{"a": 1.10}`}, {source.JSON, `"x"`, `"x"`}, {source.JSON, `null`, "NULL"},
		{source.TextArray, `["a","b,{}\"\\",null,1.0,true,""]`, `{a,"b,{}\"\\",NULL,1.0,true,""}`}, {source.TextArray, `[]`, "{}"}, {source.TextArray, `[{}]`, misfit}, {source.TextArray, `"a"`, misfit},
	}
	c := source.Collection{Name: "value"}
	data := map[string]json.RawMessage{}
	noted := 0
	for i, k := range cases {
		name := fmt.Sprintf("c%03d", i)
		c.Fields = append(c.Fields, source.Field{Name: name, Type: k.typ})
		data[name] = json.RawMessage(k.value)
		if k.want == misfit {
			noted++
		}
	}
	raw, err := json.Marshal(data)
	if err != nil {
		t.Fatal(err)
	}
	f := newFixture(t, c)
	f.result(f.put("value", 1, record("a", 1, string(raw)), record("neighbour", 1, `{"c000":"x"}`)), mirror.Result{Inserted: 2, Noted: noted + 1}) // one number cannot be in _raw either
	notes := f.query("SELECT string_agg(n ->> 'field', ' ') FROM api.value, jsonb_array_elements(_notes) n WHERE n ->> 'reason' <> ''")[0][0]
	for i, k := range cases {
		name := fmt.Sprintf("c%03d", i)
		want := k.want
		if want == misfit {
			want = "NULL"
		}
		query := "SELECT " + name + "::text FROM api.value WHERE id = 'a'"
		if k.typ == source.Boolean {
			query = "SELECT " + name + " FROM api.value WHERE id = 'a'"
		}
		if got := f.query(query)[0][0]; got != want {
			t.Errorf("%s as %s: got %s, want %s", k.value, k.typ, got, want)
		}
		if strings.Contains(notes, name) != (k.want == misfit) {
			t.Errorf("%s as %s: noted is %v", k.value, k.typ, strings.Contains(notes, name))
		}
	}
}

func TestWhatPostgresCannotHoldIsReplacedAndNoted(t *testing.T) {
	t.Parallel()
	f := newFixture(t, customers())
	f.result(f.put("customer", 1,
		record("nul", 1, `{"email":"a\u0000b","address":{"city":"x\u0000"}}`),
		record("lone", 1, `{"email":"\ud800 \udc00 \ud83d\ude00","k\u0000":1}`),
		record("bytes", 1, "{\"email\":\"a\xffb\"}"),
		record("huge", 1, `{"rate":1e200000,"balance":1}`),
		record("escaped", 1, `{"email":"\\u0000 \\ud800"}`),
		record("good", 1, `{"email":"😀"}`),
		record("bad", 1, `{"email":`), record("list", 1, `[]`), record("", 1, `{}`), record(strings.Repeat("x", 3000), 1, `{}`),
		record("deep", 1, strings.Repeat(`{"a":`, 2000)+"1"+strings.Repeat("}", 2000))),
		mirror.Result{Inserted: 6, Noted: 5, Parked: 5})
	f.want("SELECT id, email, _notes -> 0 ->> 'field', _notes -> 0 ->> 'reason', _notes -> 1 ->> 'reason' FROM api.customer ORDER BY id",
		row("bytes", "a\uFFFDb", "_raw", "1 places that Postgres cannot hold were replaced", "NULL"),
		row("escaped", `\u0000 \ud800`, "NULL", "NULL", "NULL"),
		row("good", "😀", "NULL", "NULL", "NULL"),
		row("huge", "NULL", "rate", "not a numeric", "1 places that Postgres cannot hold were replaced"),
		row("lone", "\uFFFD \uFFFD 😀", "_raw", "3 places that Postgres cannot hold were replaced", "NULL"),
		row("nul", "a\uFFFDb", "_raw", "2 places that Postgres cannot hold were replaced", "NULL"))
	f.want("SELECT count(*), count(DISTINCT id) FROM lockstep.sync_parked", row("5", "5"))
	f.want("SELECT count(*) FROM lockstep.sync_log WHERE kind = 'parked'", row("1"))
}

func TestFingerprint(t *testing.T) {
	t.Parallel()
	volatile := []string{"updated", "links.url", "lines.price"}
	print := func(data string) mirror.Print {
		p, err := mirror.Fingerprint(json.RawMessage(data), volatile)
		if err != nil {
			t.Fatalf("%s: %v", data, err)
		}
		return p
	}
	base := print(`{"a":1,"b":{"c":"é","d":[1,2]},"links":{"url":"x","n":1},"lines":[{"id":1,"price":5},{"id":2,"price":6}]}`)
	for name, same := range map[string]string{
		"order of keys":   `{"lines":[{"price":5,"id":1},{"id":2,"price":6}],"links":{"n":1,"url":"x"},"b":{"d":[1,2],"c":"é"},"a":1}`,
		"white space":     " {\n\"a\" : 1 , \"b\":{\"c\":\"é\",\"d\":[ 1 ,2 ]},\"links\":{\"url\":\"x\",\"n\":1},\"lines\":[{\"id\":1,\"price\":5},{\"id\":2,\"price\":6}]}\t",
		"escapes":         `{"\u0061":1,"b":{"c":"\u00e9","d":[1,2]},"links":{"url":"x","n":1},"lines":[{"id":1,"price":5},{"id":2,"price":6}]}`,
		"volatile paths":  `{"a":1,"b":{"c":"é","d":[1,2]},"links":{"url":"y","n":1},"updated":7,"lines":[{"id":1,"price":50},{"id":2}]}`,
		"repeated keys":   `{"a":2,"b":{"c":"é","d":[1,2]},"links":{"url":"x","n":1},"lines":[{"id":1,"price":5},{"id":2,"price":6}],"a":1}`,
		"an escaped pair": `{"a":1,"b":{"c":"é","d":[1,2]},"links":{"\u0075rl":"z","n":1},"lines":[{"id":1},{"id":2}]}`,
	} {
		if print(same) != base {
			t.Errorf("%s makes a difference", name)
		}
	}
	seen := map[mirror.Print]string{base: "base"}
	for _, other := range []string{`{}`, `{"a":1}`, `{"a":"1"}`, `{"a":1.0}`, `{"a":null}`, `{"a":[]}`, `{"a":{}}`, `{"a":[1,2]}`, `{"a":[12]}`, `{"a":[[1],2]}`, `{"a":[1,[2]]}`,
		`{"ab":""}`, `{"a":"b"}`, `{"a":true}`, `{"a":false}`, `{"a":"true"}`, `{"links":{"n":2}}`, `{"b":{"a":1}}`, `{"a":1,"b":{}}`, `{"a":{"b":{}}}`, `{"url":1}`} {
		p := print(other)
		if before, ok := seen[p]; ok {
			t.Errorf("%s and %s have one fingerprint", before, other)
		}
		seen[p] = other
	}
	for _, bad := range []string{``, `1`, `[]`, `{`, `{"a"}`, `{"a":}`, `{"a":1,}`, `{"a":[1,]}`, `{"a":01}`, `{"a":1.}`, `{"a":+1}`, `{"a":"` + "\n" + `"}`, `{"a":"\x"}`, `{"a":"\u00g0"}`, `{a:1}`, `{"a":1} x`, `{"a":tru}`, `{"a":"`} {
		if _, err := mirror.Fingerprint(json.RawMessage(bad), nil); err == nil {
			t.Errorf("%s is taken for a record", bad)
		}
	}
}
