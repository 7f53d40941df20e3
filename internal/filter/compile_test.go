package filter

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"lockstep"
)

func TestCompileErrorsSayWhereAndWhatToWrite(t *testing.T) {
	t.Parallel()
	for source, want := range map[string]string{
		``:                                 `filter: is empty; leave the key out to have none`,
		`  `:                               `filter: is empty; leave the key out to have none`,
		`amount > 5`:                       `filter (line 1, column 1): unknown name amount; a column is written record.amount; there are record, changes, action and metadata`,
		"record.a == 1\n and b":            `filter (line 2, column 6): unknown name b; a column is written record.b; there are record, changes, action and metadata`,
		`record.a = 1`:                     `filter (line 1, column 10): unexpected token =; compare by ==`,
		`record.a <> 1`:                    `filter (line 1, column 11): unexpected token >; compare by !=`,
		`record.a == 1 AND true`:           `filter (line 1, column 15): unexpected token AND; write and in small letters`,
		`record.a IS NULL`:                 `filter (line 1, column 10): unexpected token IS; write == nil or != nil`,
		`record.a == NULL`:                 `filter (line 1, column 13): unknown name NULL; write == nil or != nil`,
		`record.a LIKE "x"`:                `filter (line 1, column 10): unexpected token LIKE; use contains, startsWith, endsWith or matches`,
		`old.a == 1`:                       `filter (line 1, column 1): unknown name old; old values are in changes`,
		`record.a ==`:                      `filter (line 1, column 11): ends too early`,
		`(record.a == 1`:                   `filter (line 1, column 14): ends too early`,
		`record.a > now()`:                 `filter (line 1, column 12): there is no function now; expressions have no clock; timestamps compare as text: record.created_at >= "2026-01-01"`,
		`lenght(record.a) > 1`:             `filter (line 1, column 1): there is no function lenght; use len`,
		`upper() == "A"`:                   `filter (line 1, column 1): upper takes 1 argument, not 0`,
		`trim("a", "b", "c")`:              `filter (line 1, column 1): trim takes 1 or 2 arguments, not 3`,
		`pick() == 1`:                      `filter (line 1, column 1): pick takes 1 or more arguments, not 0`,
		`record.a.upper() == "A"`:          `filter (line 1, column 10): values have no functions of their own: write upper(record.name), not record.name.upper()`,
		`record.a matches "["`:             "filter (line 1, column 18): the pattern is no regular expression: error parsing regexp: missing closing ]: `[`",
		`record.a matches record.b`:        `filter (line 1, column 25): the pattern of matches must be a string in quotes`,
		`record.a ** 2 > 1`:                `filter (line 1, column 10): powers are not available`,
		`$env.record == nil`:               `filter (line 1, column 1): $env is not available`,
		`b"a" == record.a`:                 `filter (line 1, column 1): bytes are not available`,
		`sortBy(record.a, #) == 1`:         `filter (line 1, column 1): there is no function sortBy; use sort, or do it where the changes arrive`,
		`::sum(record.a) == 1`:             `filter (line 1, column 3): there is no function sum; there are abs, all, any, ceil, concat, count, filter, find, findIndex, first, floor, fromJSON, get, hasPrefix, hasSuffix, indexOf, int, join, keys, last, len, lower, map, max, merge, min, none, number, omit, one, pick, reduce, replace, reverse, round, sort, split, string, sum, toJSON, trim, trimPrefix, trimSuffix, type, uniq, upper, values`,
		`findLast(record.a, true)`:         `filter (line 1, column 1): findLast is not available: find in reverse(list)`,
		`count(record.a) > 1`:              `filter (line 1, column 1): count takes a list and a condition, for example count(record.tags, # == "a")`,
		`record.a == 12345678901234567890`: `filter (line 1, column 32): the number is too large to be written as it is; write number("…")`,
		`map(record.a, {"x": 1}) != nil`:   `filter (line 1, column 19): unexpected token :; an object inside map, filter and the like stands in parentheses: map(list, ({…}))`,
		`record.a == "x`:                   `filter (line 1, column 15): literal not terminated`,
		`record.a + 1`:                     `filter (line 1, column 1): yields a number or a string, not true or false; compare it with something, for example by != nil`,
		`5`:                                `filter (line 1, column 1): yields a number, not true or false; compare it with something, for example by != nil`,
		`nil`:                              `filter (line 1, column 1): yields null, not true or false; compare it with something, for example by != nil`,
		`{"a": 1}`:                         `filter (line 1, column 1): yields an object, not true or false; compare it with something, for example by != nil`,
		`record.a ? "x" : "y"`:             `filter (line 1, column 1): yields a string, not true or false; compare it with something, for example by != nil`,
		"record.a == \"\xff\"":             `filter: is not UTF-8`,
	} {
		_, err := Compile(Filter, source)
		var e *Error
		if !errors.As(err, &e) || !errors.Is(err, lockstep.ErrInvalid) {
			t.Errorf("%q: %v", source, err)
			continue
		}
		if diff := cmp.Diff(want, err.Error()); diff != "" {
			t.Errorf("%q (-want +got):\n%s", source, diff)
		}
	}
	if _, err := Compile("sieve", "true"); err == nil || !strings.Contains(err.Error(), "use filter or transform") {
		t.Errorf("got %v", err)
	}
	if _, err := Compile(Filter, strings.Repeat("(", maxSource+1)); err == nil || !strings.Contains(err.Error(), "64 KB") {
		t.Errorf("got %v", err)
	}
}

func TestHostileSourcesAreRefusedNotFatal(t *testing.T) {
	t.Parallel()
	for name, source := range map[string]string{
		"parentheses": strings.Repeat("(", maxSource),
		"brackets":    strings.Repeat("[", maxSource),
		"nots":        strings.Repeat("!", maxSource),
		"minus":       strings.Repeat("-", maxSource-1) + "1",
		"braces":      strings.Repeat("{a:", maxSource/3),
		"ternary":     strings.Repeat("true?", maxSource/5),
		"nodes":       "[" + strings.Repeat("1,", maxNodes+1) + "1]",
		"members":     "record" + strings.Repeat(".a", maxNodes+1),
		"chains":      strings.Repeat("0<(", 60) + "1" + strings.Repeat(")<2", 60),
		"coalesce":    strings.Repeat("nil??", maxSource/5),
	} {
		if _, err := Compile(Transform, source); err == nil {
			t.Errorf("%s: compiled", name)
		}
	}
}

func TestEvaluationIsBounded(t *testing.T) {
	t.Parallel()
	big := `{"a": [` + strings.Repeat("1,", 20_000) + `1], "s": "` + strings.Repeat("x", 20_000) + `"}`
	for name, source := range map[string]string{
		"nested loops": `any(record.a, any(record.a, any(record.a, # == 2)))`,
		"empty loops":  `any(1..100000, any(1..100000, any(1..100000, false)))`,
		"maps":         `len(map(1..1000, map(1..1000, map(1..1000, #))))`,
		"range":        `len(1..100000000)`,
		"strings":      `reduce(1..100000, #acc + #acc, "x")`,
		"replace":      `replace(replace(record.s, "x", record.s), "x", record.s)`,
		"numbers":      `reduce(1..100000, #acc * #acc, 3)`,
		"joins":        `reduce(1..100, concat(#acc, #acc), [1])`,
		"depth":        `toJSON(reduce(1..200000, [#acc], 1))`,
		"comparison":   `reduce(1..200000, [#acc], 1) == reduce(1..200000, [#acc], 1)`,
		"sorting":      `len(map(1..10000, sort(record.a)))`,
		"uniq":         `len(uniq(1..1000000))`,
		"regexp":       `any(record.a, record.s matches "(x+)+y")`,
		"digits":       `round(1.5, 20000) * number("1e20000") * number("1e20000")`,
		"join":         `map(record.a, join(record.a, record.s))`,
	} {
		start := time.Now()
		if v, err := mustCompile(t, Transform, source).Apply(change(t, lockstep.Insert, big, ``)); err == nil {
			t.Errorf("%s: yielded %d bytes", name, len(v))
		}
		// Generous: the tests of other packages may have the machine.
		if took := time.Since(start); took > 20*time.Second {
			t.Errorf("%s took %s", name, took)
		}
		t.Logf("%s took %s", name, time.Since(start))
	}
}

func TestResultIsBoundedInProportionToTheChange(t *testing.T) {
	t.Parallel()
	row := `{"s": "` + strings.Repeat("x", maxResult) + `"}`
	in := change(t, lockstep.Insert, row, ``)
	if got, err := mustCompile(t, Transform, `record`).Apply(in); err != nil || len(got) != len(row) {
		t.Errorf("the row itself: %d bytes, %v", len(got), err)
	}
	if _, err := mustCompile(t, Transform, `[record, record, record]`).Apply(in); err == nil || !strings.Contains(err.Error(), "too large") {
		t.Errorf("three rows: %v", err)
	}
}

// FuzzCompile: whatever is written, compiling and running it ends, without a
// panic, and a result is JSON.
func FuzzCompile(f *testing.F) {
	for _, seed := range []string{
		`record.amount > 100 and changes.status != nil`, `{"id": record.id, "total": record.amount}`,
		`any(record.tags, # in ["a"]) ?? false`, `let x = 1; x + 1.5e3`, `map(record.items, ({"a": .price * #index}))`,
		`record.name matches "a+" ? 1..3 : record?.a?.b[1:2]`, `-record.rate % 2 == +1`, `reduce(record.tags, #acc + #, "")`,
		`round(record.huge / 7, 3)`, `1 < record.id <= 9`, `record | omit("id") | toJSON()`, `if true {1} else {2}`, `::len("a")`,
	} {
		f.Add(seed, `{"id": 1}`)
	}
	f.Fuzz(func(t *testing.T, source, row string) {
		if !json.Valid([]byte(row)) {
			row = orderRow
		}
		p, err := Compile(Transform, source)
		if err != nil {
			if _, ok := errors.AsType[*Error](err); !ok {
				t.Errorf("%q: %T", source, err)
			}
			return
		}
		for range 2 {
			got, err := p.Apply(change(t, lockstep.Update, row, row))
			if err == nil && !json.Valid(got) {
				t.Errorf("%q of %s: %s", source, row, got)
			}
		}
	})
}

// FuzzDecimal: comparing is total and agrees with arithmetic.
func FuzzDecimal(f *testing.F) {
	f.Add("12.50", "12.5")
	f.Add("-1e5", "0.00010e9")
	f.Add("NaN", "Infinity")
	f.Fuzz(func(t *testing.T, a, b string) {
		x, aOK := parseDecimal(a)
		y, bOK := parseDecimal(b)
		if !aOK || !bOK {
			return
		}
		c := x.compare(y)
		if c != -y.compare(x) || x.compare(x) != 0 {
			t.Errorf("%s and %s: %d", a, b, c)
		}
		fx, err := x.fixed()
		if err != nil {
			return
		}
		fy, err := y.fixed()
		if err != nil {
			return
		}
		if got := fx.sub(fy).unscaled.Sign(); got != c {
			t.Errorf("%s - %s has sign %d, compared %d", a, b, got, c)
		}
	})
}

func BenchmarkFilter(b *testing.B) {
	p := mustCompile(b, Filter, `record.amount > 100 and changes.status != nil`)
	in := order(b)
	rec := in.rec
	b.ReportAllocs()
	b.Run("one program", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if _, err := p.Match(NewInput(rec, "app")); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("a further program", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if _, err := p.Match(in); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("metadata", func(b *testing.B) {
		p := mustCompile(b, Filter, `action == "insert" or metadata.table_name == "x"`)
		b.ReportAllocs()
		for b.Loop() {
			if _, err := p.Match(NewInput(rec, "app")); err != nil {
				b.Fatal(err)
			}
		}
	})
}

func BenchmarkTransform(b *testing.B) {
	p := mustCompile(b, Transform, `{"id": record.id, "total": record.amount, "data": record.data, "name": upper(record.name)}`)
	rec := order(b).rec
	b.ReportAllocs()
	for b.Loop() {
		if _, err := p.Apply(NewInput(rec, "app")); err != nil {
			b.Fatal(err)
		}
	}
}
