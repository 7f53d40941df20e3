package value

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"lockstep"
)

// Built-in oids used by the tests.
const (
	boolOID        = 16
	byteaOID       = 17
	int8OID        = 20
	int2vectorOID  = 22
	int4OID        = 23
	textOID        = 25
	jsonOID        = 114
	float8OID      = 701
	timestampOID   = 1114
	timestamptzOID = 1184
	numericOID     = 1700
	jsonbOID       = 3802
)

// builtinEncoder returns the encoder of a type that needs no look-up.
func builtinEncoder(tb testing.TB, oid uint32, o Options) Encoder {
	tb.Helper()
	s, ok := builtins(o)[oid]
	if !ok {
		tb.Fatalf("type %d is not built in", oid)
	}
	return Encoder{s}
}

type valueCase struct {
	text, want string
	note       Note
}

func checkValues(t *testing.T, e Encoder, cases []valueCase) {
	t.Helper()
	for _, c := range cases {
		got, note := e.Append([]byte("x"), []byte(c.text))
		if diff := cmp.Diff("x"+c.want, string(got)); diff != "" {
			t.Errorf("%q (-want +got):\n%s", c.text, diff)
		}
		if note != c.note {
			t.Errorf("%q: note %b, want %b", c.text, note, c.note)
		}
		if !json.Valid(got[1:]) {
			t.Errorf("%q: %s is not JSON", c.text, got[1:])
		}
	}
}

func TestBool(t *testing.T) {
	t.Parallel()
	checkValues(t, builtinEncoder(t, boolOID, Options{}), []valueCase{
		{text: "t", want: "true"},
		{text: "f", want: "false"},
		{text: "true", want: "true"},
		{text: "false", want: "false"},
		{text: "yes", want: `"yes"`, note: NoteMalformed},
		{text: "", want: `""`, note: NoteMalformed},
	})
}

func TestIntegersAreExactNumbers(t *testing.T) {
	t.Parallel()
	cases := []valueCase{
		{text: "0", want: "0"},
		{text: "-1", want: "-1"},
		{text: "9223372036854775807", want: "9223372036854775807"},
		{text: "-9223372036854775808", want: "-9223372036854775808"},
		{text: "", want: `""`, note: NoteMalformed},
		{text: "-", want: `"-"`, note: NoteMalformed},
		{text: "007", want: `"007"`, note: NoteMalformed},
		{text: "1.5", want: `"1.5"`, note: NoteMalformed},
		{text: "1,\"x\":2", want: `"1,\"x\":2"`, note: NoteMalformed},
	}
	for _, oid := range []uint32{21, int4OID, int8OID} {
		checkValues(t, builtinEncoder(t, oid, Options{}), cases)
	}
}

func TestInt8AsStringLeavesTheOtherIntegersNumbers(t *testing.T) {
	t.Parallel()
	o := Options{Int8AsString: true}
	checkValues(t, builtinEncoder(t, int8OID, o), []valueCase{{text: "9007199254740993", want: `"9007199254740993"`}})
	checkValues(t, builtinEncoder(t, 1016, o), []valueCase{{text: "{1,NULL}", want: `["1",null]`}})
	checkValues(t, builtinEncoder(t, int4OID, o), []valueCase{{text: "7", want: "7"}})
}

func TestNumericKeepsEveryDigit(t *testing.T) {
	t.Parallel()
	checkValues(t, builtinEncoder(t, numericOID, Options{}), []valueCase{
		{text: "12.50", want: `"12.50"`},
		{text: "0.10000000000000000000000000000000000001", want: `"0.10000000000000000000000000000000000001"`},
		{text: "NaN", want: `"NaN"`},
		{text: "-Infinity", want: `"-Infinity"`},
	})
}

func TestFloats(t *testing.T) {
	t.Parallel()
	checkValues(t, builtinEncoder(t, float8OID, Options{}), []valueCase{
		{text: "0.1", want: "0.1"},
		{text: "-0", want: "-0"},
		{text: "1e+20", want: "1e+20"},
		{text: "5e-324", want: "5e-324"},
		{text: "1.7976931348623157e+308", want: "1.7976931348623157e+308"},
		{text: "NaN", want: `"NaN"`},
		{text: "Infinity", want: `"Infinity"`},
		{text: "-Infinity", want: `"-Infinity"`},
		{text: "1.", want: `"1."`, note: NoteMalformed},
		{text: ".5", want: `".5"`, note: NoteMalformed},
		{text: "1e", want: `"1e"`, note: NoteMalformed},
		{text: "01", want: `"01"`, note: NoteMalformed},
		{text: "inf", want: `"inf"`, note: NoteMalformed},
	})
}

func TestJSONIsCopiedByteForByte(t *testing.T) {
	t.Parallel()
	deep := strings.Repeat("[", maxDepth-1) + strings.Repeat("]", maxDepth-1)
	tooDeep := strings.Repeat("[", 20000) + strings.Repeat("]", 20000)
	cases := []valueCase{
		{text: `{"b": 1.10, "a": 12345678901234567890, "a": 1e400}`, want: `{"b": 1.10, "a": 12345678901234567890, "a": 1e400}`},
		{text: " {\n\t\"a\" :\r [ ] , \"b\":{} } ", want: " {\n\t\"a\" :\r [ ] , \"b\":{} } "},
		{text: `"a\u00e9\"\\\/\b😀"`, want: `"a\u00e9\"\\\/\b😀"`},
		{text: `[true,false,null,-0,1E+2]`, want: `[true,false,null,-0,1E+2]`},
		{text: `null`, want: `null`, note: NoteJSONNull},
		{text: ` null `, want: ` null `, note: NoteJSONNull},
		{text: `"null"`, want: `"null"`},
		{text: deep, want: deep},
		{text: tooDeep, want: `"` + tooDeep + `"`, note: NoteMalformed},
		{text: "\"a\xffb\"", want: "\"a\uFFFDb\"", note: NoteInvalidUTF8},
		{text: ``, want: `""`, note: NoteMalformed},
		{text: `{"a":1`, want: `"{\"a\":1"`, note: NoteMalformed},
		{text: `[1,]`, want: `"[1,]"`, note: NoteMalformed},
		{text: `[1 2]`, want: `"[1 2]"`, note: NoteMalformed},
		{text: `{"a":1,}`, want: `"{\"a\":1,}"`, note: NoteMalformed},
		{text: `{"a" 1}`, want: `"{\"a\" 1}"`, note: NoteMalformed},
		{text: `1 2`, want: `"1 2"`, note: NoteMalformed},
		{text: `"\u12g4"`, want: `"\"\\u12g4\""`, note: NoteMalformed},
		{text: `"\x"`, want: `"\"\\x\""`, note: NoteMalformed},
		{text: "\"a\nb\"", want: `"\"a\nb\""`, note: NoteMalformed},
		{text: `nul`, want: `"nul"`, note: NoteMalformed},
		{text: "\xff", want: "\"\uFFFD\"", note: NoteMalformed | NoteInvalidUTF8},
	}
	for _, oid := range []uint32{jsonOID, jsonbOID} {
		checkValues(t, builtinEncoder(t, oid, Options{}), cases)
	}
}

func TestTimestampsAreRFC3339WithMicroseconds(t *testing.T) {
	t.Parallel()
	checkValues(t, builtinEncoder(t, timestamptzOID, Options{}), []valueCase{
		{text: "2026-11-21 10:00:00+00", want: `"2026-11-21T10:00:00.000000Z"`},
		{text: "2026-11-21 10:00:00.12+00", want: `"2026-11-21T10:00:00.120000Z"`},
		{text: "0001-01-01 00:00:00.123456+00", want: `"0001-01-01T00:00:00.123456Z"`},
		{text: "infinity", want: `"infinity"`},
		{text: "-infinity", want: `"-infinity"`},
		{text: "0044-03-15 12:00:00+00 BC", want: `"0044-03-15 12:00:00+00 BC"`},
		{text: "0044-03-15 12:00:00.5+00 BC", want: `"0044-03-15 12:00:00.5+00 BC"`},
		{text: "294276-12-31 23:59:59.999999+00", want: `"294276-12-31 23:59:59.999999+00"`},
		{text: "10000-01-01 00:00:00+00", want: `"10000-01-01 00:00:00+00"`},
		// Not of a session with TimeZone UTC and DateStyle ISO.
		{text: "2026-11-21 10:00:00+02", want: `"2026-11-21 10:00:00+02"`, note: NoteMalformed},
		{text: "21.11.2026 10:00:00 UTC", want: `"21.11.2026 10:00:00 UTC"`, note: NoteMalformed},
		{text: "2026-11-21 10:00:00.1234567+00", want: `"2026-11-21 10:00:00.1234567+00"`, note: NoteMalformed},
		{text: "2026-11-21 10:00:00.+00", want: `"2026-11-21 10:00:00.+00"`, note: NoteMalformed},
		{text: "10000-01-01 00:00:00\"", want: `"10000-01-01 00:00:00\""`, note: NoteMalformed},
		{text: "", want: `""`, note: NoteMalformed},
	})
	checkValues(t, builtinEncoder(t, timestampOID, Options{}), []valueCase{
		{text: "2026-11-21 10:00:00.123456", want: `"2026-11-21T10:00:00.123456"`},
		{text: "2026-11-21 10:00:00", want: `"2026-11-21T10:00:00.000000"`},
		{text: "4713-01-01 00:00:00 BC", want: `"4713-01-01 00:00:00 BC"`},
		{text: "infinity", want: `"infinity"`},
		{text: "2026-11-21 10:00:00+00", want: `"2026-11-21 10:00:00+00"`, note: NoteMalformed},
	})
}

func TestByteaIsPaddedBase64(t *testing.T) {
	t.Parallel()
	long := bytes.Repeat([]byte{0xff}, 1000)
	checkValues(t, builtinEncoder(t, byteaOID, Options{}), []valueCase{
		{text: `\x`, want: `""`},
		{text: `\x00`, want: `"AA=="`},
		{text: `\xDEADbeef`, want: `"3q2+7w=="`},
		{text: `\x` + strings.Repeat("ff", 1000), want: string(mustJSON(long))},
		{text: `\xabc`, want: `"\\xabc"`, note: NoteMalformed},
		{text: `\xzz`, want: `"\\xzz"`, note: NoteMalformed},
		{text: `\000abc`, want: `"\\000abc"`, note: NoteMalformed},
	})
}

func TestTextIsAJSONString(t *testing.T) {
	t.Parallel()
	checkValues(t, Encoder{}, []valueCase{
		{text: "", want: `""`},
		{text: `a "quoted" back\slash`, want: `"a \"quoted\" back\\slash"`},
		{text: "tab\t newline\n return\r bell\a del\x7f", want: `"tab\t newline\n return\r bell\u0007 del` + "\x7f" + `"`},
		{text: "häßlich 漢字 😀 \u2028", want: "\"häßlich 漢字 😀 \u2028\""},
		{text: "padded char   ", want: `"padded char   "`},
		{text: "a\xe4b \xed\xa0\x80", want: "\"a\uFFFDb \uFFFD\uFFFD\uFFFD\"", note: NoteInvalidUTF8},
	})
}

func TestInt2vectorIsText(t *testing.T) {
	t.Parallel()
	checkValues(t, builtinEncoder(t, int2vectorOID, Options{}), []valueCase{{text: "1 2 3", want: `"1 2 3"`}})
}

// FuzzEncoders: whatever the text, every rule gives one JSON value, in valid
// UTF-8, and leaves what was in dst before.
func FuzzEncoders(f *testing.F) {
	for _, seed := range []string{
		"", "t", "-12.5e+3", "NaN", `{"a":[1,null,"\u0000"]}`, "2026-11-21 10:00:00.5+00", "infinity", `\x00ff`,
		`{1,NULL,"a\"b",{2}}`, `[0:1]={1,2}`, `"a"=>"b", "c"=>NULL`, "[1,2.5e-3]", "{{},{}}", `{"{\"a\": 1}",null}`, "\xff",
	} {
		f.Add([]byte(seed))
	}
	encoders := everyEncoder()
	f.Fuzz(func(t *testing.T, text []byte) {
		given := bytes.Clone(text)
		for name, e := range encoders {
			out, _ := e.Append([]byte("before"), text)
			if !bytes.HasPrefix(out, []byte("before")) || !json.Valid(out[len("before"):]) {
				t.Errorf("%s %q: %q", name, text, out)
			}
			if !bytes.Equal(bytes.ToValidUTF8(out, nil), out) {
				t.Errorf("%s %q: %q is not UTF-8", name, text, out)
			}
		}
		if !bytes.Equal(given, text) {
			t.Errorf("the text was changed from %q to %q", given, text)
		}
	})
}

// FuzzText: the fast path writes what the vocabulary's own function writes.
func FuzzText(f *testing.F) {
	f.Add([]byte("plain text of more than eight bytes"))
	f.Add([]byte("\"\\\x00\x1f\x20\x7f\x80\xff😀"))
	f.Fuzz(func(t *testing.T, text []byte) {
		got, _ := Encoder{}.Append(nil, text)
		if diff := cmp.Diff(string(lockstep.AppendJSONString(nil, text)), string(got)); diff != "" {
			t.Error(diff)
		}
	})
}

// FuzzJSON: what encoding/json calls valid is copied, what it does not is quoted.
func FuzzJSON(f *testing.F) {
	for _, seed := range []string{`{"a":[1,-0.5e+1,true,false,null,"x\u00ff\n"]}`, ` [ ] `, `"`, `{"a"}`, `-`, `01`, "\"\xff\""} {
		f.Add([]byte(seed))
	}
	e := Encoder{&shape{kind: kindJSON}}
	f.Fuzz(func(t *testing.T, text []byte) {
		got, note := e.Append(nil, text)
		if valid := json.Valid(text); valid != (note&NoteMalformed == 0) {
			t.Errorf("%q: json.Valid says %t, note %b", text, valid, note)
		}
		if note&^NoteJSONNull == 0 && !bytes.Equal(got, text) {
			t.Errorf("%q became %q", text, got)
		}
	})
}

// FuzzTimestamp: a time that was understood can be parsed, and is the same time.
func FuzzTimestamp(f *testing.F) {
	for _, seed := range []string{"2026-11-21 10:00:00.123456+00", "0044-03-15 12:00:00+00 BC", "12345-01-01 00:00:00+00", "infinity"} {
		f.Add([]byte(seed))
	}
	e := Encoder{&shape{kind: kindTimestampTZ}}
	f.Fuzz(func(t *testing.T, text []byte) {
		got, note := e.Append(nil, text)
		if note != 0 {
			return
		}
		var s string
		if err := json.Unmarshal(got, &s); err != nil {
			t.Fatalf("%q: %v", got, err)
		}
		if s == string(text) {
			return
		}
		if len(s) != len("2026-11-21T10:00:00.123456Z") || s[:10] != string(text[:10]) || s[11:19] != string(text[11:19]) {
			t.Errorf("%q became %q", text, s)
		}
	})
}

func everyEncoder() map[string]Encoder {
	all := map[string]Encoder{}
	kinds := map[string]kind{
		"text": kindText, "bool": kindBool, "int": kindInt, "float": kindFloat, "json": kindJSON, "timestamp": kindTimestamp,
		"timestamptz": kindTimestampTZ, "bytea": kindBytea, "hstore": kindHstore, "vector": kindVector,
	}
	for name, k := range kinds {
		s := &shape{kind: k}
		array := &shape{kind: kindArray, elem: s, delim: ','}
		all[name] = Encoder{s}
		all[name+"[]"] = Encoder{array}
		all[name+"[] domain, array of it"] = Encoder{&shape{kind: kindArray, elem: array, delim: ','}}
	}
	return all
}

func mustJSON(v any) []byte {
	b, err := json.Marshal(v)
	if err != nil {
		panic(err)
	}
	return b
}
