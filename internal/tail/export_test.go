package tail

import "lockstep/internal/filter"

// Standing tells how a session gets its changes: shared, by a reader, or by itself and
// why it goes on to do so.
func (k *Session) Standing() string {
	k.mu.Lock()
	defer k.mu.Unlock()
	if !k.apart {
		return "shared"
	}
	return [...]string{"apart", "fault", "slow", "filter"}[k.why]
}

// Queued is how many bytes wait for all sessions.
func (s *Server) Queued() int64 { return s.queued.Load() }

// Readers is how many shared readers there are.
func (s *Server) Readers() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := 0
	for _, f := range s.feeds {
		f.mu.Lock()
		n += len(f.readers)
		f.mu.Unlock()
	}
	return n
}

// Lookups returns the most sessions that any one lookup of the reader of k would ask
// about a change, at the largest key of it; scanned are asked about every change.
func (k *Session) Lookups() (most, scanned int) {
	k.feed.mu.Lock()
	defer k.feed.mu.Unlock()
	for _, t := range k.reader.index.tables {
		scanned = max(scanned, len(t.scan))
		for _, l := range t.lookups {
			for _, list := range l.byKey {
				most = max(most, len(list))
			}
		}
	}
	return most, scanned
}

// FilterOf compiles a filter, which must be right.
func FilterOf(source string) *filter.Program {
	p, err := filter.Compile(filter.Filter, source)
	if err != nil {
		panic(err)
	}
	return p
}
