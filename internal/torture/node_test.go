package torture_test

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"lockstep/client"
	"lockstep/engine"
	"lockstep/internal/config"
	"lockstep/internal/pgdb/pgtest"
)

// node is a Lockstep node on one database named app, with a pull consumer named
// all that gets everything from the beginning.
type node struct {
	t    testing.TB
	url  string // of the database, for the case's SQL
	slot string
	file string // its configuration
	dir  string
	api  *client.Client
	*reading

	process bool // it is a process of its own, which can be killed
	mu      sync.Mutex
	cmd     *exec.Cmd
	said    bytes.Buffer // by the process; a buffer of its own per node
	cancel  context.CancelFunc
	ended   chan error
}

// newNode prepares a node on url, which is not started yet. more is YAML that goes
// into the database's entry, such as `, tables: [public.a]`.
func newNode(t testing.TB, url string, more ...string) *node {
	t.Helper()
	dir := t.TempDir()
	n := &node{t: t, url: url, slot: slotOf(url), dir: filepath.Join(dir, "data"), file: filepath.Join(dir, "lockstep.yml")}
	n.reading = newReading(n)
	n.configure(url, more...)
	pgtest.Exec(t, url, "CREATE TABLE IF NOT EXISTS public."+fenceTable+" (n bigint PRIMARY KEY)")
	t.Cleanup(func() {
		n.kill()
		if t.Failed() && n.process {
			t.Logf("the node said:\n%s", n.said.String())
		}
	})
	return n
}

// configure writes the configuration; a node that runs does not notice.
func (n *node) configure(url string, more ...string) {
	n.t.Helper()
	text := fmt.Sprintf("data_dir: %s\nlisten: %s\ndatabases:\n  - {name: app, url: %q, slot: %s%s}\nconsumers:\n  - {name: all, database: app, start: beginning}\n",
		n.dir, freeAddress(n.t), url, n.slot, strings.Join(more, ""))
	if err := os.WriteFile(n.file, []byte(text), 0o600); err != nil {
		n.t.Fatal(err)
	}
}

// slotOf gives each database a slot of its own: slots are the cluster's.
func slotOf(url string) string {
	name, _, _ := strings.Cut(url, "?")
	return "torture_" + name[strings.LastIndexByte(name, '/')+1:]
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

// start starts the node and waits until it is ready: capture stands.
func (n *node) start() *node {
	n.t.Helper()
	n.launch()
	n.ready()
	return n
}

func (n *node) ready() {
	n.t.Helper()
	pgtest.Eventually(n.t, time.Minute, "the node is ready", func() bool { return n.api.Ready(n.t.Context()) == nil })
}

// launch starts the node and waits for nothing.
func (n *node) launch() {
	n.t.Helper()
	cfg, err := config.Load(n.file, config.Options{})
	if err != nil {
		n.t.Fatal(err)
	}
	if n.api, err = client.New(client.Config{Server: "http://" + cfg.Listen}); err != nil {
		n.t.Fatal(err)
	}
	if n.process {
		n.launchProcess()
		return
	}
	ctx, cancel := context.WithCancel(context.Background())
	n.cancel, n.ended = cancel, make(chan error, 1)
	log := slog.New(slog.NewTextHandler(n.t.Output(), &slog.HandlerOptions{Level: slog.LevelWarn}))
	ended := n.ended
	go func() { ended <- engine.New(cfg, engine.Options{Logger: log}).Run(ctx) }()
	pgtest.Eventually(n.t, 30*time.Second, "the node listens", func() bool {
		select {
		case err := <-ended:
			ended <- err
			n.t.Fatal("the node ended:", err)
		default:
		}
		_, err := n.api.Databases(n.t.Context())
		return err == nil
	})
}

// refusal runs the node until it ends by itself, and returns why.
func (n *node) refusal() error {
	n.t.Helper()
	cfg, err := config.Load(n.file, config.Options{})
	if err != nil {
		n.t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(n.t.Context(), 30*time.Second)
	defer cancel()
	return engine.New(cfg, engine.Options{}).Run(ctx)
}

func (n *node) launchProcess() {
	n.t.Helper()
	n.mu.Lock()
	defer n.mu.Unlock()
	n.cmd = exec.Command(os.Args[0])
	n.cmd.Env = append(os.Environ(), childVariable+"="+n.file)
	n.cmd.Stderr = &n.said
	if err := n.cmd.Start(); err != nil {
		n.t.Fatal(err)
	}
}

// kill ends the node as it is: a process by SIGKILL, an engine by its context.
func (n *node) kill() {
	n.t.Helper()
	if n.api != nil {
		n.api.Close()
	}
	if n.cancel != nil {
		n.cancel()
		if err := <-n.ended; err != nil {
			n.t.Error("the node ended with:", err)
		}
		n.cancel = nil
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.cmd == nil {
		return
	}
	_ = n.cmd.Process.Signal(syscall.SIGKILL) // it may have ended by itself; Wait tells
	_ = n.cmd.Wait()
	n.cmd = nil
}

// database is how the node says that capture is.
func (n *node) database() client.Database {
	n.t.Helper()
	all, err := n.api.Databases(n.t.Context())
	i := slices.IndexFunc(all, func(d client.Database) bool { return d.Name == "app" })
	if err != nil || i < 0 {
		n.t.Fatal(all, err)
	}
	return all[i]
}

// exec runs statements, each in a transaction of its own unless it holds BEGIN.
func (n *node) exec(statements ...string) {
	n.t.Helper()
	pgtest.Exec(n.t, n.url, statements...)
}

func (n *node) one(sql string, args ...any) string {
	n.t.Helper()
	return pgtest.Query(n.t, n.url, sql, args...)[0][0]
}

func (n *node) version() int {
	n.t.Helper()
	var v int
	if _, err := fmt.Sscan(n.one("SHOW server_version_num"), &v); err != nil {
		n.t.Fatal(err)
	}
	return v
}

// alterDatabase sets what every session of the database begins with.
func alterDatabase(t testing.TB, url string, settings ...string) {
	t.Helper()
	for _, s := range settings {
		pgtest.Exec(t, url, "DO $$ BEGIN EXECUTE format('ALTER DATABASE %I SET ', current_database()) || $s$"+s+"$s$; END $$")
	}
}
