package chaos_test

import (
	"context"
	"errors"
	"math/rand/v2"
	"net/http"
	"sync"
	"time"

	"lockstep/client"
)

// crew is the workers of one consumer. They can vanish all at once.
type crew struct {
	api    *client.Client
	audit  *audit
	size   int
	random *rand.Rand // of the one who lets them vanish

	mu     sync.Mutex
	cancel context.CancelFunc
	work   sync.WaitGroup
}

// start sends new workers to work.
func (c *crew) start(ctx context.Context) {
	c.mu.Lock()
	defer c.mu.Unlock()
	ctx, c.cancel = context.WithCancel(ctx)
	for range c.size {
		w := worker{api: c.api, audit: c.audit, random: rand.New(rand.NewPCG(c.random.Uint64(), 0))}
		c.work.Go(func() { w.run(ctx) })
	}
}

// stop ends them wherever they are: with changes in hand, in the middle of a call.
func (c *crew) stop() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.cancel != nil {
		c.cancel()
		c.cancel = nil
	}
	c.work.Wait()
}

// worker takes, processes and settles, not always as it should.
type worker struct {
	api    *client.Client
	audit  *audit
	random *rand.Rand
}

func (w *worker) run(ctx context.Context) {
	for ctx.Err() == nil {
		asked, life := time.Now(), w.audit.life()
		got, err := w.api.Next(ctx, w.audit.consumer, 1+w.random.IntN(300), time.Second)
		if err != nil {
			// The node is away; the next call finds out when it is back.
			wait(ctx, 20*time.Millisecond)
			continue
		}
		if len(got.Deliveries) == 0 {
			continue
		}
		w.audit.receive(got.Deliveries, asked, life)
		w.settle(ctx, got.Deliveries)
	}
}

func (w *worker) settle(ctx context.Context, ds []client.Delivery) {
	lease := w.audit.lease
	switch dice := w.random.IntN(400); {
	case dice < 6: // dies with its batch in hand
	case dice < 16:
		n := 1 + w.random.IntN(len(ds))
		w.audit.nacking(ds, n)
		_ = w.api.Nack(ctx, w.audit.consumer, client.Nack{Delay: 10 * time.Millisecond}, tokens(ds[:n])...) // may be lost with a kill
		w.ack(ctx, ds[n:])
	case dice < 18: // slower than its lease
		wait(ctx, lease+time.Duration(w.random.IntN(500))*time.Millisecond)
		w.ack(ctx, ds)
	case dice < 20: // slow, and says so
		asked := time.Now()
		if w.api.Extend(ctx, w.audit.consumer, 3*lease, tokens(ds)...) != nil {
			return
		}
		w.audit.extended(ds, asked, 3*lease)
		wait(ctx, lease*3/2)
		w.ack(ctx, ds)
	case dice < 120: // the end before the beginning
		n := w.random.IntN(len(ds))
		w.ack(ctx, ds[n:])
		w.ack(ctx, ds[:n])
	default:
		w.ack(ctx, ds)
	}
}

func (w *worker) ack(ctx context.Context, ds []client.Delivery) {
	if len(ds) == 0 || ctx.Err() != nil {
		return
	}
	w.audit.acking(ds)
	err := w.api.Ack(ctx, w.audit.consumer, tokens(ds)...)
	if err == nil {
		w.audit.answered(ds, nil)
		return
	}
	if problem, ok := errors.AsType[*client.Problem](err); ok && problem.Status == http.StatusConflict && len(problem.Stale) > 0 {
		w.audit.answered(ds, problem.Stale)
	}
}

func tokens(ds []client.Delivery) []string {
	list := make([]string, len(ds))
	for i := range ds {
		list[i] = ds[i].Token
	}
	return list
}
