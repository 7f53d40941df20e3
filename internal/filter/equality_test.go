package filter

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"lockstep"
)

func TestEqualitiesOfAFilter(t *testing.T) {
	t.Parallel()
	for source, want := range map[string][]string{
		`record.customer == 42`:                                      {`record["customer"]`},
		`42 == record.customer`:                                      {`record["customer"]`},
		`record["customer"] == "a"`:                                  {`record["customer"]`},
		`record.customer in [1, "a", null, true, -2.50]`:             {`record["customer"]`},
		`record.id % 8 == 3`:                                         {`record["id"] % 8`},
		`record.address.city == "Bonn"`:                              {`record["address"]["city"]`},
		`record.n == null`:                                           {`record["n"]`},
		`record.n == nil and record.m > 5`:                           {`record["n"]`},
		`record.a == 1 && record.b == 2 && f(record.c)`:              nil, // no program
		`record.a == 1 && record.b == 2 && upper(record.c) == "X"`:   {`record["a"]`, `record["b"]`},
		`action == "insert" && record.a == 1`:                        {`record["a"]`, `action`},
		`metadata.table_name == "orders" && record.a == 1`:           {`record["a"] metadata`, `metadata["table_name"] metadata`},
		`record.a == 1 && metadata.late`:                             {`record["a"] metadata`},
		`record.id % 8 == 3 && record.a == 1`:                        {`record["id"] % 8`}, // a remainder may fail, and then a is not looked at
		`record.a.b == 1 && record.c == 1`:                           {`record["a"]["b"]`},
		`record.a > 1 && record.b == 1`:                              nil, // < fails on text
		`record.a == 1 || record.b == 2`:                             nil,
		`not (record.a == 1)`:                                        nil,
		`record.a != 1`:                                              nil,
		`record.a not in [1]`:                                        nil,
		`record.a in []`:                                             nil,
		`record.a in [record.b]`:                                     nil,
		`record.a == record.b`:                                       nil,
		`record?.a == 1`:                                             nil,
		`record.a + 1 == 2`:                                          nil,
		`upper(record.a) == "X"`:                                     nil,
		`let record = {"a": 1}; record.a == 1`:                       nil,
		`all(record.tags, record.a == 1)`:                            nil,
		`record.a in [` + strings.Repeat("1,", findConstants) + `1]`: nil,
	} {
		p, err := Compile(Filter, source)
		if err != nil {
			if want != nil {
				t.Errorf("%s: %v", source, err)
			}
			continue
		}
		var got []string
		for _, e := range p.Equalities() {
			got = append(got, e.Of())
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s: %s", source, diff)
		}
	}
}

// What is equal to a constant is found by one of its keys, and what is not is not: a
// column of type numeric is a string, an int8 is beyond what a float64 holds.
func TestEqualValuesAreFound(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		constant, value string
		want            bool
	}{
		{`42`, `42`, true}, {`42`, `"42"`, true}, {`42`, `"42.00"`, true}, {`42`, `4.2e1`, true}, {`42`, `43`, false}, {`42`, `"042"`, false},
		{`"42"`, `"42"`, true}, {`"42"`, `42`, true}, {`"42"`, `42.0`, true}, {`"42"`, `"42.0"`, false}, {`"042"`, `42`, false},
		{`9007199254740993`, `9007199254740993`, true}, {`9007199254740993`, `9007199254740992`, false}, {`9007199254740993`, `"9007199254740993.0"`, true},
		{`12.5`, `"12.50"`, true}, {`-0.0`, `0`, true}, {`0`, `"-0.00"`, true}, {`0`, `-0`, true}, {`-1`, `1`, false}, {`1e300`, `1`, false},
		{`"NaN"`, `"NaN"`, true}, {`1`, `"NaN"`, false}, {`null`, `null`, true}, {`null`, `0`, false}, {`null`, `""`, false},
		{`true`, `true`, true}, {`true`, `false`, false}, {`true`, `"true"`, false}, {`1`, `true`, false},
		{`"a"`, `"a"`, true}, {`"a"`, `"\u0061"`, true}, {`"a"`, `"A"`, false}, {`"a"`, `["a"]`, false}, {`"{}"`, `{}`, false},
		{`100`, `1e2`, true}, {`0.001`, `"1e-3"`, true}, {`10`, `1`, false}, {`0.1`, `1`, false},
	} {
		p := mustCompile(t, Filter, "record.v == "+c.constant)
		in := change(t, lockstep.Insert, `{"v": `+c.value+`}`, "")
		all := p.Equalities()
		if len(all) != 1 {
			t.Fatalf("%s has no equality", p.Source())
		}
		if got, known := finds(all[0], in); got != c.want || !known {
			t.Errorf("%s with %s: found %t, known %t", p.Source(), c.value, got, known)
		}
		if plain, err := p.Match(in); err != nil || plain != c.want {
			t.Errorf("%s with %s: evaluated it is %t, %v", p.Source(), c.value, plain, err)
		}
	}
	missing := mustCompile(t, Filter, "record.v == null")
	if got, _ := finds(missing.Equalities()[0], change(t, lockstep.Insert, `{}`, "")); !got {
		t.Error("a missing column is null, and was not found as such")
	}
}

// finds says whether a change is found by a key of the equality, and whether anything is
// known of it at all.
func finds(e *Equality, in *Input) (found, known bool) {
	known = e.Find(in, func(key []byte) { found = found || slices.Contains(e.Keys(), string(key)) })
	return found, known
}

// Whatever the filter and the row: when looking up says that a filter yields false, it
// does so without an error.
func TestLookingUpAgreesWithEvaluating(t *testing.T) {
	t.Parallel()
	found, left := 0, 0
	rapid.Check(t, func(t *rapid.T) {
		source := drawFilter(t)
		p, err := Compile(Filter, source)
		if err != nil {
			t.Fatalf("%s: %v", source, err)
		}
		row := drawRow(t)
		in := changeOf(t, row)
		matched, failed := p.Match(changeOf(t, row))
		for _, e := range p.Equalities() {
			hit, known := finds(e, in)
			if known && !hit && (matched || failed != nil) {
				t.Fatalf("%s on %s yields %t, %v, but %s does not find it by %q", source, row, matched, failed, e.Of(), e.Keys())
			}
			if known && hit {
				found++
			}
			if known && !hit {
				left++
			}
		}
	})
	if found == 0 || left == 0 {
		t.Errorf("found %d, left out %d: the drawn filters say nothing", found, left)
	}
}

func changeOf(t *rapid.T, row string) *Input {
	var w lockstep.BatchWriter
	w.Reset(nil)
	w.Begin(lockstep.Tx{CommitLSN: 1})
	table := &lockstep.Table{OID: 1, Schema: "public", Name: "orders", Key: lockstep.KeyPrimary}
	w.Close(append(w.Open(), row...), lockstep.RecordHead{Action: lockstep.Insert, Table: w.Table(table), RecordLen: len(row)})
	sealed, err := w.Seal(1, lockstep.Mark{SystemID: 7, Timeline: 1})
	if err != nil {
		t.Fatal(err)
	}
	batch, err := lockstep.ParseBatch(sealed)
	if err != nil {
		t.Fatal(err)
	}
	return NewInput(batch.Record(0), "app")
}

func drawFilter(t *rapid.T) string {
	terms := rapid.SliceOfN(rapid.Custom(drawTerm), 1, 4).Draw(t, "terms")
	return strings.Join(terms, rapid.SampledFrom([]string{" && ", " and ", " || "}).Draw(t, "glue"))
}

func drawTerm(t *rapid.T) string {
	left := rapid.SampledFrom([]string{"record.a", `record["b"]`, "record.c.d", "record.missing", "record.a % 3", "record.b % 0", "action", "metadata.table_name", "changes.a"}).Draw(t, "left")
	constants := rapid.SampledFrom([]string{"0", "1", "-1", "2", "1.0", "1.50", `"1"`, `"1.5"`, `"x"`, `""`, "null", "true", "false", "9007199254740993", "9007199254740992", `"NaN"`, `"insert"`, `"orders"`, "1e2", "100"})
	switch rapid.IntRange(0, 4).Draw(t, "form") {
	case 0:
		return left + " in [" + strings.Join(rapid.SliceOfN(constants, 1, 4).Draw(t, "list"), ", ") + "]"
	case 1:
		return constants.Draw(t, "constant") + " == " + left
	case 2:
		return rapid.SampledFrom([]string{"record.a > 1", "record.b + 1 == 2", "record.a", "not (record.a == 1)", `upper(record.b) == "X"`}).Draw(t, "other")
	}
	return left + " == " + constants.Draw(t, "constant")
}

func drawRow(t *rapid.T) string {
	values := rapid.SampledFrom([]string{"0", "-0", "1", "-1", "2", "1.0", "1.5", "1.50", `"1"`, `"1.0"`, `"1.50"`, `"01"`, `"x"`, `""`, "null", "true", "false", "9007199254740993", `"9007199254740993"`, "9007199254740992", `"NaN"`, `"-Infinity"`, "1E2", `"1e2"`, "[1]", `{"d": 1}`, `{"d": "x", "d": 2}`, `"\u0078"`, strings.Repeat("9", 400)})
	row := fmt.Sprintf(`{"a": %s, "b":%s, "c" : %s}`, values.Draw(t, "a"), values.Draw(t, "b"), values.Draw(t, "c"))
	return rapid.SampledFrom([]string{row, row, row, strings.Replace(row, `"b"`, `"a"`, 1), "", "{}"}).Draw(t, "row")
}

// A filter that others wait for gives up, and nothing is wrong with it.
func TestMatchingWithinLittleWork(t *testing.T) {
	t.Parallel()
	in := order(t)
	for source, quick := range map[string]bool{
		`record.status == "open"`:                      true,
		`record.name matches "^A"`:                     true,
		`len(filter(1..100000, # % 7 == 0)) > 3`:       false, // elements
		`any(1..200, any(1..200, # == 0)) || true`:     false, // work
		`len(split(toJSON(record), "")) + 1 > "text"`:  true,  // it fails, quickly
		`count(record.items, .sku == "p") == 1`:        true,
		`all(1..100, record.name startsWith "A")`:      true,
		`all(1..100, all(1..100, record.name != "B"))`: false,
	} {
		p := mustCompile(t, Filter, source)
		want, failed := p.Match(in)
		got, done, err := p.MatchWithin(in, 16<<10)
		if done != quick {
			t.Errorf("%s: done %t, want %t", source, done, quick)
		}
		if done && (got != want || fmt.Sprint(err) != fmt.Sprint(failed)) {
			t.Errorf("%s: %t, %v; want %t, %v", source, got, err, want, failed)
		}
		if again, err := p.Match(in); again != want || fmt.Sprint(err) != fmt.Sprint(failed) {
			t.Errorf("%s: afterwards %t, %v; want %t, %v", source, again, err, want, failed)
		}
	}
}
