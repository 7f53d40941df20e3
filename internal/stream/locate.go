package stream

import (
	"context"
	"errors"
	"fmt"
	"time"

	"lockstep"
)

// BatchOf returns the batch holding seq, from memory or with one read in the common
// case, else by a binary search. A seq that never was gives an error that wraps
// lockstep.ErrNotFound, one that is gone a *lockstep.RetentionError, one that is
// damaged a *CorruptError. The batch is shared: it must not be changed.
func (l *Log) BatchOf(ctx context.Context, seq uint64) (*lockstep.Batch, error) {
	v := l.view()
	if seq == 0 || seq > v.end.mark.Seq {
		return nil, fmt.Errorf("change %d of database %q: %w", seq, l.database, lockstep.ErrNotFound)
	}
	if seq < v.first {
		return nil, &lockstep.RetentionError{Asked: seq, First: v.first}
	}
	if e, ok := l.cached(seq); ok {
		return e.batch, nil
	}
	e, err := l.locate(ctx, seq)
	if err != nil {
		return nil, fmt.Errorf("change %d of database %q: %w", seq, l.database, err)
	}
	l.srv.cache.put(l, *e)
	l.index.add(place{e.batch.First, e.start})
	return e.batch, nil
}

// locate finds the batch holding seq in the store, where seq is at most Last.
func (l *Log) locate(ctx context.Context, seq uint64) (*entry, error) {
	v := l.view()
	low, high := uint64(1), v.end.last
	before, after, hasBefore, hasAfter := l.index.around(seq)
	if hasBefore {
		low = before.start
		// Right behind a known batch is where the wanted one is most of the time.
		if e, err := l.at(ctx, low); err != nil || (e != nil && covers(e, seq)) {
			return e, err
		}
	}
	if hasAfter {
		high = after.start - 1
	}
	for low <= high {
		middle := low + (high-low)/2
		m, err := l.next(ctx, middle)
		if errors.Is(err, errMissing) || (err == nil && m.seq > high) {
			high = middle - 1
			continue
		}
		if err != nil {
			return nil, err
		}
		if !m.ours {
			// It says nothing about where to go; what lies before it must not be missed.
			if m, err = l.oursBetween(ctx, m.seq+1, high); err != nil {
				return nil, err
			}
			if m == nil {
				high = middle - 1
				continue
			}
		}
		if m.first > seq {
			high = min(middle, m.start()) - 1
			continue
		}
		if seq < m.first+m.count {
			e, err := l.loadBatch(ctx, m)
			if e != nil || err != nil {
				return e, err
			}
		}
		low = m.seq + 1
	}
	return nil, l.missing(ctx, seq)
}

func covers(e *entry, seq uint64) bool {
	return seq >= e.batch.First && seq <= e.batch.Mark.Seq && e.batch.Len() > 0
}

// at returns the batch that begins with that message, or nil.
func (l *Log) at(ctx context.Context, start uint64) (*entry, error) {
	m, err := l.load(ctx, start)
	if errors.Is(err, errMissing) {
		return nil, nil
	}
	if err != nil || !m.ours {
		return nil, err
	}
	return l.loadBatch(ctx, m)
}

// oursBetween returns the first message of ours in a range of messages, or nil.
func (l *Log) oursBetween(ctx context.Context, low, high uint64) (*stored, error) {
	for low <= high {
		m, err := l.next(ctx, low)
		if errors.Is(err, errMissing) {
			return nil, nil
		}
		if err != nil || (m.ours && m.seq <= high) {
			return m, err
		}
		low = m.seq + 1
	}
	return nil, nil
}

// missing explains why a seq within the log is not in the store: the first change
// behind it that is there tells how much is gone.
func (l *Log) missing(ctx context.Context, seq uint64) error {
	if err := l.refreshFirst(ctx); err != nil {
		return err
	}
	v := l.view()
	first := v.end.mark.Seq + 1
	low, high := uint64(1), v.end.last
	for low <= high {
		middle := low + (high-low)/2
		m, err := l.oursBetween(ctx, middle, high)
		if err != nil {
			return err
		}
		if m == nil {
			high = middle - 1
			continue
		}
		if m.first > seq {
			first = min(first, m.first)
			high = middle - 1
			continue
		}
		low = m.seq + 1
	}
	return l.hole(ctx, seq, max(first, v.first))
}

// hole says why the changes from seq up to before next are not there: retention takes
// from the beginning of the log only, so what is missing behind that is damage.
func (l *Log) hole(ctx context.Context, seq, next uint64) error {
	// It may have taken something since the last look.
	if err := l.refreshFirst(ctx); err != nil {
		return err
	}
	if begins := l.view().first; seq < begins {
		return &lockstep.RetentionError{Asked: seq, First: begins}
	}
	return &CorruptError{Database: l.database, First: seq, Last: next - 1, Err: fmt.Errorf("messages cannot be read: %w", lockstep.ErrCorrupt)}
}

// SeqAt returns the first seq whose transaction committed at or after t, by the
// database's clock: Last().Seq+1 when there is none, First() when all did. Where
// commit times go backwards between transactions, the latest one so far counts.
func (l *Log) SeqAt(ctx context.Context, t time.Time) (uint64, error) {
	v := l.view()
	want := t.UnixMicro()
	// best is the earliest message known to lie at or after t; each message carries
	// the latest commit time up to it, so these times only grow.
	low, high, best := uint64(1), v.end.last, (*stored)(nil)
	for low <= high {
		middle := low + (high-low)/2
		m, err := l.oursBetween(ctx, middle, high)
		if err != nil {
			return 0, fmt.Errorf("look for time %s in log of database %q: %w", t.UTC().Format(time.RFC3339), l.database, err)
		}
		if m == nil {
			high = middle - 1
			continue
		}
		if m.clock >= want {
			best, high = m, middle-1
			continue
		}
		low = m.seq + 1
	}
	if best == nil {
		return v.end.mark.Seq + 1, nil
	}
	return l.firstAt(ctx, best, want)
}

// firstAt returns the seq within the batch of m. A leftover of a crash is passed
// over: what was sent instead comes after it.
func (l *Log) firstAt(ctx context.Context, m *stored, want int64) (uint64, error) {
	first, last := m.first, l.view().end.last
	for m != nil {
		e, err := l.loadBatch(ctx, m)
		if err == nil && e != nil {
			first = m.first
			for i := range e.batch.Len() {
				if e.batch.Record(i).Tx().CommitTime >= want {
					first = e.batch.Record(i).Seq()
					break
				}
			}
			break
		}
		if err == nil {
			m, err = l.oursBetween(ctx, m.seq+1, last)
		}
		if err != nil {
			return 0, fmt.Errorf("look for a time in log of database %q: %w", l.database, err)
		}
	}
	return max(first, l.First()), nil
}
