package events

import (
	"context"
	"sync"
	"time"
)

// Session is one open stream of a subscriber. Next is called by one goroutine; Close
// may be called by any, once or more.
type Session struct {
	feed       *feed
	subscriber string
	life       context.Context // ends with Close, or the server
	cancel     context.CancelFunc
	ready      chan struct{} // a token: something waits, or the session is behind
	once       sync.Once

	// Guarded by the feed's mu.
	reader  *reader // that it gets events from; nil: none for now
	next    uint64  // the seq of the next row to get
	untold  *gap    // told with the next event of the table, or at the end of the log
	faulted bool    // it was told that rows are no events

	mu     sync.Mutex
	queue  [][]byte // guarded by mu: events, shared with other sessions
	bytes  int      // guarded by mu
	behind bool     // guarded by mu: it left its reader, and goes on when the queue is empty
	closed bool     // guarded by mu
}

// Next returns what waits: whole parts of an event stream, to be written one after the
// other. They may be shared with other sessions, so they must not be changed. It waits
// for something until ctx or the session ends, but no longer than wait: then it returns
// nothing.
func (k *Session) Next(ctx context.Context, wait time.Duration) ([][]byte, error) {
	var timeout <-chan time.Time
	for {
		if k.life.Err() != nil {
			return nil, errEnded
		}
		parts, behind := k.take()
		if len(parts) > 0 {
			return parts, nil
		}
		if behind {
			k.feed.join(k, 0) //nolint:contextcheck // the feed outlives the session
			continue
		}
		if timeout == nil {
			timer := time.NewTimer(wait)
			defer timer.Stop()
			timeout = timer.C
		}
		select {
		case <-k.ready:
		case <-timeout:
			return nil, nil
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		case <-k.life.Done():
			return nil, errEnded
		}
	}
}

// Close ends the session.
func (k *Session) Close() {
	k.once.Do(func() {
		k.cancel()
		k.feed.leave(k)
		k.mu.Lock()
		k.closed, k.queue, k.bytes = true, nil, 0
		k.mu.Unlock()
		k.feed.server.release(k.feed)
	})
}

// take empties the queue. behind says that it was empty, and that the session has to
// join a reader again.
func (k *Session) take() (parts [][]byte, behind bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	parts = k.queue
	k.queue, k.bytes = nil, 0
	if len(parts) > 0 {
		return parts, false
	}
	behind = k.behind
	k.behind = false
	return nil, behind
}

// push adds an event, and never waits. It reports false when too much waits already:
// then the event is not taken, and the session must leave its reader.
func (k *Session) push(event []byte) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.closed {
		return true
	}
	// One event always fits: else a large one could never be sent at all.
	if k.bytes > 0 && k.bytes+len(event) > k.feed.server.config.Limits.QueueBytes {
		k.behind = true
		return false
	}
	k.queue = append(k.queue, event)
	k.bytes += len(event) + perEvent
	k.wake()
	return true
}

// tell adds a few bytes that the client is told in any case.
func (k *Session) tell(part []byte) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.closed {
		return
	}
	k.queue = append(k.queue, part)
	k.bytes += len(part) + perEvent
	k.wake()
}

// perEvent is what a waiting event costs beyond its bytes.
const perEvent = 24

// wake wakes Next. The caller holds mu.
func (k *Session) wake() {
	select {
	case k.ready <- struct{}{}:
	default:
	}
}
