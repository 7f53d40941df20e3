package deliver

import (
	"context"
	"time"

	"lockstep/internal/obs"
)

// Damage can take a consumer's state, or what the state is about. Such a consumer goes
// on where nothing is left out, which hands out some changes again; a gap with the
// reason damaged says so to its workers, before anything else.

// reviveOlder goes on with an older state than the last. Nobody has sent the consumer
// elsewhere since, so what it says is settled is.
func (c *Consumer) reviveOlder(ctx context.Context, s state, why error) error {
	c.w = restore(s, c.def.policy(), c.b.now(), random)
	c.forgetTokens()
	if err := c.checkLetters(ctx); err != nil {
		return err
	}
	c.sayLost(ctx, s.floor()+1, why)
	return c.tellGap(ctx, s.floor()+1, 0)
}

// reviveLost goes on from where everything was settled for sure. s is an older state, or
// empty. What the older one says of single changes is not used: the consumer may have
// been sent back since.
func (c *Consumer) reviveLost(ctx context.Context, s state, floor uint64, why error) error {
	c.w = restore(s, c.def.policy(), c.b.now(), random)
	c.forgetTokens()
	head := floor + 1
	if floor > c.log.Last().Seq {
		head = max(c.log.First(), 1) // the log is not what it was either
	}
	strays, err := c.findStrays(ctx, head, nil)
	if err != nil {
		return err
	}
	c.sayLost(ctx, head, why)
	c.w = c.w.movedTo(head, c.b.now())
	c.w.strays = strays
	return c.tellGap(ctx, head, 0)
}

// forgetTokens makes every token stale that an epoch has made of which the state does not
// know. Such epochs have lower numbers: nobody opens a consumer every second.
func (c *Consumer) forgetTokens() {
	w := c.w
	w.epoch = max(w.epoch, uint32(time.Now().Unix()))
	w.minEpoch, w.epochs = w.epoch, []epochHead{{epoch: w.epoch, head: w.head}}
}

func (c *Consumer) sayLost(ctx context.Context, from uint64, why error) {
	c.b.log.ErrorContext(ctx, "the consumer's saved state is lost: changes that it has settled may come again",
		obs.KeyConsumer, c.def.Name, obs.KeySeq, from, obs.KeyError, why)
}

// reviveAhead goes on with a log that ends before what the consumer has seen of it. Where
// the log's position is lower too, its end is gone, and the rest is what it was. Else it
// is another log, of which the consumer has seen nothing.
func (c *Consumer) reviveAhead(ctx context.Context, s state) error {
	last := c.log.Last()
	w := restore(s, c.def.policy(), c.b.now(), random)
	from, head := uint64(0), max(c.log.First(), 1)
	if last.Seq > 0 && last.CommitLSN < s.endLSN {
		from, head = last.Seq+1, min(s.floor(), last.Seq)+1
	}
	w.head = min(w.head, s.end+1)
	missed := w.lose(from, s.end+1)
	c.b.log.ErrorContext(ctx, "the log ends before what the consumer has seen of it: changes are lost, others may come again",
		obs.KeyConsumer, c.def.Name, obs.KeySeq, head, "seen", s.end, "end", last.Seq, "missed", missed)
	c.w = w.movedTo(head, c.b.now())
	return c.tellGap(ctx, head, missed)
}

// tellGap puts the gap in front of everything else, for good.
func (c *Consumer) tellGap(ctx context.Context, head, missed uint64) error {
	c.w.addGap(gap{first: head, missed: missed, cause: byDamage})
	return c.saveNow(ctx)
}
