package stream

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go"

	"lockstep"
)

const (
	// headerRoom is what subject and headers may take of the server's payload limit.
	headerRoom = 4 << 10
	// partBytes is the size of the parts of a batch above the limit: small enough
	// that several fit the in-flight budget.
	partBytes = 1 << 20
)

// Append seals what w holds, ending at mark, gives it the next seqs and sends it to
// the stream. It blocks while the in-flight budget is used up; that is the
// back-pressure. mark.Seq is ignored.
//
// When Append returns nil it calls done exactly once: with nil when the batch is on
// disk, else with the reason why it may not be. Calls of done come in append order
// from one goroutine; done must not block, and must not call Append or Recover.
// When Append returns an error, done is not called.
//
// After a failure nothing more is taken until Recover. It is lockstep.ErrFenced
// when somebody else wrote to the stream, and wraps lockstep.ErrUnavailable when
// the server or its disk could not take the batch.
func (l *Log) Append(ctx context.Context, w *lockstep.BatchWriter, mark lockstep.Mark, done func(error)) error {
	if err := l.writer.take(ctx); err != nil {
		return err
	}
	defer l.writer.give()
	if err := l.append(ctx, w, mark, done); err != nil {
		return fmt.Errorf("append to log of database %q: %w", l.database, err)
	}
	return nil
}

func (l *Log) append(ctx context.Context, bw *lockstep.BatchWriter, mark lockstep.Mark, done func(error)) error {
	w := l.writer
	if !w.owns() {
		if _, err := l.recover(ctx); err != nil {
			return err
		}
	}
	limit := l.messageLimit()
	if err := w.room(ctx, min(bw.Len(), limit)); err != nil {
		return err
	}
	if err := l.srv.Space(bw.Len()); err != nil {
		w.poison(err)
		return err
	}
	first := w.nextSeq()
	data, err := bw.Seal(first, mark)
	if err != nil {
		return err
	}
	batch, err := lockstep.ParseBatch(data)
	if err != nil {
		w.poison(err)
		return err
	}
	m := stored{first: first, count: uint64(batch.Len()), part: 1, parts: 1, clock: w.tick(batch)}
	if len(data) <= limit {
		m.data = data
		w.send(m, pending{batch: batch, done: done})
		return nil
	}
	return l.appendParts(ctx, m, batch, done)
}

// appendParts sends a batch that does not fit one message. Only the last part makes
// it a batch; the others alone are passed over by readers.
func (l *Log) appendParts(ctx context.Context, m stored, batch *lockstep.Batch, done func(error)) error {
	w, data, size := l.writer, batch.Bytes(), min(partBytes, l.messageLimit())
	if err := l.makeWay(ctx, int64(len(data))); err != nil {
		w.poison(err)
		return err
	}
	m.parts = uint64((len(data) + size - 1) / size)
	for ; len(data) > size; m.part++ {
		m.data = data[:size]
		data = data[size:]
		w.send(m, pending{})
		if err := w.room(ctx, min(size, len(data))); err != nil {
			w.poison(err)
			return err
		}
	}
	m.data = data
	w.send(m, pending{batch: batch, done: done})
	return nil
}

// makeWay raises the stream's limit of bytes when retention would cut into a batch
// of this size while it is the last one.
func (l *Log) makeWay(ctx context.Context, size int64) error {
	l.mu.Lock()
	limit := l.maxBytes
	l.mu.Unlock()
	if limit == 0 || limit >= 2*size {
		return nil
	}
	l.srv.log.WarnContext(ctx, "retention makes way for a large batch", "database", l.database, "bytes", size, "limit", limit)
	return l.setLimit(ctx, 2*size)
}

func (l *Log) messageLimit() int {
	return max(int(min(l.srv.writes.MaxPayload(), maxPayload))-headerRoom, 1<<10)
}

// nextSeq and tick are called by whoever holds the turn; only such change next and
// clock.
func (w *writer) nextSeq() uint64 {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.next
}

// tick counts the batch's changes in and returns the latest commit time so far.
func (w *writer) tick(b *lockstep.Batch) int64 {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.next = b.Mark.Seq + 1
	if b.Len() > 0 {
		w.clock = max(w.clock, b.Record(b.Len()-1).Tx().CommitTime)
	}
	return w.clock
}

// send queues a message and publishes it. A failure shows when the queue is worked
// off, as any other.
func (w *writer) send(m stored, p pending) {
	w.mu.Lock()
	if p.batch != nil {
		p.batch.StreamSeq = w.expect + 2 - m.part
	}
	expect := w.expect
	w.expect++
	m.seq = w.expect
	p.id, p.end, p.start, p.size, p.clock, p.expect, p.sent = m.seq, m.seq, m.start(), len(m.data), m.clock, expect, time.Now()
	w.queue = append(w.queue, p)
	w.bytes += int64(p.size)
	round, failed := w.round, w.failure != nil
	w.aborting = w.aborting || failed
	w.mu.Unlock()
	if failed {
		// What was in flight has just failed: this must not be written after it.
		w.wake()
		return
	}
	err := w.log.srv.writes.PublishMsg(&nats.Msg{
		Subject: w.log.subject,
		Reply:   fmt.Sprintf("%s.%d.%d", w.inbox, round, p.id),
		Header:  m.headers(expect),
		Data:    m.data,
	})
	if err != nil {
		w.lost(err)
	}
}

// Space refuses a write that would fill the disk of the embedded server: its error wraps
// lockstep.ErrUnavailable. A write that fails in JetStream stops its stream for good, and
// acknowledgements of consumers need the disk too, so the log stops first, and with it
// everything else of the node that writes there and may wait.
func (s *Server) Space(bytes int) error {
	if s.embed == nil {
		return nil
	}
	free, total, err := freeBytes(s.embed.dir)
	if err != nil {
		return unavailable(err)
	}
	reserve := min(uint64(keepFree), total/50)
	if need := uint64(bytes) + uint64(s.cfg.InFlightBytes) + reserve; free < need {
		return fmt.Errorf("the disk of %s is full: %d MB free, %d MB needed; free some space or lower the stream's retention: %w",
			s.embed.dir, free>>20, need>>20, errors.Join(errNoSpace, lockstep.ErrUnavailable))
	}
	return nil
}
