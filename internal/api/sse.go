package api

import (
	"bytes"
	"context"
	"errors"
	"net/http"
	"strconv"
	"strings"
	"time"

	"lockstep"
	"lockstep/internal/obs"
)

// Reader reads a database's log batch by batch; *stream.Reader is one.
type Reader interface {
	// Next returns the next batch, waiting for one at the end of the log. A
	// [lockstep.RetentionError] says that the place was removed; Seek goes on.
	Next(ctx context.Context) (*lockstep.Batch, error)
	Seek(from uint64)
	Close()
}

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

// Selector decides for one change. An error means that the filter failed on it.
type Selector func(lockstep.Record) (bool, error)

const (
	sseFlushBytes = 64 << 10
	sseWriteLimit = 30 * time.Second // a client that takes nothing for so long has gone
)

// sse is one open stream of events.
type sse struct {
	api      *API
	w        http.ResponseWriter
	db       Database
	selected Selector
	beat     []byte
	buf      []byte
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
	if s.selected, err = a.selection(r, db.Name); err != nil {
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
	if err := s.run(ctx, from); err != nil && ctx.Err() == nil {
		a.log.WarnContext(ctx, "a stream of events ended", obs.KeyDatabase, db.Name, obs.KeyError, err)
	}
}

// run sends events from seq on until the client goes, the node stops, or the log
// cannot be read. The answer has begun: a client learns of the end by the end, and
// comes back with the last id that it has seen.
func (s *sse) run(ctx context.Context, from uint64) error {
	// With the place before the first event: a client that loses its connection before
	// a change came resumes from here, and not from wherever the log is then.
	s.buf = append(s.buf, "retry: 2000\nid: "...)
	s.buf = strconv.AppendUint(s.buf, max(from, 1)-1, 10)
	s.buf = append(s.buf, "\n\n"...)
	if last := s.db.Log.Last().Seq; from > last+1 {
		// The id is not of this log: it was made anew, or is of another database.
		s.appendGap("unknown_position", from, s.db.Log.First())
		from = s.db.Log.First()
	}
	if err := s.flush(); err != nil {
		return err
	}
	reader := s.db.Log.ReadFrom(from)
	defer reader.Close()
	for {
		batch, err := s.next(ctx, reader)
		var gone *lockstep.RetentionError
		switch {
		case ctx.Err() != nil:
			return nil
		case errors.As(err, &gone):
			from = max(from, gone.Asked)
			s.appendGap("retention", from, gone.First)
			from = gone.First
			reader.Seek(from)
		case err != nil:
			return err
		case batch != nil:
			if err := s.appendBatch(batch, from); err != nil {
				return err
			}
			from = max(from, batch.First+uint64(batch.Len()))
		}
		if len(s.buf) == 0 && time.Since(s.written) >= s.api.heartbeat {
			s.buf = append(s.buf, s.beat...)
		}
		if err := s.flush(); err != nil {
			return err
		}
	}
}

// next waits for a batch, but no longer than until a heartbeat is due: then it
// returns nothing.
func (s *sse) next(ctx context.Context, reader Reader) (*lockstep.Batch, error) {
	wait, cancel := context.WithTimeout(ctx, s.api.heartbeat)
	defer cancel()
	batch, err := reader.Next(wait)
	if err != nil && wait.Err() != nil {
		return nil, nil
	}
	return batch, err
}

// appendBatch appends what the client wants of the batch, from seq on.
func (s *sse) appendBatch(batch *lockstep.Batch, from uint64) error {
	for i := range batch.Len() {
		record := batch.Record(i)
		if record.Seq() < from {
			continue
		}
		wanted, err := s.selected(record)
		switch {
		case err != nil:
			s.appendError(record, err)
		case wanted:
			s.appendEvent(record)
		}
		if len(s.buf) >= sseFlushBytes {
			if err := s.flush(); err != nil {
				return err
			}
		}
	}
	return nil
}

func (s *sse) appendEvent(r lockstep.Record) {
	s.head(r.Seq(), r.Action().String())
	start := len(s.buf)
	s.buf = lockstep.AppendMessage(s.buf, r, lockstep.MessageOptions{Database: s.db.Name})
	fold(s.buf[start:])
	s.buf = append(s.buf, "\n\n"...)
}

// appendError tells that the filter failed on a change: the client may fetch it by
// its seq. Leaving it out in silence would be a gap.
func (s *sse) appendError(r lockstep.Record, err error) {
	s.head(r.Seq(), "error")
	s.buf = append(s.buf, `{"seq":`...)
	s.buf = strconv.AppendUint(s.buf, r.Seq(), 10)
	s.buf = append(s.buf, `,"reason":`...)
	s.buf = lockstep.AppendJSONString(s.buf, err.Error())
	s.buf = append(s.buf, "}\n\n"...)
}

// appendGap tells that changes from asked up to first are not there any more. Its id
// lets a client that comes back go on with first.
func (s *sse) appendGap(reason string, asked, first uint64) {
	s.head(first-min(first, 1), lockstep.Gap.String())
	s.buf = append(s.buf, `{"record":null,"changes":null,"action":"gap","metadata":{"database":`...)
	s.buf = lockstep.AppendJSONString(s.buf, s.db.Name)
	s.buf = append(s.buf, `,"gap":{"state":"end","reason":"`...)
	s.buf = append(s.buf, reason...)
	s.buf = append(s.buf, `","from_seq":`...)
	s.buf = strconv.AppendUint(s.buf, asked, 10)
	s.buf = append(s.buf, `,"first_seq":`...)
	s.buf = strconv.AppendUint(s.buf, first, 10)
	s.buf = append(s.buf, `,"from_lsn":null,"to_lsn":null,"missed":`...)
	if first >= asked {
		s.buf = strconv.AppendUint(s.buf, first-asked, 10)
	} else {
		s.buf = append(s.buf, "null"...)
	}
	s.buf = append(s.buf, "}}}\n\n"...)
}

func (s *sse) head(seq uint64, event string) {
	s.buf = append(s.buf, "id: "...)
	s.buf = strconv.AppendUint(s.buf, seq, 10)
	s.buf = append(s.buf, "\nevent: "...)
	s.buf = append(s.buf, event...)
	s.buf = append(s.buf, "\ndata: "...)
}

// fold puts a JSON value on one line. A line break in it can only lie between
// tokens, where a space means the same: in strings they are escaped.
func fold(json []byte) {
	for {
		i := bytes.IndexAny(json, "\n\r")
		if i < 0 {
			return
		}
		json[i] = ' '
		json = json[i+1:]
	}
}

// flush hands what was appended, whole events only, to the client.
func (s *sse) flush() error {
	if len(s.buf) == 0 {
		return nil
	}
	writesUntil(s.w, sseWriteLimit)
	_, err := s.w.Write(s.buf)
	if err == nil {
		err = http.NewResponseController(s.w).Flush()
	}
	if cap(s.buf) > 4*sseFlushBytes {
		s.buf = nil // one huge change must not stay in memory for a session's life
	}
	s.buf, s.written = s.buf[:0], time.Now()
	return err
}

// selection reads tables, actions and filter.
func (a *API) selection(r *http.Request, database string) (Selector, error) {
	query := r.URL.Query()
	sel := Selection{Tables: split(query["tables"]), Filter: query.Get("filter")}
	for _, name := range split(query["actions"]) {
		action, err := lockstep.ParseAction(name)
		if err != nil {
			return nil, bad("query.actions", "%s", err)
		}
		sel.Actions = append(sel.Actions, action)
	}
	return a.selectChanges(sel, database)
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
