package webhook

import (
	"context"
	"net"
	"sync"
)

// life knows the calls that run and the connections that are open, so that a closed
// sink leaves nothing: http.Transport alone keeps an HTTP/2 connection whose last
// stream has not quite ended when its idle connections are closed.
type life struct {
	ctx context.Context // ends with Close; for connections that are being made
	end context.CancelFunc

	mu      sync.Mutex
	running int
	closed  bool
	open    map[*tracked]struct{}
}

func newLife() *life {
	l := &life{open: map[*tracked]struct{}{}}
	l.ctx, l.end = context.WithCancel(context.Background())
	return l
}

// enter begins a call; false: the sink is closed.
func (l *life) enter() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return false
	}
	l.running++
	return true
}

// leave ends a call.
func (l *life) leave() {
	l.mu.Lock()
	l.running--
	rest := l.rest()
	l.mu.Unlock()
	closeAll(rest)
}

// close ends what no call needs; the last call ends the rest.
func (l *life) close() {
	l.end()
	l.mu.Lock()
	l.closed = true
	rest := l.rest()
	l.mu.Unlock()
	closeAll(rest)
}

// rest returns the connections of a closed sink without calls.
func (l *life) rest() (list []*tracked) {
	if !l.closed || l.running > 0 {
		return nil
	}
	for c := range l.open {
		list = append(list, c)
	}
	return list
}

func closeAll(list []*tracked) {
	for _, c := range list {
		_ = c.Close()
	}
}

// dial connects, as long as the sink is open: the transport goes on making a connection
// when the request that it was for has ended.
func (l *life) dial(ctx context.Context, dialer *net.Dialer, network, address string) (net.Conn, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(l.ctx, cancel)() //nolint:contextcheck // the sink's own life ends it too
	conn, err := dialer.DialContext(ctx, network, address)
	if err != nil {
		return nil, err
	}
	c := &tracked{Conn: conn, life: l}
	l.mu.Lock()
	l.open[c] = struct{}{}
	rest := l.rest()
	l.mu.Unlock()
	closeAll(rest)
	return c, nil
}

// tracked is a connection that life knows.
type tracked struct {
	net.Conn
	life *life
}

// Close implements net.Conn.
func (c *tracked) Close() error {
	c.life.mu.Lock()
	delete(c.life.open, c)
	c.life.mu.Unlock()
	return c.Conn.Close()
}
