package demo

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	"lockstep/client"
)

// trail follows the changes of one mirrored account: from its owner, over the row in
// Postgres, to the worker of a consumer.
type trail struct {
	api      *client.Client
	sync     string // its name
	consumer string
	owner    owner
	every    time.Duration // about so often the owner edits something
	show     func(arrival)

	mu      sync.Mutex
	waiting map[string]waiting // guarded by mu: edits that have not arrived, by record
	latest  map[string]sight   // guarded by mu: the last mark that arrived, by record
	since   time.Time          // guarded by mu: what is committed from then on is timed; zero: nothing is
	changes uint64             // guarded by mu: that the worker has processed
	edits   int                // guarded by mu: that arrived
	toRow   times              // guarded by mu: of edits, from the API's answer to the commit
	toWork  times              // guarded by mu: of all changes, from the commit to the worker
}

// waiting is an edit that has not arrived at the worker.
type waiting struct {
	edit
	at time.Time // when the API had answered
}

// sight is a mark at the worker.
type sight struct {
	mark            string
	committed, seen time.Time
}

// arrival is an edit with the times of its way.
type arrival struct {
	edit
	sync            string
	changed         time.Time     // in the API
	toRow, toWorker time.Duration // each since the one before
}

func newTrail(api *client.Client, sync, consumer string) *trail {
	return &trail{api: api, sync: sync, consumer: consumer, waiting: map[string]waiting{}, latest: map[string]sight{}}
}

// work is the worker of the trail's consumer: it acks all that comes, until ctx ends.
func (t *trail) work(ctx context.Context) error {
	for ctx.Err() == nil {
		got, err := t.api.Next(ctx, t.consumer, batchSize, longPoll)
		if err != nil {
			if ctx.Err() != nil {
				return nil
			}
			return fmt.Errorf("worker of %s: next: %w", t.consumer, err)
		}
		now := time.Now()
		tokens := make([]string, 0, len(got.Deliveries))
		for _, d := range got.Deliveries {
			t.arrived(d, now)
			tokens = append(tokens, d.Token)
		}
		if len(tokens) == 0 {
			continue
		}
		if err := settled(t.api.Ack(ctx, t.consumer, tokens...)); err != nil && ctx.Err() == nil {
			return fmt.Errorf("worker of %s: ack: %w", t.consumer, err)
		}
	}
	return nil
}

// arrived notes a change that the worker has.
func (t *trail) arrived(d client.Delivery, now time.Time) {
	var record struct {
		ID   string `json:"upstream_id"`
		Data json.RawMessage
	}
	if json.Unmarshal(d.Record, &record) != nil {
		return // it is about a whole table
	}
	s := sight{mark: t.owner.mark(record.Data), committed: d.Metadata.CommitTime(), seen: now}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.changes++
	if !t.since.IsZero() && s.committed.After(t.since) && d.Attempt == 1 {
		t.toWork.add(max(0, now.Sub(s.committed)))
	}
	if s.mark == t.latest[record.ID].mark {
		return // another field has changed
	}
	t.latest[record.ID] = s
	if w, ok := t.waiting[record.ID]; ok && w.mark == s.mark {
		t.through(w, s)
	}
}

// through ends an edit's way. The caller holds mu.
func (t *trail) through(w waiting, s sight) {
	delete(t.waiting, w.id)
	// What the mirror saw before its owner had the answer took no time.
	a := arrival{edit: w.edit, sync: t.sync, changed: w.at, toRow: max(0, s.committed.Sub(w.at)), toWorker: max(0, s.seen.Sub(s.committed))}
	t.edits++
	t.toRow.add(a.toRow)
	t.show(a)
}

// edit has the owner edit the nth thing, and returns how many that were: 1, or 0 when
// there was nothing to edit.
func (t *trail) edit(ctx context.Context, n int) (int, error) {
	e, err := t.owner.edit(ctx, n)
	if errors.Is(err, errNothing) {
		return 0, nil
	}
	if err != nil {
		return 0, fmt.Errorf("the owner of the account of sync %s: %w", t.sync, err)
	}
	t.made(e, time.Now())
	return 1, nil
}

// pause waits until the next edit: at any moment between two polls.
func (t *trail) pause(ctx context.Context) {
	timer := time.NewTimer(t.every/2 + rand.N(t.every))
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}

// made notes an edit of the owner's. One of the same record that has not arrived yet
// is overtaken by it.
func (t *trail) made(e edit, at time.Time) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.waiting[e.id] = waiting{e, at}
	if s := t.latest[e.id]; s.mark == e.mark {
		t.through(t.waiting[e.id], s)
	}
}

// begin has what is committed from now on timed.
func (t *trail) begin() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.since = time.Now()
}

// open is how many edits have not arrived.
func (t *trail) open() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return len(t.waiting)
}
