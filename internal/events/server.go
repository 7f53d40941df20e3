package events

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"

	"lockstep"
)

// ErrFull says that there are as many sessions, or tables followed, as there may be.
var ErrFull = errors.New("too many sessions")

// errEnded says that the server has ended.
var errEnded = fmt.Errorf("the node is stopping: %w", lockstep.ErrUnavailable)

// Server holds the sessions of a node. It serves from New on, until Run ends. Its
// methods may be called concurrently.
type Server struct {
	config Config
	turns  chan struct{} // to read what lies behind the end of the log

	life context.Context // ends with Run: of readers and searches
	kill context.CancelFunc

	mu       sync.Mutex
	feeds    map[feedKey]*feed // guarded by mu
	sessions int               // guarded by mu
	closed   bool              // guarded by mu
	work     sync.WaitGroup    // what is spawned; Add under mu
}

type feedKey struct {
	database string
	table    Table
}

// New returns a server.
func New(config Config) *Server {
	config.Limits = config.Limits.withDefaults()
	if config.Logger == nil {
		config.Logger = slog.New(slog.DiscardHandler)
	}
	if config.Damage == nil {
		config.Damage = func(error) (uint64, bool) { return 0, false }
	}
	s := &Server{config: config, feeds: map[feedKey]*feed{}, turns: make(chan struct{}, config.Limits.Readers)}
	s.life, s.kill = context.WithCancel(context.Background())
	return s
}

// Run waits until ctx ends, then ends all sessions and waits for the readers.
func (s *Server) Run(ctx context.Context) error {
	<-ctx.Done()
	s.mu.Lock()
	s.closed = true
	s.mu.Unlock()
	s.kill()
	s.work.Wait()
	return nil
}

// spawn runs something that the end of the server waits for. It reports false when that
// has come.
func (s *Server) spawn(f func()) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return false
	}
	s.work.Go(f)
	return true
}

// Request says what a session is to get.
type Request struct {
	Database   string
	Table      Table
	Subscriber string
	// LastID is the id of the last event that the client has seen; "0" means none at all,
	// so that everything comes. Empty: From counts.
	LastID string
	// From is the seq to begin with; 0: behind what is there now.
	From uint64
}

// Open begins a session. What is sent from now on is not missed. It does not wait: what
// has to be searched for LastID is searched while the session is open. Errors wrap
// [ErrFull], lockstep.ErrNotFound for the database, or lockstep.ErrUnavailable.
// Close must be called after use.
func (s *Server) Open(r Request) (*Session, error) {
	f, err := s.feed(r.Database, r.Table)
	if err != nil {
		return nil, err
	}
	last := f.log.Last().Seq
	k := &Session{feed: f, subscriber: r.Subscriber, ready: make(chan struct{}, 1), next: r.From}
	k.life, k.cancel = context.WithCancel(s.life)
	if r.From == 0 {
		k.next = last + 1
	}
	if k.next > last+1 && r.LastID == "" {
		// The seq is not of this log: it was made anew, or is of another database.
		k.next = f.log.First()
		k.untold = &gap{reason: reasonUnknown, seq: k.next}
	}
	if !s.spawn(func() { f.begin(k, r.LastID) }) {
		k.Close()
		return nil, errEnded
	}
	return k, nil
}

// feed returns the feed of a table, counted as used until release.
func (s *Server) feed(database string, table Table) (*feed, error) {
	log, err := s.config.Log(database)
	if err != nil {
		return nil, fmt.Errorf("open the log of database %q: %w", database, err)
	}
	key := feedKey{database, table}
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.closed:
		return nil, errEnded
	case s.sessions >= s.config.Limits.Sessions:
		return nil, ErrFull
	}
	f := s.feeds[key]
	if f == nil {
		if len(s.feeds) >= s.config.Limits.Tables && !s.forget() {
			return nil, fmt.Errorf("too many tables are followed: %w", ErrFull)
		}
		f = newFeed(s, database, table, log)
		s.feeds[key] = f
	}
	f.users++
	s.sessions++
	return f, nil
}

// forget drops a feed that nobody uses. The caller holds mu.
func (s *Server) forget() bool {
	for key, f := range s.feeds {
		if f.users == 0 {
			delete(s.feeds, key)
			return true
		}
	}
	return false
}

func (s *Server) release(f *feed) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f.users--
	s.sessions--
}

// Sessions returns how many sessions are open.
func (s *Server) Sessions() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.sessions
}

// turn waits until this reader may read what lies behind the end of the log. Its result
// gives the turn back.
func (s *Server) turn(ctx context.Context) (done func(), err error) {
	select {
	case s.turns <- struct{}{}:
		return func() { <-s.turns }, nil
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}
