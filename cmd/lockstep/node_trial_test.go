package main

import (
	"encoding/json"
	"net/http"
	"strconv"
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

// workDead retries or drops one dead letter a call, and refuses to retry the 8th.
func (n *node) workDead(w http.ResponseWriter, r *http.Request, _ map[string]any) {
	var asked struct {
		All            bool
		Reason, Cursor string
	}
	if err := json.NewDecoder(r.Body).Decode(&asked); err != nil || !asked.All {
		refuse(w, http.StatusUnprocessableEntity, "say which dead letters")
		return
	}
	done, skipped := 0, 0
	after, _ := strconv.ParseUint(asked.Cursor, 10, 64)
	out := map[string]any{"left": 0, "next_cursor": nil}
	for i, seq := range n.dead {
		if seq <= after {
			continue
		}
		if done+skipped == 1 {
			out["left"], out["next_cursor"] = len(n.dead)-i, strconv.FormatUint(after, 10)
			break
		}
		if after = seq; seq == 8 && r.PathValue("verb") == "retry" {
			skipped++
			out["why"] = "the change was removed by retention"
			continue
		}
		done++
	}
	for range done {
		n.dead = n.dead[1:]
	}
	out["skipped"], out[map[string]string{"retry": "retried", "drop": "dropped"}[r.PathValue("verb")]] = skipped, done
	answer(w, out)
}
