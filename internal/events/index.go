package events

import (
	"slices"
	"sync"

	"lockstep"
)

// stretch is a part of the log, from one row of the table to another.
type stretch struct {
	first, last uint64 // seqs of its first and last row
	low, high   uint64 // the least and the greatest rank of its rows' ids
}

func (s stretch) mayHold(rank uint64) bool { return rank >= s.low && rank <= s.high }

// span is a part of the log: seqs from low up to before high.
type span struct{ low, high uint64 }

func (s span) holds(t stretch) bool { return t.first >= s.low && t.last < s.high }

// index knows where in the log ids of a table may lie.
type index struct {
	feed *feed
	turn chan struct{} // to read for the index

	mu        sync.Mutex
	covered   span      // what was read for the index, without holes; guarded by mu
	stretches []stretch // of covered, ascending; guarded by mu
	grain     uint64    // changes that a stretch spans at most; guarded by mu
	newest    newest    // the last row in covered; guarded by mu
}

// newest is the last row of a part of the log; without an id there is none.
type newest struct {
	seq uint64
	id  []byte
}

func (n *newest) set(w *row) { n.seq, n.id = w.seq, append(n.id[:0], w.id...) }

func newIndex(f *feed) *index {
	return &index{feed: f, turn: make(chan struct{}, 1), grain: f.server.config.Limits.Stretch}
}

// note takes in a batch, read with all its rows from seq on, if that goes on where what
// is covered ends.
func (x *index) note(b *lockstep.Batch, rows []row, from uint64) {
	x.mu.Lock()
	defer x.mu.Unlock()
	end := x.covered.high
	if max(b.First, from) > end || b.Mark.Seq < end {
		return
	}
	for i := range rows {
		w := &rows[i]
		if w.seq < end || !w.hasID() {
			continue
		}
		x.stretches = appendRow(x.stretches, w, x.grain)
		x.newest.set(w)
	}
	x.covered.high = b.Mark.Seq + 1
	x.thin()
}

// skip takes in that nothing is there up to before seq next.
func (x *index) skip(next uint64) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.covered.high = max(x.covered.high, next)
}

// appendRow appends a row, which lies behind all others, to the last stretch or to a
// new one.
func appendRow(list []stretch, w *row, grain uint64) []stretch {
	if n := len(list); n > 0 && w.seq-list[n-1].first < grain {
		s := &list[n-1]
		s.last, s.low, s.high = w.seq, min(s.low, w.rank), max(s.high, w.rank)
		return list
	}
	return append(list, stretch{w.seq, w.seq, w.rank, w.rank})
}

// prepend takes in what was read in front of what is covered, from low on.
func (x *index) prepend(low uint64, list []stretch, last newest) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.stretches = append(list, x.stretches...)
	x.covered.low = low
	if x.newest.id == nil {
		x.newest = last
	}
	x.thin()
}

// thin joins every two stretches when there are too many. The caller holds mu.
func (x *index) thin() {
	for len(x.stretches) > x.feed.server.config.Limits.Stretches {
		x.grain *= 2
		kept := x.stretches[:0]
		for i, s := range x.stretches {
			if i%2 == 0 {
				kept = append(kept, s)
				continue
			}
			k := &kept[len(kept)-1]
			k.last, k.low, k.high = s.last, min(k.low, s.low), max(k.high, s.high)
		}
		x.stretches = kept
	}
}

// prepare makes the index begin with the end of the log when it knows nothing, or when
// it knows only what is long past. The caller has the turn.
func (x *index) prepare(first, end uint64) {
	x.mu.Lock()
	defer x.mu.Unlock()
	far := 16 * x.feed.server.config.Limits.Stride
	if x.covered.high == 0 || x.covered.high < first || end > x.covered.high && end-x.covered.high > far {
		x.covered, x.stretches, x.newest = span{end, end}, nil, newest{}
		x.grain = x.feed.server.config.Limits.Stretch
	}
	x.trim(first)
}

// trim forgets what lies before the first seq that is there. The caller holds mu.
func (x *index) trim(first uint64) {
	if x.covered.low >= first || x.covered.high < first {
		return
	}
	x.covered.low = first
	gone, _ := slices.BinarySearchFunc(x.stretches, first, func(s stretch, seq uint64) int {
		if s.last < seq {
			return -1
		}
		return 1
	})
	x.stretches = slices.Delete(x.stretches, 0, gone)
}

// candidates returns what is covered, and the stretches that may hold the id and were
// not looked at yet, the latest first.
func (x *index) candidates(rank uint64, first uint64, done span) (covered span, list []stretch) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.trim(first)
	for _, s := range slices.Backward(x.stretches) {
		if s.mayHold(rank) && !done.holds(s) {
			list = append(list, s)
		}
	}
	return x.covered, list
}

// place returns what is covered, and of it the last row before seq next: its id, or
// where it lies when the id has to be read.
func (x *index) place(next uint64) (covered span, id []byte, in stretch) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.newest.id != nil && x.newest.seq < next {
		return x.covered, slices.Clone(x.newest.id), stretch{}
	}
	for _, s := range slices.Backward(x.stretches) {
		if s.first < next {
			return x.covered, nil, s
		}
	}
	return x.covered, nil, stretch{}
}
