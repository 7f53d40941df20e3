// Package pump sends the changes of consumers to destinations: it takes deliveries,
// writes them to a sink, and settles what became of them.
//
// # Guarantees
//
//  1. Of one key at most one write runs, and a change is written after the earlier ones
//     of its key were delivered or given up. Different keys are written concurrently.
//  2. A change is acked after the sink said that it is delivered, never before. What
//     was delivered and not acked, because the process ended in between, is written
//     again with the same IdempotencyKey.
//  3. A change that is rejected or fails holds back its own key and nothing else.
//  4. A destination that fails for [Config.Tolerance] different keys in a row, refuses
//     everything or asks for a pause is left alone for it: the pauses grow, one change
//     tries whether it is back, and no attempt is counted meanwhile. One that rejects
//     every change is sent to slowly, until it takes one. The slot, the log and other
//     consumers do not notice.
//  5. Memory is bounded: at most four rounds of writes (256 changes at least, and
//     max_in_flight at most) are held, and no more are fetched above Config.Bytes. Of
//     what was written and is not settled on the disk, claims are held alone; with
//     these it is max_in_flight at most.
//  6. When [Pump.Run] returns, no goroutine is left and no write runs, what was written
//     is settled, and what was not is given back without counting an attempt.
//  7. A sink that panics, hangs or breaks its contract has failed; it takes nothing
//     else with it.
package pump

import (
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"sync"
	"time"

	"lockstep"
	"lockstep/internal/deliver"
	"lockstep/internal/obs"
	"lockstep/sink"
)

// Opened is a sink and how it wants to be written to.
type Opened struct {
	Sink        sink.Sink
	Concurrency int // writes at a time; 0: 16
	// Batch is how many changes a write has at least, when there are so many and the
	// definition says fewer: for destinations that do not see batches.
	Batch int
}

// Tester is a sink that can send an event of no meaning.
type Tester interface {
	Test(ctx context.Context) error
}

// Config is what a pump is made of. Consumer and Open are needed.
type Config struct {
	Consumer *deliver.Consumer
	// Open makes the sink; it is called again while it fails.
	Open func(ctx context.Context) (Opened, error)
	Keep Keep // nil: that a destination is gone is forgotten by a restart
	Book *Book
	// Observe is told of each attempt; it must not wait for anything. nil: nobody is.
	Observe func(Attempt)
	// Logger default: slog.Default.
	Logger *slog.Logger

	Concurrency  int           // writes at a time, unless Opened says; default 16
	Bytes        int           // of bodies that are held; default 32 MB
	Tolerance    int           // different keys that fail in a row before everything waits; default 5
	FirstPause   time.Duration // default 1 s
	LongestPause time.Duration // default 1 min
	Grace        time.Duration // for writes under way when the pump stops; default 8 s
	WriteTimeout time.Duration // of one write; default 5 min: sinks have shorter ones of their own

	random func() float64 // default math/rand
}

// Keep remembers, over restarts, that a destination wants no more.
type Keep interface {
	// Load returns why it is gone; empty: it is not.
	Load(ctx context.Context, consumerID string) (reason string, err error)
	Save(ctx context.Context, consumerID, reason string) error // empty: it is not gone any more
}

// Pump sends the changes of one consumer. Its methods may be called concurrently.
type Pump struct {
	Config
	consumer *deliver.Consumer
	database string
	log      *slog.Logger

	mu     sync.Mutex
	status Status
	sink   sink.Sink // nil: not open
}

// New makes a pump. It starts nothing.
func New(c Config) *Pump {
	orInt := func(n *int, otherwise int) {
		if *n <= 0 {
			*n = otherwise
		}
	}
	or := func(d *time.Duration, otherwise time.Duration) {
		if *d <= 0 {
			*d = otherwise
		}
	}
	orInt(&c.Concurrency, 16)
	orInt(&c.Bytes, 32<<20)
	orInt(&c.Tolerance, 5)
	or(&c.FirstPause, time.Second)
	or(&c.LongestPause, max(time.Minute, c.FirstPause))
	or(&c.Grace, 8*time.Second)
	or(&c.WriteTimeout, 5*time.Minute)
	if c.Logger == nil {
		c.Logger = slog.Default()
	}
	if c.Book == nil {
		c.Book = &Book{}
	}
	if c.random == nil {
		c.random = rand.Float64
	}
	d := c.Consumer.Definition()
	p := &Pump{Config: c, consumer: c.Consumer, database: d.Database, log: c.Logger.With(obs.KeyConsumer, d.Name)}
	p.status = Status{State: OK, Since: time.Now()}
	return p
}

// Run sends until ctx ends or the consumer is deleted, and then returns nil. It runs
// once.
func (p *Pump) Run(ctx context.Context) error {
	opened, err := p.open(ctx)
	if err != nil {
		return nil //nolint:nilerr // only the end of ctx gets here
	}
	p.mu.Lock()
	p.sink = opened.Sink
	p.mu.Unlock()
	if opened.Concurrency <= 0 {
		opened.Concurrency = p.Concurrency
	}
	newLoop(p, opened).run(ctx)
	p.mu.Lock()
	p.sink = nil
	p.mu.Unlock()
	closing, cancel := context.WithTimeout(context.WithoutCancel(ctx), p.Grace)
	defer cancel()
	if failed := opened.Sink.Close(closing); failed != nil {
		p.log.WarnContext(closing, "the destination was not closed in order", obs.KeyError, failed)
	}
	return nil
}

// open makes the sink, as often as it takes.
func (p *Pump) open(ctx context.Context) (Opened, error) {
	b := newBreaker(p.Config)
	for {
		opened, err := p.Open(ctx)
		if err == nil {
			return opened, nil
		}
		if ctx.Err() != nil {
			return Opened{}, ctx.Err()
		}
		now := time.Now()
		kind, after := kindOf(err)
		state := Open
		if kind == sink.Refused || kind == sink.Rejected || kind == sink.Gone || !lockstep.Retryable(err) {
			state = Refused
		}
		b.trip(now, state, "the destination cannot be opened: "+err.Error(), after)
		p.log.ErrorContext(ctx, "the destination of a consumer cannot be opened", obs.KeyError, err)
		p.show(func(s *Status) { s.State, s.Reason, s.Since, s.NextTry = b.state, b.reason, b.since, b.next })
		timer := time.NewTimer(time.Until(b.next))
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return Opened{}, ctx.Err()
		}
	}
}

// note tells of an attempt.
func (p *Pump) note(a Attempt) {
	p.Book.add(a)
	if p.Observe != nil {
		p.Observe(a)
	}
}

// Test sends an event of no meaning to the destination. Errors wrap
// lockstep.ErrInvalid when its kind has none, and lockstep.ErrUnavailable while it is
// not open.
func (p *Pump) Test(ctx context.Context) error {
	p.mu.Lock()
	s, status := p.sink, p.status
	p.mu.Unlock()
	if s == nil {
		return fmt.Errorf("the destination is not open: %s: %w", status.Reason, lockstep.ErrUnavailable)
	}
	t, ok := s.(Tester)
	if !ok {
		return fmt.Errorf("destinations of this kind have no test: %w", lockstep.ErrInvalid)
	}
	ctx, notes := withNotes(ctx)
	began := time.Now()
	err := t.Test(ctx)
	a := Attempt{Request: Request{At: began, Duration: time.Since(began)}, Number: 1, Outcome: outcome([]error{err})}
	if list := notes.taken(); len(list) > 0 {
		a.Request = list[len(list)-1]
	}
	if err != nil {
		a.Error, a.Status = begin(err.Error()), max(a.Status, statusOf(err))
	}
	p.note(a)
	return err
}
