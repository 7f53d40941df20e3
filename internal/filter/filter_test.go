package filter

import (
	"encoding/json"
	"errors"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"lockstep"
)

// change is one change of table public.orders, at seq 42.
func change(tb testing.TB, action lockstep.Action, row, changes string) *Input {
	tb.Helper()
	var w lockstep.BatchWriter
	w.Reset(nil)
	w.Begin(lockstep.Tx{CommitLSN: 24023128, CommitTime: 1795255200123456, XID: 733, Origin: lockstep.OriginSync})
	table := &lockstep.Table{OID: 16384, Schema: "public", Name: "orders", Key: lockstep.KeyPrimary}
	head := lockstep.RecordHead{Action: action, OldKnown: changes != "", Table: w.Table(table), RecordLen: len(row), ChangesLen: len(changes)}
	buf := append(append(w.Open(), row...), changes...)
	const pks, extra = `["7"]`, `,"unchanged":["body"]`
	head.PKsLen, head.ExtraLen = len(pks), len(extra)
	w.Close(append(append(buf, pks...), extra...), head)
	sealed, err := w.Seal(42, lockstep.Mark{SystemID: 7, Timeline: 1})
	if err != nil {
		tb.Fatal(err)
	}
	batch, err := lockstep.ParseBatch(sealed)
	if err != nil {
		tb.Fatal(err)
	}
	return NewInput(batch.Record(0), "app")
}

const orderRow = `{"id": 7, "amount": "12.50", "tax": "3", "big": 9007199254740993, "rate": 1.10, "huge": 123456789012345678901234567890,
 "name": "Ann", "status": "open", "zip": "01234", "nan": "NaN", "inf": "-Infinity", "none": null, "active": true,
 "tags": ["a", "b"], "data": {"b": 1.10, "a": {"x": [1, {"y": "z"}]}, "b": 12345678901234567890}, "at": "2026-11-21T10:00:00.000000Z",
 "items": [{"sku": "p", "price": "1.50", "n": 2}, {"sku": "q", "price": "2.25", "n": 4}], "text": "é\"\\\n", "k\u0065y": 1}`

func mustCompile(tb testing.TB, kind Kind, source string) *Program {
	tb.Helper()
	p, err := Compile(kind, source)
	if err != nil {
		tb.Fatalf("%s: %v", source, err)
	}
	return p
}

func order(tb testing.TB) *Input {
	tb.Helper()
	return change(tb, lockstep.Update, orderRow, `{"status": "new", "amount": "10.00"}`)
}

func checkMatches(t *testing.T, in *Input, cases map[string]bool) {
	t.Helper()
	for source, want := range cases {
		got, err := mustCompile(t, Filter, source).Match(in)
		if err != nil || got != want {
			t.Errorf("%s: got %t, %v", source, got, err)
		}
	}
}

func checkResults(t *testing.T, in *Input, cases map[string]string) {
	t.Helper()
	for source, want := range cases {
		got, err := mustCompile(t, Transform, source).Apply(in)
		if err != nil {
			t.Errorf("%s: %v", source, err)
			continue
		}
		if diff := cmp.Diff(want, string(got)); diff != "" {
			t.Errorf("%s (-want +got):\n%s", source, diff)
		}
		if !json.Valid(got) {
			t.Errorf("%s: %s is not JSON", source, got)
		}
	}
}

func TestTheContractsExamples(t *testing.T) {
	t.Parallel()
	const filter = `record.amount > 100 and changes.status != nil`
	for _, c := range []struct {
		row, changes string
		want         bool
	}{
		{`{"amount":"100.01"}`, `{"status":"new"}`, true},
		{`{"amount":"100.00"}`, `{"status":"new"}`, false},
		{`{"amount":"100.01"}`, `{"amount":"1"}`, false},
		{`{"amount":"100.01"}`, ``, false},
		{`{"amount":null}`, `{"status":"new"}`, false},
		{`{}`, ``, false},
		{``, ``, false},
	} {
		got, err := mustCompile(t, Filter, filter).Match(change(t, lockstep.Update, c.row, c.changes))
		if err != nil || got != c.want {
			t.Errorf("%s, %s: got %t, %v", c.row, c.changes, got, err)
		}
	}
	checkResults(t, order(t), map[string]string{
		`{"id": record.id, "total": record.amount}`: `{"id":7,"total":"12.50"}`,
	})
}

func TestNumericStringsCompareAsNumbersWithNumbers(t *testing.T) {
	t.Parallel()
	checkMatches(t, order(t), map[string]bool{
		`record.amount == 12.5`:                   true,
		`record.amount == 12.50`:                  true,
		`12.5 == record.amount`:                   true,
		`record.amount != 12.5`:                   false,
		`record.amount > 9`:                       true,
		`record.amount >= 12.500`:                 true,
		`record.amount < 12.5000000000000000001`:  true,
		`record.amount <= 12.4999999999999999999`: false,
		`record.amount > -1`:                      true,
		`100 > record.amount`:                     true,
		`1 < record.amount < 20`:                  true,
		`record.amount in [1, 12.5]`:              true,
		`record.amount not in [1, 12.5]`:          false,
		// Two strings are text, unless one is made a number.
		`record.amount < record.tax`:                 true,
		`number(record.amount) > record.tax`:         true,
		`number(record.amount) > number(record.tax)`: true,
		`record.amount == "12.5"`:                    false,
		// A code with leading zeros is no number.
		`record.zip == 1234`:    false,
		`record.zip == "01234"`: true,
		// In the order of Postgres.
		`record.nan > 1e300`:               true,
		`record.nan == record.nan`:         true,
		`number(record.nan) > record.inf`:  true,
		`record.inf < -1e300`:              true,
		`record.name == 7`:                 false,
		`record.name != 7`:                 true,
		`record.active == 1`:               false,
		`record.at >= "2026-11-21T00"`:     true,
		`record.at < "2026-11-21T10:00:1"`: true,
	})
}

func TestBigNumbersAreExact(t *testing.T) {
	t.Parallel()
	checkMatches(t, order(t), map[string]bool{
		`record.big == 9007199254740993`:                              true,
		`record.big == 9007199254740992`:                              false,
		`record.big > 9007199254740992`:                               true,
		`record.big > 9007199254740992.9`:                             true,
		`record.big - 1 == 9007199254740992`:                          true,
		`record.huge == number("123456789012345678901234567890")`:     true,
		`record.huge > number("123456789012345678901234567889.9")`:    true,
		`record.huge > record.big`:                                    true,
		`record.rate == 1.1`:                                          true,
		`record.rate * 3 == 3.3`:                                      true,
		`0.1 + 0.2 == 0.3`:                                            true,
		`1e3 == 1000`:                                                 true,
		`1_000.50 == 1000.5`:                                          true,
		`.5 == 0.5`:                                                   true,
		`-.5 < 0`:                                                     true,
		`0.12345678901234567890123 > 0.12345678901234567890122`:       true,
		`9223372036854775807 + 1 == number("9223372036854775808")`:    true,
		`-9223372036854775807 - 2 == number("-9223372036854775809")`:  true,
		`3037000500 * 3037000500 == number("9223372037000250000")`:    true,
		`number("1e999999999999") > record.huge`:                      true,
		`number("-0.000") == 0`:                                       true,
		`number("0.00010e4") == 1`:                                    true,
		`number("1e-5") < 0.0001`:                                     true,
		`(0 - 9223372036854775807 - 1) / -1 == 9223372036854775808.0`: true,
	})
}

func TestNilIsHarmless(t *testing.T) {
	t.Parallel()
	in := change(t, lockstep.Insert, `{"id": 7, "none": null, "data": {"a": 1}}`, ``)
	checkMatches(t, in, map[string]bool{
		`changes == nil`:                 true,
		`changes.status == nil`:          true,
		`changes.status == null`:         true,
		`changes?.status?.deeper == nil`: true,
		`changes.a.b.c == nil`:           true,
		`changes["a"] == nil`:            true,
		`record.missing == nil`:          true,
		`record.missing != nil`:          false,
		`record.none == nil`:             true,
		`record.none != 5`:               true,
		`record.none > 5`:                false,
		`record.none <= 5`:               false,
		`record.none < record.none`:      false,
		`record.none + 1 == nil`:         true,
		`record.id.deeper == nil`:        true,
		`record.data[0] == nil`:          true,
		`record.none and true`:           false,
		`not record.none`:                true,
		`record.none`:                    false,
		`record.none contains "a"`:       false,
		`record.none matches "a"`:        false,
		`"a" in record.none`:             false,
		`any(record.none, # == 1)`:       false,
		`all(record.none, # == 1)`:       true,
		`len(record.none) == 0`:          true,
		`(record.none ?? 5) == 5`:        true,
		`upper(record.none) == nil`:      true,
		`record.none[1:2] == nil`:        true,
		`(record.none ? 1 : 2) == 2`:     true,
		`"none" in record`:               true,
		`"missing" in record`:            false,
		`sum(record.none) == 0`:          true,
		`max(nil, 3, record.none) == 3`:  true,
	})
}

func TestMetadataAndAction(t *testing.T) {
	t.Parallel()
	checkMatches(t, order(t), map[string]bool{
		`action == "update"`:             true,
		`action in ["insert", "delete"]`: false,
		`metadata.database == "app"`:     true,
		`metadata.table_schema + "." + metadata.table_name == "public.orders"`: true,
		`metadata.seq == 42`:                           true,
		`metadata.commit_lsn == 24023128`:              true,
		`metadata.origin == "sync"`:                    true,
		`metadata.record_pks[0] == "7"`:                true,
		`"body" in metadata.unchanged`:                 true,
		`metadata.old_known`:                           true,
		`metadata.transaction_annotations == nil`:      true,
		`metadata.commit_timestamp startsWith "2026-"`: true,
	})
}

func TestOnlyWhatIsLookedAtIsDecoded(t *testing.T) {
	t.Parallel()
	in := order(t)
	for _, source := range []string{`action == "update"`, `metadata.seq == 42`} {
		if _, err := mustCompile(t, Filter, source).Match(in); err != nil {
			t.Error(err)
		}
	}
	if in.have.record || in.have.changes {
		t.Errorf("decoded %+v", in.have)
	}
	if _, err := mustCompile(t, Filter, `record.id == 7`).Match(in); err != nil || in.have.changes {
		t.Errorf("decoded %+v, %v", in.have, err)
	}
	// A second program finds what the first one decoded.
	first := in.env["record"]
	if _, err := mustCompile(t, Filter, `record.data.b != nil`).Match(in); err != nil || in.env["record"] != first {
		t.Error("decoded again")
	}
}

func TestTransformsKeepOrderTextAndBytes(t *testing.T) {
	t.Parallel()
	checkResults(t, order(t), map[string]string{
		`record`:                                 orderRow,
		`changes`:                                `{"status": "new", "amount": "10.00"}`,
		`{"z": 1, "a": 2, z: 3}`:                 `{"z":3,"a":2}`,
		`{"d": record.data, "t": record.tags}`:   `{"d":{"b": 1.10, "a": {"x": [1, {"y": "z"}]}, "b": 12345678901234567890},"t":["a", "b"]}`,
		`{(record.name): record.big}`:            `{"Ann":9007199254740993}`,
		`[record.huge, record.rate, 1.50, -2]`:   `[123456789012345678901234567890,1.10,1.50,-2]`,
		`record.data.b`:                          `12345678901234567890`,
		`record.data.a.x[1].y`:                   `"z"`,
		`record.data.a.x[-1]`:                    `{"y": "z"}`,
		`record.key`:                             `1`,
		`record.text`:                            `"é\"\\\n"`,
		`nil`:                                    `null`,
		`{}`:                                     `{}`,
		`[]`:                                     `[]`,
		`1..3`:                                   `[1,2,3]`,
		`pick(record, "id", "none", "nothing")`:  `{"id":7,"none":null}`,
		`omit(pick(record, "id", "name"), "id")`: `{"name":"Ann"}`,
		`merge(pick(record, "id"), {"x": 1, "id": 8})`:                           `{"id":8,"x":1}`,
		`{"n": number(record.nan), "i": record.inf}`:                             `{"n":"NaN","i":"-Infinity"}`,
		`map(record.items, ({"sku": .sku, "total": .price * .n, "at": #index}))`: `[{"sku":"p","total":3.00,"at":0},{"sku":"q","total":9.00,"at":1}]`,
		`filter(record.items, .price > 2)`:                                       `[{"sku": "q", "price": "2.25", "n": 4}]`,
		`let x = record.amount; {"net": x - 2}`:                                  `{"net":10.50}`,
		`record.status == "open" ? "o" : nil`:                                    `"o"`,
		`if record.status == "new" { 1 } else { 2 }`:                             `2`,
		`changes.missing ?? record.name`:                                         `"Ann"`,
		`record | pick("id") | keys()`:                                           `["id"]`,
	})
}

func TestArithmeticIsExact(t *testing.T) {
	t.Parallel()
	checkResults(t, order(t), map[string]string{
		`record.amount + 1`:                  `13.50`,
		`record.amount * record.tax`:         `37.50`,
		`record.amount - record.tax`:         `9.50`,
		`record.amount + record.tax`:         `"12.503"`,
		`-number(record.amount)`:             `-12.50`,
		`record.big + 0.5`:                   `9007199254740993.5`,
		`10 / 4`:                             `2.5`,
		`10 / 5`:                             `2`,
		`1 / 3`:                              `0.3333333333333333333333333333333333`,
		`2 / 3`:                              `0.6666666666666666666666666666666667`,
		`-2 / 3`:                             `-0.6666666666666666666666666666666667`,
		`7 % 4`:                              `3`,
		`-7 % 4`:                             `-3`,
		`7.5 % 2`:                            `1.5`,
		`int(-12.7)`:                         `-12`,
		`floor(-12.5)`:                       `-13`,
		`ceil(record.amount)`:                `13`,
		`round(12.5)`:                        `13`,
		`round(-12.5)`:                       `-13`,
		`round(record.rate * 1.111, 2)`:      `1.22`,
		`abs(-3)`:                            `3`,
		`abs("-3.20")`:                       `3.20`,
		`min(3, record.amount, 20)`:          `3`,
		`max([1, 2.5, "2.75"])`:              `2.75`,
		`sum(map(record.items, .price))`:     `3.75`,
		`reduce(record.items, #acc + .n, 0)`: `6`,
		`+record.amount`:                     `12.50`,
		`number("1e400") * 10`:               `1` + strings.Repeat("0", 401),
		`0.00 * 5`:                           `0.00`,
		`0 / 5`:                              `0`,
	})
}

func TestFunctions(t *testing.T) {
	t.Parallel()
	checkResults(t, order(t), map[string]string{
		`upper(record.name)`:    `"ANN"`,
		`lower("ÄB")`:           `"äb"`,
		`trim("  a ")`:          `"a"`,
		`trim("xax", "x")`:      `"a"`,
		`trimPrefix("ab", "a")`: `"b"`,
		`trimSuffix("ab", "b")`: `"a"`,
		`hasPrefix("ab", "a") and hasSuffix("ab", "b")`:          `true`,
		`split("a,b", ",")`:                                      `["a","b"]`,
		`join(["a", 1, nil, true], "-")`:                         `"a-1--true"`,
		`replace("aaa", "a", "bc")`:                              `"bcbcbc"`,
		`indexOf("äbc", "c")`:                                    `2`,
		`indexOf("abc", "x")`:                                    `null`,
		`"äbcd"[1:3]`:                                            `"bc"`,
		`[1, 2, 3, 4][1:-1]`:                                     `[2,3]`,
		`record.tags[5:]`:                                        `[]`,
		`[len("äb"), len(record.tags), len({"a": 1})]`:           `[2,2,1]`,
		`string(record.rate)`:                                    `"1.10"`,
		`string(7) + string(true) + string([1])`:                 `"7true[1]"`,
		`toJSON(record.data)`:                                    `"{\"b\": 1.10, \"a\": {\"x\": [1, {\"y\": \"z\"}]}, \"b\": 12345678901234567890}"`,
		`fromJSON(" {\"a\": [1.10]} ").a[0]`:                     `1.10`,
		`keys(record.items[0])`:                                  `["sku","price","n"]`,
		`values(record.items[0])`:                                `["p","1.50",2]`,
		`get(record, "id")`:                                      `7`,
		`first(record.tags) + last(record.tags)`:                 `"ab"`,
		`concat(record.tags, [1], nil)`:                          `["a","b",1]`,
		`reverse(record.tags)`:                                   `["b","a"]`,
		`sort([3, 1.5, "2", nil])`:                               `[1.5,"2",3,null]`,
		`uniq([1, 1.0, "1", "a", "a"])`:                          `[1,"a"]`,
		`map([nil, true, 1, 1.5, "s", [], {}, record], type(#))`: `["null","bool","number","number","string","array","object","object"]`,
		`[any(record.tags, # == "a"), all(record.tags, # == "a"), none(record.tags, # == "c"), one(record.tags, # == "a")]`: `[true,false,true,true]`,
		`[find(record.tags, # > "a"), findIndex(record.tags, # == "b"), count(record.items, .n > 2)]`:                       `["b",1,1]`,
		`findIndex(record.tags, # == "x")`: `null`,
	})
	checkMatches(t, order(t), map[string]bool{
		`record.name matches "^A.n$"`:                                        true,
		`record.name not matches "n"`:                                        false,
		`record.name startsWith "A" && !(record.name endsWith "x") || false`: true,
		`record.data == {"a": {"x": [1.0, {"y": "z"}]}, "b": 1}`:             false,
		`record.items[0] == {"n": 2.0, "sku": "p", "price": 1.5}`:            true,
		`record.tags == ["a", "b"]`:                                          true,
		`record.tags == ["b", "a"]`:                                          false,
		`record.items[0] in record.items`:                                    true,
		`"a" in record.tags and "sku" in record.items[0]`:                    true,
		`record.active`:                        true,
		`record.active == true ? true : false`: true,
	})
}

func TestEvaluationErrors(t *testing.T) {
	t.Parallel()
	in := order(t)
	for source, want := range map[string]string{
		`record.name > 5`:             `transform (line 1, column 13): >: a string that is no number cannot be compared or calculated with a number`,
		`1 +` + "\n" + ` record.name`: `transform (line 1, column 3): a string that is no number cannot be compared or calculated with a number`,
		`record.active > 1`:           `transform (line 1, column 15): >: a number is needed here, not bool`,
		`record.id and true`:          `transform (line 1, column 8): true or false is needed here, not number`,
		`1 / 0`:                       `transform (line 1, column 3): division by zero`,
		`record.id % 0.0`:             `transform (line 1, column 11): division by zero`,
		`record.nan + 1`:              `transform (line 1, column 12): NaN and Infinity cannot be calculated with`,
		`upper(record.id)`:            `transform (line 1, column 1): a string is needed here, not number`,
		`number(record.name)`:         `transform (line 1, column 1): the string is no number`,
		`any(record.name, true)`:      `transform (line 1, column 12): a list is needed here, not string`,
		`keys(record.tags)`:           `transform (line 1, column 1): an object is needed here, not array`,
		`record.id contains "a"`:      `transform (line 1, column 11): contains needs strings, not number and string`,
		`record.id matches "a"`:       `transform (line 1, column 11): matches needs a string, not number`,
		`round(1, -1)`:                `transform (line 1, column 1): the number of digits is a whole number from 0 to 20000`,
		`fromJSON("{")`:               `transform (line 1, column 1): the string is not JSON`,
		`{(record.id): 1}`:            `transform (line 1, column 1): the key of an object is a string, not number`,
		`record.tags[record.rate:]`:   `transform (line 1, column 12): a slice needs whole numbers, not number`,
		`number("1e30000") + 1`:       `transform (line 1, column 19): the number has too many digits to calculate with`,
		`sort(["a", 1])`:              `transform (line 1, column 1): a string that is no number cannot be compared or calculated with a number`,
	} {
		_, err := mustCompile(t, Transform, source).Apply(in)
		var e *Error
		if !errors.As(err, &e) || !errors.Is(err, lockstep.ErrInvalid) {
			t.Errorf("%s: %v", source, err)
			continue
		}
		if diff := cmp.Diff(want, err.Error()); diff != "" {
			t.Errorf("%s (-want +got):\n%s", source, diff)
		}
	}
	if _, err := mustCompile(t, Filter, `record.name`).Match(in); err == nil || err.Error() != "filter: yielded string, not true or false" {
		t.Errorf("got %v", err)
	}
}

func TestProgramsAreSharedByGoroutines(t *testing.T) {
	t.Parallel()
	p := mustCompile(t, Filter, `any(record.items, .price * 2 > 4) and record.status in ["open", "x"] and record.name matches "A"`)
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 50 {
				if ok, err := p.Match(order(t)); !ok || err != nil {
					t.Error(ok, err)
				}
			}
		})
	}
	wg.Wait()
}
