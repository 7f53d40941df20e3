package rest_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"testing"

	"lockstep/source"
)

const family = `
records: data
page: {kind: page, param: page, size: {param: n, count: 2}}
errors: [{status: 404, body: {why: removed}, then: skip}, {status: 409, then: empty}]
collections:
  parent: {list: {path: /parents}}
  child:
    parent: {collection: parent, where: {kind: "!empty"}}
    list: {path: "/parents/{parent.id}/children"}
    id: "{parent.id}.{record.n}"
    add: {parent_id: "{parent.id}"}
    sweep: {every: 1h}
`

// parents serves parents p0…p4 with three children each. What is said about one in
// special is its answer.
func parents(special map[string]func(w http.ResponseWriter)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		page, _ := strconv.Atoi(r.URL.Query().Get("page"))
		from := 2 * (page - 1)
		data := []object{}
		if r.URL.Path == "/parents" {
			for i := from; i < min(from+2, 5); i++ {
				data = append(data, object{"id": fmt.Sprintf("p%d", i), "kind": map[bool]string{true: "empty"}[i == 3]})
			}
			write(w, object{"data": data})
			return
		}
		if f := special[strings.Split(r.URL.Path, "/")[2]]; f != nil {
			f(w)
			return
		}
		for i := from; i < min(from+2, 3); i++ {
			data = append(data, object{"n": i})
		}
		write(w, object{"data": data})
	}
}

func childrenOf(names ...string) (out []string) {
	for _, p := range names {
		for n := range 3 {
			out = append(out, fmt.Sprintf("%s.%d", p, n))
		}
	}
	return out
}

func TestChildrenAreReadParentByParent(t *testing.T) {
	t.Parallel()
	f := serve(t, parents(map[string]func(http.ResponseWriter){
		"p1": func(w http.ResponseWriter) { write(w, object{"data": []object{}}) },
		"p2": func(w http.ResponseWriter) { w.WriteHeader(409) },
	}))
	s := open(t, f, family)
	want(t, "children", all(t, s, "child"), childrenOf("p0", "p4")...)
	page, err := s.Backfill(t.Context(), "child", nil)
	if err != nil || string(page.Records[0].Data) != `{"n":0,"parent_id":"p0"}` {
		t.Errorf("got %v, %v", page.Records, err)
	}
	// Each page by another process.
	var got []string
	for at := source.Cursor(nil); ; {
		page, err := open(t, f, family).Backfill(t.Context(), "child", at)
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, ids(page)...)
		if at = page.Next; at == nil {
			break
		}
	}
	want(t, "over restarts", got, childrenOf("p0", "p4")...)
}

// A parent that cannot be seen is passed over in a backfill. In a sweep it is lost
// access: its children must not be taken for deleted.
func TestWhatIsSkippedIsNotSwept(t *testing.T) {
	t.Parallel()
	f := serve(t, parents(map[string]func(http.ResponseWriter){"p1": func(w http.ResponseWriter) {
		w.WriteHeader(404)
		write(w, object{"why": "removed"})
	}}))
	s := open(t, f, family)
	want(t, "backfill", all(t, s, "child"), childrenOf("p0", "p2", "p4")...)
	var at source.Cursor
	var err error
	for range 10 {
		var page source.Page
		if page, err = s.IDs(t.Context(), "child", at); err != nil || page.Next == nil {
			break
		}
		at = page.Next
	}
	_ = kind(t, err, source.Forbidden)
}

func TestAListThatIsNotThereIsLostAccess(t *testing.T) {
	t.Parallel()
	f := serve(t, func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(404) })
	_, err := open(t, f, things[1:]).Backfill(t.Context(), "thing", nil)
	_ = kind(t, err, source.Forbidden)
}

func TestGetTellsWhatIsGone(t *testing.T) {
	t.Parallel()
	f := serve(t, func(w http.ResponseWriter, r *http.Request) {
		switch id := strings.TrimPrefix(r.URL.Path, "/things/"); id {
		case "gone":
			w.WriteHeader(410)
		case "none":
			w.WriteHeader(404)
		case "secret":
			w.WriteHeader(403)
		case "flagged":
			write(w, object{"id": id, "deleted": true})
		case "other":
			write(w, object{"id": "another"})
		case "wei/rd":
			write(w, object{"id": id, "path": r.URL.RawPath})
		default:
			write(w, object{"id": id})
		}
	})
	s := open(t, f, `
records: data
page: {kind: none}
collections: {thing: {list: {path: /things}, deleted: {deleted: "true"}, get: {path: "/things/{id}"}}}
`)
	page, err := s.Get(t.Context(), "thing", []string{"a", "gone", "none", "flagged", "wei/rd"})
	if err != nil {
		t.Fatal(err)
	}
	want(t, "got", ids(page), "a", "gone deleted: not_found", "none deleted: not_found", "flagged deleted: flag", "wei/rd")
	_, err = s.Get(t.Context(), "thing", []string{"a", "secret"})
	_ = kind(t, err, source.Forbidden)
	_, err = s.Get(t.Context(), "thing", []string{"other"})
	_ = kind(t, err, source.Failed)
}

// A batch that is too large is halved until it fits; what is not in the answer is gone.
func TestGetInBatchesSplits(t *testing.T) {
	t.Parallel()
	f := serve(t, func(w http.ResponseWriter, r *http.Request) {
		var body struct{ IDs []string }
		if json.NewDecoder(r.Body).Decode(&body) != nil || len(body.IDs) > 2 {
			w.WriteHeader(413)
			return
		}
		data := []object{}
		for _, id := range body.IDs {
			if id != "x" {
				data = append(data, object{"id": id})
			}
		}
		write(w, object{"data": data})
	})
	s := open(t, f, `
records: data
page: {kind: none}
errors: [{status: 413, then: split}]
collections: {thing: {list: {path: /things}, get: {path: /batch, method: POST, json: {IDs: "{ids}"}, batch: 8}}}
`)
	page, err := s.Get(t.Context(), "thing", []string{"a", "b", "c", "x", "e"})
	if err != nil {
		t.Fatal(err)
	}
	got := ids(page)
	slices.Sort(got)
	want(t, "got", got, "a", "b", "c", "e", "x deleted: not_found")
}

// A16: the list inside grows while it is read. The record is read again, whole.
func TestNestedListsAreReadToTheirEnd(t *testing.T) {
	t.Parallel()
	items, looks := 25, 0
	envelope := func(from, n int) object {
		data := []object{}
		for i := from; i < min(from+n, items); i++ {
			data = append(data, object{"id": items - i})
		}
		return object{"data": data, "more": from+n < items}
	}
	f := serve(t, func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/things":
			write(w, object{"data": []object{{"id": "a", "price": json.RawMessage("1.10"), "items": envelope(0, 10), "end": 1}}})
		case "/things/a":
			if looks++; looks == 1 {
				items++ // newest first: everything moves
			}
			write(w, object{"id": "a", "price": json.RawMessage("1.10"), "items": envelope(0, 10), "end": 1})
		case "/things/a/items":
			after, _ := strconv.Atoi(r.URL.Query().Get("after"))
			write(w, envelope(items-after+1, 10))
		}
	})
	s := open(t, f, `
records: data
page: {kind: last_id, param: after, more: more}
collections:
  thing:
    list: {path: /things, page: {kind: none}}
    get: {path: "/things/{id}"}
    nested: [{field: items, path: "/things/{id}/items"}]
`)
	page, err := s.Backfill(t.Context(), "thing", nil)
	if err != nil {
		t.Fatal(err)
	}
	var got struct {
		Price json.RawMessage
		End   int
		Items struct {
			Data []struct{ ID int }
			More bool
		}
	}
	if err := json.Unmarshal(page.Records[0].Data, &got); err != nil {
		t.Fatal(err)
	}
	if len(got.Items.Data) != 26 || got.Items.More || got.Items.Data[0].ID != 26 || got.Items.Data[25].ID != 1 || string(got.Price) != "1.10" || got.End != 1 {
		t.Errorf("got %s", page.Records[0].Data)
	}
}

func TestWrites(t *testing.T) {
	t.Parallel()
	var keys, types []string
	status := 200
	f := serve(t, func(w http.ResponseWriter, r *http.Request) {
		keys = append(keys, r.Header.Get("Idempotency-Key"))
		types = append(types, r.Header.Get("Content-Type"))
		if status != 200 {
			w.WriteHeader(status)
			return
		}
		body, _ := io.ReadAll(r.Body)
		write(w, object{"thing": object{"id": "7", "body": string(body)}})
	})
	s := open(t, f, `
records: data
page: {kind: none}
collections:
  thing:
    list: {path: /things}
    write:
      create: {method: POST, path: /things, encoding: form, record: thing, idempotency_header: Idempotency-Key}
      update: {method: PATCH, path: "/things/{id}", json: {thing: "{record}"}, record: thing}
      delete: {method: DELETE, path: "/things/{id}"}
`)
	put := func(action, id, data string) (source.Record, error) {
		return s.Write(t.Context(), source.Write{Collection: "thing", Action: action, ID: id, Data: json.RawMessage(data), Key: "k1"})
	}
	r, err := put("create", "", `{"a":{"b":1}}`)
	if err != nil || r.ID != "7" || !bytes.Contains(r.Data, []byte("a[b]=1")) {
		t.Errorf("create: %v, %v", r, err)
	}
	if r, err = put("update", "7", `{"a":1.10}`); err != nil || !bytes.Contains(r.Data, []byte(`{\"thing\":{\"a\":1.10}}`)) {
		t.Errorf("update: %s, %v", r.Data, err)
	}
	if r, err = put("delete", "7", ""); err != nil || !r.Deleted {
		t.Errorf("delete: %v, %v", r, err)
	}
	want(t, "keys", keys, "k1", "", "")
	want(t, "types", types, "application/x-www-form-urlencoded", "application/json", "")
	_, err = put("upsert", "", "{}")
	_ = kind(t, err, source.Invalid)
	// In doubt: may be repeated with a key, must not be without.
	status = 500
	_, err = put("create", "", "{}")
	_ = kind(t, err, source.Retry)
	_, err = put("update", "7", "{}")
	_ = kind(t, err, source.Unknown)
	status = 404
	if r, err = put("delete", "7", ""); err != nil || !r.Deleted {
		t.Errorf("delete of what is gone: %v, %v", r, err)
	}
}
