package deliver

// missing gives up a hand-out whose body is gone; a gap tells about it. Later changes
// of its key that went out with it come back: the gap goes first.
func (w *window) missing(h handout, cause gapCause) {
	s := w.held(h)
	if s == none {
		return
	}
	w.giveBack(s)
	w.remove(s)
	w.addGap(gap{first: h.seq + 1, missed: 1, cause: cause})
}

// retention says that the log begins at first. What the consumer has not settled
// and nobody holds below it is lost; one gap tells how many changes that were.
func (w *window) retention(now int64, first uint64) {
	w.now = now
	if first <= w.lostBelow {
		return
	}
	w.lostBelow = first
	if missed := w.lose(0, first); missed > 0 {
		w.addGap(gap{first: first, missed: missed, cause: byRetention})
	}
}

// damaged says that the changes first to last cannot be read.
func (w *window) damaged(now int64, first, last uint64) {
	w.now = now
	if missed := w.lose(first, last+1); missed > 0 {
		w.addGap(gap{first: last + 1, missed: missed, cause: byDamage})
	}
}

// lose forgets what waits from seq from on and below to, and returns how many
// changes these are; of what was not looked at yet it counts all that lie in between.
func (w *window) lose(from, to uint64) uint64 {
	missed := uint64(0)
	for s := w.first; s != none && w.entries[s].seq < to; {
		next := w.entries[s].aNext
		if e := &w.entries[s]; e.seq >= from && e.phase == waiting && e.flags&(hasLetter|isGap) == 0 {
			w.remove(s)
			missed++
		}
		s = next
	}
	for _, k := range w.overKeys {
		if kk := &w.keys[k]; kk.overFrom >= from && kk.overFrom < to {
			lost := min(kk.overN, to-kk.overFrom)
			w.lessOver(kk, lost)
			kk.overFrom = to
			missed += lost
		}
	}
	for _, t := range w.overTabs {
		if tt := &w.tables[t]; tt.overFrom >= from && tt.overFrom < to {
			lost := min(tt.overN, to-tt.overFrom)
			tt.overN -= lost
			w.overflow -= min(w.overflow, lost)
			tt.overFrom = to
			missed += lost
		}
	}
	if w.head >= from && w.head < to {
		missed += to - w.head
		w.head = to
	}
	w.endOverflows()
	return missed
}

// addGap tells of changes that are lost. A gap that nobody has been given yet is
// replaced by one that tells of both.
func (w *window) addGap(g gap) {
	for _, h := range w.holds {
		e := &w.entries[h.slot]
		if e.flags&(isGap|hasLetter) == isGap && e.phase == waiting && e.delivery == 0 && w.gaps[e.seq].cause == g.cause {
			old := w.gaps[e.seq]
			g.missed += old.missed
			g.first = max(g.first, old.first)
			w.remove(h.slot)
			break
		}
	}
	seq := g.first - 1
	for w.present(seq) && seq > 0 {
		seq--
	}
	w.gaps[seq] = g
	w.touched = max(w.touched, g.first-1)
	w.touch(w.addWhole(seq, isGap))
}

// present reports whether a change with that seq is unsettled here.
func (w *window) present(seq uint64) bool {
	for s := w.first; s != none && w.entries[s].seq <= seq; s = w.entries[s].aNext {
		if w.entries[s].seq == seq {
			return true
		}
	}
	return false
}

// lowest returns the lowest seq whose body is still needed from the log.
func (w *window) lowest() uint64 {
	low := w.head
	for s := w.first; s != none; s = w.entries[s].aNext {
		if w.entries[s].flags&(hasLetter|isGap) == 0 {
			low = min(low, w.entries[s].seq)
			break
		}
	}
	return min(low, w.lowestOverflow())
}

func (w *window) lowestOverflow() uint64 {
	low := w.head
	for _, k := range w.overKeys {
		low = min(low, w.keys[k].overFrom)
	}
	for _, t := range w.overTabs {
		low = min(low, w.tables[t].overFrom)
	}
	return low
}

// floor returns the seq up to which everything is settled.
func (w *window) floor() uint64 {
	low := w.lowestOverflow()
	if w.first != none {
		low = min(low, w.entries[w.first].seq)
	}
	return low - min(low, 1)
}

// rewind sets head back to the first change at the end of the window that nobody has
// tried, so that a changed filter sees these anew. What is older is asked about when
// it goes out.
func (w *window) rewind(now int64) {
	w.now = now
	for w.last != none {
		e := &w.entries[w.last]
		if e.seq <= w.touched || e.phase != waiting {
			break
		}
		w.head = e.seq
		w.remove(w.last)
	}
	for _, k := range w.overKeys {
		if w.keys[k].overFrom >= w.head {
			w.endOverflow(k)
		}
	}
	for _, t := range w.overTabs {
		if w.tables[t].overFrom >= w.head {
			w.endTableOverflow(t)
		}
	}
	w.dropEnded()
	for s := w.first; s != none; s = w.entries[s].aNext {
		if w.entries[s].flags&(isBarrier|isWhole) == 0 {
			w.entries[s].flags |= unchecked
		}
	}
}
