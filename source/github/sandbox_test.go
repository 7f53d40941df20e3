package github_test

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"lockstep/locksteptest"
	"lockstep/source"
	"lockstep/source/github"
	"lockstep/source/rest"

	sandbox "lockstep/sandbox/github"
)

const token = "ghp_0123456789abcdef"

type object = map[string]any

// hub is a simulated GitHub with its address.
type hub struct {
	*sandbox.Sandbox
	url string
}

func account(t testing.TB, o sandbox.Options) hub {
	t.Helper()
	o.Unlimited = true
	world, err := sandbox.New(o)
	if err != nil {
		t.Fatal(err)
	}
	server := httptest.NewServer(world.Handler())
	t.Cleanup(server.Close)
	return hub{world, server.URL}
}

func (h hub) with(t testing.TB, credential map[string]string, transport http.RoundTripper, limiter source.Limiter) *rest.Source {
	t.Helper()
	s, err := github.New(rest.Options{BaseURL: h.url, Credential: credential, Transport: transport, Limiter: limiter})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func (h hub) open(t testing.TB) *rest.Source {
	t.Helper()
	return h.with(t, map[string]string{"token": token, "webhook_secret": "whsec"}, nil, nil)
}

// truth returns what the sandbox holds of a collection, by id.
func (h hub) truth(t testing.TB, collection string) map[string]json.RawMessage {
	t.Helper()
	out := map[string]json.RawMessage{}
	rows, ok := h.Records(collection)
	if !ok {
		t.Fatalf("the sandbox has no %s", collection)
	}
	for id, data := range rows {
		out[id] = data
	}
	return out
}

// objects are the records of a collection, decoded.
func (h hub) objects(t testing.TB, collection string) map[string]object {
	t.Helper()
	out := map[string]object{}
	for id, data := range h.truth(t, collection) {
		var o object
		d := json.NewDecoder(strings.NewReader(string(data)))
		d.UseNumber()
		if err := d.Decode(&o); err != nil {
			t.Fatal(err)
		}
		out[id] = o
	}
	return out
}

// asked counts the requests since the log was last cleared whose path has a part, by
// status.
func (h hub) asked(part string) map[int]int {
	out := map[int]int{}
	for _, call := range h.Core().Log().Calls(0) {
		if strings.Contains(call.Path, part) {
			out[call.Status]++
		}
	}
	return out
}

// steady shows records without what changes without meaning, as fingerprints do.
type steady struct {
	*rest.Source
	volatile map[string][]string
}

func (h hub) steady(t testing.TB, s *rest.Source) steady {
	t.Helper()
	list, err := s.Collections(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	out := steady{s, map[string][]string{}}
	for _, c := range list {
		out.volatile[c.Name] = c.Volatile
	}
	return out
}

func (s steady) strip(collection string, data json.RawMessage) json.RawMessage {
	var o object
	d := json.NewDecoder(strings.NewReader(string(data)))
	d.UseNumber()
	if data == nil || d.Decode(&o) != nil {
		return data
	}
	for _, path := range s.volatile[collection] {
		at, parts := o, strings.Split(path, ".")
		for ; len(parts) > 1 && at != nil; parts = parts[1:] {
			at, _ = at[parts[0]].(object)
		}
		delete(at, parts[0])
	}
	out, err := json.Marshal(o)
	if err != nil {
		panic(err)
	}
	return out
}

func (s steady) page(p source.Page, err error) (source.Page, error) {
	for i := range p.Records {
		p.Records[i].Data = s.strip(p.Records[i].Collection, p.Records[i].Data)
	}
	return p, err
}

func (s steady) Backfill(ctx context.Context, collection string, at source.Cursor) (source.Page, error) {
	return s.page(s.Source.Backfill(ctx, collection, at))
}

func (s steady) Changes(ctx context.Context, feed string, at source.Cursor, settle time.Duration) (source.Page, error) {
	return s.page(s.Source.Changes(ctx, feed, at, settle))
}

func (s steady) Get(ctx context.Context, collection string, ids []string) (source.Page, error) {
	return s.page(s.Source.Get(ctx, collection, ids))
}

// kindOf returns the kind of a source's error.
func kindOf(err error) source.Kind {
	if e, ok := errors.AsType[*source.Error](err); ok {
		return e.Kind
	}
	return ""
}

func TestGitHubKeepsTheContract(t *testing.T) {
	t.Parallel()
	h := account(t, sandbox.Options{History: 500, Deletions: -1})
	locksteptest.TestSource(t, locksteptest.Subject{
		New: func(t testing.TB, transport http.RoundTripper, limiter source.Limiter) source.Source {
			return h.steady(t, h.with(t, map[string]string{"token": token}, transport, limiter))
		},
		Truth: func(t testing.TB, collection string) map[string]json.RawMessage {
			s, out := h.steady(t, h.open(t)), h.truth(t, collection)
			for id, data := range out {
				out[id] = s.strip(collection, data)
			}
			return out
		},
		Change:  func(testing.TB) { h.Core().Step(3) },
		Secrets: []string{token},
	})
}
