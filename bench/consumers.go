package bench

import (
	"context"
	"errors"
	"fmt"
	"time"

	"golang.org/x/sync/errgroup"
)

// Consumers measures what a change costs with few and with many consumers.
func Consumers(ctx context.Context, o Options) (Report, error) {
	return o.run(ctx, plan{
		name:  "consumers",
		about: "what capturing and delivering a change costs the node, by the number of consumers",
		conditions: func(o Options) []string {
			where := "CPU of the node's process"
			if o.Within {
				where = "CPU of one process that is node and client"
			}
			return []string{
				fmt.Sprintf("disjoint: %d changes over %d tables in turns, 100 per transaction; the consumers share the tables out, so each change is delivered once however many there are", o.Rows, o.manyTables()),
				fmt.Sprintf("same: %d changes of one table, each delivered to every consumer", o.Rows/4),
				"live: workers wait while a writer inserts; backlog: all is captured first, then drained, and only draining is counted; one worker per consumer (4 for one alone), batches of 500",
				fmt.Sprintf("%s, per delivery; %d rounds of all cases in turns; floor: one consumer measured twice in each round; every change is counted at its worker", where, o.Rounds),
			}
		},
		measure: func(ctx context.Context, o Options) ([]Figure, error) { return o.inLab(ctx, consumersAll) },
	})
}

func (o Options) manyTables() int { return o.pick(500, 50) }

// spreadOut is a number of consumers over a number of tables.
type spreadOut struct {
	consumers, tables, rows int
	same                    bool // all consumers have the same table; else each has its own
	again                   bool // the case was measured before in this round: the floor
}

func (s spreadOut) String() string {
	kind := "disjoint tables"
	if s.same {
		kind = "the same table"
	}
	if s.consumers == 1 {
		return "1 consumer, " + kind
	}
	return fmt.Sprintf("%d consumers, %s", s.consumers, kind)
}

func (o Options) spreads() []spreadOut {
	var all []spreadOut
	counts := []int{1, 10, 100, 500}
	if o.Quick {
		counts = []int{1, 10, 50}
	}
	for _, n := range counts {
		all = append(all, spreadOut{consumers: n, tables: o.manyTables(), rows: o.Rows})
	}
	all = append(all, spreadOut{consumers: 1, tables: o.manyTables(), rows: o.Rows, again: true})
	for _, n := range []int{1, o.pick(50, 10)} {
		all = append(all, spreadOut{consumers: n, tables: 1, rows: o.Rows / 4, same: true})
	}
	return append(all, spreadOut{consumers: 1, tables: 1, rows: o.Rows / 4, same: true, again: true})
}

// cost is what one way of delivering took.
type cost struct {
	cpu   float64 // µs per delivery
	rate  float64 // deliveries/s
	batch float64 // deliveries per call of next
}

func consumersAll(ctx context.Context, l *lab) (figures []Figure, err error) {
	n, err := l.node(ctx)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, n.stop()) }()
	if err := n.tables(ctx, n.manyTables()); err != nil {
		return nil, err
	}
	cases := n.spreads()
	live, backlog := make([][]cost, len(cases)), make([][]cost, len(cases))
	for round := range n.Rounds {
		for i, c := range cases {
			n.say("consumers: round %d, %s", round+1, c)
			a, b, err := n.spreadOut(ctx, c)
			if err != nil {
				return nil, fmt.Errorf("%s: %w", c, err)
			}
			live[i], backlog[i] = append(live[i], a), append(backlog[i], b)
		}
	}
	figures = append(figures, costs(cases, "live", live)...)
	return append(figures, costs(cases, "backlog", backlog)...), nil
}

// costs makes figures of what was measured: absolute ones, and the cost as a ratio
// to that of one consumer in the same round.
func costs(cases []spreadOut, way string, runs [][]cost) []Figure {
	each := func(runs []cost, of func(cost) float64) []float64 {
		var values []float64
		for _, c := range runs {
			values = append(values, of(c))
		}
		return values
	}
	cpu := func(i int) []float64 { return each(runs[i], func(c cost) float64 { return c.cpu }) }
	var figures []Figure
	one, again := 0, 0
	for i, c := range cases {
		if c.again {
			continue
		}
		if c.consumers == 1 {
			one, again = i, i
			for cases[again].same != c.same || !cases[again].again {
				again++
			}
		}
		of := way + ": " + c.String()
		figures = append(figures,
			figure(of, "CPU", "µs/delivery", cpu(i)),
			figure(of, "taken and acked", "deliveries/s", each(runs[i], func(c cost) float64 { return c.rate })),
			figure(of, "taken by one call", "deliveries", each(runs[i], func(c cost) float64 { return c.batch })))
		if i == one {
			continue
		}
		f := figure(of, "CPU by that with one consumer", "", quotients(cpu(i), cpu(one))).beside(quotients(cpu(again), cpu(one)))
		f.Aim = "flat: 1"
		if c.same && way == "live" {
			f.Aim = "" // capture is paid once, however many share it
		}
		figures = append(figures, f)
	}
	return figures
}

func quotients(a, b []float64) []float64 {
	out := make([]float64, len(a))
	for i := range a {
		out[i] = a[i] / b[i]
	}
	return out
}

// spreadOut makes the consumers, delivers to them live and then from a backlog, and
// deletes them.
func (n *node) spreadOut(ctx context.Context, s spreadOut) (live, backlog cost, err error) {
	tables := make([][]string, s.consumers)
	for t := range s.tables {
		at := t % s.consumers
		tables[at] = append(tables[at], fmt.Sprintf("public.bench_%d", t))
	}
	for i := range s.consumers {
		if s.same {
			tables[i] = []string{"public.bench_0"}
		}
		if err := n.consumer(ctx, consumerName(i), "now", tables[i]...); err != nil {
			return live, backlog, err
		}
	}
	if live, err = n.cost(ctx, s, n.insertWhile); err != nil {
		return live, backlog, fmt.Errorf("live: %w", err)
	}
	if backlog, err = n.cost(ctx, s, n.insertBefore); err != nil {
		return live, backlog, fmt.Errorf("backlog: %w", err)
	}
	for i := range s.consumers {
		if err := n.api.DeleteConsumer(ctx, consumerName(i)); err != nil {
			return live, backlog, err
		}
	}
	return live, backlog, nil
}

// cost has the crews of the consumers work in the given way, and says what it took
// of the node.
func (n *node) cost(ctx context.Context, s spreadOut, way func(context.Context, spreadOut, int, []crew) (used, took time.Duration, err error)) (cost, error) {
	last, err := n.last(ctx)
	if err != nil {
		return cost{}, err
	}
	crews := n.crews(s, last)
	used, took, err := way(ctx, s, int(last)+1, crews)
	if err != nil {
		return cost{}, err
	}
	deliveries, calls := 0, 0
	for i, c := range crews {
		if i == 0 || c.tally != crews[i-1].tally {
			deliveries += c.tally.want
			calls += int(c.tally.calls.Load())
		}
	}
	d := float64(deliveries)
	return cost{cpu: float64(used.Microseconds()) / d, rate: d / took.Seconds(), batch: d / float64(calls)}, nil
}

// crews are the workers. Consumers with tables of their own share one tally: each
// change must come to exactly one of them.
func (n *node) crews(s spreadOut, behind uint64) []crew {
	shared := newTally(behind, s.rows)
	crews := make([]crew, s.consumers)
	for i := range crews {
		crews[i] = crew{consumer: consumerName(i), workers: 1, batch: 500, tally: shared}
		if s.consumers == 1 {
			crews[i].workers = 4
		}
		if s.same {
			crews[i].tally = newTally(behind, s.rows)
		}
	}
	return crews
}

func (n *node) insertWhile(ctx context.Context, s spreadOut, first int, crews []crew) (used, took time.Duration, err error) {
	before, err := n.cpu()
	if err != nil {
		return 0, 0, err
	}
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return n.insert(ctx, s.tables, first, s.rows) })
	group.Go(func() (err error) {
		took, err = n.work(ctx, crews...)
		return err
	})
	if err := group.Wait(); err != nil {
		return 0, 0, err
	}
	after, err := n.cpu()
	return after - before, took, err
}

func (n *node) insertBefore(ctx context.Context, s spreadOut, first int, crews []crew) (used, took time.Duration, err error) {
	if err := n.insert(ctx, s.tables, first, s.rows); err != nil {
		return 0, 0, err
	}
	if err := n.captured(ctx, uint64(first+s.rows-1)); err != nil {
		return 0, 0, err
	}
	before, err := n.cpu()
	if err != nil {
		return 0, 0, err
	}
	if took, err = n.work(ctx, crews...); err != nil {
		return 0, 0, err
	}
	after, err := n.cpu()
	return after - before, took, err
}
