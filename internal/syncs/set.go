package syncs

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"lockstep"
	"lockstep/internal/obs"
	"lockstep/internal/pull"
	"lockstep/source"
)

// Config is what the syncs of a node are made of.
type Config struct {
	// File are those of the configuration. Their ids are given and stay the same.
	File    []Definition
	Targets []Target
	// Resolve finds the account of a definition, or says what its provider does not like.
	Resolve func(d Definition) (Account, []Problem)
	// Named is told which table belongs to which collection: of what this node mirrors
	// before there is a row in it, of what others do soon.
	Named func(ctx context.Context, t Table) error
	// Settled waits until the consumer has acked everything that is in the database now.
	Settled func(ctx context.Context, database, consumer string) error
	Sealer  Sealer
	Logger  *slog.Logger // nil: nothing is logged
}

// Target is a database that mirrors lie in.
type Target struct {
	Name string
	Pool *pgxpool.Pool
	// Prepare brings its schema lockstep up to date.
	Prepare func(ctx context.Context) error
}

// Table is a mirror table.
type Table struct {
	Database   string `json:"database"`
	Schema     string `json:"schema"`
	Name       string `json:"name"`
	SyncID     string `json:"sync_id"`
	Sync       string `json:"sync"` // its name
	Provider   string `json:"provider"`
	Collection string `json:"collection"` // stripe:customer
}

// Account is a definition that its provider has found good.
type Account interface {
	// Prefix stands before a collection's name, as in stripe:customer, and is the default
	// of the schema.
	Prefix() string
	// Names returns the chosen collections with the prefix; none: all, also those of
	// later versions. Collections returns them all, without it.
	Names() []string
	Collections() []string
	// Open makes the source. Nothing is asked of the API.
	Open(d Definition, tokens Tokens) (Connection, error)
}

// Connection is an opened account.
type Connection struct {
	Source source.Source
	// Second reads the same account within the same limits, beside Source: two readers of
	// one list must not be taken for one that goes in circles.
	Second source.Source
	Quotas func() []pull.Quota // nil: there are no limits
}

// Tokens keeps what an API has given out, sealed, over restarts.
type Tokens interface {
	Load(ctx context.Context) ([]byte, error) // nil: nothing was saved
	Save(ctx context.Context, token []byte) error
}

// Sealer encrypts what lies in the database. The context says what it is: what was
// sealed for one opens for no other.
type Sealer interface {
	Seal(plain []byte, context string) []byte
	Open(sealed []byte, context string) ([]byte, error)
}

// Set is the syncs of a node. All methods may be called concurrently.
type Set struct {
	config Config

	change sync.Mutex // one change of the set at a time, so that what is stored and what runs agree

	mu      sync.Mutex
	stores  map[string]*store  // by database
	runners map[string]*runner // by id
	ctx     context.Context    //nolint:containedctx // of Work, for syncs that are made meanwhile; nil: it does not run
	work    sync.WaitGroup
}

// New returns the syncs of a configuration. Nothing is opened.
func New(config Config) *Set {
	if config.Logger == nil {
		config.Logger = slog.New(slog.DiscardHandler)
	}
	s := &Set{config: config, stores: map[string]*store{}, runners: map[string]*runner{}}
	for _, t := range config.Targets {
		s.stores[t.Name] = &store{target: t, sealer: config.Sealer, ready: make(chan struct{})}
	}
	for _, d := range config.File {
		d.ManagedBy = managedByFile
		s.runners[d.ID] = newRunner(s, d)
	}
	return s
}

const (
	managedByFile  = "file"
	managedByAPI   = "api"
	managedByApply = "apply"
)

// Work runs every sync until ctx ends. A database that is away keeps only its own
// syncs waiting.
func (s *Set) Work(ctx context.Context) error {
	s.mu.Lock()
	s.ctx = ctx
	for _, st := range s.stores {
		s.attend(st) //nolint:contextcheck // it is ctx
	}
	s.mu.Unlock()
	<-ctx.Done()
	s.mu.Lock()
	s.ctx = nil
	s.mu.Unlock()
	s.work.Wait()
	return nil
}

// openStore prepares a database, loads what was made by API, and starts its syncs.
func (s *Set) openStore(ctx context.Context, st *store) {
	said := ""
	for pause := 100 * time.Millisecond; ctx.Err() == nil; pause = min(2*pause, 10*time.Second) {
		err := s.load(ctx, st)
		if err == nil {
			close(st.ready)
			s.watch(ctx, st)
			return
		}
		if ctx.Err() == nil && err.Error() != said {
			said = err.Error()
			s.config.Logger.ErrorContext(ctx, "the syncs of a database are not there yet", obs.KeyDatabase, st.target.Name, obs.KeyError, err)
		}
		s.excuse(st, err)
		select {
		case <-time.After(pause):
		case <-ctx.Done():
		}
	}
}

// excuse tells on the syncs of a database why they have not begun.
func (s *Set) excuse(st *store, err error) {
	for _, r := range s.list() {
		if r.definition().Database == st.target.Name {
			r.fail(pull.Failing, err)
		}
	}
}

func (s *Set) load(ctx context.Context, st *store) error {
	if err := st.target.Prepare(ctx); err != nil {
		return err
	}
	stored, err := st.load(ctx)
	if err != nil {
		return err
	}
	if err := s.learn(ctx, st); err != nil {
		return err
	}
	if err := s.adoptFile(ctx, st, stored); err != nil {
		return err
	}
	for _, row := range stored {
		if row.definition.ManagedBy != managedByFile {
			s.adopt(ctx, row)
		}
	}
	for _, r := range s.list() {
		if r.definition().Database == st.target.Name {
			s.start(r) //nolint:contextcheck // it lives as long as Work
		}
	}
	return nil
}

// adopt takes in a sync that was made by API. One whose credential cannot be read is
// there all the same, and says why it does not run.
func (s *Set) adopt(ctx context.Context, row stored) *runner {
	r := newRunner(s, row.definition)
	if row.err != nil {
		s.config.Logger.ErrorContext(ctx, "a stored sync cannot be opened", obs.KeySync, row.definition.Name, obs.KeyError, row.err)
		r.broken = row.err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if known, there := s.runners[row.definition.ID]; there {
		return known
	}
	s.runners[row.definition.ID] = r
	return r
}

// adoptFile notes the syncs of the configuration in the database, and takes from it
// whether they are paused. What an earlier configuration has left there under their
// names or schemas is let go of, unless another engine works on it.
func (s *Set) adoptFile(ctx context.Context, st *store, rows []stored) error {
	for _, r := range s.list() {
		d := r.definition()
		if d.ManagedBy != managedByFile || d.Database != st.target.Name {
			continue
		}
		if err := s.takeOver(ctx, st, r, rows); err != nil {
			r.fail(pull.Blocked, err)
			continue // told on the sync; its opening meets the same
		}
		account, problems := s.config.Resolve(d)
		if len(problems) > 0 {
			r.fail(pull.Blocked, &DefinitionError{Name: d.Name, Problems: problems})
			continue
		}
		at, err := st.put(ctx, r.definition(), account.Prefix())
		if errors.Is(err, lockstep.ErrConflict) {
			r.fail(pull.Blocked, err)
			continue
		}
		if err != nil {
			return err
		}
		r.stamp(at)
	}
	return nil
}

// takeOver gives a sync of the configuration what the database knows of it, and the
// place of those that an earlier configuration had there.
func (s *Set) takeOver(ctx context.Context, st *store, r *runner, rows []stored) error {
	d := r.definition()
	for _, row := range rows {
		old := row.definition
		if old.ID == d.ID {
			r.remember(old)
			continue
		}
		if old.ManagedBy != managedByFile || (old.Name != d.Name && old.Schema != d.Schema) || s.has(old.ID) {
			continue
		}
		if err := st.release(ctx, old); err != nil {
			return fmt.Errorf("sync %q takes the place of %q: %w", d.Name, old.Name, err)
		}
	}
	return nil
}

func (s *Set) has(id string) bool { return s.runner(id) != nil }

// runner returns the sync with that id; nil: there is none.
func (s *Set) runner(id string) *runner {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.runners[id]
}

// drop forgets a sync that is not defined any more, and ends it.
func (s *Set) drop(r *runner) {
	s.mu.Lock()
	if s.runners[r.id] == r {
		delete(s.runners, r.id)
	}
	s.mu.Unlock()
	r.cancel()
}

// start lets a sync run, if Work does.
func (s *Set) start(r *runner) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ctx == nil || s.ctx.Err() != nil || s.runners[r.id] != r {
		return
	}
	ctx, stop := context.WithCancel(s.ctx)
	if !r.begin(stop) {
		stop()
		return
	}
	s.work.Go(func() {
		defer r.ended()
		r.run(ctx)
	})
}

// revive starts a sync again that is about to end.
func (s *Set) revive(r *runner) {
	done := r.cancel()
	s.work.Go(func() {
		if done != nil {
			<-done
		}
		s.start(r)
	})
}

// list returns the syncs by name.
func (s *Set) list() []*runner {
	s.mu.Lock()
	defer s.mu.Unlock()
	list := make([]*runner, 0, len(s.runners))
	for _, r := range s.runners {
		list = append(list, r)
	}
	slices.SortFunc(list, func(a, b *runner) int { return strings.Compare(a.definition().Name, b.definition().Name) })
	return list
}

// find returns the sync with that id or name.
func (s *Set) find(ref string) (*runner, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if r, ok := s.runners[strings.ToLower(ref)]; ok {
		return r, nil
	}
	for _, r := range s.runners {
		if r.definition().Name == ref {
			return r, nil
		}
	}
	for _, st := range s.stores {
		if !st.loaded() {
			return nil, fmt.Errorf("sync %q is not in the configuration, and what the database %s has is not loaded yet, try again: %w", ref, st.target.Name, lockstep.ErrUnavailable)
		}
	}
	return nil, fmt.Errorf("sync %q: %w", ref, lockstep.ErrNotFound)
}

// List returns every sync, by name.
func (s *Set) List(context.Context) ([]View, error) {
	var views []View
	for _, r := range s.list() {
		views = append(views, r.view())
	}
	return views, nil
}

// Get returns the sync with that id or name.
func (s *Set) Get(_ context.Context, ref string) (View, error) {
	r, err := s.find(ref)
	if err != nil {
		return View{}, err
	}
	return r.view(), nil
}
