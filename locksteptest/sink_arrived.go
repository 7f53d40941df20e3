package locksteptest

import (
	"encoding/json"
	"fmt"
	"testing"
	"time"

	"lockstep"
	"lockstep/sink"
)

// arrived waits until the destination holds what it must after messages were
// delivered, in the order of each key, and fails the test when it does not.
func (s *suite) arrived(t testing.TB, messages []sink.Message) {
	t.Helper()
	deadline := time.Now().Add(s.Patience)
	for {
		wrong := s.wrong(t, messages)
		if wrong == "" {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("the destination does not hold what was delivered: %s", wrong)
		}
		<-time.After(10 * time.Millisecond)
	}
}

// wrong says what is wrong first; empty when nothing is.
func (s *suite) wrong(t testing.TB, messages []sink.Message) string {
	t.Helper()
	mine := map[uint64]sink.Message{}
	for _, m := range messages {
		mine[m.Seq] = m
	}
	var list []Arrival
	for _, a := range s.Arrived(t) {
		m, ok := mine[a.Seq]
		if !ok {
			continue
		}
		if wrong := s.compare(a, m); wrong != "" {
			return wrong
		}
		list = append(list, a)
	}
	if s.Keeps == Newest {
		return newest(list, messages)
	}
	return s.history(list, messages)
}

// compare says where an arrival differs from its message.
func (s *suite) compare(a Arrival, m sink.Message) string {
	var key []string
	if err := json.Unmarshal(m.PKs, &key); err != nil {
		return err.Error()
	}
	if a.Key != "" && (len(key) != 1 || key[0] != a.Key) {
		return fmt.Sprintf("seq %d has the key %q, want %q", a.Seq, a.Key, key)
	}
	if a.Body == nil {
		return ""
	}
	if where := differs(a.Body, s.Expect(m)); where != "" {
		return fmt.Sprintf("seq %d: %s", a.Seq, where)
	}
	return ""
}

// history checks that every message is there, and that none overtook an earlier one of
// its key: before each new one, all earlier ones have been seen. Those that came twice
// may stand in between.
func (s *suite) history(list []Arrival, messages []sink.Message) string {
	next := map[uint64][]uint64{} // the seqs of each key that were not seen yet
	keys := map[uint64]uint64{}
	for _, m := range messages {
		next[m.Key] = append(next[m.Key], m.Seq)
		keys[m.Seq] = m.Key
	}
	seen := map[uint64]bool{}
	for _, a := range list {
		key := keys[a.Seq]
		switch {
		case seen[a.Seq] && s.Idempotent:
			return fmt.Sprintf("seq %d is there twice", a.Seq)
		case seen[a.Seq]:
		case next[key][0] != a.Seq:
			return fmt.Sprintf("seq %d arrived before seq %d of its key", a.Seq, next[key][0])
		default:
			next[key] = next[key][1:]
		}
		seen[a.Seq] = true
	}
	if len(seen) < len(messages) {
		for _, m := range messages {
			if !seen[m.Seq] {
				return fmt.Sprintf("%d of %d messages are not there, the first is seq %d", len(messages)-len(seen), len(messages), m.Seq)
			}
		}
	}
	return ""
}

// newest checks that of each key the last message is there, unless it is a delete.
func newest(list []Arrival, messages []sink.Message) string {
	last := map[uint64]sink.Message{}
	for _, m := range messages {
		last[m.Key] = m
	}
	held := map[uint64]int{}
	for _, a := range list {
		held[a.Seq]++
	}
	for _, m := range messages {
		switch end := last[m.Key]; {
		case m.Seq != end.Seq && held[m.Seq] > 0:
			return fmt.Sprintf("seq %d is there, and seq %d of its key is newer", m.Seq, end.Seq)
		case m.Seq != end.Seq:
		case m.Action == lockstep.Delete && held[m.Seq] > 0:
			return fmt.Sprintf("seq %d is there, and it is a delete", m.Seq)
		case m.Action != lockstep.Delete && held[m.Seq] != 1:
			return fmt.Sprintf("seq %d, the last of its key, is there %d times", m.Seq, held[m.Seq])
		}
	}
	return ""
}
