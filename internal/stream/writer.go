package stream

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/nats-io/nats.go"

	"lockstep"
)

const (
	maxInFlight = 4096     // messages
	keepFree    = 32 << 20 // bytes of disk left to consumers' states
)

var errNoSpace error = syscall.ENOSPC

// ack is an answer of the server to one published message.
type ack = *nats.Msg

// pending is a message that was sent and not yet acknowledged.
type pending struct {
	id         uint64 // the number that the message will have in JetStream
	start, end uint64
	expect     uint64
	size       int
	clock      int64
	sent       time.Time
	batch      *lockstep.Batch // set on the message that completes a batch
	done       func(error)
}

// writer is the writing side of a log. Whoever holds its turn publishes; pump works
// off what the server answers.
type writer struct {
	log   *Log
	turn  chan struct{} // holds one token while somebody appends or recovers
	kick  chan struct{} // wakes pump after a failure
	inbox string

	mu       sync.Mutex
	owned    bool  // Recover made this log the writer
	failure  error // set by the first failure, cleared by begin
	aborting bool  // what is in the queue fails too
	queue    []pending
	bytes    int64         // of the queue
	freed    chan struct{} // closed and replaced when the queue gets shorter or fails
	expect   uint64        // number of the last message sent
	next     uint64        // seq of the next change
	clock    int64
	round    uint64 // counts begin; answers to an earlier round are late
}

func newWriter(l *Log) *writer {
	return &writer{log: l, turn: make(chan struct{}, 1), kick: make(chan struct{}, 1), freed: make(chan struct{})}
}

func (w *writer) subscribe() (<-chan ack, error) {
	// Room for an answer to everything that may be in flight: a full channel drops.
	acks := make(chan ack, 2*maxInFlight)
	nc := w.log.srv.writes
	w.inbox = nc.NewInbox()
	if _, err := nc.ChanSubscribe(w.inbox+".>", acks); err != nil {
		return nil, fmt.Errorf("listen for acknowledgements: %w", unavailable(err))
	}
	return acks, nil
}

func (w *writer) take(ctx context.Context) error {
	select {
	case w.turn <- struct{}{}:
		if w.log.view().closed {
			w.give()
			return errClosed
		}
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

func (w *writer) give() { <-w.turn }

func (w *writer) owns() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.owned
}

// healthy returns where this writer expects the stream to end, and whether it is
// the writer and has met no failure.
func (w *writer) healthy() (expect uint64, ok bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.expect, w.owned && w.failure == nil
}

// begin starts a round of appends after the batch e.
func (w *writer) begin(e entry) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.owned, w.failure, w.aborting = true, nil, false
	w.expect, w.next, w.clock = e.end, e.batch.Mark.Seq+1, e.clock
	w.round++
}

// room waits until size more bytes may be in flight.
func (w *writer) room(ctx context.Context, size int) error {
	for {
		w.mu.Lock()
		failure, freed := w.failure, w.freed
		fits := len(w.queue) == 0 || (w.bytes+int64(size) <= w.log.srv.cfg.InFlightBytes && len(w.queue) < maxInFlight)
		w.mu.Unlock()
		if failure != nil {
			return failure
		}
		if fits {
			return nil
		}
		select {
		case <-freed:
		case <-w.log.ended:
			return errClosed
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// settle waits until nothing is in flight.
func (w *writer) settle(ctx context.Context) error {
	for {
		w.mu.Lock()
		empty, freed := len(w.queue) == 0, w.freed
		w.mu.Unlock()
		if empty {
			return nil
		}
		select {
		case <-freed:
		case <-w.log.ended:
			return errClosed
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// poison stops further appends; what is in flight goes on.
func (w *writer) poison(err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.failure == nil {
		w.failure = err
	}
}

// lost says that answers to what is in flight may never come.
func (w *writer) lost(err error) {
	if err == nil {
		err = errors.New("connection closed")
	}
	w.mu.Lock()
	if len(w.queue) > 0 {
		if w.failure == nil {
			w.failure = fmt.Errorf("the connection to the stream was lost: %w", unavailable(err))
		}
		w.aborting = true
	}
	w.mu.Unlock()
	w.wake()
}

func (w *writer) wake() {
	select {
	case w.kick <- struct{}{}:
	default: // pump has one to come already
	}
}

// pump works off answers, failures and timeouts until ctx ends; it alone calls done.
func (w *writer) pump(ctx context.Context, acks <-chan ack) {
	watch := time.NewTicker(max(w.log.srv.cfg.AckTimeout/4, 10*time.Millisecond))
	defer watch.Stop()
	for {
		select {
		case m := <-acks:
			w.answer(m)
		case <-w.kick:
			w.abort(nil)
		case <-watch.C:
			w.checkAge()
		case <-ctx.Done():
			w.abort(errClosed)
			return
		}
	}
}

// answer handles one answer. The server answers in order, and an answer for a
// message means that the ones before it are stored: it names the end it continues.
func (w *writer) answer(m ack) {
	p, ok := w.awaited(m.Subject)
	if !ok {
		return
	}
	if m.Header.Get("Status") != "" {
		w.abort(fmt.Errorf("no stream took the batch; was %s removed?: %w", w.log.stream, lockstep.ErrUnavailable))
		return
	}
	var a struct {
		Error *apiError `json:"error"`
		Seq   uint64    `json:"seq"`
	}
	if err := json.Unmarshal(m.Data, &a); err != nil {
		w.abort(fmt.Errorf("read the stream's answer: %w", unavailable(err)))
		return
	}
	if a.Error != nil {
		w.abort(a.Error.asError(p.expect))
		return
	}
	if a.Seq != p.end {
		w.abort(fmt.Errorf("the batch became message %d instead of %d: %w", a.Seq, p.end, lockstep.ErrFenced))
		return
	}
	w.settled(p.id)
}

// awaited returns the message that an answer is for, if it is still in the queue.
func (w *writer) awaited(subject string) (pending, bool) {
	round, id, _ := strings.Cut(strings.TrimPrefix(subject, w.inbox+"."), ".")
	roundNo, err1 := strconv.ParseUint(round, 10, 64)
	number, err2 := strconv.ParseUint(id, 10, 64)
	w.mu.Lock()
	defer w.mu.Unlock()
	if err1 != nil || err2 != nil || roundNo != w.round || len(w.queue) == 0 || number < w.queue[0].id {
		return pending{}, false
	}
	// Ids in the queue are consecutive: each is one more than the one before.
	at := number - w.queue[0].id
	if at >= uint64(len(w.queue)) {
		return pending{}, false
	}
	return w.queue[at], true
}

// settled takes everything up to id off the queue as durable. Only pump shortens
// the queue; a message leaves it after its done returned, so that an empty queue
// means that every done was called.
func (w *writer) settled(id uint64) {
	for {
		w.mu.Lock()
		if len(w.queue) == 0 || w.queue[0].id > id {
			w.mu.Unlock()
			return
		}
		p := w.queue[0]
		w.mu.Unlock()
		if p.batch != nil {
			w.log.advance(entry{batch: p.batch, start: p.start, end: p.end, clock: p.clock})
			p.done(nil)
		}
		w.pop()
	}
}

// abort fails what is in flight, when err is given or a failure asks for it.
func (w *writer) abort(err error) {
	w.mu.Lock()
	if err != nil {
		w.aborting = true
		if w.failure == nil {
			w.failure = err
		}
	}
	for w.aborting && len(w.queue) > 0 {
		p, failure := w.queue[0], w.failure
		w.mu.Unlock()
		if p.done != nil {
			p.done(fmt.Errorf("append to log of database %q: %w", w.log.database, failure))
		}
		w.pop()
		w.mu.Lock()
	}
	w.aborting = false
	w.mu.Unlock()
}

func (w *writer) pop() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.bytes -= int64(w.queue[0].size)
	w.queue[0] = pending{}
	w.queue = w.queue[1:]
	close(w.freed)
	w.freed = make(chan struct{})
}

func (w *writer) checkAge() {
	w.mu.Lock()
	late := len(w.queue) > 0 && time.Since(w.queue[0].sent) > w.log.srv.cfg.AckTimeout
	w.mu.Unlock()
	if late {
		w.abort(fmt.Errorf("no answer from the stream within %s; its disk may be full or failing: %w", w.log.srv.cfg.AckTimeout, lockstep.ErrUnavailable))
	}
}
