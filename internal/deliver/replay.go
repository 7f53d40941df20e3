package deliver

import (
	"context"
	"errors"
	"fmt"
	"time"

	"lockstep"
)

// MaxReplay is how many changes one call replays: each is kept as a letter until it
// is settled again. For more there is Seek.
const MaxReplay = 10_000

// replayed is the reason of a letter that Replay writes.
const replayed = "replayed because somebody asked"

// Replay hands out a change again that is settled or in the dead letters, with its
// attempts counted anew. It keeps the order of its key among what is not settled, and
// is marked late when later ones of the key went by. It is on disk when Replay
// returns: as a letter in the state retrying, which goes when the change is settled.
// Errors: lockstep.ErrNotFound and *lockstep.RetentionError for what is not there;
// lockstep.ErrInvalid for a change that the consumer does not get;
// lockstep.ErrConflict for one that is to come anyway.
func (c *Consumer) Replay(ctx context.Context, seq uint64) error {
	end, err := c.begin()
	if err != nil {
		return err
	}
	defer end()
	return c.replay(ctx, seq)
}

func (c *Consumer) replay(ctx context.Context, seq uint64) error {
	l, err := c.b.cfg.Dead.Get(ctx, c.id, seq)
	if err == nil && len(l.Batch) > 0 {
		return c.retry(ctx, seq)
	}
	if err != nil && !errors.Is(err, lockstep.ErrNotFound) {
		return fmt.Errorf("replay change %d to consumer %s: %w", seq, c.name(), err)
	}
	r, err := c.logged(ctx, seq)
	if err != nil {
		return fmt.Errorf("replay change %d to consumer %s: %w", seq, c.name(), err)
	}
	c.mu.Lock()
	m := c.match
	at, open := c.unsettled(r)
	ahead := seq >= c.w.head
	var save *saveGroup
	if open && at.State == ChangeSettled {
		save = c.requestSave() // it is known until its settling is on disk
	}
	c.mu.Unlock()
	if save != nil {
		if err := save.await(ctx); err != nil {
			return err
		}
	}
	if !c.gets(m, r) {
		return fmt.Errorf("replay change %d to consumer %s: it does not get that change: %w", seq, c.name(), lockstep.ErrInvalid)
	}
	if ahead {
		at.State, open = ChangeAhead, true
	}
	if open && at.State != ChangeSettled {
		return fmt.Errorf("replay change %d to consumer %s: it is not settled yet (%s) and comes anyway: %w", seq, c.name(), at.State, lockstep.ErrConflict)
	}
	if l, err = c.letter(ctx, m, handout{seq: seq}, parkRequest{seq: seq, reason: replayed, state: StateRetrying}); err == nil {
		err = c.b.cfg.Dead.Put(ctx, c.id, l)
	}
	if err != nil {
		return fmt.Errorf("replay change %d to consumer %s: keep it: %w", seq, c.name(), err)
	}
	return c.retry(ctx, seq)
}

// gets reports whether the consumer's selection takes the change.
func (c *Consumer) gets(m *matcher, r lockstep.Record) bool {
	if !m.selects(r.Table()) || !m.takes(r.Action()) {
		return false
	}
	ok, _ := m.passes(r, m.input(r))
	return ok
}

// ReplayRange replays the settled changes with seqs from first to last, ascending,
// and returns how many. Those that come anyway are left out. More than MaxReplay of
// them is lockstep.ErrInvalid, with that many replayed.
func (c *Consumer) ReplayRange(ctx context.Context, first, last uint64) (n int, err error) {
	end, err := c.begin()
	if err != nil {
		return 0, err
	}
	defer end()
	first, last = max(first, 1), min(last, c.log.Last().Seq)
	for seq := first; seq <= last; {
		b, err := c.log.BatchOf(ctx, seq)
		if err != nil {
			return n, fmt.Errorf("replay changes %d to %d to consumer %s: %w", first, last, c.name(), err)
		}
		for ; seq <= min(last, b.Mark.Seq); seq++ {
			r, ok := b.Find(seq)
			if !ok || !c.gets(c.matcher(), r) {
				continue
			}
			if n == MaxReplay {
				return n, fmt.Errorf("replay changes %d to %d to consumer %s: there are more than %d; go on from %d, or seek: %w", first, last, c.name(), MaxReplay, seq, lockstep.ErrInvalid)
			}
			switch err := c.replay(ctx, seq); {
			case err == nil:
				n++
			case !errors.Is(err, lockstep.ErrConflict):
				return n, err
			}
		}
	}
	return n, nil
}

// ReplayDead retries every dead letter that was written at since or later, ascending,
// and returns how many.
func (c *Consumer) ReplayDead(ctx context.Context, since time.Time) (n int, err error) {
	for after := uint64(0); ; {
		letters, next, err := c.Dead(ctx, after, MaxBatch)
		if err != nil {
			return n, err
		}
		for _, l := range letters {
			if l.At.Before(since) || l.State == StateRetrying || len(l.Batch) == 0 {
				continue
			}
			switch err := c.Retry(ctx, l.Seq); {
			case err == nil:
				n++
			case !errors.Is(err, lockstep.ErrNotFound) && !errors.Is(err, lockstep.ErrConflict):
				return n, err
			}
		}
		if next == 0 || len(letters) == 0 {
			return n, nil
		}
		after = next
	}
}

// SeqAt returns the first seq whose transaction committed at or after t.
func (c *Consumer) SeqAt(ctx context.Context, t time.Time) (uint64, error) {
	return c.log.SeqAt(ctx, t)
}

func (c *Consumer) matcher() *matcher {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.match
}
