package syncs

import (
	"context"
	"errors"
	"fmt"
	"reflect"
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
	anew   func()        // has it opened again; nil while it does not run
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

// stamp notes when it was stored first, and when what is stored of it was changed last.
func (r *runner) stamp(at stamps) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.def.CreatedAt, r.def.UpdatedAt = at.created, at.updated
}

// pause stops it from asking the API, or lets it go on.
func (r *runner) pause(paused bool, changed time.Time) { //nolint:revive // it sets what the sync is, and does nothing else by it
	r.mu.Lock()
	r.def.Paused, r.def.UpdatedAt = paused, changed
	o := r.open
	r.mu.Unlock()
	switch {
	case o == nil:
	case paused:
		o.pull.Pause()
	default:
		o.pull.Resume()
	}
}

// follow goes on as the sync is stored now.
func (r *runner) follow(row stored) {
	d := row.definition
	r.mu.Lock()
	same := r.def.ManagedBy == managedByFile || row.err == nil && r.broken == nil && alike(r.def, d)
	if !same {
		r.def, r.broken, r.state, r.reason = d, row.err, pull.Starting, ""
		if r.anew != nil {
			r.anew()
		}
	}
	r.mu.Unlock()
	if same {
		r.pause(d.Paused, d.UpdatedAt)
	}
}

// alike reports whether two definitions differ in nothing but when they were changed
// and whether they are paused.
func alike(a, b Definition) bool {
	a.Paused, a.CreatedAt, a.UpdatedAt = b.Paused, b.CreatedAt, b.UpdatedAt
	return reflect.DeepEqual(a, b)
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

// cancel ends it, and returns what is closed when it has ended; nil: it does not run.
func (r *runner) cancel() <-chan struct{} {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.stop == nil {
		return nil
	}
	r.stop()
	return r.done
}

// haltWait is how long a sync gets to end. What it writes after it was removed is
// refused.
const haltWait = 10 * time.Second

// halt ends it and waits for that.
func (r *runner) halt(ctx context.Context) {
	done := r.cancel()
	if done == nil {
		return
	}
	late := time.NewTimer(haltWait)
	defer late.Stop()
	select {
	case <-done:
	case <-late.C:
	case <-ctx.Done():
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
		return nil, fmt.Errorf("sync %q: %s: %w", r.def.Name, oneLine(r.broken), lockstep.ErrConflict)
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

// oneLine puts errors that were joined, or that the database's driver wrote, into one line.
func oneLine(err error) string {
	return strings.Join(strings.Fields(strings.ReplaceAll(err.Error(), "\n", "; ")), " ")
}

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

// run opens the sync and keeps it at work until ctx ends, or the sync was removed.
func (r *runner) run(ctx context.Context) {
	said := ""
	for pause := firstPause; ctx.Err() == nil; pause = min(2*pause, lastPause) {
		turn, end := context.WithCancel(ctx)
		r.turns(end)
		err := r.once(turn)
		switch {
		case ctx.Err() != nil:
		case errors.Is(err, errRemoved):
			r.set.config.Logger.InfoContext(ctx, "a sync was removed", obs.KeySync, r.definition().Name)
			r.set.drop(r)
		case turn.Err() != nil || errors.Is(err, pull.ErrStale):
			r.set.config.Logger.InfoContext(ctx, "a sync was changed, and begins anew", obs.KeySync, r.definition().Name)
			pause = firstPause / 2
			hold(turn, pause)
		default:
			said = r.excuse(ctx, err, said)
			hold(turn, pause)
		}
		end()
	}
}

// turns notes how what is under way is begun anew.
func (r *runner) turns(end func()) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.anew = end
}

// hold waits for a while.
func hold(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}

// excuse tells why the sync cannot work now, unless that was said before.
func (r *runner) excuse(ctx context.Context, err error, said string) string {
	state := pull.Failing
	if errors.Is(err, lockstep.ErrInvalid) || errors.Is(err, lockstep.ErrConflict) {
		state = pull.Blocked
	}
	r.fail(state, err)
	if err.Error() != said {
		r.set.config.Logger.ErrorContext(ctx, "a sync cannot work now", obs.KeySync, r.definition().Name, obs.KeyError, err)
	}
	return err.Error()
}

// once returns when ctx ends, or with the reason why the sync could not be opened, or
// is not as it was opened any more.
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

// errRemoved says that a sync made by API was deleted, perhaps by another node.
var errRemoved = errors.New("the sync was removed")

// settle returns the definition that the sync works by: of one made by API what is
// stored now, which another node may have changed.
func (r *runner) settle(ctx context.Context, st *store) (Definition, error) {
	d := r.definition()
	if d.ManagedBy == managedByFile {
		return d, nil
	}
	row, there, err := st.one(ctx, r.id)
	switch {
	case err != nil:
		return d, err
	case !there:
		return d, errRemoved
	}
	r.mu.Lock()
	r.def, r.broken = row.definition, row.err
	r.mu.Unlock()
	return row.definition, row.err
}

// current reports whether the sync is stored as it was when it was opened.
func (r *runner) current(st *store, d Definition) func(context.Context) (bool, error) {
	if d.ManagedBy == managedByFile {
		return nil
	}
	return func(ctx context.Context) (bool, error) {
		row, there, err := st.one(ctx, r.id)
		return there && row.err == nil && alike(row.definition, d), err
	}
}

func (r *runner) prepare(ctx context.Context) (*opened, error) {
	st := r.set.store(r.definition().Database)
	d, err := r.settle(ctx, st)
	if err != nil {
		return nil, err
	}
	account, problems := r.set.config.Resolve(d)
	if len(problems) > 0 {
		return nil, &DefinitionError{Name: d.Name, Problems: problems}
	}
	if d.ManagedBy == managedByFile {
		at, err := st.put(ctx, d, account.Prefix())
		if err != nil {
			return nil, err
		}
		r.stamp(at)
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
		Current: r.current(st, d), Quotas: connection.Quotas, Logger: log,
	})
	return &opened{pull: p, mirror: m, account: account, connection: connection}, nil
}

// receiver returns what takes the API's webhooks, if the provider has any.
func (o *opened) receiver() (source.Receiver, bool) {
	receiver, ok := o.connection.Source.(source.Receiver)
	return receiver, ok
}
