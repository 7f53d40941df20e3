package bench

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"lockstep"
	"lockstep/client"
	"lockstep/engine"
	"lockstep/internal/config"
)

// node is a Lockstep that captures the lab's database: a process of its own, or one
// within this process. stop may be called more than once.
type node struct {
	*lab
	api  *client.Client
	pid  int // of the process that it runs in
	cpu  func() (time.Duration, error)
	stop func() error // ends it in order
	kill func() error // ends it as kill -9 does; nil when it runs within this process
}

// node starts a node on the lab's data directory and waits until it is ready.
func (l *lab) node(ctx context.Context) (*node, error) {
	start := l.process
	if l.Within {
		start = l.within
	}
	n, err := start(ctx)
	if err != nil {
		return nil, err
	}
	var last error
	err = l.until(ctx, time.Minute, "the node was not ready", func() (bool, error) {
		last = n.api.Ready(ctx)
		return last == nil, nil
	})
	if err != nil {
		return nil, errors.Join(err, last, n.stop())
	}
	return n, nil
}

// within starts a node in this process.
func (l *lab) within(ctx context.Context) (*node, error) {
	cfg := config.Default()
	cfg.DataDir, cfg.Listen = l.dataDir(), "127.0.0.1:0"
	cfg.Databases[0].URL, cfg.Databases[0].Capture = config.URL(l.url), cmp.Or(l.capture, cfg.Databases[0].Capture)
	ready, ended := make(chan engine.Node, 1), make(chan error, 1)
	e := engine.New(cfg, engine.Options{Logger: slog.New(slog.DiscardHandler), Ready: func(n engine.Node) { ready <- n }})
	running, cancel := context.WithCancel(ctx)
	go func() { ended <- e.Run(running) }()
	stop := sync.OnceValue(func() error { cancel(); return <-ended })
	select {
	case r := <-ready:
		api, err := client.New(client.Config{Server: r.Server})
		cpu := func() (time.Duration, error) { return ownCPU(), nil }
		return &node{lab: l, api: api, pid: os.Getpid(), cpu: cpu, stop: stop}, err
	case err := <-ended:
		cancel()
		return nil, err
	}
}

// process starts a node as a process of its own and does not wait for it: its time
// is measured from here.
func (l *lab) process(ctx context.Context) (*node, error) {
	if l.Binary == "" {
		return nil, fmt.Errorf("no lockstep program was named for the node: %w", lockstep.ErrInvalid)
	}
	address, err := freeAddress()
	if err != nil {
		return nil, err
	}
	file := filepath.Join(l.dir, "lockstep.yml")
	text := fmt.Sprintf("data_dir: %q\nlisten: %q\ndatabases:\n  - name: %s\n    url: %q\n", l.dataDir(), address, database, l.url)
	if l.capture != "" {
		text += fmt.Sprintf("    capture: %s\n", l.capture)
	}
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		return nil, err
	}
	log, err := os.Create(filepath.Join(l.dir, "node.log"))
	if err != nil {
		return nil, err
	}
	defer log.Close()
	cmd := exec.Command(l.Binary, "serve", "-c", file)
	cmd.Stdout, cmd.Stderr = log, log
	end, err := begin(ctx, cmd)
	if err != nil {
		return nil, fmt.Errorf("start the node: %w", err)
	}
	pid := cmd.Process.Pid
	api, err := client.New(client.Config{Server: "http://" + address})
	cpu := func() (time.Duration, error) { return processCPU(pid) }
	n := &node{lab: l, api: api, pid: pid, cpu: cpu, stop: l.explained(end(os.Interrupt)), kill: end(os.Kill)}
	return n, err
}

// begin starts a process. What end returns ends it by that signal, waits, and returns
// how it ended; it may be called more than once.
func begin(ctx context.Context, cmd *exec.Cmd) (end func(os.Signal) func() error, err error) {
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	ended := make(chan struct{})
	var result error
	go func() { result = cmd.Wait(); close(ended) }()
	// Whoever forgets to end it, or is interrupted, leaves no process behind.
	release := context.AfterFunc(ctx, func() { _ = cmd.Process.Kill() })
	return func(signal os.Signal) func() error {
		return func() error {
			_ = cmd.Process.Signal(signal) // it may have ended by itself, which result tells
			<-ended
			release()
			return result
		}
	}, nil
}

// explained adds the end of the node's log to an error.
func (l *lab) explained(stop func() error) func() error {
	return func() error {
		err := stop()
		if err == nil {
			return nil
		}
		log, _ := os.ReadFile(filepath.Join(l.dir, "node.log")) // an empty one explains nothing
		lines := strings.Split(strings.TrimSpace(string(log)), "\n")
		return fmt.Errorf("the node ended: %w; the end of its log:\n%s", err, strings.Join(lines[max(0, len(lines)-5):], "\n"))
	}
}

func (l *lab) dataDir() string { return filepath.Join(l.dir, "data") }

// freeAddress returns an address of loopback that nobody listens on.
func freeAddress() (string, error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	defer listener.Close()
	return listener.Addr().String(), nil
}

// last returns the seq of the newest change that the node has captured.
func (n *node) last(ctx context.Context) (uint64, error) {
	all, err := n.api.Databases(ctx)
	if err != nil {
		return 0, err
	}
	if len(all) != 1 {
		return 0, fmt.Errorf("the node has %d databases, expected one", len(all))
	}
	return all[0].LastSeq, nil
}

// captured waits until the node has captured the change with that seq.
func (n *node) captured(ctx context.Context, seq uint64) error {
	return n.until(ctx, 10*time.Minute, fmt.Sprintf("change %d was not captured", seq), func() (bool, error) {
		last, err := n.last(ctx)
		return last >= seq, err
	})
}

// consumer makes a consumer of those tables.
func (n *node) consumer(ctx context.Context, name, start string, tables ...string) error {
	_, err := n.api.CreateConsumer(ctx, client.Definition{Name: name, Tables: tables, Start: start, MaxInFlight: 20_000})
	if err != nil {
		return fmt.Errorf("create consumer %s: %w", name, err)
	}
	return nil
}
