package main

import (
	"context"
	"errors"

	"lockstep/bench"
)

type benchCmd struct {
	Rows   int `default:"200000" help:"Changes per run."`
	Rounds int `default:"5" help:"Runs of each side."`

	All     benchAllCmd     `cmd:"" help:"Everything below."`
	Capture benchCaptureCmd `cmd:"" help:"How fast changes come out of Postgres, beside pg_recvlogical."`
	Deliver benchDeliverCmd `cmd:"" help:"How fast workers take and settle changes."`
}

func (b *benchCmd) options(s streams) bench.Options {
	bin, _ := s.lookup("LOCKSTEP_PG_BIN")
	return bench.Options{Rows: b.Rows, Rounds: b.Rounds, PGBin: bin, Out: s.out}
}

type benchAllCmd struct{}

// Run measures everything.
func (benchAllCmd) Run(ctx context.Context, c *cli, s streams) error {
	o := c.Bench.options(s)
	return errors.Join(bench.Capture(ctx, o), bench.Deliver(ctx, o))
}

type benchCaptureCmd struct{}

// Run measures capture.
func (benchCaptureCmd) Run(ctx context.Context, c *cli, s streams) error {
	return bench.Capture(ctx, c.Bench.options(s))
}

type benchDeliverCmd struct{}

// Run measures delivery.
func (benchDeliverCmd) Run(ctx context.Context, c *cli, s streams) error {
	return bench.Deliver(ctx, c.Bench.options(s))
}
