package main

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strconv"
	"sync"
)

// fakeSyncs is the part of the node that mirrors APIs. A sync goes on each time that it
// is looked at, so that scripts need no clock: it is backfilling until the third look.
// What verify finds follows from the sync's name.
type fakeSyncs struct {
	mu    sync.Mutex       // guards what follows
	all   []map[string]any // by name
	looks map[any]int      // by name
}

func (f *fakeSyncs) routes(mux *http.ServeMux) {
	f.looks = map[any]int{}
	mux.HandleFunc("GET /v1/syncs", f.list)
	mux.HandleFunc("POST /v1/syncs", f.create)
	mux.HandleFunc("GET /v1/syncs/{id}", f.named(f.show))
	mux.HandleFunc("DELETE /v1/syncs/{id}", f.named(f.remove))
	mux.HandleFunc("POST /v1/syncs/{id}/verify", f.named(f.verify))
	mux.HandleFunc("GET /v1/syncs/{id}/wait", f.named(f.wait))
	mux.HandleFunc("GET /v1/syncs/{id}/log", f.named(f.log))
	mux.HandleFunc("POST /v1/syncs/{id}/{verb}", f.named(f.act))
}

func (f *fakeSyncs) named(do func(w http.ResponseWriter, r *http.Request, s map[string]any)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		f.mu.Lock()
		defer f.mu.Unlock()
		for _, s := range f.all {
			if s["name"] == r.PathValue("id") {
				do(w, r, s)
				return
			}
		}
		refuse(w, http.StatusNotFound, fmt.Sprintf("sync %q: not found", r.PathValue("id")))
	}
}

func (f *fakeSyncs) list(w http.ResponseWriter, _ *http.Request) {
	f.mu.Lock()
	defer f.mu.Unlock()
	answer(w, map[string]any{"data": append([]map[string]any{}, f.all...), "next_cursor": nil})
}

// create keeps what it is sent as the member sent.
func (f *fakeSyncs) create(w http.ResponseWriter, r *http.Request) {
	f.mu.Lock()
	defer f.mu.Unlock()
	sent := map[string]any{}
	if err := json.NewDecoder(r.Body).Decode(&sent); err != nil {
		refuse(w, http.StatusBadRequest, err.Error())
		return
	}
	if sent["provider"] == "hubspot" {
		refuse(w, http.StatusUnprocessableEntity, "provider: hubspot is not available in this version")
		return
	}
	if sent["name"] == nil {
		sent["name"] = sent["provider"]
	}
	s := map[string]any{
		"id": "s1", "name": sent["name"], "provider": sent["provider"], "account": "acct_1", "database": "app", "schema": sent["provider"], "base_url": "", "managed_by": "api",
		"state": "backfilling", "reason": "", "health": map[string]any{"status": "ok", "sync_id": "s1"}, "collection_ids": []string{"stripe:customer", "stripe:file"}, "sent": sent,
		"backfilled_at": nil, "collections": []any{
			map[string]any{"name": "stripe:customer", "table": "stripe.customer", "state": "backfilling", "records": 1200, "records_per_second": 400.5, "polled_at": "2026-11-21T10:00:00Z", "changed": 1200},
			map[string]any{"name": "stripe:file", "table": "stripe.file", "state": "blocked", "reason": "the key lacks rak_file_read", "polled_at": "2026-11-21T09:00:00Z"},
		},
		"quotas": []any{map[string]any{"bucket": "global", "limit": 100, "remaining": nil, "requests": 12345, "refusals": 1}},
	}
	f.all = append(f.all, s)
	w.WriteHeader(http.StatusCreated)
	answer(w, s)
}

func (f *fakeSyncs) show(w http.ResponseWriter, _ *http.Request, s map[string]any) {
	if f.looks[s["name"]]++; f.looks[s["name"]] == 3 {
		s["state"] = "polling"
	}
	if s["name"] == "going" && f.looks["going"] > 3 {
		refuse(w, http.StatusNotFound, `sync "going": not found`)
		return
	}
	answer(w, s)
}

func (f *fakeSyncs) remove(w http.ResponseWriter, r *http.Request, _ map[string]any) {
	for i, s := range f.all {
		if s["name"] == r.PathValue("id") {
			f.all = append(f.all[:i:i], f.all[i+1:]...)
			break
		}
	}
	w.WriteHeader(http.StatusNoContent)
}

func (f *fakeSyncs) act(w http.ResponseWriter, r *http.Request, s map[string]any) {
	var body struct{ Collections []string }
	_ = json.NewDecoder(r.Body).Decode(&body)
	switch r.PathValue("verb") {
	case "pause":
		s["state"] = "paused"
	case "resync":
		s["state"], s["resynced"] = "backfilling", body.Collections
	default:
		s["state"] = "polling"
	}
	answer(w, s)
}

func (f *fakeSyncs) wait(w http.ResponseWriter, r *http.Request, s map[string]any) {
	switch {
	case s["state"] == "paused":
		refuse(w, http.StatusConflict, "sync acme is paused: resume it")
	case r.URL.Query().Get("timeout") == "1000":
		refuse(w, http.StatusGatewayTimeout, "after 1s not everything has come through yet")
	default:
		answer(w, map[string]any{"waited_ms": 250})
	}
}

func (f *fakeSyncs) verify(w http.ResponseWriter, r *http.Request, s map[string]any) {
	var body struct {
		Repair      bool
		Collections []string
	}
	_ = json.NewDecoder(r.Body).Decode(&body)
	out := map[string]any{"equal": true, "checked": 1234, "missing": []any{}, "stale": []any{}, "extra": []any{}, "unchecked": []any{}, "asked": body.Collections}
	switch s["name"] {
	case "differs":
		out["equal"], out["missing_count"], out["extra_count"] = body.Repair, 1500, 1
		out["missing"] = []any{map[string]any{"collection": "stripe:customer", "id": "cus_1"}}
		out["extra"] = []any{map[string]any{"collection": "stripe:invoice", "id": "in_1"}}
		if body.Repair {
			out["repaired"] = 1501
		}
	case "closed":
		out["checked"], out["unchecked"] = 0, []any{map[string]any{"collection": "stripe:customer", "reason": "the key lacks rak_customer_read"}}
	}
	answer(w, out)
}

// log has five lines.
func (f *fakeSyncs) log(w http.ResponseWriter, r *http.Request, _ map[string]any) {
	limit, _ := strconv.Atoi(r.URL.Query().Get("limit"))
	before, _ := strconv.Atoi(r.URL.Query().Get("cursor"))
	if before == 0 {
		before = 6
	}
	out := []any{}
	for id := before - 1; id > 0 && len(out) < limit; id-- {
		out = append(out, map[string]any{"id": id, "at": "2026-11-21T10:00:00Z", "kind": "sweep", "collection": "stripe:customer", "outcome": "completed", "message": "swept\x1b[31m", "payload": nil})
	}
	answer(w, map[string]any{"data": out, "next_cursor": nil})
}
