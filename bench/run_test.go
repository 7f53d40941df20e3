package bench

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"net/http"
	"os"
	"os/signal"
	"strings"
	"testing"
	"time"

	"lockstep/engine"
	"lockstep/internal/config"
	"lockstep/sandbox"
	"lockstep/sandbox/stripe"
)

// TestMain is also the node and the sandbox: benchmarks of processes of their own start
// this program with the arguments of lockstep serve and lockstep sandbox.
func TestMain(m *testing.M) {
	var err error
	switch {
	case len(os.Args) == 4 && os.Args[1] == "serve":
		err = serve(os.Args[3])
	case len(os.Args) > 1 && os.Args[1] == "sandbox":
		err = simulate(os.Args[2:])
	default:
		os.Exit(m.Run())
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(0)
}

// simulate is lockstep sandbox, as far as it is used here.
func simulate(arguments []string) error {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	flags := flag.NewFlagSet("sandbox", flag.ContinueOnError)
	flags.String("api", "", "stripe, which is all that there is here")
	address := flags.String("listen", "", "where")
	var o stripe.Options
	flags.IntVar(&o.Customers, "customers", 0, "with a history")
	flags.IntVar(&o.Bulk, "bulk", 0, "without one")
	flags.Float64Var(&o.Pace, "pace", 0, "of the world")
	flags.BoolVar(&o.Unlimited, "unlimited", false, "no limits")
	if err := flags.Parse(arguments); err != nil {
		return err
	}
	api, err := stripe.New(o)
	if err != nil {
		return err
	}
	server := &http.Server{Addr: *address, Handler: sandbox.Mount(api), ReadHeaderTimeout: time.Minute}
	context.AfterFunc(ctx, func() { _ = server.Close() })
	if err := server.ListenAndServe(); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

func serve(file string) error {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	cfg, err := config.Load(file, config.Options{})
	if err != nil {
		return err
	}
	return engine.New(cfg, engine.Options{}).Run(ctx)
}

// TestEachBenchmarkRuns shows that each one comes to its end, counts every change and
// has a figure for every round. What the figures are is not looked at.
func TestEachBenchmarkRuns(t *testing.T) {
	t.Parallel()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		name    string
		measure func(context.Context, Options) (Report, error)
		figures []string
	}{
		{"capture", Capture, []string{"lockstep by pg_recvlogical"}},
		{"deliver", Deliver, []string{"next and ack", "p99"}},
		{"send", Send, []string{"lockstep by bare client", "lockstep by pgx", "lockstep by franz-go", "commit to the last client of its transaction, p99", "p99 with it, by without"}},
		{"memory", Memory, []string{"resident, peak"}},
		{"restart", Restart, []string{"process start to first delivery"}},
		{"consumers", Consumers, []string{"CPU by that with one consumer"}},
		{"backfill", Backfill, []string{"to the last ack, by COPY"}},
		{"sync", Sync, []string{"rows in the mirror, by COPY", "share of the allowed requests", "answers 429", "p99", "WAL of a sweep, less that"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			if err := os.Chmod(dir, 0o755); err != nil {
				t.Fatal(err)
			}
			o := Options{Quick: true, Rows: 2000, Backlog: 4000, Transaction: 5000, Rounds: 1, Binary: self, Dir: dir}
			r, err := tc.measure(t.Context(), o)
			if err != nil {
				t.Fatal(err)
			}
			names := map[string]bool{}
			for _, f := range r.Figures {
				names[f.Name] = true
				if len(f.Runs) == 0 || f.Median <= 0 && !strings.HasPrefix(f.Aim, "0") {
					t.Errorf("%s, %s: %v", f.Case, f.Name, f.Runs)
				}
			}
			for _, name := range tc.figures {
				if !names[name] {
					t.Errorf("there is no figure %q", name)
				}
			}
			left, err := os.ReadDir(dir)
			if err != nil || len(left) > 0 {
				t.Errorf("left behind: %v, %v", left, err)
			}
			if r.Bench != tc.name || !strings.Contains(r.Machine.Go, "go1") || r.Machine.Postgres == "" || r.Machine.FsyncUS <= 0 {
				t.Errorf("report: %+v", r.Machine)
			}
		})
	}
}
