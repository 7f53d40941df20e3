package deliver

import (
	"cmp"
	"slices"
)

// A barrier of one table (a truncate) waits until table.n says that nothing but
// barriers is left; what comes later for the table is not kept but read again, so that a
// barrier that waits long costs no memory. A barrier of every table stops the scan
// instead. One that was put behind what is here already (a gap that retention made)
// holds back every later key until it is settled.

// The hash by which the window knows the barrier of everything, and the one table
// of consumers whose keys run across tables.
const (
	wholeKey    uint64 = 0x6c6f636b73746570
	oneTable    uint64 = 1
	barrierSalt uint64 = 0x9e3779b97f4a7c15
)

// hold is an unsettled barrier of every table.
type hold struct {
	seq  uint64
	slot int32
}

// heldBack reports whether a barrier of every table keeps the change from going out.
func (w *window) heldBack(seq uint64) bool { return len(w.holds) > 0 && seq > w.holds[0].seq }

// wholeReady reports whether everything before the barrier is settled. A gap does
// not wait for changes that wait for a person: they would hold it back for ever.
func (w *window) wholeReady(s int32) bool {
	e := &w.entries[s]
	if w.holds[0].slot != s {
		return false
	}
	if e.flags&isGap == 0 {
		return w.first == s && len(w.overKeys) == 0 && len(w.overTabs) == 0
	}
	before := w.first
	for before != s && w.entries[before].flags&hasLetter != 0 {
		before = w.entries[before].aNext
	}
	return before == s
}

// addWhole puts a barrier of every table into the window.
func (w *window) addWhole(seq uint64, f flags) int32 {
	t := w.tableFor(oneTable)
	k := w.keyFor(wholeKey, t)
	s := w.insert(seq, k, f|isWhole)
	w.holds = append(w.holds, hold{seq, s})
	slices.SortFunc(w.holds, func(a, b hold) int { return cmp.Compare(a.seq, b.seq) })
	// What is ready and lies behind the barrier steps back. It happens once per gap.
	w.regroup(w.ready.first)
	w.place(k)
	return s
}

// addBarrier puts the barrier of one table into the window.
func (w *window) addBarrier(seq uint64, t int32, f flags) int32 {
	k := w.keyFor(w.tables[t].hash^barrierSalt, t)
	s := w.insert(seq, k, f|isBarrier)
	if b := w.tables[t].barrier; b == none || w.entries[b].seq > seq {
		w.tables[t].barrier = s
	}
	w.place(k)
	return s
}

// openBarrier lets go what a barrier held back.
func (w *window) openBarrier(s int32, e entry) {
	if e.flags&isWhole != 0 {
		w.holds = slices.DeleteFunc(w.holds, func(h hold) bool { return h.slot == s })
		delete(w.gaps, e.seq)
		w.regroup(w.heldKeys.first)
		return
	}
	t := &w.tables[w.keys[e.key].table]
	if t.barrier == s {
		// A second one can only be a letter that is retried: changes behind the
		// first barrier are not kept.
		t.barrier = w.keys[e.key].head
	}
}

// regroup places again every key of the list that begins with k.
func (w *window) regroup(k int32) {
	for k != none {
		next := w.keys[k].next
		w.place(k)
		k = next
	}
}

// wakeBarriers looks whether a change that was settled, or came back, has made a
// barrier ready, or not ready.
func (w *window) wakeBarriers(t int32) {
	if b := w.tables[t].barrier; b != none {
		if k := w.entries[b].key; w.tables[t].n == uint64(w.keys[k].n) || w.keys[k].spot == inReady {
			w.place(k)
		}
	}
	if len(w.holds) > 0 {
		w.place(w.entries[w.holds[0].slot].key)
	}
}
