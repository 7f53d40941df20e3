package backfill

import (
	"fmt"
	"sync"
	"time"
)

// meters know how fast consumers work.
type meters struct {
	mu sync.Mutex
	of map[string]*meter
}

// meter is what is known of one consumer.
type meter struct {
	acked   uint64
	ackedAt time.Time // when acked was last seen to grow; zero: never
	since   time.Time // of the sample
	sample  uint64
	pace    float64 // acks per second
}

// paceOver is the time over which a pace is measured.
const paceOver = time.Second

// observe takes in how the consumer stands now.
func (m *meters) observe(id string, now time.Time, s Standing) meter {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.of == nil {
		m.of = map[string]*meter{}
	}
	k := m.of[id]
	if k == nil {
		k = &meter{acked: s.Acked, since: now, sample: s.Acked}
		m.of[id] = k
	}
	if s.Acked > k.acked {
		k.ackedAt = now
	}
	k.acked = s.Acked
	if d := now.Sub(k.since); d >= paceOver {
		k.pace = (k.pace + float64(s.Acked-min(k.sample, s.Acked))/d.Seconds()) / 2
		k.since, k.sample = now, s.Acked
	}
	return *k
}

func (m *meters) forget(id string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.of, id)
}

// holds says why a consumer gets no further page now, or nothing.
func (r *Runner) holds(c *Consumer, now time.Time) string {
	if c.Standing == nil {
		return ""
	}
	s := c.Standing()
	m := r.meters.observe(c.ID, now, s)
	working := !s.Paused && !m.ackedAt.IsZero() && now.Sub(m.ackedAt) < r.tune.present
	switch {
	case working && s.Pending > max(r.tune.few, uint64(2*m.pace)):
		return fmt.Sprintf("waits for the workers of %s: they have much to do, and live changes go first", c.Name)
	case !working && s.Paused && s.Pending > r.tune.ahead:
		return fmt.Sprintf("waits for %s, which is paused, and for which more than %d changes wait: resume it", c.Name, r.tune.ahead)
	case !working && s.Pending > r.tune.ahead:
		return fmt.Sprintf("waits for workers of %s: more than %d changes wait and nobody takes them; start a worker", c.Name, r.tune.ahead)
	}
	return ""
}
