package realtime_test

import (
	"cmp"
	"context"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"lockstep"
	"lockstep/internal/realtime"
)

// row is a change as a test writes it.
type row struct {
	table   string // default public.orders
	action  lockstep.Action
	record  string
	changes string
	meta    string // further metadata, each member led by a comma
	only    string // the one consumer that it is for
	known   bool   // the old row is known
}

// memLog is a log in memory: the real stream has a test of its own.
type memLog struct {
	mu      sync.Mutex
	batches []*lockstep.Batch
	first   uint64
	grown   chan struct{}
	tables  map[string]*lockstep.Table
	readers int   // open ones
	reads   int   // batches given
	fail    error // of the next read
}

func newMemLog() *memLog {
	return &memLog{first: 1, grown: make(chan struct{}), tables: map[string]*lockstep.Table{}}
}

// add appends rows as one batch and returns the last seq.
func (l *memLog) add(t testing.TB, rows ...row) uint64 {
	t.Helper()
	l.mu.Lock()
	defer l.mu.Unlock()
	var w lockstep.BatchWriter
	w.Reset(nil)
	end := l.end()
	at := time.Date(2026, 11, 21, 10, 0, 0, 123_456_000, time.UTC).Add(time.Duration(end) * time.Second)
	w.Begin(lockstep.Tx{CommitLSN: lockstep.LSN(end + 1), CommitTime: at.UnixMicro(), XID: 9})
	for i, r := range rows {
		buf := w.Open()
		buf = append(append(append(buf, r.record...), r.changes...), r.meta...)
		w.Close(buf, lockstep.RecordHead{
			Action: cmp.Or(r.action, lockstep.Insert), Table: w.Table(l.table(r)), CommitIdx: uint32(i), OldKnown: r.known,
			RecordLen: len(r.record), ChangesLen: len(r.changes), ExtraLen: len(r.meta),
		})
	}
	data, err := w.Seal(end+1, lockstep.Mark{SystemID: 7, CommitLSN: lockstep.LSN(end + 1), Complete: true})
	if err != nil {
		t.Fatal(err)
	}
	b, err := lockstep.ParseBatch(data)
	if err != nil {
		t.Fatal(err)
	}
	l.batches = append(l.batches, b)
	close(l.grown)
	l.grown = make(chan struct{})
	return b.Mark.Seq
}

func (l *memLog) table(r row) *lockstep.Table {
	name := cmp.Or(r.table, "public.orders")
	if l.tables[name+r.only] == nil {
		schema, table, _ := strings.Cut(name, ".")
		if name == "everything" {
			schema, table = "", ""
		}
		l.tables[name+r.only] = &lockstep.Table{OID: uint32(16000 + len(l.tables)), Schema: schema, Name: table, Key: lockstep.KeyPrimary, Consumer: r.only}
	}
	return l.tables[name+r.only]
}

func (l *memLog) end() uint64 {
	if len(l.batches) == 0 {
		return l.first - 1
	}
	return l.batches[len(l.batches)-1].Mark.Seq
}

// retain removes what lies below first.
func (l *memLog) retain(first uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.batches = slices.DeleteFunc(slices.Clone(l.batches), func(b *lockstep.Batch) bool { return b.Mark.Seq < first })
	l.first = first
}

// failNext makes the next read fail.
func (l *memLog) failNext(err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.fail = err
	close(l.grown)
	l.grown = make(chan struct{})
}

func (l *memLog) open() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.readers
}

func (l *memLog) Last() lockstep.Mark {
	l.mu.Lock()
	defer l.mu.Unlock()
	return lockstep.Mark{Seq: l.end()}
}

func (l *memLog) First() uint64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.first
}

func (l *memLog) SeqAt(_ context.Context, at time.Time) (uint64, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, b := range l.batches {
		if b.Record(0).Tx().CommitTime >= at.UnixMicro() {
			return b.First, nil
		}
	}
	return l.end() + 1, nil
}

func (l *memLog) Reader(from uint64) realtime.Reader {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.readers++
	return &memReader{l: l, next: from}
}

type memReader struct {
	l    *memLog
	next uint64
}

func (r *memReader) Close() {
	r.l.mu.Lock()
	defer r.l.mu.Unlock()
	r.l.readers--
}

func (r *memReader) Next(ctx context.Context) (*lockstep.Batch, error) {
	for {
		b, grown, err := r.look()
		if b != nil || err != nil {
			return b, err
		}
		select {
		case <-grown:
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
}

func (r *memReader) look() (*lockstep.Batch, <-chan struct{}, error) {
	r.l.mu.Lock()
	defer r.l.mu.Unlock()
	if err := r.l.fail; err != nil {
		r.l.fail = nil
		return nil, nil, err
	}
	if r.next < r.l.first {
		return nil, nil, &lockstep.RetentionError{Asked: r.next, First: r.l.first}
	}
	n, _ := slices.BinarySearchFunc(r.l.batches, r.next, func(b *lockstep.Batch, seq uint64) int { return cmp.Compare(b.Mark.Seq, seq) })
	if n == len(r.l.batches) {
		return nil, r.l.grown, nil
	}
	b := r.l.batches[n]
	r.next = b.Mark.Seq + 1
	r.l.reads++
	return b, nil, nil
}
