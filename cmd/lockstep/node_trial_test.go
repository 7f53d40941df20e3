package main

import (
	"encoding/json"
	"net/http"
)

// trial answers with one change of each kind of result, the newest first.
func (n *node) trial(w http.ResponseWriter, r *http.Request) {
	var asked struct {
		Tables []string
		Filter string
		Limit  int
	}
	if err := json.NewDecoder(r.Body).Decode(&asked); err != nil || asked.Filter == "record.n >" {
		refuse(w, http.StatusUnprocessableEntity, "filter: line 1, column 11: the expression ends too early")
		return
	}
	change := func(seq int) json.RawMessage { return json.RawMessage(n.changes[seq-1]) }
	result := func(seq int, more map[string]any) map[string]any {
		more["seq"], more["table"], more["action"] = seq, "public.people", "insert"
		return more
	}
	answer(w, map[string]any{
		"looked_at": 40 + asked.Limit, "from_seq": 3, "stopped": "time", "matched": 4, "passed": 2, "failed": 1,
		"results": []any{
			result(9, map[string]any{"passed": true, "large": 70_000}),
			result(3, map[string]any{"passed": false, "error": "filter: no such column", "before": change(3)}),
			result(2, map[string]any{"passed": false, "before": change(2)}),
			result(1, map[string]any{"passed": true, "message": change(1), "before": change(1)}),
		},
	})
}
