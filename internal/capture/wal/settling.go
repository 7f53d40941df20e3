package wal

import (
	"slices"
	"sync"
)

// maxSettling is far more than commits between two looks at the server: 4 MB.
const maxSettling = 1 << 20

// settling are the transactions that the stream brought as committed and that no
// snapshot has shown to be visible since. A commit is in the WAL before others see
// it: by a moment, or for as long as it waits for a synchronous standby. It is safe
// for concurrent use.
type settling struct {
	mu     sync.Mutex
	xids   []uint32
	limit  int
	lost   bool // some were let go: nothing is known of those up to latest
	latest uint32
}

func newSettling() *settling { return &settling{limit: maxSettling} }

// met notes a transaction that has committed.
func (s *settling) met(xid uint32) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.xids) >= s.limit {
		s.forget()
	}
	s.xids = append(s.xids, xid)
}

func (s *settling) forget() {
	if !s.lost {
		s.lost, s.latest = true, s.xids[0]
	}
	for _, xid := range s.xids {
		if int32(xid-s.latest) > 0 { // the counter wraps around
			s.latest = xid
		}
	}
	s.xids = s.xids[:0]
}

// list returns those that may not be visible yet; ok is false when it is not known.
func (s *settling) list() (xids []uint32, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.xids), !s.lost
}

// seen takes out what a snapshot, taken now or earlier, has seen.
func (s *settling) seen(now Snapshot) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.xids = slices.DeleteFunc(s.xids, now.Sees)
	if s.lost && int32(uint32(now.Min)-s.latest) > 0 {
		s.lost = false
	}
	if len(s.xids) == 0 && cap(s.xids) > 1<<12 {
		s.xids = nil
	}
}
