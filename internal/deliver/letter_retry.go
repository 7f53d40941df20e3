package deliver

import (
	"context"
	"fmt"
	"hash/fnv"

	"lockstep"
)

// letterKey tells the letters of a key from others; its upper half says in what order
// the consumer was, since another order makes other keys.
func letterKey(order OrderBy, key uint64) uint64 {
	h := fnv.New32a()
	_, _ = h.Write([]byte(order.String())) // never fails
	return uint64(h.Sum32()|1)<<32 | key&0xffffffff
}

// keyed is keyOf with the key that a barrier has in the window.
func (m *matcher) keyed(r lockstep.Record) change {
	ch := m.keyOf(r)
	if ch.sort == tableBarrier {
		ch.key = ch.table ^ barrierSalt
	}
	return ch
}

// retryPlan is letters that are to be retried together, in the order of their seqs: they
// are written as retrying together, and go back into the window when all of that is on
// disk.
type retryPlan struct {
	letters []Letter
	changes []change
	nexts   []uint64             // of each the letter that follows in its parked key, as nextParked says
	keys    map[uint64]parkedKey // as they are when the letters before are on their way
	parked  uint64               // how many were parked ever when the plan was begun
}

// planRetry adds a letter, unless it is on its way already. The caller holds letters.
func (c *Consumer) planRetry(ctx context.Context, plan *retryPlan, l Letter, ch change) error {
	seq := l.Seq
	if len(l.Batch) == 0 {
		return fmt.Errorf("retry dead letter %d of consumer %s: the change was removed by retention before its letter was written; drop it: %w", seq, c.name(), lockstep.ErrConflict)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	s := c.w.lookup(seq, ch.key)
	if s != none && c.w.entries[s].phase != blocked {
		return c.retryWaiting(l)
	}
	p, planned := plan.keys[ch.key]
	if !planned {
		p = c.parkedAs(ch.key)
	}
	if s == none && p.first != 0 && p.first < seq {
		return fmt.Errorf("retry dead letter %d of consumer %s: letter %d of the same key is earlier; retry or drop it first: %w", seq, c.name(), p.first, lockstep.ErrConflict)
	}
	next, err := c.nextParked(ctx, seq, ch.key, p)
	if err != nil {
		return err
	}
	if plan.keys == nil {
		plan.keys, plan.parked = map[uint64]parkedKey{}, c.w.totals.Parked
	}
	plan.keys[ch.key] = p.without(seq, next)
	l.State = StateRetrying
	plan.letters, plan.changes = append(plan.letters, l), append(plan.changes, ch)
	plan.nexts = append(plan.nexts, next)
	return nil
}

// without is what closeLetter makes of a parked key.
func (p parkedKey) without(seq, next uint64) parkedKey {
	if p.first == 0 || seq < p.first {
		return p
	}
	p.n -= min(p.n, 1)
	if p.first == seq {
		p.first = next
	}
	if p.first == 0 {
		p.n = 0
	}
	return p
}

// retryPlanned does what was planned, up to the save that makes it last.
func (c *Consumer) retryPlanned(ctx context.Context, plan retryPlan) (*saveGroup, error) {
	err := c.putLetters(ctx, plan.letters)
	if err != nil {
		return nil, fmt.Errorf("retry dead letters of consumer %s, from %d on: %w", c.name(), plan.letters[0].Seq, err)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for i, ch := range plan.changes {
		next := plan.nexts[i]
		if next == 0 && c.w.totals.Parked != plan.parked {
			if next, err = c.nextParked(ctx, ch.seq, ch.key, c.parkedAs(ch.key)); err != nil {
				return nil, err
			}
		}
		c.retryOne(ch, next)
	}
	g := c.requestSave()
	c.settleDown()
	return g, nil
}

// retryOne makes a change known again whose letter says that it is being retried. Nothing
// but calls that hold letters does that. The caller holds mu too.
func (c *Consumer) retryOne(ch change, next uint64) {
	now := c.b.now()
	s := c.w.lookup(ch.seq, ch.key)
	switch {
	case s == none && c.w.comes(ch):
		// After a crash or a seek back; the letter goes when the change is acked.
		c.w.stray(ch.seq)
	case s == none:
		c.w.revive(now, ch)
		c.w.closeLetter(now, ch.key, ch.seq, next)
	case c.w.entries[s].phase == blocked:
		c.w.unblock(now, s)
	}
}

// waits reports whether a letter waits for a person. One that says that it is being retried
// does too when its change is not on its way: a crash came in between.
func (c *Consumer) waits(l Letter) bool {
	if l.State != StateRetrying {
		return true
	}
	ch, err := c.changeOf(l)
	if err != nil {
		return true
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	_, spent := c.w.spent[l.Seq]
	return !spent && c.w.lookup(l.Seq, ch.key) == none && !c.w.comes(ch)
}
