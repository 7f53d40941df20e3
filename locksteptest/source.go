// Package locksteptest checks that an implementation of a contract of Lockstep keeps
// it: [TestSource] for a source.Source, against an API that the test controls, such
// as a sandbox or a fake, and [TestSink] for a sink.Sink, against the destination.
package locksteptest

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"lockstep/source"
)

// Subject is a source and the API behind it.
type Subject struct {
	// New makes the source as a process that was just started would. All its
	// requests must go through the transport and the limiter.
	New func(t testing.TB, transport http.RoundTripper, limiter source.Limiter) source.Source
	// Truth returns what the API holds of a collection, hidden rows included, by id.
	// A nil value is not compared.
	Truth func(t testing.TB, collection string) map[string]json.RawMessage
	// Change lets a few things happen in the API: something new, changed and deleted.
	// Nil: the collections are only read.
	Change func(t testing.TB)
	// Collections limits what is checked; empty: all that are not virtual.
	Collections []string
	// Secrets must be in no error and no cursor.
	Secrets []string
	// Lateness is how long after a change the API may still hide it.
	Lateness time.Duration
}

// TestSource runs the whole suite as subtests. It does not wait longer than the
// subject's lateness and a minute.
func TestSource(t *testing.T, s Subject) {
	t.Run("check answers", s.testCheck)
	t.Run("a backfill holds everything", s.testBackfill)
	t.Run("a backfill goes on after a crash at every page", s.testResume)
	t.Run("a cursor may be used again", s.testAgain)
	t.Run("nothing is lost between a backfill and the changes", s.testHandOver)
	t.Run("a sweep lists every id", s.testIDs)
	t.Run("records are fetched by id", s.testGet)
	t.Run("every request goes through the limiter", s.testLimiter)
	t.Run("what is no whole answer is an error", s.testBroken)
	t.Run("refusals have their kinds", s.testKinds)
	t.Run("a call ends with its context", s.testCancel)
	t.Run("what does not exist is an error", s.testUnknown)
}

func (s Subject) open(t testing.TB) source.Source {
	return s.New(t, http.DefaultTransport, Unlimited{})
}

func (s Subject) collections(t testing.TB, src source.Source) []source.Collection {
	t.Helper()
	all, err := src.Collections(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return slices.DeleteFunc(all, func(c source.Collection) bool {
		return c.Virtual || len(s.Collections) > 0 && !slices.Contains(s.Collections, c.Name)
	})
}

func (s Subject) testCheck(t *testing.T) {
	if _, err := s.open(t).Check(t.Context()); err != nil {
		t.Fatal(err)
	}
}

func (s Subject) testBackfill(t *testing.T) {
	src := s.open(t)
	for _, c := range s.collections(t, src) {
		m := mirror{}
		m.backfill(t, src, c.Name, func() source.Source { return src })
		s.compare(t, c.Name, m)
	}
}

func (s Subject) testResume(t *testing.T) {
	src := s.open(t)
	for _, c := range s.collections(t, src) {
		m := mirror{}
		m.backfill(t, src, c.Name, func() source.Source { return s.open(t) })
		s.compare(t, c.Name, m)
	}
}

func (s Subject) testAgain(t *testing.T) {
	src := s.open(t)
	for _, c := range s.collections(t, src) {
		first, err := src.Backfill(t.Context(), c.Name, nil)
		if err != nil {
			t.Fatal(err)
		}
		for _, at := range []source.Cursor{nil, first.Next} {
			a, err1 := src.Backfill(t.Context(), c.Name, at)
			b, err2 := src.Backfill(t.Context(), c.Name, at)
			if err1 != nil || err2 != nil {
				t.Fatal(err1, err2)
			}
			if x, y := ids(a.Records), ids(b.Records); !slices.Equal(x, y) {
				t.Errorf("%s at %s: first %v, then %v", c.Name, at, x, y)
			}
			if first.Next == nil {
				break
			}
		}
	}
}

// testHandOver reads as a sync does: the feeds' cursors, the backfill with changes in
// between, then the feeds until they bring nothing more.
func (s Subject) testHandOver(t *testing.T) {
	if s.Change == nil {
		t.Skip("the subject cannot change")
	}
	src := s.open(t)
	list := s.collections(t, src)
	cursors := map[string]source.Cursor{}
	for _, c := range list {
		if c.Feed != "" && cursors[c.Feed] == nil {
			at, err := src.Start(t.Context(), c.Feed)
			if err != nil {
				t.Fatal(err)
			}
			cursors[c.Feed] = at
		}
	}
	m := mirror{}
	for _, c := range list {
		s.Change(t)
		m.backfill(t, src, c.Name, func() source.Source { s.Change(t); return src })
	}
	s.Change(t)
	deadline := time.Now().Add(s.Lateness + time.Minute)
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		for feed := range cursors {
			cursors[feed] = m.changes(t, src, feed, cursors[feed])
			s.leaks(t, string(cursors[feed]))
		}
		var wrong strings.Builder
		for _, c := range list {
			if c.Feed != "" {
				wrong.WriteString(m.difference(c.Name, s.Truth(t, c.Name)))
			}
		}
		if wrong.String() == "" {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("the mirror never became equal:\n%s", wrong.String())
		}
		<-tick.C
	}
}

func (s Subject) testIDs(t *testing.T) {
	src := s.open(t)
	for _, c := range s.collections(t, src) {
		if !c.IDs {
			continue
		}
		found := map[string]bool{}
		for at := source.Cursor(nil); ; {
			page, err := src.IDs(t.Context(), c.Name, at)
			if err != nil {
				t.Fatal(err)
			}
			for _, r := range page.Records {
				if !r.Deleted { // listed with a flag
					found[r.ID] = true
				}
			}
			if at = page.Next; at == nil {
				break
			}
		}
		want := slices.Sorted(maps.Keys(s.Truth(t, c.Name)))
		if got := slices.Sorted(maps.Keys(found)); !slices.Equal(got, want) {
			t.Errorf("%s: a sweep found %d ids, the API has %d", c.Name, len(got), len(want))
		}
	}
}

func (s Subject) testGet(t *testing.T) {
	src := s.open(t)
	for _, c := range s.collections(t, src) {
		if !c.Get {
			continue
		}
		asked := slices.Sorted(maps.Keys(s.Truth(t, c.Name)))
		asked = asked[:min(len(asked), 3)]
		page, err := src.Get(t.Context(), c.Name, append(slices.Clone(asked), "no-such-id"))
		if err != nil {
			t.Errorf("%s: %v", c.Name, err)
			continue
		}
		for _, r := range page.Records {
			if r.Deleted != (r.ID == "no-such-id") {
				t.Errorf("%s %s: deleted is %v", c.Name, r.ID, r.Deleted)
			}
		}
		if got := ids(page.Records); len(got) != len(asked)+1 {
			t.Errorf("%s: asked for %v and one that is not there, got %v", c.Name, asked, got)
		}
	}
}

func (s Subject) testLimiter(t *testing.T) {
	counter := &Counter{Base: http.DefaultTransport}
	src := s.New(t, counter, counter)
	for _, c := range s.collections(t, src) {
		if _, err := src.Backfill(t.Context(), c.Name, nil); err != nil {
			t.Fatal(err)
		}
	}
	if sent, waited, released := counter.Counts(); sent == 0 || sent > waited || released != waited {
		t.Errorf("%d requests, %d waits, %d releases", sent, waited, released)
	}
}

func (s Subject) testCancel(t *testing.T) {
	src := s.New(t, Hang{}, Unlimited{})
	c := s.collections(t, src)[0]
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	began := time.Now()
	_, err := src.Backfill(ctx, c.Name, nil)
	if !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want one that wraps context.Canceled", err)
	}
	if took := time.Since(began); took > time.Second {
		t.Errorf("it took %s", took)
	}
}

func (s Subject) testUnknown(t *testing.T) {
	src := s.open(t)
	if _, err := src.Backfill(t.Context(), "no_such_collection", nil); err == nil {
		t.Error("a collection that does not exist was read")
	}
	if _, err := src.Start(t.Context(), "no_such_feed"); err == nil {
		t.Error("a feed that does not exist was begun")
	}
}

func (s Subject) compare(t testing.TB, collection string, m mirror) {
	t.Helper()
	if wrong := m.difference(collection, s.Truth(t, collection)); wrong != "" {
		t.Error(wrong)
	}
}

// leaks fails the test when a secret shows.
func (s Subject) leaks(t testing.TB, text string) {
	t.Helper()
	for _, secret := range s.Secrets {
		if strings.Contains(text, secret) {
			t.Errorf("a secret shows in %q", strings.ReplaceAll(text, secret, "…"))
		}
	}
}

// mirror is the simplest one: what was seen last counts.
type mirror map[string]map[string]json.RawMessage

func (m mirror) put(t testing.TB, records []source.Record) {
	t.Helper()
	for _, r := range records {
		switch {
		case r.ID == "" || r.Collection == "":
			t.Fatalf("a record without id or collection: %q %q", r.Collection, r.ID)
		case r.Deleted:
			delete(m[r.Collection], r.ID)
			continue
		case !json.Valid(r.Data):
			t.Fatalf("%s %s: the data is not JSON: %s", r.Collection, r.ID, r.Data)
		case m[r.Collection] == nil:
			m[r.Collection] = map[string]json.RawMessage{}
		}
		m[r.Collection][r.ID] = bytes.Clone(r.Data)
	}
}

// backfill reads a collection; between asks for the source to go on with.
func (m mirror) backfill(t testing.TB, src source.Source, collection string, between func() source.Source) {
	t.Helper()
	for at := source.Cursor(nil); ; {
		page, err := src.Backfill(t.Context(), collection, at)
		if err != nil {
			t.Fatalf("%s: %v", collection, err)
		}
		m.put(t, page.Records)
		if at = page.Next; at == nil {
			return
		}
		if !json.Valid(at) {
			t.Fatalf("%s: the cursor is not JSON: %s", collection, at)
		}
		src = between()
	}
}

func (m mirror) changes(t testing.TB, src source.Source, feed string, at source.Cursor) source.Cursor {
	t.Helper()
	for {
		page, err := src.Changes(t.Context(), feed, at, 0)
		if err != nil {
			t.Fatalf("changes of %s: %v", feed, err)
		}
		m.put(t, page.Records)
		at = page.Next
		if !page.More {
			return at
		}
	}
}

// difference says where the mirror and the truth differ; empty when they do not.
func (m mirror) difference(collection string, truth map[string]json.RawMessage) string {
	var b strings.Builder
	have := m[collection]
	for _, id := range slices.Sorted(maps.Keys(truth)) {
		switch got, ok := have[id]; {
		case !ok:
			fmt.Fprintf(&b, "%s %s is missing\n", collection, id)
		case truth[id] != nil:
			if where := differs(got, truth[id]); where != "" {
				fmt.Fprintf(&b, "%s %s: %s\n", collection, id, where)
			}
		}
	}
	for _, id := range slices.Sorted(maps.Keys(have)) {
		if _, ok := truth[id]; !ok {
			fmt.Fprintf(&b, "%s %s should not be there\n", collection, id)
		}
	}
	return b.String()
}

func ids(records []source.Record) []string {
	out := make([]string, len(records))
	for i, r := range records {
		out[i] = r.ID
	}
	return out
}
