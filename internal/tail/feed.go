package tail

import (
	"context"
	"sync"
	"time"
)

// near is how far behind a session's place a reader may be that the session joins, in
// changes: what lies between is read for others anyway.
const near = 20_000

// adjacent is how far ahead of a session the reader at the end of the log may be so
// that the session catches up by itself, in changes.
const adjacent = 5_000

// gathering is how long a new reader waits for others that resume at the same time, as
// they do after a restart: they are likely to begin near each other.
const gathering = 5 * time.Millisecond

// feed brings the changes of one log to sessions that share readers.
type feed struct {
	server   *Server
	key      feedKey
	database string
	log      Log
	users    int // guarded by the server's mu

	mu      sync.Mutex // before the locks of sessions
	readers map[*reader]struct{}
	live    *reader // the one at the end of the log; nil: there is none
}

// join makes the session get everything from its next on: of the reader that is nearest
// behind, or else of a new one. It reports false when the session is to read on by
// itself, for now at least.
func (f *feed) join(k *Session, why reason) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	var best *reader
	for r := range f.readers {
		if r.next <= k.next && k.next-r.next <= near && (best == nil || r.next > best.next) {
			best = r
		}
	}
	atEnd := k.next > f.log.Last().Seq
	switch {
	case why == reasonSlow && (best == nil || best != f.live) && !atEnd:
		// A reader that is behind is faster than a slow client, too.
		return false
	case best != nil:
	case f.live != nil && f.live.next > k.next && f.live.next-k.next <= adjacent:
		return false
	default:
		if best = f.start(k.next, atEnd); best == nil {
			return true // the server ends, and this session with it
		}
	}
	k.setJoined()
	k.reader = best
	best.index.add(k)
	return true
}

func (k *Session) setJoined() {
	k.mu.Lock()
	k.apart, k.why = false, reasonNone
	k.mu.Unlock()
}

// start begins a reader. It returns nil when the server ends. The caller holds mu.
func (f *feed) start(next uint64, atEnd bool) *reader {
	ctx, cancel := context.WithCancel(f.server.life) // it outlives whoever began it
	r := &reader{feed: f, next: next, stop: cancel, index: newIndex()}
	wait := gathering
	if atEnd {
		wait = 0
	}
	if !f.server.spawn(func() { r.run(ctx, wait) }) {
		cancel()
		return nil
	}
	f.readers[r] = struct{}{}
	return r
}

// leave returns when the session gets nothing any more.
func (f *feed) leave(k *Session) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if r := k.reader; r != nil {
		r.remove(k)
		r.endIfIdle()
	}
}

// remove takes the session out. The caller holds the feed's mu.
func (r *reader) remove(k *Session) {
	r.index.remove(k)
	k.reader = nil
}

// release lets the session read on by itself from seq on. The caller holds the feed's mu.
func (r *reader) release(k *Session, seq uint64, why reason) {
	r.remove(k)
	k.next = seq
	k.setApart(why)
}

// endIfIdle ends the reader when it has no sessions. The caller holds the feed's mu.
func (r *reader) endIfIdle() {
	if len(r.index.members) == 0 {
		r.end()
	}
}

// end takes the reader out; its goroutine ends soon. The caller holds the feed's mu.
func (r *reader) end() {
	delete(r.feed.readers, r)
	if r.feed.live == r {
		r.feed.live = nil
	}
	r.stop()
}
