package deliver

// verdict is what became of one token.
type verdict uint8

const (
	stale   verdict = iota // not the holder of the change, or not any more
	settled                // settled by this token before, and on disk
	pending                // settled by this token, not yet on disk
	applied                // the call did what it asked for; not yet on disk
)

// ack settles the change that the token names.
func (w *window) ack(t token) verdict {
	s, v := w.find(t)
	if s == none {
		return v
	}
	e := &w.entries[s]
	if e.delivery != t.delivery || t.epoch != w.epoch {
		return stale
	}
	switch e.phase {
	case leased:
		w.settle(s, t.delivery)
		w.totals.Acked++
		return applied
	case acked:
		return pending
	}
	return stale
}

// find returns the unsettled change of a token. When there is none, the verdict
// tells whether the token settled it.
func (w *window) find(t token) (int32, verdict) {
	if t.epoch < w.minEpoch || t.epoch > w.epoch {
		return none, stale
	}
	if t.epoch == w.epoch && t.slot >= 0 && int(t.slot) < len(w.entries) {
		if e := &w.entries[t.slot]; e.seq == t.seq && e.phase != free {
			return int32(t.slot), stale
		}
	}
	if s := w.lookup(t.seq, t.key); s != none {
		return s, stale
	}
	if t.seq >= w.head || w.overflowed(t.seq, t.key) || t.epoch < w.epoch && w.readAgain(t.seq, t.table) {
		return none, stale
	}
	if winner, ok := w.winners.of(t.seq); ok {
		if winner.epoch == t.epoch && winner.delivery == t.delivery {
			return none, settled
		}
		return none, stale
	}
	if w.leftOpen(t) {
		return none, stale
	}
	return none, settled
}

// lookup finds an unsettled change by walking its key's queue.
func (w *window) lookup(seq, keyHash uint64) int32 {
	k, ok := w.keyOf[keyHash]
	if !ok {
		return none
	}
	for s := w.keys[k].head; s != none && w.entries[s].seq <= seq; s = w.entries[s].kNext {
		if w.entries[s].seq == seq {
			return s
		}
	}
	return none
}

// overflowed reports whether the change is unsettled without being kept here,
// because its key has too many.
func (w *window) overflowed(seq, keyHash uint64) bool {
	k, ok := w.keyOf[keyHash]
	return ok && w.keys[k].overFrom != 0 && seq >= w.keys[k].overFrom
}

// readAgain reports whether the change may be one that is read again since its table
// had a barrier when the process was killed.
func (w *window) readAgain(seq uint64, tableHash uint32) bool {
	for _, t := range w.overTabs {
		if tt := &w.tables[t]; seq >= tt.overFrom && uint32(tt.hash) == tableHash {
			return true
		}
	}
	return false
}

// comes reports whether a change that is not kept here is unsettled all the same: it
// will be read, or read again.
func (w *window) comes(c change) bool {
	return c.seq >= w.head || w.overflowed(c.seq, c.key) || c.sort != wholeBarrier && w.readAgain(c.seq, uint32(c.table))
}

// settle marks a change as settled by that delivery; 0: by nobody, and no token may
// claim it. It leaves the window when that is on disk.
func (w *window) settle(s int32, delivery uint64) {
	e := &w.entries[s]
	if e.phase == leased {
		w.leases.remove(e.heap)
		w.keys[e.key].busy--
	}
	if e.flags&again != 0 || delivery == 0 {
		w.winners.put(winner{seq: e.seq, epoch: w.epoch, delivery: delivery})
	}
	if _, stray := w.strays[e.seq]; stray && delivery != 0 {
		e.flags |= hasLetter
		delete(w.strays, e.seq)
	}
	if e.flags&hasLetter != 0 {
		w.spent[e.seq] = struct{}{}
	}
	e.delivery = delivery
	w.setPhase(s, acked)
	w.touch(s)
	w.settled = append(w.settled, s)
	w.place(e.key)
}

// saved forgets changes whose settling is on disk; their keys go on.
func (w *window) saved(now int64, slots []int32) {
	w.now = now
	for _, s := range slots {
		seq, lettered := w.entries[s].seq, w.entries[s].flags&hasLetter != 0
		w.remove(s)
		if lettered {
			w.erasable = append(w.erasable, seq)
		}
	}
	w.shrink()
}

// shrinkAbove is how many changes an empty window may have room for.
const shrinkAbove = 16_384

// shrink gives back the memory of a backlog once nothing is left of it.
func (w *window) shrink() {
	if w.n > 0 || len(w.keyOf) > 0 || len(w.tableOf) > 0 || cap(w.entries) <= shrinkAbove {
		return
	}
	w.entries, w.freeEntry, w.keys, w.freeKey, w.tables, w.freeTable = nil, nil, nil, nil, nil, nil
	w.keyOf, w.tableOf = map[uint64]int32{}, map[uint64]int32{}
	w.leases.items, w.delayed.items, w.scratch, w.hint = nil, nil, nil, none
}

// unsaved takes back changes whose settling could not be saved: the next save
// carries them again.
func (w *window) unsaved(slots []int32) { w.settled = append(slots, w.settled...) }

// winner is the delivery that settled a change which was handed out more than once.
type winner struct {
	seq      uint64
	delivery uint64 // 0: none of them; it was parked, skipped or dropped
	epoch    uint32
}

const (
	// winnerLimit bounds how many winners are remembered: as many changes can be
	// contested at once as a process that stood still had handed out.
	winnerLimit = 65_536
	// savedWinners is how many of them outlive the process: they are part of every save.
	savedWinners = 1024
)

// winners remembers the last winners, oldest first.
type winners struct {
	list []winner
	next int            // where the next one goes once the list is full
	at   map[uint64]int // places in list, by seq
}

func (l *winners) put(n winner) {
	if i, ok := l.at[n.seq]; ok {
		l.list[i] = n
		return
	}
	if l.at == nil {
		l.at = map[uint64]int{}
	}
	if len(l.list) < winnerLimit {
		l.at[n.seq] = len(l.list)
		l.list = append(l.list, n)
		return
	}
	delete(l.at, l.list[l.next].seq)
	l.at[n.seq] = l.next
	l.list[l.next] = n
	l.next = (l.next + 1) % winnerLimit
}

func (l *winners) of(seq uint64) (winner, bool) {
	i, ok := l.at[seq]
	if !ok {
		return winner{}, false
	}
	return l.list[i], true
}

// latest appends the last savedWinners of them, oldest first.
func (l *winners) latest(dst []winner) []winner {
	n := min(len(l.list), savedWinners)
	for i := len(l.list) - n; i < len(l.list); i++ {
		dst = append(dst, l.list[(l.next+i)%len(l.list)])
	}
	return dst
}
