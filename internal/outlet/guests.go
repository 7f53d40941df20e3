package outlet

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"time"

	"lockstep/internal/obs"
)

// serve lets clients in until ctx ends; then none is connected any more.
func (s *Server) serve(ctx context.Context) error {
	var guests sync.WaitGroup
	defer guests.Wait()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(ctx, func() { _ = s.listener.Close() })()
	room := make(chan struct{}, maxClients)
	for {
		conn, err := s.listener.Accept()
		if ctx.Err() != nil {
			if err == nil {
				_ = conn.Close()
			}
			return nil
		}
		if errors.Is(err, net.ErrClosed) {
			return fmt.Errorf("listen for NATS on %s: %w", s.Address(), err)
		}
		if err != nil {
			// Too many open files, mostly: it passes.
			s.log.WarnContext(ctx, "a NATS client could not be let in", obs.KeyError, err)
			pause(ctx, 100*time.Millisecond)
			continue
		}
		select {
		case room <- struct{}{}:
		default:
			s.log.WarnContext(ctx, "a NATS client was turned away: too many are here", obs.KeyCount, maxClients)
			_ = conn.Close()
			continue
		}
		guests.Go(func() {
			defer func() { <-room }()
			s.guest(ctx, conn)
		})
	}
}

func pause(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}

// guest serves one client until one side ends, or ctx.
func (s *Server) guest(ctx context.Context, conn net.Conn) {
	defer func() { _ = conn.Close() }()
	inner, err := s.InProcessConn()
	if err != nil {
		return // it comes again
	}
	closing := func() {
		_ = conn.Close()
		_ = inner.Close()
	}
	defer context.AfterFunc(ctx, closing)()
	var both sync.WaitGroup
	both.Go(func() {
		defer closing()
		_, _ = io.Copy(conn, inner) // how it ends says nothing that the other side does not
	})
	if err := pass(inner, conn); broken(err) {
		s.log.WarnContext(ctx, "a NATS client is cut off", obs.KeyReason, err.Error(), obs.KeyAddress, conn.RemoteAddr().String())
		_ = conn.SetWriteDeadline(time.Now().Add(time.Second))
		_, _ = fmt.Fprintf(conn, "-ERR 'Permissions Violation: %s'\r\n", err) // for whoever looks for the reason
	}
	closing()
	both.Wait()
}

// broken reports whether a client broke a rule.
func broken(err error) bool {
	return errors.Is(err, errLine) || errors.Is(err, errReply) || errors.Is(err, errPush) || errors.Is(err, errLength)
}
