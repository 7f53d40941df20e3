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
	plan := retryPlan{}
	if err := c.planRetry(ctx, &plan, l, ch); err != nil || len(plan.letters) == 0 {
		return err
	}
	g, err := c.retryPlanned(ctx, plan)
	if err != nil {
		return err
	}
	return g.await(ctx)
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
	defer c.mu.Unlock()
	s := c.w.lookup(seq, ch.key)
	var next uint64
	if s == none {
		if next, err = c.nextParked(ctx, seq, ch.key, c.parkedAs(ch.key)); err != nil {
			return nil, err
		}
		s = c.w.lookup(seq, ch.key)
	}
	if s != none {
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

func (c *Consumer) dropEnd(ctx context.Context, seqs ...uint64) error {
	if err := c.b.cfg.Dead.DeleteSome(ctx, c.id, seqs); err != nil {
		return fmt.Errorf("drop %d dead letters of consumer %s, from %d on: %w", len(seqs), c.name(), seqs[0], err)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, seq := range seqs {
		delete(c.w.spent, seq)
	}
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
	return m.keyed(r), nil
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

// parkedAs returns what is known of a parked key; n is 0 when it is not parked. The
// caller holds mu.
func (c *Consumer) parkedAs(key uint64) parkedKey {
	if p := c.w.parkedKeys[key]; p != nil {
		return *p
	}
	return parkedKey{}
}

// nextFew is how many letters are read at a time to find the next one of a key: mostly
// the first is it.
const nextFew = 4

// nextParked returns the letter that follows seq among those of a parked key, or 0. The
// caller holds mu, which is free while letters are read; when one was parked meanwhile,
// they are read again, so that the answer is of when it returns.
func (c *Consumer) nextParked(ctx context.Context, seq, key uint64, p parkedKey) (uint64, error) {
	if p.first != seq || p.n == 1 {
		return 0, nil // its going changes nothing about which one is first, or there is no other
	}
	for {
		m, parked := c.match, c.w.totals.Parked
		c.mu.Unlock()
		next, err := c.findParked(ctx, letterKey(m.order, key), key, seq)
		c.mu.Lock()
		if err != nil || next != 0 || c.w.totals.Parked == parked {
			return next, err
		}
	}
}

func (c *Consumer) findParked(ctx context.Context, mark, key, seq uint64) (uint64, error) {
	for after := seq; ; {
		letters, next, err := c.b.cfg.Dead.Find(ctx, c.id, mark, after, nextFew)
		if err != nil {
			return 0, fmt.Errorf("look for dead letters of consumer %s: %w", c.name(), err)
		}
		for _, l := range letters {
			if ch, err := c.changeOf(l); err == nil && ch.key == key && l.State != StateBlocked && c.waits(l) {
				return l.Seq, nil
			}
		}
		if next == 0 {
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
	c.deadCount.Store(n) // what Stats tells when the letters do not answer
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
