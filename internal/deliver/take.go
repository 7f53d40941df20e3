package deliver

import (
	"cmp"
	"slices"
)

// handout is one change on its way to a worker.
type handout struct {
	slot     int32
	attempt  int
	seq, key uint64
	delivery uint64
	table    uint32 // low half of the table's hash
	flags    flags
	gap      gap // of a gap
}

// take hands out up to n changes: one of each ready key, in the order in which the
// keys became ready, then further ones of the same keys, round by round. They come
// back by ascending seq, which is the order within each key too.
func (w *window) take(now int64, n int, holder string) []handout {
	w.expire(now)
	n = min(n, w.policy.maxInFlight-w.counts[leased]-w.counts[acked])
	if n <= 0 || w.ready.first == none {
		return nil
	}
	w.deliveries++
	id := w.holders.id(holder)
	out := make([]handout, 0, min(n, w.avail))
	runs := w.scratch[:0]
	for len(out) < n && w.ready.first != none {
		k := w.ready.first
		s := w.keys[k].head
		w.unplace(k)
		out = append(out, w.lease(s, id))
		if w.entries[s].flags&(isBarrier|isWhole) == 0 {
			runs = append(runs, s)
		}
	}
	for len(out) < n && len(runs) > 0 {
		going := runs[:0]
		for _, s := range runs {
			next := w.entries[s].kNext
			if len(out) == n || next == none || !w.mayFollow(next) {
				continue
			}
			out = append(out, w.lease(next, id))
			going = append(going, next)
		}
		runs = going
	}
	w.scratch = runs[:0]
	slices.SortFunc(out, func(a, b handout) int { return cmp.Compare(a.seq, b.seq) })
	return out
}

// mayFollow reports whether a change may go out together with the one before it.
func (w *window) mayFollow(s int32) bool {
	e := &w.entries[s]
	return e.phase == waiting && e.at <= w.now && e.flags&(isBarrier|isWhole) == 0 && !w.heldBack(e.seq)
}

func (w *window) lease(s int32, holder uint32) handout {
	e := &w.entries[s]
	k := &w.keys[e.key]
	if len(w.fresh) > 0 && e.flags&(isBarrier|isWhole) != 0 {
		clear(w.fresh)
	} else if len(w.fresh) > 0 {
		if parked, ok := w.fresh[k.hash]; ok && parked < e.seq {
			delete(w.fresh, k.hash)
		}
	}
	if e.delivery != 0 || e.attempts > 0 {
		e.flags |= again
		w.totals.Redelivered++
	}
	w.totals.Delivered++
	e.flags &^= nacked
	e.delivery, e.since, e.at, e.holder = w.deliveries, w.now, w.now+int64(w.policy.ackWait), holder
	w.setPhase(s, leased)
	k.busy++
	w.leases.push(e.at, s)
	h := handout{slot: s, seq: e.seq, key: k.hash, delivery: e.delivery, table: uint32(w.tables[k.table].hash), attempt: int(e.attempts) + 1, flags: e.flags}
	if e.flags&isGap != 0 {
		h.gap = w.gaps[e.seq]
	}
	return h
}

// held returns the change of a hand-out that is still out, or none: meanwhile its
// lease may have run out, or the consumer may have been sent elsewhere.
func (w *window) held(h handout) int32 {
	if int(h.slot) >= len(w.entries) {
		return none
	}
	e := &w.entries[h.slot]
	if e.seq != h.seq || e.phase != leased || e.delivery != h.delivery {
		return none
	}
	return h.slot
}

// token is the right to settle the hand-out.
func (h handout) token(epoch uint32) token {
	return token{epoch: epoch, slot: h.slot, seq: h.seq, delivery: h.delivery, key: h.key, table: h.table}
}

// untake gives back changes that never reached a worker, as if not handed out.
func (w *window) untake(now int64, hs []handout) {
	w.now = now
	for _, h := range slices.Backward(hs) {
		s := w.held(h)
		if s == none {
			continue
		}
		w.unlease(s)
		w.totals.Delivered--
		if h.flags&again != 0 {
			w.totals.Redelivered -= min(w.totals.Redelivered, 1)
		} else {
			w.entries[s].delivery = 0
		}
		w.place(w.entries[s].key)
	}
}

// skip settles a hand-out that does not match the filter any more.
func (w *window) skip(h handout) {
	if s := w.held(h); s != none {
		w.settle(s, 0)
	}
}

// unlease takes a change back from whoever has it. The caller places its key.
func (w *window) unlease(s int32) {
	e := &w.entries[s]
	w.leases.remove(e.heap)
	w.keys[e.key].busy--
	e.at = 0
	w.setPhase(s, waiting)
}

// holders remembers who has what, by number.
type holders struct {
	ids   map[string]uint32
	names []string
}

// holderLimit bounds how many names are remembered; beyond it all are forgotten.
const holderLimit = 4096

func (h *holders) id(name string) uint32 {
	if name == "" {
		return 0
	}
	if id, ok := h.ids[name]; ok {
		return id
	}
	if h.ids == nil || len(h.names) >= holderLimit {
		h.ids, h.names = map[string]uint32{}, []string{""}
	}
	h.names = append(h.names, name)
	id := uint32(len(h.names) - 1)
	h.ids[name] = id
	return id
}

func (h *holders) name(id uint32) string {
	if int(id) < len(h.names) {
		return h.names[id]
	}
	return ""
}
