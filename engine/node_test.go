package engine_test

import (
	"bytes"
	"context"
	"fmt"
	"hash/fnv"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"

	"lockstep/client"
	"lockstep/engine"
	"lockstep/internal/config"
	"lockstep/internal/kinds"
	"lockstep/internal/pgdb/pgtest"
)

// childVariable makes this test binary a node: the tests kill it as they please.
const childVariable = "LOCKSTEP_TEST_NODE"

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

// node is a node in a process of its own.
type node struct {
	t      testing.TB
	config string
	server string
	api    *client.Client

	mu     sync.Mutex
	cmd    *exec.Cmd
	output bytes.Buffer
}

// newNode writes a configuration for the database; consumers is its YAML. Slots are the
// server's, and tests share one: each database has its own.
func newNode(t testing.TB, url, consumers string) *node {
	t.Helper()
	dir := t.TempDir()
	n := &node{t: t, config: filepath.Join(dir, "lockstep.yml"), server: freeAddress(t)}
	text := fmt.Sprintf("data_dir: %s\nlisten: %s\ndatabases:\n  - {name: app, slot: %s, url: %q}\nconsumers:\n%s", filepath.Join(dir, "data"), n.server, slotOf(url), url, consumers)
	if err := os.WriteFile(n.config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	api, err := client.New(client.Config{Server: "http://" + n.server})
	if err != nil {
		t.Fatal(err)
	}
	n.api = api
	t.Cleanup(func() {
		n.kill()
		api.Close()
		if t.Failed() {
			t.Logf("the node said:\n%s", n.output.String())
		}
	})
	return n
}

// slotOf names the slot of a test's database.
func slotOf(url string) string {
	sum := fnv.New64a()
	_, _ = sum.Write([]byte(url)) // never fails
	return fmt.Sprintf("slot_%x", sum.Sum64())
}

func freeAddress(t testing.TB) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// start starts the process, and waits until capture stands.
func (n *node) start() {
	n.t.Helper()
	n.launch()
	pgtest.Eventually(n.t, 60*time.Second, "the node to be ready", func() bool { return n.api.Ready(n.t.Context()) == nil })
}

func (n *node) launch() {
	n.t.Helper()
	n.mu.Lock()
	defer n.mu.Unlock()
	n.cmd = exec.Command(os.Args[0])
	n.cmd.Env = append(os.Environ(), childVariable+"="+n.config)
	n.cmd.Stderr = &n.output
	if err := n.cmd.Start(); err != nil {
		n.t.Fatal(err)
	}
}

// kill ends the process as a power cut of the machine's would: without a word.
func (n *node) kill() { _ = n.end(syscall.SIGKILL) }

// stop asks the process to end and returns how it did.
func (n *node) stop() error { return n.end(syscall.SIGTERM) }

func (n *node) end(s syscall.Signal) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.cmd == nil {
		return nil
	}
	_ = n.cmd.Process.Signal(s) // it may have ended by itself; Wait tells
	err := n.cmd.Wait()
	n.cmd = nil
	return err
}
