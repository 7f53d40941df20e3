package pump

import (
	"context"
	"errors"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"lockstep"
	"lockstep/internal/deliver"
)

// give says how changes are given back.
type give struct {
	mode   deliver.NackMode
	delay  time.Duration // below 0: the consumer's backoff
	reason string
}

// desk settles deliveries: acks of many writes go together, since each waits for the
// disk.
type desk struct {
	consumer *deliver.Consumer
	open     atomic.Int64  // tokens that are not settled yet
	settled  chan struct{} // one value: open has become less

	mu     sync.Mutex
	acks   []string
	nacks  map[give][]string
	work   chan struct{} // one value: there is something to do
	closed bool
}

func newDesk(c *deliver.Consumer) *desk {
	return &desk{consumer: c, nacks: map[give][]string{}, work: make(chan struct{}, 1), settled: make(chan struct{}, 1)}
}

func (d *desk) ack(tokens []string) {
	if len(tokens) == 0 {
		return
	}
	d.mu.Lock()
	d.acks = append(d.acks, tokens...)
	d.mu.Unlock()
	d.open.Add(int64(len(tokens)))
	ring(d.work)
}

func (d *desk) nack(g give, tokens ...string) {
	if len(tokens) == 0 {
		return
	}
	d.mu.Lock()
	d.nacks[g] = append(d.nacks[g], tokens...)
	d.mu.Unlock()
	d.open.Add(int64(len(tokens)))
	ring(d.work)
}

func ring(bell chan struct{}) {
	select {
	case bell <- struct{}{}:
	default:
	}
}

// close ends run when everything is settled.
func (d *desk) close() {
	d.mu.Lock()
	d.closed = true
	d.mu.Unlock()
	ring(d.work)
}

// settleTries bounds how long what cannot be settled is tried while the desk closes.
const (
	settleTries = 8
	settleWidth = 8
)

// run settles until the desk is closed and empty. What can never be settled, because
// the consumer is gone, is dropped.
func (d *desk) run(ctx context.Context) {
	for {
		d.mu.Lock()
		acks, nacks, closed := d.acks, d.nacks, d.closed
		d.acks, d.nacks = nil, map[give][]string{}
		d.mu.Unlock()
		if len(acks) == 0 && len(nacks) == 0 {
			if closed {
				return
			}
			<-d.work
			continue
		}
		// Acks go first: a nack gives back what follows it.
		d.settle(ctx, acks, d.consumer.Ack)
		var group errgroup.Group
		group.SetLimit(settleWidth)
		for g, tokens := range nacks {
			group.Go(func() error {
				o := deliver.NackOptions{Mode: g.mode, Reason: g.reason}
				if g.delay >= 0 {
					o.Delay = &g.delay
				}
				d.settle(ctx, tokens, func(ctx context.Context, some []string) ([]string, error) { return d.consumer.Nack(ctx, some, o) })
				return nil
			})
		}
		_ = group.Wait()
	}
}

// settle calls do until it succeeds, or cannot. Stale tokens are those of changes that
// somebody took from us: they come again.
func (d *desk) settle(ctx context.Context, tokens []string, do func(context.Context, []string) ([]string, error)) {
	for some := range slices.Chunk(tokens, deliver.MaxTokens) {
		pause := 20 * time.Millisecond
		for try := 0; ; try++ {
			_, err := do(ctx, some)
			if err == nil || errors.Is(err, lockstep.ErrNotFound) || errors.Is(err, lockstep.ErrFenced) || errors.Is(err, lockstep.ErrInvalid) {
				break
			}
			if try >= settleTries && d.closing() {
				break // its lease runs out
			}
			timer := time.NewTimer(pause)
			<-timer.C
			pause = min(2*pause, time.Second)
		}
		d.open.Add(-int64(len(some)))
		ring(d.settled)
	}
}

func (d *desk) closing() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.closed
}
