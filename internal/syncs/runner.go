package syncs

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"lockstep"
	"lockstep/internal/mirror"
	"lockstep/internal/obs"
	"lockstep/internal/pull"
	"lockstep/source"
)

// runner runs one sync, and opens it again after whatever kept it from running.
type runner struct {
	set *Set
	id  string

	mu     sync.Mutex
	def    Definition
	broken error         // why it can never run as it is stored
	state  pull.State    // while it is not open
	reason string        // why it is not open
	open   *opened       // nil while it is not
	stop   func()        // nil while it does not run
	done   chan struct{} // closed when it has ended
}

// opened is a sync that is at work, or waits for another engine.
type opened struct {
	pull       *pull.Sync
	mirror     *mirror.Mirror
	account    Account
	connection Connection
}

func newRunner(s *Set, d Definition) *runner {
	return &runner{set: s, id: d.ID, def: d, state: pull.Starting}
}

func (r *runner) definition() Definition {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.def
}

// remember takes over what only the database knows of a sync of the configuration.
func (r *runner) remember(old Definition) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.def.Paused, r.def.CreatedAt, r.def.UpdatedAt = old.Paused, old.CreatedAt, old.UpdatedAt
}

// begin reports whether it was not running.
func (r *runner) begin(stop func()) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.stop != nil {
		return false
	}
	r.stop, r.done = stop, make(chan struct{})
	return true
}

func (r *runner) ended() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.stop = nil
	close(r.done)
}

// halt ends it and waits until it has ended.
func (r *runner) halt(ctx context.Context) error {
	r.mu.Lock()
	stop, done := r.stop, r.done
	r.mu.Unlock()
	if stop == nil {
		return nil
	}
	stop()
	select {
	case <-done:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("stop sync %q: %w", r.definition().Name, context.Cause(ctx))
	}
}

// working returns the open sync, or says why there is none.
func (r *runner) working() (*opened, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.open != nil {
		return r.open, nil
	}
	reason := r.reason
	switch {
	case r.broken != nil:
		return nil, fmt.Errorf("sync %q: %w: %w", r.def.Name, r.broken, lockstep.ErrConflict)
	case r.state == pull.Blocked:
		return nil, fmt.Errorf("sync %q: %s: %w", r.def.Name, reason, lockstep.ErrConflict)
	case reason == "":
		reason = "it is being opened, try again"
	}
	return nil, fmt.Errorf("sync %q: %s: %w", r.def.Name, reason, lockstep.ErrUnavailable)
}

// openPoll is how often it is looked whether a sync is open.
const openPoll = 10 * time.Millisecond

// await returns the open sync, as soon as it is. What keeps it from being opened is
// returned at once.
func (r *runner) await(ctx context.Context) (*opened, error) {
	tick := time.NewTicker(openPoll)
	defer tick.Stop()
	for {
		o, err := r.working()
		if err == nil || !r.opening() {
			return o, err
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil, fmt.Errorf("%w: %w", err, context.Cause(ctx))
		}
	}
}

// opening reports whether it is not open yet, and nothing has kept it from it so far.
func (r *runner) opening() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.open == nil && r.broken == nil && r.reason == ""
}

func (r *runner) fail(state pull.State, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.state, r.reason = state, oneLine(err)
}

// oneLine puts errors that were joined into one line.
func oneLine(err error) string { return strings.ReplaceAll(err.Error(), "\n", "; ") }

func (r *runner) view() View {
	r.mu.Lock()
	defer r.mu.Unlock()
	v := View{Definition: r.def, Status: pull.Status{State: r.state, Reason: r.reason}}
	switch {
	case r.open != nil:
		v.Status = r.open.pull.Status()
	case r.broken != nil:
		v.Status.State, v.Status.Reason = pull.Blocked, oneLine(r.broken)
	case r.def.Paused:
		v.Status.State = pull.Paused
	}
	return v
}

const (
	firstPause = 500 * time.Millisecond
	lastPause  = 30 * time.Second
)

// run opens the sync and keeps it at work until ctx ends.
func (r *runner) run(ctx context.Context) {
	said := ""
	for pause := firstPause; ctx.Err() == nil; pause = min(2*pause, lastPause) {
		err := r.once(ctx)
		if ctx.Err() != nil {
			return
		}
		state := pull.Failing
		if errors.Is(err, lockstep.ErrInvalid) || errors.Is(err, lockstep.ErrConflict) {
			state = pull.Blocked
		}
		r.fail(state, err)
		if err.Error() != said {
			said = err.Error()
			r.set.config.Logger.ErrorContext(ctx, "a sync cannot work now", obs.KeySync, r.definition().Name, obs.KeyError, err)
		}
		select {
		case <-time.After(pause):
		case <-ctx.Done():
		}
	}
}

// once returns when ctx ends, or with the reason why the sync could not be opened.
func (r *runner) once(ctx context.Context) error {
	o, err := r.prepare(ctx)
	if err != nil {
		return err
	}
	r.mu.Lock()
	if r.def.Paused {
		o.pull.Pause()
	}
	r.open = o
	r.mu.Unlock()
	defer func() {
		r.mu.Lock()
		r.open = nil
		r.mu.Unlock()
	}()
	if err := o.pull.Run(ctx); err != nil {
		return err
	}
	return fmt.Errorf("sync %q has ended: %w", r.definition().Name, lockstep.ErrUnavailable)
}

func (r *runner) prepare(ctx context.Context) (*opened, error) {
	d := r.definition()
	if r.broken != nil {
		return nil, r.broken
	}
	account, problems := r.set.config.Resolve(d)
	if len(problems) > 0 {
		return nil, &DefinitionError{Name: d.Name, Problems: problems}
	}
	st := r.set.stores[d.Database]
	if err := st.put(ctx, d, account.Prefix()); err != nil {
		return nil, err
	}
	connection, err := account.Open(d, tokens{st, d})
	if err != nil {
		return nil, fmt.Errorf("sync %q: %w", d.Name, err)
	}
	log := r.set.config.Logger
	m, err := mirror.Open(ctx, mirror.Config{
		Pool: st.target.Pool, Sync: d.ID, Name: d.Name, Provider: account.Prefix(), Schema: d.Schema, Logger: log,
		Named: func(ctx context.Context, collection, table string) error {
			return r.set.config.Named(ctx, Table{
				Database: d.Database, Schema: d.Schema, Name: table, SyncID: d.ID, Sync: d.Name, Provider: account.Prefix(), Collection: account.Prefix() + ":" + collection,
			})
		},
	})
	if err != nil {
		return nil, err
	}
	p := pull.New(pull.Config{
		Name: d.Name, Provider: account.Prefix(), Source: connection.Source, Mirror: m, Collections: account.Collections(), Every: d.Every,
		Quotas: connection.Quotas, Logger: log,
	})
	return &opened{pull: p, mirror: m, account: account, connection: connection}, nil
}

// receiver returns what takes the API's webhooks, if the provider has any.
func (o *opened) receiver() (source.Receiver, bool) {
	receiver, ok := o.connection.Source.(source.Receiver)
	return receiver, ok
}
