package chaos_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"
)

// happen lets the accident happen and mends what must be mended by somebody else than
// the node.
func (c *campaign) happen(ctx context.Context, a accident) error {
	switch a.kind {
	case killNode:
		c.node.kill()
		wait(ctx, a.lasts)
		return c.node.launch()
	case stopNode:
		if err := c.node.stop(); err != nil {
			return fmt.Errorf("the node did not end as it should: %w; its last words: %s", err, c.node.lastWords())
		}
		wait(ctx, a.lasts)
		return c.node.launch()
	case freezeNode:
		c.node.signal(syscall.SIGSTOP)
		return c.lasting(ctx, a, func() error { c.node.signal(syscall.SIGCONT); return nil })
	case crashPostgres:
		if err := c.postgres.Kill(); err != nil {
			return err
		}
		return c.lasting(ctx, a, func() error { return c.postgres.Restart(ctx) })
	case endWalsender:
		return c.endWalsender(ctx)
	case loseWorkers:
		for _, crew := range c.crews {
			crew.stop()
			crew.start(c.working)
		}
		return nil
	case fillDisk:
		free, err := c.disk.fill()
		if err != nil {
			return err
		}
		return c.lasting(ctx, a, free)
	case sameDirectory:
		return c.sameDirectory(ctx)
	case sameSlot:
		return c.sameSlot(ctx, a)
	case jumpClock:
		return c.jump(a)
	case cutPower:
		return c.cutPower(ctx)
	case cutNetwork, holdNetwork, slowNetwork, shutNetwork, loseNetwork, halfOpen:
	}
	return c.disturb(ctx, a)
}

func (c *campaign) disturb(ctx context.Context, a accident) error {
	release := func() {}
	switch a.kind {
	case cutNetwork:
		c.net.cut()
	case loseNetwork:
		c.net.lose()
	case halfOpen:
		c.net.loseOne(rand.New(rand.NewPCG(a.dice, 0)))
	case holdNetwork:
		release = c.net.hold()
	case slowNetwork:
		release = c.net.slow(time.Duration(20+a.dice%300) * time.Millisecond)
	case shutNetwork:
		release = c.net.shut()
	default:
		return fmt.Errorf("nobody knows what a %q is", a.kind)
	}
	return c.lasting(ctx, a, func() error { release(); return nil })
}

// lasting waits as long as the accident lasts, kills the node in the middle of it when
// that is asked for, and mends it.
func (c *campaign) lasting(ctx context.Context, a accident, mend func() error) error {
	if !a.inner {
		wait(ctx, a.lasts)
		return mend()
	}
	wait(ctx, a.lasts/2)
	c.node.kill()
	err := c.node.launch()
	wait(ctx, a.lasts/2)
	return errors.Join(err, mend())
}

func (c *campaign) endWalsender(ctx context.Context) error {
	conn, err := pgx.Connect(ctx, c.url)
	if err != nil {
		return err
	}
	defer conn.Close(ctx)
	_, err = conn.Exec(ctx, "SELECT pg_terminate_backend(pid) FROM pg_stat_replication")
	return err
}

// sameDirectory starts a second node on the first one's data directory: it must refuse.
func (c *campaign) sameDirectory(ctx context.Context) error {
	if err := c.node.listening(ctx, time.Minute); err != nil {
		return err
	}
	second := newNode(c.t, filepath.Join(c.dir, "second"), setup{data: c.node.data, url: c.through, binary: c.binary})
	defer second.kill()
	if err := second.launch(); err != nil {
		return err
	}
	return eventually(ctx, time.Minute, "the second node on the data directory to refuse", func() error {
		how := second.ended()
		if how == "" {
			return errors.New("it runs")
		}
		if !strings.Contains(how, "in use") {
			return fmt.Errorf("it ended, but does not say why: %s", how)
		}
		return nil
	})
}

// sameSlot starts a second node on the first one's slot, with a directory of its own:
// it must wait, and write nothing.
func (c *campaign) sameSlot(ctx context.Context, a accident) error {
	if err := c.node.ready(ctx, time.Minute); err != nil {
		return err
	}
	c.thirds++
	third := newNode(c.t, filepath.Join(c.dir, "third-"+strconv.Itoa(c.thirds)), setup{url: c.through, binary: c.binary})
	defer third.kill()
	if err := third.launch(); err != nil {
		return err
	}
	if err := third.listening(ctx, time.Minute); err != nil {
		return err
	}
	wait(ctx, a.lasts)
	databases, err := third.api.Databases(ctx)
	if err != nil {
		return fmt.Errorf("the second node on the slot: %w: %s", err, third.lastWords())
	}
	if d := databases[0]; d.Connected || d.LastSeq > 0 || d.Status == "ok" {
		return fmt.Errorf("the second node on the slot: connected %v, last seq %d, status %s (%s); want it to wait and to say so", d.Connected, d.LastSeq, d.Status, d.Reason)
	}
	if c.node.ended() == "" && c.node.api.Ready(ctx) != nil {
		// It may have been slow for a moment; but the other one must not have its place.
		return c.node.ready(ctx, time.Minute)
	}
	return nil
}

// jump sets the node's wall clock, up to two hours either way.
func (c *campaign) jump(a accident) error {
	offset := int64(a.dice%14400) - 7200
	return os.WriteFile(c.clock, strconv.AppendInt(nil, offset, 10), 0o600)
}
