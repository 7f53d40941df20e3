package main

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync"
	"time"
)

// node speaks as much of the wire contract as the commands need, with everything in
// memory. The real API has tests of its own; this one can be told to misbehave.
type node struct {
	server    *httptest.Server
	backfills backfills
	syncs     fakeSyncs

	mu        sync.Mutex // guards what follows
	consumers map[string]map[string]any
	dead      []uint64
	tokens    []string
	acked     []string
	changes   []string      // messages; the seq is the index plus one
	moved     chan struct{} // closed and replaced when changes or seen grows
	seen      int           // how many a tail has been sent
}

func newNode() *node {
	n := &node{consumers: map[string]map[string]any{}, dead: []uint64{3, 5, 8}, moved: make(chan struct{})}
	n.changes = []string{
		message(1, "insert", `{"id":7,"name":"Zoë","note":"line\none"}`, "null"),
		message(2, "update", `{"id":7,"name":"李小龍","note":"x"}`, `{"name":"Zoë"}`),
		message(3, "delete", `{"id":7}`, "null"),
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /v1/consumers", n.list)
	mux.HandleFunc("POST /v1/consumers", n.create)
	mux.HandleFunc("GET /v1/consumers/{id}", n.consumer(n.show))
	mux.HandleFunc("DELETE /v1/consumers/{id}", n.consumer(n.remove))
	mux.HandleFunc("POST /v1/consumers/{id}/{verb}", n.consumer(n.act))
	mux.HandleFunc("POST /v1/http-consumers/{id}/next", n.consumer(n.next))
	mux.HandleFunc("POST /v1/http-consumers/{id}/{verb}", n.consumer(n.settle))
	mux.HandleFunc("GET /v1/consumers/{id}/dead", n.consumer(n.listDead))
	mux.HandleFunc("GET /v1/consumers/{id}/dead/{seq}", n.consumer(n.showDead))
	mux.HandleFunc("POST /v1/consumers/{id}/dead/{seq}/retry", n.consumer(n.endDead))
	mux.HandleFunc("DELETE /v1/consumers/{id}/dead/{seq}", n.consumer(n.endDead))
	mux.HandleFunc("POST /v1/consumers/{id}/dead/{verb}", n.consumer(n.workDead))
	mux.HandleFunc("GET /v1/tokens", n.listTokens)
	mux.HandleFunc("POST /v1/tokens", n.createToken)
	mux.HandleFunc("DELETE /v1/tokens/{id}", n.revokeToken)
	n.backfills.routes(mux)
	n.syncs.routes(mux)
	mux.HandleFunc("GET /v1/databases/{name}", n.database)
	mux.HandleFunc("GET /v1/databases/{name}/changes", n.tail)
	mux.HandleFunc("POST /v1/databases/{name}/trial", n.trial)
	n.server = httptest.NewServer(n.authorized(mux))
	return n
}

func message(seq int, action, record, changes string) string {
	return fmt.Sprintf("{\"record\": %s,\n \"changes\": %s, \"action\": %q, \"metadata\": {\"database\":\"app\",\"table_schema\":\"public\",\"table_name\":\"people\","+
		"\"seq\":%d,\"commit_timestamp\":\"2026-11-21T10:00:00.123456Z\",\"record_pks\":[\"7\"],\"n\":12345678901234567890.10}}", record, changes, action, seq)
}

func (n *node) address() string { return n.server.URL }

func (n *node) close() {
	n.server.CloseClientConnections()
	n.server.Close()
}

func (n *node) cut() { n.server.CloseClientConnections() }

// commit adds a change.
func (n *node) commit() {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.changes = append(n.changes, message(len(n.changes)+1, "insert", `{"id":8}`, "null"))
	n.move()
}

// settled returns when a tail has had everything.
func (n *node) settled() {
	for {
		n.mu.Lock()
		done, moved := n.seen >= len(n.changes), n.moved
		n.mu.Unlock()
		if done {
			return
		}
		<-moved
	}
}

// move wakes those who wait; mu is held.
func (n *node) move() {
	close(n.moved)
	n.moved = make(chan struct{})
}

func (n *node) authorized(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer ") {
		case "wrong":
			refuse(w, http.StatusUnauthorized, "no valid API token: send Authorization: Bearer <token>")
		case "weak":
			refuse(w, http.StatusForbidden, "the token lacks the scope write")
		default:
			next.ServeHTTP(w, r)
		}
	})
}

func refuse(w http.ResponseWriter, status int, detail string) {
	w.Header().Set("Content-Type", "application/problem+json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(map[string]any{"type": "about:blank", "title": http.StatusText(status), "status": status, "detail": detail})
}

func answer(w http.ResponseWriter, v any) {
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(v)
}

// consumer finds the consumer of the path, under the lock.
func (n *node) consumer(h func(http.ResponseWriter, *http.Request, map[string]any)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		n.mu.Lock()
		defer n.mu.Unlock()
		c, ok := n.consumers[r.PathValue("id")]
		if !ok {
			refuse(w, http.StatusNotFound, "there is no consumer "+r.PathValue("id"))
			return
		}
		h(w, r, c)
	}
}

func (n *node) list(w http.ResponseWriter, _ *http.Request) {
	n.mu.Lock()
	defer n.mu.Unlock()
	out := []any{}
	for _, c := range n.consumers {
		out = append(out, c)
	}
	answer(w, map[string]any{"data": out, "next_cursor": nil})
}

func (n *node) create(w http.ResponseWriter, r *http.Request) {
	n.mu.Lock()
	defer n.mu.Unlock()
	c := map[string]any{}
	if err := json.NewDecoder(r.Body).Decode(&c); err != nil {
		refuse(w, http.StatusBadRequest, err.Error())
		return
	}
	name, _ := c["name"].(string)
	switch {
	case n.consumers[name] != nil:
		refuse(w, http.StatusConflict, "there is already a consumer "+name+": conflict")
		return
	case c["filter"] == "((":
		refuse(w, http.StatusUnprocessableEntity, "filter: unexpected end")
		return
	}
	c["id"], c["status"], c["managed_by"] = "0b0e1c1c-0000-4000-8000-000000000001", "active", "api"
	c["stats"] = map[string]any{"num_pending": 1234, "num_ack_pending": 2, "dead": 3}
	n.consumers[name] = c
	w.WriteHeader(http.StatusCreated)
	answer(w, c)
}

func (n *node) show(w http.ResponseWriter, _ *http.Request, c map[string]any) { answer(w, c) }

func (n *node) remove(w http.ResponseWriter, r *http.Request, _ map[string]any) {
	delete(n.consumers, r.PathValue("id"))
	w.WriteHeader(http.StatusNoContent)
}

func (n *node) act(w http.ResponseWriter, r *http.Request, c map[string]any) {
	switch r.PathValue("verb") {
	case "pause":
		c["status"] = "paused"
	case "resume":
		c["status"] = "active"
	case "seek":
		var body struct{ To string }
		if err := json.NewDecoder(r.Body).Decode(&body); err != nil || body.To == "nowhere" {
			refuse(w, http.StatusBadRequest, "to: nowhere is not a place")
			return
		}
		c["sought"] = body.To
	}
	w.WriteHeader(http.StatusNoContent)
}

func (n *node) next(w http.ResponseWriter, r *http.Request, _ map[string]any) {
	size, _ := strconv.Atoi(r.URL.Query().Get("batch_size"))
	if size < 1 {
		refuse(w, http.StatusBadRequest, "batch_size must be a whole number from 1 to 1000")
		return
	}
	var out []string
	for i, m := range n.changes[:min(size, len(n.changes))] {
		out = append(out, fmt.Sprintf(`{"ack_token":"tok%d","attempt":1,%s`, i+1, strings.TrimPrefix(m, "{")))
	}
	_, _ = fmt.Fprintf(w, `{"data":[%s],"info":{"num_pending":9,"num_ack_pending":%d}}`, strings.Join(out, ","), len(out))
}

func (n *node) settle(w http.ResponseWriter, r *http.Request, _ map[string]any) {
	body, _ := io.ReadAll(r.Body)
	if strings.Contains(string(body), "stale") {
		w.Header().Set("Content-Type", "application/problem+json")
		w.WriteHeader(http.StatusConflict)
		_, _ = io.WriteString(w, `{"title":"Conflict","status":409,"detail":"1 token is no longer valid","stale":["stale"]}`)
		return
	}
	n.acked = append(n.acked, string(body))
	w.WriteHeader(http.StatusNoContent)
}

// listDead answers in pages of two.
func (n *node) listDead(w http.ResponseWriter, r *http.Request, _ map[string]any) {
	after, _ := strconv.ParseUint(r.URL.Query().Get("cursor"), 10, 64)
	page := []any{}
	for _, seq := range n.dead {
		if seq <= after {
			continue
		}
		if len(page) == 2 {
			answer(w, map[string]any{"data": page, "next_cursor": strconv.FormatUint(after, 10)})
			return
		}
		after = seq
		page = append(page, letter(seq))
	}
	answer(w, map[string]any{"data": page, "next_cursor": nil})
}

func letter(seq uint64) map[string]any {
	return map[string]any{"seq": seq, "state": "parked", "attempts": 4, "at": "2026-11-21T10:00:00Z", "table": "public.people", "record_pks": []string{"7"},
		"reason": "worker said: no\x1b[31m", "message": map[string]any{"action": "insert"}}
}

func (n *node) showDead(w http.ResponseWriter, r *http.Request, _ map[string]any) {
	seq, _ := strconv.ParseUint(r.PathValue("seq"), 10, 64)
	answer(w, letter(seq))
}

func (n *node) endDead(w http.ResponseWriter, r *http.Request, _ map[string]any) {
	seq, _ := strconv.ParseUint(r.PathValue("seq"), 10, 64)
	for i, s := range n.dead {
		if s == seq {
			n.dead = append(n.dead[:i:i], n.dead[i+1:]...)
			w.WriteHeader(http.StatusNoContent)
			return
		}
	}
	refuse(w, http.StatusNotFound, fmt.Sprintf("there is no dead letter %d", seq))
}

func (n *node) listTokens(w http.ResponseWriter, _ *http.Request) {
	n.mu.Lock()
	defer n.mu.Unlock()
	out := []any{}
	for _, name := range n.tokens {
		out = append(out, map[string]any{"id": "id-" + name, "name": name, "scopes": []string{"read"}, "state": "active", "created_at": "2026-11-21T10:00:00Z"})
	}
	answer(w, map[string]any{"data": out})
}

func (n *node) createToken(w http.ResponseWriter, r *http.Request) {
	n.mu.Lock()
	defer n.mu.Unlock()
	var body struct {
		Name   string
		Scopes []string
	}
	if err := json.NewDecoder(r.Body).Decode(&body); err != nil || body.Scopes[0] == "root" {
		refuse(w, http.StatusUnprocessableEntity, `unknown scope "root"`)
		return
	}
	n.tokens = append(n.tokens, body.Name)
	w.WriteHeader(http.StatusCreated)
	answer(w, map[string]any{"id": "id-" + body.Name, "name": body.Name, "scopes": body.Scopes, "token": "ls_id_secret"})
}

func (n *node) revokeToken(w http.ResponseWriter, _ *http.Request) {
	w.WriteHeader(http.StatusNoContent)
}

func (n *node) database(w http.ResponseWriter, r *http.Request) {
	if r.PathValue("name") != "app" {
		refuse(w, http.StatusNotFound, "there is no database "+r.PathValue("name")+"; there is: app")
		return
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	answer(w, map[string]any{"name": "app", "last_seq": len(n.changes)})
}

// sent notes that a tail has had that many changes.
func (n *node) sent(count int) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if count > n.seen {
		n.seen = count
		n.move()
	}
}

// tail sends changes from Last-Event-ID or from on, and then those that come.
func (n *node) tail(w http.ResponseWriter, r *http.Request) {
	if r.PathValue("name") != "app" {
		refuse(w, http.StatusNotFound, "there is no database "+r.PathValue("name")+"; there is: app")
		return
	}
	if r.URL.Query().Get("actions") == "explode" {
		refuse(w, http.StatusBadRequest, `unknown action "explode"`)
		return
	}
	n.mu.Lock()
	at := len(n.changes)
	n.mu.Unlock()
	if from := r.URL.Query().Get("from"); from == "beginning" {
		at = 0
	} else if seq, ok := strings.CutPrefix(from, "seq:"); ok {
		at, _ = strconv.Atoi(seq)
		at--
	}
	if id := r.Header.Get("Last-Event-ID"); id != "" {
		at, _ = strconv.Atoi(id)
	}
	w.Header().Set("Content-Type", "text/event-stream")
	_, _ = fmt.Fprintf(w, "retry: 2000\nid: %d\n\n", at)
	for r.Context().Err() == nil {
		n.mu.Lock()
		for ; at < len(n.changes); at++ {
			_, _ = fmt.Fprintf(w, "id: %d\nevent: x\ndata: %s\n\n", at+1, strings.ReplaceAll(n.changes[at], "\n", "\ndata: "))
		}
		moved := n.moved
		n.mu.Unlock()
		_ = http.NewResponseController(w).Flush()
		n.sent(at)
		select {
		case <-moved:
		case <-r.Context().Done():
		case <-time.After(15 * time.Second):
		}
	}
}
