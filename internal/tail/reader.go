package tail

import (
	"context"
	"time"

	"lockstep"
	"lockstep/internal/filter"
)

// reader reads the log for sessions whose places lie near each other. At the end of the
// log there is one, the live one; others catch up with it and hand their sessions over.
type reader struct {
	feed *feed
	stop context.CancelFunc

	// Guarded by the feed's mu.
	next  uint64 // everything below was offered to the members
	index *index
}

const (
	// turnBatches is how many batches a reader that is behind reads before others may.
	turnBatches = 16
	// stepChanges is how many changes are offered before sessions may come and go.
	stepChanges = 256
)

// run reads until ctx ends, which is when nobody is left, until another reader has taken
// the members over, or until the log cannot be read: then each finds out by itself.
func (r *reader) run(ctx context.Context, wait time.Duration) {
	defer r.stop()
	pause(ctx, wait)
	for ctx.Err() == nil {
		live, merged := r.standing()
		var err error
		switch {
		case merged:
			return
		case live:
			err = r.follow(ctx)
		default:
			err = r.catchUp(ctx)
		}
		if err != nil && ctx.Err() == nil {
			r.dissolve()
			return
		}
	}
}

func pause(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}

// standing says whether this is the reader at the end of the log, or becomes it. merged
// says that another one has taken over all members, and this one is at its end.
func (r *reader) standing() (live, merged bool) {
	f := r.feed
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.live == r {
		return true, false
	}
	if f.live == nil && r.next > f.log.Last().Seq {
		f.live = r
		return true, false
	}
	for other := range f.readers {
		// One that is no further, and reads what comes next anyway.
		if other != r && other.next <= r.next && (other == f.live || r.next-other.next <= near) {
			r.handOver(other)
			return false, true
		}
	}
	return false, false
}

// handOver gives all members to another reader, which is not further than this one. The
// caller holds the feed's mu.
func (r *reader) handOver(to *reader) {
	for k := range r.index.members {
		k.next = max(k.next, r.next)
		k.reader = to
		to.index.add(k)
	}
	r.index = newIndex()
	r.end()
}

// dissolve lets all members read on by themselves.
func (r *reader) dissolve() {
	r.feed.mu.Lock()
	defer r.feed.mu.Unlock()
	for k := range r.index.members {
		r.release(k, max(k.next, r.next), reasonFault)
	}
	r.end()
}

// follow reads at the end of the log until an error, or until ctx ends.
func (r *reader) follow(ctx context.Context) error {
	in := r.feed.log.ReadFrom(r.place())
	defer in.Close()
	for {
		b, err := in.Next(ctx)
		if err != nil {
			return err
		}
		r.dispatch(ctx, b)
	}
}

// catchUp reads a few batches, when it is this reader's turn. It holds nothing between
// two turns.
func (r *reader) catchUp(ctx context.Context) error {
	done, err := r.feed.server.turn(ctx)
	if err != nil {
		return err
	}
	defer done()
	in := r.feed.log.ReadFrom(r.place())
	defer in.Close()
	for range turnBatches {
		if r.place() > r.feed.log.Last().Seq {
			return nil // it would wait at the end, and hold the turn meanwhile
		}
		b, err := in.Next(ctx)
		if err != nil {
			return err
		}
		r.dispatch(ctx, b)
	}
	return nil
}

func (r *reader) place() uint64 {
	r.feed.mu.Lock()
	defer r.feed.mu.Unlock()
	return r.next
}

// dispatch offers what a batch holds to the sessions that it concerns.
func (r *reader) dispatch(ctx context.Context, b *lockstep.Batch) {
	for at := 0; ; {
		at = r.step(b, at)
		if at == b.Len() || ctx.Err() != nil {
			return
		}
	}
}

// step offers a few changes, so that whoever joins or leaves does not wait for a large
// batch. It returns the index of the change to go on with.
func (r *reader) step(b *lockstep.Batch, at int) int {
	r.feed.mu.Lock()
	defer r.feed.mu.Unlock()
	for end := min(at+stepChanges, b.Len()); at < end; at++ {
		if record := b.Record(at); record.Seq() >= r.next {
			r.offer(record)
			r.next = record.Seq() + 1
		}
	}
	if at == b.Len() {
		r.next = max(r.next, b.First+uint64(b.Len()))
	}
	r.endIfIdle()
	return at
}

// offer brings a change to the sessions that it concerns. The caller holds the feed's mu.
func (r *reader) offer(record lockstep.Record) {
	// Rows read for one consumer are no news to anybody else.
	if record.Table().Consumer != "" {
		return
	}
	in := filter.NewInput(record, r.feed.database)
	var event []byte
	for _, k := range r.index.concerned(record, in) {
		if record.Seq() < k.next || !k.actions[record.Action()&7] {
			continue
		}
		part, why := k.judge(record, in)
		if why != reasonNone {
			r.release(k, record.Seq(), why)
			continue
		}
		switch {
		case part == nil:
			continue
		case len(part) == 0:
			if event == nil {
				event = appendEvent(nil, record, r.feed.database)
			}
			part = event
		}
		if !k.push(part) {
			r.release(k, record.Seq(), reasonSlow)
		}
	}
}

// judge decides what a session gets of a change while others wait: nil is nothing, an
// empty part the event of the change, anything else is what it gets instead.
func (k *Session) judge(record lockstep.Record, in *filter.Input) (part []byte, why reason) {
	if k.selection.Filter == nil || record.Action().Whole() {
		return []byte{}, reasonNone
	}
	matched, done, err := k.selection.Filter.MatchWithin(in, k.server.limits.FilterWork)
	switch {
	case !done:
		return nil, reasonFilter
	case err != nil:
		return appendError(nil, record, err), reasonNone
	case matched:
		return []byte{}, reasonNone
	}
	return nil, reasonNone
}
