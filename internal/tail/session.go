package tail

import (
	"context"
	"errors"
	"sync"
	"time"

	"lockstep"
	"lockstep/internal/filter"
)

// flushBytes is about how much a session that reads by itself returns at once.
const flushBytes = 64 << 10

// Session is one open stream of events. Next is called by one goroutine, which also
// calls Close.
type Session struct {
	server     *Server
	database   string
	log        Log
	selection  Selection
	actions    [8]bool
	equalities []*filter.Equality
	feed       *feed
	ready      chan struct{} // a token: something waits, or the session left its reader
	once       sync.Once

	// Used by Next only: what the session needs while it reads by itself.
	told  []byte // to be told first
	own   Reader
	batch *lockstep.Batch // being read, from the change at on
	at    int
	buf   []byte

	// Guarded by the feed's mu; next is Next's own while no reader has the session.
	reader *reader
	next   uint64 // everything below was offered to it, or was left out when it began
	serial uint64 // of the index that it is in

	mu     sync.Mutex
	queue  [][]byte // guarded by mu: events, shared with other sessions
	bytes  int      // guarded by mu
	apart  bool     // guarded by mu: no reader has it
	why    reason   // guarded by mu: what keeps it from sharing a reader again
	closed bool     // guarded by mu
}

// reason says when a session that reads by itself may share a reader again.
type reason uint8

const (
	reasonNone   reason = iota // at once
	reasonFault                // when it has got past what the reader could not read
	reasonSlow                 // at the end of the log
	reasonFilter               // never: its filter takes too long for others to wait
)

// Next returns what is there: whole events, to be written one after the other. They are
// valid until the next call and may be shared with other sessions, so they must not be
// changed. It waits for something until ctx ends, but no longer than wait: then it
// returns nothing. An error says that the log cannot be read: the session is at its end.
func (k *Session) Next(ctx context.Context, wait time.Duration) ([][]byte, error) {
	until, cancel := context.WithTimeout(ctx, wait)
	defer cancel()
	stop := context.AfterFunc(k.server.life, cancel) //nolint:contextcheck // the end of the server ends the wait, too
	defer stop()
	for {
		switch {
		case k.server.life.Err() != nil:
			return nil, errEnded
		case ctx.Err() != nil:
			return nil, context.Cause(ctx)
		case len(k.told) > 0:
			part := k.told
			k.told = nil
			return [][]byte{part}, nil
		}
		parts, apart := k.take()
		if len(parts) > 0 {
			return parts, nil
		}
		if until.Err() != nil {
			return nil, nil
		}
		if !apart {
			select {
			case <-k.ready:
			case <-until.Done():
			}
			continue
		}
		parts, err := k.readOn(until)
		if len(parts) > 0 || err != nil {
			return parts, err
		}
	}
}

// Close ends the session.
func (k *Session) Close() {
	k.once.Do(func() {
		k.feed.leave(k)
		k.mu.Lock()
		k.closed = true
		k.server.queued.Add(-int64(k.bytes))
		k.queue, k.bytes = nil, 0
		k.mu.Unlock()
		k.closeOwn()
		k.server.release(k.feed)
	})
}

func (k *Session) closeOwn() {
	if k.own != nil {
		k.own.Close()
		k.own, k.buf = nil, nil
	}
}

// take empties the queue. apart says that nobody fills it any more.
func (k *Session) take() (parts [][]byte, apart bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	parts = k.queue
	k.server.queued.Add(-int64(k.bytes))
	k.queue, k.bytes = nil, 0
	return parts, k.apart
}

// perEvent is what a waiting event costs beyond its bytes.
const perEvent = 24

// push adds an event, and never waits. It reports false when too much waits already:
// then the event is not taken, and the session must leave its reader.
func (k *Session) push(event []byte) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	size := len(event) + perEvent
	switch {
	case k.closed:
		return true
	case k.bytes > 0 && k.bytes+size > k.server.allowed():
		// One event always fits: else a large one could never be sent at all.
		return false
	}
	k.queue = append(k.queue, event)
	k.bytes += size
	k.server.queued.Add(int64(size))
	k.wake()
	return true
}

// setApart notes that no reader has the session, and wakes it to read on by itself.
func (k *Session) setApart(why reason) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.apart, k.why = true, why
	k.wake()
}

// wake wakes Next. The caller holds mu.
func (k *Session) wake() {
	select {
	case k.ready <- struct{}{}:
	default:
	}
}

// readOn goes on where no reader has the session: it joins one if it may, else it reads
// the log by itself.
func (k *Session) readOn(ctx context.Context) ([][]byte, error) {
	if k.batch == nil {
		if k.rejoin() { //nolint:contextcheck // a shared reader outlives the session
			return nil, nil
		}
		if err := k.load(ctx); err != nil || k.batch == nil {
			return k.tell(), err
		}
	}
	k.buf = k.buf[:0]
	if cap(k.buf) > 4*flushBytes {
		k.buf = nil // one huge change must not stay in memory for a session's life
	}
	for ; k.at < k.batch.Len() && len(k.buf) < flushBytes; k.at++ {
		k.appendRecord(k.batch.Record(k.at))
	}
	if k.at == k.batch.Len() {
		k.next = max(k.next, k.batch.First+uint64(k.batch.Len()))
		k.batch, k.at = nil, 0
		k.mu.Lock()
		if k.why == reasonFault {
			k.why = reasonNone
		}
		k.mu.Unlock()
	}
	if len(k.buf) == 0 {
		return nil, nil
	}
	return [][]byte{k.buf}, nil
}

func (k *Session) tell() [][]byte {
	if len(k.told) == 0 {
		return nil
	}
	part := k.told
	k.told = nil
	return [][]byte{part}
}

// load gets the next batch; none when ctx ended first, or when there is something to
// tell instead.
func (k *Session) load(ctx context.Context) error {
	if k.own == nil {
		k.own = k.log.ReadFrom(k.next)
	}
	batch, err := k.own.Next(ctx)
	if gone, ok := errors.AsType[*lockstep.RetentionError](err); ok {
		k.told = appendGap(nil, k.database, gap{"retention", max(k.next, gone.Asked), gone.First})
		k.next = gone.First
		k.own.Seek(gone.First)
		return nil
	}
	if err != nil && ctx.Err() != nil {
		return nil
	}
	k.batch = batch
	return err
}

// rejoin makes the session share a reader, if it may and there is one for it.
func (k *Session) rejoin() bool {
	k.mu.Lock()
	why := k.why
	k.mu.Unlock()
	if why == reasonFilter || why == reasonFault || k.next < k.log.First() {
		return false
	}
	if !k.feed.join(k, why) {
		return false
	}
	k.closeOwn()
	return true
}

// appendRecord appends what the session gets of a change that it reads by itself.
func (k *Session) appendRecord(r lockstep.Record) {
	// Rows read for one consumer are no news to anybody else.
	if r.Seq() < k.next || r.Table().Consumer != "" || !k.actions[r.Action()&7] || !k.selects(r.Table()) {
		return
	}
	if k.selection.Filter != nil && !r.Action().Whole() {
		matched, err := k.selection.Filter.Match(filter.NewInput(r, k.database))
		if err != nil {
			k.buf = appendError(k.buf, r, err)
			return
		}
		if !matched {
			return
		}
	}
	k.buf = appendEvent(k.buf, r, k.database)
}

func (k *Session) selects(t *lockstep.Table) bool {
	return k.selection.Tables == nil || k.selection.Tables(t)
}
