package bench

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"lockstep/client"
)

// tally counts changes at the worker: each seq once, none after its ack. It may be
// used concurrently.
type tally struct {
	want  int
	part  bool                         // only a part of the consumer's changes is wanted, so more may be acked
	full  chan struct{}                // closed when that many are acked
	judge func(*client.Delivery) error // what else is asked of each delivery; nil: nothing. Calls do not overlap
	calls atomic.Int64                 // of Next that brought something

	mu    sync.Mutex // guards what follows
	first uint64     // seqs up to it must not come
	seen  bitmap
	acked bitmap
	count int // of those that were acked
}

// newTally expects that many changes behind the seq.
func newTally(behind uint64, want int) *tally {
	return &tally{want: want, first: behind + 1, full: make(chan struct{})}
}

// bitmap is a set of small numbers that grows.
type bitmap []uint64

// add puts n in and reports whether it was in before.
func (b *bitmap) add(n uint64) (had bool) {
	for n/64 >= uint64(len(*b)) {
		*b = append(*b, make([]uint64, max(1024, len(*b)))...)
	}
	bit := uint64(1) << (n % 64)
	had = (*b)[n/64]&bit != 0
	(*b)[n/64] |= bit
	return had
}

func (b bitmap) has(n uint64) bool {
	return n/64 < uint64(len(b)) && b[n/64]&(1<<(n%64)) != 0
}

// repeats says whether a change may come again before its ack: only a node that was
// killed in between may do that.
type repeats bool

const (
	never     repeats = false
	untilAcks repeats = true
)

// take notes changes that were handed out.
func (t *tally) take(got []client.Delivery, again repeats) error {
	t.calls.Add(1)
	t.mu.Lock()
	defer t.mu.Unlock()
	for i := range got {
		seq := got[i].Metadata.Seq
		if seq < t.first {
			return fmt.Errorf("change %d came, which lies before the first one of this run", seq)
		}
		if t.acked.has(seq - t.first) {
			return fmt.Errorf("change %d came again after its ack", seq)
		}
		if t.seen.add(seq-t.first) && again == never {
			return fmt.Errorf("change %d came twice", seq)
		}
		if t.judge == nil {
			continue
		}
		if err := t.judge(&got[i]); err != nil {
			return err
		}
	}
	return nil
}

// settle notes changes whose ack was answered with success.
func (t *tally) settle(got []client.Delivery) {
	t.mu.Lock()
	defer t.mu.Unlock()
	before := t.count
	for i := range got {
		if !t.acked.add(got[i].Metadata.Seq - t.first) {
			t.count++
		}
	}
	if before < t.want && t.count >= t.want {
		close(t.full)
	}
}

// check returns an error when other than the wanted number of changes were acked.
func (t *tally) check() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.count < t.want || t.count > t.want && !t.part {
		return fmt.Errorf("%d changes were acked, expected %d", t.count, t.want)
	}
	return nil
}

// crew is workers of one consumer.
type crew struct {
	consumer string
	workers  int
	batch    int
	again    repeats
	tally    *tally
}

// work has the crews take and ack until every tally is full. It returns how long
// that took from the call on. A while without any change is an error.
func (n *node) work(ctx context.Context, crews ...crew) (time.Duration, error) {
	start := time.Now()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	group, ctx := errgroup.WithContext(ctx)
	for _, c := range crews {
		for range c.workers {
			group.Go(func() error { return done(ctx, n.worker(ctx, c)) })
		}
	}
	var took time.Duration
	group.Go(func() error {
		defer cancel()
		for _, c := range crews {
			select {
			case <-c.tally.full:
			case <-ctx.Done():
				return nil
			}
		}
		took = time.Since(start)
		return nil
	})
	if err := group.Wait(); err != nil {
		return 0, err
	}
	if took == 0 {
		return 0, context.Cause(ctx)
	}
	for _, c := range crews {
		if err := c.tally.check(); err != nil {
			return 0, fmt.Errorf("consumer %s: %w", c.consumer, err)
		}
	}
	return took, nil
}

const (
	patience = 2 * time.Minute // how long a worker may get nothing
	longPoll = 20 * time.Second
)

// worker takes and acks until ctx ends.
func (n *node) worker(ctx context.Context, c crew) error {
	heard := time.Now()
	for ctx.Err() == nil {
		got, err := n.api.Next(ctx, c.consumer, c.batch, longPoll)
		if err != nil {
			return err
		}
		if len(got.Deliveries) == 0 {
			if err := c.tally.check(); err != nil && time.Since(heard) > patience {
				return fmt.Errorf("consumer %s: nothing came for %s: %w", c.consumer, patience, err)
			}
			continue
		}
		heard = time.Now()
		if err := n.settle(ctx, c, got.Deliveries); err != nil {
			return err
		}
	}
	return nil
}

// settle notes and acks what was handed out.
func (n *node) settle(ctx context.Context, c crew, got []client.Delivery) error {
	if err := c.tally.take(got, c.again); err != nil {
		return fmt.Errorf("consumer %s: %w", c.consumer, err)
	}
	tokens := make([]string, len(got))
	for i := range got {
		tokens[i] = got[i].Token
	}
	if err := n.api.Ack(ctx, c.consumer, tokens...); err != nil {
		return err
	}
	c.tally.settle(got)
	return nil
}

// done takes the end of ctx for no error.
func done(ctx context.Context, err error) error {
	if errors.Is(err, context.Canceled) && ctx.Err() != nil {
		return nil
	}
	return err
}
