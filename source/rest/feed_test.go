package rest_test

import (
	"cmp"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"lockstep/source"
	"lockstep/source/rest"
)

// row is a record of a table that lists its rows by the time of their change.
type row struct {
	id      string
	at      time.Time
	visible time.Time
	note    string
}

// table is an API with pages by number over a list that moves.
type table struct {
	mu   sync.Mutex
	rows []row
	hook func(page int) // runs before a page is made
	desc bool
}

func (a *table) touch(id string, at time.Time) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.rows = slices.DeleteFunc(a.rows, func(r row) bool { return r.id == id })
	a.rows = append(a.rows, row{id: id, at: at})
}

func (a *table) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	page, _ := strconv.Atoi(r.URL.Query().Get("page"))
	if a.hook != nil {
		a.hook(page)
	}
	since, _ := time.Parse(time.RFC3339, r.URL.Query().Get("since"))
	a.mu.Lock()
	defer a.mu.Unlock()
	var found []row
	for _, one := range a.rows {
		if !one.at.Before(since) && !one.visible.After(time.Now()) {
			found = append(found, one)
		}
	}
	slices.SortStableFunc(found, func(x, y row) int { return cmp.Or(x.at.Compare(y.at), cmp.Compare(x.id, y.id)) })
	if a.desc {
		slices.Reverse(found)
	}
	const size = 10
	data := []object{}
	for _, one := range found[min(len(found), size*(page-1)):min(len(found), size*page)] {
		data = append(data, object{"id": one.id, "updated": one.at.UTC().Format(time.RFC3339), "note": one.note})
	}
	write(w, object{"data": data})
}

const updated = `
records: data
page: {kind: page, param: page, size: {param: n, count: 10}}
collections:
  thing:
    version: updated
    list: {path: /things}
    changes: {kind: updated, query: {since: "{since:rfc3339}"}, overlap: 2s}
`

func begin(t testing.TB, s *rest.Source, feed string) source.Cursor {
	t.Helper()
	at, err := s.Start(t.Context(), feed)
	if err != nil {
		t.Fatal(err)
	}
	return at
}

// A1: many rows of one time. All come, in as many requests as there are pages, and
// the cursor moves.
func TestUpdatedReadsManyRowsOfOneTime(t *testing.T) {
	t.Parallel()
	api := &table{}
	f := serve(t, api.ServeHTTP)
	s := open(t, f, updated)
	at := begin(t, s, "thing")
	now := time.Now().Truncate(time.Second)
	var all []string
	for i := range 95 {
		id := fmt.Sprintf("%03d", i)
		all = append(all, id)
		api.touch(id, now)
	}
	f.asked()
	got, at := poll(t, s, "thing", at)
	want(t, "first", got, all...)
	if n := len(f.asked()); n > 12 {
		t.Errorf("%d requests for 10 pages", n)
	}
	got, _ = poll(t, s, "thing", at)
	want(t, "again", got)
}

// A row that changes again within the second in which it was read has the same time.
func TestUpdatedSeesTheSecondChangeOfASecond(t *testing.T) {
	t.Parallel()
	api := &table{}
	f := serve(t, api.ServeHTTP)
	s := open(t, f, updated)
	at := begin(t, s, "thing")
	now := time.Now().Truncate(time.Second)
	for _, note := range []string{"draft", "open", "merged"} {
		api.mu.Lock()
		api.rows = []row{{id: "a", at: now, note: note}, {id: "b", at: now}}
		api.mu.Unlock()
		var got []string
		got, at = poll(t, s, "thing", at)
		if len(got) == 0 || got[0] != "a" || len(got) > 1 && note != "draft" {
			t.Errorf("after %s came %v", note, got)
		}
	}
	got, _ := poll(t, s, "thing", at)
	want(t, "again", got)
}

// A3: a row of the first page is touched when the second is asked for, so that
// everything moves up by one. No other row is skipped.
func TestUpdatedSkipsNothingWhenTheListMoves(t *testing.T) {
	t.Parallel()
	api := &table{}
	f := serve(t, api.ServeHTTP)
	s := open(t, f, updated)
	// After an hour's absence: none of it lies in the time that is read again anyway.
	began := time.Now().Truncate(time.Second).Add(-time.Hour)
	at := source.Cursor(`{"since":"` + began.UTC().Format(time.RFC3339) + `"}`)
	for i := range 60 {
		api.touch(fmt.Sprintf("%02d", i), began.Add(time.Duration(1+i/6)*time.Minute))
	}
	touched := 0
	api.hook = func(int) {
		if touched < 5 {
			api.touch(fmt.Sprintf("%02d", touched), time.Now())
			touched++
		}
	}
	seen := map[string]bool{}
	for range 3 {
		var got []string
		got, at = poll(t, s, "thing", at)
		for _, id := range got {
			seen[id] = true
		}
	}
	for i := range 60 {
		if id := fmt.Sprintf("%02d", i); !seen[id] {
			t.Errorf("%s was skipped", id)
		}
	}
}

// The newest come first and there is no parameter for the time: reading ends at what
// is known.
func TestUpdatedNewestFirstEndsAtWhatIsKnown(t *testing.T) {
	t.Parallel()
	api := &table{desc: true}
	f := serve(t, api.ServeHTTP)
	s := open(t, f, strings.Replace(updated, `query: {since: "{since:rfc3339}"}`, "order: newest_first", 1))
	old := time.Now().Add(-time.Hour)
	for i := range 200 {
		api.touch(fmt.Sprintf("old%03d", i), old)
	}
	at := begin(t, s, "thing")
	for i := range 15 {
		api.touch(fmt.Sprintf("new%02d", i), time.Now())
	}
	f.asked()
	got, at := poll(t, s, "thing", at)
	if n := len(f.asked()); len(got) != 15 || n != 2 {
		t.Errorf("got %d in %d requests", len(got), n)
	}
	// A13: a time in the future is handed out once and drags the cursor nowhere.
	api.touch("future", time.Now().AddDate(70, 0, 0))
	got, at = poll(t, s, "thing", at)
	want(t, "the future", got, "future")
	api.touch("old000", time.Now())
	got, _ = poll(t, s, "thing", at)
	want(t, "after the future", got, "old000")
}

// A11: what becomes visible late is found as long as it is within the overlap.
func TestALateRowIsFoundWithinTheOverlap(t *testing.T) {
	t.Parallel()
	api := &table{}
	s := open(t, serve(t, api.ServeHTTP), updated)
	at := begin(t, s, "thing")
	now := time.Now()
	api.mu.Lock()
	api.rows = []row{{id: "early", at: now}, {id: "late", at: now.Add(-time.Second), visible: now.Add(700 * time.Millisecond)}}
	api.mu.Unlock()
	var seen []string
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(5 * time.Second); !slices.Contains(seen, "late") && time.Now().Before(deadline); <-tick.C {
		var got []string
		got, at = poll(t, s, "thing", at)
		seen = append(seen, got...)
	}
	want(t, "seen", seen, "early", "late")
}

// Nothing younger than settle is handed out, and nothing is lost by it.
func TestSettleHoldsBackWhatIsYoung(t *testing.T) {
	t.Parallel()
	api := &table{}
	s := open(t, serve(t, api.ServeHTTP), updated)
	at := begin(t, s, "thing")
	api.touch("young", time.Now())
	page, err := s.Changes(t.Context(), "thing", at, time.Hour)
	if err != nil || len(page.Records) != 0 {
		t.Fatalf("got %v, %v", ids(page), err)
	}
	got, _ := poll(t, s, "thing", page.Next)
	want(t, "without settling", got, "young")
}

// A pass that was broken off goes on from its cursor, by another process too.
func TestAPassGoesOnAfterACrash(t *testing.T) {
	t.Parallel()
	api := &table{}
	f := serve(t, api.ServeHTTP)
	at := begin(t, open(t, f, updated), "thing")
	for i := range 45 {
		api.touch(fmt.Sprintf("%02d", i), time.Now().Add(time.Duration(i-45)*10*time.Millisecond))
	}
	seen := map[string]int{}
	for calls := 0; ; calls++ {
		page, err := open(t, f, updated).Changes(t.Context(), "thing", at, 0)
		if err != nil || calls > 20 {
			t.Fatal(calls, err)
		}
		for _, r := range page.Records {
			seen[r.ID]++
		}
		at = page.Next
		if !page.More {
			break
		}
	}
	if len(seen) != 45 {
		t.Errorf("%d of 45 were seen", len(seen))
	}
}

func TestAnIdleFeedKeepsItsCursor(t *testing.T) {
	t.Parallel()
	s := open(t, serve(t, (&table{}).ServeHTTP), updated)
	at := begin(t, s, "thing")
	page, err := s.Changes(t.Context(), "thing", at, 0)
	if err != nil || string(page.Next) != string(at) || page.More {
		t.Errorf("got %s after %s, %v", page.Next, at, err)
	}
}

func TestACursorThatIsTooOldRestarts(t *testing.T) {
	t.Parallel()
	s := open(t, serve(t, (&table{}).ServeHTTP), strings.Replace(updated, "overlap: 2s", "retention: 1h", 1))
	begin(t, s, "thing")
	_, err := s.Changes(t.Context(), "thing", source.Cursor(`{"since":"2020-01-01T00:00:00Z"}`), 0)
	_ = kind(t, err, source.Restart)
	_, err = s.Changes(t.Context(), "thing", nil, 0)
	_ = kind(t, err, source.Restart)
}

// A list that is as it was costs a 304; what was handed out but may not be stored is
// handed out again.
func TestEtagReadsAListOnlyWhenItChanged(t *testing.T) {
	t.Parallel()
	version := 1
	var told []int
	f := serve(t, func(w http.ResponseWriter, r *http.Request) {
		tag := fmt.Sprintf(`"v%d"`, version)
		if r.Header.Get("If-None-Match") == tag {
			told = append(told, 304)
			w.WriteHeader(304)
			return
		}
		told = append(told, 200)
		w.Header().Set("ETag", tag)
		write(w, object{"data": []object{{"id": version}}})
	})
	s := open(t, f, "records: data\npage: {kind: none}\ncollections: {thing: {list: {path: /things}, changes: {kind: etag}}}\n")
	at := begin(t, s, "thing")
	told = nil
	got, next := poll(t, s, "thing", at)
	want(t, "first", got, "1")
	// The engine could not store that, and asks with the old cursor.
	got, next2 := poll(t, s, "thing", at)
	want(t, "again", got, "1")
	_ = next
	got, next3 := poll(t, s, "thing", next2)
	want(t, "unchanged", got)
	version = 2
	got, _ = poll(t, s, "thing", next3)
	want(t, "changed", got, "2")
	if fmt.Sprint(told) != "[200 200 304 200]" {
		t.Errorf("answers were %v", told)
	}
}
