package pull

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"lockstep"
	"lockstep/internal/mirror"
	"lockstep/source"
)

// Config says what is read, and where it goes.
type Config struct {
	Name     string        // the sync's, for people
	Provider string        // the API's name, which stands before a collection's in Status
	Source   source.Source // with its limiter inside
	Mirror   *mirror.Mirror
	// Collections are the names of what is read, without the provider's; empty: all.
	Collections []string
	// Every is the pause between polls of all feeds; 0: each collection's own.
	Every time.Duration
	// Workers is how many requests of backfills and sweeps may be under way at once;
	// default 16.
	Workers int
	// Current reports whether the sync is still defined as it is here. It is asked when
	// the lock was taken, before anything is read: an engine that has waited may have
	// been overtaken by a change. nil: nothing changes.
	Current func(ctx context.Context) (bool, error)
	Quotas  func() []Quota // for Status; nil: none
	Changed func()         // called after each commit that wrote rows; must not block; nil: nobody
	Logger  *slog.Logger   // default: none
}

// Sync is one account of one API, kept in step with its mirror. All methods may be
// called concurrently.
type Sync struct {
	config Config
	log    *slog.Logger
	pace   pace
	hints  *queue

	mu      sync.Mutex
	state   State // of the sync as a whole; Polling while the collections have their own
	reason  string
	account string
	paused  bool
	stop    context.CancelCauseFunc // of what is under way; nil: nothing
	work    *work                   // what is read; nil while nothing is
	last    *work                   // the same, or what was read last; for Status
	seen    map[string]*tally       // by collection, over all of this Sync's life
	tables  map[string]table        // by collection, as the mirror said last
	news    chan struct{}           // closed when anything above changes
	kick    chan struct{}           // closed when pauses that may be cut short should be
}

// tally counts what was done to a collection.
type tally struct{ changed, deleted uint64 }

// table is what the mirror says of a collection.
type table struct {
	name   string
	parked int
}

const defaultWorkers = 16

// New returns a sync that reads nothing before Run.
func New(config Config) *Sync {
	if config.Workers <= 0 {
		config.Workers = defaultWorkers
	}
	if config.Logger == nil {
		config.Logger = slog.New(slog.DiscardHandler)
	}
	return &Sync{
		config: config, log: config.Logger, pace: usual(), hints: newQueue(), state: Starting,
		seen: map[string]*tally{}, tables: map[string]table{}, news: make(chan struct{}), kick: make(chan struct{}),
	}
}

// pace holds the times by which a sync goes.
type pace struct {
	call            time.Duration // longest that one call of the source may take
	every           time.Duration // between polls, where nobody says
	reread          time.Duration // between readings of a collection without a feed, where nobody says
	retry, retryMax time.Duration // pauses after failures that pass, growing
	slow, slowMax   time.Duration // after those that hardly pass by themselves
	shut, shutMax   time.Duration // after a collection was forbidden
	denied, denyMax time.Duration // after the credential was refused
	join, linger    time.Duration // how long pages wait for others to be applied with: in all, and for each
	report          time.Duration // between writes of the status
	watch           time.Duration // between looks for tables that were dropped
	owed            time.Duration // between readings of what was missed
	doubt           time.Duration // before a doubtful record is looked at again, at least
	waiting         time.Duration // before it is said that another engine has the lock
	trailing        time.Duration // longest pause between trailing passes
	late            time.Duration // how long a poll may be due before it is said that the mirror is behind
}

func usual() pace {
	return pace{
		call: 10 * time.Minute, every: 30 * time.Second, reread: time.Hour,
		retry: 500 * time.Millisecond, retryMax: time.Minute, slow: 15 * time.Second, slowMax: 10 * time.Minute,
		shut: 30 * time.Second, shutMax: 10 * time.Minute, denied: 10 * time.Second, denyMax: 5 * time.Minute,
		join: time.Second, linger: 50 * time.Millisecond, report: 2 * time.Second, watch: 15 * time.Second, owed: 10 * time.Minute,
		doubt: 2 * time.Second, waiting: time.Second, trailing: 5 * time.Minute, late: 30 * time.Second,
	}
}

// ErrStale ends Run: the sync is defined otherwise by now, or not at all.
var ErrStale = errors.New("the sync was changed meanwhile")

// What ends a session.
var (
	errPaused = errors.New("the sync is paused")
	errDenied = errors.New("the credential is refused")
)

// Pause stops reading: what is under way is broken off, and nothing is asked of the
// API until Resume. Whoever wants that to last over a restart stores it.
func (s *Sync) Pause() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.paused {
		return
	}
	s.paused = true
	if s.stop != nil {
		s.stop(errPaused)
	}
	s.changed()
}

// Resume goes on where Pause has stopped.
func (s *Sync) Resume() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.paused {
		s.paused = false
		s.changed()
	}
}

// changed wakes those who wait for news. The caller holds mu.
func (s *Sync) changed() {
	close(s.news)
	s.news = make(chan struct{})
}

func (s *Sync) become(state State, reason string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.state != state || s.reason != reason {
		s.state, s.reason = state, reason
		s.changed()
	}
}

// Poll asks for everything now: every feed is polled, collections without one are
// read, sweeps that are due begin, and pauses after failures end, but for those that
// the API has asked for.
func (s *Sync) Poll() {
	s.mu.Lock()
	w := s.work
	close(s.kick)
	s.kick = make(chan struct{})
	s.mu.Unlock()
	if w == nil {
		return
	}
	now := time.Now()
	for _, f := range w.feeds {
		f.ask(now)
	}
	for _, c := range w.collections {
		c.ask(now)
	}
}

func (s *Sync) kicked() <-chan struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.kick
}

// Resync reads collections again from their beginning (without the provider's name;
// none: all), and looks for deletions afterwards. It returns when that is planned,
// and saved, so that it will be done whatever ends the process.
//
// Errors: [lockstep.ErrNotFound] for a collection that the sync does not read,
// [lockstep.ErrUnavailable] while it reads nothing.
func (s *Sync) Resync(ctx context.Context, collections []string) error {
	s.mu.Lock()
	w, state, reason := s.work, s.state, s.reason
	s.mu.Unlock()
	if w == nil {
		return fmt.Errorf("sync %q reads nothing now (%s): resync it when it does: %w", s.config.Name, told(state, reason), lockstep.ErrUnavailable)
	}
	var chosen []*collection
	for _, name := range collections {
		c := w.collections[name]
		if c == nil {
			return fmt.Errorf("sync %q has no collection %s: %w", s.config.Name, name, lockstep.ErrNotFound)
		}
		chosen = append(chosen, c)
	}
	if len(collections) == 0 {
		for _, c := range w.collections {
			chosen = append(chosen, c)
		}
	}
	return w.anew(ctx, chosen, whyAsked)
}

// told joins a state with its reason.
func told(state State, reason string) string {
	if reason == "" {
		return string(state)
	}
	return string(state) + ": " + reason
}
