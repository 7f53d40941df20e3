package deliver

import (
	"time"

	"pgregory.net/rapid"
)

// The model knows every change of a log and what was told about each, and checks
// the window against the contract at each step. It knows nothing of queues.
type model struct {
	t      *rapid.T
	w      *window
	policy policy
	limits limits
	now    int64

	log     []change // seq i+1 at index i
	scanned uint64   // what the running window has been offered, from the log

	saved     []byte // the durable state
	epochSafe bool
	durable   map[uint64]bool    // settled on disk
	memory    map[uint64]bool    // settled, not yet on disk
	held      map[uint64]holding // by seq
	past      []heldToken
	delivered map[uint64]int
	letters   map[uint64]string // seq to state
	notBefore map[uint64]int64  // as nacks said
	late      map[uint64]bool   // retried after its key had gone on, or may have
	attempts  map[uint64]int    // counted since the last restart or retry, as the contract says
}

type holding struct {
	token token
	until int64
	since int64
}

type heldToken struct {
	token token
	fate  string // live, won, lost
}

func newModel(t *rapid.T) *model {
	m := &model{t: t, now: 1e15, durable: map[uint64]bool{}, memory: map[uint64]bool{}, held: map[uint64]holding{},
		delivered: map[uint64]int{}, letters: map[uint64]string{}, late: map[uint64]bool{}, notBefore: map[uint64]int64{}, attempts: map[uint64]int{}}
	m.policy = policy{
		ackWait: 10 * time.Second, backoff: Backoff{First: time.Second, Max: 8 * time.Second, Jitter: 0.1},
		maxInFlight: rapid.IntRange(1, 12).Draw(t, "max_in_flight"), maxAttempts: rapid.IntRange(0, 3).Draw(t, "max_attempts"),
		onExhausted: rapid.SampledFrom([]string{Park, ParkKey, Block}).Draw(t, "on_exhausted"),
	}
	m.limits = limits{key: rapid.IntRange(1, 6).Draw(t, "key limit"), slow: 1, total: rapid.IntRange(20, 60).Draw(t, "total limit"), cut: rapid.IntRange(0, 2).Draw(t, "cut")}
	m.limits.slow = rapid.IntRange(1, m.limits.key).Draw(t, "slow limit")
	m.w = newWindow(m.policy, 1, func() float64 { return 0.5 })
	m.w.limits = m.limits
	m.scanned = 1
	var s state
	m.w.snapshot(&s)
	m.saved = s.append(nil)
	return m
}

func (m *model) settled(seq uint64) bool { return m.durable[seq] || m.letters[seq] == StateParked }

// Append adds changes to the log.
func (m *model) Append(t *rapid.T) {
	for range rapid.IntRange(1, 8).Draw(t, "changes") {
		seq := uint64(len(m.log) + 1)
		table := rapid.Uint64Range(2, 3).Draw(t, "table")
		c := change{seq: seq, table: table, key: table*100 + rapid.Uint64Range(0, 3).Draw(t, "key")}
		switch rapid.IntRange(0, 19).Draw(t, "kind") {
		case 0:
			c.sort = tableBarrier
		case 1:
			c.sort = wholeBarrier
		case 2:
			c.fault = "filter: bad"
		}
		m.log = append(m.log, c)
	}
}

// Scan offers the next changes, as a reader of batches does.
func (m *model) Scan(t *rapid.T) {
	for range rapid.IntRange(1, 6).Draw(t, "how far") {
		if int(m.w.head) > len(m.log) || !m.w.wantsMore(8) {
			return
		}
		c := m.log[m.w.head-1]
		m.w.offer(c)
		m.w.head = c.seq + 1
	}
	m.post()
}

// Refill reads again what the window could not keep.
func (m *model) Refill(t *rapid.T) {
	from := m.w.beginRefill()
	if from == 0 {
		return
	}
	end := min(from+rapid.Uint64Range(1, 10).Draw(t, "how far"), m.w.head)
	for seq := from; seq < end; seq++ {
		if c := m.log[seq-1]; m.w.wants(c.seq, c.key, c.table) {
			m.w.refill(c)
		}
	}
	m.w.refilled(max(end, min(from, m.w.head)))
	m.post()
}

// post writes the letters that are asked for.
func (m *model) post() {
	for len(m.w.parkQueue) > 0 {
		r := m.w.parkQueue[0]
		m.w.parkQueue = m.w.parkQueue[1:]
		if m.w.letterOf(r) == none {
			continue
		}
		if m.held[r.seq].token != (token{}) {
			m.t.Fatalf("change %d is parked while somebody has it", r.seq)
		}
		m.letters[r.seq] = r.state
		m.w.lettered(m.now, r)
		if r.state == StateParked {
			m.memory[r.seq] = true
		}
	}
	for _, seq := range m.w.erasable {
		delete(m.letters, seq)
		delete(m.w.spent, seq)
	}
	m.w.erasable = nil
}

// Take hands out and checks every rule of order.
func (m *model) Take(t *rapid.T) {
	m.expire()
	if !m.epochSafe {
		m.flush() // a consumer makes no token before its epoch is on disk
	}
	n := rapid.IntRange(1, 10).Draw(t, "batch")
	before := len(m.held)
	hs := m.w.take(m.now, n, "")
	if len(hs) > n || before+len(hs) > m.policy.maxInFlight {
		m.t.Fatalf("took %d of %d with %d out of %d", len(hs), n, before, m.policy.maxInFlight)
	}
	batch := map[uint64]bool{}
	for _, h := range hs {
		m.check(h, batch)
		batch[h.seq] = true
	}
	for _, h := range hs {
		tk := h.token(m.w.epoch)
		m.held[h.seq] = holding{tk, m.now + int64(m.policy.ackWait), m.now}
		m.past = append(m.past, heldToken{tk, "live"})
		m.delivered[h.seq]++
	}
	m.post()
}

func (m *model) check(h handout, batch map[uint64]bool) {
	c := m.log[h.seq-1]
	if m.durable[h.seq] && m.letters[h.seq] != StateRetrying {
		m.t.Fatalf("change %d is handed out after it was settled on disk", h.seq)
	}
	if m.memory[h.seq] {
		m.t.Fatalf("change %d is handed out after it was acked", h.seq)
	}
	if m.held[h.seq].token != (token{}) {
		m.t.Fatalf("change %d has two holders", h.seq)
	}
	if m.now < m.notBefore[h.seq] {
		m.t.Fatalf("change %d is handed out before its time", h.seq)
	}
	if want := m.attempts[h.seq] + 1; h.attempt != want {
		m.t.Fatalf("change %d: attempt %d, want %d", h.seq, h.attempt, want)
	}
	for i := range m.log {
		o := m.log[i]
		switch {
		case o.seq == c.seq:
		case m.held[o.seq].token != (token{}) && sameKey(o, c):
			m.t.Fatalf("change %d goes out while %d of its key is out", c.seq, o.seq)
		case o.seq > c.seq || batch[o.seq] && sameKey(o, c) && o.sort == rowChange && c.sort == rowChange:
		case !ordered(o, c) || m.late[c.seq] || m.late[o.seq]:
		case !m.settled(o.seq) || m.memory[o.seq] && m.letters[o.seq] != StateParked:
			m.t.Fatalf("change %d goes out before %d is settled on disk", c.seq, o.seq)
		case m.letters[o.seq] == StateParked && m.policy.onExhausted == ParkKey && sameKey(o, c):
			m.t.Fatalf("change %d goes out while the key is parked at %d", c.seq, o.seq)
		}
	}
}

func sameKey(a, b change) bool { return a.sort == rowChange && b.sort == rowChange && a.key == b.key }

// ordered reports whether b must wait for a, where a is the earlier one.
func ordered(a, b change) bool {
	if a.sort == wholeBarrier || b.sort == wholeBarrier {
		return true
	}
	return a.table == b.table && (a.sort == tableBarrier || b.sort == tableBarrier || a.key == b.key)
}

// lose says that whoever has the change has lost it, and the later ones of its key.
func (m *model) lose(seq uint64) {
	first := m.log[seq-1]
	for s := range m.held {
		if s == seq || s > seq && sameKey(m.log[s-1], first) {
			m.fate(m.held[s].token, "lost")
			delete(m.held, s)
		}
	}
}

func (m *model) fate(tk token, fate string) {
	for i := range m.past {
		if m.past[i].token == tk {
			m.past[i].fate = fate
		}
	}
}

// expire does what the contract says about leases that ran out.
func (m *model) expire() {
	for {
		first := uint64(0)
		for s, h := range m.held {
			if h.until <= m.now && (first == 0 || s < first) {
				first = s
			}
		}
		if first == 0 {
			break
		}
		if m.firstOfKey(first) {
			m.attempts[first]++
		}
		m.lose(first)
	}
	m.w.expire(m.now)
	m.post()
}

// firstOfKey reports whether nothing earlier of the change's key is unsettled here.
func (m *model) firstOfKey(seq uint64) bool {
	c := m.log[seq-1]
	if c.sort != rowChange {
		return true
	}
	for s := m.w.first; s != none; s = m.w.entries[s].aNext {
		if e := m.w.entries[s]; e.seq < seq && sameKey(m.log[e.seq-1], c) {
			return false
		}
	}
	return true
}

func (m *model) pick(t *rapid.T) *heldToken {
	if len(m.past) == 0 {
		return nil
	}
	if rapid.Bool().Draw(t, "live") {
		var live []int
		for i := range m.past {
			if m.past[i].fate == "live" {
				live = append(live, i)
			}
		}
		if len(live) > 0 {
			return &m.past[rapid.SampledFrom(live).Draw(t, "token")]
		}
	}
	return &m.past[rapid.IntRange(0, len(m.past)-1).Draw(t, "token")]
}

// Ack acks with a token, live or not.
func (m *model) Ack(t *rapid.T) {
	m.expire()
	p := m.pick(t)
	if p == nil {
		return
	}
	v := m.w.ack(p.token)
	if p.token.epoch < m.w.minEpoch {
		if v != stale {
			m.t.Fatalf("ack of %d with a token of too long ago: %d", p.token.seq, v)
		}
		return
	}
	switch p.fate {
	case "live":
		if v != applied {
			m.t.Fatalf("ack of %d by its holder: %d", p.token.seq, v)
		}
		m.memory[p.token.seq] = true
		delete(m.held, p.token.seq)
		p.fate = "won"
	case "won":
		if v != pending && v != settled {
			m.t.Fatalf("second ack of %d: %d", p.token.seq, v)
		}
		if v == settled && !m.durable[p.token.seq] {
			m.t.Fatalf("ack of %d counts as on disk before it is", p.token.seq)
		}
	case "lost":
		if v != stale {
			m.t.Fatalf("ack of %d by one who lost it: %d", p.token.seq, v)
		}
	}
}

// Nack gives back, counted or not.
func (m *model) Nack(t *rapid.T) {
	m.expire()
	p := m.pick(t)
	if p == nil || p.fate == "won" {
		return
	}
	o := NackOptions{Mode: NackMode(rapid.IntRange(0, 1).Draw(t, "mode"))}
	if rapid.Bool().Draw(t, "delayed") {
		d := time.Duration(rapid.IntRange(0, 5).Draw(t, "delay")) * time.Second
		o.Delay = &d
	}
	e := m.w.lookup(p.token.seq, m.keyIn(p.token.seq))
	repeated := e != none && m.w.entries[e].flags&nacked != 0 && m.w.entries[e].delivery == p.token.delivery && m.w.epoch == p.token.epoch
	v := m.w.nack(p.token, o, map[uint64]uint64{})
	if p.fate != "live" {
		if v != stale && !repeated {
			m.t.Fatalf("nack of %d by one who lost it: %d", p.token.seq, v)
		}
		return
	}
	if v != applied {
		m.t.Fatalf("nack of %d by its holder: %d", p.token.seq, v)
	}
	m.notBefore[p.token.seq] = m.now
	if o.Mode == Retry {
		m.attempts[p.token.seq]++
		m.notBefore[p.token.seq] += int64(min(time.Second<<(m.attempts[p.token.seq]-1), 8*time.Second))
	}
	if o.Delay != nil {
		m.notBefore[p.token.seq] = m.now + int64(*o.Delay)
	}
	m.lose(p.token.seq)
	m.post()
}

func (m *model) keyIn(seq uint64) uint64 {
	switch c := m.log[seq-1]; c.sort {
	case wholeBarrier:
		return wholeKey
	case tableBarrier:
		return c.table ^ barrierSalt
	default:
		return c.key
	}
}

// Extend moves the end of a lease.
func (m *model) Extend(t *rapid.T) {
	m.expire()
	p := m.pick(t)
	if p == nil {
		return
	}
	by := time.Duration(rapid.IntRange(1, 40).Draw(t, "by")) * time.Second
	v := m.w.extend(p.token, by)
	if (v == applied) != (p.fate == "live") {
		m.t.Fatalf("extend of %d, which is %s: %d", p.token.seq, p.fate, v)
	}
	if h, ok := m.held[p.token.seq]; ok && p.fate == "live" {
		h.until = max(h.until, m.now+int64(by))
		m.held[p.token.seq] = h
	}
}

// Wait lets time pass.
func (m *model) Wait(t *rapid.T) {
	m.now += int64(rapid.IntRange(1, 15).Draw(t, "seconds")) * int64(time.Second)
	m.expire()
}

// Save makes the state durable, or fails to.
func (m *model) Save(t *rapid.T) {
	var s state
	slots := m.w.snapshot(&s)
	if rapid.IntRange(0, 4).Draw(t, "disk") == 0 {
		m.w.unsaved(slots)
		return
	}
	m.store(s, slots)
}

func (m *model) store(s state, slots []int32) {
	m.saved, m.epochSafe = s.append(nil), true
	for _, slot := range slots {
		seq := m.w.entries[slot].seq
		m.durable[seq] = true
		delete(m.memory, seq)
		delete(m.attempts, seq)
		delete(m.late, seq)
	}
	m.w.saved(m.now, slots)
	m.post()
}

// Restart kills the process: only what was saved is left.
func (m *model) Restart(t *rapid.T) {
	s, err := parseState(m.saved)
	if err != nil {
		m.t.Fatal(err)
	}
	m.w = restore(s, m.policy, m.now, func() float64 { return 0.5 })
	m.w.limits = m.limits
	m.now += int64(time.Second)
	m.epochSafe = false
	clear(m.held)
	clear(m.attempts)
	clear(m.notBefore)
	for s := m.w.first; s != none; s = m.w.entries[s].aNext {
		m.attempts[m.w.entries[s].seq] = int(m.w.entries[s].attempts)
	}
	for i := range m.past {
		if m.past[i].fate == "live" || m.past[i].fate == "won" && m.memory[m.past[i].token.seq] {
			m.past[i].fate = "lost"
		}
	}
	for seq := range m.memory {
		if m.letters[seq] == StateParked {
			delete(m.letters, seq) // its letter will be written again, or was a stray one
		}
	}
	for seq, state := range m.letters {
		if s := m.w.lookup(seq, m.keyIn(seq)); state == StateBlocked && (s == none || m.w.entries[s].phase != blocked) {
			delete(m.letters, seq)
		}
	}
	clear(m.memory)
	m.post()
	_ = t
}

// Check holds the window's books against the model after each step.
func (m *model) Check(t *rapid.T) {
	if got := m.w.counts[leased]; got != len(m.held) {
		t.Fatalf("%d are out, the window says %d", len(m.held), got)
	}
	checkBooks(t, m.w)
}
