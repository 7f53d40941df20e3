// Package outlet is the NATS server of a node that other programs read from: consumers
// of kind nats without a url publish into its JetStream, and any NATS client consumes.
//
// # Guarantees
//
//  1. It is a server of its own, with a store of its own, apart from the one that holds
//     the logs, the states of consumers and the dead letters. No client of it can see,
//     change or hold up those, whatever it sends.
//  2. A client comes in with a token of the API that may read, sent as the token or as
//     the password; without one only while the node is open, and then on loopback only.
//     Who is let in is asked at each connection, and again every [Config.Recheck]: a
//     token that was revoked ends its connections.
//  3. Clients may look at streams, make, use and delete JetStream consumers of them, and
//     subscribe to lockstep.>. They cannot publish, nor make, alter, purge or delete a
//     stream or a message of it, nor have the server's answers or a consumer's messages
//     sent anywhere but to inboxes (_INBOX.>): who tries is cut off. All clients are equal: each can delete a consumer that
//     another has made, and subscribe where another does.
//  4. What was acknowledged to the publisher is on disk (fsynced).
//  5. A store that stops writing after an error of the disk is opened anew.
package outlet

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"sync"
	"time"

	"github.com/nats-io/nats-server/v2/server"

	"lockstep"
	"lockstep/internal/obs"
)

// Config is what a server needs.
type Config struct {
	Dir    string // of the store; nobody else may use it
	Listen string // host:port; port 0: a free one
	// Authorize returns what lets the bearer of a token in, and an error when nothing
	// does. The token is empty when the client sent none.
	Authorize func(token string) (id string, err error)
	Live      func(id string) bool // whether what let somebody in still does
	Ready     func() error         // nil once Authorize knows the tokens; before, nobody is asked
	Recheck   time.Duration        // default 5 s
	Sick      time.Duration        // for so long the store may say that it is not well; default 15 s
	Logger    *slog.Logger
}

const (
	startTimeout = 30 * time.Second
	// maxPayload is that of the node's own stream: what is in there fits here.
	maxPayload = 8 << 20
	// maxMemory bounds streams with storage: memory.
	maxMemory = 64 << 20
	// unlimitedStore leaves the bounds to the streams, and the rest to the disk.
	unlimitedStore = 1 << 60
	maxClients     = 1000
	// maxConsumers is of each stream. One that is forgotten costs memory and disk.
	maxConsumers = 1000
)

// Server is the server. Its methods may be called concurrently.
type Server struct {
	cfg Config
	log *slog.Logger
	// secret is what the publishers of this process come in with.
	secret   string
	listener net.Listener

	mu     sync.Mutex
	server *server.Server // nil while none runs
	closed bool
	sick   time.Time // since then the store is not well; zero: it is

	clientsMu sync.Mutex
	clients   map[uint64]string // what let them in, by connection
}

// Open starts the server. It publishes and serves this process at once, and listens when
// [Server.Run] runs; an address that cannot be listened on is an error already now.
func Open(ctx context.Context, cfg Config) (*Server, error) {
	if cfg.Recheck <= 0 {
		cfg.Recheck = 5 * time.Second
	}
	if cfg.Sick <= 0 {
		cfg.Sick = 15 * time.Second
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	s := &Server{cfg: cfg, log: cfg.Logger, secret: rand.Text(), clients: map[uint64]string{}}
	var config net.ListenConfig
	var err error
	// Whoever connects before Run runs waits.
	if s.listener, err = config.Listen(ctx, "tcp", cfg.Listen); err != nil {
		return nil, fmt.Errorf("listen for NATS on %s: %w; does the address belong to another program? choose another one with stream.listen", cfg.Listen, err)
	}
	if err = os.MkdirAll(cfg.Dir, 0o700); err == nil {
		err = s.start()
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("start the NATS server in %s: %w", cfg.Dir, err), s.listener.Close())
	}
	return s, nil
}

// Address is where clients connect, host:port.
func (s *Server) Address() string { return s.listener.Addr().String() }

// start starts a server that does not listen yet; mu is held or nobody else knows s.
func (s *Server) start() error {
	ns, err := server.NewServer(&server.Options{
		ServerName: "lockstep", DontListen: true, NoSigs: true,
		JetStream: true, StoreDir: s.cfg.Dir, SyncAlways: true, JetStreamMaxMemory: maxMemory, JetStreamMaxStore: unlimitedStore,
		MaxPayload: maxPayload, CustomClientAuthentication: door{s},
	})
	if err != nil {
		return err
	}
	logs := &serverLog{log: s.log}
	ns.SetLoggerV2(logs, false, false, false)
	ns.Start()
	if !ns.ReadyForConnections(startTimeout) || !ns.JetStreamEnabled() {
		ns.Shutdown()
		ns.WaitForShutdown()
		return fmt.Errorf("the store did not open: %s: %w", logs.lastError(), lockstep.ErrUnavailable)
	}
	limits := map[string]server.JetStreamAccountLimits{"": {
		MaxMemory: -1, MaxStore: -1, MaxStreams: -1, MaxConsumers: maxConsumers, MaxAckPending: -1, MemoryMaxStreamBytes: -1, StoreMaxStreamBytes: -1,
	}}
	if err := ns.GlobalAccount().UpdateJetStreamLimits(limits); err != nil {
		ns.Shutdown()
		ns.WaitForShutdown()
		return fmt.Errorf("set its limits: %w", err)
	}
	s.server = ns
	return nil
}

// InProcessConn connects without a socket. Who comes in with [Server.Secret] may do
// everything.
func (s *Server) InProcessConn() (net.Conn, error) {
	ns := s.running()
	if ns == nil {
		return nil, fmt.Errorf("the NATS server of this node is stopped: %w", lockstep.ErrUnavailable)
	}
	return ns.InProcessConn()
}

func (s *Server) running() *server.Server {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.server
}

// Secret is the token with which the publishers of this process come in.
func (s *Server) Secret() string { return s.secret }

// Run lets clients in until ctx ends, and sees to it that those stay out who lost their
// right. It begins when the tokens are known: a client that is refused twice gives up
// for good.
func (s *Server) Run(ctx context.Context) error {
	for s.cfg.Ready() != nil {
		if pause(ctx, 100*time.Millisecond); ctx.Err() != nil {
			return nil
		}
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	served := make(chan error, 1)
	go func() { served <- s.serve(ctx) }()
	s.log.InfoContext(ctx, "listening for NATS clients", obs.KeyAddress, s.Address())
	tick := time.NewTicker(s.cfg.Recheck)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			s.recheck(ctx)
			s.heal(ctx)
		case err := <-served: // also when ctx ends
			return err
		}
	}
}

// heal starts the server anew when its store takes nothing any more. Clients and sinks
// connect again by themselves.
func (s *Server) heal(ctx context.Context) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return
	}
	if s.server != nil {
		health := s.server.Healthz(&server.HealthzOptions{})
		if health.StatusCode == 0 || health.StatusCode == 200 {
			s.sick = time.Time{}
			return
		}
		if s.sick.IsZero() {
			s.sick = time.Now()
		}
		// It also says so of a stream that is being made just now.
		if time.Since(s.sick) < s.cfg.Sick {
			return
		}
		s.log.WarnContext(ctx, "the NATS server is started anew", obs.KeyReason, health.Error)
		s.stop()
		s.sick = time.Time{}
	}
	if err := s.start(); err != nil {
		s.log.ErrorContext(ctx, "the NATS server does not start; it is tried again", obs.KeyError, err)
	}
}

// stop ends the server; mu is held.
func (s *Server) stop() {
	if s.server == nil {
		return
	}
	s.server.Shutdown()
	s.server.WaitForShutdown()
	s.server = nil
	s.clientsMu.Lock()
	defer s.clientsMu.Unlock()
	clear(s.clients) // the next server counts connections from one again
}

// Close ends the server and all connections to it.
func (s *Server) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	s.stop()
	if err := s.listener.Close(); !errors.Is(err, net.ErrClosed) {
		return err
	}
	return nil
}
