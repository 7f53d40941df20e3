// Package github simulates GitHub's REST and GraphQL API: an organization whose people
// open issues and pull requests, review, comment, merge and release, behind the
// vendor's own paging, limits, conditional requests, errors, redirects and lateness.
// It is served by `lockstep sandbox`, and what the connector and everything above it is
// tested against.
//
// # Guarantees
//
//  1. Lists are in GitHub's orders, 1 to 100 at a time, by page numbers in Link headers
//     whose addresses name repositories by number. A record that changes while a list
//     is read moves in it.
//  2. Times have a resolution of a second. Ids are 64 bits wide and are not used twice.
//  3. An answer 304 costs nothing of the primary limit; a refused request changes nothing.
//  4. What one may not see is not there: 404 for a hidden and for a deleted repository
//     alike, 301 for one that was renamed or transferred, 410 for a deleted issue.
//  5. A GraphQL query is checked against the schema before anything is read: unknown
//     fields, wrong arguments and missing variables are errors, with status 200.
//  6. REST and GraphQL show the same objects. Fetching one by id or number is never late.
//  7. /_sandbox/state/{collection} is the truth: everything that exists, hidden or
//     not yet visible in lists included.
//
// See README.md for what is simulated and what is not.
package github

import (
	"errors"
	"fmt"
	"net/http"
	"regexp"
	"sync"
	"sync/atomic"
	"time"

	"lockstep/sandbox"
)

// Options is how a world begins. The zero value is a small organization that stands still.
type Options struct {
	Seed sandbox.Seed // default 1
	// Organization owns the repositories; default acme.
	Organization string
	// Repositories is how many it has, default 5; -1: none.
	Repositories int
	// History is how many things have happened in them until now, default 400; -1: none.
	History int
	// Pace is how many things happen per second; 0: nothing by itself.
	Pace float64
	// Deletions is the share of the things that happen which delete comments, labels,
	// draft releases and issues: what a mirror learns by sweeps. Default 0.03; -1: none.
	Deletions float64
	// Upheaval is the share that renames, transfers and deletes repositories and edits
	// labels in use: what changes records without updating them. Default 0.
	Upheaval float64
	// Clock is GitHub's time; default the real one.
	Clock *sandbox.Clock
	// Unlimited leaves the limits off.
	Unlimited bool
	// Lateness is how late lists show what there is.
	Lateness Lateness
	// TokenLife is how long tokens of an App's installation live, default 1h.
	TokenLife time.Duration
	// AppKey is the App's public key (PEM). Without one JSON web tokens are checked for
	// everything but their signature. NewAppKey makes one.
	AppKey string
}

// Lateness is how late lists, and GraphQL's connections, show changes. Fetching one
// object is never late. The zero value shows everything at once.
type Lateness struct {
	// Share of the changes is late, by up to Max.
	Share float64          `json:"share"`
	Max   sandbox.Duration `json:"max"`
	// Mergeable is how long after a change of a pull request it is UNKNOWN whether it
	// can be merged.
	Mergeable sandbox.Duration `json:"mergeable"`
}

// Sandbox is one simulated GitHub. It implements sandbox.API and sandbox.World.
type Sandbox struct {
	options Options
	router  *router
	schema  *schema
	core    *sandbox.Core

	resolvers map[string]map[string]resolver // of GraphQL, by type and field

	requests atomic.Uint64

	// mu guards everything below. Handlers of reads hold it shared.
	mu       sync.RWMutex
	org      *account
	viewer   *account // whom tokens stand for
	people   []*account
	accounts map[string]*account // by login in lower case
	repos    []*repo             // oldest first, deleted ones left out
	byID     map[int64]*repo
	names    map[string]*repo // current and earlier full names in lower case
	lateness Lateness
	access   *access
	life     *life
	ids      map[string]int64 // the last id of each kind
	changes  uint64           // for the dice of lateness
}

var (
	_ sandbox.API   = (*Sandbox)(nil)
	_ sandbox.World = (*Sandbox)(nil)
)

var loginForm = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9-]{0,38}$`)

// New makes a GitHub. The only errors are those of options that cannot be.
func New(options Options) (*Sandbox, error) {
	if options.Seed == 0 {
		options.Seed = 1
	}
	if options.Organization == "" {
		options.Organization = "acme"
	}
	if options.Repositories == 0 {
		options.Repositories = 5
	}
	if options.History == 0 {
		options.History = 400
	}
	if options.Clock == nil {
		options.Clock = sandbox.NewClock()
	}
	if options.Deletions == 0 {
		options.Deletions = 0.03
	}
	if options.TokenLife == 0 {
		options.TokenLife = time.Hour
	}
	if !loginForm.MatchString(options.Organization) {
		return nil, fmt.Errorf("github sandbox: organization %q: letters, digits and hyphens only", options.Organization)
	}
	if options.Pace < 0 || options.Upheaval < 0 || options.Upheaval+max(options.Deletions, 0) > 1 || options.TokenLife < 0 {
		return nil, errors.New("github sandbox: pace and token life must not be negative, deletions and upheaval are from 0 to 1")
	}
	if options.AppKey != "" {
		if _, err := publicKey(options.AppKey); err != nil {
			return nil, fmt.Errorf("github sandbox: app key: %w", err)
		}
	}
	s := &Sandbox{options: options}
	var err error
	if s.schema, err = loadSchema(); err != nil {
		return nil, err
	}
	s.router, s.resolvers = newRouter(s.handlers()), resolvers()
	limits := sandbox.NewLimiter(Limits()...)
	if options.Unlimited {
		limits.Off()
	}
	s.core = sandbox.New(sandbox.Config{
		Name: "github", Seed: options.Seed, World: s, Vendor: http.HandlerFunc(s.serve), Clock: options.Clock, Limits: limits,
		Refuse: refuse, Kinds: faultKinds(), Control: s.controls(),
	})
	s.Reset()
	s.core.Live(options.Pace)
	return s, nil
}

// Name implements sandbox.API.
func (s *Sandbox) Name() string { return "github" }

// Handler implements sandbox.API.
func (s *Sandbox) Handler() http.Handler { return s.core }

// Core returns the clock, the faults, the log and the limiter.
func (s *Sandbox) Core() *sandbox.Core { return s.core }

// SetLateness changes how late changes are from now on.
func (s *Sandbox) SetLateness(l Lateness) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.lateness = l
}

// history is how long a new world has lived.
const history = 60 * 24 * time.Hour

// Reset implements sandbox.World.
func (s *Sandbox) Reset() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.accounts, s.people = map[string]*account{}, nil
	s.repos, s.byID, s.names = nil, map[int64]*repo{}, map[string]*repo{}
	s.lateness, s.changes = Lateness{}, 0
	s.ids = firstIDs()
	s.access = newAccess(s.options.AppKey)
	s.life = &life{dice: s.options.Seed.Dice("life", 0)}
	now := s.options.Clock.Now()
	s.populate(now.Add(-history), now.Add(-time.Minute))
	s.lateness = s.options.Lateness
}

// firstIDs are about where GitHub's are: some within 31 bits, some beyond 32.
func firstIDs() map[string]int64 {
	return map[string]int64{
		"account": 9_919_000, "repository": 781_000_000, "issue": 3_021_000_000, "pull": 2_147_483_600, "comment": 4_294_967_200, "review": 2_880_000_000,
		"line": 2_310_000_000, "label": 8_120_000_000, "milestone": 12_400_000, "release": 198_000_000, "activity": 31_000_000_000,
	}
}

// id returns the next id of a kind. Ids of one kind rise over all repositories.
func (s *Sandbox) id(kind string) int64 {
	s.ids[kind] += 1 + int64(s.ids[kind]%3)
	return s.ids[kind]
}

// late returns when lists show what changes now.
func (s *Sandbox) late(now time.Time) time.Time {
	s.changes++
	if s.lateness.Share <= 0 || s.lateness.Max <= 0 {
		return now
	}
	d := s.options.Seed.Dice("late", s.changes)
	if !d.Chance(s.lateness.Share) {
		return now
	}
	return now.Add(time.Duration(d.Int(int(s.lateness.Max))))
}
