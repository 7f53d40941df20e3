package deliver

import (
	"context"
	"fmt"
	"slices"
	"time"

	"lockstep"
)

// NextRequest asks for changes.
type NextRequest struct {
	Batch  int           // at most so many changes, 1 to MaxBatch; 0: 1
	Wait   time.Duration // how long to wait for the first one; 0: not at all
	Holder string        // who asks; shown with what he holds. May be empty
	Claims bool          // who asks settles by claims: deliveries have no tokens
}

// Result is what Next hands out.
type Result struct {
	Deliveries []Delivery // by ascending seq; of one key always in order
	Pending    int        // changes that wait; an upper bound while some were not looked at
	AckPending int        // changes handed out and not settled
}

// scanAhead is how many ready changes a consumer keeps at least while calls come.
const scanAhead = 1000

// Next hands out changes, each leased for the definition's AckWait. It returns as
// soon as there is one, and empty when there is none within Wait, while the
// consumer is paused, or when the broker stops. When ctx ends nothing is leased.
func (c *Consumer) Next(ctx context.Context, req NextRequest) (Result, error) {
	if req.Batch == 0 {
		req.Batch = 1
	}
	if req.Batch < 0 || req.Batch > MaxBatch || req.Wait < 0 {
		return Result{}, fmt.Errorf("next of %d changes within %s: a batch holds 1 to %d, and a wait is not negative: %w", req.Batch, req.Wait, MaxBatch, lockstep.ErrInvalid)
	}
	if err := c.b.enter(); err != nil {
		return Result{}, err
	}
	defer c.b.leave()
	select {
	case <-c.b.started: // a call may come before Run
	case <-ctx.Done():
		return Result{}, context.Cause(ctx)
	}
	p := pull{c: c, req: req, goal: c.log.Last().Seq, until: c.b.now() + int64(req.Wait)}
	for {
		handouts, err := p.step(ctx)
		if err != nil {
			return Result{}, err
		}
		if len(handouts) > 0 {
			ds, err := c.bodies(ctx, p.match, p.epoch, handouts)
			if err != nil {
				return Result{}, err
			}
			if len(ds) == 0 {
				continue
			}
			if !req.Claims {
				c.sign(ds)
			}
			p.result.Deliveries = ds
			return p.result, nil
		}
		if p.over {
			return p.result, nil
		}
	}
}

// pull is one call of Next.
type pull struct {
	c      *Consumer
	req    NextRequest
	goal   uint64 // everything up to it must have been looked at before the answer is "nothing"
	until  int64
	over   bool // there is nothing, and no time left
	match  *matcher
	epoch  uint32
	result Result
}

// step takes what is there. When there is nothing it does what may bring something:
// reading on, or waiting.
func (p *pull) step(ctx context.Context) ([]handout, error) {
	c := p.c
	c.mu.Lock()
	if c.err != nil {
		defer c.mu.Unlock()
		return nil, c.err
	}
	if err := ctx.Err(); err != nil {
		c.notify()
		c.mu.Unlock()
		return nil, context.Cause(ctx)
	}
	now := c.b.now()
	c.demand.batch, c.demand.at = max(p.req.Batch, c.demand.batch), now
	if c.b.stopping() {
		p.finish()
		c.mu.Unlock()
		return nil, nil
	}
	if c.def.Paused {
		return nil, p.wait(ctx, now)
	}
	if !c.epochSafe {
		g := c.requestSave()
		c.mu.Unlock()
		return nil, g.await(ctx)
	}
	c.passTime()
	room := c.w.policy.maxInFlight - c.w.counts[leased] - c.w.counts[acked]
	if want := min(p.req.Batch, room); c.w.avail < want && !c.scanning && c.behind() {
		err := c.scan(ctx)
		if err == nil {
			return nil, nil
		}
		c.mu.Lock()
		if c.w.avail == 0 {
			c.mu.Unlock()
			return nil, err
		}
	}
	if handouts := p.take(); len(handouts) > 0 {
		c.mu.Unlock()
		return handouts, nil
	}
	if room > 0 && c.scanning {
		scanned := c.scanned
		c.mu.Unlock()
		select {
		case <-scanned:
			return nil, nil
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
	if moved := c.tail.watch(); room > 0 && c.attached && c.behindGoal(p.goal) {
		c.mu.Unlock()
		select {
		case <-moved:
			return nil, nil
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
	return nil, p.wait(ctx, now)
}

// take hands out, and wakes the next waiter when more is left. The caller holds mu.
func (p *pull) take() []handout {
	c := p.c
	handouts := c.w.take(c.b.now(), p.req.Batch, p.req.Holder)
	if len(handouts) > 0 {
		p.match, p.epoch = c.match, c.w.epoch
		p.result.Pending, p.result.AckPending = c.pending(), c.w.counts[leased]
	}
	c.settleDown()
	return handouts
}

// finish makes the call end empty. The caller holds mu.
func (p *pull) finish() {
	p.over = true
	p.result = Result{Pending: p.c.pending(), AckPending: p.c.w.counts[leased]}
}

// wait waits until there may be something, or the time is over. The caller holds mu,
// which wait gives back.
func (p *pull) wait(ctx context.Context, now int64) error {
	c := p.c
	left := time.Duration(p.until - now)
	if left <= 0 {
		p.finish()
		c.mu.Unlock()
		return nil
	}
	w := &waiter{woken: make(chan struct{})}
	c.waiters = append(c.waiters, w)
	c.arm()
	c.mu.Unlock()
	t := time.NewTimer(left)
	defer t.Stop()
	select {
	case <-w.woken:
		return nil
	case <-t.C:
	case <-ctx.Done():
	case <-c.b.stop:
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if i := slices.Index(c.waiters, w); i >= 0 {
		c.waiters = slices.Delete(c.waiters, i, i+1)
	}
	// When it was woken all the same, the next step takes what is there, or passes
	// the waking on.
	return nil
}

// pending is how many changes wait. The caller holds mu.
func (c *Consumer) pending() int {
	c.syncHead()
	n := uint64(c.w.counts[waiting]+c.w.counts[blocked]+c.w.counts[parking]) + c.w.overflow
	if last := c.log.Last().Seq; last >= c.w.head {
		n += last - c.w.head + 1
	}
	return int(n)
}

// target is how many changes ought to be ready. A consumer that nobody asks keeps few.
func (c *Consumer) target() int {
	const recent = 10 * int64(time.Second)
	if c.demand.at == 0 || c.b.now()-c.demand.at > recent {
		c.demand.batch = 0
		return scanAhead / 10
	}
	return max(scanAhead, 4*c.demand.batch)
}

// behind reports whether reading the log may bring something. The caller holds mu.
func (c *Consumer) behind() bool {
	if c.w.avail < c.target() && c.w.n < c.w.limit() && c.w.starving() {
		return true
	}
	return !c.attached && c.w.wantsMore(c.target())
}

// behindGoal reports whether the tail has not come to goal yet. The caller holds mu.
func (c *Consumer) behindGoal(goal uint64) bool {
	c.syncHead()
	return c.w.head <= goal && len(c.w.holds) == 0
}
