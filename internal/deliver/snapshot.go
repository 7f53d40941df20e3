package deliver

import (
	"cmp"
	"maps"
	"slices"
)

// snapshot fills s with what must be saved, and returns the slots whose settling
// the save makes durable. It does not name what nobody has tried at the end of the
// window: a restart reads that again, so the state's size follows what is unsettled
// among what is settled.
func (w *window) snapshot(s *state) []int32 {
	w.snaps++
	s.epoch, s.minEpoch = w.epoch, w.minEpoch
	s.acked, s.parked = w.ackedBefore+w.totals.Acked, w.parkedBefore+w.totals.Parked
	s.head, s.clock = w.head, w.now-w.now%1e6
	s.entries, s.keys, s.tables = s.entries[:0], s.keys[:0], s.tables[:0]
	for i := w.first; i != none; i = w.entries[i].aNext {
		e := &w.entries[i]
		if e.phase != acked && e.seq > w.touched {
			s.head = e.seq
			break
		}
		w.snapshotEntry(s, e)
	}
	w.snapshotScopes(s)
	w.snapshotRest(s)
	slots := w.settled
	w.settled = nil
	return slots
}

func (w *window) snapshotEntry(s *state, e *entry) {
	k := &w.keys[e.key]
	if k.snapshot != w.snaps {
		k.snapshot, k.seen, k.cut, k.cutFrom = w.snaps, 0, 0, 0
	}
	if k.seen++; k.cutFrom != 0 || e.phase == acked {
		return
	}
	const special = isBarrier | isWhole | hasLetter
	if e.seq > k.touched && e.flags&special == 0 {
		// The rest of a long queue is told by where it begins.
		if k.cut++; int(k.cut) > w.limits.cut {
			k.cutFrom = e.seq
			n := uint64(k.n-k.seen+1) + k.overN
			s.keys = append(s.keys, savedScope{k.hash, w.tables[k.table].hash, e.seq, n})
			return
		}
	}
	saved := savedEntry{
		seq: e.seq, key: k.hash, table: w.tables[k.table].hash, attempts: e.attempts, flags: e.flags & savedFlags, blocked: e.phase == blocked,
	}
	if e.phase == waiting {
		saved.at = e.at
	}
	if e.delivery != 0 {
		saved.flags |= again
	}
	if e.phase == parking {
		saved.flags |= unchecked
	}
	s.entries = append(s.entries, saved)
}

func (w *window) snapshotScopes(s *state) {
	for _, k := range w.overKeys {
		kk := &w.keys[k]
		cut := kk.snapshot == w.snaps && kk.cutFrom != 0
		if kk.overFrom < s.head && !cut {
			s.keys = append(s.keys, savedScope{kk.hash, w.tables[kk.table].hash, kk.overFrom, kk.overN})
		}
	}
	for _, t := range w.overTabs {
		if tt := &w.tables[t]; tt.overFrom < s.head {
			s.tables = append(s.tables, savedScope{tt.hash, tt.hash, tt.overFrom, tt.overN})
		}
	}
}

func (w *window) snapshotRest(s *state) {
	s.parkedKeys, s.fresh, s.gaps = s.parkedKeys[:0], s.fresh[:0], s.gaps[:0]
	for key, p := range w.parkedKeys {
		s.parkedKeys = append(s.parkedKeys, savedParked{key, p.first, p.n})
	}
	for key, seq := range w.fresh {
		s.fresh = append(s.fresh, savedFresh{key, seq})
	}
	for seq, g := range w.gaps {
		s.gaps = append(s.gaps, savedGap{seq, g.first, g.missed, g.cause})
	}
	s.spent = slices.AppendSeq(s.spent[:0], maps.Keys(w.spent))
	s.winners = w.winners.latest(s.winners[:0])
	s.epochs = append(s.epochs[:0], w.epochs...)
}

// restore makes a window of a saved state, one epoch later: whatever was handed out
// before is not leased any more.
func restore(s state, p policy, now int64, random func() float64) *window {
	w := newWindow(p, s.head, random)
	w.now = now
	// Anything below may be settled, so nothing below may be read again as a whole.
	w.touched = s.head - min(s.head, 1)
	w.epoch, w.minEpoch = s.epoch+1, s.minEpoch
	w.epochs = append(slices.Clone(s.epochs), beganWith(w.epoch, s))
	boundEpochs(w.epochs)
	if n := len(w.epochs); n > epochLimit {
		w.epochs = slices.Clone(w.epochs[n-epochLimit:])
		// Tokens of before cannot be judged any more.
		w.minEpoch = max(w.minEpoch, w.epochs[0].epoch-1)
	}
	w.ackedBefore, w.parkedBefore = s.acked, s.parked
	for _, p := range s.parkedKeys {
		w.parkedKeys[p.key] = &parkedKey{first: p.first, n: p.n}
	}
	for _, f := range s.fresh {
		w.fresh[f.key] = f.seq
	}
	for _, g := range s.gaps {
		w.gaps[g.seq] = gap{first: g.first, missed: g.missed, cause: g.cause}
	}
	for _, seq := range s.spent {
		w.spent[seq] = struct{}{}
		w.erasable = append(w.erasable, seq)
	}
	for _, n := range s.winners {
		w.winners.put(n)
	}
	w.restoreScopes(s)
	for _, e := range s.entries {
		e.at = s.waitEnd(e.at, now)
		w.restoreEntry(e)
	}
	return w
}

func (w *window) restoreEntry(saved savedEntry) {
	f := saved.flags | again
	var s int32
	switch {
	case f&isWhole != 0:
		s = w.addWhole(saved.seq, f)
	case f&isBarrier != 0:
		s = w.addBarrier(saved.seq, w.tableFor(saved.table), f)
	default:
		s = w.insert(saved.seq, w.keyFor(saved.key, w.tableFor(saved.table)), f|unchecked)
	}
	e := &w.entries[s]
	e.attempts, e.at = saved.attempts, saved.at
	w.touch(s)
	switch {
	case saved.blocked:
		e.since = w.now
		w.setPhase(s, blocked)
	case w.policy.maxAttempts > 0 && int(e.attempts) >= w.policy.maxAttempts:
		w.exhaust(s, "its last attempt failed before a restart")
	case w.keys[e.key].parked && f&hasLetter == 0:
		w.park(s, "an earlier change of its key is in the dead letters")
	}
	w.place(e.key)
}

func (w *window) restoreScopes(s state) {
	for _, k := range s.keys {
		t := w.tableFor(k.table)
		i := w.keyFor(k.hash, t)
		kk := &w.keys[i]
		kk.overFrom, kk.overN = k.from, k.n
		w.tables[t].n += k.n
		w.overflow += k.n
		w.overKeys = append(w.overKeys, i)
	}
	for _, saved := range s.tables {
		t := w.tableFor(saved.hash)
		tt := &w.tables[t]
		tt.overFrom, tt.overN = saved.from, saved.n
		w.overflow += saved.n
		w.overTabs = append(w.overTabs, t)
	}
	slices.SortFunc(w.overKeys, func(a, b int32) int { return cmp.Compare(w.keys[a].overFrom, w.keys[b].overFrom) })
}
