package pump

import (
	"context"
	"encoding/json"
	"errors"
	"time"

	"lockstep"
	"lockstep/internal/deliver"
	"lockstep/sink"
)

// fetched is what one call of Next brought.
type fetched struct {
	items []*item
	err   error
}

const (
	// lease is for how long deliveries are taken at least: a pump that is gone is noticed
	// by its process's being gone.
	lease = 30 * time.Second
	// fetchWait is how long one call waits for a change.
	fetchWait = time.Minute
)

// fetch takes up to n changes, and makes messages of them.
func (p *Pump) fetch(ctx context.Context, n int) fetched {
	result, err := p.consumer.Next(ctx, deliver.NextRequest{Batch: min(n, deliver.MaxBatch), Wait: fetchWait, Holder: "pump"})
	if err != nil || len(result.Deliveries) == 0 {
		return fetched{err: err}
	}
	items := make([]*item, len(result.Deliveries))
	now := time.Now()
	for i, d := range result.Deliveries {
		items[i] = p.itemOf(d, now)
	}
	if p.consumer.Definition().AckWait < lease {
		tokens := make([]string, len(items))
		for i := range items {
			tokens[i] = items[i].token
		}
		if _, err := p.consumer.Extend(ctx, tokens, lease); err != nil {
			return fetched{items: items, err: err}
		}
	}
	return fetched{items: items}
}

// itemOf makes the message of a delivery. Nothing of it keeps the log's batch alive.
func (p *Pump) itemOf(d deliver.Delivery, now time.Time) *item {
	r := d.Record
	body, record := p.consumer.Message(d)
	m := sink.Message{
		Seq: r.Seq(), Key: d.Key, Action: r.Action(), Database: p.database, Schema: r.Table().Schema, Table: r.Table().Name,
		PKs: json.RawMessage(`[]`), IdempotencyKey: string(lockstep.AppendIdempotencyKey(nil, r)),
		CommitTime: time.UnixMicro(r.Tx().CommitTime).UTC(), Attempt: d.Attempt, Record: record, Body: body,
	}
	if from, ok := d.From(); ok {
		m.Sync, m.Provider, m.Collection = from.Sync, from.Provider, from.Collection
	}
	if pks := r.PKs(); len(pks) > 0 {
		m.PKs = append(json.RawMessage(nil), pks...)
	}
	return &item{token: d.Token, message: m, size: len(body) + 256, came: now}
}

// fetcher calls Next when the loop wants it to, one call at a time.
func (l *loop) fetcher(ctx context.Context) {
	for want := range l.wants {
		got := l.p.fetch(want.ctx, want.n) //nolint:contextcheck // it is made of ctx, by the loop
		want.cancel()
		if got.err != nil && ctx.Err() == nil && !errors.Is(got.err, context.Canceled) && !ended(got.err) {
			// The loop asks again at once; a log that cannot be read is no reason to spin.
			timer := time.NewTimer(fetchPause)
			select {
			case <-timer.C:
			case <-ctx.Done():
			}
			timer.Stop()
		}
		l.events <- got
	}
}

const fetchPause = 500 * time.Millisecond

// ended reports whether an error says that the consumer serves nobody any more.
func ended(err error) bool {
	return errors.Is(err, lockstep.ErrNotFound) || errors.Is(err, lockstep.ErrFenced)
}
