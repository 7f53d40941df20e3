// Package stripe simulates Stripe's API: an account with a world of customers who
// sign up, pay, refund and cancel, behind the vendor's own lists, limits, errors,
// events and lateness. It is served by `lockstep sandbox`, and what the connector
// and everything above it is tested against.
//
// # Guarantees
//
//  1. Lists are newest first, by starting_after and ending_before, 1 to 100 at a
//     time, and leave out what Stripe's leave out: inactive prices, canceled
//     subscriptions, events older than 30 days.
//  2. Every change of an object that has events makes one, in the same instant; its
//     payload is the object then, in the API version that the account had then.
//  3. Requests are checked by Stripe's own OpenAPI document, and objects have the
//     fields that it promises.
//  4. A write and its events happen together or not at all. A declined payment is a
//     write: it leaves a failed charge.
//  5. Limits count as Stripe's do: per second, for the account and for each endpoint;
//     a refused request changes nothing.
//  6. /_sandbox/state/{collection} is the truth: everything that exists, hidden or
//     not yet visible in lists included.
//
// See README.md for what is simulated and what is not.
package stripe

import (
	"fmt"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"lockstep/sandbox"
)

// Options is how a world begins. The zero value is a small account that stands still.
type Options struct {
	Seed sandbox.Seed // default 1
	// Customers is how many customers the account has lived with until now, with their
	// subscriptions, invoices, payments and events; default 100, -1: none.
	Customers int
	// Bulk is how many more customers there are besides, older than all events. They
	// take no memory, so that a million is nothing.
	Bulk int
	// Pace is how many things happen per second; 0: nothing by itself.
	Pace float64
	// Clock is the account's time; default the real one.
	Clock *sandbox.Clock
	// Version is the API version of the account: of requests that name none, and of
	// events. Default 2024-06-20, which lacks and renames fields of later ones, as
	// that of any older account does.
	Version string
	// Unlimited leaves the limits off.
	Unlimited bool
	// Lateness is how late lists and events show what there is.
	Lateness Lateness
}

// Lateness is how late lists show new objects, and the event log new events. Fetching
// by id is never late. The zero value shows everything at once.
type Lateness struct {
	// Share of the objects is late, by up to Max.
	Events   float64          `json:"events"`
	EventMax sandbox.Duration `json:"event_max"`
	Lists    float64          `json:"lists"`
	ListMax  sandbox.Duration `json:"list_max"`
}

// Sandbox is one simulated account. It implements sandbox.API and sandbox.World.
type Sandbox struct {
	options Options
	spec    *spec
	router  *router
	core    *sandbox.Core
	kinds   []*kind

	requests atomic.Uint64

	// mu guards everything below. Handlers of reads hold it shared.
	mu       sync.RWMutex
	tables   map[string]*table // by the kind's name
	events   *eventLog
	lateness Lateness
	version  string // of the account, for what happens from now on
	keys     map[string]*access
	once     *idempotency
	world    *life
	ids      sandbox.Dice
	balance  int64 // of the account, in cents
}

var (
	_ sandbox.API   = (*Sandbox)(nil)
	_ sandbox.World = (*Sandbox)(nil)
)

// New makes an account. The only errors are those of options that cannot be.
func New(options Options) (*Sandbox, error) {
	if options.Seed == 0 {
		options.Seed = 1
	}
	if options.Version == "" {
		options.Version = "2024-06-20"
	}
	if options.Customers == 0 {
		options.Customers = 100
	}
	if options.Clock == nil {
		options.Clock = sandbox.NewClock()
	}
	if !validVersion(options.Version) {
		return nil, fmt.Errorf("stripe sandbox: version %q: write it as 2024-06-20 or 2026-10-28.endive", options.Version)
	}
	if options.Bulk < 0 || options.Pace < 0 {
		return nil, fmt.Errorf("stripe sandbox: bulk %d and pace %v must not be negative", options.Bulk, options.Pace)
	}
	described, err := loadSpec()
	if err != nil {
		return nil, err
	}
	s := &Sandbox{options: options, spec: described}
	for _, k := range kinds() {
		s.kinds = append(s.kinds, k.prepare())
	}
	if s.router, err = newRouter(described, s.handlers()); err != nil {
		return nil, err
	}
	limits := sandbox.NewLimiter(Limits()...)
	if options.Unlimited {
		limits.Off()
	}
	s.core = sandbox.New(sandbox.Config{
		Name: "stripe", Seed: options.Seed, World: s, Vendor: http.HandlerFunc(s.serve), Clock: options.Clock, Limits: limits,
		Refuse: refuse, Kinds: faultKinds(), Control: s.controls(),
	})
	s.Reset()
	s.core.Live(options.Pace)
	return s, nil
}

// Limits are Stripe's documented limits: 25 requests per second in test mode, 100 in
// live mode, and 25 on each endpoint.
func Limits() []sandbox.Limit {
	return []sandbox.Limit{
		{Name: limitTest, Rate: 25},
		{Name: limitLive, Rate: 100},
		{Name: limitEndpoint, Rate: 25},
		{Name: limitConcurrency, Concurrent: 100},
	}
}

// The names of the limits; the header Stripe-Rate-Limited-Reason has the part before
// the colon.
const (
	limitTest        = "global-rate:test"
	limitLive        = "global-rate:live"
	limitEndpoint    = "endpoint-rate"
	limitConcurrency = "global-concurrency"
)

// Name implements sandbox.API.
func (s *Sandbox) Name() string { return "stripe" }

// Handler implements sandbox.API.
func (s *Sandbox) Handler() http.Handler { return s.core }

// Core returns the clock, the faults, the log and the limiter.
func (s *Sandbox) Core() *sandbox.Core { return s.core }

// SetLateness changes how late new objects and events are from now on.
func (s *Sandbox) SetLateness(l Lateness) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.lateness = l
}

// SetVersion changes the account's API version: events from now on are rendered in it.
func (s *Sandbox) SetVersion(version string) error {
	if !validVersion(version) {
		return fmt.Errorf("stripe sandbox: version %q: write it as 2024-06-20 or 2026-10-28.endive", version)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.version = version
	return nil
}

// history is how long the account of a new world has lived; events of its first days
// are gone already.
const history = 45 * 24 * time.Hour

// Reset implements sandbox.World.
func (s *Sandbox) Reset() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.tables = map[string]*table{}
	for _, k := range s.kinds {
		s.tables[k.name] = newTable(k)
	}
	s.events, s.once = newEventLog(), newIdempotency()
	s.lateness, s.version, s.keys = Lateness{}, s.options.Version, map[string]*access{}
	s.ids, s.balance = s.options.Seed.Dice("id", 0), 0
	s.world = newLife(s.options.Seed)
	now := s.options.Clock.Now()
	begin := now.Add(-history)
	if s.options.Bulk > 0 {
		s.tables["customer"].bulk = s.bulkCustomers(s.options.Bulk, begin.AddDate(-3, 0, 0).Unix(), begin.AddDate(0, 0, -1).Unix())
	}
	s.live(begin, now.Add(-time.Minute), s.options.Customers)
	s.lateness = s.options.Lateness
}
