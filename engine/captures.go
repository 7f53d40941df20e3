package engine

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"sync"
	"time"

	"lockstep/internal/obs"
	"lockstep/internal/stage"
)

// captureSet runs what databases made by API need. One that fails stops nothing but itself:
// its status tells why, and the next start of the node, a change or its deletion ends that.
type captureSet struct {
	log *slog.Logger

	mu      sync.Mutex
	ctx     context.Context       //nolint:containedctx // of the stage, for databases that are made meanwhile; nil: it has not begun
	waiting []*database           // guarded by mu: those that came before
	running map[string]*capturing // guarded by mu, by name
	work    sync.WaitGroup
}

type capturing struct {
	cancel context.CancelFunc
	done   chan struct{} // closed when everything of it has ended
	err    error         // set before done is closed
}

func newCaptureSet(log *slog.Logger) *captureSet {
	return &captureSet{log: log, running: map[string]*capturing{}}
}

// stage gives each database the time that two stages of its own would have.
func (c *captureSet) stage() stage.Stage {
	return stage.Stage{Name: "databases", Run: c.run, Grace: 25 * time.Second}
}

func (c *captureSet) run(ctx context.Context) error {
	c.mu.Lock()
	c.ctx = ctx
	for _, d := range c.waiting {
		c.begin(d) //nolint:contextcheck // it is ctx
	}
	c.waiting = nil
	c.mu.Unlock()
	<-ctx.Done()
	c.mu.Lock()
	c.running = map[string]*capturing{} // who came before is in work, and nobody comes after
	c.mu.Unlock()
	c.work.Wait()
	return nil
}

// start begins to capture a database, now or as soon as the stage runs.
func (c *captureSet) start(d *database) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.ctx == nil {
		c.waiting = append(c.waiting, d)
		return
	}
	c.begin(d)
}

// begin starts a database's stages. c.mu is held.
func (c *captureSet) begin(d *database) {
	if d.capture == nil || c.ctx.Err() != nil {
		return
	}
	ctx, cancel := context.WithCancel(c.ctx)
	r := &capturing{cancel: cancel, done: make(chan struct{})}
	c.running[d.Name] = r
	c.work.Go(func() {
		defer close(r.done)
		defer cancel()
		if r.err = stage.Run(ctx, d.stages()...); r.err != nil {
			c.log.ErrorContext(ctx, "the capture of a database has ended", obs.KeyDatabase, d.Name, obs.KeyError, r.err)
		}
	})
}

// stop ends what start began, and waits for it. An error says that something of it did
// not end: it must not be started again.
func (c *captureSet) stop(name string) error {
	c.mu.Lock()
	r := c.running[name]
	delete(c.running, name)
	c.waiting = slices.DeleteFunc(c.waiting, func(d *database) bool { return d.Name == name })
	c.mu.Unlock()
	if r == nil {
		return nil
	}
	r.cancel()
	<-r.done
	if errors.Is(r.err, stage.ErrStuck) {
		return r.err
	}
	return nil
}
