package sandbox_test

import (
	"bytes"
	"encoding/json"
	"testing"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"lockstep/sandbox"
)

func TestACodeLeadsBackToItsNumberAndNoOtherDoes(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		seed, n := sandbox.Seed(rapid.Uint64().Draw(t, "seed")), rapid.Uint64().Draw(t, "n")
		length := rapid.IntRange(14, 60).Draw(t, "length")
		code := seed.Code("thing", n, length)
		if len(code) != length {
			t.Fatalf("%q has %d characters, want %d", code, len(code), length)
		}
		if got, ok := seed.Number("thing", code); !ok || got != n {
			t.Fatalf("%q: %d %v, want %d", code, got, ok, n)
		}
		if length < 24 {
			return // the rest is sure for codes with many check characters only
		}
		if _, ok := seed.Number("other", code); ok {
			t.Fatalf("%q is also of another kind", code)
		}
		broken := code[:length-1] + string(code[length-1]^1)
		if _, ok := seed.Number("thing", broken); ok {
			t.Fatalf("%q was never given", broken)
		}
	})
}

func TestDiceOfARecordAlwaysFallTheSame(t *testing.T) {
	t.Parallel()
	one, two, other := sandbox.Seed(7).Dice("a", 5), sandbox.Seed(7).Dice("a", 5), sandbox.Seed(7).Dice("a", 6)
	first, second := one.Person(5), two.Person(5)
	if diff := cmp.Diff(first, second); diff != "" {
		t.Error(diff)
	}
	if first == other.Person(6) {
		t.Error("two records are the same person")
	}
	for range 1000 {
		if n := one.Int(3); n < 0 || n > 2 {
			t.Fatalf("%d of 3", n)
		}
		if n := one.Between(-2, 2); n < -2 || n > 2 {
			t.Fatalf("%d between -2 and 2", n)
		}
		if s := one.Sentence(3); !utf8.ValidString(s) {
			t.Fatalf("%q", s)
		}
	}
}

func TestATemplateWritesWhatEncodeWould(t *testing.T) {
	t.Parallel()
	tpl := sandbox.NewTemplate(map[string]any{"id": "{{id}}", "n": "{{n}}", "nested": map[string]any{"id": "{{id}}", "fixed": []any{int64(1), nil, "a<b"}}})
	got := tpl.Append([]byte("x"), func(dst []byte, slot string) []byte {
		if slot == "n" {
			return append(dst, "42"...)
		}
		return sandbox.AppendString(dst, `q"\`+"\n")
	})
	want := "x" + string(sandbox.Encode(map[string]any{"id": "q\"\\\n", "n": 42, "nested": map[string]any{"id": "q\"\\\n", "fixed": []any{1, nil, "a<b"}}}))
	if string(got) != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}

func TestEncodeIsJSONThatDecodeReadsBack(t *testing.T) {
	t.Parallel()
	value := rapid.Custom(func(t *rapid.T) map[string]any {
		v := map[string]any{"list": []any{}, "float": 7.5, "null": nil, "yes": true}
		for range rapid.IntRange(0, 5).Draw(t, "fields") {
			v[rapid.String().Draw(t, "key")] = rapid.SampledFrom([]any{rapid.String().Draw(t, "text"), rapid.Int64().Draw(t, "number")}).Draw(t, "value")
		}
		return v
	})
	rapid.Check(t, func(t *rapid.T) {
		v := value.Draw(t, "value")
		text := sandbox.Encode(v)
		if diff := cmp.Diff(v, sandbox.Decode(text)); diff != "" {
			t.Fatalf("%s\n%s", text, diff)
		}
		if again := sandbox.Encode(v); !json.Valid(text) || !bytes.Equal(text, again) {
			t.Fatalf("%s\n%s", text, again)
		}
		if diff := cmp.Diff(v, sandbox.Clone(v)); diff != "" {
			t.Fatal(diff)
		}
	})
}
