package rest_test

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"net/http"
	"strings"
	"sync"
	"testing"

	"lockstep/source"
	"lockstep/source/rest"
)

// boxes are parents, things lie in one of them: a thing is fetched by its box and place.
const boxes = `
records: .
page: {kind: none}
check: {path: /me, account: id}
credential: {secret: {secret: true, default: hook}}
collections:
  box: {list: {path: /boxes}}
  thing:
    parent: {collection: box}
    add: {box: "{parent.id}"}
    list: {path: "/boxes/{parent.id}/things", errors: [{status: 404, then: skip}]}
    get:
      form: "[a-z]+"
      path: "/boxes/{known.box}/{known.place}"
      parent: {id: "{known.box}"}
      confirm: {path: "/boxes/{known.box}"}
  label:
    id: "{parent.id}-{record.name}"
    parent: {collection: box}
    add: {box: "{parent.id}"}
    list: {path: "/boxes/{parent.id}/labels"}
    get: {form: "(?P<box>[0-9]+)-(?P<name>[a-z]+)", path: "/boxes/{known.box}/labels/{known.name}", parent: {id: "{known.box}"}}
webhook:
  header: X-Sign
  format: plain
  secret: "{credential.secret}"
  hints: [{collection: thing, id: thing.id, known: {box: in, place: thing.place}}]
`

// store is an API of boxes: what answers at which path.
type store struct {
	mu    sync.Mutex
	paths map[string]any
}

func (s *store) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	v, ok := s.paths[r.URL.Path]
	if !ok {
		w.WriteHeader(http.StatusNotFound)
		v = object{"message": "Not Found"}
	}
	if to, moved := v.(string); moved {
		http.Redirect(w, r, to, http.StatusMovedPermanently)
		return
	}
	write(w, v)
}

// set puts an answer there; nil takes it away.
func (s *store) set(path string, v any) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.paths[path] = v; v == nil {
		delete(s.paths, path)
	}
}

func openBoxes(t testing.TB) (*store, *fake, *rest.Source) {
	t.Helper()
	a, b := object{"id": "a", "place": 1, "n": 1}, object{"id": "b", "place": 2, "n": 1}
	s := &store{paths: map[string]any{
		"/boxes": []object{{"id": 7}, {"id": 8}}, "/boxes/7": object{"id": 7}, "/boxes/8": object{"id": 8}, "/boxes/7/things": []object{a, b}, "/boxes/8/things": []object{},
		"/boxes/7/1": a, "/boxes/7/2": b, "/boxes/7/labels/red": object{"name": "red"},
	}}
	f := serve(t, s.ServeHTTP)
	return s, f, open(t, f, boxes)
}

func TestARecordIsFetchedByWhereItLies(t *testing.T) {
	t.Parallel()
	s, f, api := openBoxes(t)
	all(t, api, "thing")
	f.asked()
	page, err := api.Get(t.Context(), "thing", []string{"a", "7"})
	if err != nil {
		t.Fatal(err)
	}
	want(t, "seen before, and no id", ids(page), "7 deleted: not_found", "a")
	want(t, "asked", f.asked(), "GET /boxes/7/1")
	if !strings.Contains(string(page.Records[1].Data), `"box":7`) {
		t.Errorf("what add adds is missing: %s", page.Records[1].Data)
	}
	// Gone, moved and lost are told apart.
	s.set("/boxes/7/1", nil)
	page, err = api.Get(t.Context(), "thing", []string{"a"})
	if err != nil {
		t.Fatal(err)
	}
	want(t, "gone", ids(page), "a deleted: not_found")
	want(t, "asked", f.asked(), "GET /boxes/7/1", "GET /boxes/7")
	s.set("/boxes/7/1", "/boxes/8/3")
	s.set("/boxes/8/3", object{"id": "c", "place": 3})
	if page, err = api.Get(t.Context(), "thing", []string{"a"}); err != nil {
		t.Fatal(err)
	}
	want(t, "moved", ids(page), "a deleted: not_found")
	s.set("/boxes/7/1", nil)
	s.set("/boxes/7", nil)
	_, err = api.Get(t.Context(), "thing", []string{"a"})
	_ = kind(t, err, source.Forbidden)
}

func TestWhatWasNeverSeenIsLookedForOnce(t *testing.T) {
	t.Parallel()
	_, f, api := openBoxes(t)
	page, err := api.Get(t.Context(), "thing", []string{"b"})
	if err != nil {
		t.Fatal(err)
	}
	want(t, "found", ids(page), "b")
	f.asked()
	_, err = api.Get(t.Context(), "thing", []string{"x"})
	_ = kind(t, err, source.Forbidden) // its box may be hidden
	walked := len(f.asked())
	_, err = api.Get(t.Context(), "thing", []string{"y"})
	_ = kind(t, err, source.Forbidden)
	if again := f.asked(); walked == 0 || len(again) != 0 {
		t.Errorf("%d requests, then %q", walked, again)
	}
}

func TestWhereARecordLiesIsLearnt(t *testing.T) {
	t.Parallel()
	_, f, api := openBoxes(t)
	body := `{"in":7,"thing":{"id":"b","place":2}}`
	mac := hmac.New(sha256.New, []byte("hook"))
	mac.Write([]byte(body))
	if _, err := api.Receive(t.Context(), http.Header{"X-Sign": {hex.EncodeToString(mac.Sum(nil))}}, []byte(body)); err != nil {
		t.Fatal(err)
	}
	api.Learn([]source.Record{{Collection: "thing", ID: "a", Data: json.RawMessage(`{"box":7,"place":1}`)}, {Collection: "none"}, {Collection: "thing", ID: "c"}})
	page, err := api.Get(t.Context(), "thing", []string{"a", "b"})
	if err != nil {
		t.Fatal(err)
	}
	want(t, "from a hint and from the mirror", ids(page), "a", "b")
	if n := len(f.asked()); n != 2 {
		t.Errorf("%d requests", n)
	}
	page, err = api.Get(t.Context(), "label", []string{"7-red", "nonsense"})
	if err != nil {
		t.Fatal(err)
	}
	want(t, "from the id itself", ids(page), "nonsense deleted: not_found", "7-red")
}

func TestAGetThatCannotBe(t *testing.T) {
	t.Parallel()
	for text, say := range map[string]string{
		`get: {path: "/{known.a.b}"}`:                       "{known.a.b} is not a member of the record",
		`get: {path: "/{known.a}", batch: 5}`:               "a batch cannot use {known}",
		`get: {path: /x, form: "("}`:                        "form is no regular expression",
		`get: {form: x}`:                                    "path is missing",
		`get: {within: {path: /x, page: {kind: next_url}}}`: "path is missing",
	} {
		_, err := rest.Parse("x.yaml", []byte("name: x\nbase_url: https://x.example\nrecords: .\npage: {kind: none}\ncollections:\n  a:\n    list: {path: /a}\n    "+text+"\n"))
		if err == nil || !strings.Contains(err.Error(), say) {
			t.Errorf("%s: got %v, want %q", text, err, say)
		}
	}
}
