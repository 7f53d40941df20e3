package bench

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"
	"golang.org/x/sync/errgroup"
)

// pace is a steady load.
type pace struct {
	transactions int // per second
	rows         int // per transaction
	p50, p99     float64
}

// latencies commits at fixed rates and measures from Postgres' commit time to the
// worker.
func (n *node) latencies(ctx context.Context) ([]Figure, error) {
	paces := []pace{{100, 1, 0, 0}, {1000, 1, 3, 15}, {100, 100, 0, 0}}
	quantiles := []struct {
		name string
		at   float64
	}{{"p50", .5}, {"p95", .95}, {"p99", .99}, {"max", 1}}
	runs := make([][][]float64, len(paces))
	for i := range runs {
		runs[i] = make([][]float64, len(quantiles))
	}
	for round := range n.fewer() {
		for i, p := range paces {
			n.say("deliver: commit to worker, round %d, %d transactions/s of %d rows", round+1, p.transactions, p.rows)
			took, err := n.latency(ctx, p, fmt.Sprintf("latency-%d-%d", i, round))
			if err != nil {
				return nil, err
			}
			for q := range quantiles {
				at := min(int(quantiles[q].at*float64(len(took))), len(took)-1)
				runs[i][q] = append(runs[i][q], float64(took[at].Microseconds())/1000)
			}
		}
	}
	var figures []Figure
	for i, p := range paces {
		for q, quantile := range quantiles {
			f := figure(fmt.Sprintf("commit to worker, %d transactions/s of %d rows", p.transactions, p.rows), quantile.name, "ms", runs[i][q])
			switch {
			case quantile.name == "p50" && p.p50 > 0:
				f = f.below(p.p50, fmt.Sprintf("under %g", p.p50))
			case quantile.name == "p99" && p.p99 > 0:
				f = f.below(p.p99, fmt.Sprintf("under %g", p.p99))
			}
			figures = append(figures, f)
		}
	}
	return figures, nil
}

// latency returns the times from commit to worker, sorted.
func (n *node) latency(ctx context.Context, p pace, name string) ([]time.Duration, error) {
	last, err := n.last(ctx)
	if err != nil {
		return nil, err
	}
	if err := n.consumer(ctx, name, "now", "public.bench_0"); err != nil {
		return nil, err
	}
	transactions := p.transactions * n.pick(10, 2) // seconds
	c := crew{consumer: name, workers: 1, batch: 500, tally: newTally(last, transactions*p.rows)}
	var took []time.Duration
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error {
		for len(took) < c.tally.want {
			got, err := n.api.Next(ctx, name, c.batch, 5*time.Second)
			if err != nil {
				return err
			}
			if len(got.Deliveries) == 0 {
				return fmt.Errorf("consumer %s: %d of %d changes came, and then nothing for 5 seconds", name, len(took), c.tally.want)
			}
			now := time.Now()
			for i := range got.Deliveries {
				took = append(took, now.Sub(got.Deliveries[i].Metadata.CommitTime()))
			}
			if err := n.settle(ctx, c, got.Deliveries); err != nil {
				return err
			}
		}
		return nil
	})
	group.Go(func() error { return n.writeAt(ctx, p, transactions, int(last)) })
	if err := errors.Join(group.Wait(), c.tally.check()); err != nil {
		return nil, err
	}
	slices.Sort(took)
	return took, n.api.DeleteConsumer(context.WithoutCancel(ctx), name)
}

// writeAt commits that many transactions over four connections, each at its time:
// the schedule does not wait for anything, so that a stall is counted.
func (n *node) writeAt(ctx context.Context, p pace, transactions, behind int) error {
	const writers = 4
	sql := `INSERT INTO bench_0 ` + rowsOf("$1::bigint", "$2::bigint")
	group, ctx := errgroup.WithContext(ctx)
	start := time.Now()
	for w := range writers {
		group.Go(func() error {
			conn, err := n.db.Acquire(ctx)
			if err != nil {
				return err
			}
			defer conn.Release()
			timer := time.NewTimer(0)
			defer timer.Stop()
			for t := w; t < transactions; t += writers {
				timer.Reset(time.Until(start.Add(time.Duration(t) * time.Second / time.Duration(p.transactions))))
				select {
				case <-timer.C:
				case <-ctx.Done():
					return context.Cause(ctx)
				}
				first := behind + 1 + t*p.rows
				if _, err := conn.Exec(ctx, sql, pgx.QueryExecModeCacheStatement, first, first+p.rows-1); err != nil {
					return fmt.Errorf("insert: %w", err)
				}
			}
			return nil
		})
	}
	return group.Wait()
}
