package webhook

import (
	"bytes"
	"encoding/json"
	"net/http"
	"slices"
	"testing"
	"time"

	"lockstep/sink"
)

// FuzzFailures: any answer is read without a panic, and a list that is whole is found.
func FuzzFailures(f *testing.F) {
	for _, seed := range []string{``, `{}`, `{"failed":[1,"a"]}`, `{"failed":[`, `{"a":{"failed":[2]},"failed":[]}`, `[{"failed":[1]}]`, `{"failed":[1.5,-2,1e9]}`, "\xff{\"failed\"", `{"failed":[[]]}`} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		ids, err := failures(body)
		if err != nil && ids != nil {
			t.Errorf("ids and an error: %v, %v", ids, err)
		}
		list, plain := listOf(body)
		if plain && len(ids) != len(list) {
			t.Errorf("found %d ids, want %d", len(ids), len(list))
		}
		// No answer makes more fail than there was, or panics.
		w := &Webhook{name: "x"}
		messages := []sink.Message{{Seq: 1, IdempotencyKey: "a"}}
		a := w.judge(&http.Response{StatusCode: 200}, body, messages, &request{indexes: []int{0}})
		if len(a.failed) > 1 {
			t.Errorf("%d of one failed", len(a.failed))
		}
	})
}

// listOf reads a list the simple way, where the two ways must agree: the body is one
// object with one member of that name, a list of texts.
func listOf(body []byte) ([]json.RawMessage, bool) {
	members := map[string]json.RawMessage{}
	if json.Unmarshal(body, &members) != nil || len(members) != 1 || bytes.Count(body, []byte(`"failed"`)) != 1 {
		return nil, false
	}
	var list []json.RawMessage
	if json.Unmarshal(members["failed"], &list) != nil {
		return nil, false
	}
	return list, !slices.ContainsFunc(list, func(v json.RawMessage) bool { return v[0] != '"' })
}

// FuzzRetryAfter: any header gives a pause between nothing and the longest.
func FuzzRetryAfter(f *testing.F) {
	for _, seed := range []string{"", "7", "1.5", "-1", "9e9", "Sat, 21 Nov 2026 10:02:00 GMT", "99999999999999999999999", "...", "NaN"} {
		f.Add(seed, "Sat, 21 Nov 2026 10:01:00 GMT")
	}
	now := time.Date(2026, 11, 21, 10, 0, 0, 0, time.UTC)
	f.Fuzz(func(t *testing.T, value, date string) {
		if got := retryAfter(value, date, now); got < 0 || got > longest {
			t.Errorf("%q: %s", value, got)
		}
	})
}
