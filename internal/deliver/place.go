package deliver

// place puts a key where it belongs: ready, held back, delayed, or nowhere.
func (w *window) place(k int32) {
	kk := &w.keys[k]
	want := nowhere
	if kk.head != none && kk.busy == 0 {
		e := &w.entries[kk.head]
		switch {
		case e.phase != waiting:
		case e.at > w.now:
			want = inDelayed
		case e.flags&isWhole != 0:
			if w.wholeReady(kk.head) {
				want = inReady
			}
		case e.flags&isBarrier != 0:
			if w.tables[kk.table].n == uint64(kk.n) {
				want = w.readyOrHeld(e.seq)
			}
		default:
			want = w.readyOrHeld(e.seq)
		}
		if want == inDelayed && kk.spot == inDelayed && kk.at == e.at {
			return
		}
	}
	if want == kk.spot && want != inDelayed {
		return
	}
	w.unplace(k)
	kk.spot = want
	switch want {
	case inReady:
		w.ready.push(w, k)
		w.avail += int(kk.n)
	case inHeld:
		w.heldKeys.push(w, k)
	case inDelayed:
		kk.at = w.entries[kk.head].at
		w.delayed.push(kk.at, k)
	case nowhere:
	}
}

func (w *window) readyOrHeld(seq uint64) spot {
	if w.heldBack(seq) {
		return inHeld
	}
	return inReady
}

func (w *window) unplace(k int32) {
	kk := &w.keys[k]
	switch kk.spot {
	case inReady:
		w.ready.remove(w, k)
		w.avail -= int(kk.n)
	case inHeld:
		w.heldKeys.remove(w, k)
	case inDelayed:
		w.delayed.remove(kk.heap)
	case nowhere:
	}
	kk.spot = nowhere
}
