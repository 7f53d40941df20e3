package tail

import (
	"slices"

	"lockstep"
	"lockstep/internal/filter"
)

// index finds the sessions of a reader that a change may concern: by its table, then by
// looking up what filters want to be equal. It is guarded by the feed's mu.
type index struct {
	members map[*Session]struct{}
	tables  map[tableName]*tableIndex

	serial uint64
	found  []*Session
}

// tableName is all of a table that selections look at.
type tableName struct{ schema, name string }

// tablesIndexed bounds the tables that an index knows at a time.
const tablesIndexed = 1024

func newIndex() *index {
	return &index{members: map[*Session]struct{}{}, tables: map[tableName]*tableIndex{}}
}

func (x *index) add(k *Session) {
	k.serial = 0 // it was another index's
	x.members[k] = struct{}{}
	for name, t := range x.tables {
		if k.selects(&lockstep.Table{Schema: name.schema, Name: name.name}) {
			t.add(k)
		}
	}
}

func (x *index) remove(k *Session) {
	delete(x.members, k)
	for name, t := range x.tables {
		if t.remove(k); len(t.places) == 0 {
			delete(x.tables, name) // also of tables that are never seen again
		}
	}
}

// concerned returns the sessions that the change may concern: all those on which their
// filter would not yield false, and few others. They are valid until the next call.
func (x *index) concerned(r lockstep.Record, in *filter.Input) []*Session {
	x.serial++
	x.found = x.found[:0]
	if r.Action().Whole() {
		for k := range x.members {
			if k.selects(r.Table()) {
				x.found = append(x.found, k)
			}
		}
		return x.found
	}
	t := x.table(r.Table())
	x.found = append(x.found, t.scan...)
	for _, l := range t.lookups {
		known := l.probe.Find(in, func(key []byte) { x.note(l.byKey[string(key)]) })
		if known {
			continue
		}
		for _, list := range l.byKey {
			x.note(list)
		}
	}
	return x.found
}

// note adds sessions to those found, each once.
func (x *index) note(list []*Session) {
	for _, k := range list {
		if k.serial != x.serial {
			k.serial = x.serial
			x.found = append(x.found, k)
		}
	}
}

func (x *index) table(of *lockstep.Table) *tableIndex {
	name := tableName{of.Schema, of.Name}
	t := x.tables[name]
	if t != nil {
		return t
	}
	if len(x.tables) >= tablesIndexed {
		clear(x.tables)
	}
	t = &tableIndex{places: map[*Session]place{}}
	for k := range x.members {
		if k.selects(of) {
			t.add(k)
		}
	}
	x.tables[name] = t
	return t
}

// tableIndex holds the sessions that select one table.
type tableIndex struct {
	scan    []*Session // to be asked about every change
	lookups []*lookup
	places  map[*Session]place
}

// lookup holds sessions by what they want something to equal.
type lookup struct {
	probe *filter.Equality
	byKey map[string][]*Session
}

// place is where a session lies in a table's index.
type place struct {
	lookup *lookup // nil: scan
	keys   []string
}

func (t *tableIndex) add(k *Session) {
	var best *filter.Equality
	least := 0
	for _, e := range k.equalities {
		// The one that tells it apart from the others best: many may want the same status.
		if crowd := t.crowd(e); best == nil || crowd < least {
			best, least = e, crowd
		}
	}
	if best == nil {
		t.scan = append(t.scan, k)
		t.places[k] = place{}
		return
	}
	l := t.find(best)
	if l == nil {
		l = &lookup{probe: best, byKey: map[string][]*Session{}}
		t.lookups = append(t.lookups, l)
	}
	for _, key := range best.Keys() {
		l.byKey[key] = append(l.byKey[key], k)
	}
	t.places[k] = place{l, best.Keys()}
}

func (t *tableIndex) find(e *filter.Equality) *lookup {
	for _, l := range t.lookups {
		if l.probe.Of() == e.Of() {
			return l
		}
	}
	return nil
}

// crowd is how many sessions at most are found with one that is looked up by e.
func (t *tableIndex) crowd(e *filter.Equality) (most int) {
	l := t.find(e)
	if l == nil {
		return 0
	}
	for _, key := range e.Keys() {
		most = max(most, len(l.byKey[key]))
	}
	return most
}

func (t *tableIndex) remove(k *Session) {
	p, ok := t.places[k]
	if !ok {
		return
	}
	delete(t.places, k)
	if p.lookup == nil {
		t.scan = without(t.scan, k)
		return
	}
	for _, key := range p.keys {
		if rest := without(p.lookup.byKey[key], k); len(rest) > 0 {
			p.lookup.byKey[key] = rest
		} else {
			delete(p.lookup.byKey, key)
		}
	}
	if len(p.lookup.byKey) == 0 {
		t.lookups = slices.DeleteFunc(t.lookups, func(l *lookup) bool { return l == p.lookup })
	}
}

func without(list []*Session, k *Session) []*Session {
	n := slices.Index(list, k)
	if n < 0 {
		return list
	}
	list[n] = list[len(list)-1]
	list[len(list)-1] = nil
	return list[:len(list)-1]
}
