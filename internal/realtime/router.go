package realtime

import (
	"iter"
	"slices"

	"lockstep"
	"lockstep/internal/realtime/match"
)

// anyName in the place of a schema's or a table's name stands for all.
const anyName = "*"

// binding is one postgres_changes entry of a channel. It is immutable.
type binding struct {
	sub        *subscription
	id         uint32
	order      int // among the channel's
	events     [8]bool
	schema     string // or anyName
	table      string // or anyName
	conditions []match.Condition
	selected   selection
	after      uint64 // changes up to this seq are not for it
}

// subscription is what the bindings of one channel have in common.
type subscription struct {
	channel  *channel
	bindings []*binding

	// Scratch of the router that holds it; it is never held by two.
	serial uint64
	hits   []*binding
}

// router finds the bindings that a change concerns: by its table, then by looking up
// the values of columns that equality filters name, then one by one. It is used by one
// goroutine at a time.
type router struct {
	exact   map[tableName]map[*binding]struct{}
	schemas map[string]map[*binding]struct{} // every table of a schema
	all     map[*binding]struct{}
	tables  map[tableName]*tableIndex

	serial uint64
	found  []*subscription
	key    []byte
}

func newRouter() *router {
	return &router{
		exact:   map[tableName]map[*binding]struct{}{},
		schemas: map[string]map[*binding]struct{}{},
		all:     map[*binding]struct{}{},
		tables:  map[tableName]*tableIndex{},
	}
}

func (r *router) add(b *binding) {
	b.sub.serial = 0 // it was another router's
	switch {
	case b.schema == anyName:
		r.all[b] = struct{}{}
	case b.table == anyName:
		put(r.schemas, b.schema, b)
	default:
		put(r.exact, tableName{b.schema, b.table}, b)
	}
	for _, index := range r.indexed(b) {
		index.add(b)
	}
}

func (r *router) remove(b *binding) {
	switch {
	case b.schema == anyName:
		delete(r.all, b)
	case b.table == anyName:
		drop(r.schemas, b.schema, b)
	default:
		drop(r.exact, tableName{b.schema, b.table}, b)
	}
	for name, index := range r.indexed(b) {
		index.remove(b)
		if len(index.entries) == 0 {
			delete(r.tables, name)
		}
	}
}

// indexed returns the indices that the binding belongs to.
func (r *router) indexed(b *binding) iter.Seq2[tableName, *tableIndex] {
	return func(yield func(tableName, *tableIndex) bool) {
		if b.schema != anyName && b.table != anyName {
			name := tableName{b.schema, b.table}
			if index := r.tables[name]; index != nil {
				yield(name, index)
			}
			return
		}
		for name, index := range r.tables {
			if b.selects(name) && !yield(name, index) {
				return
			}
		}
	}
}

func (b *binding) selects(name tableName) bool {
	return (b.schema == anyName || b.schema == name.schema) && (b.table == anyName || b.table == name.name)
}

func put[K comparable](m map[K]map[*binding]struct{}, key K, b *binding) {
	if m[key] == nil {
		m[key] = map[*binding]struct{}{}
	}
	m[key][b] = struct{}{}
}

func drop[K comparable](m map[K]map[*binding]struct{}, key K, b *binding) {
	delete(m[key], b)
	if len(m[key]) == 0 {
		delete(m, key)
	}
}

// concerns reports whether any binding selects the table.
func (r *router) concerns(t *lockstep.Table) bool {
	// Rows read for one consumer are no news to anybody else.
	if t.Consumer != "" {
		return false
	}
	return len(r.all) > 0 || len(r.schemas[t.Schema]) > 0 || len(r.exact[nameOf(t)]) > 0
}

// index returns the bindings of a table, bound to its columns' types.
func (r *router) index(name tableName, s *shape) *tableIndex {
	if index := r.tables[name]; index != nil && index.shape == s {
		return index
	}
	index := &tableIndex{shape: s, entries: map[*binding]*entry{}}
	for b := range r.exact[name] {
		index.add(b)
	}
	for b := range r.schemas[name.schema] {
		index.add(b)
	}
	for b := range r.all {
		if b.selects(name) {
			index.add(b)
		}
	}
	if len(r.tables) >= shapesLimit {
		r.tables = map[tableName]*tableIndex{}
	}
	r.tables[name] = index
	return index
}

// route returns the channels that the change concerns, each with its hits. They are
// valid until the next call.
func (r *router) route(index *tableIndex, c *change) []*subscription {
	r.serial++
	r.found = r.found[:0]
	for _, e := range index.scan {
		r.try(e, c)
	}
	for _, l := range index.lookups {
		cell, ok := c.row.Find(l.column)
		if !ok {
			continue
		}
		if r.key, ok = l.probe.AppendKey(r.key[:0], cell); !ok {
			continue
		}
		for _, e := range l.entries[string(r.key)] {
			r.try(e, c)
		}
	}
	return r.found
}

func (r *router) try(e *entry, c *change) {
	b := e.binding
	if !b.events[c.record.Action()&7] || c.record.Seq() <= b.after {
		return
	}
	for _, t := range e.tests {
		if !t.Match(&c.row) {
			return
		}
	}
	if b.sub.serial != r.serial {
		b.sub.serial = r.serial
		b.sub.hits = b.sub.hits[:0]
		r.found = append(r.found, b.sub)
	}
	b.sub.hits = append(b.sub.hits, b)
}

// tableIndex holds the bindings of one table.
type tableIndex struct {
	shape   *shape
	entries map[*binding]*entry
	scan    []*entry  // to be tried one by one
	lookups []*lookup // by column
}

// lookup holds the bindings that want certain values of a column.
type lookup struct {
	column  string
	probe   *match.Test
	entries map[string][]*entry // by the value's key
}

// entry is a binding in a table's index.
type entry struct {
	binding *binding
	tests   []*match.Test // those that looking up has not decided
	lookup  *lookup       // nil: it is scanned
	keys    []string
}

func (i *tableIndex) add(b *binding) {
	e, ok := newEntry(b, i.shape)
	if !ok {
		return
	}
	i.entries[b] = e
	for n, t := range e.tests {
		keys, ok := t.Keys()
		if !ok {
			continue
		}
		e.keys = slices.Compact(slices.Sorted(slices.Values(keys)))
		e.lookup = i.lookup(t)
		e.tests = slices.Delete(e.tests, n, n+1)
		for _, key := range e.keys {
			e.lookup.entries[key] = append(e.lookup.entries[key], e)
		}
		return
	}
	i.scan = append(i.scan, e)
}

// newEntry binds a binding to the columns' types. It reports false when the table lacks
// a column that the filter names, or has it of a type that cannot be compared so: then
// no row matches.
func newEntry(b *binding, s *shape) (*entry, bool) {
	e := &entry{binding: b}
	for _, c := range b.conditions {
		typname, ok := s.types[c.Column]
		if s.known && !ok {
			return nil, false
		}
		t, err := c.Compile(typname)
		if err != nil {
			return nil, false
		}
		e.tests = append(e.tests, t)
	}
	return e, true
}

// lookup returns the lookup of the column that the test is about.
func (i *tableIndex) lookup(t *match.Test) *lookup {
	for _, l := range i.lookups {
		if l.column == t.Column() {
			return l
		}
	}
	l := &lookup{column: t.Column(), probe: t, entries: map[string][]*entry{}}
	i.lookups = append(i.lookups, l)
	return l
}

func (i *tableIndex) remove(b *binding) {
	e := i.entries[b]
	if e == nil {
		return
	}
	delete(i.entries, b)
	if e.lookup == nil {
		i.scan = without(i.scan, e)
		return
	}
	for _, key := range e.keys {
		if rest := without(e.lookup.entries[key], e); len(rest) > 0 {
			e.lookup.entries[key] = rest
		} else {
			delete(e.lookup.entries, key)
		}
	}
	if len(e.lookup.entries) == 0 {
		i.lookups = slices.DeleteFunc(i.lookups, func(l *lookup) bool { return l == e.lookup })
	}
}

func without(list []*entry, e *entry) []*entry {
	n := slices.Index(list, e)
	if n < 0 {
		return list
	}
	list[n] = list[len(list)-1]
	list[len(list)-1] = nil
	return list[:len(list)-1]
}
