package rest

import (
	"context"
	"fmt"

	"lockstep/source"
)

// Write implements [source.Writer].
func (s *Source) Write(ctx context.Context, w source.Write) (source.Record, error) {
	c, err := s.collection(w.Collection)
	if err != nil {
		return source.Record{}, err
	}
	q := c.Write[w.Action]
	if q == nil {
		return source.Record{}, &source.Error{Kind: source.Invalid, Message: fmt.Sprintf("%s %s: the spec of %s has no such write", w.Action, c.name, s.name())}
	}
	sc := *s.scope
	sc.record, sc.id, sc.key = w.Data, w.ID, w.Key
	k := call{what: w.Action + " " + c.name, request: &q.Request, scope: &sc, write: true, header: map[string]string{}}
	if w.Action != "delete" {
		k.data = w.Data
	}
	if q.IdempotencyKey != "" && w.Key != "" {
		k.header[q.IdempotencyKey], k.safe = w.Key, true
	}
	// A delete or an update by id may be repeated: it leaves the same behind.
	if w.Action == "delete" {
		k.safe = true
	}
	a, err := s.do(source.WithPriority(ctx, source.Writing), k)
	if e, ok := asError(err); ok && e.Kind == source.Gone && w.Action == "delete" {
		return missing(c, w.ID), nil
	}
	if err != nil {
		return source.Record{}, doubtful(err, k)
	}
	if w.Action == "delete" {
		return source.Record{Collection: c.name, ID: w.ID, Rank: source.RankObject, Deleted: true, Reason: "event"}, nil
	}
	if raw := q.Record.in(a.body); len(raw) > 0 {
		r, ok, err := s.record(c, raw, nil, source.RankObject)
		if err != nil {
			return source.Record{}, err
		}
		if ok {
			records := []source.Record{r}
			err = s.fillNested(ctx, c, records)
			return records[0], err
		}
	}
	return source.Record{Collection: c.name, ID: w.ID}, nil
}

// doubtful marks a server's error on a write that must not be repeated.
func doubtful(err error, k call) error {
	e, ok := asError(err)
	if !ok || k.safe || e.Kind != source.Retry || e.Status < 500 {
		return err
	}
	out := *e
	out.Kind, out.Err = source.Unknown, err
	return &out
}
