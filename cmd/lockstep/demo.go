package main

import (
	"context"
	"embed"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sync/errgroup"

	"lockstep"
	"lockstep/engine"
	"lockstep/internal/config"
	"lockstep/internal/demo"
	"lockstep/internal/pgdb/cluster"
	"lockstep/sandbox/github"
	"lockstep/sandbox/stripe"
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
	accounts, err := openAccounts(ctx)
	if err != nil {
		return err
	}
	cfg, err := demoConfig(filepath.Join(dir, "data"), accounts, s)
	if err != nil {
		return errors.Join(err, accounts.listener.Close())
	}
	ready := make(chan engine.Node, 1)
	node := engine.New(cfg, engine.Options{Logger: log, Version: version(), Ready: func(n engine.Node) { ready <- n }})

	// The node outlives the load: what was committed is delivered and compared.
	running, stop := context.WithCancelCause(context.WithoutCancel(ctx))
	defer stop(nil)
	group, running := errgroup.WithContext(running)
	group.Go(func() error { return accounts.run(running) })
	group.Go(func() error { return node.Run(running) })
	group.Go(func() error {
		defer stop(errDemoOver)
		select {
		case n := <-ready:
			return d.show(ctx, cfg, n, accounts, s)
		case <-running.Done():
			return nil
		case <-ctx.Done():
			return nil
		}
	})
	return group.Wait()
}

var errDemoOver = errors.New("the demo is over")

func (d *demoCmd) show(ctx context.Context, cfg *config.Config, n engine.Node, accounts *accounts, s streams) error {
	url := n.Databases[cfg.Database]
	fmt.Fprintf(s.out, `lockstep demo: a private Postgres under pgbench's TPC-B load, three workers over HTTP,
and two simulated accounts mirrored into it while they live: Stripe and GitHub

  console %[2]s/
  psql    psql '%[1]s'
          SELECT id, email, _synced_at FROM stripe.customer ORDER BY _synced_at DESC LIMIT 5;
          SELECT number, state, title FROM github.pull_request ORDER BY updated_at DESC LIMIT 5;
  tail    lockstep tail --server %[2]s
  pull    curl '%[2]s/v1/http-consumers/%[3]s/peek?limit=1'
  sync    lockstep sync show stripe --watch --server %[2]s
  stripe  curl -u %[5]s: '%[4]s/v1/customers?limit=1'
  github  curl -H 'Authorization: Bearer %[7]s' '%[6]s/orgs/acme/repos'

`, url, n.Server, demo.Consumer, accounts.stripe.URL, accounts.stripe.Key, accounts.github.URL, accounts.github.Key)
	bin, err := cluster.FindBin(cfg.PGBin)
	if err != nil {
		return err
	}
	style := demo.Plain
	if isTerminal(s.out) {
		style = demo.Live
	}
	return demo.Run(ctx, demo.Target{
		Server: n.Server, Database: url, Publication: cfg.Databases[0].Publication, Stripe: accounts.stripe, GitHub: accounts.github,
		BinDir: bin, For: d.For, Out: s.out, Style: style,
	})
}

//go:embed demo.yml
var demoFiles embed.FS

// demoConfig reads the demo's configuration. Of the environment it takes only where
// Postgres is: nobody's own settings are to be in the way.
func demoConfig(dir string, a *accounts, s streams) (*config.Config, error) {
	values := map[string]string{
		"DEMO_DIR": dir, "DEMO_LISTEN": freeAddress(config.Default().Listen),
		"STRIPE_URL": a.stripe.URL, "STRIPE_KEY": a.stripe.Key, "GITHUB_URL": a.github.URL, "GITHUB_TOKEN": a.github.Key,
	}
	if bin, ok := s.lookup("LOCKSTEP_PG_BIN"); ok {
		values["LOCKSTEP_PG_BIN"] = bin
	}
	s.lookup = func(name string) (string, bool) {
		value, ok := values[name]
		return value, ok
	}
	text, err := demoFiles.ReadFile("demo.yml")
	if err != nil {
		return nil, err
	}
	return config.Parse("demo.yml", text, configOptions(s))
}

// accounts are the simulated accounts that the demo mirrors, at an address of their own.
type accounts struct {
	stripe, github demo.Account
	server         *http.Server
	listener       net.Listener
}

// The accounts are small and lively. Comments and labels that somebody deletes on
// GitHub are found by sweeps hours later, so that nobody does.
const (
	demoCustomers, demoRepositories = 50, 2
	demoStripePace, demoGitHubPace  = 5, 1 // things that happen per second
)

func openAccounts(ctx context.Context) (*accounts, error) {
	shop, err := stripe.New(stripe.Options{Customers: demoCustomers, Pace: demoStripePace})
	if err != nil {
		return nil, err
	}
	organization, err := github.New(github.Options{Repositories: demoRepositories, Pace: demoGitHubPace, Deletions: -1})
	if err != nil {
		return nil, err
	}
	listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("listen for the simulated accounts: %w: %w", err, lockstep.ErrEnvironment)
	}
	at := "http://" + listener.Addr().String() + "/"
	return &accounts{
		stripe: demo.Account{URL: at + shop.Name(), Key: "sk_test_sandbox1"}, github: demo.Account{URL: at + organization.Name(), Key: "ghp_sandbox1"},
		server: sandboxServer(shop, organization), listener: listener,
	}, nil
}

func (a *accounts) run(ctx context.Context) error { return serveUntil(ctx, a.server, a.listener) }

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
