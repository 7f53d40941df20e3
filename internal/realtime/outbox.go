package realtime

import (
	"context"
	"sync"
	"sync/atomic"
)

// message is one message on its way to a client. Its body may be shared with other
// sockets: nobody changes it.
type message struct {
	head, body, tail []byte
	binary           bool
}

// perMessage is what a waiting message costs beyond its bytes.
const perMessage = 96

func (m message) size() int { return len(m.head) + len(m.body) + len(m.tail) + perMessage }

// outbox is what waits for one socket. Anybody puts messages into it, its writer takes
// them out; a message counts until it is written.
type outbox struct {
	limit int           // bytes
	total *atomic.Int64 // waiting in all outboxes
	most  int64         // of total, before a socket may have a sixteenth of its limit only

	ready chan struct{} // a token: there is something to take, or the end has come

	mu    sync.Mutex
	queue []message     // guarded by mu
	bytes int           // guarded by mu
	ended bool          // guarded by mu
	roomy chan struct{} // guarded by mu: closed when there is room again; nil: nobody waits
}

func newOutbox(l Limits, total *atomic.Int64) *outbox {
	return &outbox{limit: l.QueueBytes, most: l.TotalQueueBytes, total: total, ready: make(chan struct{}, 1)}
}

// push adds a message and never waits. It reports false when too much waits already:
// then the message is lost, and the socket must go. After the end, messages are
// dropped.
func (o *outbox) push(m message) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.ended {
		return true
	}
	size := m.size()
	// One message always fits: else a large row could never be sent at all.
	if o.bytes > 0 && o.bytes+size > o.allowed() {
		return false
	}
	o.queue = append(o.queue, m)
	o.bytes += size
	o.total.Add(int64(size))
	o.wake()
	return true
}

// wake wakes the writer. The caller holds mu.
func (o *outbox) wake() {
	select {
	case o.ready <- struct{}{}:
	default:
	}
}

func (o *outbox) allowed() int {
	if o.total.Load() > o.most {
		return o.limit / 16
	}
	return o.limit
}

// take swaps what waits for an empty slice. It reports false after the end.
func (o *outbox) take(empty []message) ([]message, bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	taken := o.queue
	o.queue = empty
	return taken, !o.ended
}

// written tells that a message has been handed to the network. It reports whether
// there is more to write: not after the end.
func (o *outbox) written(m message) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.ended {
		return false
	}
	o.free(m.size())
	return true
}

// free gives bytes back. The caller holds mu.
func (o *outbox) free(bytes int) {
	o.bytes -= bytes
	o.total.Add(-int64(bytes))
	if o.roomy != nil && o.bytes <= o.allowed()/4 {
		close(o.roomy)
		o.roomy = nil
	}
}

// room waits until little waits for the socket, so that a replay cannot fill the
// outbox. After the end it returns errEnded.
func (o *outbox) room(ctx context.Context) error {
	o.mu.Lock()
	if o.ended {
		o.mu.Unlock()
		return errEnded
	}
	if o.bytes <= o.allowed()/4 {
		o.mu.Unlock()
		return nil
	}
	if o.roomy == nil {
		o.roomy = make(chan struct{})
	}
	roomy := o.roomy
	o.mu.Unlock()
	select {
	case <-roomy:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// end drops what waits, for good, and wakes the writer to see it.
func (o *outbox) end() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.ended = true
	o.queue = nil
	o.free(o.bytes)
	o.wake()
}
