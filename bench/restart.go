package bench

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	"lockstep/client"
)

// Restart measures how soon a node that was killed with a backlog delivers again.
func Restart(ctx context.Context, o Options) (Report, error) {
	return o.run(ctx, plan{
		name:  "restart",
		about: "a node is killed (SIGKILL) and started again: from the start of the process to the first delivery that a worker has",
		conditions: func(o Options) []string {
			return []string{
				fmt.Sprintf("a backlog of %d changes of about 200 B; %d rounds; Postgres goes on running", o.Backlog, o.Rounds),
				"in the stream: captured and waiting for a consumer, some of it acked, some handed out when the node is killed; in the slot: committed while the node was down, the consumer had everything before",
				"the worker asks again each 2 ms until it is answered; files may be in the system's cache; afterwards all is drained: nothing missing, nothing after its ack",
			}
		},
		measure: func(ctx context.Context, o Options) ([]Figure, error) {
			stream, err := o.inLab(ctx, restartStream)
			if err != nil {
				return nil, fmt.Errorf("backlog in the stream: %w", err)
			}
			slot, err := o.inLab(ctx, restartSlot)
			if err != nil {
				return nil, fmt.Errorf("backlog in the slot: %w", err)
			}
			return append(stream, slot...), nil
		},
	})
}

// restarts collects what each start took.
type restarts struct {
	answer, first, caughtUp []float64 // seconds
}

func (r restarts) figures(of string) []Figure {
	figures := []Figure{
		figure(of, "process start to first answer over HTTP", "s", r.answer),
		figure(of, "process start to first delivery", "s", r.first).below(2, "under 2"),
	}
	if len(r.caughtUp) > 0 {
		figures = append(figures, figure(of, "process start to the last ack of the backlog", "s", r.caughtUp))
	}
	return figures
}

// begin starts the node's process and takes the first delivery.
func (r *restarts) begin(ctx context.Context, l *lab, c crew) (*node, time.Time, error) {
	start := time.Now()
	n, err := l.process(ctx)
	if err != nil {
		return nil, start, err
	}
	got, answered, err := n.firstDelivery(ctx, c)
	if err != nil {
		return nil, start, errors.Join(err, n.stop())
	}
	r.answer = append(r.answer, answered.Sub(start).Seconds())
	r.first = append(r.first, time.Since(start).Seconds())
	if err := n.settle(ctx, c, got); err != nil {
		return nil, start, errors.Join(err, n.stop())
	}
	return n, start, nil
}

// firstDelivery asks until there is one, and tells when the node answered at all.
func (n *node) firstDelivery(ctx context.Context, c crew) (got []client.Delivery, answered time.Time, err error) {
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); {
		b, err := n.api.Next(ctx, c.consumer, c.batch, 10*time.Second)
		var problem *client.Problem
		if answered.IsZero() && (err == nil || errors.As(err, &problem)) {
			answered = time.Now()
		}
		if len(b.Deliveries) > 0 {
			return b.Deliveries, answered, nil
		}
		if errors.As(err, &problem) && problem.Status != http.StatusNotFound && problem.Status != http.StatusServiceUnavailable {
			return nil, answered, err
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil, answered, context.Cause(ctx)
		}
	}
	return nil, answered, fmt.Errorf("nothing was delivered within %s of the start", patience)
}

func restartStream(ctx context.Context, l *lab) ([]Figure, error) {
	c := crew{consumer: consumerName(0), workers: 4, batch: 100, again: untilAcks, tally: newTally(0, l.Backlog)}
	n, err := l.prepared(ctx, c)
	if err != nil {
		return nil, err
	}
	if err := errors.Join(n.insert(ctx, 1, 1, l.Backlog), n.captured(ctx, uint64(l.Backlog))); err != nil {
		return nil, errors.Join(err, n.stop())
	}
	var r restarts
	for round := range l.Rounds {
		l.say("restart: backlog in the stream, round %d", round+1)
		if err := n.leave(ctx, c); err != nil {
			return nil, errors.Join(err, n.stop())
		}
		if n, _, err = r.begin(ctx, l, c); err != nil {
			return nil, err
		}
	}
	c.batch = 500
	_, err = n.work(ctx, c)
	return r.figures("backlog in the stream"), errors.Join(err, n.stop())
}

// prepared starts a node with the table and the consumer of a crew.
func (l *lab) prepared(ctx context.Context, c crew) (*node, error) {
	n, err := l.node(ctx)
	if err != nil {
		return nil, err
	}
	if err := errors.Join(n.tables(ctx, 1), n.consumer(ctx, c.consumer, "beginning", "public.bench_0")); err != nil {
		return nil, errors.Join(err, n.stop())
	}
	return n, nil
}

// leave takes some changes and acks every other of them, then kills the node.
func (n *node) leave(ctx context.Context, c crew) error {
	b, err := n.api.Next(ctx, c.consumer, 1000, time.Second)
	if err != nil {
		return err
	}
	var some []client.Delivery
	for i, d := range b.Deliveries {
		if i%2 == 0 {
			some = append(some, d)
		}
	}
	if err := n.settle(ctx, c, some); err != nil {
		return err
	}
	_ = n.kill() // that it was killed is what it returns
	return nil
}

func restartSlot(ctx context.Context, l *lab) ([]Figure, error) {
	c := crew{consumer: consumerName(0), workers: 4, batch: 500}
	n, err := l.prepared(ctx, c)
	if err != nil {
		return nil, err
	}
	var r restarts
	for round := range l.Rounds {
		l.say("restart: backlog in the slot, round %d", round+1)
		_ = n.kill() // that it was killed is what it returns
		behind := round * l.Backlog
		if err := l.insert(ctx, 1, behind+1, l.Backlog); err != nil {
			return nil, err
		}
		c.tally = newTally(uint64(behind), l.Backlog)
		var start time.Time
		if n, start, err = r.begin(ctx, l, c); err != nil {
			return nil, err
		}
		if _, err := n.work(ctx, c); err != nil {
			return nil, errors.Join(err, n.stop())
		}
		r.caughtUp = append(r.caughtUp, time.Since(start).Seconds())
	}
	return r.figures("backlog in the slot"), n.stop()
}
