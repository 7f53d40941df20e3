package engine

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/google/uuid"

	"lockstep"
	"lockstep/internal/api"
	"lockstep/internal/config"
	"lockstep/internal/deliver"
	"lockstep/internal/kinds"
	"lockstep/internal/obs"
	"lockstep/internal/pump"
	"lockstep/internal/stream"
)

// openBroker opens the consumers of the configuration. Those made by API follow
// when the control plane is there.
func (e *Engine) openBroker(ctx context.Context) (func() error, error) {
	states, err := e.stream.States(ctx)
	if err != nil {
		return nil, fmt.Errorf("open the consumers' states: %w", err)
	}
	dead, err := e.stream.Dead(ctx)
	if err != nil {
		return nil, fmt.Errorf("open the dead letters: %w", err)
	}
	e.broker = deliver.New(deliver.Config{
		Logs: e.deliverLog, States: states, Dead: letters{dead}, Secret: e.dir.derive("ack tokens"), Mirrored: e.mirrored.find,
		Logger: e.Logger.With(obs.KeyStage, "deliver"),
	})
	for _, c := range e.cfg.Consumers {
		if _, err := e.broker.Put(ctx, e.definition(c)); err != nil {
			return nil, fmt.Errorf("consumers: %w", err)
		}
	}
	return nil, nil
}

// fileConsumers is the namespace of the ids of consumers that a configuration
// defines: the same name has the same id, and so the same progress, for ever.
var fileConsumers = uuid.MustParse("6f8ff0f4-5f5c-4c4f-9c0c-3d0b5f1d7a11")

func (e *Engine) definition(c config.Consumer) deliver.Definition {
	var settings json.RawMessage
	if text := c.Settings.Reveal(); text != "" {
		settings = json.RawMessage(text)
	}
	return deliver.Definition{
		ID: uuid.NewSHA1(fileConsumers, []byte(c.Name)).String(), Name: c.Name, Kind: string(c.Kind), Database: c.Database,
		Tables: c.Tables, Collections: c.Collections, Sync: c.Sync, Actions: c.Actions, Filter: c.Filter, Transform: c.Transform, Start: c.Start.String(), Backfill: c.Backfill,
		OrderBy: deliver.OrderBy{None: c.OrderBy.Unordered, Columns: c.OrderBy.Columns},
		AckWait: c.AckWait, MaxInFlight: c.MaxInFlight, MaxAttempts: c.MaxAttempts, OnExhausted: string(c.OnExhausted),
		Backoff: deliver.Backoff{First: c.Backoff.First, Max: c.Backoff.Max, Jitter: c.Backoff.Jitter},
		Batch:   deliver.Batch{Size: c.Batch.Size, Wait: c.Batch.Wait}, Settings: settings, Shown: kinds.Shown(string(c.Kind), settings),
		ManagedBy: "file", CreatedAt: e.started.UTC(), UpdatedAt: e.started.UTC(),
	}
}

// loadControl opens the databases and the consumers that were made by API. One that cannot be opened
// does not stop the others.
func (e *Engine) loadControl(ctx context.Context) error {
	var file []deliver.Definition
	for _, c := range e.cfg.Consumers {
		file = append(file, e.definition(c))
	}
	if err := e.control.store.Publish(ctx, file); err != nil {
		return err
	}
	if err := e.loadDatabases(ctx); err != nil {
		return err
	}
	definitions, err := e.control.store.Load(ctx)
	if err != nil {
		return err
	}
	for _, d := range definitions {
		if err := e.loadConsumer(ctx, d); err != nil {
			if errors.Is(err, lockstep.ErrUnavailable) || ctx.Err() != nil {
				return err
			}
			e.Logger.ErrorContext(ctx, "a stored consumer cannot be opened", obs.KeyConsumer, d.Name, obs.KeyError, err)
		}
	}
	e.pumps.Kick()
	e.remembered.warmed()
	return e.tokens.Load(ctx)
}

// loadConsumer opens a consumer made by API. Of those in the configuration only
// whether they are paused is stored.
func (e *Engine) loadConsumer(ctx context.Context, d deliver.Definition) error {
	if d.ManagedBy != "file" {
		_, err := e.broker.Put(ctx, d)
		return err
	}
	c, err := e.broker.Find(d.ID)
	if err != nil || !d.Paused {
		return err
	}
	return c.Pause(ctx)
}

// consumers is the API's view of the broker and the stored definitions.
func (e *Engine) consumers() api.Consumers {
	return &api.Registry{
		Broker: kicked{api.Deliver(e.broker), e.pumps, e.forgetConsumer, e.using.RLocker()}, Store: e.control,
		DefinedIn: func(string) string { return e.cfg.File },
	}
}

// deliverLog finds the log of a database.
func (e *Engine) deliverLog(_ context.Context, database string) (deliver.Log, error) {
	d := e.database(database)
	if d == nil {
		return nil, fmt.Errorf("there is no database %q: %w", database, lockstep.ErrInvalid)
	}
	if d.leaving.Load() {
		return nil, fmt.Errorf("database %q is being deleted: %w", database, lockstep.ErrConflict)
	}
	return changes{d.log}, nil
}

// changes gives delivery a log in its own words.
type changes struct{ *stream.Log }

// BatchOf implements [deliver.Log].
func (c changes) BatchOf(ctx context.Context, seq uint64) (*lockstep.Batch, error) {
	b, err := c.Log.BatchOf(ctx, seq)
	return b, damage(err)
}

// Reader implements [deliver.Log].
func (c changes) Reader(from uint64) deliver.Reader { return reader{c.Log.Reader(from)} }

type reader struct{ *stream.Reader }

// Next implements [deliver.Reader].
func (r reader) Next(ctx context.Context) (*lockstep.Batch, error) {
	b, err := r.Reader.Next(ctx)
	return b, damage(err)
}

// damage tells delivery of damaged changes in its own words.
func damage(err error) error {
	if corrupt, ok := errors.AsType[*stream.CorruptError](err); ok {
		return &deliver.DamageError{First: corrupt.First, Last: corrupt.Last, Err: err}
	}
	return err
}

// letters gives delivery the dead letters in its own words.
type letters struct{ *stream.Dead }

// Put implements [deliver.Dead].
func (l letters) Put(ctx context.Context, consumer string, letter deliver.Letter) error {
	return l.Dead.Put(ctx, consumer, stream.Letter(letter))
}

// Get implements [deliver.Dead].
func (l letters) Get(ctx context.Context, consumer string, seq uint64) (deliver.Letter, error) {
	letter, err := l.Dead.Get(ctx, consumer, seq)
	return deliver.Letter(letter), err
}

// List implements [deliver.Dead].
func (l letters) List(ctx context.Context, consumer string, after uint64, limit int) ([]deliver.Letter, uint64, error) {
	found, next, err := l.Dead.List(ctx, consumer, after, limit)
	list := make([]deliver.Letter, len(found))
	for i, letter := range found {
		list[i] = deliver.Letter(letter)
	}
	return list, next, err
}

// report is what the status tables are told.
func (e *Engine) report() report {
	var r report
	last := map[string]uint64{}
	for _, d := range e.databases.all() {
		s := d.status()
		last[d.Name] = d.log.Last().Seq
		r.databases = append(r.databases, databaseReport{
			name: d.Name, capture: s.Capture, connected: s.Connected, confirmed: s.ConfirmedLSN, received: s.ReceivedLSN,
			lastSeq: last[d.Name], lagBytes: uint64(s.LagBytes), lastError: s.Reason,
		})
	}
	for _, c := range e.broker.List() {
		d, s := c.Definition(), c.Stats()
		row := consumerReport{
			id: d.ID, name: d.Name, database: d.Database, paused: d.Paused, floor: s.Floor, last: last[d.Database],
			pending: uint64(s.Pending), inFlight: uint64(s.InFlight), redelivered: s.Redelivered, dead: s.Dead,
		}
		if s.OldestUnacked > 0 {
			at := time.Now().Add(-s.OldestUnacked).Truncate(time.Second)
			row.oldestUnacked = &at
		}
		r.consumers = append(r.consumers, row)
	}
	return r
}

// observeConsumers reports every consumer to the metrics, and forgets those that
// are gone.
func (e *Engine) observeConsumers() {
	e.shown.mu.Lock()
	defer e.shown.mu.Unlock()
	here := map[string]bool{}
	for _, c := range e.broker.List() {
		d, s := c.Definition(), c.Stats()
		here[d.ID] = true
		view, ok := e.shown.views[d.ID]
		if !ok || view.name != d.Name {
			if ok {
				e.metrics.Forget(view.database, view.name) // it was renamed
			}
			view = shownConsumer{e.metrics.Consumer(d.Database, d.Name), nil, d.Database, d.Name}
			e.shown.views[d.ID] = view
		}
		if p, err := e.pumps.Find(d.ID); err == nil {
			if view.to == nil {
				view.to = e.metrics.Destination(d.Database, d.Name, pump.Outcomes(), pump.States())
				e.shown.views[d.ID] = view
			}
			view.to.State(string(p.Status().State))
		}
		view.Report(
			obs.ConsumerTotals{Delivered: s.Delivered, Redelivered: s.Redelivered, Acked: s.Acked, Nacked: s.Nacked, Expired: s.Expired, Parked: s.Parked},
			obs.ConsumerNow{Pending: s.Pending, InFlight: s.InFlight, Dead: s.Dead, OldestUnacked: s.OldestUnacked, Paused: s.Paused},
		)
	}
	for id, view := range e.shown.views {
		if !here[id] {
			e.metrics.Forget(view.database, view.name)
			delete(e.shown.views, id)
		}
	}
}

// forgetConsumer returns what removes a consumer from the metrics when it is deleted.
func (e *Engine) forgetConsumer(id string) func() {
	c, err := e.broker.Find(id)
	if err != nil {
		return func() {}
	}
	d := c.Definition()
	return func() {
		e.shown.mu.Lock()
		defer e.shown.mu.Unlock()
		e.metrics.Forget(d.Database, d.Name)
		delete(e.shown.views, d.ID)
	}
}

// shownConsumers are the consumers that the metrics know.
type shownConsumers struct {
	mu    sync.Mutex
	views map[string]shownConsumer // by id
}

type shownConsumer struct {
	*obs.Consumer
	to             *obs.Destination // nil: nothing is sent
	database, name string
}

// ListBefore implements [deliver.Dead].
func (l letters) ListBefore(ctx context.Context, consumer string, before uint64, limit int) ([]deliver.Letter, uint64, error) {
	found, next, err := l.Dead.ListBefore(ctx, consumer, before, limit)
	list := make([]deliver.Letter, len(found))
	for i, letter := range found {
		list[i] = deliver.Letter(letter)
	}
	return list, next, err
}

// PutSome implements [deliver.Dead].
func (l letters) PutSome(ctx context.Context, consumer string, list []deliver.Letter) error {
	stored := make([]stream.Letter, len(list))
	for i, letter := range list {
		stored[i] = stream.Letter(letter)
	}
	return l.Dead.PutSome(ctx, consumer, stored)
}

// Find implements [deliver.Dead].
func (l letters) Find(ctx context.Context, consumer string, key, after uint64, limit int) ([]deliver.Letter, uint64, error) {
	found, next, err := l.Dead.Find(ctx, consumer, key, after, limit)
	list := make([]deliver.Letter, len(found))
	for i, letter := range found {
		list[i] = deliver.Letter(letter)
	}
	return list, next, err
}
