package rest

import (
	"strings"
	"testing"
)

func TestNextLink(t *testing.T) {
	t.Parallel()
	for header, want := range map[string]string{
		`<https://api.example.com/a?page=2>; rel="next"`:                                  "https://api.example.com/a?page=2",
		`<https://x/1>; rel="prev", <https://x/3>; rel="next", <https://x/9>; rel="last"`: "https://x/3",
		`</a,b;c>; rel=next`:                          "/a,b;c",
		`<a>; title="x, <b>; rel=\"next\""; rel=prev`: "",
		`<a>; rel="last next"`:                        "a",
		`<a>; REL=Next`:                               "a",
		`<a>; rel="prev"; rel="next"`:                 "",
		`<a>`:                                         "",
		``:                                            "",
		`<a; rel=next`:                                "",
		`garbage, <b>;;rel=next`:                      "b",
	} {
		if got := nextLink([]string{header}); got != want {
			t.Errorf("%s: got %q, want %q", header, got, want)
		}
	}
	if got := nextLink([]string{`<a>; rel=prev`, `<b>; rel=next`}); got != "b" {
		t.Errorf("of two headers: %q", got)
	}
}

func FuzzNextLink(f *testing.F) {
	f.Add(`<https://x/1>; rel="prev", <https://x/3>; rel="next"`)
	f.Add(`<a>; title="x\"`)
	f.Fuzz(func(t *testing.T, header string) {
		if got := nextLink([]string{header}); got != "" && !strings.Contains(header, got) {
			t.Errorf("%q is not in %q", got, header)
		}
	})
}

func FuzzJSON(f *testing.F) {
	f.Add([]byte(`{"a":{"b":[1,{"c":"\"}"}]},"d":null}`), "a.b.1.c")
	f.Fuzz(func(t *testing.T, data []byte, path string) {
		checkPath(t, data, path)
	})
}
