package rest_test

import (
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"testing"

	"lockstep/source"
)

// Every way of paging reads five records, two at a time, and ends.
func TestPaging(t *testing.T) {
	t.Parallel()
	records := []object{{"id": "a"}, {"id": "b"}, {"id": "c"}, {"id": "d"}, {"id": "e"}}
	cut := func(from int) []object { return records[min(from, 5):min(from+2, 5)] }
	number := func(r *http.Request, name string) int { n, _ := strconv.Atoi(r.URL.Query().Get(name)); return n }
	for kind, c := range map[string]struct {
		spec   string
		handle http.HandlerFunc
		asked  string // the last request
	}{
		"next_url": {"{kind: next_url, path: next}", func(w http.ResponseWriter, r *http.Request) {
			from := number(r, "from")
			answer := object{"data": cut(from)}
			if from+2 < 5 {
				answer["next"] = fmt.Sprintf("/things?from=%d&secret=1", from+2)
			}
			write(w, answer)
		}, "GET /things?from=4&secret=1"},
		"link_header": {"{kind: link_header, size: {param: n, count: 2}}", func(w http.ResponseWriter, r *http.Request) {
			from := number(r, "from")
			if from+2 < 5 {
				w.Header().Add("Link", fmt.Sprintf(`<http://%s/other/place?from=%d>; rel="next"`, r.Host, from+2))
			}
			write(w, object{"data": cut(from)})
		}, "GET /other/place?from=4"},
		"last_id": {"{kind: last_id, param: after, more: more}", func(w http.ResponseWriter, r *http.Request) {
			from := strings.Index("abcde", r.URL.Query().Get("after")) + 1
			if r.URL.Query().Get("after") == "" {
				from = 0
			}
			write(w, object{"data": cut(from), "more": from+2 < 5})
		}, "GET /things?after=d"},
		"token": {"{kind: token, path: paging.next, param: page_token}", func(w http.ResponseWriter, r *http.Request) {
			from, _ := strconv.Atoi(strings.TrimPrefix(r.URL.Query().Get("page_token"), "t"))
			answer := object{"data": cut(from)}
			if from+2 < 5 {
				answer["paging"] = object{"next": fmt.Sprintf("t%d", from+2)}
			}
			write(w, answer)
		}, "GET /things?page_token=t4"},
		"offset": {"{kind: offset, param: offset, size: {param: limit, count: 2}}", func(w http.ResponseWriter, r *http.Request) {
			write(w, object{"data": cut(number(r, "offset"))})
		}, "GET /things?limit=2&offset=4"},
		"page": {"{kind: page, param: page, size: {param: limit, count: 2}}", func(w http.ResponseWriter, r *http.Request) {
			write(w, object{"data": cut(2 * (number(r, "page") - 1))})
		}, "GET /things?limit=2&page=3"},
	} {
		f := serve(t, c.handle)
		s := open(t, f, "page: "+c.spec+"\nrecords: data\ncollections: {thing: {list: {path: /things}}}\n")
		want(t, kind, all(t, s, "thing"), "a", "b", "c", "d", "e")
		asked := f.asked()
		if len(asked) != 3 || asked[2] != c.asked {
			t.Errorf("%s: asked %q, want three and the last %q", kind, asked, c.asked)
		}
	}
}

func TestGraphQLPagingAndErrors(t *testing.T) {
	t.Parallel()
	var fail string
	f := serve(t, func(w http.ResponseWriter, r *http.Request) {
		if fail != "" {
			_, _ = w.Write([]byte(fail))
			return
		}
		body := make([]byte, 4096)
		n, _ := r.Body.Read(body)
		next := strings.Contains(string(body[:n]), `"cursor":"c1"`)
		write(w, object{"data": object{"things": object{"nodes": []any{object{"id": map[bool]int{false: 1, true: 2}[next]}, nil}, "pageInfo": object{"hasNextPage": !next, "endCursor": "c1"}}}})
	})
	s := open(t, f, `
collections:
  thing:
    list:
      path: /graphql
      graphql: {query: "query($n:Int!,$cursor:String){things{nodes{id}}}", variables: {org: acme}}
      records: data.things.nodes
      page: {kind: graphql, path: data.things.pageInfo, param: cursor, size: {param: n, count: 100}}
`)
	want(t, "ids", all(t, s, "thing"), "1", "2")
	asked := f.asked()
	if len(asked) != 2 || !strings.Contains(asked[1], `"variables":{"org":"acme","cursor":"c1","n":100}`) {
		t.Errorf("asked %q", asked)
	}
	for body, want := range map[string]source.Kind{
		`{"data":null,"errors":[{"type":"RATE_LIMITED","message":"slow down"}]}`:       source.RateLimited,
		`{"data":{"things":{"nodes":[null]}},"errors":[{"message":"half of it"}]}`:     source.Retry,
		`{"data":null,"errors":[{"type":"INSUFFICIENT_SCOPES","message":"no scope"}]}`: source.Forbidden,
	} {
		fail = body
		_, err := s.Backfill(t.Context(), "thing", nil)
		_ = kind(t, err, want)
	}
}

// A8: a cursor that does not move, and one that goes from A to B to A.
func TestAListThatGoesInCirclesIsAnError(t *testing.T) {
	t.Parallel()
	for name, next := range map[string]map[string]string{
		"stands still": {"": "a", "a": "a"},
		"in a circle":  {"": "a", "a": "b", "b": "c", "c": "a"},
	} {
		f := serve(t, func(w http.ResponseWriter, r *http.Request) {
			write(w, object{"data": []object{{"id": "1"}}, "next": next[r.URL.Query().Get("t")]})
		})
		s := open(t, f, "records: data\npage: {kind: token, path: next, param: t}\ncollections: {thing: {list: {path: /things}}}\n")
		var at source.Cursor
		var err error
		for range 30 {
			var page source.Page
			if page, err = s.Backfill(t.Context(), "thing", at); err != nil {
				break
			}
			at = page.Next
		}
		if e := kind(t, err, source.Failed); !strings.Contains(e.Message, "circle") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// A9, and B-cases where the engine asks the same page again and again: no circle.
func TestAskingTheSamePageAgainIsNoCircle(t *testing.T) {
	t.Parallel()
	f := serve(t, func(w http.ResponseWriter, r *http.Request) {
		n, _ := strconv.Atoi(r.URL.Query().Get("t"))
		answer := object{"data": []object{}, "next": nil}
		if n < 40 {
			answer["next"] = n + 1
		}
		if n%7 == 3 {
			answer["data"] = []object{{"id": n}}
		}
		write(w, answer)
	})
	s := open(t, f, "records: data\npage: {kind: token, path: next, param: t}\ncollections: {thing: {list: {path: /things}}}\n")
	var got []string
	for at := source.Cursor(nil); ; {
		var page source.Page
		for range 5 {
			var err error
			if page, err = s.Backfill(t.Context(), "thing", at); err != nil {
				t.Fatal(err)
			}
		}
		got = append(got, ids(page)...)
		if at = page.Next; at == nil {
			break
		}
	}
	want(t, "ids", got, "3", "10", "17", "24", "31", "38")
}

func TestPassesAreReadOneAfterTheOther(t *testing.T) {
	t.Parallel()
	f := serve(t, func(w http.ResponseWriter, r *http.Request) {
		write(w, object{"data": []object{{"id": r.URL.Query().Get("active")}}})
	})
	s := open(t, f, `
records: data
page: {kind: none}
collections: {thing: {list: {path: /things, passes: [{active: "true"}, {active: "false"}]}}}
`)
	want(t, "ids", all(t, s, "thing"), "true", "false")
}

// The record that a page goes on behind was deleted: the one before it will do.
func TestLastIDSurvivesTheDeletionOfItsRecord(t *testing.T) {
	t.Parallel()
	f := serve(t, func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Query().Get("after") {
		case "":
			write(w, object{"data": []object{{"id": "a"}, {"id": "b"}}, "more": true})
		case "a":
			write(w, object{"data": []object{{"id": "c"}}, "more": false})
		default:
			w.WriteHeader(404)
			write(w, object{"code": "no cursor"})
		}
	})
	s := open(t, f, `
records: data
page: {kind: last_id, param: after, more: more}
errors: [{status: 404, body: {code: no cursor}, then: restart}]
collections: {thing: {list: {path: /things}}}
`)
	want(t, "ids", all(t, s, "thing"), "a", "b", "c")
}

func TestNextPageOfAnotherHostIsRefused(t *testing.T) {
	t.Parallel()
	f := serve(t, func(w http.ResponseWriter, _ *http.Request) {
		write(w, object{"data": []object{{"id": "a"}}, "next": "https://evil.example.com/things?page=2"})
	})
	s := open(t, f, "records: data\npage: {kind: next_url, path: next}\ncollections: {thing: {list: {path: /things}}}\n")
	_, err := s.Backfill(t.Context(), "thing", nil)
	if e := kind(t, err, source.Failed); !strings.Contains(e.Message, "another host") {
		t.Error(err)
	}
}
