package pump

import (
	"context"
	"errors"
	"slices"
	"time"

	"lockstep"
	"lockstep/internal/deliver"
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
	result, err := p.consumer.Next(ctx, deliver.NextRequest{Batch: min(n, deliver.MaxBatch), Wait: fetchWait, Holder: "pump", Claims: true})
	if err != nil || len(result.Deliveries) == 0 {
		return fetched{err: err}
	}
	items := make([]*item, 0, len(result.Deliveries))
	now := time.Now()
	for some := range slices.Chunk(result.Deliveries, neighbours) {
		items = p.appendItems(items, some, now)
	}
	if p.consumer.Definition().AckWait < lease {
		if _, err := p.consumer.ExtendClaims(ctx, claimsOf(items), lease); err != nil {
			return fetched{items: items, err: err}
		}
	}
	return fetched{items: items}
}

// neighbours is how many items share memory, all but their bodies: fewer things to
// allocate, and one that stays for long keeps about 3 KB of the others and no more.
const neighbours = 8

// appendItems makes the messages of deliveries. Nothing of them keeps the log's batch alive.
func (p *Pump) appendItems(items []*item, ds []deliver.Delivery, now time.Time) []*item {
	shared := make([]item, len(ds))
	var room [neighbours * 64]byte
	keys, ends := room[:0], [neighbours]int{}
	for i := range ds {
		p.fill(&shared[i], &ds[i], now)
		keys = lockstep.AppendIdempotencyKey(keys, ds[i].Record)
		ends[i] = len(keys)
		items = append(items, &shared[i])
	}
	text, from := string(keys), 0
	for i := range shared {
		shared[i].message.IdempotencyKey = text[from:ends[i]]
		from = ends[i]
	}
	return items
}

// fill makes the message of a delivery, but for its IdempotencyKey.
func (p *Pump) fill(it *item, d *deliver.Delivery, now time.Time) {
	r := d.Record
	m := &it.message
	m.Body, m.Record, m.PKs = p.consumer.Message(d)
	m.Seq, m.Key, m.Action, m.Attempt = r.Seq(), d.Key, r.Action(), d.Attempt
	t := r.Table()
	m.Database, m.Schema, m.Table = p.database, t.Schema, t.Name
	m.CommitTime = time.UnixMicro(r.Tx().CommitTime).UTC()
	if from, ok := d.From(); ok {
		m.Sync, m.Provider, m.Collection = from.Sync, from.Provider, from.Collection
	}
	it.claim, it.size, it.came = d.Claim, len(m.Body)+256, now
}

func claimsOf(items []*item) []deliver.Claim {
	list := make([]deliver.Claim, len(items))
	for i, it := range items {
		list[i] = it.claim
	}
	return list
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
