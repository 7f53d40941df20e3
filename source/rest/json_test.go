package rest

import (
	"bytes"
	"encoding/json"
	"strconv"
	"testing"
)

// checkPath compares with the standard library.
func checkPath(t *testing.T, data []byte, path string) {
	t.Helper()
	if !json.Valid(data) {
		return
	}
	d := json.NewDecoder(bytes.NewReader(data))
	d.UseNumber()
	var v any
	if d.Decode(&v) != nil {
		return
	}
	there := true
	for _, step := range parsePath(path) {
		switch at := v.(type) {
		case map[string]any:
			v, there = at[step]
		case []any:
			n, err := strconv.Atoi(step)
			if there = err == nil && n >= 0 && n < len(at); there {
				v = at[n]
			}
		default:
			there = false
		}
		if !there {
			break
		}
	}
	got := parsePath(path).in(data)
	if there != (got != nil) {
		t.Fatalf("%s in %s: got %q, there is one: %v", path, data, got, there)
	}
	if !there {
		return
	}
	if !json.Valid(got) {
		t.Fatalf("%s in %s: %q is not JSON", path, data, got)
	}
	if s, ok := v.(string); ok && textOf(got) != s {
		t.Fatalf("%s in %s: got %q, want %q", path, data, textOf(got), s)
	}
	if replaced := replace(data, parsePath(path), json.RawMessage(`"x"`)); !json.Valid(replaced) {
		t.Fatalf("%s replaced in %s: %s", path, data, replaced)
	}
}

func TestPath(t *testing.T) {
	t.Parallel()
	data := []byte(` { "a" : {"b":[1, {"c":"\"}"} , []]}, "d":null, "e":12345678901234567890.10, "a\u0062":"x", "dup":1, "dup":2 } `)
	for _, path := range []string{"", "a", "a.b", "a.b.0", "a.b.1.c", "a.b.2", "a.b.3", "a.b.-1", "d", "e", "ab", "x", "e.f", "dup"} {
		checkPath(t, data, path)
	}
	if got := (Path{"e"}).text(data); got != "12345678901234567890.10" {
		t.Errorf("a number is %s", got)
	}
}

func TestAddKeepsWhatIsThere(t *testing.T) {
	t.Parallel()
	for data, want := range map[string]string{`{}`: `{"k":1}`, `{"a":1.10}`: `{"a":1.10,"k":1}`, ` { } `: ` { "k":1} `} {
		if got := add(json.RawMessage(data), "k", json.RawMessage("1")); string(got) != want {
			t.Errorf("%s: got %s, want %s", data, got, want)
		}
	}
}

func TestFormOfNestsWithBrackets(t *testing.T) {
	t.Parallel()
	got := formOf(json.RawMessage(`{"email":"a@b.c","metadata":{"k x":"v&"},"items":[{"price":"p1"},{"price":"p2"}],"n":1.50,"none":null}`))
	want := "email=a%40b.c&metadata[k+x]=v%26&items[0][price]=p1&items[1][price]=p2&n=1.50&none="
	if got != want {
		t.Errorf("got %s\nwant %s", got, want)
	}
}
