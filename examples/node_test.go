// Package examples_test runs the programs of this folder as their users do: against a
// node and a Postgres, as processes of their own, killed and started again.
package examples_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
	"time"

	"lockstep/client"
	"lockstep/engine"
	"lockstep/internal/config"
	"lockstep/internal/pgdb/pgtest"
)

func TestMain(m *testing.M) { pgtest.Main(m) }

// node is a node with a database that has the table orders.
type node struct {
	t        *testing.T
	address  string // kept over restarts
	database string
	config   string
	api      *client.Client
	token    string // with which the test asks

	stop  context.CancelFunc
	ended chan error
}

// newNode starts a node; more is added to its configuration.
func newNode(t *testing.T, token, more string) *node {
	t.Helper()
	n := &node{t: t, address: freeAddress(t), database: pgtest.Database(t), token: token}
	pgtest.Exec(t, n.database, "CREATE TABLE orders (id int PRIMARY KEY, amount int, note text)")
	_, port, _ := net.SplitHostPort(n.address)
	slot := "lockstep_" + port // slots are the server's, and the tests share one
	n.config = fmt.Sprintf("data_dir: %q\nlisten: %s\ndatabases: [{name: app, url: %q, slot: %s}]\n%s", t.TempDir(), n.address, n.database, slot, more)
	api, err := client.New(client.Config{Server: n.url(), Token: token})
	if err != nil {
		t.Fatal(err)
	}
	n.api = api
	t.Cleanup(func() { n.end(); api.Close() })
	n.start()
	return n
}

func freeAddress(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

func (n *node) url() string { return "http://" + n.address }

func (n *node) start() {
	n.t.Helper()
	cfg, err := config.Parse("test", []byte(n.config), config.Options{})
	if err != nil {
		n.t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.WithoutCancel(n.t.Context()))
	n.stop, n.ended = stop, make(chan error, 1)
	go func() { n.ended <- engine.New(cfg, engine.Options{}).Run(ctx) }()
	pgtest.Eventually(n.t, time.Minute, "the node to be ready", func() bool {
		select {
		case err := <-n.ended:
			n.t.Fatalf("the node ended: %v", err)
		default:
		}
		return n.api.Ready(n.t.Context()) == nil
	})
}

// end ends the node, if it runs.
func (n *node) end() {
	n.t.Helper()
	if n.stop == nil {
		return
	}
	n.stop()
	n.stop = nil
	if err := <-n.ended; err != nil {
		n.t.Errorf("the node ended: %v", err)
	}
}

func (n *node) exec(sql ...string) {
	n.t.Helper()
	pgtest.Exec(n.t, n.database, sql...)
}

// consumer makes a consumer of the orders, from the oldest change on.
func (n *node) consumer(d client.Definition) {
	n.t.Helper()
	d.Name, d.Tables, d.Start, d.Backoff = "orders", []string{"public.orders"}, "beginning", &client.Backoff{First: "50ms", Max: "200ms"}
	if _, err := n.api.CreateConsumer(n.t.Context(), d); err != nil {
		n.t.Fatal(err)
	}
}

func (n *node) stats() client.Stats {
	n.t.Helper()
	c, err := n.api.Consumer(n.t.Context(), "orders")
	if err != nil {
		n.t.Fatal(err)
	}
	return c.Stats
}

// settled waits until everything that is committed has been acked.
func (n *node) settled() {
	n.t.Helper()
	last := n.last()
	pgtest.Eventually(n.t, time.Minute, "everything to be acked", func() bool {
		s := n.stats()
		return s.LastSeq >= last && s.FloorSeq >= s.LastSeq && s.InFlight == 0
	})
}

// last writes a row, and returns the seq of that change.
func (n *node) last() uint64 {
	n.t.Helper()
	n.exec("INSERT INTO orders VALUES (0, 0) ON CONFLICT (id) DO UPDATE SET amount = orders.amount + 1")
	mark := pgtest.Query(n.t, n.database, "SELECT amount FROM orders WHERE id = 0")[0][0]
	var seq uint64
	ctx, stop := context.WithTimeout(n.t.Context(), time.Minute)
	defer stop()
	for event, err := range n.api.Tail(ctx, "app", client.TailOptions{Tables: []string{"public.orders"}, From: "beginning"}) {
		if err != nil {
			n.t.Fatal(err)
		}
		c, err := client.ParseChange(event.Data)
		if err != nil {
			n.t.Fatal(err)
		}
		var row struct{ ID, Amount int }
		if json.Unmarshal(c.Record, &row) == nil && row.ID == 0 && fmt.Sprint(row.Amount) == mark && len(c.Metadata.RecordPKs) == 1 && c.Metadata.RecordPKs[0] == "0" {
			seq = c.Metadata.Seq
			break
		}
	}
	return seq
}

// program is one of the examples, as a process.
type program struct {
	t    *testing.T
	name string
	args []string
	env  []string

	cmd  *exec.Cmd
	mu   sync.Mutex
	said bytes.Buffer // guarded by mu
}

// Write implements io.Writer.
func (p *program) Write(b []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.said.Write(b)
}

func (p *program) text() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.said.String()
}

// newProgram prepares a program; start starts it, as often as is wanted.
func newProgram(t *testing.T, env []string, name string, args ...string) *program {
	p := &program{t: t, name: name, args: args, env: env}
	t.Cleanup(func() {
		p.kill()
		if t.Failed() {
			t.Logf("%s said:\n%s", name, p.text())
		}
	})
	return p
}

// build compiles an example and returns its path.
func build(t *testing.T, folder string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), folder)
	if out, err := exec.CommandContext(t.Context(), "go", "build", "-o", path, "./"+folder).CombinedOutput(); err != nil {
		t.Fatalf("build %s: %v\n%s", folder, err, out)
	}
	return path
}

func (p *program) start() {
	p.t.Helper()
	p.cmd = exec.CommandContext(context.WithoutCancel(p.t.Context()), p.name, p.args...)
	p.cmd.Env = append(os.Environ(), p.env...)
	p.cmd.Stdout, p.cmd.Stderr = p, p
	if err := p.cmd.Start(); err != nil {
		p.t.Fatal(err)
	}
}

// kill ends the program without a word, if it runs.
func (p *program) kill() {
	if p.cmd == nil {
		return
	}
	_ = p.cmd.Process.Kill()
	_ = p.cmd.Wait()
	p.cmd = nil
}

// terminate ends the program as a service manager does, and wants it to end well.
func (p *program) terminate() {
	p.t.Helper()
	if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		p.t.Fatal(err)
	}
	err := p.cmd.Wait()
	p.cmd = nil
	if exit, ok := errors.AsType[*exec.ExitError](err); ok || err != nil {
		p.t.Errorf("%s ended with %v: %v", p.name, exit, err)
	}
}

// read returns a request's body.
func read(t *testing.T, r *http.Request) []byte {
	t.Helper()
	body, err := io.ReadAll(r.Body)
	if err != nil {
		t.Error(err)
	}
	return body
}
