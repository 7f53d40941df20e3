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

// desk settles deliveries: those of many writes go together, since each call waits for
// the disk, which others use too. Calls keep their distance while enough is left to be
// written meanwhile.
type desk struct {
	consumer *deliver.Consumer
	plenty   int           // claims that do not wait
	open     atomic.Int64  // claims that are not settled yet
	settled  chan struct{} // one value: open has become less

	mu     sync.Mutex
	acks   []deliver.Claim
	nacks  map[give][]deliver.Claim
	count  int           // of them
	work   chan struct{} // one value: there is something to do
	now    chan struct{} // one value: it must not wait
	closed bool
}

// The least time between the beginnings of two rounds of settling.
const (
	distance      = 5 * time.Millisecond
	distanceNacks = 50 * time.Millisecond // when nothing was delivered: what is given back waits anyway
)

func newDesk(c *deliver.Consumer, plenty int) *desk {
	return &desk{
		consumer: c, plenty: plenty, nacks: map[give][]deliver.Claim{},
		work: make(chan struct{}, 1), now: make(chan struct{}, 1), settled: make(chan struct{}, 1),
	}
}

// hurry says that nothing is left to be written: what waits must not wait longer.
func (d *desk) hurry() { ring(d.now) }

func (d *desk) ack(claims []deliver.Claim) {
	if len(claims) == 0 {
		return
	}
	d.mu.Lock()
	d.acks = append(d.acks, claims...)
	d.added(len(claims))
}

func (d *desk) nack(g give, claims ...deliver.Claim) {
	if len(claims) == 0 {
		return
	}
	d.mu.Lock()
	d.nacks[g] = append(d.nacks[g], claims...)
	d.added(len(claims))
}

// added gives back mu.
func (d *desk) added(n int) {
	d.count += n
	plenty := d.count >= d.plenty
	d.mu.Unlock()
	d.open.Add(int64(n))
	ring(d.work)
	if plenty {
		ring(d.now)
	}
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
	ring(d.now)
}

// settleTries bounds how long what cannot be settled is tried while the desk closes.
const (
	settleTries = 8
	settleWidth = 8
)

// run settles until the desk is closed and empty. What can never be settled, because
// the consumer is gone, is dropped.
func (d *desk) run(ctx context.Context) {
	var last time.Time
	var spare []deliver.Claim // the memory of the acks before
	for {
		d.mu.Lock()
		count, closed := d.count, d.closed
		d.mu.Unlock()
		if count == 0 {
			if closed {
				return
			}
			<-d.work
			continue
		}
		d.keep(last)
		last = time.Now()
		d.mu.Lock()
		acks, nacks := d.acks, d.nacks
		d.acks, d.nacks, d.count = spare[:0], map[give][]deliver.Claim{}, 0
		d.mu.Unlock()
		// Acks go first: a nack gives back what follows it.
		d.settle(ctx, acks, d.consumer.AckClaims)
		spare = acks[:0]
		if cap(spare) > deliver.MaxTokens {
			spare = nil
		}
		var group errgroup.Group
		group.SetLimit(settleWidth)
		for g, claims := range nacks {
			group.Go(func() error {
				o := deliver.NackOptions{Mode: g.mode, Reason: g.reason}
				if g.delay >= 0 {
					o.Delay = &g.delay
				}
				d.settle(ctx, claims, func(ctx context.Context, some []deliver.Claim) ([]deliver.Claim, error) {
					return d.consumer.NackClaims(ctx, some, o)
				})
				return nil
			})
		}
		_ = group.Wait()
	}
}

// keep waits until the distance to the last round is kept, unless it must not wait.
func (d *desk) keep(last time.Time) {
	for {
		d.mu.Lock()
		apart := distance
		if len(d.acks) == 0 {
			apart = distanceNacks
		}
		d.mu.Unlock()
		left := time.Until(last.Add(apart))
		if left <= 0 {
			return
		}
		timer := time.NewTimer(left)
		select {
		case <-timer.C:
		case <-d.work: // maybe an ack
		case <-d.now:
			timer.Stop()
			return
		}
		timer.Stop()
	}
}

// settle calls do until it succeeds, or cannot. Stale claims are those of changes that
// somebody took from us: they come again.
func (d *desk) settle(ctx context.Context, claims []deliver.Claim, do func(context.Context, []deliver.Claim) ([]deliver.Claim, error)) {
	for some := range slices.Chunk(claims, deliver.MaxTokens) {
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
