package console_test

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"lockstep/internal/console"
	"lockstep/internal/secret"
)

// pagesOver starts a console over an API of a few routes, for what is about showing only.
func pagesOver(t *testing.T, routes map[string]http.HandlerFunc) string {
	t.Helper()
	mux := http.NewServeMux()
	for route, h := range routes {
		mux.HandleFunc(route, h)
	}
	key, err := secret.NewKey(make([]byte, 32))
	if err != nil {
		t.Fatal(err)
	}
	pages, err := console.New(console.Config{API: mux, Sealer: key})
	if err != nil {
		t.Fatal(err)
	}
	server := httptest.NewServer(pages)
	t.Cleanup(server.Close)
	return server.URL + "/console/"
}

func answers(v any) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) { _ = json.NewEncoder(w).Encode(v) }
}

// changeOf is the answer of the API about an update of a row.
func changeOf(record, changes map[string]any) map[string]any {
	return map[string]any{
		"record": record, "changes": changes, "action": "update", "consumers": []any{},
		"metadata": map[string]any{
			"database": "app", "table_schema": "public", "table_name": "t", "seq": 7, "commit_lsn": 40110232, "commit_timestamp": "2026-11-21T23:22:32Z",
			"xid": 9, "record_pks": []string{"1"}, "key_kind": "primary_key", "old_known": true, "unchanged": []string{"asleep"},
		},
	}
}

func changePageOf(t *testing.T, change map[string]any) string {
	t.Helper()
	return fetched(t, pagesOver(t, map[string]http.HandlerFunc{
		"GET /v1/databases/app":           answers(map[string]any{"name": "app", "status": "ok", "first_seq": 1, "last_seq": 9}),
		"GET /v1/databases/app/changes/7": answers(change),
		"GET /v1/consumers":               answers(map[string]any{"data": []any{}}),
	})+"databases/app/changes/7")
}

func fetched(t *testing.T, address string) string {
	t.Helper()
	answer, err := http.Get(address)
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	page, err := io.ReadAll(answer.Body)
	if err != nil || answer.StatusCode != http.StatusOK {
		t.Fatalf("%s: %s, %v\n%s", address, answer.Status, err, page)
	}
	return string(page)
}

// TestAWideAndLargeChangeIsShownInItsBounds: of 1,600 columns those that changed come
// first, a value of 5 MB is cut, large values that Postgres did not send are named, and
// what is hostile is text.
func TestAWideAndLargeChangeIsShownInItsBounds(t *testing.T) {
	t.Parallel()
	record := map[string]any{"id": 1, "zz_status": "paid", "zz_note": strings.Repeat("x", 5<<20), hostile: hostile, "spec": map[string]any{"a": []any{1, 2, 3}}}
	for i := range 1600 {
		record[fmt.Sprintf("c%04d", i)] = "same"
	}
	page := changePageOf(t, changeOf(record, map[string]any{"zz_status": "open", "zz_note": "", "spec": map[string]any{"a": []any{1, 5, 3}}}))
	if len(page) > 2<<20 {
		t.Errorf("the page has %d bytes", len(page))
	}
	first, rest, _ := strings.Cut(page, "columns as before</summary>")
	for _, name := range []string{"zz_status", "zz_note", "spec"} {
		if !strings.Contains(first, `<th scope="row">`+name+`</th>`) || strings.Contains(rest, `<th scope="row">`+name+`</th>`) {
			t.Errorf("%s changed, and is not among the first columns", name)
		}
	}
	if !strings.Contains(first, `<span class="quiet">a[1]</span> <del>5</del> → <ins>2</ins>`) {
		t.Error("it is not told where an object differs")
	}
	if n := strings.Count(rest, `<th scope="row">c`); n != 1600 {
		t.Errorf("%d columns as before are listed, there are 1600", n)
	}
	if !strings.Contains(page, "5.2 MB, cut") || !strings.Contains(page, `/changes/7/raw"`) {
		t.Error("the large value is not cut, or nothing leads to the whole of it")
	}
	if !strings.Contains(rest, `<th scope="row">asleep</th><td class="tight quiet">not sent</td>`) {
		t.Error("a value that was not sent is not named")
	}
	if strings.Contains(page, "<img") || strings.Contains(page, "<script>") {
		t.Error("a value became an element")
	}
}

var idPattern = regexp.MustCompile(`(?m)^id: (\d+)\n`)

// TestAFloodIsThinnedAndCounted: of more changes than a person sees the newest are shown,
// the others are counted, and every event's id is the place to go on from.
func TestAFloodIsThinnedAndCounted(t *testing.T) {
	t.Parallel()
	const changes = 3000
	asked := make(chan string, 8)
	address := pagesOver(t, map[string]http.HandlerFunc{
		"GET /v1/databases/app": answers(map[string]any{"name": "app", "status": "ok", "first_seq": 1, "last_seq": 41}),
		"GET /v1/databases/app/changes": func(w http.ResponseWriter, r *http.Request) {
			asked <- r.Header.Get("Last-Event-ID") + " " + r.URL.RawQuery
			w.Header().Set("Content-Type", "text/event-stream")
			for i := range changes {
				fmt.Fprintf(w, "id: %d\nevent: insert\ndata: {\"record\":{\"id\":1,\"v\":\"<b>\"},\"changes\":null,\"action\":\"insert\",\"metadata\":{\"seq\":%d,\"table_schema\":\"s\",\"table_name\":\"t\",\"record_pks\":[\"1\"]}}\n\n", 42+i, 42+i)
			}
			_ = http.NewResponseController(w).Flush()
			<-r.Context().Done()
		},
	})
	request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, address+"stream/events?database=app&tables=s.*&after=7", nil)
	if err != nil {
		t.Fatal(err)
	}
	request.Header.Set("Last-Event-ID", "41") // what a browser has seen goes before the page's address
	answer, err := http.DefaultClient.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	if got, want := <-asked, "41 tables=s.%2A"; got != want {
		t.Errorf("the API was asked for %q, want %q", got, want)
	}
	var all strings.Builder
	place := 41
	for deadline := time.Now().Add(20 * time.Second); place < 41+changes && time.Now().Before(deadline); {
		part := make([]byte, 64<<10)
		n, err := answer.Body.Read(part)
		if err != nil {
			t.Fatal(err)
		}
		all.Write(part[:n])
		for _, m := range idPattern.FindAllStringSubmatch(all.String(), -1) {
			place, _ = strconv.Atoi(m[1])
		}
	}
	shown, hidden := 0, 0
	for event := range strings.SplitSeq(all.String(), "\n\n") {
		rows := strings.Count(event, "<tr>")
		if shown += rows; rows > 20 {
			t.Errorf("%d rows came at once", rows)
		}
		if _, text, ok := strings.Cut(event, `<td colspan="6">`); ok {
			n, err := strconv.Atoi(strings.ReplaceAll(text[:strings.Index(text, " ")], ",", ""))
			if err != nil {
				t.Fatal(err)
			}
			hidden += n
		}
	}
	if shown+hidden != changes || place != 41+changes || shown == 0 || hidden == 0 {
		t.Errorf("%d rows are shown and %d are counted up to %d, of %d changes", shown, hidden, place, changes)
	}
	if strings.Contains(all.String(), "<b>") {
		t.Error("a value became an element")
	}
}
