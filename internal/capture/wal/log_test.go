package wal

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"

	"lockstep"
)

// memoryLog is a Log that keeps every batch: sealed as the stream does and parsed
// again. Its disk can be stopped, and can fail.
type memoryLog struct {
	mu      sync.Mutex
	changed *sync.Cond
	batches []*lockstep.Batch
	last    lockstep.Mark // of what is durable
	next    uint64        // seq of the next change appended
	waiting []appended    // not durable yet
	stopped bool          // the disk takes nothing
	room    int           // batches until it does so by itself; 0: never
	failed  error
	closed  bool
	budget  int // batches on their way before Append blocks
	landing bool
}

type appended struct {
	batch *lockstep.Batch
	done  func(error)
}

func newMemoryLog(t testing.TB) *memoryLog {
	l := &memoryLog{next: 1, budget: 16}
	l.changed = sync.NewCond(&l.mu)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		l.land()
	}()
	t.Cleanup(func() {
		l.set(func() { l.closed = true })
		<-ended
	})
	return l
}

func (l *memoryLog) set(change func()) {
	l.mu.Lock()
	defer l.mu.Unlock()
	change()
	l.changed.Broadcast()
}

// land is the disk.
func (l *memoryLog) land() {
	l.mu.Lock()
	defer l.mu.Unlock()
	for {
		for !l.closed && (l.stopped && l.failed == nil || len(l.waiting) == 0) {
			l.changed.Wait()
		}
		if l.closed {
			return
		}
		a, err := l.waiting[0], l.failed
		l.waiting = l.waiting[1:]
		if err == nil {
			l.batches = append(l.batches, a.batch)
			l.last = a.batch.Mark
			if l.room--; l.room == 0 {
				l.stopped = true
			}
		}
		l.landing = true
		l.mu.Unlock()
		a.done(err)
		l.mu.Lock()
		l.landing = false
		l.changed.Broadcast()
	}
}

func (l *memoryLog) Append(ctx context.Context, w *lockstep.BatchWriter, mark lockstep.Mark, done func(error)) error {
	stop := context.AfterFunc(ctx, func() { l.set(func() {}) })
	defer stop()
	l.mu.Lock()
	defer l.mu.Unlock()
	for ctx.Err() == nil && l.failed == nil && len(l.waiting) >= l.budget {
		l.changed.Wait()
	}
	if l.failed != nil {
		return l.failed
	}
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	data, err := w.Seal(l.next, mark)
	if err != nil {
		return err
	}
	b, err := lockstep.ParseBatch(data)
	if err != nil {
		return err
	}
	l.next += uint64(b.Len())
	l.waiting = append(l.waiting, appended{b, done})
	l.changed.Broadcast()
	return nil
}

func (l *memoryLog) Recover(ctx context.Context) (lockstep.Mark, error) {
	stop := context.AfterFunc(ctx, func() { l.set(func() {}) })
	defer stop()
	l.mu.Lock()
	defer l.mu.Unlock()
	for ctx.Err() == nil && (len(l.waiting) > 0 || l.landing) {
		l.changed.Wait()
	}
	l.failed = nil
	l.next = l.last.Seq + 1
	return l.last, ctx.Err()
}

// stop makes the disk take nothing until start.
func (l *memoryLog) stop()          { l.set(func() { l.stopped = true }) }
func (l *memoryLog) start()         { l.set(func() { l.stopped = false }) }
func (l *memoryLog) fail(err error) { l.set(func() { l.failed = err }) }

func (l *memoryLog) mark() lockstep.Mark {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.last
}

func (l *memoryLog) all() []*lockstep.Batch {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clip(l.batches)
}

// seen is a change as a test looks at it.
type seen struct {
	Action, Table, Row, Changes, PKs, Extra string
	OldKnown                                bool
}

// changes returns all changes in the order of the log, after checking that seq is
// dense and positions only grow.
func (l *memoryLog) changes(t testing.TB) []seen {
	t.Helper()
	var all []seen
	l.each(t, func(r lockstep.Record) {
		all = append(all, seen{
			r.Action().String(), r.Table().String(), string(r.Row()), string(r.Changes()), string(r.PKs()), string(r.Extra()), r.OldKnown(),
		})
	})
	return all
}

func (l *memoryLog) each(t testing.TB, visit func(lockstep.Record)) {
	t.Helper()
	var seq uint64
	var lsn lockstep.LSN
	var idx, timeline uint32
	for _, b := range l.all() {
		if b.Mark.Timeline != timeline {
			lsn, timeline = 0, b.Mark.Timeline // positions are a timeline's own
		}
		for i := range b.Len() {
			r := b.Record(i)
			seq++
			if r.Seq() != seq {
				t.Fatalf("seq %d follows %d", r.Seq(), seq-1)
			}
			at := r.Tx().CommitLSN
			if at < lsn || at == lsn && r.CommitIdx() != idx+1 || at > lsn && r.CommitIdx() != 0 {
				t.Fatalf("position (%s, %d) follows (%s, %d)", at, r.CommitIdx(), lsn, idx)
			}
			lsn, idx = at, r.CommitIdx()
			visit(r)
		}
	}
}

// rows returns "action row" of every change: enough where nothing else matters.
func (l *memoryLog) rows(t testing.TB) []string {
	t.Helper()
	var rows []string
	for _, c := range l.changes(t) {
		rows = append(rows, fmt.Sprint(c.Action, " ", c.Row))
	}
	return rows
}

// countingLog keeps nothing of what it is given.
type countingLog struct {
	count, batches atomic.Int64
	last           lockstep.Mark
}

func newCountingLog(testing.TB) *countingLog { return &countingLog{} }

func (l *countingLog) Append(_ context.Context, w *lockstep.BatchWriter, mark lockstep.Mark, done func(error)) error {
	n := w.Count()
	if _, err := w.Seal(uint64(l.count.Load())+1, mark); err != nil {
		return err
	}
	l.last = mark
	l.last.Seq = uint64(l.count.Add(int64(n)))
	l.batches.Add(1)
	done(nil)
	return nil
}

func (l *countingLog) Recover(context.Context) (lockstep.Mark, error) { return l.last, nil }
