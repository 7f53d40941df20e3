package events

import (
	"context"
	"slices"
	"sync"
	"time"

	"lockstep/internal/obs"
)

// near is how far behind a session's place a reader may be that the session joins, in
// changes: what lies between is read for others anyway.
const near = 20_000

// gathering is how long a new reader waits for others that resume at the same time, as
// they do after a restart: they are likely to begin near each other.
const gathering = 5 * time.Millisecond

// feed brings the rows of one table to its sessions.
type feed struct {
	server   *Server
	database string
	table    Table
	log      Log
	index    *index
	users    int // guarded by the server's mu

	mu      sync.Mutex // before the locks of sessions, and of the index
	readers map[*reader]struct{}
	live    *reader // the one at the end of the log; nil: there is none
	faulty  bool    // it was logged that rows are no events
}

func newFeed(s *Server, database string, table Table, log Log) *feed {
	f := &feed{server: s, database: database, table: table, log: log, readers: map[*reader]struct{}{}}
	f.index = newIndex(f)
	return f
}

// begin finds out where the session begins, and lets it join a reader. It ends with the
// session's life.
func (f *feed) begin(k *Session, lastID string) {
	if lastID == "" {
		// A client that is cut off before its first event comes back with this id, and goes
		// on from here instead of from wherever the log is then.
		if id := f.index.before(k.life, k.next); id != nil {
			k.tell(append(appendID(nil, id), '\n'))
		}
		f.join(k, gathering)
		return
	}
	next, found, err := f.place(k.life, lastID)
	if err != nil {
		if k.life.Err() == nil {
			f.server.config.Logger.WarnContext(k.life, "an event cannot be searched for", obs.KeyDatabase, f.database, obs.KeyTable, f.table.String(), obs.KeyError, err)
			k.cancel() // the client comes back
		}
		return
	}
	k.next = next
	if !found {
		k.untold = &gap{reason: reasonUnknown, asked: []byte(lastID), seq: next}
		if next > 1 {
			k.untold.reason = reasonRetention
		}
	}
	f.join(k, gathering)
}

// place returns the seq behind the row with that id, or the first one that is there.
func (f *feed) place(ctx context.Context, lastID string) (next uint64, found bool, err error) {
	first := max(f.log.First(), 1)
	if lastID == "0" {
		// What a sequence begins before: all there is, and what is gone counts.
		return first, first == 1, nil
	}
	if !tellable([]byte(lastID)) {
		return first, false, nil
	}
	seq, found, err := f.index.find(ctx, lastID)
	if err != nil || found {
		return seq + 1, found, err
	}
	return max(f.log.First(), 1), false, nil
}

// join makes the session get everything from its next on: of the reader that is nearest
// behind, or else of one of its own, which begins after wait unless it is at the end.
func (f *feed) join(k *Session, wait time.Duration) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if k.life.Err() != nil {
		return
	}
	var best *reader
	for r := range f.readers {
		if r.next <= k.next && k.next-r.next <= near && (best == nil || r.next > best.next) {
			best = r
		}
	}
	if best == nil {
		if best = f.start(k.next, wait); best == nil {
			return // the server stops, and this session with it
		}
	}
	best.add(k)
	if k.next > f.log.Last().Seq && best.next >= k.next {
		best.tellEnd()
	}
}

// start begins a reader. It returns nil when the server stops. The caller holds mu.
func (f *feed) start(next uint64, wait time.Duration) *reader {
	ctx, cancel := context.WithCancel(f.server.life) // it outlives whoever began it
	r := &reader{feed: f, next: next, stop: cancel, members: map[string][]*Session{}}
	if next > f.log.Last().Seq {
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

// add makes the session get what the reader finds. The caller holds the feed's mu.
func (r *reader) add(k *Session) {
	k.reader = r
	r.members[k.subscriber] = append(r.members[k.subscriber], k)
	r.count++
	if k.untold != nil {
		r.untold = append(r.untold, k)
	}
}

// remove is the end of what add began. The caller holds the feed's mu.
func (r *reader) remove(k *Session) {
	list := r.members[k.subscriber]
	list = slices.DeleteFunc(list, func(other *Session) bool { return other == k })
	r.members[k.subscriber] = list
	if len(list) == 0 {
		delete(r.members, k.subscriber)
	}
	r.untold = slices.DeleteFunc(r.untold, func(other *Session) bool { return other == k })
	r.count--
	k.reader = nil
}

// endIfIdle ends the reader when it has no sessions. The caller holds the feed's mu.
func (r *reader) endIfIdle() {
	if r.count == 0 {
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
