package cluster

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"

	"lockstep"
)

// stopLeftover ends a postmaster that an earlier process of ours left behind. The
// lock is ours, so whoever runs in the directory has no owner any more.
func (c *Cluster) stopLeftover(ctx context.Context) error {
	text, err := os.ReadFile(c.lay.pidFile())
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("read %s: %w: %w", c.lay.pidFile(), err, lockstep.ErrEnvironment)
	}
	first, _, _ := strings.Cut(string(text), "\n")
	pid, err := strconv.Atoi(strings.TrimSpace(first))
	if err != nil || pid <= 1 {
		return c.dropPIDFile()
	}
	switch runsIn(pid, c.lay.data()) {
	case no:
		return c.dropPIDFile()
	case unknown:
		return nil // Postgres decides
	case yes:
	}
	c.cfg.Logger.WarnContext(ctx, "a Postgres of an earlier run is still there; stopping it", "pid", pid)
	for _, s := range []struct {
		signal syscall.Signal
		wait   time.Duration
	}{{sigFast, c.cfg.StopTimeout}, {sigQuit, 5 * time.Second}, {sigKill, 5 * time.Second}} {
		if err := syscall.Kill(pid, s.signal); err != nil && !errors.Is(err, syscall.ESRCH) {
			return fmt.Errorf("stop the Postgres of an earlier run, process %d: %w: stop it by hand: %w", pid, err, lockstep.ErrConflict)
		}
		if gone, err := c.awaitGone(ctx, pid, s.wait); gone || err != nil {
			return err
		}
	}
	return fmt.Errorf("the Postgres of an earlier run, process %d, does not end: %w", pid, lockstep.ErrConflict)
}

// awaitGone waits until the process no longer runs in the data directory.
func (c *Cluster) awaitGone(ctx context.Context, pid int, atMost time.Duration) (bool, error) {
	timer := time.NewTimer(atMost)
	defer timer.Stop()
	tick := time.NewTicker(poll)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return false, fmt.Errorf("wait for the Postgres of an earlier run, process %d: %w", pid, context.Cause(ctx))
		case <-timer.C:
			return false, nil
		case <-tick.C:
			if runsIn(pid, c.lay.data()) == no {
				return true, nil
			}
		}
	}
}

// dropPIDFile removes a pid file that names no Postgres of this directory. Postgres
// would do so itself, except when its number has gone to another process of the
// same user, as it does in a container: then it would refuse to start.
func (c *Cluster) dropPIDFile() error {
	if !canPassDirectory { // without /proc nobody knows for sure
		return nil
	}
	if err := os.Remove(c.lay.pidFile()); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove the stale %s: %w: %w", c.lay.pidFile(), err, lockstep.ErrEnvironment)
	}
	return nil
}

type answer int

const (
	no answer = iota
	yes
	unknown
)
