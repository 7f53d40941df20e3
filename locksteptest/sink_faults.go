package locksteptest

import (
	"context"
	"slices"
	"testing"
	"time"

	"lockstep/sink"
)

// places is at how many bytes of a conversation it is cut, in each direction.
const places = 10

// through opens a sink behind a proxy.
func (s *suite) through(t testing.TB) (*Proxy, *subject) {
	t.Helper()
	if s.Address == "" {
		t.Skip("there is no network between the sink and the destination")
	}
	p := NewProxy(t, s.Address)
	return p, s.open(t, p.Address())
}

func (s *suite) slow(t testing.TB) {
	p, sub := s.through(t)
	p.Delay(20 * time.Millisecond)
	messages := s.several(s.someKeys(2), 2)
	s.all(t, sub, messages)
	s.arrived(t, messages)
}

func (s *suite) comesBack(t testing.TB) {
	p, sub := s.through(t)
	keys := s.someKeys(2)
	messages := s.several(keys, 4)
	s.all(t, sub, messages[:4])
	p.Away()
	ctx, cancel := context.WithTimeout(t.Context(), s.Patience)
	defer cancel()
	list := sub.write(ctx, t, messages[4:])
	for i, err := range list {
		if err == nil {
			t.Errorf("message %d was delivered to a destination that is away", i)
		}
	}
	s.transient(t, list, "the destination is away")
	p.Heal()
	s.all(t, sub, messages[4:])
	s.arrived(t, messages)
}

// transient: a broken network says nothing about a message.
func (s *suite) transient(t testing.TB, list result, what string) {
	t.Helper()
	for _, err := range list {
		if err == nil {
			continue
		}
		if kind := kindOf(err); kind != sink.Retry && kind != sink.Throttled {
			t.Errorf("%s, and the error is of kind %s: %v", what, kind, err)
		}
	}
}

func (s *suite) cutUp(t testing.TB)   { s.cuts(t, Up, "the connection was cut on the way there") }
func (s *suite) cutDown(t testing.TB) { s.cuts(t, Down, "the connection was cut on the way back") }

// cuts breaks a conversation at several places: what was said to be delivered before is
// there, and the rest comes with the same sink.
func (s *suite) cuts(t testing.TB, direction Direction, what string) {
	p, sub := s.through(t)
	up, down := p.Carried()
	s.all(t, sub, s.several(s.someKeys(2), 3))
	up2, down2 := p.Carried()
	length := up2 - up
	if direction == Down {
		length = down2 - down
	}
	seen := map[int64]bool{}
	for i := range int64(places) {
		at := i // the very first bytes, then evenly
		if i >= 2 {
			at = length * (i - 1) / (places - 1)
		}
		if at = min(at, max(length-1, 0)); seen[at] {
			continue
		}
		seen[at] = true
		p, sub := s.through(t)
		p.Cut(direction, at, Ending(i%2))
		messages := s.several(s.someKeys(2), 3)
		ctx, cancel := context.WithTimeout(t.Context(), s.Patience)
		list := sub.write(ctx, t, messages)
		cancel()
		s.transient(t, list, what)
		var said, rest []sink.Message
		for i, m := range messages {
			if list[i] == nil {
				said = append(said, m)
			} else {
				rest = append(rest, m)
			}
		}
		s.present(t, said, messages)
		p.Heal()
		s.all(t, sub, rest)
		s.arrived(t, messages)
	}
}

// present checks what was said to be delivered while other messages of the same keys
// may have arrived or not.
func (s *suite) present(t testing.TB, said, all []sink.Message) {
	t.Helper()
	if s.Keeps == Newest {
		return // a later one may stand there; the end is checked
	}
	deadline := time.Now().Add(s.Patience)
	for {
		held := map[uint64]bool{}
		for _, a := range s.Arrived(t) {
			held[a.Seq] = true
		}
		at := slices.IndexFunc(said, func(m sink.Message) bool { return !held[m.Seq] })
		if at < 0 {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%d of %d messages were said to be delivered, and seq %d has not arrived", len(said), len(all), said[at].Seq)
		}
		<-time.After(10 * time.Millisecond)
	}
}
