package api

import (
	"context"
	"encoding/json"
	"time"

	"golang.org/x/sync/errgroup"

	"lockstep"
	"lockstep/internal/deliver"
)

const (
	wayAsked = 16 // consumers that are asked at a time
	wayLog   = 20 // attempts that are shown of each
)

// way is what became of a change with one consumer.
type way struct {
	consumer Consumer
	def      deliver.Definition
	where    Whereabouts
	record   lockstep.Record
}

// ways asks every consumer of the database, in the order of their list.
func (a *API) ways(ctx context.Context, database string, r lockstep.Record) []way {
	var list []way
	for _, c := range a.consumers.List() {
		if d := c.Definition(); d.Database == database {
			list = append(list, way{consumer: c, def: d, record: r})
		}
	}
	var asked errgroup.Group
	asked.SetLimit(wayAsked)
	for i := range list {
		asked.Go(func() error {
			where, err := list[i].consumer.Where(ctx, r.Seq())
			if err != nil {
				where = Whereabouts{State: "unknown", Reason: problemOf(err).Detail}
			}
			list[i].where = where
			return nil
		})
	}
	_ = asked.Wait() // what a consumer does not know is in its state
	return list
}

func (a *API) appendWay(dst []byte, w way) []byte {
	at := w.where
	dst = appendWhere(dst, w.consumer, at)
	text := func(name, value string) {
		if value != "" {
			dst = append(append(append(dst, `,"`...), name...), `":`...)
			dst = lockstep.AppendJSONString(dst, value)
		}
	}
	text("matches", at.Match)
	text("fault", at.Fault)
	if at.State == deliver.ChangeSettled && beforeStart(w.def, w.record) {
		dst = append(dst, `,"before_start":true`...)
	}
	if next := a.nextAttempt(w); !next.IsZero() {
		text("next_attempt_at", next.UTC().Format(time.RFC3339Nano))
	}
	if l := at.Letter; l != nil {
		dst = appendView(dst, "dead", deadView{State: l.State, Reason: l.Reason, Attempts: l.Attempts, At: l.At.UTC().Format(time.RFC3339Nano)})
	}
	if log := a.attemptLog(w); len(log) > 0 {
		dst = appendView(dst, "attempt_log", log)
	}
	return append(dst, '}')
}

// appendView appends a member whose value has no bytes that must stay as they are.
func appendView(dst []byte, name string, v any) []byte {
	text, err := json.Marshal(v)
	if err != nil { // views of texts, numbers and times: cannot happen
		text = []byte("null")
	}
	dst = append(append(append(dst, `,"`...), name...), `":`...)
	return append(dst, text...)
}

func (a *API) attemptLog(w way) []AttemptView {
	if a.sending == nil || w.def.Kind == "http" {
		return nil
	}
	var list []AttemptView
	for _, one := range a.sending.AttemptsOf(w.def.ID, w.record.Seq(), wayLog) {
		list = append(list, viewOfAttempt(one))
	}
	return list
}

// nextAttempt is when a change that waits is tried at the earliest: after its own delay,
// and after that of its destination. Zero: nobody knows, or as soon as its turn comes.
func (a *API) nextAttempt(w way) time.Time {
	if w.where.State != deliver.ChangeWaiting {
		return time.Time{}
	}
	next := w.where.Until
	if a.sending == nil || w.def.Kind == "http" {
		return next
	}
	if d, ok := a.sending.Destination(w.def.ID); ok && d.NextTry.After(next) {
		next = d.NextTry
	}
	return next
}

// beforeStart reports whether the change lies before the place where the consumer was
// made to begin. Of one that began now, or some time ago, only the API's definitions tell
// when that was.
func beforeStart(d deliver.Definition, r lockstep.Record) bool {
	committed := time.UnixMicro(r.Tx().CommitTime)
	p, err := parsePlace(d.Start, d.CreatedAt)
	switch {
	case err != nil || p.beginning:
		return false
	case p.seq > 0:
		return r.Seq() < p.seq
	case !p.at.IsZero() && (d.ManagedBy != "file" || isTime(d.Start)):
		return committed.Before(p.at)
	}
	return d.ManagedBy != "file" && p.at.IsZero() && committed.Before(d.CreatedAt)
}

func isTime(text string) bool {
	_, err := time.Parse(time.RFC3339, text)
	return err == nil
}

// appendMirror tells where a row of a mirror table comes from; of other rows nothing.
func (a *API) appendMirror(dst []byte, database string, r lockstep.Record) []byte {
	t := r.Table()
	if a.mirrored == nil || t.OID == 0 {
		return dst
	}
	from, ok := a.mirrored(database, t.Schema, t.Name)
	if !ok {
		return dst
	}
	dst = append(dst, `,"mirror":{"sync_id":`...)
	dst = lockstep.AppendJSONString(dst, from.SyncID)
	dst = append(dst, `,"sync":`...)
	dst = lockstep.AppendJSONString(dst, from.Sync)
	dst = append(dst, `,"provider":`...)
	dst = lockstep.AppendJSONString(dst, from.Provider)
	dst = append(dst, `,"collection_id":`...)
	dst = lockstep.AppendJSONString(dst, from.Collection)
	for _, m := range deliver.SourceOf(r.Row()).Members() {
		dst = append(append(append(dst, `,"`...), m.Name...), `":`...)
		dst = appendOr(dst, m.Value, "null")
	}
	dst = append(dst, `,"committed_at":"`...)
	dst = time.UnixMicro(r.Tx().CommitTime).UTC().AppendFormat(dst, "2006-01-02T15:04:05.000000Z")
	return append(dst, `"}`...)
}
