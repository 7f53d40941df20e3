package engine

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/cenkalti/backoff/v5"

	"lockstep"
	"lockstep/internal/api"
	"lockstep/internal/deliver"
	"lockstep/internal/obs"
	"lockstep/internal/pgdb"
)

// control is the control plane in Postgres: the schema, the consumers made by API,
// the audit, and the tables that people with psql read. It comes up when the
// database does; delivery does not wait for it.
type control struct {
	url   string
	store api.Postgres
	log   *slog.Logger

	ready  chan struct{} // closed by Run when the schema is there and load has run
	load   func(context.Context) error
	report func() report
}

const (
	reportEvery = 5 * time.Second
	controlHint = "the control plane (schema lockstep) cannot be reached now; what runs goes on, try again later"
)

func newControl(url string, store api.Postgres, log *slog.Logger) *control {
	return &control{url: url, store: store, log: log, ready: make(chan struct{})}
}

// Run brings the schema up to date, loads what is in it, and then keeps the status
// tables current. It goes on trying while the database is away.
func (c *control) Run(ctx context.Context) error {
	if err := c.open(ctx); err != nil {
		return err
	}
	close(c.ready)
	tick := time.NewTicker(reportEvery)
	defer tick.Stop()
	var status reporter
	for {
		if err := status.write(ctx, c.store.Pool, c.report()); err != nil && ctx.Err() == nil {
			c.log.DebugContext(ctx, "the status tables were not written", obs.KeyError, err)
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil
		}
	}
}

// loaded reports whether the schema is there and what is in it was read.
func (c *control) loaded() bool {
	select {
	case <-c.ready:
		return true
	default:
		return false
	}
}

// open returns an error only when ctx ends or trying again cannot help.
func (c *control) open(ctx context.Context) error {
	said := ""
	_, err := backoff.Retry(ctx, func() (struct{}, error) {
		err := pgdb.Migrate(ctx, c.url)
		if err == nil {
			err = c.load(ctx)
		}
		if err != nil && ctx.Err() == nil && err.Error() != said {
			said = err.Error()
			c.log.ErrorContext(ctx, "the control plane is not there yet", obs.KeyError, err)
		}
		return struct{}{}, err
	}, backoff.WithMaxElapsedTime(0), backoff.WithBackOff(&backoff.ExponentialBackOff{
		InitialInterval: 100 * time.Millisecond, RandomizationFactor: 0.5, Multiplier: 2, MaxInterval: 10 * time.Second,
	}))
	if ctx.Err() != nil {
		return nil
	}
	return err
}

// Insert implements [api.Definitions].
func (c *control) Insert(ctx context.Context, d deliver.Definition) error {
	return c.do(func() error { return c.store.Insert(ctx, d) })
}

// Update implements [api.Definitions].
func (c *control) Update(ctx context.Context, d deliver.Definition) error {
	return c.do(func() error { return c.store.Update(ctx, d) })
}

// Delete implements [api.Definitions].
func (c *control) Delete(ctx context.Context, id string) error {
	return c.do(func() error { return c.store.Delete(ctx, id) })
}

// Switched implements [api.Definitions].
func (c *control) Switched(ctx context.Context, d deliver.Definition) error {
	return c.do(func() error { return c.store.Switched(ctx, d) })
}

// Record implements [api.Auditor].
func (c *control) Record(ctx context.Context, e api.Entry) error {
	return c.do(func() error { return c.store.Record(ctx, e) })
}

// Entries implements [api.Audited].
func (c *control) Entries(ctx context.Context, target string, before int64, limit int) (found []api.StoredEntry, err error) {
	err = c.do(func() error {
		found, err = c.store.Entries(ctx, target, before, limit)
		return err
	})
	return found, err
}

// do uses the store once it is there. Whatever fails that is not about the request
// itself is told as a control plane that is away.
func (c *control) do(use func() error) error {
	if !c.loaded() {
		return fmt.Errorf("%s: %w", controlHint, lockstep.ErrUnavailable)
	}
	err := use()
	if err == nil || errors.Is(err, lockstep.ErrConflict) || errors.Is(err, lockstep.ErrNotFound) {
		return err
	}
	return fmt.Errorf("%s: %w: %w", controlHint, err, lockstep.ErrUnavailable)
}
