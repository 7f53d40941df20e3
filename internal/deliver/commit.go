package deliver

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"lockstep"
	"lockstep/internal/obs"
)

// saver is the part of a consumer that makes its state durable, in group commits:
// one save is under way at a time, and the next carries all that came meanwhile.
// Its fields are guarded by the consumer's mu, except those of the goroutine that
// saves.
type saver struct {
	node      uint64 // tells our saves from those of another node
	group     *saveGroup
	saving    bool           // a goroutine saves
	work      sync.WaitGroup // goroutines that save or write letters; added to under mu
	epochSafe bool           // the epoch is on disk: tokens may be made
	savedHead uint64         // of the last save
	savedAt   int64
	failing   bool // the last save failed

	revision uint64 // of the last save; used by the goroutine that saves
	state    state
	value    []byte
}

// saveGroup is who waits for one save.
type saveGroup struct {
	done chan struct{}
	err  error // set before done is closed
}

// A state that is large, since much of what was tried is unsettled, is not saved as fast
// as the disk allows: the disk is that of the stream, and others wait for it.
const (
	freeState = 64 << 10 // bytes that cost no pause
	stateRate = 2 << 20  // bytes a second beyond them
)

// pauseAfter is how long a consumer lets others have the disk after a save of so many
// bytes.
func pauseAfter(size int) time.Duration {
	return time.Duration(max(size-freeState, 0)) * time.Second / stateRate
}

const (
	saveTimeout  = 10 * time.Second
	firstBackoff = 50 * time.Millisecond
	lastBackoff  = time.Second
)

// requestSave makes the state as it is now part of the next save, and returns whom
// to wait for. The caller holds mu.
func (c *Consumer) requestSave() *saveGroup {
	if c.group == nil {
		c.group = &saveGroup{done: make(chan struct{})}
	}
	group := c.group
	if !c.saving {
		c.saving = c.spawn(c.save)
		if !c.saving {
			c.finishGroup(group, fmt.Errorf("save consumer %s: deliveries have stopped: %w", c.def.Name, lockstep.ErrUnavailable))
		}
	}
	return group
}

// spawn runs f in a goroutine that the broker and remove wait for. The caller holds mu.
func (c *Consumer) spawn(f func()) bool {
	c.work.Add(1)
	started := c.b.spawn(func() {
		defer c.work.Done()
		f()
	})
	if !started {
		c.work.Done()
	}
	return started
}

// finishGroup tells those who wait for a save how it went. The caller holds mu.
func (c *Consumer) finishGroup(g *saveGroup, err error) {
	if c.group == g {
		c.group = nil
	}
	g.err = err
	close(g.done)
}

// await waits for a save.
func (g *saveGroup) await(ctx context.Context) error {
	select {
	case <-g.done:
		return g.err
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// saveNow saves the state as it is.
func (c *Consumer) saveNow(ctx context.Context) error {
	c.mu.Lock()
	if c.err != nil {
		defer c.mu.Unlock()
		return c.err
	}
	g := c.requestSave()
	c.mu.Unlock()
	return g.await(ctx)
}

// save is the goroutine that saves, as long as there is something to save. After a
// failure it tries again until that succeeds or the broker stops: what is acked in
// memory must not be forgotten, although those who acked were told to try again.
func (c *Consumer) save() {
	backoff := firstBackoff
	for {
		c.mu.Lock()
		if c.err != nil || (c.group == nil && !c.failing) || (c.failing && c.b.stopping() && c.group == nil) {
			if c.group != nil {
				c.finishGroup(c.group, c.err)
			}
			c.saving = false
			c.mu.Unlock()
			return
		}
		w, group := c.w, c.group
		c.syncHead()
		slots := w.snapshot(&c.state)
		c.state.node = c.node
		c.state.mark(c.log.Last())
		c.group = nil
		c.mu.Unlock()

		c.value = c.state.append(c.value[:0])
		err := c.store(c.value)
		if err == nil {
			c.b.cfg.States.Note(c.id, c.state.floor(), uint64(c.state.epoch))
		}

		c.mu.Lock()
		failed := c.stored(w, slots, group, err)
		c.mu.Unlock()
		if !failed {
			backoff = firstBackoff
			c.rest(pauseAfter(len(c.value)))
			continue
		}
		c.rest(backoff)
		backoff = min(2*backoff, lastBackoff)
	}
}

// rest waits, unless the broker or the consumer ends.
func (c *Consumer) rest(d time.Duration) {
	if d <= 0 {
		return
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-c.b.stop:
	case <-c.over:
	}
}

// stored does what follows a save, and reports whether it must be tried again. The
// caller holds mu.
func (c *Consumer) stored(w *window, slots []int32, group *saveGroup, err error) (failed bool) {
	ctx := context.Background()
	if err == nil {
		if c.failing {
			c.b.log.InfoContext(ctx, "the consumer's state is saved again", obs.KeyConsumer, c.def.Name)
		}
		c.failing, c.epochSafe = false, true
		c.savedHead, c.savedAt = c.state.head, c.b.now()
		w.saved(c.b.now(), slots)
		if group != nil {
			c.finishGroup(group, nil)
		}
		c.settleDown()
		return false
	}
	w.unsaved(slots)
	if errors.Is(err, lockstep.ErrFenced) {
		c.b.log.ErrorContext(ctx, "another node serves the consumer; it is served here no more", obs.KeyConsumer, c.def.Name, obs.KeyError, err)
		c.end(fmt.Errorf("consumer %s: another node serves it: %w", c.def.Name, err))
		if group != nil {
			c.finishGroup(group, c.err)
		}
		return false
	}
	if !c.failing {
		c.b.log.ErrorContext(ctx, "the consumer's state cannot be saved: acks are refused until it can; look at the disk of the stream",
			obs.KeyConsumer, c.def.Name, obs.KeyError, err)
	}
	c.failing = true
	if group != nil {
		c.finishGroup(group, fmt.Errorf("save consumer %s: %w; try again: %w", c.def.Name, err, lockstep.ErrUnavailable))
	}
	return true
}

// store writes a state. A save whose answer got lost looks like somebody else's
// write to the next one; the node that the stored state names tells which it was.
func (c *Consumer) store(value []byte) error {
	// A save outlives the call that asked for it: others wait for it too.
	ctx, cancel := context.WithTimeout(context.Background(), saveTimeout)
	defer cancel()
	revision, err := c.b.cfg.States.Save(ctx, c.id, value, c.revision)
	if err == nil {
		c.revision = revision
		return nil
	}
	if !errors.Is(err, lockstep.ErrFenced) {
		return err
	}
	stored, revision, loadErr := c.b.cfg.States.Load(ctx, c.id)
	if loadErr != nil {
		return fmt.Errorf("find out whose save was first: %w", loadErr)
	}
	if s, parseErr := parseState(stored); parseErr != nil || s.node != c.node {
		return err
	}
	c.revision = revision
	if revision, err = c.b.cfg.States.Save(ctx, c.id, value, revision); err != nil {
		return err
	}
	c.revision = revision
	return nil
}

// flush saves what is not saved.
func (c *Consumer) flush(ctx context.Context) error {
	c.mu.Lock()
	if c.err != nil {
		c.mu.Unlock()
		return nil
	}
	c.wakeAll()
	c.syncHead()
	if c.w.deliveries == 0 && !c.saving && c.savedHead == c.w.head {
		c.mu.Unlock()
		return nil
	}
	g := c.requestSave()
	c.mu.Unlock()
	return g.await(ctx)
}

const (
	upkeepSteps = 5000 // a head that moved less is saved once a minute
	upkeepPause = time.Minute
	warnShare   = 10 // warn when this part of the log is left to a consumer, as 1/warnShare
)

// upkeep saves where an idle consumer stands, so that a restart does not look at
// everything anew, and tells what retention has taken.
func (c *Consumer) upkeep(ctx context.Context) {
	if c.b.enter() != nil {
		return
	}
	defer c.b.leave()
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.err != nil {
		return
	}
	c.syncHead()
	c.tick()
	first, last, low := c.log.First(), c.log.Last().Seq, c.w.lowest()
	if low < first && last > 0 {
		c.w.retention(c.b.now(), first)
		c.requestSave()
		c.settleDown()
	} else if low > first && (low-first)*warnShare < last-first && last > low && first > 1 {
		c.b.log.WarnContext(ctx, "the consumer is about to lose changes to retention: settle its oldest changes, or raise the stream's retention",
			obs.KeyConsumer, c.def.Name, obs.KeySeq, low)
	}
	moved := c.w.head - min(c.w.head, c.savedHead)
	if moved >= upkeepSteps || (moved > 0 && c.b.now()-c.savedAt >= int64(upkeepPause)) {
		c.requestSave()
	}
}
