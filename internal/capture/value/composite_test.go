package value

import (
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

func TestAppendFields(t *testing.T) {
	t.Parallel()
	const null = "\x00"
	for text, want := range map[string][]string{
		`()`:                         {null},
		`(,)`:                        {null, null},
		`(a)`:                        {"a"},
		`(a,"b ""c",)`:               {"a", `b "c`, null},
		`("",x,"")`:                  {"", "x", ""},
		`("a\\b","(1,2)",)`:          {`a\b`, "(1,2)", null},
		`(a\,b,c)`:                   {"a,b", "c"},
		"(\"line\nbreak\",häß)":      {"line\nbreak", "häß"},
		`("(""x """"y"""""",\\\\)")`: {`("x ""y""",\\)`},
	} {
		fields, err := AppendFields(nil, []byte(text))
		if err != nil {
			t.Errorf("%s: %v", text, err)
		}
		var got []string
		for _, f := range fields {
			if f.Null {
				got = append(got, null)
			} else {
				got = append(got, string(f.Text))
			}
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", text, diff)
		}
	}
}

func TestAppendFieldsRefusesWhatIsNoComposite(t *testing.T) {
	t.Parallel()
	for _, text := range []string{"", "(", ")", "a", "(a", "(a,", `("a)`, `(a\`, "(a))", "(a)b", "(a)(b)"} {
		if fields, err := AppendFields(nil, []byte(text)); !errors.Is(err, errNotComposite) {
			t.Errorf("%q: %v, %v", text, fields, err)
		}
	}
}

// TestCompositeRoundTrip: rows written as record_out writes them come back.
func TestCompositeRoundTrip(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		want := rapid.SliceOfN(rapid.Ptr(rapid.StringMatching(`[ab"\\(), é\n]{0,6}`), true), 1, 6).Draw(t, "row")
		texts := make([]string, len(want))
		for i, s := range want {
			if s != nil {
				texts[i] = `"` + strings.NewReplacer(`\`, `\\`, `"`, `""`).Replace(*s) + `"`
			}
		}
		fields, err := AppendFields(nil, []byte("("+strings.Join(texts, ",")+")"))
		if err != nil {
			t.Fatal(err)
		}
		got := make([]*string, len(fields))
		for i, f := range fields {
			if s := string(f.Text); !f.Null {
				got[i] = &s
			}
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Fatal(diff)
		}
	})
}

func FuzzComposite(f *testing.F) {
	for _, seed := range []string{"()", "(,)", `(a,"b ""c",)`, `("\\",)`, `(a\`, `("`} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		size := len(text)
		fields, err := AppendFields(nil, text)
		for _, field := range fields {
			size -= len(field.Text)
		}
		if size < 0 || err == nil && len(fields) == 0 {
			t.Errorf("%q: %d fields, %v", text, len(fields), err)
		}
	})
}
