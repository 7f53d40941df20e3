package stripe

import (
	"iter"

	"lockstep/sandbox"
)

// Collections implements sandbox.World. The names are those of Stripe's objects.
func (s *Sandbox) Collections() []sandbox.Collection {
	s.mu.RLock()
	defer s.mu.RUnlock()
	list := make([]sandbox.Collection, 0, len(s.kinds)+1)
	for _, k := range s.kinds {
		list = append(list, sandbox.Collection{Name: k.name, Count: s.tables[k.name].count()})
	}
	return append(list, sandbox.Collection{Name: "event", Count: len(s.events.list)})
}

// Records implements sandbox.World: the objects at the newest version, as they are at
// the call, whatever happens while they are read.
func (s *Sandbox) Records(collection string) (iter.Seq2[string, []byte], bool) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if collection == "event" {
		list := append([]*event(nil), s.events.list...)
		return func(yield func(string, []byte) bool) {
			for _, e := range list {
				if !yield(e.id, e.body()) {
					return
				}
			}
		}, true
	}
	t := s.tables[collection]
	if t == nil {
		return nil, false
	}
	rows := make([]row, 0, len(t.rows))
	for _, r := range t.rows {
		rows = append(rows, *r)
	}
	changed := map[uint64]row{}
	for n, r := range t.changed {
		changed[n] = *r
	}
	return records(t.bulk, changed, rows), true
}

func records(b *bulk, changed map[uint64]row, rows []row) iter.Seq2[string, []byte] {
	return func(yield func(string, []byte) bool) {
		for n := range uint64(b.size()) {
			id, body := b.id(n), []byte(nil)
			if r, ok := changed[n]; !ok {
				body = b.body(nil, n)
			} else if !r.deleted {
				body = r.json
			}
			if body != nil && !yield(id, body) {
				return
			}
		}
		for _, r := range rows {
			if !r.deleted && !yield(r.id, r.json) {
				return
			}
		}
	}
}
