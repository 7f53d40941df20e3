package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"runtime/pprof"
	"strings"
	"time"

	"lockstep/bench"
)

type benchCmd struct {
	Quick       bool   `help:"A short run that shows that everything works; its figures say nothing."`
	Rows        int    `placeholder:"N" help:"Changes per run (200000; quick 20000)."`
	Rounds      int    `placeholder:"N" help:"Runs of each side (5; quick 2); half of it where no ratio is measured."`
	Backlog     int    `placeholder:"N" help:"Changes of a backlog, rows of a backfill, records of a sync (1000000; quick 40000)."`
	Transaction int    `placeholder:"N" help:"Rows of the large transaction of memory (5000000; quick 100000)."`
	Dir         string `placeholder:"DIR" help:"Where the temporary directory is made; it should lie on a disk, not in memory."`
	CPUProfile  string `name:"cpuprofile" placeholder:"FILE" help:"Write a CPU profile of capture, deliver, send, consumers, backfill or sync; the node then runs in this process."`

	All       benchAllCmd       `cmd:"" help:"Everything below, one after the other."`
	Capture   benchCaptureCmd   `cmd:"" help:"How fast changes come out of Postgres, beside pg_recvlogical."`
	Deliver   benchDeliverCmd   `cmd:"" help:"How fast workers take and settle changes, and the time from commit to worker."`
	Send      benchSendCmd      `cmd:"" help:"How fast webhooks and sinks are, beside bare clients, streams of events to many clients, and a destination beside one that fails."`
	Memory    benchMemoryCmd    `cmd:"" help:"Resident memory with ten consumers, one far behind, and with one large transaction."`
	Restart   benchRestartCmd   `cmd:"" help:"How soon a killed node with a backlog delivers again."`
	Consumers benchConsumersCmd `cmd:"" help:"What a change costs with 1 to 500 consumers."`
	Backfill  benchBackfillCmd  `cmd:"" help:"How fast existing rows reach a consumer, beside COPY."`
	Sync      benchSyncCmd      `cmd:"" help:"How fast an API is mirrored, beside COPY and within its limits, and how soon a change of it is in Postgres."`
}

// measure is one benchmark of the package.
type measure func(context.Context, bench.Options) (bench.Report, error)

func (b *benchCmd) options(s streams, p printer) (bench.Options, error) {
	bin, _ := s.lookup("LOCKSTEP_PG_BIN")
	self, err := os.Executable()
	if err != nil {
		return bench.Options{}, fmt.Errorf("find this program, which is also the node that is measured: %w", err)
	}
	o := bench.Options{
		Quick: b.Quick, Rows: b.Rows, Rounds: b.Rounds, Backlog: b.Backlog, Transaction: b.Transaction,
		PGBin: bin, Version: version(), Binary: self, Dir: b.Dir, Within: b.CPUProfile != "",
	}
	if !p.quiet {
		o.Progress = s.err
	}
	return o, nil
}

// one measures and writes the result, with a profile if one is wanted.
func (b *benchCmd) one(ctx context.Context, s streams, p printer, m measure) (err error) {
	o, err := b.options(s, p)
	if err != nil {
		return err
	}
	if b.CPUProfile != "" {
		stop, err := profile(b.CPUProfile)
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, stop()) }()
	}
	r, err := m(ctx, o)
	if err != nil {
		return err
	}
	if p.format == "table" {
		return p.figures(r)
	}
	return p.result(r, table{})
}

// apart is one for what measures a process of its own.
func (b *benchCmd) apart(ctx context.Context, s streams, p printer, m measure) error {
	if b.CPUProfile != "" {
		return usageError{errors.New("--cpuprofile: this one measures a process of its own; profile capture, deliver, send, consumers, backfill or sync")}
	}
	return b.one(ctx, s, p, m)
}

// profile writes a CPU profile of this process to the file until stop is called.
func profile(path string) (stop func() error, err error) {
	f, err := os.Create(path)
	if err != nil {
		return nil, fmt.Errorf("--cpuprofile: %w", err)
	}
	if err := pprof.StartCPUProfile(f); err != nil {
		return nil, errors.Join(fmt.Errorf("--cpuprofile: %w", err), f.Close())
	}
	return func() error {
		pprof.StopCPUProfile()
		return f.Close()
	}, nil
}

type benchAllCmd struct{}

// Run measures everything. A benchmark that fails does not keep the others from it.
func (benchAllCmd) Run(ctx context.Context, c *cli, s streams, p printer) error {
	b := &c.Bench
	if b.CPUProfile != "" {
		return usageError{errors.New("--cpuprofile: one file holds one benchmark; profile capture, deliver, send, consumers, backfill or sync")}
	}
	o, err := b.options(s, p)
	if err != nil {
		return err
	}
	reports := []bench.Report{}
	var failed error
	for _, m := range []measure{bench.Capture, bench.Deliver, bench.Send, bench.Memory, bench.Restart, bench.Consumers, bench.Backfill, bench.Sync} {
		r, err := m(ctx, o)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err != nil {
			failed = errors.Join(failed, err)
			continue
		}
		reports = append(reports, r)
		if p.format != "table" {
			continue
		}
		if err := p.figures(r); err != nil {
			return err
		}
	}
	if p.format != "table" {
		failed = errors.Join(failed, p.result(reports, table{}))
	}
	return failed
}

type benchCaptureCmd struct{}

// Run measures capture.
func (benchCaptureCmd) Run(ctx context.Context, c *cli, s streams, p printer) error {
	return c.Bench.one(ctx, s, p, bench.Capture)
}

type benchDeliverCmd struct{}

// Run measures delivery.
func (benchDeliverCmd) Run(ctx context.Context, c *cli, s streams, p printer) error {
	return c.Bench.one(ctx, s, p, bench.Deliver)
}

type benchSendCmd struct {
	Parts []string `arg:"" optional:"" placeholder:"PART" help:"Only these: webhook, postgres, nats, kafka, redis, streams, failing."`
}

// Run measures sending.
func (b benchSendCmd) Run(ctx context.Context, c *cli, s streams, p printer) error {
	return c.Bench.one(ctx, s, p, func(ctx context.Context, o bench.Options) (bench.Report, error) {
		o.Parts = b.Parts
		return bench.Send(ctx, o)
	})
}

type benchMemoryCmd struct{}

// Run measures memory.
func (benchMemoryCmd) Run(ctx context.Context, c *cli, s streams, p printer) error {
	return c.Bench.apart(ctx, s, p, bench.Memory)
}

type benchRestartCmd struct{}

// Run measures starts after a kill.
func (benchRestartCmd) Run(ctx context.Context, c *cli, s streams, p printer) error {
	return c.Bench.apart(ctx, s, p, bench.Restart)
}

type benchConsumersCmd struct{}

// Run measures few and many consumers.
func (benchConsumersCmd) Run(ctx context.Context, c *cli, s streams, p printer) error {
	return c.Bench.one(ctx, s, p, bench.Consumers)
}

type benchBackfillCmd struct{}

// Run measures backfills.
func (benchBackfillCmd) Run(ctx context.Context, c *cli, s streams, p printer) error {
	return c.Bench.one(ctx, s, p, bench.Backfill)
}

type benchSyncCmd struct{}

// Run measures the mirror of an API.
func (benchSyncCmd) Run(ctx context.Context, c *cli, s streams, p printer) error {
	return c.Bench.one(ctx, s, p, bench.Sync)
}

// figures writes a report as a table under what it says about itself; quiet leaves a
// line per figure.
func (p printer) figures(r bench.Report) error {
	if p.quiet {
		for _, f := range r.Figures {
			if _, err := fmt.Fprintf(p.out, "%s, %s: %s %s\n", f.Case, f.Name, bench.Number(f.Median), f.Unit); err != nil {
				return err
			}
		}
		return nil
	}
	t := table{head: []string{"CASE", "FIGURE", "UNIT", "MEDIAN", "MIN", "MAX", "A/A FLOOR", "AIM", "REACHED"}}
	shown := ""
	for _, f := range r.Figures {
		cells := cells(f)
		if f.Case == shown {
			cells[0] = ""
		}
		if r.Quick {
			cells[len(cells)-1] = ""
		}
		shown = f.Case
		t.add(cells...)
	}
	if _, err := fmt.Fprintln(p.out, heading(r)); err != nil {
		return err
	}
	if err := p.table(t); err != nil {
		return err
	}
	_, err := fmt.Fprintln(p.out)
	return err
}

// cells is a figure as a row of the table.
func cells(f bench.Figure) []string {
	unit, floor, reached := f.Unit, "", ""
	if unit == "" {
		unit = "ratio"
	}
	if f.Floor != nil {
		floor = fmt.Sprintf("%s (%s to %s)", bench.Number(f.Floor.Median), bench.Number(f.Floor.Min), bench.Number(f.Floor.Max))
	}
	if f.Reached != nil {
		reached = "no"
		if *f.Reached {
			reached = "yes"
		}
	}
	return []string{f.Case, f.Name, unit, bench.Number(f.Median), bench.Number(f.Min), bench.Number(f.Max), floor, f.Aim, reached}
}

// heading is what was measured, how and where.
func heading(r bench.Report) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s: %s\n", r.Bench, r.About)
	if r.Quick {
		b.WriteString("  A QUICK RUN: it shows that everything works; its figures say nothing.\n")
	}
	for _, c := range r.Conditions {
		fmt.Fprintf(&b, "  %s\n", c)
	}
	m := r.Machine
	fmt.Fprintf(&b, "  %s: %d cores of %s, %s MB, %s, kernel %s, load %s; fsync of 4 KiB %s µs\n", r.At.Format(time.DateTime)+" UTC",
		m.Cores, m.CPU, bench.Number(float64(m.MemoryMB)), m.Platform, m.Kernel, m.Load, bench.Number(m.FsyncUS))
	fmt.Fprintf(&b, "  PostgreSQL %s, %s, lockstep %s; took %s\n", m.Postgres, m.Go, m.Version, time.Duration(r.Took*float64(time.Second)).Round(time.Second))
	return b.String()
}
