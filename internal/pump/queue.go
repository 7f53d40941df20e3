package pump

import (
	"cmp"
	"slices"
	"time"

	"lockstep/internal/deliver"
	"lockstep/sink"
)

// item is one change that the pump holds.
type item struct {
	claim   deliver.Claim
	message sink.Message
	size    int // bytes of its body
	came    time.Time
}

// lane is what the pump holds of one key. At most one write has changes of it.
type lane struct {
	items   []*item // not in a write, by seq
	writing bool
	fetch   uint64 // the fetch that the items came with
}

// batch is what one write holds. No other has a change of its lanes.
type batch struct {
	items []*item // by seq
	lanes []taken
	bytes int
}

// taken is a lane of a batch, and the fetch that its items came with.
type taken struct{ key, fetch uint64 }

// queue is what waits to be written, in the order in which it came. It is pure: one
// goroutine uses it, and it starts nothing.
type queue struct {
	lanes   map[uint64]*lane
	ready   []uint64 // keys of lanes with items that no write has, in turn
	avail   int      // items of those
	held    int      // items here and in writes
	bytes   int      // of those
	writing map[*batch]struct{}
	fetches uint64
	spare   []*lane // to be used again
}

// spareLanes bounds how many lanes are kept to be used again.
const spareLanes = 1024

func newQueue() *queue {
	return &queue{lanes: map[uint64]*lane{}, writing: map[*batch]struct{}{}}
}

// put takes what one fetch brought, of each key in order. Delivery hands out a key
// only when nothing of it is out: what is still here of it was lost to another
// delivery, and is dropped.
func (q *queue) put(items []*item) {
	q.fetches++
	for _, it := range items {
		key := it.message.Key
		l := q.lanes[key]
		if l == nil {
			l = q.open()
			q.lanes[key] = l
		}
		if l.fetch != q.fetches {
			l.fetch = q.fetches
			q.forget(key, l)
		}
		if len(l.items) == 0 && !l.writing {
			q.ready = append(q.ready, key)
		}
		l.items = append(l.items, it)
		q.held++
		q.bytes += it.size
		if !l.writing {
			q.avail++
		}
	}
}

// open returns an empty lane.
func (q *queue) open() *lane {
	n := len(q.spare)
	if n == 0 {
		return &lane{}
	}
	l := q.spare[n-1]
	q.spare = q.spare[:n-1]
	return l
}

// close removes a lane that holds nothing.
func (q *queue) close(key uint64, l *lane) {
	delete(q.lanes, key)
	if len(q.spare) < spareLanes && cap(l.items) <= 16 {
		*l = lane{items: l.items[:0]}
		q.spare = append(q.spare, l)
	}
}

// forget drops what waits of a lane.
func (q *queue) forget(key uint64, l *lane) {
	if len(l.items) == 0 {
		return
	}
	q.held -= len(l.items)
	for _, it := range l.items {
		q.bytes -= it.size
	}
	if !l.writing {
		q.avail -= len(l.items)
		q.ready = slices.DeleteFunc(q.ready, func(k uint64) bool { return k == key })
	}
	l.items = nil
}

// oldest is when the first of what could be written came; zero: there is nothing.
func (q *queue) oldest() time.Time {
	if len(q.ready) == 0 {
		return time.Time{}
	}
	return q.lanes[q.ready[0]].items[0].came
}

// take makes a batch of up to n changes and about maxBytes; nil: there is nothing.
func (q *queue) take(n, maxBytes int) *batch {
	b := &batch{items: make([]*item, 0, min(n, q.avail)), lanes: make([]taken, 0, min(n, len(q.ready)))}
	for len(q.ready) > 0 && len(b.items) < n && (len(b.items) == 0 || b.bytes < maxBytes) {
		key := q.ready[0]
		q.ready = q.ready[1:]
		l := q.lanes[key]
		at := 0
		for at < len(l.items) && len(b.items) < n && (len(b.items) == 0 || b.bytes+l.items[at].size <= maxBytes) {
			b.items = append(b.items, l.items[at])
			b.bytes += l.items[at].size
			at++
		}
		if at == 0 {
			q.ready = slices.Insert(q.ready, 0, key)
			break
		}
		q.avail -= len(l.items)
		l.items = slices.Delete(l.items, 0, at)
		l.writing = true
		b.lanes = append(b.lanes, taken{key, l.fetch})
	}
	if len(b.items) == 0 {
		return nil
	}
	slices.SortStableFunc(b.items, func(x, y *item) int { return cmp.Compare(x.message.Seq, y.message.Seq) })
	q.writing[b] = struct{}{}
	return b
}

// done takes back a batch whose write is over; what waits behind it may go. Of the keys
// in failed nothing may: all that came with them is dropped.
func (q *queue) done(b *batch, failed map[uint64]int) {
	delete(q.writing, b)
	q.held -= len(b.items)
	q.bytes -= b.bytes
	for _, t := range b.lanes {
		l := q.lanes[t.key]
		// What came while it was written is another delivery, and stays.
		if _, bad := failed[t.key]; bad && l.fetch == t.fetch {
			q.forget(t.key, l)
		}
		l.writing = false
		if len(l.items) == 0 {
			q.close(t.key, l)
			continue
		}
		q.ready = append(q.ready, t.key)
		q.avail += len(l.items)
	}
}

// without drops what waits and has one of the claims.
func (q *queue) without(stale map[deliver.Claim]bool) {
	for key, l := range q.lanes {
		if len(l.items) > 0 && slices.ContainsFunc(l.items, func(it *item) bool { return stale[it.claim] }) {
			q.forget(key, l)
			if !l.writing {
				q.close(key, l)
			}
		}
	}
}

// clear drops everything that waits, and returns its claims.
func (q *queue) clear() []deliver.Claim {
	var claims []deliver.Claim
	for key, l := range q.lanes {
		for _, it := range l.items {
			claims = append(claims, it.claim)
		}
		q.forget(key, l)
		if !l.writing {
			q.close(key, l)
		}
	}
	return claims
}

// claims returns those of everything that is held.
func (q *queue) claims() []deliver.Claim {
	list := make([]deliver.Claim, 0, q.held)
	for _, l := range q.lanes {
		for _, it := range l.items {
			list = append(list, it.claim)
		}
	}
	for b := range q.writing {
		for _, it := range b.items {
			list = append(list, it.claim)
		}
	}
	return list
}
