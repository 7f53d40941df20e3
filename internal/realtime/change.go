package realtime

import (
	"slices"
	"strconv"
	"strings"
	"time"

	"lockstep"
	"lockstep/internal/realtime/match"
)

// smallColumn is how long a column's value may be to stay in a record that is too
// large as a whole.
const smallColumn = 64

// selection is the columns that a binding wants, sorted; nil is all. The key's columns
// always come.
type selection []string

func (s selection) key() string { return strings.Join(s, "\x00") }

// change is one change on its way to sockets: its row cut into columns for filters, and
// its JSON, made once for all who want the same columns. It is used by one goroutine,
// and again for the next change.
type change struct {
	limit int // of a record, in bytes

	record lockstep.Record
	shape  *shape
	row    match.Row // the new row; of a delete the old one
	old    match.Row // old values of changed columns
	made   []made
}

type made struct {
	selected string
	data     []byte
}

// reset makes it another change.
func (c *change) reset(r lockstep.Record, s *shape) {
	c.record, c.shape = r, s
	c.row.Reset(r.Row())
	c.old.Reset(r.Changes())
	clear(c.made)
	c.made = c.made[:0]
}

// data returns the change as the member data of a message. The bytes are shared.
func (c *change) data(s selection) []byte {
	key := s.key()
	for i := range c.made {
		if c.made[i].selected == key {
			return c.made[i].data
		}
	}
	data := c.build(s)
	c.made = append(c.made, made{key, data})
	return data
}

func (c *change) build(s selection) []byte {
	r := c.record
	t := r.Table()
	large := len(r.Row())+len(r.Changes()) > c.limit
	size := 256 + 2*len(r.Row()) + len(r.Changes())
	if large {
		size = 4096
	}
	dst := make([]byte, 0, size)
	dst = lockstep.AppendJSONString(append(dst, `{"schema":`...), t.Schema)
	dst = lockstep.AppendJSONString(append(dst, `,"table":`...), t.Name)
	dst = append(dst, `,"commit_timestamp":"`...)
	dst = time.UnixMicro(r.Tx().CommitTime).UTC().AppendFormat(dst, "2006-01-02T15:04:05.000Z")
	dst = append(dst, `","type":"`...)
	dst = append(dst, strings.ToUpper(r.Action().String())...)
	dst = append(dst, `","columns":[`...)
	p := picker{all: s == nil, wanted: s, keys: c.shape.keys, large: large}
	dst = c.appendColumns(dst, p)
	dst = append(dst, ']')
	if r.Action() != lockstep.Delete {
		dst = append(dst, `,"record":`...)
		dst = c.appendRow(dst, p)
	}
	if r.Action() != lockstep.Insert {
		dst = append(dst, `,"old_record":`...)
		dst = c.appendOld(dst, p)
	}
	dst = append(dst, `,"errors":`...)
	if large {
		dst = append(dst, `["Error 413: Payload Too Large"]`...)
	} else {
		dst = append(dst, "null"...)
	}
	dst = append(dst, `,"sequence":`...)
	dst = strconv.AppendUint(dst, r.Seq(), 10)
	return append(dst, '}')
}

// picker says which columns are sent.
type picker struct {
	all    bool
	wanted selection
	keys   []string
	large  bool
}

func (p picker) wants(name []byte) bool {
	if p.all {
		return true
	}
	_, ok := slices.BinarySearchFunc(p.wanted, name, func(s string, name []byte) int { return strings.Compare(s, string(name)) })
	return ok || slices.Contains(p.keys, string(name))
}

func (p picker) takes(m match.Member) bool {
	return p.wants(m.Name) && (!p.large || len(m.Value) <= smallColumn)
}

// appendColumns appends names and types of the columns that the record or the old
// record may hold.
func (c *change) appendColumns(dst []byte, p picker) []byte {
	start := len(dst)
	add := func(name []byte) {
		typname, ok := c.shape.types[string(name)]
		if !ok || !p.wants(name) {
			return
		}
		if len(dst) > start {
			dst = append(dst, ',')
		}
		dst = lockstep.AppendJSONString(append(dst, `{"name":`...), name)
		dst = lockstep.AppendJSONString(append(dst, `,"type":`...), typname)
		dst = append(dst, '}')
	}
	for _, m := range c.row.Members() {
		add(m.Name)
	}
	for _, m := range c.old.Members() {
		if _, ok := c.row.Find(string(m.Name)); !ok {
			add(m.Name)
		}
	}
	return dst
}

func (c *change) appendRow(dst []byte, p picker) []byte {
	if p.all && !p.large {
		return append(dst, c.record.Row()...)
	}
	o := objectWriter{dst: append(dst, '{')}
	for _, m := range c.row.Members() {
		if p.takes(m) {
			o.add(m.Name, m.Value)
		}
	}
	return append(o.dst, '}')
}

// appendOld appends the row as it was, as far as it is known.
func (c *change) appendOld(dst []byte, p picker) []byte {
	if c.record.Action() == lockstep.Delete {
		return c.appendRow(dst, p)
	}
	o := objectWriter{dst: append(dst, '{')}
	if !c.record.OldKnown() {
		// The key has not changed: an update that changes it is a delete and an insert.
		for _, name := range c.shape.keys {
			if v, ok := c.row.Find(name); ok && (!p.large || len(v) <= smallColumn) {
				o.add([]byte(name), v)
			}
		}
		return append(o.dst, '}')
	}
	for _, m := range c.row.Members() {
		if v, changed := c.old.Find(string(m.Name)); changed {
			m.Value = v
		}
		if p.takes(m) {
			o.add(m.Name, m.Value)
		}
	}
	for _, m := range c.old.Members() {
		if _, ok := c.row.Find(string(m.Name)); !ok && p.takes(m) {
			o.add(m.Name, m.Value)
		}
	}
	return append(o.dst, '}')
}

// objectWriter appends the members of an object.
type objectWriter struct {
	dst []byte
	any bool
}

func (o *objectWriter) add(name, value []byte) {
	if o.any {
		o.dst = append(o.dst, ',')
	}
	o.any = true
	o.dst = lockstep.AppendJSONString(o.dst, name)
	o.dst = append(append(o.dst, ':'), value...)
}
