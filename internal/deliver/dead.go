package deliver

import (
	"context"
	"errors"
	"fmt"

	"lockstep"
)

// Dead returns dead letters by ascending seq, at most limit of those behind after,
// and the cursor of the next page, 0 when there is none.
func (c *Consumer) Dead(ctx context.Context, after uint64, limit int) ([]Letter, uint64, error) {
	if limit < 1 || limit > MaxBatch {
		return nil, 0, fmt.Errorf("list of %d dead letters: use 1 to %d: %w", limit, MaxBatch, lockstep.ErrInvalid)
	}
	letters, next, err := c.b.cfg.Dead.List(ctx, c.id, after, limit)
	if err != nil {
		return nil, 0, fmt.Errorf("list dead letters of consumer %s: %w", c.name(), err)
	}
	return letters, next, nil
}

// DeadLetter returns one dead letter, or lockstep.ErrNotFound.
func (c *Consumer) DeadLetter(ctx context.Context, seq uint64) (Letter, error) {
	l, err := c.b.cfg.Dead.Get(ctx, c.id, seq)
	if errors.Is(err, lockstep.ErrNotFound) {
		return l, fmt.Errorf("consumer %s has no dead letter %d: %w", c.name(), seq, lockstep.ErrNotFound)
	}
	if err != nil {
		return l, fmt.Errorf("read a dead letter of consumer %s: %w", c.name(), err)
	}
	return l, nil
}

// begin starts a call that changes letters or moves the consumer; its result ends it.
func (c *Consumer) begin() (end func(), err error) {
	if err := c.b.enter(); err != nil {
		return nil, err
	}
	c.letters.Lock()
	c.mu.Lock()
	err = c.err
	c.mu.Unlock()
	end = func() {
		c.letters.Unlock()
		c.b.leave()
	}
	if err != nil {
		end()
		return nil, err
	}
	return end, nil
}

// Retry sends a dead letter on its way again, with attempts counted anew. It keeps
// its place in its key when the key waits for it; else it comes late and says so.
// The letter stays, as retrying, until the change is settled. Errors:
// lockstep.ErrNotFound; lockstep.ErrConflict when earlier letters of a parked key
// must go first, or when the change itself is gone.
func (c *Consumer) Retry(ctx context.Context, seq uint64) error {
	end, err := c.begin()
	if err != nil {
		return err
	}
	defer end()
	return c.retry(ctx, seq)
}

// retry is Retry for callers that hold letters.
func (c *Consumer) retry(ctx context.Context, seq uint64) error {
	l, ch, err := c.letterAt(ctx, seq)
	if err != nil {
		return err
	}
	g, err := c.retryBegin(ctx, l, ch)
	if err != nil || g == nil {
		return err
	}
	return g.await(ctx)
}

// retryBegin is retry up to the save that makes it last; nil: there is none to wait for.
func (c *Consumer) retryBegin(ctx context.Context, l Letter, ch change) (*saveGroup, error) {
	seq := l.Seq
	if len(l.Batch) == 0 {
		return nil, fmt.Errorf("retry dead letter %d of consumer %s: the change was removed by retention before its letter was written; drop it: %w", seq, c.name(), lockstep.ErrConflict)
	}
	c.mu.Lock()
	s, first := c.w.lookup(seq, ch.key), c.firstParked(ch.key)
	known := s != none
	waits := known && c.w.entries[s].phase != blocked
	c.mu.Unlock()
	if waits {
		return nil, c.retryWaiting(l)
	}
	if !known && first != 0 && first < seq {
		return nil, fmt.Errorf("retry dead letter %d of consumer %s: letter %d of the same key is earlier; retry or drop it first: %w", seq, c.name(), first, lockstep.ErrConflict)
	}
	next, err := c.nextParked(ctx, seq, ch.key, first)
	if err != nil {
		return nil, err
	}
	l.State = StateRetrying
	if err := c.b.cfg.Dead.Put(ctx, c.id, l); err != nil {
		return nil, fmt.Errorf("retry dead letter %d of consumer %s: %w", seq, c.name(), err)
	}
	c.mu.Lock()
	now := c.b.now()
	// Nothing but calls that hold c.letters makes a parked change known again.
	s = c.w.lookup(seq, ch.key)
	switch {
	case s == none && c.w.comes(ch):
		// After a crash or a seek back; the letter goes when the change is acked.
		c.w.stray(seq)
	case s == none:
		c.w.revive(now, ch)
		c.w.closeLetter(now, ch.key, seq, next)
	case c.w.entries[s].phase == blocked:
		c.w.unblock(now, s)
	}
	g := c.requestSave()
	c.settleDown()
	c.mu.Unlock()
	return g, nil
}

// retryWaiting answers a retry of what is on its way already.
func (c *Consumer) retryWaiting(l Letter) error {
	if l.State == StateRetrying {
		return nil
	}
	return fmt.Errorf("retry dead letter %d of consumer %s: it is being written; try again: %w", l.Seq, c.name(), lockstep.ErrConflict)
}

// Drop deletes a dead letter; what its key holds back goes on. Errors:
// lockstep.ErrNotFound; lockstep.ErrConflict while a worker has the change.
func (c *Consumer) Drop(ctx context.Context, seq uint64) error {
	end, err := c.begin()
	if err != nil {
		return err
	}
	defer end()
	_, ch, err := c.letterAt(ctx, seq)
	if err != nil {
		return err
	}
	g, err := c.dropBegin(ctx, seq, ch)
	if err != nil {
		return err
	}
	if err := g.await(ctx); err != nil {
		return err
	}
	return c.dropEnd(ctx, seq)
}

// dropBegin settles the change of a letter. The letter goes with dropEnd, when the state
// that does not count it any more is on disk.
func (c *Consumer) dropBegin(ctx context.Context, seq uint64, ch change) (g *saveGroup, err error) {
	c.mu.Lock()
	s, first := c.w.lookup(seq, ch.key), c.firstParked(ch.key)
	c.mu.Unlock()
	var next uint64
	if s == none {
		if next, err = c.nextParked(ctx, seq, ch.key, first); err != nil {
			return nil, err
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if s = c.w.lookup(seq, ch.key); s != none {
		if err := c.w.dropHeld(c.b.now(), s); err != nil {
			return nil, fmt.Errorf("drop dead letter %d of consumer %s: a worker has the change; wait until it is settled: %w", seq, c.name(), err)
		}
	} else {
		c.w.closeLetter(c.b.now(), ch.key, seq, next)
		c.w.spent[seq] = struct{}{}
	}
	g = c.requestSave()
	c.settleDown()
	return g, nil
}

func (c *Consumer) dropEnd(ctx context.Context, seq uint64) error {
	if err := c.b.cfg.Dead.Delete(ctx, c.id, seq); err != nil && !errors.Is(err, lockstep.ErrNotFound) {
		return fmt.Errorf("drop dead letter %d of consumer %s: %w", seq, c.name(), err)
	}
	c.mu.Lock()
	delete(c.w.spent, seq)
	c.mu.Unlock()
	return nil
}

// Park sends a change that waits to the dead letters by hand, so that its key goes
// on (or, with park_key, follows). lockstep.ErrConflict: it does not wait here.
func (c *Consumer) Park(ctx context.Context, seq uint64, reason string) error {
	end, err := c.begin()
	if err != nil {
		return err
	}
	defer end()
	r, err := c.logged(ctx, seq)
	if err != nil {
		return fmt.Errorf("park change %d of consumer %s: %w", seq, c.name(), err)
	}
	if reason == "" {
		reason = "parked by hand"
	}
	c.mu.Lock()
	s := c.w.lookup(seq, c.match.keyOf(r).key)
	if s == none {
		err = lockstep.ErrConflict
	} else {
		err = c.w.parkByHand(c.b.now(), s, shorten(reason))
	}
	c.settleDown()
	c.mu.Unlock()
	if err != nil {
		return fmt.Errorf("park change %d of consumer %s: it is not waiting: %w", seq, c.name(), err)
	}
	return nil
}

// letterAt returns a letter and what the window must know about its change.
func (c *Consumer) letterAt(ctx context.Context, seq uint64) (Letter, change, error) {
	l, err := c.DeadLetter(ctx, seq)
	if err != nil {
		return l, change{}, err
	}
	ch, err := c.changeOf(l)
	return l, ch, err
}

func (c *Consumer) changeOf(l Letter) (change, error) {
	if len(l.Batch) == 0 {
		return change{seq: l.Seq, key: c.keyParkedFirst(l.Seq)}, nil
	}
	r, err := c.recordOf(l)
	if err != nil {
		return change{}, err
	}
	c.mu.Lock()
	m := c.match
	c.mu.Unlock()
	ch := m.keyOf(r)
	if ch.sort == tableBarrier {
		ch.key = ch.table ^ barrierSalt
	}
	return ch, nil
}

// keyParkedFirst returns the parked key whose first letter that is, or 0: a letter
// without a body does not tell its key.
func (c *Consumer) keyParkedFirst(seq uint64) uint64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	for key, p := range c.w.parkedKeys {
		if p.first == seq {
			return key
		}
	}
	return 0
}

// firstParked returns the first letter of a parked key, or 0. The caller holds mu.
func (c *Consumer) firstParked(key uint64) uint64 {
	if p := c.w.parkedKeys[key]; p != nil {
		return p.first
	}
	return 0
}

// nextParked returns the letter that follows seq among those of a parked key, or 0.
func (c *Consumer) nextParked(ctx context.Context, seq, key, first uint64) (uint64, error) {
	if first != seq {
		return 0, nil // its going changes nothing about which one is first
	}
	c.mu.Lock()
	alone := c.w.parkedKeys[key] != nil && c.w.parkedKeys[key].n == 1
	c.mu.Unlock()
	if alone {
		return 0, nil // looking for another one would read every letter
	}
	for after := seq; ; {
		letters, next, err := c.b.cfg.Dead.List(ctx, c.id, after, MaxBatch)
		if err != nil {
			return 0, fmt.Errorf("list dead letters of consumer %s: %w", c.name(), err)
		}
		for _, l := range letters {
			if ch, err := c.changeOf(l); err == nil && ch.key == key && l.State == StateParked {
				return l.Seq, nil
			}
		}
		if next == 0 || len(letters) == 0 {
			return 0, nil
		}
		after = next
	}
}

// checkLetters compares a restored state with the letters: it forgets parked keys when
// no letter is left, and finds letters that a crash kept from being counted.
func (c *Consumer) checkLetters(ctx context.Context) error {
	n, err := c.b.cfg.Dead.Count(ctx, c.id)
	if err != nil {
		return fmt.Errorf("consumer %s: count its dead letters: %w", c.def.Name, err)
	}
	if n == 0 {
		clear(c.w.parkedKeys)
		return nil
	}
	c.w.strays, err = c.findStrays(ctx, c.w.head, c.w.mayHaveLetter())
	return err
}

// strayLimit bounds how many letters of unsettled changes are looked for.
const strayLimit = 10_000

// findStrays returns the letters of these changes, and of those from head on.
func (c *Consumer) findStrays(ctx context.Context, head uint64, among []uint64) (map[uint64]struct{}, error) {
	found := map[uint64]struct{}{}
	for _, seq := range among {
		_, err := c.b.cfg.Dead.Get(ctx, c.id, seq)
		if err == nil {
			found[seq] = struct{}{}
		} else if !errors.Is(err, lockstep.ErrNotFound) {
			return nil, fmt.Errorf("look for dead letters of consumer %s: %w", c.name(), err)
		}
	}
	for after := head - min(head, 1); len(found) < strayLimit; {
		letters, next, err := c.b.cfg.Dead.List(ctx, c.id, after, MaxBatch)
		if err != nil {
			return nil, fmt.Errorf("look for dead letters of consumer %s: %w", c.name(), err)
		}
		for _, l := range letters {
			found[l.Seq] = struct{}{}
		}
		if next == 0 {
			break
		}
		after = next
	}
	return found, nil
}
