package main

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"lockstep/internal/pgdb/pgtest"
)

func TestMain(m *testing.M) { pgtest.Main(m) }

// fakeAPI hands out batches as /v1/http-consumers/{id}/next does, and notes what is
// said of their tokens.
type fakeAPI struct {
	mu      sync.Mutex
	batches []string
	settled []string // ack:token and nack:token
	broken  int      // so many calls fail before one is answered
	asked   chan struct{}
}

func (f *fakeAPI) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	f.mu.Lock()
	defer f.mu.Unlock()
	var body struct {
		Tokens []string `json:"ack_tokens"`
		Size   int      `json:"batch_size"`
	}
	verb, ok := strings.CutPrefix(r.URL.Path, "/v1/http-consumers/pulls/")
	if err := json.NewDecoder(r.Body).Decode(&body); err != nil || !ok || r.Method != http.MethodPost || r.Header.Get("Authorization") != "Bearer secret" {
		http.Error(w, "a wrong request", http.StatusBadRequest)
		return
	}
	if f.broken > 0 {
		f.broken--
		http.Error(w, "<html>a proxy says no</html>", http.StatusBadGateway)
		return
	}
	if verb != "next" {
		for _, t := range body.Tokens {
			f.settled = append(f.settled, verb+":"+t)
		}
		w.WriteHeader(http.StatusNoContent)
		return
	}
	if len(f.batches) == 0 || body.Size < 1 {
		select {
		case f.asked <- struct{}{}:
		default:
		}
		fmt.Fprint(w, `{"data":[],"info":{"num_pending":0,"num_ack_pending":0}}`)
		return
	}
	fmt.Fprintf(w, `{"data":[%s],"info":{"num_pending":0,"num_ack_pending":1}}`, f.batches[0])
	f.batches = f.batches[1:]
}

// change is a message as the API writes it. data is what GitHub's JSON has beyond what
// they all have.
func change(idx int, id, action, data string) string {
	raw := fmt.Sprintf(`{"id": "PR_%[1]s", "databaseId": %[1]s, "repositoryId": 775607785, "number": 1, "url": "https://github.com/o/r/pull/1", "state": "OPEN", "body": "", `+
		`"createdAt": "2024-03-21T17:47:28Z", "updatedAt": "2024-03-21T17:49:32Z", "mergedAt": null, "title": "t%[2]d"%[3]s}`, id, idx, data)
	return fmt.Sprintf(`{"ack_token":"%d","attempt":1,"record":{"id":"1b959a7a-09c2-4a32-9c48-31565ba42e15","sync_id":"8492d258-fbce-46c3-923c-6e02ef83d72c",`+
		`"collection_id":"github:pull_request","provider":"github","upstream_id":"%s","data":%s,"deleted":%t,"inserted_at":"2024-03-21T17:49:33.000000Z",`+
		`"upstream_created_at":"2024-03-21T17:47:28.000000Z","upstream_updated_at":"2024-03-21T17:49:32.000000Z","updated_idx":%d},"changes":null,"action":"%s","metadata":{"seq":%d}}`,
		idx, id, raw, action == "delete", idx, action, idx)
}

// play lets the worker work until it has seen everything, and returns what it said of
// the tokens, and its table.
func play(t *testing.T, f *fakeAPI) (settled []string, table string) {
	t.Helper()
	f.asked = make(chan struct{})
	server := httptest.NewServer(f)
	defer server.Close()
	database := pgtest.Database(t)
	db, err := pgxpool.New(t.Context(), database)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	w := worker{consumer: server.URL + "/v1/http-consumers/pulls/", token: "secret", db: db, log: slog.New(slog.NewTextHandler(t.Output(), nil))}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		w.run(ctx)
	}()
	select {
	case <-f.asked:
	case <-time.After(30 * time.Second):
		t.Error("the worker did not ask for all")
	}
	cancel()
	<-ended
	rows := pgtest.Query(t, database, "SELECT upstream_id || '=' || title || '/' || state || coalesce('@' || to_char(merged_at AT TIME ZONE 'UTC', 'HH24:MI'), '') FROM github_pull_requests ORDER BY 1")
	for _, row := range rows {
		table += row[0] + " "
	}
	slices.Sort(f.settled)
	return f.settled, table
}

func TestTheTableFollowsThePullRequests(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		batches        []string
		broken         int
		settled, table string
	}{
		"inserts, updates and deletes": {
			batches: []string{change(1, "7", "insert", "") + "," + change(2, "8", "read", ""), change(3, "7", "update", `, "state": "MERGED", "mergedAt": "2024-03-21T17:49:32Z"`), change(4, "8", "delete", "")},
			settled: "ack:1 ack:2 ack:3 ack:4", table: "7=t3/MERGED@17:49 ",
		},
		"what comes again, or late, takes nothing back": {
			batches: []string{change(1, "7", "insert", ""), change(3, "7", "update", ""), change(1, "7", "insert", ""), change(2, "7", "delete", ""), change(3, "7", "update", `, "title": "again"`)},
			settled: "ack:1 ack:1 ack:2 ack:3 ack:3", table: "7=t3/OPEN ",
		},
		"what is deleted stays deleted": {
			batches: []string{change(5, "7", "delete", ""), change(4, "7", "update", ""), change(5, "7", "delete", "")},
			settled: "ack:4 ack:5 ack:5",
		},
		"a bad one is given back, with the later ones of its pull request": {
			batches: []string{strings.Join([]string{change(1, "7", "insert", ""), change(2, "7", "update", `, "number": "many"`), change(3, "8", "insert", ""), change(4, "7", "update", ""), change(5, "8", "update", "")}, ",")},
			settled: "ack:1 ack:3 ack:5 nack:2", table: "7=t1/OPEN 8=t5/OPEN ",
		},
		"a record of something else is given back": {
			batches: []string{strings.Replace(change(1, "7", "insert", ""), `"url"`, `"uri"`, 1), strings.NewReplacer(`"data":{`, `"data":null,"was":{`).Replace(change(2, "8", "update", ""))},
			settled: "nack:1 nack:2",
		},
		"a truncate empties the table, a gap does nothing": {
			batches: []string{change(1, "7", "insert", ""), `{"ack_token":"2","record":null,"action":"truncate"}`, change(3, "8", "insert", ""), `{"ack_token":"4","record":null,"action":"gap"}`},
			settled: "ack:1 ack:2 ack:3 ack:4", table: "8=t3/OPEN ",
		},
		"an API that is away": {batches: []string{change(1, "7", "insert", "")}, broken: 1, settled: "ack:1", table: "7=t1/OPEN "},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			settled, table := play(t, &fakeAPI{batches: c.batches, broken: c.broken})
			if got := strings.Join(settled, " "); got != c.settled || table != c.table {
				t.Errorf("settled %q, want %q; table %q, want %q", got, c.settled, table, c.table)
			}
		})
	}
}
