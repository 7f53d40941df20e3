package engine

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"lockstep"
	"lockstep/internal/api"
	"lockstep/internal/capture/backfill"
	"lockstep/internal/deliver"
	"lockstep/internal/obs"
	"lockstep/internal/stage"
	"lockstep/internal/stream"
)

// openBackfills prepares what reads existing rows. The open gaps were read with the
// databases, since capture may find one before anything else runs.
func (e *Engine) openBackfills(context.Context) (func() error, error) {
	e.backfills = backfill.New(backfill.Config{
		Store: backfill.Postgres{Pool: e.control.store.Pool}, Database: e.backfillSource, Consumers: readers{e}, Gaps: e.gaps,
		Logger: e.Logger.With(obs.KeyStage, "backfill"),
	})
	return nil, nil
}

// backfillStage runs backfills once the control plane is there.
func (e *Engine) backfillStage() stage.Stage {
	return stage.Stage{Name: "backfills", Run: func(ctx context.Context) error {
		select {
		case <-e.control.ready:
		case <-ctx.Done():
			return nil
		}
		running, stop := context.WithCancel(ctx)
		defer stop()
		var wishes sync.WaitGroup
		wishes.Go(func() { e.ensureBackfills(running) })
		err := e.backfills.Run(ctx)
		stop()
		wishes.Wait()
		return err
	}}
}

// ensureBackfills starts the backfills that definitions ask for, and tries again
// while a database is away. One that cannot be started is told once.
func (e *Engine) ensureBackfills(ctx context.Context) {
	said := map[string]string{}
	settled := map[string]bool{}
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		open := 0
		for _, c := range e.broker.List() {
			d := c.Definition()
			if !d.Backfill || settled[d.ID] {
				continue
			}
			err := e.backfills.Ensure(ctx, d.ID)
			if err == nil {
				settled[d.ID] = true
				continue
			}
			open++
			if ctx.Err() == nil && said[d.ID] != err.Error() {
				said[d.ID] = err.Error()
				e.Logger.ErrorContext(ctx, "the rows that exist are not read yet", obs.KeyConsumer, d.Name, obs.KeyError, err)
			}
		}
		if open == 0 {
			return
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

// backfillSource gives backfills a captured database.
func (e *Engine) backfillSource(name string) (backfill.Source, error) {
	d := e.database(name)
	if d == nil {
		return backfill.Source{}, fmt.Errorf("there is no database %q: %w", name, lockstep.ErrNotFound)
	}
	if d.leaving.Load() {
		return backfill.Source{}, fmt.Errorf("database %q is being deleted: %w", name, lockstep.ErrConflict)
	}
	if d.capture == nil {
		return backfill.Source{}, fmt.Errorf("database %q is not captured: rows are read between changes: %w", name, lockstep.ErrInvalid)
	}
	return backfill.Source{Pool: d.pool, Patterns: d.patterns, Publication: d.Publication, Capture: d.capture, Log: backfillLog{d.log}}, nil
}

// backfillLog gives backfills a log in their own words.
type backfillLog struct{ *stream.Log }

// Reader implements [backfill.Log].
func (l backfillLog) Reader(from uint64) backfill.Reader { return backfillReader{l.Log.Reader(from)} }

type backfillReader struct{ *stream.Reader }

// Next implements [backfill.Reader].
func (r backfillReader) Next(ctx context.Context) (*lockstep.Batch, error) {
	b, err := r.Reader.Next(ctx)
	if corrupt, ok := errors.AsType[*stream.CorruptError](err); ok {
		return b, &backfill.DamageError{First: corrupt.First, Last: corrupt.Last, Err: err}
	}
	return b, err
}

// readers finds the consumers that rows are read for.
type readers struct{ e *Engine }

// Lookup implements [backfill.Consumers].
func (r readers) Lookup(idOrName string) (backfill.Consumer, error) {
	c, err := r.e.broker.Find(idOrName)
	if err != nil {
		if errors.Is(err, lockstep.ErrNotFound) && !r.e.control.loaded() {
			return backfill.Consumer{}, fmt.Errorf("%s: %w", controlHint, lockstep.ErrUnavailable)
		}
		return backfill.Consumer{}, err
	}
	d := c.Definition()
	return backfill.Consumer{ID: d.ID, Name: d.Name, Database: d.Database, Selects: c.Selects, Standing: func() backfill.Standing { return standing(c) }}, nil
}

func standing(c *deliver.Consumer) backfill.Standing {
	s := c.Stats()
	return backfill.Standing{Pending: s.Pending, Acked: s.AckedEver, Paused: s.Paused}
}

// backfillCalls is what the API may do with backfills.
type backfillCalls struct{ e *Engine }

func (b backfillCalls) ready() error {
	if b.e.control.loaded() {
		return nil
	}
	return fmt.Errorf("%s: %w", controlHint, lockstep.ErrUnavailable)
}

// Start implements [api.Backfills].
func (b backfillCalls) Start(ctx context.Context, q api.BackfillRequest) (api.Backfill, error) {
	return b.one(b.e.backfills.Start(ctx, backfill.Request{Consumer: q.ConsumerID, Tables: q.Tables, Where: q.Where}))
}

// Ensure implements [api.Backfills].
func (b backfillCalls) Ensure(ctx context.Context, consumerID string) error {
	return b.e.backfills.Ensure(ctx, consumerID)
}

// Repair implements [api.Backfills].
func (b backfillCalls) Repair(ctx context.Context, database string) (api.Backfill, error) {
	return b.one(b.e.backfills.Start(ctx, backfill.Request{Gap: true, Database: database}))
}

// Get implements [api.Backfills].
func (b backfillCalls) Get(ctx context.Context, id string) (api.Backfill, error) {
	return b.one(b.e.backfills.Get(ctx, id))
}

// ByNumber implements [api.Backfills].
func (b backfillCalls) ByNumber(ctx context.Context, consumerID string, n int) (api.Backfill, error) {
	return b.one(b.e.backfills.ByNumber(ctx, consumerID, n))
}

// List implements [api.Backfills].
func (b backfillCalls) List(ctx context.Context, f api.BackfillFilter) ([]api.Backfill, error) {
	jobs, err := b.e.backfills.List(ctx, backfill.Filter{Consumer: f.ConsumerID, Database: f.Database, Active: f.Active})
	if err != nil {
		return nil, b.explain(err)
	}
	list := make([]api.Backfill, len(jobs))
	for i, j := range jobs {
		list[i] = backfillOf(j)
	}
	return list, nil
}

// Pause implements [api.Backfills].
func (b backfillCalls) Pause(ctx context.Context, id string) (api.Backfill, error) {
	return b.one(b.e.backfills.Pause(ctx, id))
}

// Resume implements [api.Backfills].
func (b backfillCalls) Resume(ctx context.Context, id string) (api.Backfill, error) {
	return b.one(b.e.backfills.Resume(ctx, id))
}

// Cancel implements [api.Backfills].
func (b backfillCalls) Cancel(ctx context.Context, id string) (api.Backfill, error) {
	return b.one(b.e.backfills.Cancel(ctx, id))
}

func (b backfillCalls) one(j backfill.Job, err error) (api.Backfill, error) {
	if err != nil {
		return api.Backfill{}, b.explain(err)
	}
	return backfillOf(j), nil
}

// explain tells a control plane that is not there yet as what it is.
func (b backfillCalls) explain(err error) error {
	if notYet := b.ready(); notYet != nil {
		return notYet
	}
	return err
}

func backfillOf(j backfill.Job) api.Backfill {
	out := api.Backfill{
		ID: j.ID, N: j.N, ConsumerID: j.ConsumerID, Consumer: j.Consumer, Database: j.Database, Gap: j.Gap, Where: j.Where, Origin: j.Origin,
		State: string(j.State), Reason: j.Reason, Rows: j.Rows, Total: j.Total, Overridden: j.Overridden, Deletes: j.Deletes,
		RowsPerSecond: j.RowsPerSecond, Left: j.Left, CreatedAt: j.CreatedAt, StartedAt: j.StartedAt, EndedAt: j.EndedAt,
	}
	for _, t := range j.Tables {
		out.Tables = append(out.Tables, api.BackfillTable{Name: t.Name, State: string(t.State), Reason: t.Reason, Rows: t.Rows, Total: t.Total})
	}
	return out
}
