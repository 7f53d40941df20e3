package redis

import (
	"context"
	"crypto/tls"
	"net"
	"sync"

	goredis "github.com/redis/go-redis/v9"
	"github.com/redis/go-redis/v9/maintnotifications"
)

// line is a client for one call at a time. The library does not look at a context that
// is cancelled while it waits for an answer: its connections are closed then.
type line struct {
	client goredis.UniversalClient

	mu    sync.Mutex
	open  map[*socket]struct{}
	dials map[int]context.CancelFunc
	dial  int
}

// socket is a connection that tells when it is closed.
type socket struct {
	net.Conn
	line *line
}

// Close implements [net.Conn].
func (s *socket) Close() error {
	s.line.mu.Lock()
	delete(s.line.open, s)
	s.line.mu.Unlock()
	return s.Conn.Close()
}

func newLine(options goredis.UniversalOptions) *line {
	l := &line{open: map[*socket]struct{}{}, dials: map[int]context.CancelFunc{}}
	options.MaintNotificationsConfig = &maintnotifications.Config{Mode: maintnotifications.ModeDisabled}
	secure := options.TLSConfig
	options.Dialer = func(ctx context.Context, network, address string) (net.Conn, error) {
		ctx, done := l.dialling(ctx)
		defer done()
		conn, err := (&net.Dialer{Timeout: options.DialTimeout}).DialContext(ctx, network, address)
		if err != nil {
			return nil, err
		}
		if secure != nil {
			config := secure.Clone()
			if config.ServerName == "" {
				config.ServerName, _, _ = net.SplitHostPort(address)
			}
			over := tls.Client(conn, config)
			if err := over.HandshakeContext(ctx); err != nil {
				conn.Close()
				return nil, err
			}
			conn = over
		}
		s := &socket{conn, l}
		l.mu.Lock()
		l.open[s] = struct{}{}
		l.mu.Unlock()
		return s, nil
	}
	l.client = goredis.NewUniversalClient(&options)
	return l
}

// dialling makes a context that abort ends.
func (l *line) dialling(ctx context.Context) (context.Context, func()) {
	ctx, cancel := context.WithCancel(ctx)
	l.mu.Lock()
	l.dial++
	number := l.dial
	l.dials[number] = cancel
	l.mu.Unlock()
	return ctx, func() {
		l.mu.Lock()
		delete(l.dials, number)
		l.mu.Unlock()
		cancel()
	}
}

// abort ends what the client waits for. It makes new connections when it is used again.
func (l *line) abort() {
	l.mu.Lock()
	var list []*socket
	for s := range l.open {
		list = append(list, s)
	}
	for _, cancel := range l.dials {
		cancel()
	}
	l.mu.Unlock()
	for _, s := range list {
		s.Conn.Close() // the library closes the socket when it notices
	}
}
