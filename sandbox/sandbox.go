// Package sandbox is what the simulated APIs have in common: [New] puts a world and
// the vendor's routes together with a clock, faults, a limiter, a request log and
// the control routes under /_sandbox/.
//
// An API in a folder of its own (sandbox/stripe) writes its routes as a plain
// [http.Handler] and its world as a [World]; everything around them is here:
//
//   - [Core] is the handler; [Mount] serves several APIs at one address.
//   - [Clock] is the API's own time: shifted, scaled, frozen. It is in Date headers.
//   - [Faults] break answers by script, by chance and by what they match.
//   - [Limiter] counts as the vendors do, and says what is left for their headers.
//   - [Log] keeps what was asked, so that a test can judge a client.
//   - [Seed], [Dice], [Person] and [Template] make millions of records out of a number.
//
// # Guarantees
//
//  1. A world is a function of its seed, of the steps taken and of the requests:
//     nothing in it is random. Only times differ from run to run.
//  2. There are no goroutines. A world that lives at a pace is brought up to date
//     when a request arrives, with the times at which its steps were due; nobody can
//     tell the difference through the API. More than a second of work is not made up
//     for: a world that nobody asks for hours has stood still.
//  3. The world is up to date when a handler runs: it never changes by itself
//     during a request. Between two requests it may.
//  4. Every request to the vendor's routes is in the log before the client has its
//     answer, those that a fault cut off included. The log holds no credential.
//  5. Control requests are neither logged nor limited, nor do faults meet them.
//
// Everything may be used concurrently unless its comment says otherwise.
package sandbox

import (
	"context"
	"iter"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"
)

// API is one simulated API.
type API interface {
	// Name is the vendor's, in lower case: stripe, github.
	Name() string
	// Handler serves the API at its root as the vendor does, and the control routes
	// below /_sandbox/.
	Handler() http.Handler
}

// World is the state behind an API, as the control routes and the pace need it.
type World interface {
	// Step lets the next thing happen, at a time of the world's clock.
	Step(at time.Time)
	// Reset puts the world back to how it began.
	Reset()
	// Collections lists what the world holds.
	Collections() []Collection
	// Records yields the id and the JSON of everything that exists in a collection,
	// whatever a list would hide, oldest first: the truth to compare a mirror with.
	// An unknown collection gives false.
	Records(collection string) (iter.Seq2[string, []byte], bool)
}

// Collection is one kind of records of a world.
type Collection struct {
	Name  string `json:"name"`
	Count int    `json:"count"`
}

// Config is what an API hands to New. World, Vendor and Refuse are required.
type Config struct {
	Name   string
	Seed   Seed
	World  World
	Vendor http.Handler
	Clock  *Clock   // default: the real time
	Limits *Limiter // default: none
	Pace   float64  // steps per real second from the start on; 0: the world waits
	// Refuse is an error as the vendor words it, for faults of kind status.
	Refuse func(status int) (contentType string, body []byte)
	// Kinds are faults that the vendor's handler itself obeys; see CallOf. Name → meaning.
	Kinds map[string]string
	// Control are further control routes of the vendor's own: "keys" is /_sandbox/keys.
	Control map[string]http.HandlerFunc
	// LogSize is how many requests the log keeps, default 100,000.
	LogSize int
}

// Core is a simulated API's handler.
type Core struct {
	config Config
	clock  *Clock
	limits *Limiter
	faults *Faults
	log    *Log
	pace   *pace

	hooksMu sync.Mutex
	hooks   []func(*Call, *http.Request) // set by Before, read by ServeHTTP
}

// New returns the handler. It starts nothing.
func New(config Config) *Core {
	if config.Clock == nil {
		config.Clock = NewClock()
	}
	if config.Limits == nil {
		config.Limits = NewLimiter()
	}
	c := &Core{config: config, clock: config.Clock, limits: config.Limits, log: newLog(config.LogSize)}
	c.faults = newFaults(config.Seed, config.Kinds)
	c.pace = &pace{rate: config.Pace, since: time.Now()}
	return c
}

// Clock returns the API's time.
func (c *Core) Clock() *Clock { return c.clock }

// Faults returns what breaks answers.
func (c *Core) Faults() *Faults { return c.faults }

// Log returns what was asked.
func (c *Core) Log() *Log { return c.log }

// Limits returns the limiter.
func (c *Core) Limits() *Limiter { return c.limits }

// Before calls f before each request of the vendor's routes is answered, one after
// the other in order of registration: the place to edit a record between two pages.
func (c *Core) Before(f func(*Call, *http.Request)) {
	c.hooksMu.Lock()
	defer c.hooksMu.Unlock()
	c.hooks = append(c.hooks, f)
}

// Live makes the world take that many steps per real second from now on; 0 pauses it.
func (c *Core) Live(perSecond float64) { c.pace.set(perSecond, c.step) }

// Step takes n steps now.
func (c *Core) Step(n int) {
	c.CatchUp()
	for range n {
		c.config.World.Step(c.clock.Now())
	}
}

// CatchUp takes the steps that are due; every request does so too.
func (c *Core) CatchUp() { c.pace.due(c.step) }

func (c *Core) step(at time.Time) { c.config.World.Step(c.clock.At(at)) }

// ServeHTTP implements http.Handler.
func (c *Core) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.URL.Path == "/_sandbox" || strings.HasPrefix(r.URL.Path, "/_sandbox/") {
		c.control(w, r)
		return
	}
	call := c.log.begin(r, c.clock.Now())
	answer := &answer{ResponseWriter: w}
	answer.finish = sync.OnceFunc(func() { c.log.end(call, answer) })
	defer answer.finish()
	c.CatchUp()
	c.hooksMu.Lock()
	hooks := c.hooks
	c.hooksMu.Unlock()
	for _, hook := range hooks {
		hook(call, r)
	}
	w.Header().Set("Date", c.clock.Now().UTC().Format(http.TimeFormat))
	r = r.WithContext(context.WithValue(r.Context(), callKey{}, call))
	fault := c.faults.pick(r)
	if fault == nil {
		c.config.Vendor.ServeHTTP(answer, r)
		return
	}
	call.Fault = fault.Kind
	if c.faults.foreign(fault.Kind) {
		call.fault = fault
		c.config.Vendor.ServeHTTP(answer, r)
		return
	}
	c.spoil(answer, r, fault)
}

type callKey struct{}

// CallOf returns the call that a vendor's handler answers, for it to fill in what
// only it knows. Outside of one it returns a call that nobody sees.
func CallOf(ctx context.Context) *Call {
	if call, ok := ctx.Value(callKey{}).(*Call); ok {
		return call
	}
	return &Call{}
}

// Mount serves APIs at one address: a single one at the root, as its vendor does,
// several each under /<name>.
func Mount(apis ...API) http.Handler {
	if len(apis) == 1 {
		return apis[0].Handler()
	}
	mux := http.NewServeMux()
	for _, api := range apis {
		prefix := "/" + api.Name()
		mux.Handle(prefix+"/", http.StripPrefix(prefix, api.Handler()))
	}
	mux.HandleFunc("/", func(w http.ResponseWriter, _ *http.Request) {
		names := make([]string, 0, len(apis))
		for _, api := range apis {
			names = append(names, "/"+api.Name()+"/")
		}
		WriteJSON(w, http.StatusNotFound, map[string]any{"error": "each API is under its name", "apis": names})
	})
	return mux
}

// answer counts what a handler writes. The call is closed before its last byte leaves,
// so that whoever has read an answer finds it in the log.
type answer struct {
	http.ResponseWriter
	status int
	bytes  int64
	length int64 // as the head promises; -1: it does not
	finish func()
}

func (a *answer) WriteHeader(status int) {
	if a.status == 0 {
		a.status, a.length = status, -1
		if n, err := strconv.ParseInt(a.Header().Get("Content-Length"), 10, 64); err == nil {
			a.length = n
		}
	}
	a.ResponseWriter.WriteHeader(status)
}

func (a *answer) Write(p []byte) (int, error) {
	if a.status == 0 {
		a.WriteHeader(http.StatusOK)
	}
	a.bytes += int64(len(p))
	if a.bytes == a.length {
		a.finish()
	}
	return a.ResponseWriter.Write(p)
}

// Unwrap lets http.ResponseController reach the connection.
func (a *answer) Unwrap() http.ResponseWriter { return a.ResponseWriter }

// pace says which steps are due.
type pace struct {
	mu    sync.Mutex
	rate  float64 // steps per second
	since time.Time
	done  uint64 // steps taken since then
}

func (p *pace) set(rate float64, step func(time.Time)) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.catchUp(step)
	p.rate, p.since, p.done = rate, time.Now(), 0
}

func (p *pace) get() float64 {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.rate
}

func (p *pace) due(step func(time.Time)) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.catchUp(step)
}

// longestCatchUp bounds how long one request waits for what happened before it.
const longestCatchUp = time.Second

// catchUp takes the steps that are due. After a long silence, or on a machine too slow
// for the pace, that would take ever longer: what is left after longestCatchUp does not
// happen at all, and the world goes on from now.
func (p *pace) catchUp(step func(time.Time)) {
	if p.rate <= 0 {
		return
	}
	begin := time.Now()
	want := uint64(begin.Sub(p.since).Seconds() * p.rate)
	for ; p.done < want; p.done++ {
		if now := time.Now(); now.Sub(begin) > longestCatchUp {
			p.since, p.done = now, 0
			return
		}
		step(p.since.Add(time.Duration(float64(p.done+1) / p.rate * float64(time.Second))))
	}
}

// Duration is a time.Duration that is text in JSON: "1m30s". A bare number is seconds.
type Duration time.Duration

// MarshalText implements encoding.TextMarshaler.
func (d Duration) MarshalText() ([]byte, error) { return []byte(time.Duration(d).String()), nil }

// UnmarshalJSON implements json.Unmarshaler.
func (d *Duration) UnmarshalJSON(text []byte) error {
	s := strings.Trim(string(text), `"`)
	if seconds, err := strconv.ParseFloat(s, 64); err == nil {
		*d = Duration(seconds * float64(time.Second))
		return nil
	}
	parsed, err := time.ParseDuration(s)
	*d = Duration(parsed)
	return err
}
