package postgres

import (
	"context"
	"net"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/jackc/pgx/v5/pgconn"

	"lockstep"
	"lockstep/sink"
)

// pool keeps connections. Unlike a pool with a life of its own it starts no goroutine,
// and dialling ends with the context of the one who needs the connection.
type pool struct {
	config   *pgconn.Config
	settings string // SQL
	name     string // for errors
	free     chan struct{}
	closed   atomic.Bool
	once     sync.Once

	mu    sync.Mutex
	idle  []*conn // the last used at the end
	dying []*conn // broken; their sockets are being closed
}

// conn is a connection with the statements that it has prepared.
type conn struct {
	*pgconn.PgConn
	prepared map[string]string // by SQL
	fresh    bool              // not used before
}

func newPool(config *pgconn.Config, c Config) *pool {
	p := &pool{config: config, free: make(chan struct{}, c.Connections)}
	hosts := []string{address(config.Host, config.Port)}
	for _, f := range config.Fallbacks {
		if at := address(f.Host, f.Port); !slices.Contains(hosts, at) {
			hosts = append(hosts, at)
		}
	}
	p.name = strings.Join(hosts, ",")
	// The guards rely on each statement's having its own snapshot.
	p.settings = "SET default_transaction_isolation = 'read committed'"
	names := make([]string, 0, len(c.Settings))
	for name := range c.Settings {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		p.settings += "; SELECT set_config(" + literal(name) + ", " + literal(c.Settings[name]) + ", false)"
	}
	return p
}

func address(host string, port uint16) string {
	if strings.HasPrefix(host, "/") {
		return host
	}
	return net.JoinHostPort(host, strconv.Itoa(int(port)))
}

// take returns a connection, which must be given back. Errors are *sink.Error.
func (p *pool) take(ctx context.Context) (*conn, error) {
	if p.closed.Load() {
		return nil, p.shut()
	}
	select {
	case p.free <- struct{}{}:
	case <-ctx.Done():
		return nil, p.refusal(sink.Retry, "no connection is free", context.Cause(ctx))
	}
	if p.closed.Load() {
		<-p.free
		return nil, p.shut()
	}
	if c := p.idling(); c != nil {
		return c, nil
	}
	c, err := p.connect(ctx)
	if err != nil {
		<-p.free
		return nil, err
	}
	return c, nil
}

func (p *pool) shut() error {
	return p.refusal(sink.Retry, "the sink is closed", lockstep.ErrUnavailable)
}

func (p *pool) idling() *conn {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.idle) == 0 {
		return nil
	}
	c := p.idle[len(p.idle)-1]
	p.idle = p.idle[:len(p.idle)-1]
	return c
}

func (p *pool) connect(ctx context.Context) (*conn, error) {
	if err := ctx.Err(); err != nil {
		return nil, p.refusal(sink.Retry, "the delivery was interrupted", context.Cause(ctx))
	}
	pg, err := pgconn.ConnectConfig(ctx, p.config.Copy())
	if err != nil {
		return nil, p.judgeConnect(ctx, err)
	}
	if _, err := pg.Exec(ctx, p.settings).ReadAll(); err != nil {
		p.drop(ctx, &conn{PgConn: pg})
		return nil, p.judgeConnect(ctx, err)
	}
	return &conn{PgConn: pg, prepared: map[string]string{}, fresh: true}, nil
}

// give takes a connection back, or what is left of it.
func (p *pool) give(ctx context.Context, c *conn) {
	c.fresh = false
	if c.IsClosed() {
		p.drop(ctx, c)
	} else {
		p.mu.Lock()
		p.idle = append(p.idle, c)
		p.mu.Unlock()
	}
	<-p.free
}

// drop ends a connection and remembers it until its socket is closed.
func (p *pool) drop(ctx context.Context, c *conn) {
	if !c.IsClosed() {
		ended, cancel := context.WithCancel(ctx)
		cancel() // does not wait for the server
		_ = c.Close(ended)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.dying = slices.DeleteFunc(p.dying, func(d *conn) bool {
		select {
		case <-d.CleanupDone():
			return true
		default:
			return false
		}
	})
	p.dying = append(p.dying, c)
}

// dropIdle ends the connections that nobody uses: they lead to a server that is not
// the right one any more.
func (p *pool) dropIdle(ctx context.Context) {
	p.mu.Lock()
	idle := p.idle
	p.idle = nil
	p.mu.Unlock()
	for _, c := range idle {
		p.drop(ctx, c)
	}
}

// close waits for the connections that are in use and ends all.
func (p *pool) close(ctx context.Context) (err error) {
	p.closed.Store(true)
	p.once.Do(func() { err = p.end(ctx) })
	return err
}

func (p *pool) end(ctx context.Context) error {
	for range cap(p.free) {
		select {
		case p.free <- struct{}{}:
		case <-ctx.Done():
			p.dropIdle(ctx)
			return p.refusal(sink.Retry, "closed while a call was under way", context.Cause(ctx))
		}
	}
	p.mu.Lock()
	idle, dying := p.idle, p.dying
	p.idle, p.dying = nil, nil
	p.mu.Unlock()
	for _, c := range idle {
		_ = c.Close(ctx)
	}
	for _, c := range dying {
		select {
		case <-c.CleanupDone():
		case <-ctx.Done():
			return nil // it ends by itself, within seconds
		}
	}
	// Calls that wait for a connection see that the sink is closed.
	for range cap(p.free) {
		<-p.free
	}
	return nil
}
