package deliver_test

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"

	"lockstep"
	"lockstep/internal/deliver"
)

// row is a change as a test writes it.
type row struct {
	table  string // default orders
	action lockstep.Action
	key    string // also the column id
	extra  string // further columns, as JSON members with a comma before each
	only   string // the one consumer that the row was read for; empty: everybody
	none   bool   // no row at all
	whole  string // the row, in the place of id and extra
	meta   string // further members of the metadata, each with a comma before it
	old    string // the old values, as a JSON object
}

func ins(keys ...string) []row {
	rows := make([]row, len(keys))
	for i, k := range keys {
		rows[i] = row{key: k}
	}
	return rows
}

func truncate(table string) row { return row{table: table, action: lockstep.Truncate, none: true} }

// memLog is a log in memory. The log is an interface so that the state machine can
// be tested without a disk; the real stream has tests of its own.
type memLog struct {
	mu      sync.Mutex
	batches []*lockstep.Batch
	first   uint64
	grown   chan struct{}
	tables  map[string]*lockstep.Table
	fail    error // of every read
	damage  *deliver.DamageError
	reads   int
	// position is where its transactions begin
	position lockstep.LSN
}

func newMemLog() *memLog {
	return &memLog{first: 1, grown: make(chan struct{}), tables: map[string]*lockstep.Table{}}
}

func (l *memLog) append(t testing.TB, rows ...row) uint64 {
	t.Helper()
	l.mu.Lock()
	defer l.mu.Unlock()
	w := l.fill(rows)
	end := l.end()
	data, err := w.Seal(end.Seq+1, lockstep.Mark{SystemID: 7, Timeline: 1, CommitLSN: l.position + lockstep.LSN(end.Seq+1), Complete: true})
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

// fill writes rows as one transaction.
func (l *memLog) fill(rows []row) *lockstep.BatchWriter {
	var w lockstep.BatchWriter
	w.Reset(nil)
	w.Begin(lockstep.Tx{CommitLSN: lockstep.LSN(l.end().Seq + 1), CommitTime: time.Now().UnixMicro(), XID: 9})
	for i, r := range rows {
		table := l.table(r)
		action := r.action
		if action == 0 {
			action = lockstep.Insert
		}
		buf := w.Open()
		start := len(buf)
		pks := ""
		if !r.none {
			buf = append(buf, cmp.Or(r.whole, `{"id":`+strconv.Quote(r.key)+r.extra+`}`)...)
			pks = `[` + strconv.Quote(r.key) + `]`
		}
		size := len(buf) - start
		buf = append(append(append(buf, r.old...), pks...), r.meta...)
		hash := lockstep.KeyHash(table)
		if !r.none {
			hash = lockstep.KeyHashPart(hash, []byte(r.key))
		}
		w.Close(buf, lockstep.RecordHead{
			Action: action, Table: w.Table(table), CommitIdx: uint32(i), KeyHash: hash,
			RecordLen: size, ChangesLen: len(r.old), PKsLen: len(pks), ExtraLen: len(r.meta), OldKnown: r.old != "",
		})
	}
	return &w
}

func (l *memLog) table(r row) *lockstep.Table {
	name := cmp.Or(r.table, "orders")
	if name == "everything" {
		return &lockstep.Table{Key: lockstep.KeyRow}
	}
	if l.tables[name] == nil {
		l.tables[name] = &lockstep.Table{OID: uint32(16000 + len(l.tables)), Schema: "public", Name: name, Key: lockstep.KeyPrimary}
	}
	if r.only != "" {
		own := *l.tables[name]
		own.Consumer, own.Progress = r.only, "page 1"
		return &own
	}
	return l.tables[name]
}

func (l *memLog) end() lockstep.Mark {
	if len(l.batches) == 0 {
		return lockstep.Mark{SystemID: 7, Timeline: 1, Seq: l.first - 1}
	}
	return l.batches[len(l.batches)-1].Mark
}

// retain removes the batches that end below first.
func (l *memLog) retain(first uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.batches = slices.DeleteFunc(slices.Clone(l.batches), func(b *lockstep.Batch) bool { return b.Mark.Seq < first })
	l.first = first
}

// cut leaves so many batches.
func (l *memLog) cut(batches int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.batches = slices.Clone(l.batches[:batches])
}

func (l *memLog) failWith(err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.fail = err
}

func (l *memLog) Last() lockstep.Mark {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.end()
}

func (l *memLog) First() uint64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.first
}

func (l *memLog) BatchOf(_ context.Context, seq uint64) (*lockstep.Batch, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.reads++
	return l.find(seq)
}

func (l *memLog) find(seq uint64) (*lockstep.Batch, error) {
	if l.fail != nil {
		return nil, l.fail
	}
	if d := l.damage; d != nil && d.First <= seq && seq <= d.Last {
		return nil, d
	}
	if seq < l.first {
		return nil, &lockstep.RetentionError{Asked: seq, First: l.first}
	}
	i, ok := slices.BinarySearchFunc(l.batches, seq, func(b *lockstep.Batch, seq uint64) int {
		switch {
		case b.Mark.Seq < seq:
			return -1
		case b.First > seq:
			return 1
		}
		return 0
	})
	if !ok {
		return nil, fmt.Errorf("seq %d: %w", seq, lockstep.ErrNotFound)
	}
	return l.batches[i], nil
}

func (l *memLog) SeqAt(_ context.Context, at time.Time) (uint64, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, b := range l.batches {
		if b.Record(0).Tx().CommitTime >= at.UnixMicro() {
			return b.First, nil
		}
	}
	return l.end().Seq + 1, nil
}

func (l *memLog) Reader(from uint64) deliver.Reader { return &memReader{l, from} }

type memReader struct {
	l    *memLog
	next uint64
}

func (r *memReader) Close() {}

func (r *memReader) Next(ctx context.Context) (*lockstep.Batch, error) {
	for {
		r.l.mu.Lock()
		grown := r.l.grown
		if r.next <= r.l.end().Seq {
			b, err := r.l.find(r.next)
			r.l.mu.Unlock()
			if err == nil {
				r.next = b.Mark.Seq + 1
			}
			return b, err
		}
		r.l.mu.Unlock()
		select {
		case <-grown:
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
}

// rig is a broker on stores in memory, which outlive it.
type rig struct {
	t      testing.TB
	log    *memLog
	states *memStates
	dead   *memDead
	broker *deliver.Broker
	stop   func()

	mirrored func(database, schema, table string) (deliver.Mirrored, bool)
}

func newRig(t testing.TB) *rig {
	t.Helper()
	r := &rig{t: t, log: newMemLog(), states: newMemStates(), dead: newMemDead()}
	r.start()
	return r
}

func (r *rig) config() deliver.Config {
	return deliver.Config{
		Logs:   func(context.Context, string) (deliver.Log, error) { return r.log, nil },
		States: r.states, Dead: r.dead, Secret: []byte("0123456789abcdef0123456789abcdef"), Logger: slog.New(slog.DiscardHandler),
		Mirrored: r.mirrored,
	}
}

func (r *rig) start() {
	r.t.Helper()
	r.broker = deliver.New(r.config())
	r.stop = run(r.t, r.broker)
}

// run runs a broker until the result is called, or the test ends.
func run(t testing.TB, b *deliver.Broker) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- b.Run(ctx) }()
	var once sync.Once
	stop = func() {
		once.Do(func() {
			cancel()
			if err := <-done; err != nil {
				t.Logf("run ended: %v", err)
			}
		})
	}
	t.Cleanup(stop)
	return stop
}

// restart stops the broker and opens the same consumer in a new one.
func (r *rig) restart(d deliver.Definition) *deliver.Consumer {
	r.t.Helper()
	r.stop()
	r.start()
	return r.put(d)
}

func definition(change func(*deliver.Definition)) deliver.Definition {
	d := deliver.Definition{ID: uuid.NewString(), Name: "orders", Database: "app", Start: "beginning", AckWait: time.Minute}
	if change != nil {
		change(&d)
	}
	d.Defaults()
	return d
}

func (r *rig) put(d deliver.Definition) *deliver.Consumer {
	r.t.Helper()
	c, err := r.broker.Put(r.t.Context(), d)
	if err != nil {
		r.t.Fatal(err)
	}
	return c
}

func next(t testing.TB, c *deliver.Consumer, n int) []deliver.Delivery {
	t.Helper()
	res, err := c.Next(t.Context(), deliver.NextRequest{Batch: n})
	if err != nil {
		t.Fatal(err)
	}
	return res.Deliveries
}

// await is next with a wait.
func await(t testing.TB, c *deliver.Consumer, n int) []deliver.Delivery {
	t.Helper()
	res, err := c.Next(t.Context(), deliver.NextRequest{Batch: n, Wait: 20 * time.Second})
	if err != nil {
		t.Fatal(err)
	}
	if len(res.Deliveries) == 0 {
		t.Fatal("nothing came")
	}
	return res.Deliveries
}

func tokens(ds ...deliver.Delivery) []string {
	list := make([]string, len(ds))
	for i, d := range ds {
		list[i] = d.Token
	}
	return list
}

func ack(t testing.TB, c *deliver.Consumer, ds ...deliver.Delivery) {
	t.Helper()
	stale, err := c.Ack(t.Context(), tokens(ds...))
	if err != nil || len(stale) > 0 {
		t.Fatalf("ack: %d of %d stale, error %v", len(stale), len(ds), err)
	}
}

func nack(t testing.TB, c *deliver.Consumer, o deliver.NackOptions, ds ...deliver.Delivery) {
	t.Helper()
	stale, err := c.Nack(t.Context(), tokens(ds...), o)
	if err != nil || len(stale) > 0 {
		t.Fatalf("nack: %d of %d stale, error %v", len(stale), len(ds), err)
	}
}

func wantStale(t testing.TB, c *deliver.Consumer, ds ...deliver.Delivery) {
	t.Helper()
	stale, err := c.Ack(t.Context(), tokens(ds...))
	if err != nil || len(stale) != len(ds) {
		t.Fatalf("ack of %d lost deliveries: %d stale, error %v", len(ds), len(stale), err)
	}
}

// show writes deliveries as key@seq, with the attempt when it is not the first.
func show(ds []deliver.Delivery) string {
	var text []byte
	for i, d := range ds {
		if i > 0 {
			text = append(text, ' ')
		}
		var pk []string
		_ = json.Unmarshal(d.Record.PKs(), &pk)
		name := d.Record.Action().String()
		if len(pk) > 0 {
			name = pk[0]
		}
		text = fmt.Appendf(text, "%s@%d", name, d.Record.Seq())
		if d.Attempt > 1 {
			text = fmt.Appendf(text, "#%d", d.Attempt)
		}
		if d.Late {
			text = append(text, "late"...)
		}
	}
	return string(text)
}

func want(t testing.TB, what string, ds []deliver.Delivery, expected string) {
	t.Helper()
	if got := show(ds); got != expected {
		t.Fatalf("%s: got %q, want %q", what, got, expected)
	}
}

// eventually waits for a condition that another goroutine makes true.
func eventually(t testing.TB, what string, cond func() bool) {
	t.Helper()
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	deadline := time.NewTimer(20 * time.Second)
	defer deadline.Stop()
	for !cond() {
		select {
		case <-tick.C:
		case <-deadline.C:
			t.Fatalf("not in time: %s", what)
		}
	}
}

var errDisk = errors.New("no space left on device")
