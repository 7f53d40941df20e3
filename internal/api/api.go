// Package api is the HTTP API: it puts consumers, changes and states of a node at
// addresses, as docs and /openapi.json describe them. Only this package knows the
// library that checks inputs and writes the OpenAPI document.
//
// # Guarantees
//
//  1. Every route is registered with the scope that it needs, in one place; a test
//     tries every route with every scope. Without a token a node answers only to
//     names of its own machine, so that no web page can reach it by a name of its own.
//  2. Every error is a problem document of RFC 9457, also for unknown addresses,
//     wrong methods, bodies that are too large, and panics.
//  3. What a request is wrong in decides its status: 400 for malformed JSON and for
//     parameters of next, ack, nack, extend, seek and event streams; 422 for
//     a body that is well formed but not a valid definition; 404 for what is not there;
//     409 for what contradicts the state, and for stale tokens. A request with a 4xx
//     changed nothing, except that an ack or nack with stale tokens applied the others.
//  4. Rows and old values go from the log to the caller byte for byte.
//  5. Calls that change the control plane are recorded before they are answered.
//  6. Memory per request is bounded: bodies by Config.MaxBody, answers by one chunk
//     and the largest change, streams of events as package tail has it.
package api

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/prometheus/client_golang/prometheus"

	"lockstep"
	"lockstep/internal/auth"
	"lockstep/internal/deliver"
	"lockstep/internal/obs"
	"lockstep/internal/tail"
)

// Config is what an API is made of. Tokens, Consumers and Databases are needed.
type Config struct {
	Tokens    *auth.Tokens
	Consumers Consumers
	// Databases returns what is captured: the configuration's in its order, then those
	// made by API.
	Databases func() []Database
	// Managed makes and deletes databases; nil: calls that need it answer 503.
	Managed ManagedDatabases
	// Health tells how the parts of the node are. /readyz is 200 when all are ready.
	Health func(ctx context.Context) []Part
	// Tables makes patterns into a test of tables, for streams of events. It is asked
	// only when a request has patterns; nil: such requests are refused.
	Tables func(patterns []string) (func(t *lockstep.Table) bool, error)
	// Backfills reads existing rows; nil: calls that need it answer 503.
	Backfills Backfills
	// Syncs mirrors APIs; nil: calls that need it answer 503.
	Syncs Syncs
	// Kinds are those that changes are sent to; nil: stdout, without settings.
	Kinds Kinds
	// Sending knows how that goes; nil: nothing is shown of it.
	Sending Sending
	// Providers names what stands before the colon of a collection, such as stripe; a
	// consumer of another one's collections is refused. nil: none is.
	Providers func() []string
	// Mirrored tells what a table mirrors, as [deliver.Config] has it; nil: nothing is
	// mirrored.
	Mirrored func(database, schema, table string) (deliver.Mirrored, bool)

	// Events is where /events gets its events from; nil: there are none. Pages of Origins,
	// such as https://app.example.com, may follow them; * stands for all where tokens are
	// asked for.
	Events  Events
	Origins []string

	// Realtime answers everything below /realtime/v1/. It checks origins and tokens
	// itself, in the words of its protocol. nil: there is nothing.
	Realtime http.Handler

	// Console answers / and everything below /console/, after Host and Origin have been
	// checked. nil: there is nothing.
	Console http.Handler

	Audit     Auditor             // nil: the audit goes to the log
	Audited   Audited             // reads the audit; nil: calls that need it answer 503
	Doctor    Doctor              // nil: calls that need it answer 503
	History   History             // nil: calls that need it answer 503
	Metrics   *obs.Metrics        // nil: not counted
	Gatherer  prometheus.Gatherer // what /metrics shows; nil: there is none
	Logger    *slog.Logger        // nil: slog.Default
	Version   string              // of this binary
	Started   time.Time           // for /v1/status; zero: now
	MaxBody   int64               // of requests; 0: 1 MiB
	Heartbeat time.Duration       // of streams of events; 0: 15 s
	TableWait time.Duration       // of requests for an events table that is not found; 0: 5 s
	WriteWait time.Duration       // for a subscriber to take what it is sent; 0: 30 s
}

// API answers requests. It is an http.Handler, safe for concurrent use.
type API struct {
	tokens    *auth.Tokens
	consumers Consumers
	databases func() []Database
	managed   ManagedDatabases
	health    func(ctx context.Context) []Part
	tables    func(patterns []string) (func(t *lockstep.Table) bool, error)
	backfills Backfills
	realtime  http.Handler
	console   http.Handler
	events    Events
	origins   []string
	tickets   tickets
	tableWait time.Duration
	writeWait time.Duration
	syncs     Syncs
	kinds     Kinds
	sending   Sending
	providers func() []string
	mirrored  func(database, schema, table string) (deliver.Mirrored, bool)
	audit     Auditor
	audited   Audited
	history   History
	doctor    Doctor
	metrics   *obs.Metrics
	gatherer  prometheus.Gatherer
	log       *slog.Logger
	version   string
	started   time.Time
	maxBody   int64
	heartbeat time.Duration

	crossOrigin *http.CrossOriginProtection
	mux         *http.ServeMux
	huma        huma.API
	routes      []Route
	drain       drain
	active      gate
	buffers     buffers
	tails       *tail.Server
}

// New makes the API. It starts nothing and answers nothing until it is served.
func New(c Config) (*API, error) {
	if c.Tokens == nil || c.Consumers == nil || c.Databases == nil {
		return nil, fmt.Errorf("make the HTTP API: tokens, consumers and databases are needed: %w", lockstep.ErrInvalid)
	}
	a := &API{
		tokens: c.Tokens, consumers: c.Consumers, databases: c.Databases, managed: c.Managed, health: c.Health, tables: c.Tables,
		backfills: c.Backfills, realtime: c.Realtime, console: c.Console, events: c.Events, origins: c.Origins, tableWait: or(c.TableWait, tableWait), writeWait: or(c.WriteWait, sseWriteLimit), syncs: c.Syncs, kinds: c.Kinds, sending: c.Sending, providers: c.Providers, mirrored: c.Mirrored, audit: c.Audit, audited: c.Audited, history: c.History, doctor: c.Doctor, metrics: c.Metrics, gatherer: c.Gatherer, log: c.Logger, version: c.Version, started: c.Started,
		maxBody: c.MaxBody, heartbeat: or(c.Heartbeat, 15*time.Second),
		crossOrigin: http.NewCrossOriginProtection(), mux: http.NewServeMux(), drain: newDrain(), tails: tail.New(tail.Limits{}),
	}
	if a.log == nil {
		a.log = slog.Default()
	}
	if a.started.IsZero() {
		a.started = time.Now()
	}
	if a.maxBody <= 0 {
		a.maxBody = 1 << 20
	}
	if a.health == nil {
		a.health = func(context.Context) []Part { return nil }
	}
	a.huma = huma.NewAPI(a.documentation(), adapter{a})
	a.consumerRoutes()
	a.pullRoutes()
	a.deadRoutes()
	a.sendingRoutes()
	a.backfillRoutes()
	a.syncRoutes()
	a.changeRoutes()
	a.trialRoutes()
	a.eventRoutes()
	a.statusRoutes()
	a.databaseRoutes()
	a.capturedRoutes()
	a.auditRoutes()
	a.historyRoutes()
	a.doctorRoutes()
	a.tokenRoutes()
	if err := a.docsRoutes(); err != nil {
		return nil, err
	}
	return a, nil
}

// Routes returns every route, documented or not.
func (a *API) Routes() []Route { return append([]Route(nil), a.routes...) }

// documentation is the head of the OpenAPI document.
func (a *API) documentation() huma.Config {
	registry := huma.NewMapRegistry("#/components/schemas/", huma.DefaultSchemaNamer)
	return huma.Config{
		OpenAPI: &huma.OpenAPI{
			OpenAPI: "3.1.0",
			Info: &huma.Info{
				Title: "Lockstep", Version: a.version, License: &huma.License{Name: "Apache-2.0", Identifier: "Apache-2.0"},
				Description: "Every committed change of a Postgres, and of the APIs that are mirrored in it, in order per row, processed exactly once. " +
					"Errors are problem documents (RFC 9457). Every id may also be the resource's name.",
			},
			Servers: []*huma.Server{{URL: "/", Description: "This node"}},
			Components: &huma.Components{
				Schemas:         registry,
				SecuritySchemes: map[string]*huma.SecurityScheme{"bearer": {Type: "http", Scheme: "bearer", Description: "An API token; not needed on a node without tokens"}},
			},
			Tags: []*huma.Tag{
				{Name: "consumers", Description: "Who reads changes"}, {Name: "pull", Description: "Taking and settling changes"},
				{Name: "dead letters", Description: "Changes that wait for a person"}, {Name: "backfills", Description: "Existing rows: to one consumer, or to everybody behind a gap"},
				{Name: "syncs", Description: "APIs that are mirrored in Postgres"}, {Name: "databases", Description: "What is captured, and its changes"}, {Name: "events", Description: "Rows of an events table, to their subscribers"},
				{Name: "tokens", Description: "Who may call"}, {Name: "node", Description: "How the node is"},
			},
		},
		// Bodies are bound to one media type: others are refused with 415.
		Formats:       map[string]huma.Format{"application/json": {Marshal: writeJSON, Unmarshal: readJSON}, "json": {Marshal: writeJSON, Unmarshal: readJSON}},
		DefaultFormat: "application/json",
		Transformers:  []huma.Transformer{ownProblems},
	}
}
