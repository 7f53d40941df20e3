package api

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"time"

	"lockstep/internal/obs"
)

// Server serves an [API] on a listener. The zero value of each limit is its default.
type Server struct {
	API      *API
	Listener net.Listener // closed by Run
	Logger   *slog.Logger // default: that of the API

	HeaderTimeout time.Duration // to send a request's headers; default 5 s
	ReadTimeout   time.Duration // to send a request as a whole; default 30 s
	WriteTimeout  time.Duration // to take an answer, long polls apart; default 60 s
	IdleTimeout   time.Duration // between two requests; default 120 s
	DrainTimeout  time.Duration // for what is in flight when the node stops; default 10 s
}

const maxHeaderBytes = 16 << 10

// Run serves until ctx ends. Then nothing new is taken, long polls answer at once
// with what they have, event streams end after a whole event, and other calls end
// as they would; what is not done after DrainTimeout is cut off. When Run returns
// no handler is running any more, and no log is read for one.
func (s *Server) Run(ctx context.Context) error {
	log := s.Logger
	if log == nil {
		log = s.API.log
	}
	server := &http.Server{
		Handler:           s.API,
		ReadHeaderTimeout: or(s.HeaderTimeout, 5*time.Second),
		ReadTimeout:       or(s.ReadTimeout, 30*time.Second),
		WriteTimeout:      or(s.WriteTimeout, 60*time.Second),
		IdleTimeout:       or(s.IdleTimeout, 120*time.Second),
		MaxHeaderBytes:    maxHeaderBytes,
		ErrorLog:          slog.NewLogLogger(log.Handler(), slog.LevelDebug),
	}
	served := make(chan error, 1)
	go func() { served <- server.Serve(s.Listener) }()
	log.InfoContext(ctx, "listening", obs.KeyAddress, s.Listener.Addr().String())
	select {
	case err := <-served:
		s.API.drain.begin()
		s.API.active.close()
		s.API.tails.Close()
		return fmt.Errorf("serve HTTP on %s: %w", s.Listener.Addr(), err)
	case <-ctx.Done():
	}
	// ctx is over, but the answers that are due are still to be sent.
	bound, cancel := context.WithTimeout(context.WithoutCancel(ctx), or(s.DrainTimeout, 10*time.Second))
	defer cancel()
	s.API.drain.begin()
	err := server.Shutdown(bound)
	if err != nil {
		log.WarnContext(ctx, "requests were cut off: they did not end in time", obs.KeyError, err)
		_ = server.Close() // ends the contexts of the requests that are left
	}
	s.API.active.close()
	s.API.tails.Close()
	if err := <-served; err != nil && !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serve HTTP on %s: %w", s.Listener.Addr(), err)
	}
	return nil
}

// Listen opens the address that a [Server] is to serve. It refuses addresses that
// other machines can reach as long as nobody would be asked for a token.
func (a *API) Listen(ctx context.Context, address string) (net.Listener, error) {
	if err := a.tokens.MayListen(address); err != nil {
		return nil, err
	}
	var config net.ListenConfig
	l, err := config.Listen(ctx, "tcp", address)
	if err != nil {
		return nil, fmt.Errorf("listen on %s: %w; is another node running, or does the address belong to another program? choose another one with listen", address, err)
	}
	return l, nil
}

func or(d, otherwise time.Duration) time.Duration {
	if d <= 0 {
		return otherwise
	}
	return d
}

// waitsLong lifts the write deadline of a connection for a call that waits on
// purpose. The read deadline is lifted by net/http once the body has been read.
func waitsLong(w http.ResponseWriter) {
	// Writers without deadlines (in tests) have nothing to lift.
	_ = http.NewResponseController(w).SetWriteDeadline(time.Time{})
}

// writesUntil bounds how long the peer may take to accept what is written next.
func writesUntil(w http.ResponseWriter, d time.Duration) {
	_ = http.NewResponseController(w).SetWriteDeadline(time.Now().Add(d)) // see waitsLong
}
