package deliver

import "slices"

// sort says what a change is to the window.
type sort uint8

const (
	rowChange    sort = iota
	tableBarrier      // concerns a whole table
	wholeBarrier      // concerns every table
)

// change is a matching change that a scan found.
type change struct {
	seq, key, table uint64
	sort            sort
	fault           string // not empty: the filter failed; it goes to the dead letters
}

// offer takes the next change of the log. Changes are offered by ascending seq;
// the caller moves head.
func (w *window) offer(c change) {
	if c.sort == wholeBarrier {
		s := w.addWhole(c.seq, 0)
		w.failIfFaulty(s, c)
		return
	}
	t := w.tableFor(c.table)
	tt := &w.tables[t]
	if tt.overFrom == 0 && tt.barrier != none && c.seq > w.entries[tt.barrier].seq {
		tt.overFrom = c.seq
		w.overTabs = append(w.overTabs, t)
	}
	if tt.overFrom != 0 {
		tt.overN++
		w.overflow++
		return
	}
	w.admit(t, c)
}

// admit takes a change of a table that has no barrier before it.
func (w *window) admit(t int32, c change) {
	if c.sort == tableBarrier {
		w.failIfFaulty(w.addBarrier(c.seq, t, 0), c)
		return
	}
	k := w.keyFor(c.key, t)
	kk := &w.keys[k]
	if kk.overFrom == 0 && int(kk.n) >= w.roomOf(kk) {
		kk.overFrom = c.seq
		w.overKeys = append(w.overKeys, k)
	}
	if kk.overFrom != 0 {
		kk.overN++
		w.overflow++
		w.tables[t].n++
		return
	}
	w.admitRow(k, c)
}

func (w *window) admitRow(k int32, c change) {
	s := w.insert(c.seq, k, 0)
	if w.keys[k].parked {
		w.park(s, "an earlier change of its key is in the dead letters")
	}
	w.failIfFaulty(s, c)
	w.place(k)
}

func (w *window) failIfFaulty(s int32, c change) {
	if c.fault != "" && w.entries[s].phase == waiting {
		w.park(s, c.fault)
		w.place(w.entries[s].key)
	}
}

// startHead is where this epoch began to read.
func (w *window) startHead() uint64 {
	if n := len(w.epochs); n > 0 {
		return w.epochs[n-1].head
	}
	return 0
}

// roomOf is how many changes of the key may be kept here.
func (w *window) roomOf(k *key) int {
	switch {
	case w.n >= w.limit()/2:
		return 1
	case k.spot == inDelayed || k.head != none && w.entries[k.head].phase == blocked:
		return w.limits.slow
	}
	return w.limits.key
}

// hungry reports whether changes of the key should be read again. One that waits
// for a time or a person has enough with what it has.
func (w *window) hungry(k *key) bool {
	if k.n == 0 {
		return true
	}
	first := &w.entries[k.head]
	return int(k.n) < w.roomOf(k)/2 && first.phase != blocked && k.spot != inDelayed && k.spot != inHeld
}

// starving reports whether the log must be read again for a key or a table.
func (w *window) starving() bool {
	for _, k := range w.overKeys {
		if w.hungry(&w.keys[k]) {
			return true
		}
	}
	for _, t := range w.overTabs {
		if w.tables[t].barrier == none {
			return true
		}
	}
	return false
}

// beginRefill returns the seq from which on the log must be read again for keys and
// tables that could not keep all of their changes, or 0. Those that are hungry now
// take part until the next beginRefill.
func (w *window) beginRefill() uint64 {
	w.pass++
	from := uint64(0)
	for _, k := range w.overKeys {
		kk := &w.keys[k]
		if !w.hungry(kk) {
			continue
		}
		kk.pass = w.pass
		if from == 0 || kk.overFrom < from {
			from = kk.overFrom
		}
	}
	for _, t := range w.overTabs {
		tt := &w.tables[t]
		if tt.barrier != none {
			continue
		}
		tt.pass = w.pass
		if from == 0 || tt.overFrom < from {
			from = tt.overFrom
		}
	}
	return from
}

// wants reports whether a change read again is one that the window lacks. It is
// asked before the filter is, which costs more.
func (w *window) wants(seq, keyHash, tableHash uint64) bool {
	if t, ok := w.tableOf[tableHash]; ok {
		if tt := &w.tables[t]; tt.overFrom != 0 && seq >= tt.overFrom {
			return tt.pass == w.pass
		}
	}
	k, ok := w.keyOf[keyHash]
	if !ok {
		return false
	}
	kk := &w.keys[k]
	return kk.overFrom != 0 && kk.pass == w.pass && seq >= kk.overFrom
}

// refill takes a change read again. Changes come by ascending seq from what
// beginRefill returned, at most up to head.
func (w *window) refill(c change) {
	t, ok := w.tableOf[c.table]
	if !ok || c.sort == wholeBarrier {
		return // a barrier of every table is always kept here
	}
	tt := &w.tables[t]
	if tt.overFrom != 0 && c.seq >= tt.overFrom {
		if tt.barrier != none || tt.pass != w.pass {
			return
		}
		tt.overN -= min(tt.overN, 1)
		w.overflow -= min(w.overflow, 1)
		tt.overFrom = c.seq + 1
		w.admitAgain(t, c)
		return
	}
	k, ok := w.keyOf[c.key]
	if !ok || c.sort != rowChange {
		return
	}
	kk := &w.keys[k]
	if kk.overFrom == 0 || kk.pass != w.pass || c.seq < kk.overFrom {
		return
	}
	if int(kk.n) >= w.roomOf(kk) {
		kk.pass = 0
		return
	}
	w.lessOver(kk, 1)
	kk.overFrom = c.seq + 1
	w.admitRow(k, c)
}

// admitAgain is admit for a change that its table could not keep. Its key may take
// part in the same reading, and then has everything before it.
func (w *window) admitAgain(t int32, c change) {
	if k, ok := w.keyOf[c.key]; ok && c.sort == rowChange && w.keys[k].overFrom != 0 {
		kk := &w.keys[k]
		if kk.pass == w.pass && int(kk.n) < w.roomOf(kk) {
			kk.overFrom = c.seq + 1
			w.admitRow(k, c)
			return
		}
		kk.pass = 0
	}
	w.admit(t, c)
}

// refilled says that everything below upTo was read again for those who take part.
func (w *window) refilled(upTo uint64) {
	for _, k := range w.overKeys {
		if kk := &w.keys[k]; kk.pass == w.pass {
			kk.overFrom = max(kk.overFrom, upTo)
		}
	}
	for _, t := range w.overTabs {
		if tt := &w.tables[t]; tt.pass == w.pass && tt.barrier == none {
			tt.overFrom = max(tt.overFrom, upTo)
		}
	}
	w.endOverflows()
}

// endOverflows ends the overflow of keys and tables that has nothing left.
func (w *window) endOverflows() {
	for _, k := range w.overKeys {
		kk := &w.keys[k]
		end := w.head
		if from := w.tables[kk.table].overFrom; from != 0 {
			end = from
		}
		if kk.overFrom >= end {
			w.endOverflow(k)
		}
	}
	for _, t := range w.overTabs {
		if tt := &w.tables[t]; tt.barrier == none && tt.overFrom >= w.head {
			w.endTableOverflow(t)
		}
	}
	w.dropEnded()
}

// dropEnded forgets the keys and tables whose overflow has ended.
func (w *window) dropEnded() {
	w.overKeys = slices.DeleteFunc(w.overKeys, func(k int32) bool { return w.keys[k].overFrom == 0 })
	w.overTabs = slices.DeleteFunc(w.overTabs, func(t int32) bool { return w.tables[t].overFrom == 0 })
	for t := range w.tables {
		if b := w.tables[t].barrier; b != none && w.tables[t].hash != 0 {
			w.wakeBarriers(int32(t))
		}
	}
	if len(w.holds) > 0 {
		w.place(w.entries[w.holds[0].slot].key)
	}
}

// endOverflow says that all changes of the key are kept here again; dropEnded must
// follow. The count of
// those that were not was an upper bound when the filter changed meanwhile.
func (w *window) endOverflow(k int32) {
	kk := &w.keys[k]
	w.lessOver(kk, kk.overN)
	kk.overFrom = 0
	w.freeIfEmpty(k)
}

func (w *window) endTableOverflow(t int32) {
	tt := &w.tables[t]
	w.overflow -= min(w.overflow, tt.overN)
	tt.overFrom, tt.overN = 0, 0
	w.freeTableIfEmpty(t)
}

func (w *window) lessOver(k *key, n uint64) {
	n = min(n, k.overN)
	k.overN -= n
	w.overflow -= min(w.overflow, n)
	t := &w.tables[k.table]
	t.n -= min(t.n, n)
}
