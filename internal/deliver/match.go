package deliver

import (
	"bytes"
	"fmt"

	"lockstep"
	"lockstep/internal/filter"
	"lockstep/internal/pattern"
)

// matcher decides which changes a consumer gets, and what their key is. It is
// immutable and safe for concurrent use.
type matcher struct {
	id       string // of the consumer
	database string
	tables   pattern.Patterns
	// collections select in the place of tables, when there are any.
	collections []collection
	sync        string // of the collections; empty: every sync
	mirrored    func(database, schema, table string) (Mirrored, bool)
	actions     [lockstep.Gap + 1]bool
	filter      *filter.Program // nil: none
	transform   *filter.Program // nil: none
	order       OrderBy
	columns     [][]byte // of order, as JSON strings
}

func newMatcher(d Definition, mirrored func(database, schema, table string) (Mirrored, bool)) (*matcher, error) {
	m := &matcher{id: d.ID, database: d.Database, order: d.OrderBy, sync: d.Sync, mirrored: mirrored}
	var err error
	if m.tables, err = pattern.Parse(d.Tables); err != nil {
		return nil, fmt.Errorf("tables of consumer %s: %w: %w", d.Name, err, lockstep.ErrInvalid)
	}
	for _, text := range d.Collections {
		c, err := parseCollection(text)
		if err != nil {
			return nil, fmt.Errorf("collections of consumer %s: %w: %w", d.Name, err, lockstep.ErrInvalid)
		}
		m.collections = append(m.collections, c)
	}
	actions := d.Actions
	if len(actions) == 0 {
		actions = []lockstep.Action{lockstep.Insert, lockstep.Update, lockstep.Delete}
	}
	for _, a := range append([]lockstep.Action{lockstep.Read, lockstep.Truncate, lockstep.Gap}, actions...) {
		m.actions[a] = true
	}
	if d.Filter != "" {
		if m.filter, err = filter.Compile(filter.Filter, d.Filter); err != nil {
			return nil, fmt.Errorf("filter of consumer %s: %w", d.Name, err)
		}
	}
	if d.Transform != "" {
		if m.transform, err = filter.Compile(filter.Transform, d.Transform); err != nil {
			return nil, fmt.Errorf("transform of consumer %s: %w", d.Name, err)
		}
	}
	for _, c := range d.OrderBy.Columns {
		m.columns = append(m.columns, lockstep.AppendJSONString(nil, c))
	}
	return m, nil
}

// selects reports whether changes of the table can match. A change of no single
// table concerns everybody; rows read for another consumer do not concern this one.
func (m *matcher) selects(t *lockstep.Table) bool {
	if t.Consumer != "" && t.Consumer != m.id {
		return false
	}
	return t.OID == 0 || m.selectsTable(t.Schema, t.Name)
}

// takes reports whether an action is wanted.
func (m *matcher) takes(a lockstep.Action) bool { return int(a) < len(m.actions) && m.actions[a] }

// place returns what the window must know about a change of a selected table.
// tableHash is lockstep.KeyHash of the table.
func (m *matcher) place(r lockstep.Record, tableHash uint64) change {
	c := change{seq: r.Seq(), key: r.KeyHash(), table: tableHash}
	if len(m.columns) > 0 {
		// Keys run across tables, so what concerns one table holds back all of them.
		c.table = oneTable
	}
	switch {
	case r.Action().Whole():
		c.key = wholeKey
		c.sort = tableBarrier
		if r.Table().OID == 0 || len(m.columns) > 0 {
			c.sort = wholeBarrier
		}
	case m.order.None:
		c.key = c.seq
	case len(m.columns) > 0:
		c.key = m.columnsHash(r.Row())
	}
	return c
}

// passes asks the filter; fault tells why it could not say. What concerns a whole
// table has no row to look at and always passes.
func (m *matcher) passes(r lockstep.Record, in *filter.Input) (ok bool, fault string) {
	if m.filter == nil || r.Action().Whole() {
		return true, ""
	}
	ok, err := m.filter.Match(in)
	if err != nil {
		return true, "filter: " + err.Error()
	}
	return ok, ""
}

// row applies the transform. It returns nil when there is none.
func (m *matcher) row(r lockstep.Record) ([]byte, error) {
	if m.transform == nil || r.Action().Whole() {
		return nil, nil
	}
	return m.transform.Apply(m.input(r))
}

// keyOf returns the key of a change as the window and tokens know it.
func (m *matcher) keyOf(r lockstep.Record) change { return m.place(r, lockstep.KeyHash(r.Table())) }

// columnsHash hashes the values of the order_by columns, as they stand in the JSON.
// A column that the row does not have counts as null.
func (m *matcher) columnsHash(row []byte) uint64 {
	var few [8][]byte
	values := few[:0]
	if n := len(m.columns); n > len(few) {
		values = make([][]byte, 0, n)
	}
	values = values[:len(m.columns)]
	for at := 0; ; {
		name, value, next := member(row, at)
		if name == nil {
			break
		}
		for i, c := range m.columns {
			if bytes.Equal(name, c) {
				values[i] = value
			}
		}
		at = next
	}
	h := lockstep.KeyHashPart(oneTable, nil)
	for _, v := range values {
		if len(v) == 0 || v[0] == 'n' {
			h = lockstep.KeyHashNull(h)
			continue
		}
		h = lockstep.KeyHashPart(h, v)
	}
	return h
}

// member returns the next name (with its quotes) and value of a JSON object from at
// on, and where to go on; a nil name at the end.
func member(object []byte, at int) (name, value []byte, next int) {
	for at < len(object) && object[at] != '"' {
		at++
	}
	if at >= len(object) {
		return nil, nil, at
	}
	end := stringEnd(object, at)
	name = object[at:end]
	at = end
	for at < len(object) && (object[at] == ':' || object[at] == ' ') {
		at++
	}
	end = valueEnd(object, at)
	return name, bytes.TrimSpace(object[at:end]), end
}

// stringEnd returns where the JSON string that begins at at ends.
func stringEnd(b []byte, at int) int {
	for i := at + 1; i < len(b); i++ {
		switch b[i] {
		case '\\':
			i++
		case '"':
			return i + 1
		}
	}
	return len(b)
}

// valueEnd returns where the JSON value that begins at at ends.
func valueEnd(b []byte, at int) int {
	depth := 0
	for i := at; i < len(b); i++ {
		switch b[i] {
		case '"':
			i = stringEnd(b, i) - 1
		case '{', '[':
			depth++
		case '}', ']':
			if depth == 0 {
				return i
			}
			depth--
		case ',':
			if depth == 0 {
				return i
			}
		}
	}
	return len(b)
}
