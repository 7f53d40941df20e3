package tail

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"

	"lockstep"
)

// errEnded says that the server has ended.
var errEnded = fmt.Errorf("the node is stopping: %w", lockstep.ErrUnavailable)

// Server holds the sessions of a node, until Close. Its methods may be called
// concurrently.
type Server struct {
	limits Limits
	turns  chan struct{} // to read for others what lies behind the end of a log
	queued atomic.Int64  // bytes in all queues

	life context.Context // of readers
	kill context.CancelFunc

	mu     sync.Mutex
	feeds  map[feedKey]*feed // guarded by mu
	spread int               // guarded by mu: how many sessions were given a lane
	closed bool              // guarded by mu
	work   sync.WaitGroup    // what is spawned; Add under mu
}

// feedKey tells feeds apart. Lane 0 is that of filters that are looked up.
type feedKey struct {
	log  Log
	lane int
}

// New returns a server. Close must be called after use.
func New(limits Limits) *Server {
	limits = limits.withDefaults()
	s := &Server{limits: limits, feeds: map[feedKey]*feed{}, turns: make(chan struct{}, limits.Readers)}
	s.life, s.kill = context.WithCancel(context.Background())
	return s
}

// Close ends all sessions, and returns when nothing is read any more.
func (s *Server) Close() {
	s.mu.Lock()
	s.closed = true
	s.mu.Unlock()
	s.kill()
	s.work.Wait()
}

// spawn runs something that Close waits for. It reports false after Close.
func (s *Server) spawn(f func()) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return false
	}
	s.work.Go(f)
	return true
}

// Open begins a session with the changes from seq from on: database is what messages
// call the log's. A place behind the next change is not of this log, which is told; the
// session then begins with the oldest change. Close of the session must be called after
// use.
func (s *Server) Open(database string, log Log, from uint64, selection Selection) *Session {
	k := &Session{
		server: s, database: database, log: log, selection: selection, next: max(from, 1), ready: make(chan struct{}, 1), apart: true,
	}
	k.actions = wanted(selection.Actions)
	if last := log.Last().Seq; k.next > last+1 {
		first := log.First()
		k.told = appendGap(nil, database, gap{"unknown_position", k.next, first})
		k.next = max(first, 1)
	}
	if selection.Filter != nil {
		k.equalities = selection.Filter.Equalities()
	}
	k.feed = s.feed(k)
	return k
}

func wanted(actions []lockstep.Action) (set [8]bool) {
	for n := range set {
		set[n] = len(actions) == 0
	}
	for _, action := range actions {
		set[action&7] = true
	}
	set[lockstep.Gap] = true // what may be missing concerns everybody
	return set
}

// feed returns the feed that a session shares with its like, counted as used until
// release.
func (s *Server) feed(k *Session) *feed {
	s.mu.Lock()
	defer s.mu.Unlock()
	key := feedKey{log: k.log}
	if k.selection.Filter != nil && len(k.equalities) == 0 {
		s.spread++
		key.lane = 1 + s.spread%s.limits.Lanes
	}
	f := s.feeds[key]
	if f == nil {
		f = &feed{server: s, key: key, database: k.database, log: k.log, readers: map[*reader]struct{}{}}
		s.feeds[key] = f
	}
	f.users++
	return f
}

func (s *Server) release(f *feed) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if f.users--; f.users == 0 {
		delete(s.feeds, f.key)
	}
}

// turn waits until a shared reader may read what lies behind the end of the log. Its
// result gives the turn back.
func (s *Server) turn(ctx context.Context) (done func(), err error) {
	select {
	case s.turns <- struct{}{}:
		return func() { <-s.turns }, nil
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

// allowed is how many bytes may wait for a session.
func (s *Server) allowed() int {
	if s.queued.Load() > s.limits.TotalBytes {
		return s.limits.QueueBytes / 16
	}
	return s.limits.QueueBytes
}
