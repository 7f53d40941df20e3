package stream

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"sync"
	"time"

	"github.com/nats-io/nats-server/v2/server"

	"lockstep"
	"lockstep/internal/dirlock"
)

const (
	// maxPayload stays far below the 32 MB from which on JetStream's file store takes
	// a record for damaged.
	maxPayload = 8 << 20
	// maxPending lets many readers have a full window on its way to them.
	maxPending   = 512 << 20
	startTimeout = 30 * time.Second
	// unlimitedStore switches JetStream's own limit off: retention rules, and the
	// disk. The server would otherwise stop at three quarters of the free space it
	// saw when it started.
	unlimitedStore = 1 << 60
)

// embedded is a JetStream server in this process that listens nowhere.
type embedded struct {
	dir     string
	lock    *dirlock.Lock
	log     *slog.Logger
	salvage salvager

	mu     sync.Mutex
	server *server.Server // nil while none runs
	hangs  bool           // the server does not answer any more
	closed bool
}

func startEmbedded(ctx context.Context, dir string, log *slog.Logger) (*embedded, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("create stream directory: %w", err)
	}
	lock, err := dirlock.Take(dir)
	if err != nil {
		return nil, fmt.Errorf("open stream: %w", err)
	}
	e := &embedded{dir: dir, lock: lock, log: log, salvage: salvager{dir}}
	if err := ctx.Err(); err != nil {
		return nil, errors.Join(err, lock.Release())
	}
	if err := e.awaitRoom(ctx); err != nil {
		return nil, errors.Join(err, lock.Release())
	}
	if err := e.start(); err != nil {
		return nil, errors.Join(err, lock.Release())
	}
	return e, nil
}

// start starts the server; mu is held or nobody else knows e yet. Damaged buckets are
// aside afterwards, see salvager.
func (e *embedded) start() error {
	damage, err := e.salvage.inspect()
	if err != nil {
		return fmt.Errorf("start stream in %s: %w", e.dir, err)
	}
	for bucket, where := range damage {
		e.log.Error("a bucket is damaged and will be replaced by what can be read of it", "bucket", bucket, "damage", where)
	}
	logs := &serverLog{log: e.log}
	ns, err := server.NewServer(&server.Options{
		ServerName:         "lockstep",
		DontListen:         true,
		NoSigs:             true,
		JetStream:          true,
		StoreDir:           e.dir,
		SyncAlways:         true,
		MaxPayload:         maxPayload,
		MaxPending:         maxPending,
		JetStreamMaxMemory: 64 << 20,
		JetStreamMaxStore:  unlimitedStore,
	})
	if err != nil {
		return fmt.Errorf("start stream in %s: %w", e.dir, err)
	}
	ns.SetLoggerV2(logs, false, false, false)
	ns.Start()
	if !ns.ReadyForConnections(startTimeout) || !ns.JetStreamEnabled() {
		ns.Shutdown()
		ns.WaitForShutdown()
		return fmt.Errorf("start stream in %s: the store did not open: %s: %w", e.dir, logs.lastError(), lockstep.ErrUnavailable)
	}
	e.server = ns
	return nil
}

// InProcessConn connects to the server that runs now; nats.go calls it for each
// connection and again after a restart.
func (e *embedded) InProcessConn() (net.Conn, error) {
	e.mu.Lock()
	ns := e.server
	e.mu.Unlock()
	if ns == nil {
		return nil, fmt.Errorf("the stream in %s is stopped: %w", e.dir, lockstep.ErrUnavailable)
	}
	return ns.InProcessConn()
}

// heal starts the server anew when it has met a write error, which it returns, or
// when it does not run.
func (e *embedded) heal() (restarted, err error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.closed {
		return nil, errClosed
	}
	reason := errors.New("the server did not run")
	if e.server != nil {
		reason = unwell(e.server)
		if reason == nil {
			return nil, nil
		}
		if errors.Is(reason, errHangs) {
			e.hangs = true
			return nil, reason
		}
	}
	if err := room(e.dir); err != nil {
		// What it has can still be read meanwhile.
		return nil, fmt.Errorf("%w: %w", reason, err)
	}
	e.stop()
	return reason, e.start()
}

// sick returns why the server must be started anew, or nil.
func (e *embedded) sick() error {
	e.mu.Lock()
	ns := e.server
	e.mu.Unlock()
	if ns == nil {
		return nil // somebody starts it, or it is closed
	}
	return unwell(ns)
}

// errHangs says what nothing in this process can help against: on some damage that
// appears while it runs, the server goes round in a circle with its locks held.
var errHangs = fmt.Errorf("the stream's server hangs, probably over a damaged file: restart the process, which repairs it: %w", lockstep.ErrUnavailable)

const (
	// healthPatience is how long the server may take to say how it is.
	healthPatience = 5 * time.Second
	// passing is how long it may say that it is not well before that is believed: of a
	// stream that is just being made it says that it could not be recovered.
	passing   = time.Second
	lookAgain = 20 * time.Millisecond
)

// unwell returns why the server must be started anew, or nil.
func unwell(ns *server.Server) error {
	began := time.Now()
	for {
		err := complaint(ns)
		if err == nil || errors.Is(err, errHangs) || time.Since(began) >= passing {
			return err
		}
		<-time.After(lookAgain)
	}
}

// complaint returns what the server says is wrong with it, or nil.
func complaint(ns *server.Server) error {
	answer := make(chan *server.HealthStatus, 1)
	go func() { answer <- ns.Healthz(&server.HealthzOptions{}) }()
	patience := time.NewTimer(healthPatience)
	defer patience.Stop()
	select {
	case health := <-answer:
		if health.StatusCode == 0 || health.StatusCode == 200 {
			return nil
		}
		return errors.New(health.Error)
	case <-patience.C:
		return errHangs
	}
}

// stop ends the server; mu is held.
func (e *embedded) stop() {
	if e.server == nil || e.hangs {
		return // it would wait for ever
	}
	e.server.Shutdown()
	e.server.WaitForShutdown()
	e.server = nil
}

func (e *embedded) close() error {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.closed = true
	e.stop()
	return e.lock.Release()
}

// serverLog passes what the server says on to slog. Its notices are about its own
// start and stop, so they are debug.
type serverLog struct {
	log  *slog.Logger
	mu   sync.Mutex
	last string // the last error, set by Errorf and Fatalf
}

func (l *serverLog) Noticef(format string, v ...any) {
	l.log.Debug("nats: " + fmt.Sprintf(format, v...))
}
func (l *serverLog) Debugf(format string, v ...any) {
	l.log.Debug("nats: " + fmt.Sprintf(format, v...))
}
func (l *serverLog) Tracef(string, ...any)          {}
func (l *serverLog) Warnf(format string, v ...any)  { l.log.Warn("nats: " + fmt.Sprintf(format, v...)) }
func (l *serverLog) Errorf(format string, v ...any) { l.failed(fmt.Sprintf(format, v...)) }

// Fatalf must not end the process, as the server's own logger would.
func (l *serverLog) Fatalf(format string, v ...any) { l.failed(fmt.Sprintf(format, v...)) }

func (l *serverLog) failed(text string) {
	l.mu.Lock()
	l.last = text
	l.mu.Unlock()
	l.log.Warn("nats: " + text)
}

func (l *serverLog) lastError() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.last
}
