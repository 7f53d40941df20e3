package wal

import (
	"context"
	"sync"
	"time"

	"lockstep"
)

const (
	// maxInFlight is how many batches may be on their way to the disk before
	// small ones wait and grow: one being synced, one behind it.
	maxInFlight = 2
	// idleBytes of WAL without a change for us are worth a mark at once.
	idleBytes = 8 << 20
)

// batch gathers changes, and hands them to the log: at once while the log is
// idle, in larger and larger pieces as it is busy.
//
// The reading goroutine holds mu while it decodes what one read brought, and
// gives it up to wait for the socket; the flusher then hands over what waits.
type batch struct {
	mu     sync.Mutex
	log    Log
	flight *flight
	limit  int           // bytes at which a batch is handed over in any case
	idle   time.Duration // how often a quiet database's position is recorded

	w       lockstep.BatchWriter
	buf     []byte // the writer's memory, reused from batch to batch
	tail    int    // bytes that sealing will add
	number  uint64 // of this batch, to tell when tables must be named again
	mark    lockstep.Mark
	tx      *lockstep.Tx // being received; nil between transactions
	begun   bool         // the writer has been told of tx
	due     bool         // a batch is to be handed over even without a change
	marked  lockstep.LSN // EndLSN of the last batch handed over
	at      time.Time    // when that was
	parted  bool         // the last batch handed over ended inside of its transaction
	commits int          // transactions with changes that end in this batch
	latest  int64        // commit time of the last change's transaction
}

// newBatch continues the log at mark.
func newBatch(log Log, f *flight, mark lockstep.Mark, limit int) *batch {
	b := &batch{log: log, flight: f, limit: limit, mark: mark, marked: mark.EndLSN, parted: mark.Seq > 0 && !mark.Complete, at: time.Now(), idle: idleMark}
	b.buf = make([]byte, 0, limit+limit/4)
	b.reset()
	return b
}

func (b *batch) reset() {
	b.w.Reset(b.buf)
	b.number++
	b.tail = 64
	b.begun = false
	b.commits = 0
}

// begin says that the changes that follow belong to tx, which may change until
// the next change is written.
func (b *batch) begin(tx *lockstep.Tx) { b.tx, b.begun = tx, false }

// changed says that the transaction's annotations have changed.
func (b *batch) changed() { b.begun = false }

// open starts a change; see [lockstep.BatchWriter.Open].
func (b *batch) open() []byte {
	if !b.begun {
		b.w.Begin(*b.tx)
		b.begun = true
		b.tail += 32 + len(b.tx.Annotations)
	}
	return b.w.Open()
}

func (b *batch) table(t *lockstep.Table) uint16 {
	b.tail += 16 + len(t.Schema) + len(t.Name)
	return b.w.Table(t)
}

func (b *batch) close(buf []byte, head lockstep.RecordHead, ordinal uint32) {
	b.w.Close(buf, head)
	b.mark.CommitLSN, b.mark.Ordinal, b.mark.CommitIdx = b.tx.CommitLSN, ordinal, head.CommitIdx
	b.latest = b.tx.CommitTime
}

// midway reports whether changes of an unfinished transaction were the last.
func (b *batch) midway() bool { return b.tx != nil && b.mark.CommitLSN == b.tx.CommitLSN }

// ended is called after all changes of one message: only there may a batch end.
func (b *batch) ended(ctx context.Context) error {
	if b.w.Len() < b.limit && !b.w.Full() {
		return nil
	}
	return b.flush(ctx)
}

// commit ends the transaction; end is where the slot may be confirmed.
func (b *batch) commit(ctx context.Context, end lockstep.LSN) error {
	if b.midway() {
		b.commits++
	}
	b.tx, b.begun = nil, false
	b.mark.EndLSN = max(b.mark.EndLSN, end)
	if b.w.Count() == 0 {
		b.due = b.due || b.parted
		b.considerMark(time.Now())
		return nil
	}
	return b.ended(ctx)
}

// keepalive is Postgres saying how far it has read its WAL: everything that
// committed before is already here.
type keepalive struct {
	end   lockstep.LSN
	reply bool // Postgres waits for an answer
}

// advance takes a keepalive, which counts between transactions only. When Postgres
// asks for an answer it may be shutting down, and waits for exactly this position.
func (b *batch) advance(k keepalive) {
	if b.tx != nil {
		return
	}
	b.mark.EndLSN = max(b.mark.EndLSN, k.end)
	if k.reply {
		b.due = b.due || b.quiet()
		return
	}
	b.considerMark(time.Now())
}

// quiet reports whether nothing but the position has moved since the last batch.
// With changes waiting, the position goes with them.
func (b *batch) quiet() bool { return b.tx == nil && b.w.Count() == 0 && b.mark.EndLSN > b.marked }

// considerMark decides whether a position without a change is worth a batch.
func (b *batch) considerMark(now time.Time) {
	if b.quiet() && (b.mark.EndLSN-b.marked >= idleBytes || now.Sub(b.at) >= b.idle) {
		b.due = true
	}
}

// offer hands over what is complete, unless enough is on its way already.
func (b *batch) offer(ctx context.Context) error {
	if b.midway() || b.w.Count() == 0 && !b.due {
		return nil
	}
	n := b.flight.count.Load()
	if n == 0 || n < maxInFlight && b.w.Len() >= b.limit/4 {
		return b.flush(ctx)
	}
	return nil
}

// flush hands the batch to the log, and blocks as long as the log does.
func (b *batch) flush(ctx context.Context) error {
	b.mark.Seq += uint64(b.w.Count())
	mark := b.mark
	mark.Complete = !b.midway()
	b.parted, b.due = !mark.Complete, false
	b.marked, b.at = mark.EndLSN, time.Now()
	l := b.flight.start(&landing{
		end: mark.EndLSN, changes: b.w.Count(), bytes: b.w.Len(), transactions: b.commits, committed: b.latest,
	})
	b.pack()
	err := b.log.Append(ctx, &b.w, mark, l.done)
	b.reset()
	if err != nil {
		l.done(err)
	}
	return err
}

// handOver hands over whatever there is; only between transactions, or before the
// first change of one.
func (b *batch) handOver(ctx context.Context) error {
	if b.w.Count() == 0 {
		return nil
	}
	return b.flush(ctx)
}

// pack puts the batch into memory of exactly its size: the log keeps what it is
// given, and batches of a quiet database would each hold a large buffer. The copy
// also lets every batch be written into the same, warm memory.
func (b *batch) pack() {
	size := b.w.Len()
	if size > cap(b.buf) {
		// A huge row made the writer grow: that memory goes to the log as it is.
		return
	}
	exact := make([]byte, 0, size+b.tail+64)
	b.w.Abandon(append(exact, b.w.Open()...))
}
