package api

import (
	"context"
	"errors"
	"net/http"
	"strconv"
	"time"

	"lockstep"
	"lockstep/internal/auth"
	"lockstep/internal/filter"
	"lockstep/internal/tail"
)

func (a *API) changeRoutes() {
	stream := Route{Method: http.MethodGet, Path: "/v1/databases/{name}/changes", Need: auth.NeedRead, Waits: true}
	a.plain(stream, about{"stream-changes", "Follow changes as they come (SSE)", "databases", 200}, a.describeChanges, a.changes)
	one := Route{Method: http.MethodGet, Path: "/v1/databases/{name}/changes/{seq}", Need: auth.NeedRead}
	a.plain(one, about{"get-change", "Show a change, and where it is with each consumer", "databases", 200}, a.describeChange, a.showChange)
}

// selectChanges makes a selection of what a request asks for.
func (a *API) selectChanges(sel Selection) (chosen tail.Selection, err error) {
	chosen.Actions = sel.Actions
	if chosen.Tables, err = a.tablesOf(sel.Tables); err != nil {
		return chosen, bad("query.tables", "%s", err)
	}
	if sel.Filter == "" {
		return chosen, nil
	}
	if chosen.Filter, err = filter.Compile(filter.Filter, sel.Filter); err != nil {
		return chosen, bad("query.filter", "%s", err)
	}
	return chosen, nil
}

func (a *API) tablesOf(patterns []string) (func(*lockstep.Table) bool, error) {
	switch {
	case len(patterns) == 0:
		return nil, nil
	case a.tables == nil:
		return nil, errors.New("this node cannot select tables")
	}
	return a.tables(patterns)
}

// showChange shows one change, and what became of it with each consumer of its database.
func (a *API) showChange(w http.ResponseWriter, r *http.Request) {
	db, err := a.database(r.PathValue("name"))
	if err != nil {
		a.fail(w, r, err)
		return
	}
	seq, err := pathSeq(r)
	if err != nil {
		a.fail(w, r, err)
		return
	}
	batch, err := db.Log.BatchOf(r.Context(), seq)
	if err != nil {
		a.fail(w, r, err)
		return
	}
	record, ok := batch.Find(seq)
	if !ok {
		a.fail(w, r, errors.New("the log gave a batch that does not hold the change"))
		return
	}
	buf := append(a.buffers.get(), '{')
	buf = lockstep.AppendMessageMembers(buf, record, lockstep.MessageOptions{Database: db.Name})
	buf = a.appendMirror(buf, db.Name, record)
	buf = append(buf, `,"consumers":[`...)
	for i, way := range a.ways(r.Context(), db.Name, record) {
		if i > 0 {
			buf = append(buf, ',')
		}
		buf = a.appendWay(buf, way)
	}
	writeBytes(w, append(buf, "]}\n"...))
	a.buffers.put(buf)
}

func appendWhere(dst []byte, c Consumer, where Whereabouts) []byte {
	d := c.Definition()
	dst = append(dst, `{"id":`...)
	dst = lockstep.AppendJSONString(dst, d.ID)
	dst = append(dst, `,"name":`...)
	dst = lockstep.AppendJSONString(dst, d.Name)
	dst = append(dst, `,"state":`...)
	dst = lockstep.AppendJSONString(dst, where.State)
	dst = append(dst, `,"attempts":`...)
	dst = strconv.AppendInt(dst, int64(where.Attempts), 10)
	if where.Holder != "" {
		dst = append(dst, `,"holder":`...)
		dst = lockstep.AppendJSONString(dst, where.Holder)
	}
	if where.Reason != "" {
		dst = append(dst, `,"reason":`...)
		dst = lockstep.AppendJSONString(dst, where.Reason)
	}
	if !where.Until.IsZero() {
		dst = append(dst, `,"until":"`...)
		dst = where.Until.UTC().AppendFormat(dst, time.RFC3339Nano)
		dst = append(dst, '"')
	}
	return dst
}

// streamLog is what a log of package stream offers: readers of its own type.
type streamLog[R Reader] interface {
	First() uint64
	Last() lockstep.Mark
	BatchOf(ctx context.Context, seq uint64) (*lockstep.Batch, error)
	SeqAt(ctx context.Context, t time.Time) (uint64, error)
	Reader(from uint64) R
}

// LogOf makes a [Log] of a *stream.Log.
func LogOf[R Reader](l streamLog[R]) Log { return logOf[R]{l} }

type logOf[R Reader] struct{ streamLog[R] }

// ReadFrom implements [Log].
func (l logOf[R]) ReadFrom(seq uint64) Reader { return l.Reader(seq) }
