package stream

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"lockstep"
)

// takeoverAttempts bounds how often Recover begins again because the end moved
// under it: by appends of its own that were still on their way, or another writer.
const takeoverAttempts = 20

// Recover makes this Log the writer: it waits for appends on their way, finds the
// durable end, clears a failure and returns the mark to go on from. Call it before
// the first Append of a run and after any failure. Another process that was the
// writer is fenced: its next Append fails with lockstep.ErrFenced.
func (l *Log) Recover(ctx context.Context) (lockstep.Mark, error) {
	if err := l.writer.take(ctx); err != nil {
		return lockstep.Mark{}, err
	}
	defer l.writer.give()
	mark, err := l.recover(ctx)
	if err != nil {
		return lockstep.Mark{}, fmt.Errorf("recover log of database %q: %w", l.database, err)
	}
	return mark, nil
}

// recover is Recover while the writer's turn is held.
func (l *Log) recover(ctx context.Context) (lockstep.Mark, error) {
	if err := l.writer.settle(ctx); err != nil {
		return lockstep.Mark{}, err
	}
	if err := l.srv.heal(ctx); err != nil {
		return lockstep.Mark{}, err
	}
	if expect, ok := l.writer.healthy(); ok {
		state, err := l.state(ctx)
		if err != nil {
			return lockstep.Mark{}, err
		}
		if state.LastSeq == expect {
			return l.Last(), nil
		}
	}
	l.stopFollowing()
	for range takeoverAttempts {
		found, err := l.readEnd(ctx)
		if err != nil {
			return lockstep.Mark{}, err
		}
		e, err := l.claim(ctx, found)
		if isWrongLast(err) {
			continue
		}
		if err != nil {
			return lockstep.Mark{}, err
		}
		l.adopt(found, e)
		return e.batch.Mark, l.refreshFirst(ctx)
	}
	return lockstep.Mark{}, fmt.Errorf("another writer is at work: %w", lockstep.ErrFenced)
}

// claim appends a batch without changes. What was sent before, by us on a lost
// connection or by another writer, is either in the stream already and then claim
// is refused, or it expects an end that is no longer there.
func (l *Log) claim(ctx context.Context, f found) (entry, error) {
	if err := l.srv.Space(0); err != nil {
		return entry{}, err
	}
	var w lockstep.BatchWriter
	w.Reset(nil)
	data, err := w.Seal(f.end.mark.Seq+1, f.end.mark)
	if err != nil {
		return entry{}, err
	}
	batch, err := lockstep.ParseBatch(data)
	if err != nil {
		return entry{}, err
	}
	ctx, cancel := context.WithTimeout(ctx, l.srv.cfg.AckTimeout)
	defer cancel()
	m := &stored{first: batch.First, part: 1, parts: 1, clock: f.end.clock}
	ack, err := l.srv.js.PublishMsg(ctx, &nats.Msg{Subject: l.subject, Header: m.headers(f.lastSeq), Data: data}, jetstream.WithRetryAttempts(0))
	if err != nil {
		return entry{}, fmt.Errorf("take over stream %s: %w", l.stream, unavailable(err))
	}
	batch.StreamSeq = ack.Sequence
	return entry{batch: batch, start: ack.Sequence, end: ack.Sequence, clock: f.end.clock}, nil
}

// adopt makes what was found the state of the log and its writer.
func (l *Log) adopt(f found, e entry) {
	l.mu.Lock()
	rolledBack := f.lastSeq < l.end.last
	if rolledBack {
		l.epoch++
		l.begins = 0
	}
	l.setEnd(e)
	l.mu.Unlock()
	if rolledBack {
		// The server lost its end, so numbers of messages are used again.
		l.index.clear()
		l.srv.cache.drop(l)
	}
	l.writer.begin(e)
}

// found is the end of a stream as it lies on disk.
type found struct {
	end     end
	lastSeq uint64 // of the stream, leftovers of a crash included
	size    int64  // of the last batch
}

// readEnd finds the last batch that is there as a whole. What is damaged or gone
// behind it makes seqs jump, so that none is used twice.
func (l *Log) readEnd(ctx context.Context) (found, error) {
	state, err := l.state(ctx)
	if err != nil {
		return found{}, err
	}
	saved, err := l.savedMark(ctx)
	if err != nil {
		return found{}, err
	}
	var (
		last    *entry
		highest uint64 // seq of a damaged change
		unknown uint64 // messages that may have held changes that nobody knows of
		seq     = state.LastSeq
	)
	for last == nil && state.Msgs > 0 && seq >= state.FirstSeq && seq > 0 {
		m, err := l.load(ctx, seq)
		switch {
		case errors.Is(err, errMissing):
			if seq > saved.last {
				unknown++
			}
			seq--
			continue
		case err != nil:
			return found{}, err
		case !m.ours:
			seq--
			continue
		}
		last, err = l.loadBatch(ctx, m)
		if corrupt, ok := errors.AsType[*CorruptError](err); ok {
			highest = max(highest, corrupt.Last)
			l.srv.log.ErrorContext(ctx, "the stream's last batch is damaged", "database", l.database, "error", err)
		} else if err != nil {
			return found{}, err
		}
		seq = m.start() - 1
	}
	f := found{lastSeq: state.LastSeq}
	if last != nil {
		f.end = end{mark: last.batch.Mark, start: last.start, last: last.end, clock: last.clock}
		f.size = int64(last.batch.Size())
	} else if gone := state.FirstSeq; gone > 0 && gone-1 > saved.last {
		unknown += gone - 1 - saved.last
	}
	return l.settleEnd(ctx, f, saved, max(highest, f.end.mark.Seq), unknown), nil
}

// seqsPerMessage is more than a batch is expected to hold: by so much the seq jumps
// for each message of which nothing is known any more.
const seqsPerMessage = 1 << 20

func (l *Log) settleEnd(ctx context.Context, f found, saved end, highest, unknown uint64) found {
	if saved.mark.Seq > f.end.mark.Seq {
		f.end.mark, f.end.clock = saved.mark, max(saved.clock, f.end.clock)
	}
	f.end.mark.Seq = max(f.end.mark.Seq, highest) + unknown*seqsPerMessage
	f.end.last = max(f.end.last, min(f.lastSeq, saved.last))
	if unknown > 0 {
		l.srv.log.ErrorContext(ctx, "the stream lost its end: seqs go on after a jump, the position may lie before changes that were in it",
			"database", l.database, "messages", unknown, "seq", f.end.mark.Seq)
	}
	return f
}

func (l *Log) state(ctx context.Context) (jetstream.StreamState, error) {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	s, err := l.srv.js.Stream(ctx, l.stream)
	if err != nil {
		return jetstream.StreamState{}, fmt.Errorf("look at stream %s: %w", l.stream, unavailable(err))
	}
	return s.CachedInfo().State, nil
}

// saveMark keeps a copy of the end outside of the stream.
func (l *Log) saveMark(ctx context.Context) error {
	if _, ok := l.writer.healthy(); !ok {
		return nil
	}
	e := l.view().end
	if e.mark == (lockstep.Mark{}) {
		return nil
	}
	var w lockstep.BatchWriter
	w.Reset(nil)
	value, err := w.Seal(e.mark.Seq+1, e.mark)
	if err != nil {
		return err
	}
	value = binary.LittleEndian.AppendUint64(value, e.last)
	value = binary.LittleEndian.AppendUint64(value, uint64(e.clock))
	return l.putMark(ctx, value)
}

// savedMark returns the copy, or a zero end when there is none. A copy that cannot be
// read is none: the log itself goes first.
func (l *Log) savedMark(ctx context.Context) (end, error) {
	value, err := l.getMark(ctx)
	if err != nil || value == nil {
		return end{}, err
	}
	e, err := l.parseMark(value)
	if err != nil {
		l.srv.log.ErrorContext(ctx, "the copy of the log's mark is damaged; it is done without", "database", l.database, "error", err)
	}
	return e, nil
}

func (l *Log) parseMark(value []byte) (end, error) {
	if len(value) < 16 {
		return end{}, fmt.Errorf("the saved mark of database %q is cut off: %w", l.database, lockstep.ErrCorrupt)
	}
	tail := value[len(value)-16:]
	batch, err := lockstep.ParseBatch(value[:len(value)-16])
	if err != nil {
		return end{}, fmt.Errorf("the saved mark of database %q: %w", l.database, err)
	}
	return end{mark: batch.Mark, last: binary.LittleEndian.Uint64(tail), clock: int64(binary.LittleEndian.Uint64(tail[8:]))}, nil
}
