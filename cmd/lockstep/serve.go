package main

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"

	"lockstep/engine"
	"lockstep/internal/config"
)

// collectAt is how much the heap of a node grows, in percent of what lives, before
// garbage is collected. Most of what a node holds is caches and buffers that live
// long, so that Go's own 100 would keep as much again; docs/performance.md has what
// it saves and costs. GOGC in the environment overrides it.
const collectAt = 40

type serveCmd struct {
	Config     string `short:"c" placeholder:"FILE" help:"The configuration; default lockstep.yml here, or the defaults when there is none."`
	NATSListen string `name:"nats-listen" placeholder:"ADDRESS" help:"Open the node's NATS server to clients, such as 127.0.0.1:7422; as stream.listen in the configuration, before which it goes."`
}

// Run runs a node until it is told to stop.
func (v *serveCmd) Run(ctx context.Context, s streams) error {
	cfg, err := config.Load(v.Config, configOptions(s))
	if problems, ok := errors.AsType[config.Problems](err); ok {
		_, _ = fmt.Fprintln(s.err, problems.Error())
		return usageError{errQuiet}
	}
	if err != nil {
		return err
	}
	if v.NATSListen != "" {
		if err := cfg.CheckListen(v.NATSListen); err != nil {
			return fmt.Errorf("--nats-listen: %w", err)
		}
		cfg.Stream.Listen = v.NATSListen
	}
	log, err := s.logger()
	if err != nil {
		return err
	}
	if _, chosen := s.lookup("GOGC"); !chosen {
		debug.SetGCPercent(collectAt)
	}
	node := engine.New(cfg, engine.Options{Logger: log, Version: version(), Stdout: s.out, Ready: func(n engine.Node) {
		log.InfoContext(ctx, "ready to serve", "version", version(), "server", n.Server, "data_dir", cfg.DataDir)
		if n.NATS != "" {
			log.InfoContext(ctx, "ready for NATS clients", "server", "nats://"+n.NATS)
		}
		for name, url := range n.Databases {
			log.InfoContext(ctx, "private database: connect with psql", "database", name, "url", url)
		}
	}})
	return node.Run(ctx)
}
