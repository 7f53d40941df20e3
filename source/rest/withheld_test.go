package rest_test

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"lockstep/source"
)

const logOfTwo = `
records: data
page: {kind: none}
check: {path: /me, account: id}
feeds:
  log:
    kind: log
    path: /log
    order: newest_first
    id: id
    time: {path: at, type: unix}
    record: object
    hydrate: true
    trailing: 60s
collections:
  open: {list: {path: /open}, get: {path: "/open/{id}"}, feed: log, object: {object.type: open}}
  shut: {list: {path: /shut}, get: {path: "/shut/{id}"}, feed: log, object: {object.type: shut}}
`

// A collection that may not be seen does not hold up those that share its feed: its
// records are named. One failure of many requests is no failure of all.
func TestAFeedGoesOnWithoutWhatIsWithheld(t *testing.T) {
	t.Parallel()
	now := time.Now().Unix()
	failures := 2
	f := serve(t, func(w http.ResponseWriter, r *http.Request) {
		switch id := r.URL.Path[strings.LastIndexByte(r.URL.Path, '/')+1:]; {
		case id == "me":
			write(w, object{"id": "me"})
		case id == "log":
			write(w, object{"data": []object{
				{"id": "2", "at": now, "object": object{"type": "shut", "id": "s1"}},
				{"id": "1", "at": now, "object": object{"type": "open", "id": "o1"}},
			}})
		case id == "s1":
			w.WriteHeader(http.StatusForbidden)
		case failures > 0:
			failures--
			w.WriteHeader(http.StatusBadGateway)
		default:
			write(w, object{"id": id})
		}
	})
	s := open(t, f, logOfTwo)
	at := begin(t, s, "log")
	if since := time.Unix(now-60, 0).UTC().Format(time.RFC3339); !strings.Contains(string(at), `"since":`) || string(at) > fmt.Sprintf(`{"since":%q}`, since) {
		t.Errorf("the cursor %s does not lie behind what is shown late", at)
	}
	page, err := s.Changes(t.Context(), "log", at, 0)
	if err != nil {
		t.Fatal(err)
	}
	want(t, "records", ids(page), "o1", "s1")
	shut := slices.IndexFunc(page.Records, func(r source.Record) bool { return r.ID == "s1" })
	if r := page.Records[shut]; r.Data != nil || r.Deleted || r.Collection != "shut" {
		t.Errorf("what is withheld came as %+v", r)
	}
}
