package cluster

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"lockstep"
)

// Postgres' own meaning of the signals (postgresql.org/docs/current/server-shutdown.html).
const (
	sigFast = syscall.SIGINT  // disconnects the clients, then a clean end
	sigQuit = syscall.SIGQUIT // at once, recovery at the next start
	sigKill = syscall.SIGKILL // the postmaster only; its children notice
)

// poll is how often a file or process is looked at while waiting for it.
const poll = 5 * time.Millisecond

var (
	errPortTaken  = errors.New("the port is taken")
	errMemoryHeld = errors.New("processes of the last run still hold its shared memory")
)

// process is a child process. err may be read once done is closed.
type process struct {
	cmd  *exec.Cmd
	done chan struct{} // closed by run's goroutine when the process is gone
	err  error
}

// run starts cmd and waits for it, on one thread that stays until the process is
// gone: the kernel sends a child its death signal when the thread that started it
// ends, which need not be when the process does (prctl(2), PR_SET_PDEATHSIG).
func run(cmd *exec.Cmd) *process {
	p := &process{cmd: cmd, done: make(chan struct{})}
	started := make(chan struct{})
	go func() {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		defer close(p.done)
		p.err = cmd.Start()
		close(started)
		if p.err == nil {
			p.err = cmd.Wait()
		}
	}()
	<-started
	return p
}

func (p *process) alive() bool {
	if p == nil {
		return false
	}
	select {
	case <-p.done:
		return false
	default:
		return true
	}
}

// confine makes cmd run as the account, in a session of its own, without this
// process' secrets in its environment, and end when this process ends.
func (c *Cluster) confine(cmd *exec.Cmd, h held) {
	cmd.Dir = "/" // the working directory may be closed to the account
	cmd.Env = []string{"LC_ALL=C", "PATH=" + os.Getenv("PATH")}
	if libs := os.Getenv("LD_LIBRARY_PATH"); libs != "" {
		cmd.Env = append(cmd.Env, "LD_LIBRARY_PATH="+libs)
	}
	if h.file != nil {
		cmd.ExtraFiles = []*os.File{h.file}
	}
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: c.account.credential(), Setsid: true}
	endWithParent(cmd.SysProcAttr)
}

// launchOnFreePort starts the postmaster and waits until it takes connections.
func (c *Cluster) launchOnFreePort(ctx context.Context) error {
	const tries = 5
	published := c.port != 0 // URLs with this port are out
	var err error
	for range tries {
		if err = c.pickPort(ctx, published); err != nil {
			return err
		}
		if err = c.launchOnce(ctx); !errors.Is(err, errPortTaken) || published || c.cfg.Port != 0 {
			break
		}
		c.port = 0
	}
	if errors.Is(err, errPortTaken) {
		return fmt.Errorf("%w: stop what listens there, or configure another port: %w", err, lockstep.ErrConflict)
	}
	if err != nil {
		return err
	}
	if err := writeSmall(c.lay.portFile(), strconv.Itoa(c.port)); err != nil {
		err = fmt.Errorf("keep the port of the private Postgres: %w: %w", err, lockstep.ErrEnvironment)
		return errors.Join(err, c.halt(context.WithoutCancel(ctx)))
	}
	return nil
}

// pickPort sets the port: the configured one, the one already in URLs, the one of
// the last run if it is free, else any free one.
func (c *Cluster) pickPort(ctx context.Context, published bool) error {
	if published {
		return c.needPort(ctx)
	}
	if c.port = c.cfg.Port; c.port != 0 {
		return c.needPort(ctx)
	}
	if c.port = c.lay.keptPort(); c.port != 0 {
		if _, err := listen(ctx, c.port); err == nil {
			return nil
		}
		c.cfg.Logger.WarnContext(ctx, "the private Postgres' last port is taken; picking another", "port", c.port)
	}
	port, err := listen(ctx, 0)
	if err != nil {
		return fmt.Errorf("find a free port for the private Postgres: %w: %w", err, lockstep.ErrEnvironment)
	}
	c.port = port
	return nil
}

func (c *Cluster) needPort(ctx context.Context) error {
	if _, err := listen(ctx, c.port); err != nil {
		return fmt.Errorf("port %d of the private Postgres: %w: stop what listens there, or configure another port: %w",
			c.port, err, lockstep.ErrConflict)
	}
	return nil
}

// listen tries a loopback port and returns its number; 0 asks for any.
func listen(ctx context.Context, port int) (int, error) {
	var lc net.ListenConfig
	l, err := lc.Listen(ctx, "tcp4", net.JoinHostPort("127.0.0.1", strconv.Itoa(port)))
	if err != nil {
		return 0, err
	}
	defer l.Close()
	_, text, err := net.SplitHostPort(l.Addr().String())
	if err != nil {
		return 0, err
	}
	return strconv.Atoi(text)
}

// launchOnce starts the postmaster on the chosen port. The children of a killed
// postmaster notice its end only when they next wait for something; those that are
// still at work are ended, and up to 10 s are given to them.
func (c *Cluster) launchOnce(ctx context.Context) error {
	deadline := time.Now().Add(10 * time.Second)
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for {
		err := c.launch(ctx)
		if !errors.Is(err, errMemoryHeld) || time.Now().After(deadline) {
			return err
		}
		for _, pid := range processesIn(c.lay.data()) {
			c.cfg.Logger.WarnContext(ctx, "a process of a Postgres that was killed is still at work; ending it", "pid", pid)
			_ = syscall.Kill(pid, sigQuit) // it may have ended by itself
		}
		select {
		case <-ctx.Done():
			return err
		case <-tick.C:
		}
	}
}

func (c *Cluster) launch(ctx context.Context) error {
	arg, held, err := c.account.reach(c.lay.data())
	if err != nil {
		return err
	}
	defer held.close() // the child has its own copy
	log, err := os.OpenFile(c.lay.logFile(), os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return fmt.Errorf("open the log of the private Postgres: %w: %w", err, lockstep.ErrEnvironment)
	}
	defer log.Close()
	from := c.lay.logSize()

	args := []string{"-D", arg}
	settings := c.settings()
	for _, name := range slices.Sorted(maps.Keys(settings)) {
		args = append(args, "-c", name+"="+settings[name])
	}
	cmd := exec.Command(filepath.Join(c.bin.Dir, "postgres"), args...)
	cmd.Stdout, cmd.Stderr = log, log
	c.confine(cmd, held)
	began := time.Now()
	c.proc = run(cmd)
	if err := c.awaitReady(ctx); err != nil {
		// The end of ctx is no reason to leave it running.
		return errors.Join(c.explain(err, from), c.halt(context.WithoutCancel(ctx)))
	}
	c.cfg.Logger.InfoContext(ctx, "the private Postgres runs", "dir", c.lay.dir, "version", c.bin.Major,
		"port", c.port, "socket", c.lay.socketDir, "user", c.account.name, "took", time.Since(began).Round(time.Millisecond))
	return nil
}

// settings are the defaults, the user's over them, and over both what the rest of
// this package relies on.
func (c *Cluster) settings() map[string]string {
	s := map[string]string{
		"wal_level":             "logical",
		"max_replication_slots": "50",
		"max_wal_senders":       "50",
		"timezone":              "UTC",
		"log_timezone":          "UTC",
		// The log must not hold rows: statements carry values, and so do the
		// details of errors (key (email)=(...) already exists).
		"log_min_error_statement": "panic",
		"log_error_verbosity":     "terse",
	}
	maps.Copy(s, c.cfg.Settings)
	maps.Copy(s, map[string]string{
		"listen_addresses":        "127.0.0.1",
		"port":                    strconv.Itoa(c.port),
		"unix_socket_directories": `"` + c.lay.socketDir + `"`,
		"unix_socket_permissions": "0700",
		"logging_collector":       "off",
		"log_destination":         "stderr",
		"lc_messages":             "C", // explain reads the log
	})
	return s
}

// awaitReady waits until the postmaster says that it takes connections: the eighth
// line of postmaster.pid, by which pg_ctl waits too.
func (c *Cluster) awaitReady(ctx context.Context) error {
	tick := time.NewTicker(poll)
	defer tick.Stop()
	for {
		select {
		case <-c.proc.done:
			return fmt.Errorf("it ended: %w", cmp.Or(c.proc.err, errors.New("without an error")))
		case <-ctx.Done():
			return fmt.Errorf("it was not ready in time: %w", context.Cause(ctx))
		case <-tick.C:
		}
		text, err := os.ReadFile(c.lay.pidFile())
		if err != nil {
			continue
		}
		lines := strings.Split(string(text), "\n")
		if len(lines) >= 8 && lines[0] == strconv.Itoa(c.proc.cmd.Process.Pid) && strings.TrimSpace(lines[7]) == "ready" {
			return nil
		}
	}
}

// explain adds the end of Postgres' log to the error of a start, and tells apart
// the causes that callers act on.
func (c *Cluster) explain(cause error, from int64) error {
	tail := c.lay.logTail(from)
	err := fmt.Errorf("start the private Postgres in %s on port %d: %w; the end of %s:\n%s", c.lay.dir, c.port, cause, c.lay.logFile(), tail)
	switch {
	case strings.Contains(tail, "Address already in use"):
		return fmt.Errorf("%w\n%w", err, errPortTaken)
	case strings.Contains(tail, "pre-existing shared memory block"):
		return fmt.Errorf("%w\n%w", err, errMemoryHeld)
	}
	return err
}

// halt stops the postmaster, step by step harder, and waits until it is gone. The
// end of ctx cuts the wait for a clean end short.
func (c *Cluster) halt(ctx context.Context) error {
	p := c.proc
	if !p.alive() {
		return nil
	}
	steps := []struct {
		signal syscall.Signal
		wait   time.Duration
		cut    <-chan struct{}
	}{
		{sigFast, c.cfg.StopTimeout, ctx.Done()},
		{sigQuit, 5 * time.Second, nil},
		{sigKill, 5 * time.Second, nil},
	}
	for _, s := range steps {
		if s.signal != sigFast {
			c.cfg.Logger.WarnContext(ctx, "the private Postgres does not end; stopping it harder", "signal", s.signal.String())
		}
		_ = p.cmd.Process.Signal(s.signal) // fails only when it is gone already
		timer := time.NewTimer(s.wait)
		select {
		case <-p.done:
			timer.Stop()
			return nil
		case <-s.cut:
		case <-timer.C:
		}
		timer.Stop()
	}
	return fmt.Errorf("stop the private Postgres in %s: process %d does not end", c.lay.dir, p.cmd.Process.Pid)
}

// crash ends the postmaster by a signal and waits until it is gone.
func (c *Cluster) crash(signal syscall.Signal) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.state == closed {
		return fmt.Errorf("kill Postgres in %s: it was stopped: %w", c.lay.dir, lockstep.ErrConflict)
	}
	c.state = halted
	if !c.proc.alive() {
		return nil
	}
	if err := c.proc.cmd.Process.Signal(signal); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("kill Postgres in %s: %w", c.lay.dir, err)
	}
	timer := time.NewTimer(20 * time.Second)
	defer timer.Stop()
	select {
	case <-c.proc.done:
		return nil
	case <-timer.C:
		return fmt.Errorf("kill Postgres in %s: process %d does not end", c.lay.dir, c.proc.cmd.Process.Pid)
	}
}
