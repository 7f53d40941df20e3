package main

import (
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
)

// backfills is the part of the node that reads existing rows. A backfill goes on each
// time that it is looked at, so that scripts need no clock: 400 of 1000 rows per look.
// Its condition says what becomes of it: fail, stay, outage (for longer than a client
// tries again by itself), or all's well.
type backfills struct {
	mu    sync.Mutex // guards what follows
	all   []map[string]any
	gaps  []string // databases with an open gap
	looks int
	moved chan struct{} // closed and replaced by each look
}

func (f *backfills) routes(mux *http.ServeMux) {
	f.moved = make(chan struct{})
	mux.HandleFunc("POST /v1/consumers/{id}/backfills", f.start)
	mux.HandleFunc("GET /v1/consumers/{id}/backfills/{n}", f.byNumber)
	mux.HandleFunc("GET /v1/backfills", f.list)
	mux.HandleFunc("GET /v1/backfills/{id}", f.look)
	mux.HandleFunc("PATCH /v1/backfills/{id}", f.steer)
	mux.HandleFunc("POST /v1/databases/{name}/gaps/backfill", f.repair)
	mux.HandleFunc("GET /v1/databases", f.databases)
}

func (f *backfills) databases(w http.ResponseWriter, _ *http.Request) {
	f.mu.Lock()
	defer f.mu.Unlock()
	out := []any{}
	for _, name := range []string{"app", "other"} {
		gaps := []any{}
		if strings.Contains(strings.Join(f.gaps, " "), name) {
			gaps = append(gaps, map[string]any{"reason": "slot_lost", "tables": []string{}, "remedy": "lockstep backfill --gap --database " + name})
		}
		out = append(out, map[string]any{"name": name, "gaps": gaps})
	}
	answer(w, map[string]any{"data": out, "next_cursor": nil})
}

func (f *backfills) start(w http.ResponseWriter, r *http.Request) {
	f.mu.Lock()
	defer f.mu.Unlock()
	var body struct {
		Tables []string
		Where  string
	}
	_ = json.NewDecoder(r.Body).Decode(&body)
	switch name := r.PathValue("id"); {
	case name == "nobody":
		refuse(w, http.StatusNotFound, `consumer "nobody": not found`)
	case strings.Contains(strings.Join(body.Tables, " "), "public.v"):
		refuse(w, http.StatusUnprocessableEntity, "public.v is a view: a backfill reads tables")
	case strings.Contains(strings.Join(body.Tables, " "), "public.busy"):
		refuse(w, http.StatusConflict, "backfill orders/1 is reading public.busy")
	default:
		if len(body.Tables) == 0 {
			body.Tables = []string{"public.orders", "public.items", "public.a", "public.b"}
		}
		b := f.made(map[string]any{"id": name + "-id", "name": name}, body.Tables)
		b["where"] = body.Where
		w.WriteHeader(http.StatusCreated)
		answer(w, b)
	}
}

// made makes a backfill; mu is held.
func (f *backfills) made(consumer any, names []string) map[string]any {
	n := 1
	for _, b := range f.all {
		if fmt.Sprint(b["consumer"]) == fmt.Sprint(consumer) {
			n++
		}
	}
	tables := []any{}
	for _, name := range names {
		tables = append(tables, map[string]any{"name": name, "state": "running", "reason": "", "rows": 0, "total": 0})
	}
	b := map[string]any{
		"id": fmt.Sprintf("0190b0e1-1c1c-7000-8000-%012d", len(f.all)+1), "n": n, "consumer": consumer, "database": "app", "gap": consumer == nil,
		"where": "", "origin": "api", "state": "running", "reason": "", "tables": tables, "rows": 0, "total": 1000, "overridden": 0, "deletes": 0,
		"rows_per_second": 0, "seconds_left": nil, "created_at": "2026-11-21T10:00:00Z", "started_at": "2026-11-21T10:00:00Z", "ended_at": nil,
	}
	f.all = append(f.all, b)
	return b
}

func (f *backfills) repair(w http.ResponseWriter, r *http.Request) {
	f.mu.Lock()
	defer f.mu.Unlock()
	name := r.PathValue("name")
	if !strings.Contains(strings.Join(f.gaps, " "), name) {
		refuse(w, http.StatusConflict, "database "+name+" has no open gap")
		return
	}
	for _, b := range f.all {
		if b["gap"] == true && b["database"] == name && !ended(b) {
			refuse(w, http.StatusConflict, "the gaps of "+name+" are being repaired")
			return
		}
	}
	b := f.made(nil, nil)
	b["database"] = name
	w.WriteHeader(http.StatusCreated)
	answer(w, b)
}

func ended(b map[string]any) bool {
	return b["state"] == "completed" || b["state"] == "failed" || b["state"] == "cancelled"
}

func (f *backfills) list(w http.ResponseWriter, r *http.Request) {
	f.mu.Lock()
	defer f.mu.Unlock()
	q := r.URL.Query()
	out := []any{}
	for _, b := range slices.Backward(f.all) {

		name := ""
		if c, ok := b["consumer"].(map[string]any); ok {
			name, _ = c["name"].(string)
		}
		if q.Get("consumer") != "" && q.Get("consumer") != name || q.Get("active") == "true" && ended(b) || q.Get("database") != "" && q.Get("database") != b["database"] {
			continue
		}
		out = append(out, b)
	}
	if q.Get("consumer") == "nobody" {
		refuse(w, http.StatusNotFound, `consumer "nobody": not found`)
		return
	}
	answer(w, map[string]any{"data": out, "next_cursor": nil})
}

// find finds a backfill; mu is held.
func (f *backfills) find(id string) map[string]any {
	for _, b := range f.all {
		if b["id"] == id {
			return b
		}
	}
	return nil
}

func (f *backfills) byNumber(w http.ResponseWriter, r *http.Request) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, b := range f.all {
		c, _ := b["consumer"].(map[string]any)
		if c["name"] == r.PathValue("id") && strconv.Itoa(b["n"].(int)) == r.PathValue("n") {
			answer(w, b)
			return
		}
	}
	refuse(w, http.StatusNotFound, "there is no such backfill")
}

func (f *backfills) look(w http.ResponseWriter, r *http.Request) {
	f.mu.Lock()
	defer f.mu.Unlock()
	b := f.find(r.PathValue("id"))
	if b == nil {
		refuse(w, http.StatusNotFound, "there is no such backfill")
		return
	}
	f.looks++
	close(f.moved)
	f.moved = make(chan struct{})
	if b["where"] == "outage" && f.looks > 1 && f.looks < 7 {
		refuse(w, http.StatusServiceUnavailable, "the node is stopping")
		return
	}
	f.advance(b)
	answer(w, b)
}

func (f *backfills) advance(b map[string]any) {
	if b["state"] != "running" || b["where"] == "stay" {
		return
	}
	b["rows"] = min(b["rows"].(int)+400, 1000)
	b["rows_per_second"], b["seconds_left"] = 400, (1000-b["rows"].(int))/400
	switch {
	case b["where"] == "fail" && b["rows"] == 800:
		b["state"], b["reason"] = "failed", "public.orders was dropped"
		b["tables"].([]any)[0].(map[string]any)["state"] = "failed"
		b["tables"].([]any)[0].(map[string]any)["reason"] = "it was dropped"
	case b["rows"] == 1000:
		b["state"], b["ended_at"], b["overridden"] = "completed", "2026-11-21T10:00:02.5Z", 7
	}
}

func (f *backfills) steer(w http.ResponseWriter, r *http.Request) {
	f.mu.Lock()
	defer f.mu.Unlock()
	var body struct{ State string }
	_ = json.NewDecoder(r.Body).Decode(&body)
	b := f.find(r.PathValue("id"))
	if b == nil || ended(b) {
		refuse(w, http.StatusConflict, "the backfill has ended")
		return
	}
	b["state"] = body.State
	answer(w, b)
}

// openGap lets a database have an open gap.
func (f *backfills) openGap(database string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.gaps = append(f.gaps, database)
}

// looked returns when somebody has looked at a backfill so often.
func (f *backfills) looked(times int) {
	for {
		f.mu.Lock()
		done, moved := f.looks >= times, f.moved
		f.mu.Unlock()
		if done {
			return
		}
		<-moved
	}
}
