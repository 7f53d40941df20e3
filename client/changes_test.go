package client_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"lockstep"
	"lockstep/client"
)

// stream answers as the server does: heartbeats, events, and then what end does.
func stream(w http.ResponseWriter, text string) {
	w.Header().Set("Content-Type", "text/event-stream")
	_, _ = io.WriteString(w, "retry: 2000\n\n: heartbeat\n\n"+text)
	_ = http.NewResponseController(w).Flush()
}

func event(seq int) string {
	return fmt.Sprintf("id: %d\nevent: insert\ndata: {\"n\":%d}\n\n", seq, seq)
}

// serveTail starts a server whose database ends at seq 40; h answers the tails.
func serveTail(t *testing.T, h http.HandlerFunc) *client.Client {
	t.Helper()
	return serve(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/v1/databases/app" {
			_, _ = io.WriteString(w, `{"name":"app","last_seq":40}`)
			return
		}
		h(w, r)
	})
}

// collect takes n events and returns their ids.
func collect(t *testing.T, c *client.Client, o client.TailOptions, n int) []string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	var ids []string
	for e, err := range c.Tail(ctx, "app", o) {
		if err != nil {
			t.Fatalf("after %v: %v", ids, err)
		}
		if want := fmt.Sprintf(`{"n":%s}`, e.ID); string(e.Data) != want || e.Name != "insert" {
			t.Errorf("got %s %s, want %s", e.Name, e.Data, want)
		}
		if ids = append(ids, e.ID); len(ids) == n {
			break
		}
	}
	return ids
}

// The connection ends in the middle of an event, then the server is away, then it
// goes on: nothing is left out and nothing comes twice.
func TestTailGoesOnBehindTheLastEvent(t *testing.T) {
	t.Parallel()
	calls := make(chan string, 10)
	var n atomic.Int32
	c := serveTail(t, func(w http.ResponseWriter, r *http.Request) {
		calls <- r.Header.Get("Last-Event-ID") + " " + r.URL.RawQuery
		switch n.Add(1) {
		case 1:
			stream(w, event(1)+event(2)+"id: 3\nevent: insert\nda")
		case 2:
			refuse(w, http.StatusServiceUnavailable, "")
		default:
			stream(w, event(3)+event(4))
			<-r.Context().Done()
		}
	})
	interrupted := 0
	o := client.TailOptions{From: "beginning", Tables: []string{"a.b", "c.*"}, Actions: []string{"insert"}, Filter: "x > 1", Interrupted: func(error) { interrupted++ }}
	if diff := cmp.Diff([]string{"1", "2", "3", "4"}, collect(t, c, o, 4)); diff != "" {
		t.Error(diff)
	}
	const filters = "actions=insert&filter=x+%3E+1"
	want := []string{" " + filters + "&from=beginning&tables=a.b%2Cc.%2A", "2 " + filters + "&tables=a.b%2Cc.%2A", "2 " + filters + "&tables=a.b%2Cc.%2A"}
	if diff := cmp.Diff(want, []string{<-calls, <-calls, <-calls}); diff != "" {
		t.Error(diff)
	}
	if interrupted != 2 {
		t.Errorf("was told of %d interruptions, want 2", interrupted)
	}
}

// Now is the end of the log when the tail began, also for a connection that is made
// later: what came between is not missed.
func TestTailFromNowMissesNothing(t *testing.T) {
	t.Parallel()
	calls := make(chan string, 10)
	c := serveTail(t, func(w http.ResponseWriter, r *http.Request) {
		calls <- r.Header.Get("Last-Event-ID") + r.URL.RawQuery
		if len(calls) == 1 {
			stream(w, "")
			return
		}
		stream(w, event(41))
		<-r.Context().Done()
	})
	collect(t, c, client.TailOptions{}, 1)
	if first, second := <-calls, <-calls; first != "40" || second != "40" {
		t.Errorf("asked for %q and then %q, want what follows 40", first, second)
	}
}

// A duration before now names the same place when the connection is made anew.
func TestTailFromADurationMissesNothing(t *testing.T) {
	t.Parallel()
	calls := make(chan string, 10)
	c := serveTail(t, func(w http.ResponseWriter, r *http.Request) {
		calls <- r.URL.Query().Get("from")
		if len(calls) == 1 {
			stream(w, "")
			return
		}
		stream(w, event(41))
		<-r.Context().Done()
	})
	collect(t, c, client.TailOptions{From: "2s"}, 1)
	first, again := <-calls, <-calls
	if later, err := time.ParseDuration(again); first != "2s" || err != nil || later < 3*time.Second {
		t.Errorf("asked for %q and then %q", first, again)
	}
}

// An id without data says where the server is.
func TestTailRemembersAnIDWithoutData(t *testing.T) {
	t.Parallel()
	var n atomic.Int32
	c := serveTail(t, func(w http.ResponseWriter, r *http.Request) {
		if n.Add(1) == 1 {
			stream(w, "id: 41\n\n")
			return
		}
		if got := r.Header.Get("Last-Event-ID"); got != "41" {
			t.Errorf("came back with %q", got)
		}
		stream(w, event(42))
		<-r.Context().Done()
	})
	collect(t, c, client.TailOptions{}, 1)
}

func TestTailReadsLongAndFoldedEvents(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("x", 300_000)
	c := serveTail(t, func(w http.ResponseWriter, _ *http.Request) {
		stream(w, "id:1\r\nevent: update\r\ndata: a\r\ndata:b\r\n\r\nid: 2\ndata: "+long+"\n\n")
	})
	var got []string
	for e, err := range c.Tail(t.Context(), "app", client.TailOptions{}) {
		if err != nil {
			t.Fatal(err)
		}
		if got = append(got, string(e.Data)); len(got) == 2 {
			break
		}
	}
	if got[0] != "a\nb" || got[1] != long {
		t.Errorf("got %q and %d bytes", got[0], len(got[1]))
	}
}

func TestTailEndsWhenItIsRefused(t *testing.T) {
	t.Parallel()
	c := serveTail(t, func(w http.ResponseWriter, _ *http.Request) { refuse(w, http.StatusNotFound, "") })
	events := 0
	var last error
	for _, err := range c.Tail(t.Context(), "nope", client.TailOptions{}) {
		events++
		last = err
	}
	if events != 1 || !errors.Is(last, lockstep.ErrNotFound) {
		t.Errorf("got %d, %v", events, last)
	}
}

// A server that was never there is an error at once: the address may be wrong.
func TestTailDoesNotWaitForAServerItNeverSaw(t *testing.T) {
	t.Parallel()
	for _, err := range connect(t, "http://127.0.0.1:1").Tail(t.Context(), "app", client.TailOptions{}) {
		if !errors.Is(err, lockstep.ErrUnavailable) {
			t.Errorf("got %v", err)
		}
	}
}

func TestTailEndsWithItsContext(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	c := serveTail(t, func(w http.ResponseWriter, r *http.Request) {
		stream(w, event(1))
		<-r.Context().Done()
	})
	var last error
	for _, err := range c.Tail(ctx, "app", client.TailOptions{}) {
		last = err
		cancel()
	}
	if !errors.Is(last, context.Canceled) {
		t.Errorf("got %v", last)
	}
}
