package deliver

import (
	"slices"

	"pgregory.net/rapid"
)

// Retry and Drop deal with letters.
func (m *model) Retry(t *rapid.T) {
	seq, ok := m.letter(t)
	if !ok {
		return
	}
	c := m.log[seq-1]
	key := m.keyIn(seq)
	if s := m.w.lookup(seq, key); s != none {
		if m.w.entries[s].phase == blocked {
			m.w.unblock(m.now, s)
			m.letters[seq] = StateRetrying
			delete(m.notBefore, seq)
			m.attempts[seq] = 0
			m.flush()
		}
		return
	}
	if c.key = key; m.w.comes(c) {
		return
	}
	first, next := m.parked(key)
	if first != 0 && first < seq {
		return
	}
	m.w.revive(m.now, c)
	s := m.w.lookup(seq, key)
	m.late[seq] = m.w.entries[s].flags&isLate != 0 || c.sort != rowChange
	m.w.closeLetter(m.now, key, seq, next)
	m.letters[seq] = StateRetrying
	m.attempts[seq] = 0
	delete(m.durable, seq)
	delete(m.notBefore, seq)
	for i := range m.past {
		if m.past[i].token.seq == seq {
			m.past[i].fate = "lost"
		}
	}
	m.flush()
}

// Drop deletes a letter.
func (m *model) Drop(t *rapid.T) {
	seq, ok := m.letter(t)
	if !ok {
		return
	}
	key := m.keyIn(seq)
	if s := m.w.lookup(seq, key); s != none {
		if m.w.dropHeld(m.now, s) == nil {
			m.memory[seq] = true
		}
		return
	}
	_, next := m.parked(key)
	m.w.closeLetter(m.now, key, seq, next)
	delete(m.letters, seq)
	m.flush()
}

// flush saves, as the calls on letters do.
func (m *model) flush() {
	var s state
	slots := m.w.snapshot(&s)
	m.store(s, slots)
}

func (m *model) letter(t *rapid.T) (uint64, bool) {
	var list []uint64
	for seq, s := range m.letters {
		if s != StateRetrying && !m.memory[seq] {
			list = append(list, seq)
		}
	}
	if len(list) == 0 {
		return 0, false
	}
	slices.Sort(list)
	return rapid.SampledFrom(list).Draw(t, "letter"), true
}

// parked returns the first letter of a parked key, and the one after it.
func (m *model) parked(key uint64) (first, next uint64) {
	p := m.w.parkedKeys[key]
	if p == nil {
		return 0, 0
	}
	for seq, s := range m.letters {
		if s == StateParked && m.keyIn(seq) == key && seq > p.first && (next == 0 || seq < next) {
			next = seq
		}
	}
	return p.first, next
}
