package chaos_test

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"lockstep/client"
)

// node is a node in a process of its own.
type node struct {
	dir    string // of its configuration and its log
	config string
	data   string
	server string
	api    *client.Client
	setup  setup
	life   atomic.Int64 // counts its starts; grows before an end is asked for

	mu     sync.Mutex
	run    *process // nil: none
	output *os.File
	most   int64 // resident memory in bytes, of any of its processes that has ended
}

// process is one life of a node.
type process struct {
	cmd   *exec.Cmd
	asked atomic.Bool   // to end
	ended chan struct{} // closed when it has ended
	err   error         // then: how
}

// setup is what a node is configured with.
type setup struct {
	data      string // data_dir; empty: below dir
	url       string
	slot      string // empty: the default
	consumers string // YAML
	binary    string // empty: LOCKSTEP_BIN, or this test's own
	clock     string // a file that moves the wall clock, for binaries that heed it
}

func newNode(t testing.TB, dir string, s setup) *node {
	t.Helper()
	if err := os.MkdirAll(dir, 0o711); err != nil {
		t.Fatal(err)
	}
	if s.data == "" {
		s.data = filepath.Join(dir, "data")
	}
	if s.slot == "" {
		s.slot = "lockstep_app"
	}
	n := &node{dir: dir, config: filepath.Join(dir, "lockstep.yml"), server: freeAddress(t)}
	n.setup = s
	if err := n.configure(s.data); err != nil {
		t.Fatal(err)
	}
	var err error
	if n.output, err = os.OpenFile(filepath.Join(dir, "log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600); err != nil {
		t.Fatal(err)
	}
	if n.api, err = client.New(client.Config{Server: "http://" + n.server}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		n.kill()
		n.api.Close()
		n.output.Close()
	})
	return n
}

// configure says where the data lies from the next start on.
func (n *node) configure(data string) error {
	n.data = data
	text := fmt.Sprintf("data_dir: %s\nlisten: %s\ndatabases:\n  - {name: app, url: %q, slot: %s, publication: lockstep_app, tables: [ledger.*]}\nconsumers:\n%s",
		n.data, n.server, n.setup.url, n.setup.slot, n.setup.consumers)
	return os.WriteFile(n.config, []byte(text), 0o600)
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

// launch starts the process if none runs.
func (n *node) launch() error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.run != nil {
		return nil
	}
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), childVariable+"="+n.config)
	if binary := cmp.Or(n.setup.binary, os.Getenv("LOCKSTEP_BIN")); binary != "" {
		cmd = exec.Command(binary, "serve", "-c", n.config)
		cmd.Env = append(os.Environ(), clockVariable+"="+n.setup.clock)
	}
	cmd.Stdout, cmd.Stderr = n.output, n.output
	n.life.Add(1)
	fmt.Fprintf(n.output, "---- life %d at %s\n", n.life.Load(), time.Now().Format(time.RFC3339Nano))
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("start a node: %w", err)
	}
	p := &process{cmd: cmd, ended: make(chan struct{})}
	n.run = p
	go func() {
		p.err = cmd.Wait()
		close(p.ended)
	}()
	return nil
}

// kill ends the process as the end of its machine would: without a word.
func (n *node) kill() { _ = n.end(syscall.SIGKILL, time.Minute) }

// stop asks the process to end and returns how it did.
func (n *node) stop() error { return n.end(syscall.SIGTERM, time.Minute) }

func (n *node) end(s syscall.Signal, within time.Duration) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	p := n.run
	if p == nil {
		return nil
	}
	n.life.Add(1)
	p.asked.Store(true)
	_ = p.cmd.Process.Signal(s) // it may have ended by itself; Wait tells
	timer := time.NewTimer(within)
	defer timer.Stop()
	var late error
	select {
	case <-p.ended:
	case <-timer.C:
		late = fmt.Errorf("did not end within %s of %s", within, s)
		_ = p.cmd.Process.Kill()
		<-p.ended
	}
	n.run = nil
	if usage, ok := p.cmd.ProcessState.SysUsage().(*syscall.Rusage); ok {
		n.most = max(n.most, usage.Maxrss<<10)
	}
	return errors.Join(late, p.err)
}

// signal sends a signal that does not end it.
func (n *node) signal(s syscall.Signal) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.run != nil {
		_ = n.run.cmd.Process.Signal(s)
	}
}

// ended returns how the process ended by itself, or an empty text.
func (n *node) ended() string {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.run == nil {
		return ""
	}
	select {
	case <-n.run.ended:
		return fmt.Sprintf("%v; its last words: %s", n.run.err, n.lastWords())
	default:
		return ""
	}
}

// lastWords returns the end of the log.
func (n *node) lastWords() string {
	text, _ := os.ReadFile(n.output.Name())
	lines := strings.Split(strings.TrimSpace(string(bytes.ToValidUTF8(text, nil))), "\n")
	return strings.Join(lines[max(0, len(lines)-5):], "\n")
}

// ready waits until capture stands.
func (n *node) ready(ctx context.Context, within time.Duration) error {
	return eventually(ctx, within, "the node to be ready", func() error {
		if how := n.ended(); how != "" {
			return fmt.Errorf("it ended: %s", how)
		}
		return n.api.Ready(ctx)
	})
}

// listening waits until the API answers, ready or not: the data directory is taken.
func (n *node) listening(ctx context.Context, within time.Duration) error {
	return eventually(ctx, within, "the node to listen", func() error {
		_, err := n.api.Status(ctx)
		return err
	})
}

// eventually waits until cond returns nil.
func eventually(ctx context.Context, within time.Duration, what string, cond func() error) error {
	deadline := time.Now().Add(within)
	for {
		err := cond()
		if err == nil {
			return nil
		}
		if ctx.Err() != nil || time.Now().After(deadline) {
			return fmt.Errorf("not within %s: %s: %w", within, what, err)
		}
		wait(ctx, 20*time.Millisecond)
	}
}
