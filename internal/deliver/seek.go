package deliver

import (
	"context"
	"errors"
	"fmt"
	"time"

	"lockstep"
)

// Seek sends the consumer to a place: now, beginning, seq:N, a time of RFC 3339, or
// a duration before now. What lies from there on is delivered (again); what lies
// before is done with. Every token made so far becomes stale. Letters of changes
// that were blocked or being retried are parked.
func (c *Consumer) Seek(ctx context.Context, to string) error {
	end, err := c.begin()
	if err != nil {
		return err
	}
	defer end()
	head, err := c.resolve(ctx, to)
	if err != nil {
		return fmt.Errorf("seek consumer %s: %w", c.name(), err)
	}
	c.mu.Lock()
	letters := c.w.lettersInUse()
	c.mu.Unlock()
	for _, seq := range letters {
		if err := c.parkAgain(ctx, seq); err != nil {
			return err
		}
	}
	strays, err := c.findStrays(ctx, head, nil)
	if err != nil {
		return err
	}
	c.tail.mu.Lock()
	c.mu.Lock()
	if c.err != nil {
		err := c.err
		c.mu.Unlock()
		c.tail.mu.Unlock()
		return err
	}
	c.tail.detach(c)
	c.w = c.w.movedTo(head, c.b.now())
	c.w.strays = strays
	c.epochSafe = false
	g := c.requestSave()
	c.wakeAll()
	c.settleDown()
	c.mu.Unlock()
	c.tail.mu.Unlock()
	return g.await(ctx)
}

// movedTo returns the window of a consumer that was sent to head.
func (w *window) movedTo(head uint64, now int64) *window {
	n := newWindow(w.policy, head, w.random)
	n.now = now
	n.epoch, n.minEpoch = w.epoch+1, w.epoch+1
	n.epochs = []epochHead{{epoch: n.epoch, head: head}}
	n.parkedKeys, n.spent, n.erasable = w.parkedKeys, w.spent, w.erasable
	n.totals, n.ackedBefore, n.parkedBefore = w.totals, w.ackedBefore, w.parkedBefore
	n.holders, n.limits = w.holders, w.limits
	return n
}

// parkAgain makes a letter one of a change that is out of the way.
func (c *Consumer) parkAgain(ctx context.Context, seq uint64) error {
	l, err := c.b.cfg.Dead.Get(ctx, c.id, seq)
	if errors.Is(err, lockstep.ErrNotFound) {
		return nil
	}
	if err == nil {
		l.State = StateParked
		err = c.b.cfg.Dead.Put(ctx, c.id, l)
	}
	if err != nil {
		return fmt.Errorf("seek consumer %s: park letter %d: %w", c.name(), seq, err)
	}
	return nil
}

// resolve returns the seq that a place names.
func (c *Consumer) resolve(ctx context.Context, text string) (uint64, error) {
	p, err := parsePlace(text)
	if err != nil {
		return 0, fmt.Errorf("%w: %w", err, lockstep.ErrInvalid)
	}
	switch {
	case p.word == "now":
		return c.log.Last().Seq + 1, nil
	case p.word == "beginning":
		return max(c.log.First(), 1), nil
	case p.word == "ago":
		return c.log.SeqAt(ctx, time.Now().Add(-p.ago))
	case p.seq > 0:
		return p.seq, nil
	}
	return c.log.SeqAt(ctx, p.time)
}
