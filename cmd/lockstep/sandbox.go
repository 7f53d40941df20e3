package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"lockstep/internal/config"
	"lockstep/sandbox"
	"lockstep/sandbox/github"
	"lockstep/sandbox/stripe"
)

type sandboxCmd struct {
	API          []string `name:"api" enum:"stripe,github" default:"stripe,github" help:"Which APIs: stripe, github. A single one is served at the root as its vendor does, several under /stripe, /github."`
	Listen       string   `default:"127.0.0.1:12111" help:"The address; port 0 picks a free one."`
	Seed         uint64   `default:"1" help:"The number that the worlds are made of: equal seeds make equal worlds."`
	Customers    int      `default:"100" help:"Stripe: customers with a history; -1: none."`
	Bulk         int      `help:"Stripe: so many more customers, without a history; a million costs nothing."`
	Repositories int      `default:"5" help:"GitHub: repositories of the organization; -1: none."`
	Pace         float64  `default:"1" help:"Things that happen per second: somebody signs up, pays, merges. 0: the worlds stand still."`
	Unlimited    bool     `help:"Leave the vendors' rate limits off."`
	Fault        []string `sep:"none" placeholder:"FAULT" help:"Break answers: a kind with its settings, such as status,status=503,probability=0.1 or stripe:truncate,path=^/v1/customers$,nth=3 (for one API only), or JSON as for /_sandbox/faults. May be repeated."`
}

// simulated is an API with what a user has to know to sync it.
type simulated struct {
	sandbox.API
	faults     *sandbox.Faults
	kind       string // of the credential
	properties [][2]string
	about      string
}

// Run serves the sandboxes until it is told to stop.
func (v *sandboxCmd) Run(ctx context.Context, s streams, p printer) error {
	apis, err := v.apis()
	if err != nil {
		return usageError{err}
	}
	for _, text := range v.Fault {
		if err := addFault(apis, text); err != nil {
			return usageError{fmt.Errorf("--fault %s: %w", text, err)}
		}
	}
	if _, err := config.Loopback(v.Listen); err != nil {
		return usageError{fmt.Errorf("--listen: %w, write host:port, such as 127.0.0.1:12111", err)}
	}
	listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", v.Listen)
	if err != nil {
		return fmt.Errorf("listen on %s: %w; is another sandbox running? choose another address with --listen", v.Listen, err)
	}
	mounted := make([]sandbox.API, 0, len(apis))
	for _, a := range apis {
		mounted = append(mounted, a)
	}
	if err := tellSandbox(s, p, "http://"+listener.Addr().String(), apis); err != nil {
		return errors.Join(err, listener.Close())
	}
	return serveUntil(ctx, sandboxServer(mounted...), listener)
}

func sandboxServer(apis ...sandbox.API) *http.Server {
	return &http.Server{
		Handler: sandbox.Mount(apis...), ReadHeaderTimeout: 10 * time.Second, IdleTimeout: 2 * time.Minute,
		// Connections that break are what faults are for.
		ErrorLog: log.New(io.Discard, "", 0),
	}
}

// graceful is how long requests that are being answered may go on after the end.
const graceful = 3 * time.Second

// serveUntil serves until ctx ends, and then lets what is being answered end.
func serveUntil(ctx context.Context, server *http.Server, listener net.Listener) error {
	group, running := errgroup.WithContext(ctx)
	group.Go(func() error {
		if err := server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
			return fmt.Errorf("serve the sandbox: %w", err)
		}
		return nil
	})
	group.Go(func() error {
		<-running.Done()
		ending, stop := context.WithTimeout(context.WithoutCancel(ctx), graceful)
		defer stop()
		if server.Shutdown(ending) != nil {
			// A fault holds somebody for ever.
			return server.Close()
		}
		return nil
	})
	return group.Wait()
}

func (v *sandboxCmd) apis() ([]simulated, error) {
	if v.Pace < 0 || v.Bulk < 0 {
		return nil, errors.New("--pace and --bulk must not be negative")
	}
	var out []simulated
	for _, name := range v.API {
		for _, other := range out {
			if other.Name() == name {
				return nil, fmt.Errorf("--api names %s twice", name)
			}
		}
		one, err := v.simulate(name)
		if err != nil {
			return nil, err
		}
		out = append(out, one)
	}
	return out, nil
}

func (v *sandboxCmd) simulate(name string) (simulated, error) {
	if name == "github" {
		world, err := github.New(github.Options{Seed: sandbox.Seed(v.Seed), Repositories: v.Repositories, Pace: v.Pace, Unlimited: v.Unlimited})
		if err != nil {
			return simulated{}, err
		}
		return simulated{
			API: world, faults: world.Core().Faults(), kind: "github_token", properties: [][2]string{{"token", "ghp_sandbox1"}},
			about: "any ghp_… or github_pat_… signs in",
		}, nil
	}
	world, err := stripe.New(stripe.Options{Seed: sandbox.Seed(v.Seed), Customers: v.Customers, Bulk: v.Bulk, Pace: v.Pace, Unlimited: v.Unlimited})
	if err != nil {
		return simulated{}, err
	}
	return simulated{
		API: world, faults: world.Core().Faults(), kind: "stripe_key", properties: [][2]string{{"secret", "sk_test_sandbox1"}},
		about: "any sk_test_…, sk_live_… or rk_… signs in",
	}, nil
}

// sandboxView is what is told about one API.
type sandboxView struct {
	API        string            `json:"api"`
	URL        string            `json:"url"`
	Control    string            `json:"control"`
	Credential sandboxCredential `json:"credential"`
}

type sandboxCredential struct {
	Kind       string            `json:"kind"`
	Properties map[string]string `json:"properties"`
}

// tellSandbox writes where everything is and what to put into the configuration.
func tellSandbox(s streams, p printer, address string, apis []simulated) error {
	views := make([]sandboxView, 0, len(apis))
	var told, snippet strings.Builder
	for _, a := range apis {
		url := address
		if len(apis) > 1 {
			url += "/" + a.Name()
		}
		view := sandboxView{API: a.Name(), URL: url, Control: url + "/_sandbox/", Credential: sandboxCredential{Kind: a.kind, Properties: map[string]string{}}}
		given := make([]string, 0, len(a.properties))
		for _, property := range a.properties {
			view.Credential.Properties[property[0]] = property[1]
			given = append(given, property[0]+": "+property[1])
		}
		views = append(views, view)
		fmt.Fprintf(&told, "  %-8s %s\n  key      %s (%s)\n  control  %s\n\n", a.Name(), view.URL, a.properties[0][1], a.about, view.Control)
		fmt.Fprintf(&snippet, "  - name: %s\n    provider: %s\n    base_url: %s\n    credential: {kind: %s, properties: {%s}}\n",
			a.Name(), a.Name(), view.URL, a.kind, strings.Join(given, ", "))
	}
	if p.format != "table" {
		return p.result(views, table{})
	}
	if p.quiet {
		t := table{}
		for _, view := range views {
			t.add(view.URL)
		}
		return p.table(t)
	}
	_, err := fmt.Fprintf(s.out, "lockstep sandbox: simulated APIs\n\n%sTo mirror them put this into lockstep.yml, then run lockstep serve:\n\nsyncs:\n%s", told.String(), snippet.String())
	return err
}
