package rest_test

import (
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"

	"lockstep/source"
	"lockstep/source/rest"
)

// fake is an API that a test writes, with a log of what was asked.
type fake struct {
	*httptest.Server

	mu  sync.Mutex
	log []string
}

// serve starts an API. Each request is in the log as "METHOD path?query body".
func serve(t testing.TB, handler http.HandlerFunc) *fake {
	t.Helper()
	f := &fake{}
	f.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		r.Body = io.NopCloser(strings.NewReader(string(body)))
		f.mu.Lock()
		f.log = append(f.log, strings.TrimSpace(r.Method+" "+r.URL.RequestURI()+" "+string(body)))
		f.mu.Unlock()
		handler(w, r)
	}))
	t.Cleanup(f.Close)
	return f
}

// asked returns what was asked since the last time.
func (f *fake) asked() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	out := f.log
	f.log = nil
	return out
}

func parse(t testing.TB, text string) *rest.Spec {
	t.Helper()
	s, err := rest.Parse("test.yaml", []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// open makes a source of a spec, which gets a name and a base_url in front.
func open(t testing.TB, f *fake, text string) *rest.Source {
	t.Helper()
	return openWith(t, f, text, rest.Options{})
}

func openWith(t testing.TB, f *fake, text string, o rest.Options) *rest.Source {
	t.Helper()
	o.BaseURL = f.URL
	s, err := rest.New(parse(t, "name: test\nbase_url: https://api.example.com\n"+text), o)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// all reads a backfill to its end and returns the ids in order.
func all(t testing.TB, s *rest.Source, collection string) []string {
	t.Helper()
	var out []string
	for at := source.Cursor(nil); ; {
		page, err := s.Backfill(t.Context(), collection, at)
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, ids(page)...)
		if at = page.Next; at == nil {
			return out
		}
	}
}

func ids(p source.Page) []string {
	var out []string
	for _, r := range p.Records {
		id := r.ID
		if r.Deleted {
			id += " deleted: " + r.Reason
		}
		out = append(out, id)
	}
	return out
}

// poll reads a feed to its end and returns the ids and the cursor.
func poll(t testing.TB, s *rest.Source, feed string, at source.Cursor) ([]string, source.Cursor) {
	t.Helper()
	var out []string
	for range 1000 {
		page, err := s.Changes(t.Context(), feed, at, 0)
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, ids(page)...)
		at = page.Next
		if !page.More {
			return out, at
		}
	}
	t.Fatal("the feed has no end")
	return nil, nil
}

func want(t testing.TB, what string, got []string, want ...string) {
	t.Helper()
	if !slices.Equal(got, want) {
		t.Errorf("%s: got %q, want %q", what, got, want)
	}
}

func kind(t testing.TB, err error, want source.Kind) *source.Error {
	t.Helper()
	var e *source.Error
	if !errors.As(err, &e) || e.Kind != want {
		t.Fatalf("got %v, want an error of kind %s", err, want)
	}
	return e
}

func write(w http.ResponseWriter, v any) {
	w.Header().Set("Content-Type", "application/json")
	if err := json.NewEncoder(w).Encode(v); err != nil {
		panic(err)
	}
}

type object = map[string]any
