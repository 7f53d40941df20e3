package value

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

func TestArraysKeepDimensionsAndNulls(t *testing.T) {
	t.Parallel()
	checkValues(t, builtinEncoder(t, 1007, Options{}), []valueCase{
		{text: "{}", want: "[]"},
		{text: "{1}", want: "[1]"},
		{text: "{1,NULL,-3}", want: "[1,null,-3]"},
		{text: "{{1,2},{3,NULL}}", want: "[[1,2],[3,null]]"},
		{text: "{{{1}},{{2}}}", want: "[[[1]],[[2]]]"},
		{text: "[0:2]={1,2,3}", want: `"[0:2]={1,2,3}"`},
		{text: "[1:1][-2:-1]={{1,2}}", want: `"[1:1][-2:-1]={{1,2}}"`},
		{text: "{1,x}", want: `[1,"x"]`, note: NoteMalformed},
		{text: "", want: `""`, note: NoteMalformed},
		{text: "1", want: `"1"`, note: NoteMalformed},
		{text: "{1", want: `"{1"`, note: NoteMalformed},
		{text: "{1,", want: `"{1,"`, note: NoteMalformed},
		{text: "{1,}", want: `"{1,}"`, note: NoteMalformed},
		{text: "{1}}", want: `"{1}}"`, note: NoteMalformed},
		{text: `{"1`, want: `"{\"1"`, note: NoteMalformed},
		{text: `{"1"2}`, want: `"{\"1\"2}"`, note: NoteMalformed},
		{text: strings.Repeat("{", 1000), want: `"` + strings.Repeat("{", 1000) + `"`, note: NoteMalformed},
	})
}

func TestTextArraysUnescapeTheirElements(t *testing.T) {
	t.Parallel()
	checkValues(t, builtinEncoder(t, 1009, Options{}), []valueCase{
		{text: `{a,"b c","","NULL",NULL,null}`, want: `["a","b c","","NULL",null,"null"]`},
		{text: `{"a\"b","c\\d","{x}","1,2"}`, want: `["a\"b","c\\d","{x}","1,2"]`},
		{text: "{\"line\nbreak\",häß}", want: `["line\nbreak","häß"]`},
		{text: "{\"a\\\"\xff\",b}", want: "[\"a\\\"\uFFFD\",\"b\"]", note: NoteInvalidUTF8},
	})
}

func TestArrayElementsFollowTheirOwnRule(t *testing.T) {
	t.Parallel()
	checkValues(t, builtinEncoder(t, 1231, Options{}), []valueCase{{text: "{1.50,NaN,NULL}", want: `["1.50","NaN",null]`}})
	checkValues(t, builtinEncoder(t, 1022, Options{}), []valueCase{{text: "{1.5,NaN,-Infinity}", want: `[1.5,"NaN","-Infinity"]`}})
	checkValues(t, builtinEncoder(t, 1000, Options{}), []valueCase{{text: "{t,f}", want: `[true,false]`}})
	checkValues(t, builtinEncoder(t, 1001, Options{}), []valueCase{{text: `{"\\x00ff","\\x"}`, want: `["AP8=",""]`}})
	checkValues(t, builtinEncoder(t, 1185, Options{}), []valueCase{
		{text: `{"2026-11-21 10:00:00+00",infinity,"0044-03-15 12:00:00+00 BC"}`, want: `["2026-11-21T10:00:00.000000Z","infinity","0044-03-15 12:00:00+00 BC"]`},
	})
	checkValues(t, builtinEncoder(t, 3807, Options{}), []valueCase{
		{text: `{"{\"a\": 1.10, \"b\": \"x\\\\y\"}",null,NULL,12345678901234567890}`, want: `[{"a": 1.10, "b": "x\\y"},null,null,12345678901234567890]`},
	})
	// A box holds commas: its arrays are separated by semicolons.
	checkValues(t, builtinEncoder(t, 1020, Options{}), []valueCase{{text: "{(1,1),(0,0);(3,3),(2,2);NULL}", want: `["(1,1),(0,0)","(3,3),(2,2)",null]`}})
}

func TestArrayOfADomainOverAnArray(t *testing.T) {
	t.Parallel()
	inner := &shape{kind: kindArray, elem: &shape{kind: kindText}, delim: ','}
	checkValues(t, Encoder{&shape{kind: kindArray, elem: inner, delim: ','}}, []valueCase{
		{text: `{"{1,2}",NULL,"{\"a\\\"b\",NULL}"}`, want: `[["1","2"],null,["a\"b",null]]`},
		{text: `{"[0:1]={1,2}"}`, want: `["[0:1]={1,2}"]`},
	})
}

func TestHstoreIsAnObject(t *testing.T) {
	t.Parallel()
	checkValues(t, Encoder{&shape{kind: kindHstore}}, []valueCase{
		{text: "", want: "{}"},
		{text: `"a"=>"1"`, want: `{"a":"1"}`},
		{text: `"a"=>NULL, "b"=>"NULL", ""=>""`, want: `{"a":null,"b":"NULL","":""}`},
		{text: `"q\"\\k"=>"x\\\"y, \"z\"=>1"`, want: `{"q\"\\k":"x\\\"y, \"z\"=>1"}`},
		{text: "\"a\xff\"=>\"b\"", want: "{\"a\uFFFD\":\"b\"}", note: NoteInvalidUTF8},
		{text: `a=>1`, want: `"a=>1"`, note: NoteMalformed},
		{text: `"a"=>`, want: `"\"a\"=>"`, note: NoteMalformed},
		{text: `"a"=>"`, want: `"\"a\"=>\""`, note: NoteMalformed},
		{text: `"a"=>NUL`, want: `"\"a\"=>NUL"`, note: NoteMalformed},
		{text: `"a"=>"1" "b"=>"2"`, want: `"\"a\"=>\"1\" \"b\"=>\"2\""`, note: NoteMalformed},
		{text: `"a"=>"1", `, want: `"\"a\"=>\"1\", "`, note: NoteMalformed},
	})
}

func TestVectorIsAnArrayOfNumbers(t *testing.T) {
	t.Parallel()
	checkValues(t, Encoder{&shape{kind: kindVector}}, []valueCase{
		{text: "[1,-2.5,3e-05]", want: "[1,-2.5,3e-05]"},
		{text: "{1:1}/3", want: `"{1:1}/3"`, note: NoteMalformed},
		{text: "[]", want: `"[]"`, note: NoteMalformed},
		{text: "[1,]", want: `"[1,]"`, note: NoteMalformed},
		{text: "[1]]", want: `"[1]]"`, note: NoteMalformed},
		{text: "[1", want: `"[1"`, note: NoteMalformed},
	})
}

// TestArrayRoundTrip: any nesting of any texts, written as array_out writes it,
// becomes the same nesting of the same texts.
func TestArrayRoundTrip(t *testing.T) {
	t.Parallel()
	e := builtinEncoder(t, 1009, Options{})
	rapid.Check(t, func(t *rapid.T) {
		var build func(depth int) (string, any)
		build = func(depth int) (string, any) {
			n := rapid.IntRange(1, 4).Draw(t, "n")
			texts, values := make([]string, n), make([]any, n)
			for i := range n {
				switch {
				case depth > 1:
					texts[i], values[i] = build(depth - 1)
				case rapid.Bool().Draw(t, "null"):
					texts[i] = "NULL"
				default:
					s := rapid.StringMatching(`[ab"\\{},é \n]{0,6}`).Draw(t, "element")
					texts[i], values[i] = `"`+strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(s)+`"`, s
				}
			}
			return "{" + strings.Join(texts, ",") + "}", values
		}
		text, want := build(rapid.IntRange(1, 6).Draw(t, "dimensions"))
		out, note := e.Append(nil, []byte(text))
		var got any
		if err := json.Unmarshal(out, &got); err != nil || note != 0 {
			t.Fatalf("%s: %s: note %b, %v", text, out, note, err)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Fatalf("%s: %s", text, diff)
		}
	})
}

func FuzzArray(f *testing.F) {
	for _, seed := range []string{"{}", "{{1},{2}}", `{"a\"b",NULL}`, "[0:1]={1,2}", "{{{{{{{1}}}}}}}", `{"`, "{,}"} {
		f.Add([]byte(seed))
	}
	e := Encoder{&shape{kind: kindArray, elem: &shape{kind: kindJSON}, delim: ','}}
	f.Fuzz(func(t *testing.T, text []byte) {
		if out, _ := e.Append(nil, text); !json.Valid(out) {
			t.Errorf("%q became %q", text, out)
		}
	})
}

func FuzzHstore(f *testing.F) {
	for _, seed := range []string{"", `"a"=>"b"`, `"a"=>NULL, "\"\\"=>""`, `"a"=>`, `"a`, `=>`} {
		f.Add([]byte(seed))
	}
	e := Encoder{&shape{kind: kindHstore}}
	f.Fuzz(func(t *testing.T, text []byte) {
		out, note := e.Append(nil, text)
		var object map[string]*string
		if err := json.Unmarshal(out, &object); err != nil && note&NoteMalformed == 0 {
			t.Errorf("%q became %q: %v", text, out, err)
		}
	})
}
