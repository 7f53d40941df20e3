// Package cluster runs a private Postgres in a directory: Lockstep's embedded
// default when no database URL is given, and the Postgres of the tests.
//
// # Guarantees
//
//  1. Never two on one directory: a lock held for as long as the [Cluster] lives
//     makes a second [Start] fail with [lockstep.ErrConflict] and the holder's pid.
//  2. Postgres never runs as root. Under root it runs as the owner of the data
//     directory, else as the user postgres, else as nobody.
//  3. Postgres ends with the process that started it, also when that process is
//     killed with SIGKILL (on Linux). A leftover of an earlier process is shut
//     down before the next start. What was committed is there again afterwards.
//  4. Nobody else on the machine gets in: the Unix socket lies in a directory
//     that only Postgres' user (and root) can enter, and TCP listens on loopback
//     only and asks for a generated password that lies in a file of mode 0600.
//  5. A signal sent to the terminal's process group does not reach Postgres: it
//     is stopped by [Cluster.Stop], after those who use it.
//  6. No other Postgres of the machine is touched, and Postgres' log holds
//     neither statements nor row values.
//
// The directory holds: data (the data directory), run (the socket, when the path
// is short enough; else it lies below the temporary directory), postgres.log,
// port, password, lock.
package cluster

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"time"

	"lockstep"
	"lockstep/internal/dirlock"
)

// superuser is the role that owns the cluster.
const superuser = "postgres"

// Config says where a private Postgres lives and how it runs. Only Dir is required.
type Config struct {
	Dir string // created when missing
	Bin string // directory of the Postgres binaries; empty: [FindBin] looks for one

	// Settings are Postgres settings by name. They win over the defaults of this
	// package (wal_level=logical, 50 slots and walsenders).
	Settings map[string]string

	// Port is the loopback port. 0: a free one is picked and kept over restarts
	// as long as it is free.
	Port int

	Logger *slog.Logger // default: discards

	// StartTimeout bounds a start, crash recovery included. Default 5 min.
	StartTimeout time.Duration
	// StopTimeout bounds a clean shutdown; after it Postgres is stopped at once
	// and recovers at the next start. Default 20 s.
	StopTimeout time.Duration
}

// Cluster is a running private Postgres. Its methods may be called concurrently.
type Cluster struct {
	cfg      Config
	bin      Binaries
	lay      layout
	account  account
	lock     *dirlock.Lock
	port     int
	password string
	fresh    bool // the password is new: the server does not know it yet

	mu    sync.Mutex
	state state
	proc  *process // the current or the last postmaster
}

type state int

const (
	running state = iota
	halted        // stopped by Kill or KillHard: Restart starts it again
	closed        // stopped for good: the directory is released
)

// Start starts the Postgres of cfg.Dir, makes it when the directory is empty,
// and returns when it takes connections. The caller stops it with [Cluster.Stop].
//
// Errors: [lockstep.ErrConflict] when another process uses the directory or the
// port, [lockstep.ErrEnvironment] when the machine lacks the binaries, a
// permission, or the version that the directory was made with.
func Start(ctx context.Context, cfg Config) (*Cluster, error) {
	c, err := open(cfg)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, c.cfg.StartTimeout)
	defer cancel()
	if err := c.boot(ctx); err != nil {
		c.release()
		return nil, err
	}
	return c, nil
}

// open locks the directory and finds out how Postgres is to run in it.
func open(cfg Config) (*Cluster, error) {
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	if cfg.StartTimeout <= 0 {
		cfg.StartTimeout = 5 * time.Minute
	}
	if cfg.StopTimeout <= 0 {
		cfg.StopTimeout = 20 * time.Second
	}
	lay, err := newLayout(cfg.Dir)
	if err != nil {
		return nil, err
	}
	lock, err := dirlock.Take(lay.dir)
	if errors.Is(err, lockstep.ErrConflict) {
		return nil, fmt.Errorf("the private Postgres: %w: stop that process, or choose another data_dir", err)
	}
	if err != nil {
		return nil, fmt.Errorf("the private Postgres: %w: choose a data_dir that this user may write to: %w", err, lockstep.ErrEnvironment)
	}
	c := &Cluster{cfg: cfg, lay: lay, lock: lock}
	if err := c.resolve(); err != nil {
		c.release()
		return nil, err
	}
	return c, nil
}

func (c *Cluster) resolve() error {
	var err error
	// First: whose directory it is decides whether it can be read at all.
	if c.account, err = accountFor(c.lay.data()); err != nil {
		return err
	}
	made, err := c.lay.version()
	if err != nil {
		return err
	}
	if c.bin, err = findBinaries(c.cfg.Bin, made); err != nil {
		return err
	}
	if made != 0 && made != c.bin.Major {
		return fmt.Errorf("the data directory %s was made by PostgreSQL %d, but the binaries in %s are PostgreSQL %d: "+
			"install PostgreSQL %d and point LOCKSTEP_PG_BIN at its bin directory, or move the directory away to start with an empty database: %w",
			c.lay.data(), made, c.bin.Dir, c.bin.Major, made, lockstep.ErrEnvironment)
	}
	if err := c.account.check(c.bin.Dir); err != nil {
		return err
	}
	if err := c.lay.chooseSocketDir(c.account); err != nil {
		return err
	}
	c.password, c.fresh, err = c.lay.readPassword()
	return err
}

// boot brings the postmaster up: the directory is locked and nothing of ours runs.
func (c *Cluster) boot(ctx context.Context) error {
	if err := c.stopLeftover(ctx); err != nil {
		return err
	}
	if err := c.ensureData(ctx); err != nil {
		return err
	}
	if err := c.launchOnFreePort(ctx); err != nil {
		return err
	}
	if !c.fresh {
		return nil
	}
	if err := c.publishPassword(ctx); err != nil {
		return errors.Join(err, c.halt(context.WithoutCancel(ctx)))
	}
	c.fresh = false
	return nil
}

// Dir returns the cluster's directory as an absolute path.
func (c *Cluster) Dir() string { return c.lay.dir }

// Bin returns the directory of the binaries in use. pgbench and psql lie there
// with the system's packages, but not with the npm package.
func (c *Cluster) Bin() string { return c.bin.Dir }

// Major returns the major version of the Postgres in use, for example 15.
func (c *Cluster) Major() int { return c.bin.Major }

// Port returns the loopback TCP port.
func (c *Cluster) Port() int { return c.port }

// SocketDir returns the directory of the Unix socket, for psql -h.
func (c *Cluster) SocketDir() string { return c.lay.socketDir }

// URL returns the connection string of a database over the Unix socket. It holds
// no password, is faster than TCP, and works for Postgres' user and root only.
func (c *Cluster) URL(database string) string {
	u := url.URL{Scheme: "postgres", User: url.User(superuser), Path: "/" + database}
	u.RawQuery = url.Values{"host": {c.lay.socketDir}, "port": {strconv.Itoa(c.port)}}.Encode()
	return u.String()
}

// TCPURL returns the connection string of a database over loopback TCP. It holds
// the password: do not log it.
func (c *Cluster) TCPURL(database string) string {
	u := url.URL{
		Scheme: "postgres", User: url.UserPassword(superuser, c.password),
		Host: net.JoinHostPort("127.0.0.1", strconv.Itoa(c.port)), Path: "/" + database,
		RawQuery: "sslmode=disable",
	}
	return u.String()
}

// Stop shuts Postgres down cleanly, disconnecting its clients, and releases the
// directory. After [Config.StopTimeout] or the end of ctx it stops Postgres at
// once; that loses nothing that was committed. A second Stop does nothing.
func (c *Cluster) Stop(ctx context.Context) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.state == closed {
		return nil
	}
	c.state = closed
	err := c.halt(ctx)
	c.release()
	return err
}

// Kill ends Postgres at once, as a crash would, and leaves the directory locked:
// [Cluster.Restart] or [Cluster.Stop] come next. It returns when Postgres is gone.
func (c *Cluster) Kill() error { return c.crash(sigQuit) }

// KillHard ends the postmaster with SIGKILL; the backends notice and end by
// themselves, a little later. Else it is as [Cluster.Kill].
func (c *Cluster) KillHard() error { return c.crash(sigKill) }

// Restart stops Postgres cleanly if it runs, and starts it on the same port.
func (c *Cluster) Restart(ctx context.Context) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.state == closed {
		return fmt.Errorf("restart Postgres in %s: it was stopped and its directory released: %w", c.lay.dir, lockstep.ErrConflict)
	}
	c.state = halted
	if err := c.halt(ctx); err != nil {
		return err
	}
	return c.start(ctx)
}

// start is boot under the start timeout; the caller holds mu.
func (c *Cluster) start(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, c.cfg.StartTimeout)
	defer cancel()
	if err := c.boot(ctx); err != nil {
		return err
	}
	c.state = running
	return nil
}

// release gives the directory back. Nothing of ours runs in it any more.
func (c *Cluster) release() {
	c.lay.removeSocketDir()
	_ = c.lock.Release() // whoever takes it next is told what is wrong
}

// Run keeps Postgres up until ctx ends: a postmaster that ended by itself is
// started again, with growing pauses of 100 ms to 10 s, and its log is kept small.
// Run does not stop Postgres: [Cluster.Stop] does, once nobody uses it any more.
func (c *Cluster) Run(ctx context.Context) error {
	const longest = 10 * time.Second
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	var pause time.Duration
	var next time.Time
	for {
		select {
		case <-ctx.Done():
			return nil
		case now := <-tick.C:
			if now.Before(next) {
				continue
			}
			c.lay.trimLog()
			revived, err := c.revive(ctx)
			switch {
			case ctx.Err() != nil:
				return nil
			case err != nil:
				pause = min(max(2*pause, 100*time.Millisecond), longest)
				c.cfg.Logger.ErrorContext(ctx, "the private Postgres does not start; trying again", "error", err, "pause", pause)
			case revived:
				pause = min(max(2*pause, 100*time.Millisecond), longest)
			default:
				pause = 0
			}
			next = now.Add(pause)
		}
	}
}

// revive starts Postgres again if it ended without having been asked to.
func (c *Cluster) revive(ctx context.Context) (revived bool, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.state != running || c.proc.alive() {
		return false, nil
	}
	c.cfg.Logger.WarnContext(ctx, "the private Postgres ended by itself; starting it again", "exit", c.proc.err, "log", c.lay.logFile())
	return true, c.start(ctx)
}

// CreateDatabase creates a database if it does not exist yet.
func (c *Cluster) CreateDatabase(ctx context.Context, name string) error {
	return createDatabase(ctx, c.URL("postgres"), name)
}

// Installed reports whether dir holds a Postgres made by this package.
func Installed(dir string) bool {
	_, err := os.Stat(filepath.Join(dir, dataName, "PG_VERSION"))
	return err == nil
}
