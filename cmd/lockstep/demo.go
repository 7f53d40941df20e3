package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sync/errgroup"

	"lockstep"
	"lockstep/engine"
	"lockstep/internal/config"
	"lockstep/internal/demo"
	"lockstep/internal/pgdb/cluster"
)

type demoCmd struct {
	For time.Duration `default:"0s" help:"How long the load runs; 0: until interrupted."`
}

// Run runs the demonstration: it needs no configuration and leaves nothing behind.
func (d *demoCmd) Run(ctx context.Context, c *cli, s streams) error {
	if d.For < 0 {
		return usageError{fmt.Errorf("--for %s: must not be negative", d.For)}
	}
	log, err := s.logger()
	if err != nil {
		return err
	}
	if level, _ := s.lookup("LOCKSTEP_LOG"); level == "" {
		log = quiet()
	}
	dir, err := os.MkdirTemp("", "lockstep-demo-")
	if err != nil {
		return fmt.Errorf("make a directory for the demo: %w: %w", err, lockstep.ErrEnvironment)
	}
	defer func() { _ = os.RemoveAll(dir) }() // the demo's own, below the system's directory for such
	// Postgres runs as another user below it.
	if err := os.Chmod(dir, 0o755); err != nil {
		return err
	}
	cfg := demoConfig(filepath.Join(dir, "data"))
	cfg.PGBin, _ = s.lookup("LOCKSTEP_PG_BIN")
	ready := make(chan engine.Node, 1)
	node := engine.New(cfg, engine.Options{Logger: log, Version: version(), Ready: func(n engine.Node) { ready <- n }})

	// The node outlives the load: what was committed is delivered and compared.
	running, stop := context.WithCancelCause(context.WithoutCancel(ctx))
	defer stop(nil)
	group, running := errgroup.WithContext(running)
	group.Go(func() error { return node.Run(running) })
	group.Go(func() error {
		defer stop(errDemoOver)
		select {
		case n := <-ready:
			return d.show(ctx, cfg, n, s)
		case <-running.Done():
			return nil
		case <-ctx.Done():
			return nil
		}
	})
	return group.Wait()
}

var errDemoOver = errors.New("the demo is over")

func (d *demoCmd) show(ctx context.Context, cfg *config.Config, n engine.Node, s streams) error {
	url := n.Databases[cfg.Database]
	fmt.Fprintf(s.out, `lockstep demo: a private Postgres under pgbench's TPC-B load, three workers over HTTP

  psql   psql '%s'
  tail   lockstep tail --server %s
  pull   curl '%s/v1/http-consumers/%s/peek?limit=1'

`, url, n.Server, n.Server, demo.Consumer)
	bin, err := cluster.FindBin(cfg.PGBin)
	if err != nil {
		return err
	}
	style := demo.Plain
	if isTerminal(s.out) {
		style = demo.Live
	}
	return demo.Run(ctx, demo.Target{
		Server: n.Server, Database: url, Publication: cfg.Databases[0].Publication, BinDir: bin, For: d.For, Out: s.out, Style: style,
	})
}

func demoConfig(dir string) *config.Config {
	cfg := config.Default()
	cfg.DataDir = dir
	cfg.Listen = freeAddress(cfg.Listen)
	worker := config.DefaultConsumer()
	worker.Name, worker.Database = demo.Consumer, cfg.Database
	worker.Tables = demo.Tables()
	worker.Start = config.Start{Kind: config.StartBeginning}
	worker.AckWait = 10 * time.Second
	cfg.Consumers = append(cfg.Consumers, worker)
	return cfg
}

// freeAddress returns the usual address, or one with a port of the system's choice
// when a node is running there.
func freeAddress(usual string) string {
	l, err := net.Listen("tcp", usual)
	if err != nil {
		return "127.0.0.1:0"
	}
	_ = l.Close() // it was only asked for
	return usual
}
