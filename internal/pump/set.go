package pump

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"lockstep"
	"lockstep/internal/deliver"
	"lockstep/internal/obs"
)

// SetConfig is what a set of pumps is made of. All but Keep, Observe,
// Logger, Dir and Room are needed.
type SetConfig struct {
	// Consumers returns the consumers that there are now, of every kind.
	Consumers func() []*deliver.Consumer
	// Sends reports whether consumers of a kind are sent to.
	Sends func(kind string) bool
	// Open makes the sink of a consumer.
	Open func(ctx context.Context, d deliver.Definition) (Opened, error)
	Keep Keep
	// Observe returns what is told of each attempt of a consumer; see [Config.Observe].
	Observe func(d deliver.Definition) func(Attempt)
	Logger  *slog.Logger
	// Dir is where attempts are kept over restarts; "": they are not. Room refuses what
	// its disk should not take; nil: it takes everything.
	Dir  string
	Room func(bytes int) error
}

// Set runs a pump for each consumer that is sent to, also for those that come, change
// and go while it runs.
type Set struct {
	SetConfig
	log   *slog.Logger
	kick  chan struct{}
	shelf *shelf // used by Run alone

	mu    sync.Mutex
	pumps map[string]*running // by the consumer's id
	books map[string]*Book
}

// running is a pump and what it was made of.
type running struct {
	pump     *Pump
	consumer *deliver.Consumer
	made     string // tells whether it must be made anew
	cancel   context.CancelFunc
	done     chan struct{}
}

// NewSet makes a set. It starts nothing.
func NewSet(c SetConfig) *Set {
	s := &Set{SetConfig: c, log: c.Logger, kick: make(chan struct{}, 1), pumps: map[string]*running{}, books: map[string]*Book{}, shelf: newShelf(c.Dir, c.Room)}
	if s.log == nil {
		s.log = slog.Default()
	}
	return s
}

// lookAround is how often the set looks whether consumers have changed, besides Kick.
const lookAround = time.Second

// Kick makes the set look at once whether consumers have changed.
func (s *Set) Kick() {
	select {
	case s.kick <- struct{}{}:
	default:
	}
}

// Run runs the pumps until ctx ends; then each has given back or settled what it had.
func (s *Set) Run(ctx context.Context) error {
	tick := time.NewTicker(lookAround)
	defer tick.Stop()
	save := time.NewTicker(saveEvery)
	defer save.Stop()
	var pumps sync.WaitGroup
	s.sweepShelf(ctx)
	for ctx.Err() == nil {
		s.reconcile(ctx, &pumps)
		select {
		case <-ctx.Done():
		case <-tick.C:
		case <-s.kick:
		case <-save.C:
			s.saveOne(ctx)
		}
	}
	s.mu.Lock()
	for _, r := range s.pumps {
		r.cancel()
	}
	s.mu.Unlock()
	pumps.Wait()
	s.saveAll(context.WithoutCancel(ctx))
	return nil
}

// reconcile ends the pumps of consumers that are gone or have changed, and begins those
// that are missing. One that ends is followed by the next when it has.
func (s *Set) reconcile(ctx context.Context, pumps *sync.WaitGroup) {
	here := map[string]bool{}
	for _, c := range s.Consumers() {
		d := c.Definition()
		if !s.Sends(d.Kind) {
			continue
		}
		here[d.ID] = true
		s.mu.Lock()
		r := s.pumps[d.ID]
		s.mu.Unlock()
		switch {
		case r == nil:
			s.begin(ctx, c, d, pumps)
		case r.ended():
			s.drop(d.ID)
			s.begin(ctx, c, d, pumps)
		case r.consumer != c || r.made != fingerprint(d):
			r.cancel()
		}
	}
	for _, id := range s.forget(here) {
		if err := s.shelf.remove(id); err != nil {
			s.log.WarnContext(ctx, "the attempts of a deleted consumer are left on disk", obs.KeyConsumerID, id, obs.KeyError, err)
		}
		if s.Keep == nil {
			continue
		}
		// A consumer made anew by the same name in the configuration has the same id.
		if err := s.Keep.Save(ctx, id, ""); err != nil {
			s.log.WarnContext(ctx, "what is known of a destination could not be removed", obs.KeyConsumerID, id, obs.KeyError, err)
		}
	}
}

// forget ends the pumps of consumers that are not here any more, and returns those that
// have ended.
func (s *Set) forget(here map[string]bool) (ids []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for id, r := range s.pumps {
		if here[id] {
			continue
		}
		r.cancel()
		if r.ended() {
			delete(s.pumps, id)
			delete(s.books, id)
			ids = append(ids, id)
		}
	}
	return ids
}

func (s *Set) begin(ctx context.Context, c *deliver.Consumer, d deliver.Definition, pumps *sync.WaitGroup) {
	own, cancel := context.WithCancel(ctx)
	s.mu.Lock()
	defer s.mu.Unlock()
	book := s.books[d.ID]
	if book == nil {
		var err error
		if book, err = s.shelf.open(d.ID); err != nil {
			s.log.WarnContext(ctx, "earlier attempts of a consumer are lost", obs.KeyConsumer, d.Name, obs.KeyError, err)
		}
		s.books[d.ID] = book
	}
	r := &running{consumer: c, made: fingerprint(d), cancel: cancel, done: make(chan struct{})}
	var observe func(Attempt)
	if s.Observe != nil {
		observe = s.Observe(d)
	}
	r.pump = New(Config{
		Consumer: c, Keep: s.Keep, Book: book, Observe: observe, Logger: s.log,
		Open: func(ctx context.Context) (Opened, error) { return s.Open(ctx, d) },
	})
	s.pumps[d.ID] = r
	pumps.Go(func() {
		defer s.Kick()
		defer close(r.done)
		defer cancel()
		if err := r.pump.Run(own); err != nil {
			s.log.ErrorContext(ctx, "a pump ended", obs.KeyConsumer, d.Name, obs.KeyError, err)
		}
	})
}

func (s *Set) drop(id string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.pumps, id)
}

func (r *running) ended() bool {
	select {
	case <-r.done:
		return true
	default:
		return false
	}
}

// fingerprint tells definitions apart whose pumps differ.
func fingerprint(d deliver.Definition) string {
	return fmt.Sprint(d.Kind, d.Name, d.Batch, d.MaxInFlight, d.AckWait, string(d.Settings), d.Database, d.OrderBy)
}

// Find returns the pump of a consumer; lockstep.ErrNotFound: it has none (yet).
func (s *Set) Find(id string) (*Pump, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if r := s.pumps[id]; r != nil {
		return r.pump, nil
	}
	return nil, fmt.Errorf("nothing is sent to consumer %s: %w", id, lockstep.ErrNotFound)
}
