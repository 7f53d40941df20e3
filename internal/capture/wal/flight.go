package wal

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"lockstep"
)

// flight is what is on its way to the log's disk. The log reports landings from a
// goroutine of its own, in order; everything here is safe for concurrent use.
type flight struct {
	count   atomic.Int64  // batches not yet on disk
	durable atomic.Uint64 // EndLSN of the last batch on disk
	last    atomic.Int64  // when it got there, Unix nanoseconds; 0: none yet
	landed  chan struct{} // holds a token after a landing; for the flusher
	moved   chan struct{} // the same; for whoever answers Postgres
	counts  *counters
	observe func(Durable) // may be nil
	fail    func(error)   // ends the session

	mu      sync.Mutex // guards what follows
	starts  uint64     // batches handed over
	lands   uint64     // of those on disk
	waiting []waiting  // by number, ascending
}

// waiting is somebody who waits until that many batches are on disk.
type waiting struct {
	lands  uint64
	notify func()
}

func newFlight(durable lockstep.LSN, counts *counters, fail func(error)) *flight {
	f := &flight{landed: make(chan struct{}, 1), moved: make(chan struct{}, 1), counts: counts, fail: fail}
	f.durable.Store(uint64(durable))
	return f
}

// landing is one batch on its way.
type landing struct {
	flight       *flight
	once         sync.Once
	end          lockstep.LSN
	changes      int
	transactions int
	bytes        int
	committed    int64 // when the last transaction in it committed; microseconds since 1970
}

func (f *flight) start(l *landing) *landing {
	l.flight = f
	f.count.Add(1)
	f.mu.Lock()
	defer f.mu.Unlock()
	f.starts++
	return l
}

// whenLanded calls notify when all batches handed over so far are on disk, which may
// be at once; never when one fails. It must not block.
func (f *flight) whenLanded(notify func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.lands == f.starts {
		notify()
		return
	}
	f.waiting = append(f.waiting, waiting{f.starts, notify})
}

func (f *flight) hasLanded() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.lands++
	for len(f.waiting) > 0 && f.waiting[0].lands <= f.lands {
		f.waiting[0].notify()
		f.waiting = f.waiting[1:]
	}
}

// done is called by the log when the batch is on disk, or with the reason why not;
// and by the one who appended when the log refused the batch. The first call counts.
func (l *landing) done(err error) {
	l.once.Do(func() {
		f := l.flight
		if err != nil {
			f.fail(err)
		} else {
			l.account()
			f.hasLanded()
		}
		// Counted down last: whoever sees no batch in flight sees durable as it is.
		f.count.Add(-1)
		wake(f.landed)
		wake(f.moved)
	})
}

func (l *landing) account() {
	f := l.flight
	// Landings come in order; the slot never goes back even if one did not.
	if uint64(l.end) > f.durable.Load() {
		f.durable.Store(uint64(l.end))
	}
	f.last.Store(time.Now().UnixNano())
	f.counts.marks.Add(1)
	f.counts.changes.Add(uint64(l.changes))
	f.counts.transactions.Add(uint64(l.transactions))
	f.counts.bytes.Add(uint64(l.bytes))
	if f.observe != nil && l.changes > 0 {
		f.observe(Durable{Changes: l.changes, Bytes: l.bytes, Lag: time.Since(time.UnixMicro(l.committed))})
	}
}

// settle waits until nothing is in flight, or ctx ends. Nobody else may take
// landed's tokens meanwhile.
func (f *flight) settle(ctx context.Context) {
	for f.count.Load() > 0 {
		select {
		case <-ctx.Done():
			return
		case <-f.landed:
		}
	}
}

func wake(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}
