package bench

import (
	"context"
	"errors"
	"fmt"

	"golang.org/x/sync/errgroup"
)

// Memory measures the resident memory of a node, which is a process of its own: with
// ten consumers of which one is far behind, and with one large transaction.
func Memory(ctx context.Context, o Options) (Report, error) {
	return o.run(ctx, plan{
		name:  "memory",
		about: "the most resident memory of a node's process while it captures and delivers",
		conditions: func(o Options) []string {
			return []string{
				fmt.Sprintf("ten consumers: %d changes are captured and delivered to nine with a worker each (batches of 500), the tenth has none; then it gets 4 workers, while %d more are captured and delivered to all", o.Backlog, o.Rows),
				fmt.Sprintf("large transaction: one INSERT of %d rows of about 200 B, one consumer with 4 workers", o.Transaction),
				fmt.Sprintf("MB of 2^20; VmHWM and samples each 20 ms of /proc; %d rounds, each with a new node, stream and Postgres; every change is counted at every worker", o.fewer()),
			}
		},
		measure: memoryAll,
	})
}

const memoryAim = 200 // MB

func memoryAll(ctx context.Context, o Options) ([]Figure, error) {
	var ten, large []Figure
	for round := range o.fewer() {
		o.say("memory: ten consumers, round %d", round+1)
		more, err := o.inLab(ctx, tenConsumers)
		if err != nil {
			return nil, fmt.Errorf("ten consumers: %w", err)
		}
		ten = joined(ten, more)
		o.say("memory: large transaction, round %d", round+1)
		if more, err = o.inLab(ctx, largeTransaction); err != nil {
			return nil, fmt.Errorf("large transaction: %w", err)
		}
		large = joined(large, more)
	}
	figures := append(ten, large...)
	for i, f := range figures {
		if f.Name == "resident, peak" {
			figures[i] = f.below(memoryAim, fmt.Sprintf("under %d", memoryAim))
		}
	}
	return figures, nil
}

// joined adds the runs of a further round.
func joined(before, more []Figure) []Figure {
	if before == nil {
		return more
	}
	for i, f := range before {
		before[i] = figure(f.Case, f.Name, f.Unit, append(f.Runs, more[i].Runs...))
	}
	return before
}

// watched measures the memory of the node while work is done. The node's highest
// value since its start counts, so that no peak lies between two samples.
func (n *node) watched(ctx context.Context, of string, work func(context.Context) error) ([]Figure, error) {
	sampling, stop := context.WithCancel(ctx)
	defer stop()
	var most memory
	var group errgroup.Group
	group.Go(func() (err error) {
		most, err = watch(sampling, n.pid)
		return err
	})
	err := work(ctx)
	stop()
	if err := errors.Join(err, group.Wait()); err != nil {
		return nil, err
	}
	return []Figure{
		figure(of, "resident, peak", "MB", []float64{most.peak}),
		figure(of, "of which not from files", "MB", []float64{most.own}),
	}, nil
}

func tenConsumers(ctx context.Context, l *lab) (figures []Figure, err error) {
	n, err := l.node(ctx)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, n.stop()) }()
	if err := n.tables(ctx, 1); err != nil {
		return nil, err
	}
	for i := range 10 {
		if err := n.consumer(ctx, consumerName(i), "beginning", "public.bench_0"); err != nil {
			return nil, err
		}
	}
	idle, err := memoryOf(n.pid)
	if err != nil {
		return nil, err
	}
	figures = []Figure{figure("ten consumers, nothing to do", "resident", "MB", []float64{idle.resident})}
	more, err := n.watched(ctx, fmt.Sprintf("ten consumers, one falls behind by %s", Number(float64(n.Backlog))), func(ctx context.Context) error {
		return n.insertAndWork(ctx, 1, n.Backlog, n.nine(0, n.Backlog)...)
	})
	if err != nil {
		return nil, err
	}
	figures = append(figures, more...)
	more, err = n.watched(ctx, "ten consumers, the last one catches up", func(ctx context.Context) error {
		late := crew{consumer: consumerName(9), workers: 4, batch: 500, tally: newTally(0, n.Backlog+n.Rows)}
		return n.insertAndWork(ctx, n.Backlog+1, n.Rows, append(n.nine(uint64(n.Backlog), n.Rows), late)...)
	})
	return append(figures, more...), err
}

// nine has a worker for each consumer but the last.
func (n *node) nine(behind uint64, changes int) []crew {
	crews := make([]crew, 9)
	for i := range crews {
		crews[i] = crew{consumer: consumerName(i), workers: 1, batch: 500, tally: newTally(behind, changes)}
	}
	return crews
}

func (n *node) insertAndWork(ctx context.Context, first, rows int, crews ...crew) error {
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return n.insert(ctx, 1, first, rows) })
	group.Go(func() error {
		_, err := n.work(ctx, crews...)
		return err
	})
	return group.Wait()
}

func largeTransaction(ctx context.Context, l *lab) (figures []Figure, err error) {
	n, err := l.node(ctx)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, n.stop()) }()
	if err := n.tables(ctx, 1); err != nil {
		return nil, err
	}
	if err := n.consumer(ctx, consumerName(0), "beginning", "public.bench_0"); err != nil {
		return nil, err
	}
	if _, err := n.db.Exec(ctx, `INSERT INTO bench_0 `+rowsOf("1", "$1::bigint"), n.Transaction); err != nil {
		return nil, fmt.Errorf("insert: %w", err)
	}
	of := fmt.Sprintf("one transaction of %s rows", Number(float64(n.Transaction)))
	var rate float64
	figures, err = n.watched(ctx, of, func(ctx context.Context) error {
		took, err := n.work(ctx, crew{consumer: consumerName(0), workers: 4, batch: 500, tally: newTally(0, n.Transaction)})
		rate = float64(n.Transaction) / took.Seconds()
		return err
	})
	return append(figures, figure(of, "from its commit to the last ack", "changes/s", []float64{rate})), err
}

func consumerName(i int) string { return fmt.Sprintf("worker-%d", i) }
