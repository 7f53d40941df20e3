package locksteptest

import (
	"context"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"lockstep"
	"lockstep/sink"
)

func (s *suite) arrives(t testing.TB) {
	sub := s.open(t, s.Address)
	var all []sink.Message
	for _, n := range []int{1, 2, 100} {
		messages := s.several(s.someKeys(n), 1)
		s.all(t, sub, messages)
		all = append(all, messages...)
	}
	s.arrived(t, all)
}

// all delivers messages of which none may be rejected.
func (s *suite) all(t testing.TB, sub *subject, messages []sink.Message) {
	t.Helper()
	if rejected := sub.deliver(t, messages); len(rejected) > 0 {
		t.Fatalf("%d of %d messages were rejected", len(rejected), len(messages))
	}
}

func (s *suite) nothing(t testing.TB) {
	sub := s.open(t, s.Address)
	if list := sub.write(t.Context(), t, nil); len(list) != 0 {
		t.Errorf("got %v", list)
	}
}

func (s *suite) ordered(t testing.TB) {
	sub := s.open(t, s.Address)
	keys := s.someKeys(5)
	messages := s.several(keys, 20)
	for chunk := range slices.Chunk(messages, 7) {
		s.all(t, sub, chunk)
	}
	s.arrived(t, messages)
}

func (s *suite) concurrent(t testing.TB) {
	sub := s.open(t, s.Address)
	var mu sync.Mutex
	var everything []sink.Message
	var callers sync.WaitGroup
	for range 8 {
		keys := s.someKeys(3)
		callers.Go(func() {
			messages := s.several(keys, 10)
			for chunk := range slices.Chunk(messages, 4) {
				s.all(t, sub, chunk)
			}
			mu.Lock()
			defer mu.Unlock()
			everything = append(everything, messages...)
		})
	}
	callers.Wait()
	s.arrived(t, everything)
}

// odd: what a key or a value may hold. A message that is too large for the destination
// may be rejected, and nothing else.
func (s *suite) odd(t testing.TB) {
	sub := s.open(t, s.Address)
	var messages []sink.Message
	for _, text := range []string{"'; drop table x; --", `a"b\c`, "line\nbreak\ttab\r", "Grüße 🚀 \u2028", "%00%s{}$1", strings.Repeat("long", 60)} {
		messages = append(messages, s.row(s.key()+text, text, lockstep.Insert))
	}
	s.all(t, sub, messages)
	s.arrived(t, messages)
	large := []sink.Message{s.row(s.key(), strings.Repeat("0123456789abcdef", 1<<16), lockstep.Insert), s.message(s.key(), lockstep.Insert)}
	if rejected := sub.deliver(t, large); len(rejected) > 0 {
		if len(rejected) > 1 || rejected[0].Seq != large[0].Seq {
			t.Fatalf("%d messages were rejected, want the large one at most", len(rejected))
		}
		large = large[1:]
	}
	s.arrived(t, large)
}

func (s *suite) deletes(t testing.TB) {
	sub := s.open(t, s.Address)
	key, other := s.key(), s.key()
	messages := []sink.Message{
		s.message(key, lockstep.Insert), s.message(other, lockstep.Read), s.message(key, lockstep.Update), s.message(key, lockstep.Delete),
	}
	s.all(t, sub, messages)
	s.arrived(t, messages)
	back := []sink.Message{s.message(key, lockstep.Insert)}
	s.all(t, sub, back)
	s.arrived(t, append(messages, back...))
	// A whole-table change is taken or rejected: the pump must get past it.
	sub.deliver(t, []sink.Message{s.message(other, lockstep.Truncate)})
	sub.deliver(t, []sink.Message{s.message(other, lockstep.Gap)})
}

func (s *suite) again(t testing.TB) {
	sub := s.open(t, s.Address)
	messages := s.several(s.someKeys(3), 4)
	s.all(t, sub, messages)
	s.all(t, sub, messages) // the acknowledgment was lost
	if !s.Idempotent {
		// What came twice stands there twice; the order of the first ones holds.
		s.arrived(t, messages)
		return
	}
	s.arrived(t, messages)
	s.all(t, s.open(t, s.Address), messages[:5]) // another process, which knows less
	s.arrived(t, messages)
}

func (s *suite) poisoned(t testing.TB) {
	if s.Poison == nil {
		t.Skip("the destination takes everything: there is no message that it rejects")
	}
	sub := s.open(t, s.Address)
	keys := s.someKeys(4)
	good := s.several(keys[:3], 2)
	bad := s.message(keys[3], lockstep.Insert)
	s.Poison(&bad)
	for _, at := range []int{0, 3, len(good)} {
		fresh := s.several(keys[:3], 2)
		rejected := sub.deliver(t, slices.Insert(slices.Clone(fresh), at, bad))
		if len(rejected) != 1 || rejected[0].Seq != bad.Seq {
			t.Fatalf("with a bad message at %d, %d were rejected, want that one", at, len(rejected))
		}
		good = fresh
		s.arrived(t, good)
	}
	for _, a := range s.Arrived(t) {
		if a.Seq == bad.Seq {
			t.Errorf("the rejected message arrived")
		}
	}
	after := s.several(keys[3:], 1)
	s.all(t, sub, after)
	s.arrived(t, after)
}

func (s *suite) kinds(t testing.TB) {
	if len(s.Trouble) == 0 {
		t.Skip("the target makes no trouble: the kinds of its errors are tested by its own tests")
	}
	for kind, trouble := range s.Trouble {
		sub := s.open(t, s.Address)
		messages := s.several(s.someKeys(2), 1)
		undo := trouble(t)
		ctx, cancel := context.WithTimeout(t.Context(), s.Patience)
		list := sub.write(ctx, t, messages)
		cancel()
		undo()
		if list[0] == nil {
			t.Errorf("%s: the first message was delivered all the same", kind)
		} else if got := kindOf(list[0]); got != kind {
			t.Errorf("got an error of kind %s, want %s: %v", got, kind, list[0])
		}
		s.all(t, sub, messages) // the trouble is over, and the sink has no memory of it
		s.arrived(t, messages)
	}
}

func (s *suite) cancelled(t testing.TB) {
	sub := s.open(t, s.Address)
	messages := s.several(s.someKeys(2), 1)
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	s.ends(t, sub, ended, messages, time.Now())
	if s.Address == "" {
		return
	}
	p := NewProxy(t, s.Address)
	sub = s.open(t, p.Address())
	s.all(t, sub, s.several(s.someKeys(1), 1)) // it is connected
	p.Stall()
	ctx, cancel := context.WithCancel(t.Context())
	timer := time.AfterFunc(100*time.Millisecond, cancel)
	defer timer.Stop()
	defer cancel()
	rescue := time.AfterFunc(max(s.Patience, 2*time.Second), p.Heal) // a sink that ignores its context would wait for ever
	defer rescue.Stop()
	s.ends(t, sub, ctx, messages, time.Now().Add(100*time.Millisecond))
	p.Heal()
	s.all(t, sub, messages)
	s.arrived(t, messages)
}

// ends checks a call whose context ends at a time.
func (s *suite) ends(t testing.TB, sub *subject, ctx context.Context, messages []sink.Message, at time.Time) {
	t.Helper()
	list := sub.write(ctx, t, messages)
	if took := time.Since(at); took > time.Second {
		t.Errorf("Write returned %s after its context had ended", took)
	}
	for i, err := range list {
		if err == nil {
			s.arrived(t, messages[i:i+1])
		} else if kind := kindOf(err); kind != sink.Retry && kind != sink.Throttled {
			t.Errorf("the context ended, and the error is of kind %s: %v", kind, err)
		}
	}
}

func (s *suite) closes(t testing.TB) {
	sub := s.open(t, s.Address)
	messages := s.several(s.someKeys(1), 1)
	s.all(t, sub, messages)
	sub.close(t.Context(), t)
	sub.close(t.Context(), t)
	late := s.several(s.someKeys(1), 1)
	began := time.Now()
	list := sub.write(t.Context(), t, late)
	if took := time.Since(began); took > time.Second {
		t.Errorf("Write on a closed sink took %s", took)
	}
	if list[0] == nil {
		s.arrived(t, late)
	}
	s.arrived(t, messages)
}
