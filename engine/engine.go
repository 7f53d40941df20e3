// Package engine makes a running Lockstep of a configuration.
//
//  1. New opens nothing; Run opens, runs and closes everything, in one place.
//  2. Stages stop in the order in which changes flow: the HTTP API first, so that
//     answers in flight end and acks are kept, then capture, then delivery, then
//     the stream, then the private Postgres.
//  3. One node per data directory. Several engines can live in one process.
//  4. A database that cannot be reached stops nothing but its own capture: the
//     engine tries again for ever, says why, and goes on delivering what it has.
//  5. Databases can be made and deleted while it runs. They are kept in the control
//     plane, and captured again once that has been read after a start. Nothing that
//     becomes of one of them stops the engine. One that was deleted has no slot left
//     that nobody knows of; what the stream has of its changes stays until retention
//     takes it, and one that is made again under the name goes on behind it.
package engine

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"

	"lockstep/internal/auth"
	"lockstep/internal/capture/backfill"
	"lockstep/internal/config"
	"lockstep/internal/deliver"
	"lockstep/internal/history"
	"lockstep/internal/obs"
	"lockstep/internal/outlet"
	"lockstep/internal/pgdb/cluster"
	"lockstep/internal/pump"
	"lockstep/internal/realtime"
	"lockstep/internal/stage"
	"lockstep/internal/stream"
	"lockstep/internal/syncs"
)

// Options is what a configuration file cannot say.
type Options struct {
	Logger  *slog.Logger // default: nothing is logged
	Version string       // of the binary
	Stdout  io.Writer    // where consumers of kind stdout write; default os.Stdout
	// Ready is called once, when the API listens. Capture may still be connecting.
	Ready func(Node)
}

// Node is how a running engine can be reached.
type Node struct {
	Server    string            // address of the HTTP API, http://host:port
	Databases map[string]string // URL of each private database, by name
	NATS      string            // host:port for NATS clients; empty: it is not open to them
}

// Engine is one node. Its methods may be called once.
type Engine struct {
	cfg *config.Config
	Options

	dir       *dataDir
	cluster   *cluster.Cluster // nil when every database has a URL
	stream    *stream.Server
	metrics   *obs.Metrics
	registry  *prometheus.Registry
	databases registry
	// captures runs those of them that were made by API, and definitions keeps them.
	captures    *captureSet
	definitions definitions
	changing    chan struct{} // full while one of them is made, changed or deleted
	using       sync.RWMutex  // held while a consumer is made, and to close a database to them
	broker      *deliver.Broker
	pumps       *pump.Set
	outlet      *outlet.Server // nil: it is not open to NATS clients
	gaps        *backfill.Gaps
	backfills   *backfill.Runner
	tokens      *auth.Tokens
	// remembered lets tokens in while the control plane is away.
	remembered *tokenCache
	control    *control
	mirrored   *mirrored
	syncs      *syncs.Set
	realtime   *realtime.Server
	events     *eventSource
	shown      shownConsumers
	examined   examination
	history    *history.History
	node       Node
	started    time.Time
}

// New returns an engine for the configuration. It opens nothing.
func New(cfg *config.Config, o Options) *Engine {
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.Stdout == nil {
		o.Stdout = os.Stdout
	}
	return &Engine{cfg: cfg, Options: o, shown: shownConsumers{views: map[string]shownConsumer{}}, history: history.New(history.Config{}), examined: examination{turn: make(chan struct{}, 1)},
		captures: newCaptureSet(o.Logger.With(obs.KeyStage, "databases")), changing: make(chan struct{}, 1)}
}

// Run runs the node until ctx ends, and then returns nil. What a person must mend
// before it can run is an error of kind ErrInvalid, ErrConflict or ErrEnvironment.
func (e *Engine) Run(ctx context.Context) (err error) {
	e.started = time.Now()
	// Opened in order, closed in reverse, whatever was reached.
	var closers []func() error
	defer func() {
		for _, closer := range slices.Backward(closers) {
			err = errors.Join(err, closer())
		}
	}()
	for _, open := range []func(context.Context) (func() error, error){
		e.openDir, e.openMirrored, e.openMetrics, e.openStream, e.openCluster, e.openGaps, e.openDatabases, e.openControl, e.openOutlet, e.openBroker, e.openPumps, e.openBackfills, e.openSyncs, e.openRealtime, e.openEvents,
	} {
		closer, err := open(ctx)
		if closer != nil {
			closers = append(closers, closer)
		}
		if err != nil {
			if ctx.Err() != nil {
				return nil
			}
			return err
		}
	}
	server, err := e.server(ctx)
	if err != nil {
		return err
	}
	err = stage.Run(ctx, e.stages(server)...)
	e.Logger.InfoContext(ctx, "stopped", "ran_for", time.Since(e.started).Round(time.Second).String())
	return err
}

func (e *Engine) openDir(context.Context) (func() error, error) {
	dir, err := openDataDir(e.cfg.DataDir)
	if err != nil {
		return nil, err
	}
	e.dir = dir
	return dir.close, nil
}

func (e *Engine) openMirrored(context.Context) (func() error, error) {
	var err error
	e.mirrored, err = openMirrored(e.dir.path)
	return nil, err
}

func (e *Engine) openMetrics(context.Context) (func() error, error) {
	e.registry = prometheus.NewRegistry()
	e.registry.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	metrics, err := obs.NewMetrics(e.registry, e.Version)
	if err != nil {
		return nil, fmt.Errorf("declare the metrics: %w", err)
	}
	e.metrics = metrics
	return nil, nil
}

func (e *Engine) openStream(ctx context.Context) (func() error, error) {
	c := stream.Config{
		URL:       e.cfg.Stream.URL.Reveal(),
		Retention: stream.Retention{Age: e.cfg.Stream.Retention.Age, Bytes: e.cfg.Stream.Retention.Bytes},
		Logger:    e.Logger.With(obs.KeyStage, "stream"),
	}
	if c.URL == "" {
		c.Dir = filepath.Join(e.dir.path, "stream")
	}
	server, err := stream.Open(ctx, c)
	if err != nil {
		return nil, err
	}
	e.stream = server
	return server.Close, nil
}

// openCluster starts the private Postgres when a database has no URL.
func (e *Engine) openCluster(ctx context.Context) (func() error, error) {
	private := false
	for _, d := range e.cfg.Databases {
		private = private || d.URL == ""
	}
	if !private {
		return nil, nil
	}
	pg, err := cluster.Start(ctx, cluster.Config{
		Dir: filepath.Join(e.dir.path, "postgres"), Bin: e.cfg.PGBin, Logger: e.Logger.With(obs.KeyStage, "postgres"),
	})
	if err != nil {
		return nil, err
	}
	e.cluster = pg
	// Everything above it has been closed by then, so a fast shutdown is quick.
	stop := func() error { return pg.Stop(context.WithoutCancel(ctx)) }
	for _, d := range e.cfg.Databases {
		if d.URL != "" {
			continue
		}
		if err := pg.CreateDatabase(ctx, d.Name); err != nil {
			return stop, fmt.Errorf("create the private database %s: %w", d.Name, err)
		}
	}
	return stop, nil
}

// stages lists what runs, in the order in which it stops.
func (e *Engine) stages(server func(context.Context) error) []stage.Stage {
	stages := []stage.Stage{e.realtimeStage(), {Name: "http", Run: server, Grace: 15 * time.Second}}
	stages = append(stages, e.eventStage(), e.syncStage())
	stages = append(stages, e.pumpStage(), e.backfillStage(), e.doctorStage(), e.historyStage())
	stages = append(stages, e.outletStages()...)
	for _, d := range e.databases.all() {
		stages = append(stages, d.stages()...)
	}
	stages = append(stages, e.captures.stage(),
		stage.Stage{Name: "deliver", Run: e.broker.Run, Grace: 20 * time.Second},
		stage.Stage{Name: "tokens", Run: e.runTokens},
		stage.Stage{Name: "control", Run: e.control.Run},
	)
	if e.cluster != nil {
		stages = append(stages, stage.Stage{Name: "postgres", Run: e.cluster.Run})
	}
	return stages
}

// runTokens waits for the schema, then keeps the tokens current.
func (e *Engine) runTokens(ctx context.Context) error {
	select {
	case <-e.control.ready:
		return e.tokens.Run(ctx)
	case <-ctx.Done():
		return nil
	}
}
