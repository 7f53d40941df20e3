package realtime

import (
	"context"
	"errors"
	"maps"
	"slices"
	"sync"
	"time"

	"lockstep"
	"lockstep/internal/obs"
)

// tableName names a table of a database.
type tableName struct{ schema, name string }

func nameOf(t *lockstep.Table) tableName { return tableName{t.Schema, t.Name} }

// shape is what is known of a table's columns. It is immutable.
type shape struct {
	known bool              // the types were read
	gone  bool              // the table was looked for and is not there
	types map[string]string // by column
	keys  []string
}

func (s *shape) equal(other *shape) bool {
	return s.known == other.known && s.gone == other.gone && maps.Equal(s.types, other.types) && slices.Equal(s.keys, other.keys)
}

// How long a shape is used before it is read again, and after a failure; how long one
// reading may take, and how long changes wait for it.
const (
	shapeFresh  = time.Minute
	shapeRetry  = 5 * time.Second
	shapeRead   = 10 * time.Second
	shapeWait   = time.Second
	shapesLimit = 20_000
)

// shapes keeps the shapes of a database's tables.
type shapes struct {
	database string
	config   Config
	spawn    func(func(ctx context.Context)) bool // runs something as long as the server lives
	unknown  *shape

	mu     sync.Mutex
	tables map[tableName]*shapeEntry // guarded by mu
}

type shapeEntry struct {
	shape *shape        // of the last reading that succeeded; nil: none has
	at    time.Time     // when it was read, or that failed
	fail  bool          // the last reading failed
	busy  chan struct{} // closed when the reading under way ends; nil: there is none
}

func newShapes(database string, config Config, spawn func(func(context.Context)) bool) *shapes {
	return &shapes{database: database, config: config, spawn: spawn, unknown: &shape{}, tables: map[tableName]*shapeEntry{}}
}

// get returns a table's shape. It waits for one that it has never seen, until ctx ends
// and no longer than wait; what is not known by then is unknown. An old one is returned
// as it is and read again meanwhile.
func (s *shapes) get(ctx context.Context, name tableName, wait time.Duration) *shape {
	if s.config.Types == nil && s.config.Keys == nil {
		return s.unknown
	}
	s.mu.Lock()
	e := s.tables[name]
	if e == nil {
		if len(s.tables) >= shapesLimit {
			s.tables = map[tableName]*shapeEntry{}
		}
		e = &shapeEntry{}
		s.tables[name] = e
	}
	age := time.Since(e.at)
	if e.busy == nil && (!e.fail && age > shapeFresh || e.fail && age > shapeRetry) {
		s.refresh(name, e)
	}
	current, busy := e.shape, e.busy
	s.mu.Unlock()
	if current != nil {
		return current
	}
	if busy != nil {
		timer := time.NewTimer(wait)
		defer timer.Stop()
		select {
		case <-busy:
		case <-ctx.Done():
		case <-timer.C:
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if e.shape == nil {
		return s.unknown
	}
	return e.shape
}

// changed says that the table has a column that its shape lacks: it is read again, by
// the next who asks, who waits for it.
func (s *shapes) changed(name tableName, seen *shape) {
	s.mu.Lock()
	defer s.mu.Unlock()
	e := s.tables[name]
	if e != nil && e.shape == seen && e.busy == nil && time.Since(e.at) > shapeWait {
		delete(s.tables, name)
	}
}

// refresh reads the shape beside everything else. The caller holds mu.
func (s *shapes) refresh(name tableName, e *shapeEntry) {
	e.busy = make(chan struct{})
	started := s.spawn(func(ctx context.Context) {
		found, err := s.read(ctx, name)
		s.mu.Lock()
		defer s.mu.Unlock()
		if err == nil && (e.shape == nil || !e.shape.equal(found)) {
			e.shape = found
		}
		if err != nil {
			s.config.Logger.WarnContext(ctx, "the columns of a table cannot be read: filters go on with what is known of their types",
				obs.KeyDatabase, s.database, obs.KeyTable, name.schema+"."+name.name, obs.KeyError, err)
		}
		e.at, e.fail = time.Now(), err != nil
		close(e.busy)
		e.busy = nil
	})
	if !started {
		close(e.busy)
		e.busy = nil
	}
}

func (s *shapes) read(ctx context.Context, name tableName) (*shape, error) {
	ctx, cancel := context.WithTimeout(ctx, shapeRead)
	defer cancel()
	found := &shape{}
	if s.config.Types != nil {
		types, err := s.config.Types(ctx, s.database, name.schema, name.name)
		switch {
		case errors.Is(err, lockstep.ErrNotFound) || err == nil && len(types) == 0:
			return &shape{gone: true}, nil
		case err != nil:
			return nil, err
		}
		found.types, found.known = types, true
	}
	if s.config.Keys != nil {
		keys, err := s.config.Keys(ctx, s.database, name.schema, name.name)
		if err != nil && !errors.Is(err, lockstep.ErrNotFound) {
			return nil, err
		}
		found.keys = keys
	}
	return found, nil
}
