package events

import (
	"context"
	"errors"
	"time"

	"lockstep"
	"lockstep/internal/obs"
)

// reader reads the log for sessions whose places lie near each other. At the end of the
// log there is one, the live one; others catch up with it and hand their sessions over.
type reader struct {
	feed *feed
	stop context.CancelFunc
	rows []row // of the batch at hand; used by run only

	// Guarded by the feed's mu.
	next    uint64                // everything below was offered to the members
	members map[string][]*Session // by subscriber
	count   int                   // of members
	untold  []*Session            // members with a gap that is not told yet
	lost    *gap                  // that all members are to be told
}

// turnBatches is how many batches a reader that is behind reads before others may.
const turnBatches = 16

// run reads until ctx ends, which is when nobody is left, or until another reader has
// taken the members over.
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
		if err == nil || ctx.Err() != nil {
			continue
		}
		if r.passOver(err) {
			continue
		}
		r.feed.server.config.Logger.WarnContext(ctx, "events cannot be read", obs.KeyDatabase, r.feed.database, obs.KeyTable, r.feed.table.String(), obs.KeyError, err)
		pause(ctx, r.feed.server.config.Limits.Pause)
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
	if r.next > f.log.Last().Seq {
		r.tellEnd()
		if f.live == nil {
			f.live = r
			return true, false
		}
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
	for _, list := range r.members {
		for _, k := range list {
			k.next = max(k.next, r.next)
			if r.lost != nil && k.untold == nil {
				k.untold = r.lost
			}
			to.add(k)
		}
	}
	r.members, r.count, r.untold = nil, 0, nil
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
		r.dispatch(b)
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
		r.dispatch(b)
	}
	return nil
}

func (r *reader) place() uint64 {
	r.feed.mu.Lock()
	defer r.feed.mu.Unlock()
	return r.next
}

// passOver goes on behind changes that are gone for good, and notes that they are to be
// told. It reports false when trying again may help.
func (r *reader) passOver(err error) bool {
	f := r.feed
	next, reason := f.behind(err), reasonDamage
	if _, ok := errors.AsType[*lockstep.RetentionError](err); ok {
		reason = reasonRetention
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if next <= r.next {
		return false
	}
	r.next = next
	r.lost = &gap{reason: reason, seq: next}
	return true
}

// dispatch offers what a batch holds to the sessions that it concerns.
func (r *reader) dispatch(b *lockstep.Batch) {
	f := r.feed
	from := r.place()
	r.rows = appendRows(r.rows[:0], b, f.table, from)
	f.index.note(b, r.rows, from)
	f.mu.Lock()
	defer f.mu.Unlock()
	for i := range r.rows {
		if r.count == 0 {
			break
		}
		r.offer(&r.rows[i])
	}
	r.next = max(r.next, b.Mark.Seq+1)
	clear(r.rows) // the batch is not to be held until the next one comes
	if r.next > f.log.Last().Seq {
		r.tellEnd()
	}
	if r.count == 0 {
		r.end()
	}
}

// offer brings a row to the sessions of its subscriber. The caller holds the feed's mu.
func (r *reader) offer(w *row) {
	switch {
	case w.gap != nil:
		r.toAll(w.seq, appendMark(nil, w.gap))
		return
	case w.lacks != "":
		r.fault(w)
		return
	}
	r.tellLost(w.seq, w.id)
	members := r.members[string(w.subscriber)]
	if len(members) == 0 {
		return
	}
	var event []byte
	for i := 0; i < len(members); i++ {
		k := members[i]
		if w.seq < k.next {
			continue
		}
		if event == nil {
			event = appendEvent(make([]byte, 0, len(w.id)+len(w.kind)+len(w.payload)+32), w)
		}
		k.next = w.seq
		if k.push(event) {
			k.next++
			continue
		}
		r.remove(k)
		members = r.members[string(w.subscriber)]
		i--
	}
}

// toAll tells all members about a place of the log. The caller holds the feed's mu.
func (r *reader) toAll(seq uint64, part []byte) {
	for _, list := range r.members {
		for _, k := range list {
			if seq >= k.next {
				k.tell(part)
			}
		}
	}
}

// fault tells each session once that rows are no events, and the log once. The caller
// holds the feed's mu.
func (r *reader) fault(w *row) {
	f := r.feed
	if !f.faulty {
		f.faulty = true
		f.server.config.Logger.WarnContext(f.server.life, "rows are no events: the table needs the columns id, type, subscriber and payload",
			obs.KeyDatabase, f.database, obs.KeyTable, f.table.String(), obs.KeyReason, "no column "+w.lacks)
	}
	for _, list := range r.members {
		for _, k := range list {
			if w.seq >= k.next && !k.faulted {
				k.faulted = true
				k.tell(appendFault(nil, f.table, w.lacks))
			}
		}
	}
}

// tellLost tells the gaps before seq that are not told yet. There is the first event
// behind them, with that id; nil: there is none. The caller holds the feed's mu.
func (r *reader) tellLost(seq uint64, first []byte) {
	if r.lost != nil {
		part := appendGap(nil, *r.lost, first)
		for _, list := range r.members {
			for _, k := range list {
				if k.next < r.lost.seq && k.untold == nil {
					k.tell(part)
				}
			}
		}
		r.lost = nil
	}
	left := r.untold[:0]
	for _, k := range r.untold {
		if seq < k.next {
			left = append(left, k)
			continue
		}
		k.tell(appendGap(nil, *k.untold, first))
		k.untold = nil
	}
	clear(r.untold[len(left):])
	r.untold = left
}

// tellEnd tells gaps behind which there is no event. The caller holds the feed's mu.
func (r *reader) tellEnd() { r.tellLost(r.next, nil) }
