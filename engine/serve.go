package engine

import (
	"context"
	"fmt"
	"net/http"

	"lockstep"
	"lockstep/internal/api"
	"lockstep/internal/auth"
	"lockstep/internal/obs"
	"lockstep/internal/pattern"
	"lockstep/internal/pgdb"
)

// openControl prepares the control plane and the tokens; the database may be away.
func (e *Engine) openControl(ctx context.Context) (func() error, error) {
	home := e.home()
	pool, err := pgdb.Lazy(ctx, home.url, "lockstep control")
	if err != nil {
		return nil, fmt.Errorf("databases: %s: %w", home.Name, err)
	}
	closer := func() error { pool.Close(); return nil }
	key, err := e.sealer()
	if err != nil {
		return closer, err
	}
	e.control = newControl(home.url, api.Postgres{Pool: pool, Sealer: key}, e.Logger.With(obs.KeyStage, "control"))
	e.definitions = definitions{pool, key}
	e.control.load, e.control.report = e.loadControl, e.report
	var static []auth.Static
	for _, t := range e.cfg.Tokens {
		static = append(static, auth.Static{Name: t.Name, Token: t.Token.Reveal(), Scopes: t.Scopes})
	}
	e.remembered = newTokenCache(auth.Postgres{Pool: pool}, e.dir.path)
	if e.tokens, err = auth.Open(auth.Config{Store: e.remembered, Static: static, Logger: e.Logger}); err != nil {
		return closer, err
	}
	return closer, e.remembered.recall(ctx, e.tokens)
}

// database returns a database of the node; nil: there is none of that name.
func (e *Engine) database(name string) *database { return e.databases.find(name) }

// home is the database that holds the schema lockstep.
func (e *Engine) home() *database {
	if d := e.databases.find(e.cfg.Database); d != nil {
		return d
	}
	return e.databases.all()[0]
}

// server opens the listener, so that a port in use is told before anything runs, and
// returns what serves it.
func (e *Engine) server(ctx context.Context) (func(context.Context) error, error) {
	var a *api.API // the pages call it, and it answers with the pages
	pages, err := e.console(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { a.ServeHTTP(w, r) }))
	if err != nil {
		return nil, err
	}
	a, err = api.New(api.Config{
		Tokens:    e.tokens,
		Consumers: e.consumers(),
		Databases: e.databaseList,
		Managed:   managed{e},
		Health:    e.health,
		Tables:    tables,
		Backfills: backfillCalls{e},
		Syncs:     e.syncs,
		Realtime:  e.realtime,
		Console:   pages,
		Events:    e.events,
		Origins:   e.cfg.CORS,
		Kinds:     sentKinds{},
		Sending:   sending{e.pumps},
		Providers: e.prefixes,
		Mirrored:  e.mirrored.find,
		Audited:   e.control, History: e.history, Doctor: physician{e},
		Audit: e.control, Metrics: e.metrics, Gatherer: e.registry, Logger: e.Logger.With(obs.KeyStage, "http"), Version: e.Version, Started: e.started,
	})
	if err != nil {
		return nil, err
	}
	listener, err := a.Listen(ctx, e.cfg.Listen)
	if err != nil {
		return nil, err
	}
	e.metrics.BeforeScrape(e.observe)
	e.node = Node{Server: "http://" + listener.Addr().String(), Databases: map[string]string{}}
	if e.outlet != nil {
		e.node.NATS = e.outlet.Address()
	}
	for _, d := range e.databases.all() {
		if d.URL == "" {
			e.node.Databases[d.Name] = d.url
		}
	}
	s := &api.Server{API: a, Listener: listener}
	return func(ctx context.Context) error {
		if e.Ready != nil {
			e.Ready(e.node)
		}
		return s.Run(ctx)
	}, nil
}

func (e *Engine) databaseList() []api.Database {
	all := e.databases.all()
	list := make([]api.Database, len(all))
	for i, d := range all {
		list[i] = api.Database{Name: d.Name, Log: api.LogOf(d.log), Status: d.status, ManagedBy: d.managedBy, Gone: d.life.until}
		if d.capture != nil {
			list[i].Captured = captured{d}
		}
	}
	return list
}

func (e *Engine) health(ctx context.Context) []api.Part {
	var parts []api.Part
	for _, d := range e.databases.all() {
		parts = append(parts, d.health())
	}
	parts = append(parts, e.syncParts(ctx)...)
	if part, ok := e.examined.part(); ok {
		parts = append(parts, part)
	}
	return parts
}

// tables makes the patterns of an event stream into a test.
func tables(list []string) (func(*lockstep.Table) bool, error) {
	patterns, err := pattern.Parse(list)
	if err != nil {
		return nil, err
	}
	return func(t *lockstep.Table) bool { return patterns.Match(t.Schema, t.Name) }, nil
}

// observe brings the gauges up to date before they are scraped.
func (e *Engine) observe() {
	for _, d := range e.databases.all() {
		d.observe()
	}
	e.observeConsumers()
	e.metrics.SetMemory("stream_cache", e.stream.CacheBytes())
	e.metrics.SetMemory("deliver_window", e.broker.WindowBytes())
}
