package demo

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"golang.org/x/sync/errgroup"

	"lockstep"
	"lockstep/client"
)

const (
	batchSize = 200
	longPoll  = 2 * time.Second
	refusals  = 20 // the third worker refuses about one of so many changes of accounts
)

// crew is the workers of one consumer and what they have counted.
type crew struct {
	api  *client.Client
	view *view

	mu        sync.Mutex
	count     numbers // guarded by mu
	latencies times   // guarded by mu
	marker    uint64  // guarded by mu: the last transaction's xid, once there is one
	marked    bool    // guarded by mu: it has arrived
}

// numbers is what the crew has seen so far.
type numbers struct {
	processed, redelivered, dead uint64
	p50, p99                     time.Duration
	newest                       time.Time // commit time of the newest change processed
}

// start starts two workers that compete and one that refuses now and then. They end
// with ctx.
func (c *crew) start(ctx context.Context, group *errgroup.Group) {
	for range 2 {
		group.Go(func() error { return c.work(ctx, func() bool { return false }) })
	}
	group.Go(func() error { return c.work(ctx, func() bool { return rand.IntN(refusals) == 0 }) })
}

// work takes, processes and acks until ctx ends.
func (c *crew) work(ctx context.Context, refuse func() bool) error {
	for ctx.Err() == nil {
		got, err := c.api.Next(ctx, Consumer, batchSize, longPoll)
		if err != nil {
			if ctx.Err() != nil {
				return nil
			}
			return fmt.Errorf("worker: next: %w", err)
		}
		if err := c.process(ctx, got.Deliveries, refuse); err != nil && ctx.Err() == nil {
			return fmt.Errorf("worker: %w", err)
		}
	}
	return nil
}

func (c *crew) process(ctx context.Context, deliveries []client.Delivery, refuse func() bool) error {
	now := time.Now()
	var acks, nacks []string
	// A refused change takes the later ones of its key with it: they are not
	// processed either.
	refused := map[string]bool{}
	for _, d := range deliveries {
		key := d.Metadata.TableName + fmt.Sprint(d.Metadata.RecordPKs)
		if refused[key] || d.Metadata.TableName == "pgbench_accounts" && refuse() {
			if !refused[key] {
				nacks = append(nacks, d.Token)
			}
			refused[key] = true
			continue
		}
		c.view.apply(d.Metadata.TableName, d.Action, d.Metadata.RecordPKs, d.Metadata.Seq, d.Record)
		acks = append(acks, d.Token)
		c.saw(d, now)
	}
	if len(acks) > 0 {
		if err := settled(c.api.Ack(ctx, Consumer, acks...)); err != nil {
			return fmt.Errorf("ack: %w", err)
		}
	}
	if len(nacks) > 0 {
		if err := settled(c.api.Nack(ctx, Consumer, client.Nack{Delay: 200 * time.Millisecond, Reason: "the demo refuses one now and then"}, nacks...)); err != nil {
			return fmt.Errorf("nack: %w", err)
		}
	}
	return nil
}

// settled takes stale tokens for settled: the change will come again, and the view
// notices.
func settled(err error) error {
	if errors.Is(err, lockstep.ErrConflict) {
		return nil
	}
	return err
}

func (c *crew) saw(d client.Delivery, now time.Time) {
	committed := d.Metadata.CommitTime()
	c.mu.Lock()
	defer c.mu.Unlock()
	c.count.processed++
	c.marked = c.marked || c.marker != 0 && d.Metadata.XID == c.marker
	if d.Attempt > 1 {
		c.count.redelivered++
		return // its latency is the refusal's delay
	}
	if committed.After(c.count.newest) {
		c.count.newest = committed
	}
	c.latencies.add(now.Sub(committed))
}

// numbers returns what was counted, with percentiles of the last few thousand
// changes.
func (c *crew) numbers() numbers {
	c.mu.Lock()
	defer c.mu.Unlock()
	n := c.count
	n.p50, n.p99 = c.latencies.percentiles()
	return n
}

// drain commits one last row and waits until it has arrived, and with it everything
// that was committed before, and the consumer has nothing left.
func (c *crew) drain(ctx context.Context, db *pgxpool.Pool) error {
	const last = `INSERT INTO pgbench_history (tid, bid, aid, delta, mtime) VALUES (1, 1, 1, 0, CURRENT_TIMESTAMP)
		RETURNING (pg_current_xact_id()::text::numeric % 4294967296)::bigint`
	ctx, cancel := context.WithTimeoutCause(ctx, 2*time.Minute, errors.New("the consumer was not done two minutes after the load ended"))
	defer cancel()
	// Nobody may see the row before its xid is known here.
	c.mu.Lock()
	err := db.QueryRow(ctx, last).Scan(&c.marker)
	c.mu.Unlock()
	if err != nil {
		return fmt.Errorf("commit the last row: %w", err)
	}
	return poll(ctx, 50*time.Millisecond, func() (bool, error) {
		c.mu.Lock()
		marked := c.marked
		c.mu.Unlock()
		got, err := c.api.Consumer(ctx, Consumer)
		if err != nil {
			return false, err
		}
		c.mu.Lock()
		c.count.dead = got.Stats.Dead
		c.mu.Unlock()
		return marked && got.Stats.Pending == 0 && got.Stats.InFlight == 0, nil
	})
}
