package match_test

import (
	"encoding/json"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"

	"lockstep/internal/realtime/match"
)

func TestParse(t *testing.T) {
	t.Parallel()
	text := func(s string) match.Element { return match.Element{Text: s} }
	for filter, want := range map[string][]match.Condition{
		"":                      nil,
		"  ":                    nil,
		"id=eq.1":               {{Column: "id", Operator: "eq", Value: text("1")}},
		"id=not.eq.1":           {{Column: "id", Operator: "eq", Negated: true, Value: text("1")}},
		" a=gt.0 , b=lt.1.5 ":   {{Column: "a", Operator: "gt", Value: text("0")}, {Column: "b", Operator: "lt", Value: text("1.5")}},
		`n=eq."a,b"`:            {{Column: "n", Operator: "eq", Value: text("a,b")}},
		`n=eq."a\"\\b",m=eq.1`:  {{Column: "n", Operator: "eq", Value: text(`a"\b`)}, {Column: "m", Operator: "eq", Value: text("1")}},
		`n=eq.a"b`:              {{Column: "n", Operator: "eq", Value: text(`a"b`)}},
		`n=eq.""`:               {{Column: "n", Operator: "eq", Value: text("")}},
		`n=eq.`:                 {{Column: "n", Operator: "eq", Value: text("")}},
		`n=eq."a"b`:             {{Column: "n", Operator: "eq", Value: text(`"a"b`)}},
		`n=eq.a=b`:              {{Column: "n", Operator: "eq", Value: text(`a=b`)}},
		`n=in.(a,b)`:            {{Column: "n", Operator: "in", List: []match.Element{text("a"), text("b")}}},
		`n=in.("a,b", c ,null)`: {{Column: "n", Operator: "in", List: []match.Element{text("a,b"), text("c"), {Text: "null", Null: true}}}},
		`n=in.("null")`:         {{Column: "n", Operator: "in", List: []match.Element{text("null")}}},
		`n=in.()`:               {{Column: "n", Operator: "in"}},
		`d=is.null`:             {{Column: "d", Operator: "is", Value: match.Element{Text: "null", Null: true}}},
		`t=like.a(b,c)%,x=eq.1`: {{Column: "t", Operator: "like", Value: text("a(b,c)%")}, {Column: "x", Operator: "eq", Value: text("1")}},
	} {
		got, err := match.Parse(filter)
		if err != nil {
			t.Errorf("%s: %v", filter, err)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s: %s", filter, diff)
		}
	}
}

func TestParseTellsWhatIsWrong(t *testing.T) {
	t.Parallel()
	for filter, want := range map[string]string{
		"subject=foo.hey": `["foo", "hey"]`,
		"undefined":       `["undefined"]`,
		"id=eq":           `["eq"]`,
		"id=eq.1,":        "empty segments",
		",":               "empty segments",
		"=eq.1":           "no column",
		"id=in.1,2":       "parentheses",
		"id=in.(a,,b)":    "empty value",
		`id=in.("a)`:      "not closed",
		`id=in.("a"b)`:    "not closed",
		"id=in.(" + strings.Repeat("1,", 100) + "1)": "Maximum 100",
		strings.Repeat("a=eq.1,", 100) + "a=eq.1":    "more than 100",
		"a=eq." + strings.Repeat("x", 70_000):        "bytes",
	} {
		_, err := match.Parse(filter)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%.80s: %v; want %s", filter, err, want)
		}
	}
}

func TestWhatCannotBeComparedIsRefused(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ filter, typname, want string }{
		{"c=eq.1", "json", "is.null is possible"},
		{"c=eq.{1}", "_int4", "is.null is possible"},
		{"c=gt.a", "mood", "not ordered"},
		{"c=like.a", "int4", "column of text"},
		{"c=is.true", "text", "needs a column of type bool"},
		{"c=is.maybe", "bool", "not one of"},
		{`c=match.(a)\1`, "text", "back references"},
		{`c=match.a(?=b)`, "text", "look-around"},
		{`c=match.(`, "text", "invalid regular expression"},
		{`c=match.\pL`, "text", "not known"},
		{"c=eq.now", "timestamptz", "ISO 8601"},
		{"c=eq.1e400000", "numeric", "not a number"},
	} {
		conditions, err := match.Parse(c.filter)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := conditions[0].Compile(c.typname); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s on %s: %v; want %s", c.filter, c.typname, err, c.want)
		}
	}
}

// matches is whether the row passes a filter, by the types of its columns.
func matches(t *testing.T, filter, row string, types map[string]string) bool {
	t.Helper()
	conditions, err := match.Parse(filter)
	if err != nil {
		t.Fatal(err)
	}
	var r match.Row
	if !r.Reset([]byte(row)) {
		t.Fatalf("%s cannot be read", row)
	}
	for _, c := range conditions {
		test, err := c.Compile(types[c.Column])
		if err != nil {
			t.Fatal(err)
		}
		if !test.Match(&r) {
			return false
		}
	}
	return true
}

func TestWithoutTypesNumbersAreNumbers(t *testing.T) {
	t.Parallel()
	const row = `{"n":9007199254740993,"s":"12.50","b":true,"x":null,"big":12345678901234567890}`
	for filter, want := range map[string]bool{
		"n=eq.9007199254740993": true, "n=eq.9007199254740992": false, "n=gt.9007199254740992": true,
		"s=eq.12.50": true, "s=eq.12.5": false, "b=eq.true": true, "b=is.true": true, "b=is.false": false,
		"x=is.null": true, "x=eq.1": false, "x=neq.1": false, "x=not.eq.1": false, "x=isdistinct.1": true,
		"n=isdistinct.null": true, "x=isdistinct.null": false, "x=not.isdistinct.null": true,
		"big=gte.12345678901234567890": true, "none=eq.1": false, "none=not.eq.1": false, "n=gt.1,s=like.12%": true, "n=gt.1,s=like.13%": false,
	} {
		if got := matches(t, filter, row, nil); got != want {
			t.Errorf("%s: %v", filter, got)
		}
	}
}

func TestRowReadsWhatJSONReads(t *testing.T) {
	t.Parallel()
	for _, text := range []string{
		`{}`, ` { } `, `{"a":1}`, `{"a":"x\"y","b":{"c":[1,{"d":"}"}]},"e":null}`, "{\"a\" :\n [ ] , \"b\":-1.5e3}", `{"quoted \" name":true,"\u00e9":1}`,
	} {
		var r match.Row
		if !r.Reset([]byte(text)) {
			t.Errorf("%s cannot be read", text)
		}
		var want map[string]json.RawMessage
		if err := json.Unmarshal([]byte(text), &want); err != nil {
			t.Fatal(err)
		}
		got := map[string]json.RawMessage{}
		for _, m := range r.Members() {
			got[string(m.Name)] = m.Value
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s: %s", text, diff)
		}
	}
	for _, text := range []string{``, `[]`, `{`, `{"a"`, `{"a":`, `{"a":1`, `{"a":1,`, `{"a" 1}`, `{a:1}`, `{"a":"x}`, `{"a":[1}`, `{"a":1 "b":2}`, `null`} {
		var r match.Row
		if r.Reset([]byte(text)) {
			t.Errorf("%s was read", text)
		}
	}
}

func FuzzRow(f *testing.F) {
	f.Add([]byte(`{"a":1,"b":"x","c":[{}]}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		var r match.Row
		whole := r.Reset(text)
		var want map[string]json.RawMessage
		if !utf8.Valid(text) || json.Unmarshal(text, &want) != nil || want == nil {
			return
		}
		if !whole {
			t.Fatalf("%q is an object, and was not read", text)
		}
		for name := range want {
			if _, ok := r.Find(name); !ok {
				t.Fatalf("%q: %q was not found", text, name)
			}
		}
	})
}

func FuzzFilter(f *testing.F) {
	for _, seed := range []string{"id=eq.1", `n=in.("a,b",c)`, `a=not.match.[[:alpha:]]+\d`, "a=ilike.%x_", `t=lt."2026-11-21T10:00:00Z"`, "d=gte.1e5"} {
		f.Add(seed, `{"id":1,"n":"c","a":"x9","t":"2026-11-21T09:00:00Z","d":"100000"}`)
	}
	types := []string{"", "text", "int8", "numeric", "float4", "bool", "uuid", "date", "timestamptz", "time", "bytea", "jsonb", "bpchar", "_int4", "mood"}
	f.Fuzz(func(t *testing.T, filter, json string) {
		conditions, err := match.Parse(filter)
		if err != nil {
			return
		}
		var row match.Row
		row.Reset([]byte(json))
		for _, c := range conditions {
			for _, typname := range types {
				test, err := c.Compile(typname)
				if err != nil {
					continue
				}
				matched := test.Match(&row)
				negated := c
				negated.Negated = !c.Negated
				other, err := negated.Compile(typname)
				if err != nil || matched && other.Match(&row) {
					t.Fatalf("%q on %s matches %q, and so does its negation (%v)", filter, typname, json, err)
				}
			}
		}
	})
}
