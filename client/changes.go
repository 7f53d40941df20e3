package client

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"net/http"
	"net/url"
	"strings"
	"time"

	"lockstep"
)

// silence is how long a tail may hear nothing before it takes the connection for
// dead. The server sends a comment every 15 seconds.
const silence = 50 * time.Second

// maxEvent limits the size of one event; a change larger than this ends the tail.
const maxEvent = 1 << 30

// TailOptions chooses changes.
type TailOptions struct {
	Tables  []string // patterns; empty: all
	Actions []string // empty: all
	Filter  string   // an expression; empty: all
	// From is where to begin: now (default), beginning, seq:42, a time or a duration
	// before now.
	From string
	// LastID begins after the event with that id, and goes before From.
	LastID string
	// Interrupted is called when the connection was lost, before each attempt to
	// take it up again; may be nil.
	Interrupted func(err error)
}

// Event is one event of a tail.
type Event struct {
	ID   string          // the change's seq; may be empty
	Name string          // the change's action
	Data json.RawMessage // the change, for [ParseChange]
}

// Tail follows the changes of a database as they come. When the connection breaks it
// is taken up again where it was, as often as needed; nothing is left out or
// repeated. The sequence ends with an error when the context does, when the server
// refuses, or when it could not be reached in the first place.
func (c *Client) Tail(ctx context.Context, database string, o TailOptions) iter.Seq2[Event, error] {
	return func(yield func(Event, error) bool) {
		t := tail{client: c, database: database, options: o, lastID: o.LastID, began: time.Now()}
		if err := t.pin(ctx); err != nil {
			yield(Event{}, err)
			return
		}
		failures := 0
		for {
			more, err := t.follow(ctx, yield)
			if !more {
				return
			}
			if ctx.Err() != nil {
				yield(Event{}, context.Cause(ctx))
				return
			}
			if !t.connected || !unavailable(err) {
				yield(Event{}, err)
				return
			}
			if t.heard {
				failures = 0
			}
			failures++
			if o.Interrupted != nil {
				o.Interrupted(err)
			}
			// A tail comes back sooner than other calls: it is one connection.
			if err := pause(ctx, min(failures, 4), retryAfter(err)); err != nil {
				yield(Event{}, err)
				return
			}
		}
	}
}

// tail is the state of one Tail over its connections.
type tail struct {
	client    *Client
	database  string
	options   TailOptions
	lastID    string
	began     time.Time
	connected bool // there has been a connection
	heard     bool // the last connection brought something, if only a heartbeat
}

// pin turns now into the place that it is. Otherwise a connection that breaks before
// the first change would go on with what is now then, and miss what came between.
func (t *tail) pin(ctx context.Context) error {
	if t.lastID != "" || t.options.From != "" && t.options.From != "now" {
		return nil
	}
	var d Database
	k := call{method: http.MethodGet, path: []string{"v1", "databases", t.database}}
	if err := t.client.do(ctx, k, &d); err != nil {
		return err
	}
	t.lastID = seqText(d.LastSeq)
	return nil
}

// follow reads one connection to its end. It returns false when the caller wants no
// more events, and otherwise why the connection ended.
func (t *tail) follow(ctx context.Context, yield func(Event, error) bool) (more bool, err error) {
	t.heard = false
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	quiet := fmt.Errorf("%s was silent for %s: %w", t.client.base, silence, lockstep.ErrUnavailable)
	watchdog := time.AfterFunc(silence, func() { cancel(quiet) })
	defer watchdog.Stop()

	k := call{method: http.MethodGet, path: []string{"v1", "databases", t.database, "changes"}, query: t.query()}
	response, err := t.open(ctx, k)
	if err != nil {
		return true, err
	}
	defer func() { _ = response.Body.Close() }()
	t.connected = true
	events := newEventReader(response.Body, func() {
		watchdog.Reset(silence)
		t.heard = true
	})
	for {
		event, err := events.next()
		if err != nil {
			return true, t.client.transportError(ctx, k, err)
		}
		if event.ID != "" {
			t.lastID = event.ID
		}
		if event.Data == nil {
			continue // only an id: where the server is
		}
		if !yield(event, nil) {
			return false, nil
		}
	}
}

func (t *tail) open(ctx context.Context, k call) (*http.Response, error) {
	request, err := http.NewRequestWithContext(ctx, k.method, t.client.address(k), nil)
	if err != nil {
		return nil, fmt.Errorf("call %s: %w: %w", t.client.base, err, lockstep.ErrInvalid)
	}
	request.Header.Set("Accept", "text/event-stream")
	request.Header.Set("User-Agent", t.client.agent)
	if t.lastID != "" {
		request.Header.Set("Last-Event-ID", t.lastID)
	}
	return t.client.roundTrip(request, k)
}

func (t *tail) query() url.Values {
	q := url.Values{}
	set := func(name, v string) {
		if v != "" {
			q.Set(name, v)
		}
	}
	set("tables", strings.Join(t.options.Tables, ","))
	set("actions", strings.Join(t.options.Actions, ","))
	set("filter", t.options.Filter)
	if t.lastID == "" {
		set("from", t.from())
	}
	return q
}

// from returns where to begin as long as no change has come. A duration before now
// grows with the time that has passed, so that it names the same place.
func (t *tail) from() string {
	ago, err := time.ParseDuration(t.options.From)
	if err != nil || !t.connected {
		return t.options.From
	}
	return (ago + time.Since(t.began) + time.Second).Round(time.Millisecond).String()
}

// eventReader reads server-sent events.
type eventReader struct {
	in    *bufio.Reader
	alive func() // called when anything was heard, comments too
}

func newEventReader(in io.Reader, alive func()) *eventReader {
	return &eventReader{in: bufio.NewReaderSize(in, 64<<10), alive: alive}
}

// next returns the next event that has data or an id. An event that the connection's
// end cuts off is not one.
func (r *eventReader) next() (Event, error) {
	var e Event
	for {
		line, err := r.line()
		if err != nil {
			return Event{}, err
		}
		r.alive()
		if len(line) == 0 {
			if e.Data != nil || e.ID != "" {
				return e, nil
			}
			e = Event{}
			continue
		}
		field, text, _ := bytes.Cut(line, []byte(":"))
		text = bytes.TrimPrefix(text, []byte(" "))
		switch string(field) {
		case "id":
			e.ID = string(text)
		case "event":
			e.Name = string(text)
		case "data":
			if e.Data != nil {
				e.Data = append(e.Data, '\n')
			}
			e.Data = append(e.Data, text...)
			if e.Data == nil {
				e.Data = []byte{}
			}
		}
	}
}

// line reads one line of any length up to maxEvent, without its end. The bytes are
// valid until the next call.
func (r *eventReader) line() ([]byte, error) {
	line, err := r.in.ReadSlice('\n')
	if errors.Is(err, bufio.ErrBufferFull) {
		long := append([]byte(nil), line...)
		for errors.Is(err, bufio.ErrBufferFull) && len(long) < maxEvent {
			r.alive()
			line, err = r.in.ReadSlice('\n')
			long = append(long, line...)
		}
		line = long
	}
	if err != nil {
		if errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF
		}
		return nil, err
	}
	return bytes.TrimRight(line, "\r\n"), nil
}
