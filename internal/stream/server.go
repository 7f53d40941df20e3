package stream

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"lockstep"
)

// Retention says how long changes stay in the logs. Zero means unlimited.
type Retention struct {
	Age time.Duration
	// Bytes limits each database's log on disk. Below 64 MB it counts as 64 MB, and
	// it makes way for a single batch that would not fit.
	Bytes int64
}

// Config says where the logs live. Either Dir or URL is required.
type Config struct {
	Dir       string // embedded store directory; used when URL is empty
	URL       string // external NATS, comma-separated addresses
	Retention Retention
	// CacheBytes bounds the parsed batches kept for all logs together, and once
	// more the read-ahead of readers that are behind. Default 32 MB.
	CacheBytes int64
	// InFlightBytes bounds what an Append may leave unacknowledged per log; one
	// message is always allowed. Default 8 MB.
	InFlightBytes int64
	// AckTimeout is how long a write may take before it counts as failed. Default 10 s.
	AckTimeout time.Duration
	Replicas   int // of streams that are created on an external cluster; default 1
	Logger     *slog.Logger
}

const (
	defaultCacheBytes    = 32 << 20
	defaultInFlightBytes = 8 << 20
	defaultAckTimeout    = 10 * time.Second

	requestTimeout = 10 * time.Second // of one request to JetStream
	minLogBytes    = 64 << 20
)

// Server is the store of all logs, states and dead letters. Its methods may be
// called by any number of goroutines.
type Server struct {
	cfg    Config
	log    *slog.Logger
	embed  *embedded // nil with an external server
	writes *nats.Conn
	// reads is a connection of its own: the server answers reads on the goroutine
	// that reads the connection, so they would hold up appends behind them.
	reads  *nats.Conn
	js     jetstream.JetStream
	cache  *cache
	behind atomic.Int64 // readers with an open window

	opening sync.Mutex // held while a log is opened; taken before mu

	mu     sync.Mutex
	logs   map[string]*Log // by database
	closed bool
	life   context.Context // ends with the connection that writes; a new one has another
	endOf  context.CancelFunc

	storesMu sync.Mutex // never waits for mu
	states   *States    // opened by States
	marks    jetstream.KeyValue
	dead     *Dead // opened by Dead

	// Of the embedded server only.
	witness    *witness
	witnessing func()       // ends the witness' writer and waits for it
	gate       sync.RWMutex // held for reading by writes to buckets, else by who replaces one
	incomplete bool         // a bucket is not complete; guarded by gate
}

// Open starts the embedded server in cfg.Dir, or connects to cfg.URL. A directory
// that another process uses gives an error that wraps lockstep.ErrConflict.
func Open(ctx context.Context, cfg Config) (*Server, error) {
	if (cfg.Dir == "") == (cfg.URL == "") {
		return nil, fmt.Errorf("open stream: give either a directory or a URL: %w", lockstep.ErrInvalid)
	}
	s := &Server{cfg: withDefaults(cfg), logs: map[string]*Log{}}
	s.life, s.endOf = context.WithCancel(context.Background())
	s.log = s.cfg.Logger
	s.cache = newCache(s.cfg.CacheBytes)
	if cfg.URL == "" {
		embed, err := startEmbedded(ctx, cfg.Dir, s.log)
		if err != nil {
			return nil, err
		}
		s.embed = embed
		s.startWitness(ctx)
	}
	if err := s.connect(); err != nil {
		return nil, errors.Join(err, s.Close()) //nolint:contextcheck // closing must not depend on the caller's context
	}
	if _, err := s.js.AccountInfo(ctx); err != nil {
		err = fmt.Errorf("open stream at %s: JetStream does not answer; is it enabled there?: %w", s.where(), unavailable(err))
		return nil, errors.Join(err, s.Close()) //nolint:contextcheck // closing must not depend on the caller's context
	}
	if err := s.restore(ctx); err != nil {
		err = fmt.Errorf("open stream at %s: %w", s.where(), err)
		return nil, errors.Join(err, s.Close()) //nolint:contextcheck // closing must not depend on the caller's context
	}
	return s, nil
}

// startWitness reads the witness and begins to keep it.
func (s *Server) startWitness(ctx context.Context) {
	s.witness = readWitness(s.embed.dir)
	if err := s.witness.damaged; err != nil {
		s.log.ErrorContext(ctx, "the witness of the saved states is damaged: a state that went back or is lost cannot be told this time", "error", err)
	}
	ctx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	done := make(chan struct{})
	go func() {
		defer close(done)
		s.witness.keep(ctx, func(err error) {
			s.log.WarnContext(ctx, "the witness of the saved states cannot be written", "error", err)
		})
	}()
	s.witnessing = func() {
		cancel()
		<-done
	}
}

func withDefaults(cfg Config) Config {
	if cfg.CacheBytes <= 0 {
		cfg.CacheBytes = defaultCacheBytes
	}
	if cfg.InFlightBytes <= 0 {
		cfg.InFlightBytes = defaultInFlightBytes
	}
	if cfg.AckTimeout <= 0 {
		cfg.AckTimeout = defaultAckTimeout
	}
	if cfg.Replicas <= 0 {
		cfg.Replicas = 1
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	return cfg
}

func (s *Server) connect() error {
	var err error
	if s.writes, err = s.dial("lockstep"); err != nil {
		return err
	}
	if s.reads, err = s.dial("lockstep reads"); err != nil {
		return err
	}
	s.js, err = jetstream.New(s.writes, jetstream.WithDefaultTimeout(requestTimeout))
	return err
}

func (s *Server) dial(name string) (*nats.Conn, error) {
	options := []nats.Option{
		nats.Name(name),
		nats.MaxReconnects(-1),
		// A write that waits in a buffer for a new connection would be sent after it
		// was reported as failed.
		nats.ReconnectBufSize(-1),
		nats.DisconnectErrHandler(func(nc *nats.Conn, err error) { s.disconnected(nc, err) }),
		nats.ErrorHandler(func(_ *nats.Conn, _ *nats.Subscription, err error) {
			s.log.Warn("stream connection", "error", err)
		}),
	}
	url := s.cfg.URL
	if s.embed != nil {
		url = ""
		options = append(options, nats.InProcessServer(s.embed), nats.ReconnectWait(10*time.Millisecond), nats.ReconnectJitter(0, 0))
	} else {
		options = append(options, nats.ReconnectWait(250*time.Millisecond), nats.PingInterval(10*time.Second), nats.MaxPingsOutstanding(2))
	}
	nc, err := nats.Connect(url, options...)
	if err != nil {
		return nil, fmt.Errorf("connect to stream at %s: %w", s.where(), unavailable(err))
	}
	return nc, nil
}

// where names the store for messages, without credentials.
func (s *Server) where() string {
	if s.embed != nil {
		return s.embed.dir
	}
	if s.writes != nil {
		return s.writes.ConnectedUrlRedacted()
	}
	return "the configured URL"
}

func (s *Server) disconnected(nc *nats.Conn, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return
	}
	s.log.Warn("stream connection lost", "error", err)
	if nc != s.writes {
		return
	}
	s.endOf()
	s.life, s.endOf = context.WithCancel(context.Background())
	for _, l := range s.logs {
		l.writer.lost(err)
	}
}

// Close waits a moment for appends on their way, ends every reader with an error
// that wraps lockstep.ErrUnavailable, stops the embedded server and gives the
// directory back. A second call does nothing.
func (s *Server) Close() error {
	s.opening.Lock() // a log that is being opened is closed with the others
	defer s.opening.Unlock()
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return nil
	}
	s.closed = true
	logs := make([]*Log, 0, len(s.logs))
	for _, l := range s.logs {
		logs = append(logs, l)
	}
	s.mu.Unlock()

	var errs []error
	for _, l := range logs {
		errs = append(errs, l.close())
	}
	s.storesMu.Lock()
	dead := s.dead
	s.storesMu.Unlock()
	if dead != nil {
		dead.close()
	}
	for _, nc := range []*nats.Conn{s.writes, s.reads} {
		if nc != nil {
			nc.Close()
		}
	}
	if s.embed != nil {
		s.witnessing()
		errs = append(errs, s.witness.write(), s.embed.close())
	}
	return errors.Join(errs...)
}

// Log opens the log of a database, or creates it. Calls for one database return
// one and the same Log; it lives until the server is closed. The retention of an
// existing log is set to the configured one.
func (s *Server) Log(ctx context.Context, database string) (*Log, error) {
	name, err := encodeName(database)
	if err != nil {
		return nil, fmt.Errorf("open log: %w", err)
	}
	s.opening.Lock()
	defer s.opening.Unlock()
	s.mu.Lock()
	l, closed := s.logs[database], s.closed
	s.mu.Unlock()
	if closed {
		return nil, fmt.Errorf("open log of database %q: %w", database, errClosed)
	}
	if l != nil {
		return l, nil
	}
	l = newLog(s, database, name)
	if err := l.open(ctx); err != nil {
		return nil, fmt.Errorf("open log of database %q: %w", database, err)
	}
	s.mu.Lock()
	s.logs[database] = l
	s.mu.Unlock()
	return l, nil
}

// heal restarts an embedded server that has stopped writing after an error of the
// disk, and waits until the connection stands: a restart, by this call or the one
// before, has broken it. JetStream refuses every write to a stream after the first
// that failed, without an answer, until it is started anew.
func (s *Server) heal(ctx context.Context) error {
	if s.embed != nil {
		restarted, err := s.embed.heal()
		if err != nil {
			return fmt.Errorf("restart the stream in %s after a write error: %w", s.embed.dir, unavailable(err))
		}
		if restarted != nil {
			s.log.WarnContext(ctx, "stream restarted after a write error", "error", restarted)
			// A connection may not have noticed yet that its server is gone, and what it is
			// asked meanwhile is never answered.
			for _, nc := range []*nats.Conn{s.writes, s.reads} {
				if err := nc.ForceReconnect(); err != nil {
					return fmt.Errorf("connect to stream at %s: %w", s.where(), unavailable(err))
				}
			}
		}
	}
	if err := s.awaitConnection(ctx); err != nil {
		return err
	}
	return s.restore(ctx)
}

func (s *Server) awaitConnection(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	for _, nc := range []*nats.Conn{s.writes, s.reads} {
		// Listened to before asking: a change that comes in between is not missed.
		changes := nc.StatusChanged(nats.CONNECTED, nats.CLOSED)
		for !nc.IsConnected() {
			select {
			case <-changes:
			case <-ctx.Done():
				nc.RemoveStatusListener(changes)
				return fmt.Errorf("connect to stream at %s: %w", s.where(), unavailable(context.Cause(ctx)))
			}
			if nc.IsClosed() {
				nc.RemoveStatusListener(changes)
				return fmt.Errorf("the stream at %s is closed: %w", s.where(), lockstep.ErrUnavailable)
			}
		}
		nc.RemoveStatusListener(changes)
	}
	return nil
}
