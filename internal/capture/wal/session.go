package wal

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgproto3"
	"github.com/jackc/pgx/v5/pgxpool"

	"lockstep"
)

const (
	// settleTimeout is how long a session that ends waits for the log's disk.
	settleTimeout = 5 * time.Second
)

var (
	errServerEnded = errors.New("the server ended replication")
	errSilent      = errors.New("the server has not answered; the connection is taken for dead")
	errLeaving     = errors.New("the server is shutting down and waits for nothing but this connection")
	errHeldUp      = errors.New("the stream's disk takes nothing, and Postgres wants to end this connection, which it cannot while nobody reads it")
)

// session is one connection's stream. Its goroutines meet in batch (under its
// lock), flight and the atomics.
type session struct {
	wire    *wire
	log     *slog.Logger
	frames  *frameReader // of the reading goroutine
	pacer   pacer        // of the reading goroutine
	decoder *decoder     // under batch.mu
	batch   *batch
	flight  *flight
	pool    *pgxpool.Pool
	poll    func(context.Context) error // watches the slot; blocks until ctx ends
	over    chan struct{}               // closed when the session begins to end

	received atomic.Uint64 // how far Postgres has sent
	position atomic.Uint64 // where Postgres is, which may be far before what it sends
	waiting  atomic.Int64  // since when the reader waits for the socket, Unix nanoseconds; 0: it does not
	working  atomic.Int64  // since when it is busy with what it read instead, or waits for the log; 0: it is not
	asked    chan struct{} // holds a token when Postgres wants an answer at once
	silence  time.Duration // how long a living server can be silent
	interval time.Duration // between answers to Postgres
}

// run streams until ctx ends or something fails, and says what. All of its
// goroutines have ended when it returns, and the connection is closed.
func (s *session) run(parent context.Context) error {
	ctx, fail := context.WithCancelCause(parent)
	defer fail(nil)
	s.flight.fail = fail
	s.batch.at = time.Now()
	answering, quiet := context.WithCancel(context.WithoutCancel(ctx)) // until the log has settled
	defer quiet()
	var workers, answerer sync.WaitGroup
	for _, work := range []func(context.Context) error{s.read, s.offerLanded, s.poll} {
		workers.Go(func() { fail(work(ctx)) })
	}
	workers.Go(func() {
		<-ctx.Done()
		close(s.over)
		// A deadline in the past wakes the reader; the writing side stays usable.
		_ = s.wire.conn.SetReadDeadline(time.Unix(1, 0))
	})
	answerer.Go(func() {
		if err := s.answer(answering); err != nil {
			fail(err)
		}
	})
	workers.Wait()
	if parent.Err() != nil {
		// An end in order: the last confirmation tells of all that was handed over.
		settling, done := context.WithTimeout(context.WithoutCancel(ctx), settleTimeout)
		s.flight.settle(settling)
		done()
	}
	quiet()
	answerer.Wait()
	s.leave()
	return context.Cause(ctx)
}

// read decodes what arrives until ctx ends.
func (s *session) read(ctx context.Context) error {
	for {
		if err := s.consume(ctx); err != nil {
			return err
		}
		began := time.Now()
		s.working.Store(0)
		s.waiting.Store(began.UnixNano())
		n, err := s.frames.fill()
		read := time.Now()
		s.waiting.Store(0)
		s.working.Store(read.UnixNano())
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if err != nil {
			if errors.Is(err, io.EOF) {
				return fmt.Errorf("read the replication stream: %w: the connection was closed", errServerEnded)
			}
			return fmt.Errorf("read the replication stream: %w", err)
		}
		if wait := s.pacer.read(n, read.Sub(began)); wait > 0 {
			doze(wait)
		}
	}
}

// heldUp returns for how long nobody has read from the socket because the log takes
// nothing. A walsender that is to end then waits for us to read its last words.
func (s *session) heldUp() time.Duration {
	since := s.working.Load()
	if since == 0 {
		return 0
	}
	return time.Since(time.Unix(0, max(since, s.flight.last.Load())))
}

// consume decodes every complete frame that was read, then hands over what is due.
func (s *session) consume(ctx context.Context) error {
	s.batch.mu.Lock()
	defer s.batch.mu.Unlock()
	received, position := s.received.Load(), lockstep.LSN(0)
	for {
		kind, body, ok, err := s.frames.next()
		if err != nil {
			return err
		}
		if !ok {
			break
		}
		end, err := s.frame(ctx, kind, body)
		if err != nil {
			return err
		}
		if end != 0 {
			position = end
		}
		received = max(received, uint64(end))
	}
	s.received.Store(received)
	if position != 0 {
		s.position.Store(uint64(position))
	}
	return s.batch.offer(ctx)
}

// frame handles one message of the wire protocol and returns the position that it
// names, if any.
func (s *session) frame(ctx context.Context, kind byte, body []byte) (lockstep.LSN, error) {
	switch kind {
	case 'd':
		return s.copyData(ctx, body)
	case 'c', 'C', 'Z':
		return 0, errServerEnded
	case 'E':
		return 0, explain("stream changes", serverError(body))
	case 'N':
		s.log.DebugContext(ctx, "notice from Postgres", "notice", serverError(body).Error())
		return 0, nil
	case 'S':
		return 0, nil
	}
	return 0, fmt.Errorf("unexpected message %q in the replication stream", kind)
}

func (s *session) copyData(ctx context.Context, body []byte) (lockstep.LSN, error) {
	const dataHead, keepaliveSize = 25, 18
	be := binary.BigEndian
	switch {
	case len(body) >= dataHead && body[0] == 'w':
		return lockstep.LSN(be.Uint64(body[1:])), s.decoder.decode(ctx, body[dataHead:])
	case len(body) == keepaliveSize && body[0] == 'k':
		k := keepalive{end: lockstep.LSN(be.Uint64(body[1:])), reply: body[17] != 0}
		s.batch.advance(k)
		if k.reply {
			wake(s.asked)
		}
		return k.end, nil
	}
	if len(body) == 0 {
		return 0, fmt.Errorf("empty data in the replication stream: %w", errDamaged)
	}
	return 0, fmt.Errorf("unknown data %q of %d bytes in the replication stream", body[0], len(body))
}

// serverError reads an ErrorResponse or a NoticeResponse.
func serverError(body []byte) error {
	var msg pgproto3.ErrorResponse
	if err := msg.Decode(body); err != nil {
		return fmt.Errorf("an error that cannot be read: %w", err)
	}
	return pgconn.ErrorResponseToPgError(&msg)
}

// offerLanded hands over what has gathered while the log was busy and the reader
// now waits for the socket, and the position of a database that has become quiet.
func (s *session) offerLanded(ctx context.Context) error {
	tick := time.NewTicker(s.batch.idle)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-s.flight.landed:
		case <-tick.C:
		}
		s.batch.mu.Lock()
		s.batch.considerMark(time.Now())
		err := s.batch.offer(ctx)
		s.batch.mu.Unlock()
		if err != nil {
			return err
		}
	}
}
