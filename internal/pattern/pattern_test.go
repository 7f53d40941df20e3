package pattern

import (
	"errors"
	"path"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"lockstep"
)

func TestPatternsMatch(t *testing.T) {
	t.Parallel()
	cases := []struct {
		name     string
		patterns []string
		schema   string
		table    string
		want     bool
	}{
		{"default takes everything", nil, "public", "orders", true},
		{"default leaves the catalog", nil, "pg_catalog", "pg_class", false},
		{"default leaves toast", nil, "pg_toast", "pg_toast_1", false},
		{"default leaves temporary schemas", nil, "pg_temp_3", "t", false},
		{"default leaves the information schema", nil, "information_schema", "tables", false},
		{"default leaves Lockstep's own", nil, "lockstep", "consumer", false},
		{"default takes a schema that starts alike", nil, "lockstep2", "t", true},
		{"literal", []string{"public.orders"}, "public", "orders", true},
		{"literal is not a prefix", []string{"public.order"}, "public", "orders", false},
		{"case counts", []string{"public.Orders"}, "public", "orders", false},
		{"star", []string{"public.*"}, "public", "orders", true},
		{"star in the middle", []string{"public.a*c"}, "public", "abbc", true},
		{"star stands for nothing too", []string{"public.a*c"}, "public", "ac", true},
		{"star goes back", []string{"public.*ab"}, "public", "aab", true},
		{"star in the schema", []string{"tenant_*.orders"}, "tenant_7", "orders", true},
		{"star in the schema never takes the system's", []string{"*.*"}, "pg_catalog", "pg_class", false},
		{"star in the schema never takes ours", []string{"*.*"}, "lockstep", "consumer", false},
		{"star does not cross the dot", []string{"pub*.x"}, "public", "y.x", false},
		{"question mark is one character", []string{"public.t?"}, "public", "tä", true},
		{"question mark is not none", []string{"public.t?"}, "public", "t", false},
		{"exclusion", []string{"public.*", "-public.secret_*"}, "public", "secret_x", false},
		{"exclusion leaves the others", []string{"public.*", "-public.secret_*"}, "public", "open", true},
		{"exclusion wins wherever it stands", []string{"-public.secret_*", "public.secret_x"}, "public", "secret_x", false},
		{"only exclusions take from the default", []string{"-public.a"}, "other", "b", true},
		{"only exclusions exclude", []string{"-public.a"}, "public", "a", false},
		{"only exclusions leave the system out", []string{"-public.a"}, "pg_catalog", "pg_class", false},
		{"quoted with dots", []string{`"we.ird"."Ta.ble"`}, "we.ird", "Ta.ble", true},
		{"quoted star is a star", []string{`public."a*"`}, "public", "ab", false},
		{"quoted star matches itself", []string{`public."a*"`}, "public", "a*", true},
		{"quoted quote", []string{`public."a""b"`}, "public", `a"b`, true},
		{"quoted minus", []string{`-"-s"."-t"`}, "-s", "-t", false},
		{"space around", []string{"  public.orders "}, "public", "orders", true},
		{"space inside", []string{"public.my orders"}, "public", "my orders", true},
		{"unicode", []string{"public.Größe_*"}, "public", "Größe_日本", true},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			p, err := Parse(c.patterns)
			if err != nil {
				t.Fatal(err)
			}
			if got := p.Match(c.schema, c.table); got != c.want {
				t.Errorf("%v matches %q.%q: got %t, want %t", c.patterns, c.schema, c.table, got, c.want)
			}
		})
	}
}

func TestParseSaysWhatIsWrong(t *testing.T) {
	t.Parallel()
	cases := []struct{ pattern, want string }{
		{"orders", "write public.orders"},
		{"", "is empty"},
		{"-", "is empty"},
		{".orders", "empty part"},
		{"public.", "empty part"},
		{"a.b.c", "more than two parts"},
		{`public."a`, "no closing double quote"},
		{`public."a"b`, "after a closing quote"},
		{`public.a"b"`, "in the middle"},
		{`public.""`, "empty name"},
		{"pg_catalog.pg_class", "never captured"},
		{"lockstep.consumer", "never captured"},
	}
	for _, c := range cases {
		t.Run(c.pattern, func(t *testing.T) {
			t.Parallel()
			_, err := Parse([]string{c.pattern})
			if !errors.Is(err, lockstep.ErrInvalid) || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want ErrInvalid with %q", err, c.want)
			}
		})
	}
}

func TestParseReportsAllMistakes(t *testing.T) {
	t.Parallel()
	_, err := Parse([]string{"one", "public.*", "two"})
	if err == nil || !strings.Contains(err.Error(), `"one"`) || !strings.Contains(err.Error(), `"two"`) {
		t.Errorf("got %v, want both mistakes", err)
	}
}

// path.Match has the same * and ? for names without slash, bracket and backslash.
func TestGlobMatchesAsPathMatch(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		pat := rapid.StringMatching(`[abä*?]{1,8}`).Draw(t, "pattern")
		name := rapid.StringMatching(`[abä]{0,10}`).Draw(t, "name")
		want, err := path.Match(pat, name)
		if err != nil {
			t.Fatal(err)
		}
		g := glob{text: pat, literal: !strings.ContainsAny(pat, "*?")}
		if got := g.match(name); got != want {
			t.Errorf("%q matches %q: got %t, want %t", pat, name, got, want)
		}
	})
}
