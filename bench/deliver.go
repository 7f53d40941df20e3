package bench

import (
	"context"
	"errors"
	"fmt"
	"time"

	"golang.org/x/sync/errgroup"
)

// Deliver measures pulling over HTTP: from a filled stream, while capture is live,
// and the time from commit to worker.
func Deliver(ctx context.Context, o Options) (Report, error) {
	o.Within = true
	return o.run(ctx, plan{
		name:  "deliver",
		about: "next and ack over HTTP on loopback; node, client and Postgres on this machine",
		conditions: func(o Options) []string {
			return []string{
				fmt.Sprintf("%d changes of about 200 B, at most %d with batches of 1; %d rounds in turns; node and client are one process", o.Rows, smallBatches, o.fewer()),
				"every seq is counted at the worker, once; an ack is on the disk before it is answered; Postgres and stream with fsync",
				"commit to worker: from the commit time that Postgres stamps to the worker that has read the answer; the writers' schedule waits for nobody",
			}
		},
		measure: func(ctx context.Context, o Options) ([]Figure, error) { return o.inLab(ctx, deliverAll) },
	})
}

// smallBatches is how many changes are enough with one per call.
const smallBatches = 20_000

func deliverAll(ctx context.Context, l *lab) (figures []Figure, err error) {
	n, err := l.node(ctx)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, n.stop()) }()
	if err := n.tables(ctx, 1); err != nil {
		return nil, err
	}
	for _, part := range []func(context.Context) ([]Figure, error){n.filled, n.live, n.latencies} {
		more, err := part(ctx)
		if err != nil {
			return nil, err
		}
		figures = append(figures, more...)
	}
	return figures, nil
}

// pull is a way to take from a filled stream.
type pull struct {
	workers, batch int
	aim            float64
}

func (n *node) filled(ctx context.Context) ([]Figure, error) {
	if err := n.insert(ctx, 1, 1, n.Rows); err != nil {
		return nil, err
	}
	if err := n.captured(ctx, uint64(n.Rows)); err != nil {
		return nil, err
	}
	pulls := []pull{{4, 500, 100_000}, {4, 100, 0}, {4, 1, 5000}, {16, 1, 0}}
	rates := make([][]float64, len(pulls))
	for round := range n.fewer() {
		for i, p := range pulls {
			n.say("deliver: filled stream, round %d, %d workers, batches of %d", round+1, p.workers, p.batch)
			rate, err := n.pull(ctx, p, fmt.Sprintf("filled-%d-%d", i, round))
			if err != nil {
				return nil, err
			}
			rates[i] = append(rates[i], rate)
		}
	}
	var figures []Figure
	for i, p := range pulls {
		f := figure(fmt.Sprintf("filled stream, %d workers, batches of %d", p.workers, p.batch), "next and ack", "changes/s", rates[i])
		if p.aim > 0 {
			f = f.atLeast(p.aim, fmt.Sprintf("at least %s", Number(p.aim)))
		}
		figures = append(figures, f)
	}
	return figures, nil
}

func (n *node) pull(ctx context.Context, p pull, name string) (rate float64, err error) {
	if err := n.consumer(ctx, name, "beginning", "public.bench_0"); err != nil {
		return 0, err
	}
	changes := n.Rows
	if p.batch == 1 {
		changes = min(changes, smallBatches)
	}
	t := newTally(0, changes)
	t.part = true
	took, err := n.work(ctx, crew{consumer: name, workers: p.workers, batch: p.batch, tally: t})
	if err != nil {
		return 0, err
	}
	// More than were asked for may be acked before the last worker hears of the end.
	return float64(changes) / took.Seconds(), n.api.DeleteConsumer(ctx, name)
}

func (n *node) live(ctx context.Context) ([]Figure, error) {
	var taken, committed []float64
	for round := range n.fewer() {
		n.say("deliver: while a writer inserts, round %d", round+1)
		last, err := n.last(ctx)
		if err != nil {
			return nil, err
		}
		name := fmt.Sprintf("live-%d", round)
		if err := n.consumer(ctx, name, "now", "public.bench_0"); err != nil {
			return nil, err
		}
		var group errgroup.Group
		var inserted time.Duration
		group.Go(func() error {
			start := time.Now()
			err := n.insertOverWire(ctx, int(last)+1, n.Rows)
			inserted = time.Since(start)
			return err
		})
		took, err := n.work(ctx, crew{consumer: name, workers: 4, batch: 500, tally: newTally(last, n.Rows)})
		if err := errors.Join(err, group.Wait()); err != nil {
			return nil, err
		}
		taken, committed = append(taken, float64(n.Rows)/took.Seconds()), append(committed, float64(n.Rows)/inserted.Seconds())
		if err := n.api.DeleteConsumer(ctx, name); err != nil {
			return nil, err
		}
	}
	const of = "live: one writer inserts, 4 workers, batches of 500"
	return []Figure{
		figure(of, "next and ack", "changes/s", taken).atLeast(50_000, "at least 50,000"),
		figure(of, "committed by the writer", "rows/s", committed),
	}, nil
}

// insertOverWire commits rows as an application does: a statement of 100 rows at a
// time over a connection.
func (n *node) insertOverWire(ctx context.Context, first, rows int) error {
	sql := `INSERT INTO bench_0 ` + rowsOf("$1::bigint", "$2::bigint")
	for end := first + rows; first < end; first += 100 {
		if _, err := n.db.Exec(ctx, sql, first, first+99); err != nil {
			return fmt.Errorf("insert: %w", err)
		}
	}
	return nil
}
