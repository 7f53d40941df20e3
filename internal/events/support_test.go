package events_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"lockstep"
	"lockstep/internal/events"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// memLog is a log in memory.
type memLog struct {
	mu      sync.Mutex
	batches []*lockstep.Batch // guarded by mu
	first   uint64            // guarded by mu
	damaged [2]uint64         // guarded by mu: first and last of what cannot be read
	grown   chan struct{}     // guarded by mu; closed by each append
	open    int               // guarded by mu: readers
	most    int               // guarded by mu: readers at a time
	reads   int               // guarded by mu: batches given
}

func newLog() *memLog { return &memLog{first: 1, grown: make(chan struct{})} }

// change is one change of a batch.
type change struct {
	action lockstep.Action
	table  *lockstep.Table
	row    string
	extra  string
}

func eventsTable() *lockstep.Table {
	return &lockstep.Table{OID: 1, Schema: "public", Name: "events", Key: lockstep.KeyPrimary}
}

// event is an inserted row.
func event(id int, subscriber string) change {
	return change{action: lockstep.Insert, row: fmt.Sprintf(`{"id":%d,"type":"made","timestamp":"2026-11-21T10:00:00Z","subscriber":%q,"payload":{"n": %d}}`, id, subscriber, id)}
}

// other is a change of another table.
func other() change {
	return change{action: lockstep.Insert, table: &lockstep.Table{OID: 2, Schema: "public", Name: "orders", Key: lockstep.KeyPrimary}, row: `{"id":1}`}
}

// add appends the changes as one batch, and returns the seq of the last one.
func (l *memLog) add(changes ...change) uint64 {
	var w lockstep.BatchWriter
	w.Reset(nil)
	w.Begin(lockstep.Tx{CommitTime: time.Now().UnixMicro(), XID: 7})
	own := eventsTable()
	for i, c := range changes {
		if c.table == nil {
			c.table = own
		}
		number := w.Table(c.table)
		buf := append(append(w.Open(), c.row...), c.extra...)
		w.Close(buf, lockstep.RecordHead{Action: c.action, Table: number, CommitIdx: uint32(i), RecordLen: len(c.row), ExtraLen: len(c.extra)})
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	first := l.last() + 1
	data, err := w.Seal(first, lockstep.Mark{SystemID: 1, Timeline: 1, Complete: true})
	if err != nil {
		panic(err)
	}
	b, err := lockstep.ParseBatch(data)
	if err != nil {
		panic(err)
	}
	l.batches = append(l.batches, b)
	close(l.grown)
	l.grown = make(chan struct{})
	return b.Mark.Seq
}

func (l *memLog) last() uint64 {
	if len(l.batches) == 0 {
		return 0
	}
	return l.batches[len(l.batches)-1].Mark.Seq
}

// forget removes what lies before seq, as retention does.
func (l *memLog) forget(before uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.first = before
}

func (l *memLog) damage(first, last uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.damaged = [2]uint64{first, last}
}

func (l *memLog) First() uint64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.first
}

func (l *memLog) Last() lockstep.Mark {
	l.mu.Lock()
	defer l.mu.Unlock()
	return lockstep.Mark{Seq: l.last()}
}

type damageError struct{ last uint64 }

func (damageError) Error() string { return "damaged" }

func (l *memLog) find(seq uint64) (*lockstep.Batch, <-chan struct{}, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if seq < l.first {
		return nil, nil, &lockstep.RetentionError{Asked: seq, First: l.first}
	}
	if seq >= l.damaged[0] && seq <= l.damaged[1] {
		return nil, nil, damageError{l.damaged[1]}
	}
	low, high := 0, len(l.batches)
	for low < high {
		middle := (low + high) / 2
		if l.batches[middle].Mark.Seq < seq {
			low = middle + 1
		} else {
			high = middle
		}
	}
	if low < len(l.batches) {
		l.reads++
		return l.batches[low], nil, nil
	}
	return nil, l.grown, nil
}

func (l *memLog) ReadFrom(seq uint64) events.Reader {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.open++
	l.most = max(l.most, l.open)
	return &memReader{log: l, next: seq}
}

func (l *memLog) readers() (open, most, reads int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.open, l.most, l.reads
}

type memReader struct {
	log  *memLog
	next uint64
}

func (r *memReader) Next(ctx context.Context) (*lockstep.Batch, error) {
	for {
		b, grown, err := r.log.find(r.next)
		if err != nil {
			return nil, err
		}
		if b != nil {
			r.next = b.Mark.Seq + 1
			return b, nil
		}
		select {
		case <-grown:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

func (r *memReader) Close() {
	r.log.mu.Lock()
	defer r.log.mu.Unlock()
	r.log.open--
}

// newServer runs a server over the log until the test's end.
func newServer(t testing.TB, log *memLog, limits events.Limits) *events.Server {
	t.Helper()
	if limits.Pause == 0 {
		limits.Pause = time.Millisecond
	}
	s := events.New(events.Config{
		Log: func(database string) (events.Log, error) {
			if database != "app" {
				return nil, fmt.Errorf("database %s: %w", database, lockstep.ErrNotFound)
			}
			return log, nil
		},
		Damage: func(err error) (uint64, bool) {
			d, ok := errors.AsType[damageError](err)
			return d.last, ok
		},
		Limits: limits,
	})
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
		if open, _, _ := log.readers(); open != 0 {
			t.Errorf("%d readers are left open", open)
		}
	})
	return s
}

func table() events.Table { return events.Table{Schema: "public", Name: "events"} }

// follower is a client: it keeps what it was sent.
type follower struct {
	t       testing.TB
	session *events.Session
	text    string // that is not read yet
	lastID  string
}

// follow opens a session of the subscriber; options are lastID and from.
func follow(t testing.TB, s *events.Server, subscriber, lastID string, from uint64) *follower {
	t.Helper()
	k, err := s.Open(events.Request{Database: "app", Table: table(), Subscriber: subscriber, LastID: lastID, From: from})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(k.Close)
	return &follower{t: t, session: k}
}

// sent is one event as a client sees it.
type sent struct{ id, name, data string }

// block returns the next block of lines that is not empty.
func (f *follower) block() []string {
	f.t.Helper()
	for {
		if block, rest, ok := strings.Cut(f.text, "\n\n"); ok {
			f.text = rest
			return strings.Split(block, "\n")
		}
		parts, err := f.session.Next(f.t.Context(), 10*time.Second)
		if err != nil {
			f.t.Fatal(err)
		}
		if len(parts) == 0 {
			f.t.Fatal("nothing came")
		}
		for _, part := range parts {
			f.text += string(part)
		}
	}
}

// next returns the next event, as an EventSource does.
func (f *follower) next() sent {
	f.t.Helper()
	for {
		var e sent
		for _, line := range f.block() {
			name, value, _ := strings.Cut(line, ": ")
			switch name {
			case "id":
				e.id, f.lastID = value, value
			case "event":
				e.name = value
			case "data":
				e.data += value
			default:
				f.t.Errorf("line %q", line)
			}
		}
		if e.data != "" {
			return e
		}
	}
}

// ids returns the ids of the next n events.
func (f *follower) ids(n int) string {
	f.t.Helper()
	var out []string
	for range n {
		e := f.next()
		if e.id == "" {
			e.id = e.name
		}
		out = append(out, e.id)
	}
	return strings.Join(out, " ")
}

// silent checks that nothing waits, after everything in the log was offered: the last
// thing in it is an event of the subscriber probe.
func (f *follower) silent(s *events.Server, log *memLog) {
	f.t.Helper()
	probe := follow(f.t, s, "probe", "", 0)
	log.add(event(1<<40, "probe"))
	probe.ids(1)
	probe.session.Close()
	parts, err := f.session.Next(f.t.Context(), time.Nanosecond)
	if err != nil {
		f.t.Fatal(err)
	}
	text := f.text
	for _, part := range parts {
		text += string(part)
	}
	for block := range strings.SplitSeq(text, "\n\n") {
		if block != "" && !strings.HasPrefix(block, "id: ") || strings.Contains(block, "\n") {
			f.t.Errorf("got %q, want nothing", text)
		}
	}
}
