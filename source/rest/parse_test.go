package rest_test

import (
	"errors"
	"os"
	"strconv"
	"strings"
	"testing"

	"lockstep"
	"lockstep/source/rest"
)

// small is the least that a spec needs.
const small = `name: tiny
base_url: https://api.example.com
credential: {key: {secret: true}}
auth: {kind: bearer, token: "{credential.key}"}
page: {kind: none}
records: data
collections:
  thing:
    list: {path: /things}
`

func TestParseTakesASmallSpec(t *testing.T) {
	t.Parallel()
	if _, err := rest.Parse("tiny.yaml", []byte(small)); err != nil {
		t.Fatal(err)
	}
}

// Each case is a change of the small spec, and the places and words of what is wrong.
func TestParseTellsWhatIsWrong(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct{ old, new, want string }{
		"unknown key":        {"records: data", "recods: data", "t.yaml:6:1: recods: unknown key, did you mean records?"},
		"unknown word":       {"kind: none", "kind: nextpage", `t.yaml:5:14: page.kind: unknown value "nextpage"`},
		"missing":            {"name: tiny\n", "", "t.yaml:1:1: name is missing, add it"},
		"key twice":          {"records: data", "name: other", "t.yaml:6:1: name: the key is already there in line 1"},
		"no list":            {"list: {path: /things}", "id: id", "t.yaml:9:5: collections.thing: list is missing"},
		"wrong kind":         {"collections:\n  thing:\n    list: {path: /things}", "collections: [a]", "t.yaml:7:14: collections: expected keys and values, got a list"},
		"not declared":       {"{credential.key}", "{credential.token}", "t.yaml:4:29: auth[0].token: {credential.token} is used but not declared"},
		"brace":              {"{path: /things}", `{path: "/things/{id"}`, "t.yaml:9:18: collections.thing.list.path: "},
		"unknown place":      {"{path: /things}", `{path: "/things/{since}"}`, "{since} is not known here, use credential, after, parent"},
		"no parent":          {"{path: /things}", `{path: "/x/{parent.id}/things"}`, "t.yaml:9:11: collections.thing.list: {parent} is used, but there is no parent"},
		"unknown parent":     {"    list:", "    parent: {collection: thang}\n    list:", "t.yaml:9:13: collections.thing.parent: there is no collection thang, did you mean thing?"},
		"unknown feed":       {"    list:", "    feed: events\n    object: {type: x}\n    list:", "there is no feed events"},
		"unknown limit":      {"{path: /things}", "{path: /things, buckets: [all]}", "t.yaml:9:11: collections.thing.list: there is no limit all"},
		"paging needs":       {"kind: none", "kind: token", "t.yaml:5:7: page: path is missing"},
		"no end":             {"kind: none", "kind: page, param: page", "nothing says where the list ends"},
		"duration":           {"records: data", "timeout: 5 minutes", `t.yaml:6:10: timeout: "5 minutes" is not a duration`},
		"number":             {"records: data", "max_body: -1", `t.yaml:6:11: max_body: "-1" is not a number of at least 1`},
		"type":               {"    list:", "    fields: {a: money}\n    list:", `t.yaml:9:17: collections.thing.fields.a: unknown value "money"`},
		"own column":         {"    list:", "    fields: {_raw: text}\n    list:", "columns that begin with _ are the mirror's own"},
		"hydrate needs get":  {"    list:", "    version: updated\n    changes: {kind: updated, hydrate: true}\n    list:", "t.yaml:10:14: collections.thing.changes: hydrate needs get"},
		"changes need times": {"    list:", "    changes: {kind: updated}\n    list:", "time is missing"},
		"rule of nothing":    {"records: data", "errors: [{then: retry}]", "t.yaml:6:10: errors[0]: the rule matches nothing"},
		"unknown write":      {"    list:", "    write: {put: {path: /x}}\n    list:", "unknown write put"},
		"two bodies":         {"{path: /things}", "{path: /things, json: {a: 1}, form: {b: x}}", "are three bodies"},
		"broken YAML":        {"records: data", "records: [", "not valid YAML"},
		"two documents":      {"records: data", "records: data\n---\na: 1", "a second document begins here"},
	} {
		_, err := rest.Parse("t.yaml", []byte(strings.Replace(small, c.old, c.new, 1)))
		var problems rest.Problems
		if !errors.As(err, &problems) || !errors.Is(err, lockstep.ErrInvalid) || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: got %v\n  want %s", name, err, c.want)
		}
	}
}

// All of it in one run, in the order of the file.
func TestParseTellsEverythingAtOnce(t *testing.T) {
	t.Parallel()
	text := strings.NewReplacer("kind: none", "kind: nothing", "records: data", "max_body: x", "path: /things", "pth: /things").Replace(small)
	_, err := rest.Parse("t.yaml", []byte(text))
	var problems rest.Problems
	if !errors.As(err, &problems) || len(problems) < 3 {
		t.Fatalf("got %v", err)
	}
	for i, line := range []int{5, 6, 9} {
		if problems[i].Line != line {
			t.Errorf("problem %d is in line %d, want %d: %s", i, problems[i].Line, line, problems[i])
		}
	}
}

func TestParseBoundsTheWorkOfAliases(t *testing.T) {
	t.Parallel()
	var b strings.Builder
	b.WriteString("x-a: &a [a" + strings.Repeat(", a", 2000) + "]\n" + small)
	for range 3000 {
		b.WriteString("  c" + strings.Repeat("x", b.Len()%7) + string(rune('a'+b.Len()%26)) + strconv.Itoa(b.Len()) + ": {list: {path: /x}, volatile: *a}\n")
	}
	_, err := rest.Parse("t.yaml", []byte(b.String()))
	if err == nil || !strings.Contains(err.Error(), "aliases repeat too much") {
		t.Errorf("got %.300v", err)
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(small))
	for _, name := range []string{"../stripe/stripe.yaml", "../github/github.yaml", "../../examples/own-api/shop.yaml"} {
		data, err := os.ReadFile(name)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		s, err := rest.Parse("f.yaml", data)
		if (s == nil) == (err == nil) {
			t.Fatalf("spec %v and error %v", s, err)
		}
		var problems rest.Problems
		if err != nil && !errors.As(err, &problems) {
			t.Fatalf("not problems: %v", err)
		}
		if s != nil {
			// What was accepted must be usable.
			_, _ = rest.New(s, rest.Options{BaseURL: "http://127.0.0.1:1"})
		}
	})
}
