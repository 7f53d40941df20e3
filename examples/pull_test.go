package examples_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"lockstep/client"
	"lockstep/internal/pgdb/pgtest"
)

// api is what pull-go hands changes to: it knows what it has taken by the key.
type api struct {
	*httptest.Server
	mu      sync.Mutex
	taken   map[string]bool
	met     map[string]bool // refused once
	last    map[int]uint64  // seq by row
	rows    map[int]string
	refused map[int]bool // rows that it takes nothing of for now
	refusal int
	slow    time.Duration // an answer takes so long
	faults  []string
}

func newAPI(t *testing.T) *api {
	a := &api{taken: map[string]bool{}, met: map[string]bool{}, last: map[int]uint64{}, rows: map[int]string{}, refused: map[int]bool{}}
	a.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		<-time.After(a.slow)
		if status := a.take(read(t, r), r.Header.Get("Idempotency-Key")); status != http.StatusOK {
			http.Error(w, "no", status)
		}
	}))
	t.Cleanup(a.Close)
	return a
}

func (a *api) take(body []byte, key string) int {
	var c struct {
		Seq    uint64
		Action string
		Record struct {
			ID     int
			Amount int
		}
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	switch {
	case json.Unmarshal(body, &c) != nil || key == "":
		a.faults = append(a.faults, string(body))
		return http.StatusBadRequest
	case a.refused[c.Record.ID]:
		a.refusal++
		return http.StatusServiceUnavailable
	case a.taken[key]:
		return http.StatusOK
	case c.Seq%5 == 0 && !a.met[key]:
		a.met[key] = true
		return http.StatusServiceUnavailable // the first time
	default:
		id := c.Record.ID
		if c.Seq <= a.last[id] {
			a.faults = append(a.faults, fmt.Sprintf("row %d: %d after %d", id, c.Seq, a.last[id]))
		}
		a.taken[key], a.last[id], a.rows[id] = true, c.Seq, fmt.Sprint(c.Record.Amount)
		if c.Action == "delete" {
			delete(a.rows, id)
		}
		return http.StatusOK
	}
}

func (a *api) refuse(id int, on string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.refused[id] = on == "refused"
}

func (a *api) refusals() int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.refusal
}

func (a *api) table() []string {
	a.mu.Lock()
	defer a.mu.Unlock()
	var list []string
	for id, amount := range a.rows {
		list = append(list, fmt.Sprintf("%d %s", id, amount))
	}
	slices.Sort(list)
	return list
}

// table is what the database has.
func (n *node) table() []string {
	n.t.Helper()
	var list []string
	for _, row := range pgtest.Query(n.t, n.database, "SELECT id, amount FROM orders") {
		list = append(list, strings.Join(row, " "))
	}
	slices.Sort(list)
	return list
}

// load writes changes of many rows.
func (n *node) load(round int) {
	n.t.Helper()
	n.exec(fmt.Sprintf("INSERT INTO orders SELECT g, %d FROM generate_series(1, 100) g ON CONFLICT (id) DO UPDATE SET amount = excluded.amount", round),
		fmt.Sprintf("UPDATE orders SET amount = amount + 1000 WHERE id %% 3 = %d", round%3),
		fmt.Sprintf("DELETE FROM orders WHERE id %% 7 = %d", round%7))
	for range 10 { // many changes of one row in a batch
		n.exec("UPDATE orders SET amount = amount + 1 WHERE id = 4")
	}
}

// TestPullGo: killed again and again under load, with a row that is refused for a while.
func TestPullGo(t *testing.T) {
	t.Parallel()
	n := newNode(t, "", "")
	n.consumer(client.Definition{Kind: "http", AckWait: "1s"})
	a := newAPI(t)
	p := newProgram(t, []string{"LOCKSTEP_SERVER=" + n.url(), "TARGET=" + a.URL}, build(t, "pull-go"))
	a.refuse(5, "refused")
	p.start()
	for round := range 4 {
		acked := n.stats().Acked
		n.load(round)
		pgtest.Eventually(t, time.Minute, "some acks", func() bool { return n.stats().Acked > acked+20 })
		p.kill()
		p.start()
	}
	pgtest.Eventually(t, time.Minute, "the others to go on", func() bool { return a.refusals() > 3 && len(a.table()) >= len(n.table())-1 })
	a.refuse(5, "taken")
	n.settled()
	if got, want := a.table(), n.table(); !slices.Equal(got, want) {
		t.Errorf("the API has %v, the table %v", got, want)
	}
	if len(a.faults) > 0 {
		t.Errorf("faults: %v", a.faults)
	}
	p.terminate()
	if s := n.stats(); s.InFlight != 0 {
		t.Errorf("%d changes are still out", s.InFlight)
	}
}

// TestPullPython: the same for the worker in Python, whose table refuses a row.
func TestPullPython(t *testing.T) {
	t.Parallel()
	python, err := exec.LookPath("python3")
	if err != nil {
		t.Skip("there is no python3")
	}
	n := newNode(t, "", "")
	n.consumer(client.Definition{Kind: "http", AckWait: "1s"})
	file := filepath.Join(t.TempDir(), "orders.db")
	p := newProgram(t, []string{"LOCKSTEP_SERVER=" + n.url(), "SQLITE=" + file}, python, filepath.Join("pull-python", "worker.py"))
	sqlite := func(sql string) string {
		out, err := exec.CommandContext(t.Context(), python, "-c", `
import json, sqlite3, sys
db = sqlite3.connect(sys.argv[1], timeout=10)
with db: print("\n".join(str(r[0]) for r in db.execute(sys.argv[2])))`, file, sql).CombinedOutput()
		if err != nil {
			t.Fatalf("%s: %v: %s", sql, err, out)
		}
		return strings.TrimSpace(string(out))
	}
	p.start()
	pgtest.Eventually(t, time.Minute, "the program to work", func() bool { return strings.Contains(p.text(), "working on") })
	sqlite(`CREATE TRIGGER polite BEFORE INSERT ON orders WHEN NEW.id = '["5"]' BEGIN SELECT RAISE(ABORT, 'not now'); END`)
	for round := range 4 {
		acked := n.stats().Acked
		n.load(round)
		pgtest.Eventually(t, time.Minute, "some acks", func() bool { return n.stats().Acked > acked+20 })
		p.kill()
		p.start()
	}
	pgtest.Eventually(t, time.Minute, "the others to go on", func() bool {
		s := n.stats()
		return s.Redelivered > 0 && s.Pending < 20 && strings.Contains(p.text(), "not now")
	})
	sqlite("DROP TRIGGER polite")
	n.settled()
	got := strings.Split(sqlite(`SELECT json_extract(record, '$.id') || ' ' || json_extract(record, '$.amount') FROM orders`), "\n")
	slices.Sort(got)
	if want := n.table(); !slices.Equal(got, want) {
		t.Errorf("SQLite has %v, the table %v", got, want)
	}
	n.exec("TRUNCATE orders")
	pgtest.Eventually(t, time.Minute, "the rows to be gone", func() bool { return sqlite("SELECT count(*) FROM orders") == "0" })
	p.terminate()
	if s := n.stats(); s.InFlight != 0 {
		t.Errorf("%d changes are still out", s.InFlight)
	}
}

// TestWorkersKeepWhatTheyWorkOn: a batch that takes longer than ack_wait is not handed to
// another worker meanwhile. It runs alone: its leases are short.
func TestWorkersKeepWhatTheyWorkOn(t *testing.T) {
	n := newNode(t, "", "")
	n.consumer(client.Definition{Kind: "http", AckWait: "2s"})
	n.exec("INSERT INTO orders VALUES (1, 0)")
	for range 12 {
		n.exec("UPDATE orders SET amount = amount + 1")
	}
	a := newAPI(t)
	a.slow = 250 * time.Millisecond
	worker := newProgram(t, []string{"LOCKSTEP_SERVER=" + n.url(), "TARGET=" + a.URL, "ACK_WAIT=2s"}, build(t, "pull-go"))
	worker.start()
	n.settled()
	worker.terminate()
	if s := n.stats(); s.Expired != 0 {
		t.Errorf("pull-go: %d leases ended", s.Expired)
	}

	python, err := exec.LookPath("python3")
	if err != nil {
		t.Skip("there is no python3")
	}
	file := filepath.Join(t.TempDir(), "orders.db")
	if out, err := exec.CommandContext(t.Context(), python, "-c", `
import sqlite3, sys
with sqlite3.connect(sys.argv[1]) as db:
    db.execute("CREATE TABLE orders (id TEXT PRIMARY KEY, record TEXT NOT NULL)")
    db.execute("""CREATE TRIGGER slow BEFORE INSERT ON orders BEGIN
        SELECT count(*) FROM (WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c WHERE x < 300000) SELECT x FROM c); END""")`, file).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	n.exec("INSERT INTO orders SELECT g FROM generate_series(2, 60) g")
	worker = newProgram(t, []string{"LOCKSTEP_SERVER=" + n.url(), "SQLITE=" + file, "ACK_WAIT=2"}, python, filepath.Join("pull-python", "worker.py"))
	worker.start()
	n.settled()
	worker.terminate()
	if s := n.stats(); s.Expired != 0 {
		t.Errorf("pull-python: %d leases ended", s.Expired)
	}
}
