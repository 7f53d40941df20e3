package deliver

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"lockstep"
)

// Consumer is one consumer's place in its database's changes. It is safe for
// concurrent use.
type Consumer struct {
	b      *Broker
	id     string
	tail   *tail
	log    Log // tail.log
	signer *signer
	last   atomic.Pointer[lockstep.Batch] // the batch that a body was last taken from

	deadCount atomic.Uint64          // as last seen
	title     atomic.Pointer[string] // def.Name, for those who do not hold mu
	over      chan struct{}          // closed by end

	letters sync.Mutex // one seek, retry, drop or park by hand at a time; before mu

	mu       sync.Mutex // after tail.mu
	def      Definition
	match    *matcher
	w        *window
	err      error // why the consumer serves nobody any more
	attached bool  // the tail offers new changes; written under tail.mu and mu
	scanning bool  // somebody reads the log for it
	scanned  chan struct{}
	waiters  []*waiter
	demand   demand
	timer    *time.Timer // calls wake
	armed    int64       // when timer fires; 0: it does not
	posting  bool        // a goroutine writes letters

	saver // see commit.go
}

// waiter is a call of Next that waits for a change.
type waiter struct{ woken chan struct{} }

// demand is what calls of Next have asked for lately.
type demand struct {
	batch int   // the largest batch
	at    int64 // when
}

// open makes the consumer of a definition from its saved state, or anew.
func (b *Broker) open(ctx context.Context, d Definition, m *matcher) (*Consumer, error) {
	t, err := b.tailOf(ctx, d.Database)
	if err != nil {
		return nil, err
	}
	c := &Consumer{b: b, id: d.ID, tail: t, log: t.log, signer: newSigner(b.cfg.Secret, d.ID), def: d, match: m, scanned: make(chan struct{}), over: make(chan struct{})}
	c.title.Store(&d.Name)
	c.node = rand.Uint64()
	if err := c.load(ctx); err != nil {
		return nil, fmt.Errorf("consumer %s: %w", d.Name, err)
	}
	t.join(c)
	c.mu.Lock()
	c.settleDown()
	c.mu.Unlock()
	return c, nil
}

// load makes the window from the saved state, or anew.
func (c *Consumer) load(ctx context.Context) error {
	value, revision, err := c.b.cfg.States.Load(ctx, c.id)
	if err != nil && !errors.Is(err, lockstep.ErrNotFound) {
		return err
	}
	c.revision = revision
	floor, era, lost := c.b.cfg.States.Lost(c.id)
	var s state
	if err == nil {
		s, err = parseState(value)
		if errors.Is(err, errNewerState) {
			return fmt.Errorf("%w; go on with that version, or delete the consumer and make it anew to go on without its state", err)
		}
		if err != nil {
			lost = errors.Join(lost, err)
		}
	}
	switch {
	case lost != nil && err == nil && uint64(s.epoch) == era && s.end <= c.log.Last().Seq:
		return c.reviveOlder(ctx, s, lost)
	case lost != nil:
		return c.reviveLost(ctx, s, floor, lost)
	case err != nil: // there never was one
		return c.makeAnew(ctx)
	case s.end > c.log.Last().Seq:
		return c.reviveAhead(ctx, s)
	}
	c.w = restore(s, c.def.policy(), c.b.now(), random)
	c.savedHead = s.head
	return c.checkLetters(ctx)
}

func (c *Consumer) makeAnew(ctx context.Context) error {
	head, err := c.resolve(ctx, c.def.Start)
	if err != nil {
		return fmt.Errorf("start %s: %w", c.def.Start, err)
	}
	c.w = newWindow(c.def.policy(), head, random)
	return c.saveNow(ctx)
}

// policy is the part of the definition that the window obeys.
func (d Definition) policy() policy {
	return policy{ackWait: d.AckWait, backoff: d.Backoff, maxInFlight: d.MaxInFlight, maxAttempts: d.MaxAttempts, onExhausted: d.OnExhausted}
}

// ID returns the consumer's id.
func (c *Consumer) ID() string { return c.id }

// Definition returns the consumer's definition.
func (c *Consumer) Definition() Definition {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.def
}

// Paused reports whether the consumer is paused.
func (c *Consumer) Paused() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.def.Paused
}

func (c *Consumer) name() string { return *c.title.Load() }

// redefine changes the definition in place.
func (c *Consumer) redefine(d Definition, m *matcher) error {
	c.tail.mu.Lock()
	defer c.tail.mu.Unlock()
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.err != nil {
		return c.err
	}
	if d.Database != c.def.Database {
		return fmt.Errorf("consumer %s: its database is %s and cannot change; make another consumer: %w", d.Name, c.def.Database, lockstep.ErrConflict)
	}
	c.tail.detach(c)
	defer func() {
		name := c.def.Name
		c.title.Store(&name)
	}()
	if sameSelection(c.def, d) {
		c.def, c.match, c.w.policy = d, m, d.policy()
		c.settleDown()
		return nil
	}
	c.w.rewind(c.b.now())
	if !c.def.OrderBy.Equal(d.OrderBy) && (c.w.n > 0 || c.w.overflow > 0) {
		return fmt.Errorf("consumer %s: order_by cannot change while %d changes are unsettled; settle them, or seek: %w",
			d.Name, uint64(c.w.n)+c.w.overflow, lockstep.ErrConflict)
	}
	c.def, c.match, c.w.policy = d, m, d.policy()
	c.tail.forget()
	c.settleDown()
	return nil
}

// sameSelection reports whether both definitions give the same changes in the same order.
func sameSelection(a, b Definition) bool {
	return fmt.Sprint(a.Tables, a.Collections, string(a.Actions), a.OrderBy) == fmt.Sprint(b.Tables, b.Collections, string(b.Actions), b.OrderBy) &&
		a.Sync == b.Sync && a.Filter == b.Filter
}

// Pause stops handing out: next answers empty. Leases go on and acks are taken.
func (c *Consumer) Pause(context.Context) error { return c.setPaused(true) }

// Resume ends a pause; waiting calls wake.
func (c *Consumer) Resume(context.Context) error { return c.setPaused(false) }

func (c *Consumer) setPaused(paused bool) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.err != nil {
		return c.err
	}
	c.def.Paused = paused
	c.settleDown()
	return nil
}

// settleDown does what follows a change of the window: it wakes a waiter when there
// is something for it, writes letters and sets the timer. The caller holds mu.
func (c *Consumer) settleDown() {
	if c.err != nil {
		return
	}
	c.notify()
	if !c.posting && (len(c.w.parkQueue) > 0 || len(c.w.erasable) > 0) {
		c.posting = c.spawn(c.post)
	}
	c.arm()
}

// notify wakes the first waiter when there may be something for it. Whoever is
// woken wakes the next one.
func (c *Consumer) notify() {
	if len(c.waiters) == 0 || c.def.Paused {
		return
	}
	if c.w.avail == 0 && (c.scanning || !c.behind()) {
		return
	}
	first := c.waiters[0]
	c.waiters = c.waiters[1:]
	close(first.woken)
}

// wakeAll wakes every waiter: the consumer serves nobody any more, or stands elsewhere.
func (c *Consumer) wakeAll() {
	for _, w := range c.waiters {
		close(w.woken)
	}
	c.waiters = nil
}

// arm sets the timer for the next thing that happens by itself.
func (c *Consumer) arm() {
	at := c.w.wake()
	if at == 0 || (c.armed != 0 && c.armed <= at) {
		return
	}
	c.armed = at
	wait := time.Duration(max(at-c.b.now(), 0))
	if c.timer == nil {
		c.timer = time.AfterFunc(wait, c.wake)
		return
	}
	c.timer.Reset(wait)
}

// wake is called by the timer: leases have run out, or waits are over.
func (c *Consumer) wake() {
	if c.b.enter() != nil {
		return
	}
	defer c.b.leave()
	c.mu.Lock()
	defer c.mu.Unlock()
	c.armed = 0
	if c.err == nil {
		c.tick()
	}
}

// tick lets time pass. The caller holds mu.
func (c *Consumer) tick() {
	c.passTime()
	c.settleDown()
}

// passTime takes back what was not settled in time. Attempts that it counts are
// saved soon. The caller holds mu, and calls settleDown.
func (c *Consumer) passTime() {
	before := c.w.totals.Expired
	c.w.expire(c.b.now())
	if c.w.totals.Expired != before {
		c.requestSave()
	}
}

// retire stops the timer. It is called when no call can come any more.
func (c *Consumer) retire() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.end(fmt.Errorf("consumer %s: deliveries have stopped: %w", c.def.Name, lockstep.ErrUnavailable))
}

// end makes every further call fail. The caller holds mu.
func (c *Consumer) end(err error) {
	if c.err != nil {
		return
	}
	c.err = err
	close(c.over)
	if c.timer != nil {
		c.timer.Stop()
	}
	c.wakeAll()
}

// remove ends the consumer and deletes what is stored of it.
func (c *Consumer) remove(ctx context.Context) error {
	c.letters.Lock()
	defer c.letters.Unlock()
	c.tail.mu.Lock()
	c.mu.Lock()
	c.tail.detach(c)
	delete(c.tail.members, c)
	c.tail.forget()
	name := c.def.Name
	c.end(fmt.Errorf("consumer %s was deleted: %w", name, lockstep.ErrNotFound))
	c.mu.Unlock()
	c.tail.mu.Unlock()
	c.work.Wait()
	if err := c.b.cfg.States.Delete(ctx, c.id); err != nil {
		return fmt.Errorf("delete consumer %s: %w", name, err)
	}
	if err := c.b.cfg.Dead.DeleteAll(ctx, c.id); err != nil {
		return fmt.Errorf("delete consumer %s: its dead letters: %w", name, err)
	}
	return nil
}
