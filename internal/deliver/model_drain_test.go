package deliver

import (
	"testing"
	"time"

	"pgregory.net/rapid"
)

// drain acks everything until nothing is left, and checks that nothing was lost.
func (m *model) drain() {
	for round := 0; ; round++ {
		if round > 10*len(m.log)+1000 {
			m.t.Fatalf("not drained: %s", dump(m.w))
		}
		m.flush()
		for seq, s := range m.letters {
			if at := m.w.lookup(seq, m.keyIn(seq)); s == StateBlocked && at != none && m.w.entries[at].phase == blocked {
				m.w.unblock(m.now, at)
				m.letters[seq], m.attempts[seq] = StateRetrying, 0
				delete(m.notBefore, seq)
			}
		}
		for int(m.w.head) <= len(m.log) && m.w.wantsMore(8) {
			m.w.offer(m.log[m.w.head-1])
			m.w.head++
		}
		m.post()
		if from := m.w.beginRefill(); from != 0 {
			for seq := from; seq < m.w.head; seq++ {
				if c := m.log[seq-1]; m.w.wants(c.seq, c.key, c.table) {
					m.w.refill(c)
				}
			}
			m.w.refilled(m.w.head)
			m.post()
		}
		m.now += int64(5 * time.Second)
		m.expire()
		batch := map[uint64]bool{}
		hs := m.w.take(m.now, 10, "")
		for _, h := range hs {
			m.check(h, batch)
			batch[h.seq] = true
		}
		for _, h := range hs {
			m.w.ack(h.token(m.w.epoch))
			m.memory[h.seq] = true
			m.delivered[h.seq]++
		}
		for seq, h := range m.held {
			m.w.ack(h.token)
			m.memory[seq] = true
			delete(m.held, seq)
		}
		if m.w.n == 0 && m.w.overflow == 0 && int(m.w.head) > len(m.log) {
			break
		}
	}
	for _, c := range m.log {
		if !m.durable[c.seq] {
			m.t.Fatalf("change %d was lost: %+v", c.seq, c)
		}
		if m.delivered[c.seq] == 0 && m.letters[c.seq] != StateParked && c.fault == "" && m.policy.onExhausted != ParkKey {
			m.t.Fatalf("change %d was never handed out", c.seq)
		}
	}
}

func TestWindowKeepsTheContract(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		m := newModel(t)
		t.Repeat(map[string]func(*rapid.T){
			"append": m.Append, "scan": m.Scan, "scan again": m.Scan, "refill": m.Refill, "take": m.Take, "take again": m.Take, "ack": m.Ack, "ack again": m.Ack,
			"nack": m.Nack, "extend": m.Extend, "wait": m.Wait, "save": m.Save, "restart": m.Restart, "retry": m.Retry, "drop": m.Drop, "": m.Check,
		})
		m.drain()
	})
}
