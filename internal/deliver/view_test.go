package deliver

import (
	"encoding/json"
	"maps"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"lockstep"
)

// rowOf writes columns as capture does: one object without space between its members,
// values as they are.
func rowOf(names []string, values map[string]string) string {
	members := make([]string, len(names))
	for i, n := range names {
		members[i] = string(lockstep.AppendJSONString(nil, n)) + ":" + values[n]
	}
	return "{" + strings.Join(members, ",") + "}"
}

// Whatever the columns are called and hold, in whatever order they stand and whichever
// are missing: the members are those that a parser finds.
func TestTheMembersAreFoundInAnyRow(t *testing.T) {
	t.Parallel()
	system := []string{"id", "_id", "_created_at", "_updated_at", "_synced_at", "_raw"}
	name := rapid.OneOf(rapid.SampledFrom(system), rapid.SampledFrom([]string{`_raw"`, `"_raw":{}`, "_rawx", "ID", `\`, "ü", ""}), rapid.String())
	value := rapid.Custom(func(t *rapid.T) string {
		leaf := rapid.SampledFrom([]string{`null`, `7`, `-1.10e5`, `true`, `""`, `"\\"`, `"\\\""`, `"},\"_raw\":{"`, `[]`, `{}`, `{"_raw": 1}`, `[{"id":"}"},"]"]`, " {\n\"a\" : 1 }", `"Ż 你 🙂"`})
		parts := rapid.SliceOfN(leaf, 0, 3).Draw(t, "parts")
		switch rapid.IntRange(0, 2).Draw(t, "shape") {
		case 0:
			return "[" + strings.Join(parts, ", ") + "]"
		case 1:
			return `{"id": [` + strings.Join(parts, ",") + `], "_raw": {"_id":"x"}}`
		}
		return leaf.Draw(t, "leaf")
	})
	rapid.Check(t, func(t *rapid.T) {
		values := rapid.MapOfN(name, value, 0, 12).Draw(t, "columns")
		names := rapid.Permutation(slices.Sorted(maps.Keys(values))).Draw(t, "order")
		o := objectOf([]byte(rowOf(names, values)))
		for i, got := range [][]byte{o.upstream, o.id, o.created, o.updated, o.synced, o.raw} {
			if want := strings.TrimSpace(values[system[i]]); string(got) != want {
				t.Fatalf("%s is %q, want %q, in %s", system[i], got, want, rowOf(names, values))
			}
		}
	})
}

// What is no JSON gives something, and no panic: only damage could bring it here.
func FuzzTheMembersOfAnything(f *testing.F) {
	for _, seed := range []string{`{"id":7,"_raw":{"a": "}"}}`, `{"id":"`, `{"_raw":`, `{"_raw":"\`, `"`, `{"_raw"}`, `}}}`, ``} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, row []byte) {
		o := objectOf(row)
		if json.Valid(row) && len(o.raw) > len(row) {
			t.Error("the value is longer than the row")
		}
	})
}
