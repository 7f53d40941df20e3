package pump_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"time"

	"lockstep/internal/deliver"
	"lockstep/internal/pump"
	"lockstep/sink"
)

// model is what must have been delivered before a change may be written: of each key,
// the changes in their order.
type model struct {
	mu      sync.Mutex
	order   map[string][]uint64 // of each key, all of its changes
	through map[string]int      // of each key, how many of them were delivered
	writing map[string]bool
	random  *rand.Rand
	calm    bool // everything is taken from now on
	faults  []string
	writes  int
}

func (m *model) fault(format string, args ...any) {
	m.faults = append(m.faults, fmt.Sprintf(format, args...))
}

// enter checks that what is written may be.
func (m *model) enter(messages []sink.Message) (calm bool, dice int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.writes++
	ahead := map[string]int{}
	for _, one := range messages {
		key := string(one.PKs)
		if ahead[key] == 0 {
			if m.writing[key] {
				m.fault("key %s is written twice at once", key)
			}
			m.writing[key] = true
		}
		at := slices.Index(m.order[key], one.Seq)
		if at > m.through[key]+ahead[key] {
			m.fault("key %s: %d is written before %d was delivered", key, one.Seq, m.order[key][m.through[key]])
		}
		ahead[key] = max(ahead[key], at-m.through[key]+1, 1)
	}
	return m.calm, m.random.IntN(100)
}

// leave notes what was delivered.
func (m *model) leave(messages []sink.Message, ok func(i int) bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for i, one := range messages {
		key := string(one.PKs)
		delete(m.writing, key)
		if at := slices.Index(m.order[key], one.Seq); ok(i) && at == m.through[key] {
			m.through[key]++
		}
	}
}

// Write implements [sink.Sink]: any behaviour that the contract allows, by chance.
func (m *model) Write(ctx context.Context, messages []sink.Message) (n int, err error) {
	calm, dice := m.enter(messages)
	if calm {
		dice = 0
	}
	kinds := []sink.Kind{sink.Retry, sink.Throttled, sink.Rejected, sink.Refused}
	select {
	case <-time.After(time.Duration(dice) * 10 * time.Microsecond):
	case <-ctx.Done():
		m.leave(messages, func(int) bool { return false })
		return 0, ctx.Err()
	}
	switch {
	case dice < 60:
		m.leave(messages, func(int) bool { return true })
		return len(messages), nil
	case dice < 75:
		at := dice % len(messages)
		m.leave(messages, func(i int) bool { return i < at })
		return at, &sink.Error{Kind: kinds[dice%4], After: time.Duration(dice%3) * time.Millisecond, Message: "by chance"}
	case dice < 95:
		failed, held := []sink.Failure{}, map[string]bool{}
		for i, one := range messages {
			if key := string(one.PKs); held[key] || (i*7+dice)%3 == 0 {
				held[key] = true
				failed = append(failed, sink.Failure{Index: i, Err: &sink.Error{Kind: kinds[(i+dice)%3], Message: "by chance"}})
			}
		}
		m.leave(messages, func(i int) bool {
			return !held[string(messages[i].PKs)] || !slices.ContainsFunc(failed, func(f sink.Failure) bool { return f.Index == i })
		})
		if len(failed) == 0 {
			return len(messages), nil
		}
		return failed[0].Index, &sink.PartialError{Failed: failed}
	}
	// It arrived, and the answer got lost.
	m.leave(messages, func(int) bool { return true })
	return 0, errors.New("connection reset")
}

func (m *model) Close(context.Context) error { return nil }

// TestAnyBehaviourOfADestinationKeepsTheOrderOfEachKey runs pumps against destinations
// that behave by chance, stops and starts them, and lets leases run out.
func TestAnyBehaviourOfADestinationKeepsTheOrderOfEachKey(t *testing.T) {
	t.Parallel()
	for seed := range uint64(6) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			t.Parallel()
			random := rand.New(rand.NewPCG(seed, 7))
			const n = 1200
			keys := 1 + random.IntN(60)
			r := newRig(t)
			r.fill(n, keys)
			m := &model{order: map[string][]uint64{}, through: map[string]int{}, writing: map[string]bool{}, random: random}
			for seq := range uint64(n) {
				key := fmt.Sprintf(`["k%d"]`, int(seq)%keys)
				m.order[key] = append(m.order[key], seq+1)
			}
			size := 1 + random.IntN(30)
			c := r.consumer(func(d *deliver.Definition) {
				d.Batch.Size, d.MaxInFlight = size, 50+random.IntN(500)
				d.Backoff = deliver.Backoff{First: time.Millisecond, Max: 4 * time.Millisecond}
			})
			tune := func(c *pump.Config) {
				c.FirstPause, c.LongestPause, c.Grace = time.Millisecond, 4*time.Millisecond, 20*time.Millisecond
			}
			for range 6 {
				_, stop := pumping(t, c, m, tune)
				m.mu.Lock()
				goal := m.writes + 60
				m.mu.Unlock()
				eventually(t, "some writes", func() bool {
					m.mu.Lock()
					defer m.mu.Unlock()
					return m.writes >= goal || c.Stats().Floor == n
				})
				stop()
				if s := c.Stats(); s.InFlight != 0 {
					t.Errorf("%d changes are out after a stop", s.InFlight)
				}
			}
			m.mu.Lock()
			m.calm = true
			m.mu.Unlock()
			_, stop := pumping(t, c, m, tune)
			eventually(t, "all are settled", settled(c, n))
			stop()
			m.mu.Lock()
			defer m.mu.Unlock()
			for _, f := range m.faults[:min(len(m.faults), 10)] {
				t.Error(f)
			}
			for key, list := range m.order {
				if m.through[key] != len(list) {
					t.Errorf("key %s: %d of %d were delivered", key, m.through[key], len(list))
				}
			}
		})
	}
}
