// Package chaos_test runs nodes under fire and compares what came out with what was
// committed. It holds tests only.
//
//   - [TestCampaign] (make chaos): writers keep a ledger of what they committed,
//     workers take and settle, and a schedule drawn from a seed kills, stops, cuts,
//     fills and sets clocks; the audit is told of everything.
//   - [TestPowerCut] (make powercut): the file system's image is copied in mid-run,
//     and the node goes on from the copy.
//   - [TestDamage] (make damage): bits are flipped and files cut in the stream's
//     directory of a stopped node, and a node is started on it.
//
// What the audit holds a node to:
//
//  1. Every committed change is processed, and nothing that was not committed.
//  2. Per row: no change is handed out before the ones before it are settled.
//  3. A change whose ack was answered is never handed out again.
//  4. A change has one holder: it comes again only after its lease, after it was
//     given back, or after a restart; and the token of an earlier holder is refused.
//  5. The log is dense, in order, holds each change once, and replayed gives the
//     tables as they are.
//  6. A tail over all of it sees each seq once.
//  7. The node ends when it is told to and never by itself.
//
// Each runs in a short form with the ordinary tests; variables make them long, see
// docs/reliability.md.
package chaos_test

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"strconv"
	"syscall"
	"testing"

	"go.uber.org/goleak"

	"lockstep/engine"
	"lockstep/internal/config"
	"lockstep/internal/kinds"
	"lockstep/internal/pgdb/pgtest"
)

// childVariable makes this test binary a node, for runs without LOCKSTEP_BIN.
const childVariable = "LOCKSTEP_CHAOS_NODE"

func TestMain(m *testing.M) {
	if file := os.Getenv(childVariable); file != "" {
		os.Exit(child(file))
	}
	goleak.VerifyTestMain(pgtest.Suite{M: m})
}

func child(file string) int {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	cfg, err := config.Load(file, config.Options{Kinds: kinds.Names()})
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 2
	}
	log := slog.New(slog.NewTextHandler(os.Stderr, nil))
	if err := engine.New(cfg, engine.Options{Logger: log}).Run(ctx); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

// number reads a variable of the environment.
func number(t testing.TB, name string, otherwise int) int {
	t.Helper()
	text := os.Getenv(name)
	if text == "" {
		return otherwise
	}
	n, err := strconv.Atoi(text)
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	return n
}

// workDir makes the directory of a run. It stays when the run fails.
func workDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "lockstep-chaos-") //nolint:usetesting // it outlives a test that failed
	if err != nil {
		t.Fatal(err)
	}
	// Open to Postgres' user, which it is under root.
	if err := os.Chmod(dir, 0o711); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("everything is left in %s", dir)
			return
		}
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	return dir
}
