package stream

import (
	"sort"
	"sync"
)

// indexLimit bounds the index of one log to half a megabyte.
const indexLimit = 32 << 10

// place says that the batch whose first change is first begins at message start.
type place struct{ first, start uint64 }

// index remembers where batches lie. It holds the latest ones without gaps and
// older ones ever more sparsely: the nearest place narrows a search.
type index struct {
	mu     sync.Mutex
	places []place // ascending in both
}

func (x *index) add(p place) {
	x.mu.Lock()
	defer x.mu.Unlock()
	at := len(x.places)
	if at > 0 && x.places[at-1].first >= p.first {
		at = sort.Search(len(x.places), func(i int) bool { return x.places[i].first >= p.first })
		if x.places[at].first == p.first {
			x.places[at] = p
			return
		}
	}
	x.places = append(x.places, place{})
	copy(x.places[at+1:], x.places[at:])
	x.places[at] = p
	if len(x.places) > indexLimit {
		x.thin()
	}
}

// thin drops every second place of the older half.
func (x *index) thin() {
	half := len(x.places) / 2
	kept := x.places[:0]
	for i, p := range x.places {
		if i >= half || i%2 == 0 {
			kept = append(kept, p)
		}
	}
	x.places = kept
}

// around returns the last known place at or before seq and the first one behind it.
func (x *index) around(seq uint64) (before, after place, hasBefore, hasAfter bool) {
	x.mu.Lock()
	defer x.mu.Unlock()
	at := sort.Search(len(x.places), func(i int) bool { return x.places[i].first > seq })
	if at > 0 {
		before, hasBefore = x.places[at-1], true
	}
	if at < len(x.places) {
		after, hasAfter = x.places[at], true
	}
	return before, after, hasBefore, hasAfter
}

// forgetBefore drops places of batches that retention has removed.
func (x *index) forgetBefore(first uint64) {
	x.mu.Lock()
	defer x.mu.Unlock()
	at := sort.Search(len(x.places), func(i int) bool { return x.places[i].first >= first })
	if at > 0 {
		x.places = append([]place(nil), x.places[at:]...)
	}
}

func (x *index) clear() {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.places = nil
}
