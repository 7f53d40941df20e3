package api

import (
	"context"
	"errors"
	"net/http"
	"strconv"
	"strings"
	"time"

	"lockstep"
	"lockstep/internal/obs"
	"lockstep/internal/tail"
)

// Reader reads a database's log batch by batch; *stream.Reader is one.
type Reader = tail.Reader

// Log is a database's changes; [LogOf] makes one of a *stream.Log.
type Log interface {
	First() uint64
	Last() lockstep.Mark
	BatchOf(ctx context.Context, seq uint64) (*lockstep.Batch, error)
	SeqAt(ctx context.Context, t time.Time) (uint64, error)
	ReadFrom(seq uint64) Reader
}

// Selection says which changes a stream of events sends.
type Selection struct {
	Tables  []string // patterns; empty: all
	Actions []lockstep.Action
	Filter  string // an expression; empty: everything
}

const sseWriteLimit = 30 * time.Second // a client that takes nothing for so long has gone

// sse is one open stream of events.
type sse struct {
	api      *API
	w        http.ResponseWriter
	db       Database
	selected tail.Selection
	beat     []byte
	written  time.Time // when the client was last sent something
}

func (a *API) changes(w http.ResponseWriter, r *http.Request) {
	db, err := a.database(r.PathValue("name"))
	if err != nil {
		a.fail(w, r, err)
		return
	}
	s := &sse{api: a, w: w, db: db, beat: []byte(": heartbeat\n\n")}
	if r.URL.Query().Get("heartbeat") == "event" {
		s.beat = []byte("event: heartbeat\ndata: {}\n\n")
	}
	if s.selected, err = a.selection(r); err != nil {
		a.fail(w, r, err)
		return
	}
	from, err := a.startOf(r, db.Log)
	if err != nil {
		a.fail(w, r, err)
		return
	}
	h := w.Header()
	h.Set("Content-Type", "text/event-stream")
	h.Set("Cache-Control", "no-store, no-transform")
	h.Set("X-Accel-Buffering", "no")
	w.WriteHeader(http.StatusOK)
	if r.Method == http.MethodHead {
		return
	}
	waitsLong(w)
	if a.metrics != nil {
		a.metrics.StreamOpened(db.Name)
		defer a.metrics.StreamClosed(db.Name)
	}
	ctx, cancel := a.drain.until(r.Context())
	defer cancel()
	ctx, release := unlessGone(ctx, db)
	defer release()
	err = s.run(ctx, from)
	switch {
	case errors.Is(context.Cause(ctx), errGone):
		writesUntil(w, sseWriteLimit)
		_, _ = w.Write([]byte(": the database was deleted\n\n")) // for people: clients learn it when they come back
	case err != nil && ctx.Err() == nil:
		a.log.WarnContext(ctx, "a stream of events ended", obs.KeyDatabase, db.Name, obs.KeyError, err)
	}
}

// errGone ends the streams of a database that was deleted.
var errGone = errors.New("the database was deleted")

// unlessGone returns a context that also ends when the database is deleted. release must
// be called after use.
func unlessGone(ctx context.Context, db Database) (until context.Context, release func()) {
	until, cancel := context.WithCancelCause(ctx)
	if db.Gone == nil {
		return until, func() { cancel(nil) }
	}
	stop := context.AfterFunc(db.Gone, func() { cancel(errGone) })
	return until, func() {
		stop()
		cancel(nil)
	}
}

// run sends events from seq on until the client goes, the node stops, the database is
// deleted, or the log cannot be read. The answer has begun: a client learns of the end by
// the end, and comes back with the last id that it has seen.
func (s *sse) run(ctx context.Context, from uint64) error {
	// With the place before the first event: a client that loses its connection before
	// a change came resumes from here, and not from wherever the log is then.
	begin := append([]byte("retry: 2000\nid: "), strconv.FormatUint(max(from, 1)-1, 10)...)
	session := s.api.tails.Open(s.db.Name, s.db.Log, from, s.selected)
	defer session.Close()
	if err := s.send([][]byte{append(begin, "\n\n"...)}); err != nil {
		return err
	}
	for {
		parts, err := session.Next(ctx, s.api.heartbeat-time.Since(s.written))
		switch {
		case ctx.Err() != nil:
			return nil
		case err != nil:
			return err
		case len(parts) == 0:
			parts = [][]byte{s.beat}
		}
		if err := s.send(parts); err != nil {
			return err
		}
	}
}

// send hands whole events to the client.
func (s *sse) send(parts [][]byte) error {
	writesUntil(s.w, sseWriteLimit)
	err := s.write(parts)
	if err == nil {
		err = http.NewResponseController(s.w).Flush()
	}
	s.written = time.Now()
	return err
}

// write writes small parts together: each write of them may be a call of the system.
func (s *sse) write(parts [][]byte) (err error) {
	if len(parts) == 1 {
		_, err = s.w.Write(parts[0])
		return err
	}
	buf := s.api.buffers.get()
	defer func() { s.api.buffers.put(buf) }()
	for i, part := range parts {
		buf = append(buf, part...)
		if len(buf) < sseFlushBytes && i < len(parts)-1 {
			continue
		}
		if _, err = s.w.Write(buf); err != nil {
			return err
		}
		buf = buf[:0]
	}
	return nil
}

// sseFlushBytes is how much is written at once, and about how much waits to be.
const sseFlushBytes = 64 << 10

// selection reads tables, actions and filter.
func (a *API) selection(r *http.Request) (tail.Selection, error) {
	query := r.URL.Query()
	sel := Selection{Tables: split(query["tables"]), Filter: query.Get("filter")}
	for _, name := range split(query["actions"]) {
		action, err := lockstep.ParseAction(name)
		if err != nil {
			return tail.Selection{}, bad("query.actions", "%s", err)
		}
		sel.Actions = append(sel.Actions, action)
	}
	return a.selectChanges(sel)
}

// split splits values at commas.
func split(values []string) []string {
	var out []string
	for _, v := range values {
		for part := range strings.SplitSeq(v, ",") {
			if part = strings.TrimSpace(part); part != "" {
				out = append(out, part)
			}
		}
	}
	return out
}

// startOf returns the seq that a stream of events begins with: behind the last id
// that the client has seen, else where from says, else now.
func (a *API) startOf(r *http.Request, log Log) (uint64, error) {
	query := r.URL.Query()
	id, location := r.Header.Get("Last-Event-ID"), "header.Last-Event-ID"
	if id == "" {
		id, location = query.Get("last_event_id"), "query.last_event_id"
	}
	if id != "" {
		seq, err := strconv.ParseUint(id, 10, 63)
		if err != nil {
			return 0, bad(location, "%q is not an id of this stream: ids are numbers", id)
		}
		return seq + 1, nil
	}
	from := query.Get("from")
	if n, err := strconv.ParseUint(from, 10, 63); err == nil {
		return max(n, 1), nil
	}
	place, err := parsePlace(from, time.Now())
	if err != nil {
		return 0, bad("query.from", "from: %s", err)
	}
	return place.resolve(r.Context(), log)
}
