package deliver

import "time"

// none is the slot of nothing.
const none = int32(-1)

// phase is where an unsettled change stands.
type phase uint8

const (
	free    phase = iota
	waiting       // may be handed out when its turn comes
	leased        // somebody has it
	acked         // settled in memory; its key waits until that is on disk
	parking       // its letter is being written
	blocked       // a person must retry or drop it
)

// flags tell what else is known about an unsettled change.
type flags uint16

const (
	isBarrier flags = 1 << iota // waits for every earlier change of its table
	isWhole                     // a barrier for every table
	isGap                       // made here, for changes that retention removed
	hasLetter                   // a letter holds its body, whatever retention does
	isLate                      // later changes of its key went by
	again                       // may have been handed out before
	unchecked                   // the filter must be asked again at hand-out
	nacked                      // its last delivery ended by a nack of its own
)

// entry is a change that the consumer has not settled. It holds no body.
type entry struct {
	seq          uint64
	delivery     uint64 // number of its current or last delivery in this epoch; 0: none
	at           int64  // leased: when the lease ends; waiting: not before
	since        int64  // leased: when it was handed out; blocked, parking: since when
	key          int32
	kPrev, kNext int32 // neighbours in the key's queue
	aPrev, aNext int32 // neighbours among all unsettled changes, by seq
	heap         int32 // index in window.leases
	attempts     uint32
	holder       uint32
	flags        flags
	phase        phase
}

// spot is where a key is kept.
type spot uint8

const (
	nowhere spot = iota
	inReady
	inHeld    // would be ready, but a barrier holds it back
	inDelayed // its first change must not go out yet
)

// key is one order: its changes go out one after the other.
type key struct {
	hash       uint64
	touched    uint64 // highest seq of it that is settled or was tried, since it is here
	overFrom   uint64 // from this seq on its changes are not kept here; 0: all are
	overN      uint64 // how many these are
	at         int64  // inDelayed: until when
	head, tail int32  // its unsettled changes, by seq
	prev, next int32  // neighbours in the ready or held list
	heap       int32  // index in window.delayed
	n          int32  // length of the queue
	busy       int32  // how many of them are leased
	table      int32
	spot       spot
	parked     bool   // park_key: whatever comes goes to the dead letters
	pass       uint64 // the reading again that it takes part in
	seen, cut  int32  // scratch of snapshot: changes seen, and those nobody tried
	cutFrom    uint64
	snapshot   uint64 // scratch: number of the snapshot that cut belongs to
}

// table counts the unsettled changes of one table, up to its barrier.
type table struct {
	hash     uint64
	n        uint64 // unsettled changes, those not kept here included, the barrier too
	keys     int32  // keys that name it
	barrier  int32  // its first barrier
	pass     uint64 // the reading again that it takes part in
	overFrom uint64 // from this seq on its changes are not kept here; 0: all are
	overN    uint64
}

// policy is the part of a definition that the window obeys.
type policy struct {
	ackWait     time.Duration
	backoff     Backoff
	maxInFlight int
	maxAttempts int
	onExhausted string
}

// window holds what a consumer has not settled below its head, and decides what
// may be handed out. It is a pure state machine: it takes the time (nanoseconds)
// as an argument, does no I/O and is used under its consumer's lock.
//
// What is not in the window and lies below head is settled, except for changes of
// keys and tables that say overFrom: those are unsettled, but too many to keep;
// they are read from the log again when their turn comes.
type window struct {
	policy policy
	limits limits
	random func() float64 // for jitter, [0, 1)
	now    int64

	entries   []entry
	freeEntry []int32
	keys      []key
	freeKey   []int32
	keyOf     map[uint64]int32
	tables    []table
	freeTable []int32
	tableOf   map[uint64]int32

	first, last int32 // all unsettled changes, by seq
	hint        int32 // where the last one was put in by seq
	n           int
	counts      [blocked + 1]int // by phase

	ready, heldKeys list
	avail           int // changes of ready keys
	delayed         timers
	leases          timers

	head      uint64  // the next seq to look at
	touched   uint64  // highest seq that is settled or was tried
	lostBelow uint64  // retention removed what lies below, as far as known
	holds     []hold  // whole barriers, by seq
	overKeys  []int32 // keys that say overFrom
	overTabs  []int32
	overflow  uint64 // changes not kept here
	pass      uint64 // number of the last reading again

	deliveries uint64
	settled    []int32 // acked since the last snapshot
	parkQueue  []parkRequest
	erasable   []uint64 // letters that must go, since their change is settled for good
	scratch    []int32

	durable // what else is saved
	totals  Totals
	// Totals of earlier openings of the consumer.
	ackedBefore, parkedBefore uint64

	snaps   uint64
	reasons map[uint64]string // why the last attempt of a change failed
	// strays are letters of changes that are unsettled all the same: after a crash
	// between letter and state, or a seek back. They go when the change is acked.
	strays  map[uint64]struct{}
	holders holders
}

// durable is what the saved state tells beside the unsettled changes.
type durable struct {
	epoch, minEpoch uint32
	parkedKeys      map[uint64]*parkedKey
	fresh           map[uint64]uint64 // parked keys of which nothing later went out: their last parked seq
	gaps            map[uint64]gap
	spent           map[uint64]struct{} // letters to delete
	winners         winners
	epochs          []epochHead
}

// parkedKey is a key whose changes all go to the dead letters.
type parkedKey struct {
	first uint64 // its first letter that is neither retried nor dropped
	n     uint64 // how many such letters there are
}

// gap is a place where changes were lost before they were settled.
type gap struct {
	first  uint64 // from here on changes are there again
	missed uint64
	cause  gapCause
}

// gapCause says why changes were lost. The codes are stored.
type gapCause uint8

const (
	byRetention gapCause = 0
	byDamage    gapCause = 1 // the stored bytes are not what was written
)

// String returns the reason as messages give it.
func (g gapCause) String() string {
	if g == byDamage {
		return "damaged"
	}
	return "retention"
}

// Totals count what happened to changes since a consumer was opened.
type Totals struct {
	Delivered   uint64 // handed out, redeliveries included
	Redelivered uint64
	Acked       uint64
	Nacked      uint64
	Expired     uint64 // leases that ran out
	Parked      uint64 // that went to the dead letters
}

// limits are the budgets of a window.
type limits struct {
	key   int // changes of one key kept here
	slow  int // the same for a key that waits for a time or a person
	total int // from half of it on, a key keeps one change only; nothing is scanned beyond
	cut   int // changes of one key that are saved one by one
}

func defaultLimits() limits { return limits{key: 1024, slow: 64, total: 100_000, cut: 16} }

const (
	freshLimit  = 1024
	epochLimit  = 32
	extendLimit = 12 * time.Hour
)

func newWindow(p policy, head uint64, random func() float64) *window {
	w := &window{policy: p, limits: defaultLimits(), random: random, head: head, first: none, last: none, hint: none,
		keyOf: map[uint64]int32{}, tableOf: map[uint64]int32{}, reasons: map[uint64]string{}}
	w.ready, w.heldKeys = newList(), newList()
	w.delayed.moved = func(slot, index int32) { w.keys[slot].heap = index }
	w.leases.moved = func(slot, index int32) { w.entries[slot].heap = index }
	w.parkedKeys, w.fresh, w.gaps, w.spent = map[uint64]*parkedKey{}, map[uint64]uint64{}, map[uint64]gap{}, map[uint64]struct{}{}
	w.epoch, w.minEpoch = 1, 1
	return w
}

// limit is how many changes the window may keep in all.
func (w *window) limit() int { return max(w.limits.total, 2*w.policy.maxInFlight) }

// wantsMore reports whether the log should be read on, given how many changes
// ought to be ready.
func (w *window) wantsMore(target int) bool {
	return len(w.holds) == 0 && w.avail < target && w.n < w.limit()
}

// keyFor returns the key's slot, making it when it is not there.
func (w *window) keyFor(hash uint64, t int32) int32 {
	if k, ok := w.keyOf[hash]; ok {
		return k
	}
	var k int32
	if n := len(w.freeKey); n > 0 {
		k = w.freeKey[n-1]
		w.freeKey = w.freeKey[:n-1]
	} else {
		k = int32(len(w.keys))
		w.keys = append(w.keys, key{})
	}
	w.keys[k] = key{hash: hash, head: none, tail: none, prev: none, next: none, heap: none, table: t}
	if len(w.parkedKeys) > 0 {
		w.keys[k].parked = w.parkedKeys[hash] != nil
	}
	w.keyOf[hash] = k
	w.tables[t].keys++
	return k
}

func (w *window) tableFor(hash uint64) int32 {
	if t, ok := w.tableOf[hash]; ok {
		return t
	}
	var t int32
	if n := len(w.freeTable); n > 0 {
		t = w.freeTable[n-1]
		w.freeTable = w.freeTable[:n-1]
	} else {
		t = int32(len(w.tables))
		w.tables = append(w.tables, table{})
	}
	w.tables[t] = table{hash: hash, barrier: none}
	w.tableOf[hash] = t
	return t
}

// insert makes a change of the key known. The caller places the key.
func (w *window) insert(seq uint64, k int32, f flags) int32 {
	var s int32
	if n := len(w.freeEntry); n > 0 {
		s = w.freeEntry[n-1]
		w.freeEntry = w.freeEntry[:n-1]
	} else {
		s = int32(len(w.entries))
		w.entries = append(w.entries, entry{})
	}
	if seq < w.startHead() {
		f |= again // an earlier run of this process may have handed it out
	}
	w.entries[s] = entry{seq: seq, key: k, kPrev: none, kNext: none, aPrev: none, aNext: none, heap: none, flags: f, phase: waiting}
	w.linkKey(s)
	w.linkAll(s)
	kk := &w.keys[k]
	kk.n++
	if kk.spot == inReady {
		w.avail++
	}
	w.tables[kk.table].n++
	w.counts[waiting]++
	w.n++
	return s
}

func (w *window) linkKey(s int32) {
	e := &w.entries[s]
	k := &w.keys[e.key]
	after := k.tail
	for after != none && w.entries[after].seq > e.seq {
		after = w.entries[after].kPrev
	}
	e.kPrev = after
	if after == none {
		e.kNext, k.head = k.head, s
	} else {
		e.kNext, w.entries[after].kNext = w.entries[after].kNext, s
	}
	if e.kNext == none {
		k.tail = s
	} else {
		w.entries[e.kNext].kPrev = s
	}
}

func (w *window) linkAll(s int32) {
	e := &w.entries[s]
	after := w.last
	if after != none && w.entries[after].seq > e.seq && w.hint != none {
		// Changes read a second time come in order, far from the end.
		after = w.hint
		for after != none {
			next := w.entries[after].aNext
			if next == none || w.entries[next].seq > e.seq {
				break
			}
			after = next
		}
	}
	for after != none && w.entries[after].seq > e.seq {
		after = w.entries[after].aPrev
	}
	e.aPrev = after
	if after == none {
		e.aNext, w.first = w.first, s
	} else {
		e.aNext, w.entries[after].aNext = w.entries[after].aNext, s
	}
	if e.aNext == none {
		w.last = s
	} else {
		w.entries[e.aNext].aPrev = s
		w.hint = s
	}
}

func (w *window) setPhase(s int32, p phase) {
	e := &w.entries[s]
	w.counts[e.phase]--
	w.counts[p]++
	e.phase = p
}

func (w *window) touch(s int32) {
	e := &w.entries[s]
	k := &w.keys[e.key]
	k.touched = max(k.touched, e.seq)
	w.touched = max(w.touched, e.seq)
}

// remove forgets a change: it is settled for good, lost, or will be read again.
func (w *window) remove(s int32) {
	e := w.entries[s]
	k := &w.keys[e.key]
	if e.phase == leased {
		w.leases.remove(e.heap)
		k.busy--
	}
	w.unlink(s)
	k.n--
	if k.spot == inReady {
		w.avail--
	}
	w.tables[k.table].n--
	w.counts[e.phase]--
	w.n--
	if len(w.reasons) > 0 {
		delete(w.reasons, e.seq)
	}
	w.entries[s].phase = free
	w.freeEntry = append(w.freeEntry, s)
	if e.flags&(isBarrier|isWhole) != 0 {
		w.openBarrier(s, e)
	}
	w.place(e.key)
	w.wakeBarriers(k.table)
	w.freeIfEmpty(e.key)
}

func (w *window) unlink(s int32) {
	e := &w.entries[s]
	k := &w.keys[e.key]
	if e.kPrev == none {
		k.head = e.kNext
	} else {
		w.entries[e.kPrev].kNext = e.kNext
	}
	if e.kNext == none {
		k.tail = e.kPrev
	} else {
		w.entries[e.kNext].kPrev = e.kPrev
	}
	if e.aPrev == none {
		w.first = e.aNext
	} else {
		w.entries[e.aPrev].aNext = e.aNext
	}
	if e.aNext == none {
		w.last = e.aPrev
	} else {
		w.entries[e.aNext].aPrev = e.aPrev
	}
	if w.hint == s {
		w.hint = e.aPrev
	}
}

func (w *window) freeIfEmpty(k int32) {
	kk := &w.keys[k]
	if kk.n > 0 || kk.overFrom != 0 {
		return
	}
	w.unplace(k)
	delete(w.keyOf, kk.hash)
	w.freeKey = append(w.freeKey, k)
	w.tables[kk.table].keys--
	w.freeTableIfEmpty(kk.table)
}

func (w *window) freeTableIfEmpty(t int32) {
	tt := &w.tables[t]
	if tt.keys == 0 && tt.overFrom == 0 && tt.hash != 0 {
		delete(w.tableOf, tt.hash)
		tt.hash = 0
		w.freeTable = append(w.freeTable, t)
	}
}
