package deliver

import (
	"cmp"
	"slices"

	"lockstep"
)

// A change leaves for the dead letters in two steps: the window marks it as parking
// and asks for its letter; when the letter is on disk, parked or blockedNow follows.

// parkRequest asks for a letter.
type parkRequest struct {
	slot     int32
	seq, key uint64
	attempts int
	reason   string
	state    string // the letter's
}

// park asks for a change's letter; its key waits until that is written.
func (w *window) park(s int32, reason string) { w.request(s, reason, StateParked) }

func (w *window) request(s int32, reason, state string) {
	e := &w.entries[s]
	w.setPhase(s, parking)
	e.since = w.now
	w.parkQueue = append(w.parkQueue, parkRequest{
		slot: s, seq: e.seq, key: w.keys[e.key].hash, attempts: int(e.attempts), reason: reason, state: state,
	})
}

// exhaust does what the definition says about a change that was tried often enough.
func (w *window) exhaust(s int32, reason string) {
	if reason == "" {
		reason = w.reasons[w.entries[s].seq]
	}
	if reason == "" {
		reason = "nacked without a reason"
	}
	if w.policy.onExhausted == Block {
		w.request(s, reason, StateBlocked)
		return
	}
	w.park(s, reason)
}

// fault gives up a hand-out whose transform or filter failed: trying again would
// fail again.
func (w *window) fault(h handout, reason string) {
	s := w.held(h)
	if s == none {
		return
	}
	w.giveBack(s)
	w.entries[s].attempts++
	w.touch(s)
	w.exhaust(s, reason)
	w.place(w.entries[s].key)
}

// letterOf returns the slot of a request that still stands.
func (w *window) letterOf(r parkRequest) int32 {
	if int(r.slot) >= len(w.entries) || w.entries[r.slot].seq != r.seq || w.entries[r.slot].phase != parking {
		return none
	}
	return r.slot
}

// lettered says that the letter of a request is on disk.
func (w *window) lettered(now int64, r parkRequest) {
	w.now = now
	s := w.letterOf(r)
	if s == none {
		return
	}
	e := &w.entries[s]
	if r.state == StateBlocked {
		e.flags |= hasLetter
		w.setPhase(s, blocked)
		w.place(e.key)
		return
	}
	e.flags &^= hasLetter
	delete(w.strays, e.seq)
	w.totals.Parked++
	w.letterCounts(e.key, e.seq)
	w.settle(s, 0)
	w.parkFollowers(e.key, e.seq)
}

// letterCounts remembers the letter as far as later ones of its key depend on it.
func (w *window) letterCounts(k int32, seq uint64) {
	kk := &w.keys[k]
	if w.policy.onExhausted == ParkKey || kk.parked {
		p := w.parkedKeys[kk.hash]
		if p == nil {
			p = &parkedKey{first: seq}
			w.parkedKeys[kk.hash] = p
		}
		p.first = min(p.first, seq)
		p.n++
		kk.parked = true
		return
	}
	if len(w.fresh) < freshLimit {
		w.fresh[kk.hash] = seq
	}
}

// parkFollowers sends what waits behind a parked change to the dead letters too.
// Earlier ones were retried: they are on their way.
func (w *window) parkFollowers(k int32, seq uint64) {
	if !w.keys[k].parked {
		return
	}
	for s := w.keys[k].head; s != none; s = w.entries[s].kNext {
		if w.entries[s].phase == waiting && w.entries[s].seq > seq {
			w.park(s, "an earlier change of its key is in the dead letters")
		}
	}
	w.place(k)
}

// parkByHand sends a change that waits to the dead letters, because somebody said so.
func (w *window) parkByHand(now int64, s int32, reason string) error {
	w.now = now
	e := &w.entries[s]
	if e.phase != waiting && e.phase != blocked {
		return lockstep.ErrConflict
	}
	w.touch(s)
	w.park(s, reason)
	w.place(e.key)
	return nil
}

// unblock lets a blocked change try again, as if it had not been tried.
func (w *window) unblock(now int64, s int32) {
	w.now = now
	e := &w.entries[s]
	e.attempts, e.at = 0, 0
	w.setPhase(s, waiting)
	w.place(e.key)
}

// revive takes a parked change back in, at its place in its key.
func (w *window) revive(now int64, c change) {
	w.now = now
	f := hasLetter | again
	if c.sort == wholeBarrier {
		w.touch(w.addWhole(c.seq, f|isGap))
		return
	}
	if p := w.parkedKeys[c.key]; p == nil {
		if parked, ok := w.fresh[c.key]; !ok || parked > c.seq {
			f |= isLate
		}
	}
	t := w.tableFor(c.table)
	if c.sort == tableBarrier {
		w.touch(w.addBarrier(c.seq, t, f))
		return
	}
	k := w.keyFor(c.key, t)
	w.touch(w.insert(c.seq, k, f))
	w.place(k)
	w.wakeBarriers(t)
}

// closeLetter says that a letter of a parked key is retried or dropped; next is the
// key's next letter, 0 when there is none.
func (w *window) closeLetter(now int64, keyHash, seq, next uint64) {
	w.now = now
	if w.fresh[keyHash] == seq {
		delete(w.fresh, keyHash)
	}
	p := w.parkedKeys[keyHash]
	if p == nil {
		return
	}
	if seq < p.first {
		return // of before the key was parked: it was never counted
	}
	p.n -= min(p.n, 1)
	if p.first == seq {
		p.first = next
	}
	if p.first != 0 {
		return
	}
	delete(w.parkedKeys, keyHash)
	if k, ok := w.keyOf[keyHash]; ok {
		w.keys[k].parked = false
		w.place(k)
	}
}

// dropHeld settles a change that waits for a person, or is being retried.
func (w *window) dropHeld(now int64, s int32) error {
	w.now = now
	e := &w.entries[s]
	if e.phase != blocked && e.phase != waiting {
		return lockstep.ErrConflict
	}
	e.flags |= hasLetter
	w.settle(s, 0)
	return nil
}

// lettersInUse returns the seqs of the changes that a letter belongs to, ascending.
func (w *window) lettersInUse() []uint64 {
	var seqs []uint64
	for s := w.first; s != none; s = w.entries[s].aNext {
		if w.entries[s].flags&hasLetter != 0 {
			seqs = append(seqs, w.entries[s].seq)
		}
	}
	slices.SortFunc(seqs, cmp.Compare)
	return seqs
}

// mayHaveLetter returns changes of a restored window whose last attempt may have
// failed, with a letter, shortly before a crash.
func (w *window) mayHaveLetter() []uint64 {
	var seqs []uint64
	for s := w.first; s != none && len(seqs) < strayLimit; s = w.entries[s].aNext {
		e := &w.entries[s]
		if e.flags&hasLetter == 0 && w.policy.maxAttempts > 0 && int(e.attempts)+1 >= w.policy.maxAttempts {
			seqs = append(seqs, e.seq)
		}
	}
	return seqs
}

// stray says that an unsettled change has a letter, which goes when it is acked.
func (w *window) stray(seq uint64) {
	if w.strays == nil {
		w.strays = map[uint64]struct{}{}
	}
	w.strays[seq] = struct{}{}
}
