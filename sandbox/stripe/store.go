package stripe

import (
	"fmt"
	"slices"
	"sort"
	"strconv"
	"strings"
	"time"

	"lockstep/sandbox"
)

// doc is a JSON object. Whole numbers in it are int64.
type doc = map[string]any

// row is one object. Its JSON is never changed in place: a change puts another one
// there, so that an event can keep the one it is about. Guarded by Sandbox.mu.
type row struct {
	kind    *kind
	id      string
	seq     uint64 // order of creation; for bulk rows the number in the bulk
	created int64  // in seconds, 0: not dated
	json    []byte // at the newest version; nil: of the bulk and unchanged
	keys    []string
	visible time.Time // when lists show it
	deleted bool
	bulk    *bulk // nil: json holds it
}

// table holds the objects of one kind, oldest first: first the bulk, which is made
// when it is asked for, then the rows.
type table struct {
	kind    *kind
	bulk    *bulk
	changed map[uint64]*row // rows of the bulk that were changed or deleted
	rows    []*row
	byID    map[string]*row
	index   map[string][]*row // "customer=cus_1", in the order of rows
	gone    int               // deleted rows
	seq     uint64
}

func newTable(k *kind) *table {
	return &table{kind: k, changed: map[uint64]*row{}, byID: map[string]*row{}, index: map[string][]*row{}}
}

func (t *table) count() int { return t.bulk.size() + len(t.rows) - t.gone }

// find returns the row with an id, deleted ones included, or nil.
func (t *table) find(id string) *row {
	if r := t.byID[id]; r != nil {
		return r
	}
	if n, ok := t.bulk.number(id); ok {
		return t.lazy(n)
	}
	return nil
}

// lazy returns a row of the bulk.
func (t *table) lazy(n uint64) *row {
	if r := t.changed[n]; r != nil {
		return r
	}
	return t.bulk.row(n)
}

// body returns the object's JSON at the newest version.
func (r *row) body() []byte {
	if r.json == nil && r.bulk != nil {
		return r.bulk.body(nil, r.seq)
	}
	return r.json
}

// doc returns a copy of the object to change or to show.
func (r *row) doc() doc { return sandbox.Decode(r.body()) }

// key returns what a row is filtered by.
func (r *row) key(i int) string {
	if r.keys == nil && r.bulk != nil {
		r.keys = r.kind.extract(r.doc())
	}
	return r.keys[i]
}

// insert adds a new object. Its place is by time, then by seq; events of one second
// are in the order of their ids, which is none.
func (t *table) insert(id string, d doc, visible time.Time) *row {
	t.seq++
	r := &row{kind: t.kind, id: id, seq: t.seq, keys: t.kind.extract(d), visible: visible}
	delete(d, t.kind.owner)
	r.json = sandbox.Encode(d)
	if t.kind.dated != "-" {
		r.created, _ = d[t.kind.dated].(int64)
	}
	t.rows = place(t.rows, r)
	t.byID[id] = r
	t.reindex(r, nil)
	return r
}

// update replaces an object's content.
func (t *table) update(r *row, d doc) *row {
	if r.bulk != nil && t.changed[r.seq] == nil {
		t.changed[r.seq] = r
	}
	before := r.keys
	if r.json, r.keys = sandbox.Encode(d), t.kind.extract(d); t.kind.owner != "" {
		r.keys = before
	}
	if r.bulk == nil {
		t.reindex(r, before)
	}
	return r
}

// remove deletes an object; what is left of it is its id, and for kinds that keep
// their dead the place in lists that cursors may still name.
func (t *table) remove(r *row) {
	if r.bulk != nil {
		t.changed[r.seq] = r
	}
	for i, name := range t.kind.names {
		if t.kind.index[i] && r.bulk == nil {
			t.unindex(name+"="+r.keys[i], r)
		}
	}
	r.deleted, r.json, r.keys = true, []byte{}, nil
	t.gone++
}

func (t *table) reindex(r *row, before []string) {
	for i, name := range t.kind.names {
		if !t.kind.index[i] || before != nil && before[i] == r.keys[i] {
			continue
		}
		if before != nil && before[i] != "" {
			t.unindex(name+"="+before[i], r)
		}
		if key := name + "=" + r.keys[i]; r.keys[i] != "" {
			t.index[key] = place(t.index[key], r)
		}
	}
}

func (t *table) unindex(key string, r *row) {
	list := slices.DeleteFunc(slices.Clone(t.index[key]), func(x *row) bool { return x == r })
	if len(list) == 0 {
		delete(t.index, key)
		return
	}
	t.index[key] = list
}

// place puts a row where it belongs; nearly always that is the end.
func place(rows []*row, r *row) []*row {
	i := len(rows)
	for i > 0 && r.before(rows[i-1]) {
		i--
	}
	return slices.Insert(rows, i, r)
}

func (r *row) before(other *row) bool {
	if r.created != other.created {
		return r.created < other.created
	}
	return r.seq < other.seq
}

// at returns where a row is, or would be, among rows.
func at(rows []*row, r *row) int {
	return sort.Search(len(rows), func(i int) bool { return !rows[i].before(r) })
}

// extract returns what an object is filtered by.
func (k *kind) extract(d doc) []string {
	keys := make([]string, len(k.names))
	for i, path := range k.paths {
		keys[i] = text(dig(d, path))
	}
	return keys
}

// dig follows a path; in a list it collects, each value between line feeds.
func dig(v any, path []string) any {
	for i, name := range path {
		switch at := v.(type) {
		case doc:
			v = at[name]
		case []any:
			var all strings.Builder
			for _, element := range at {
				all.WriteString("\n" + text(dig(element, path[i:])) + "\n")
			}
			return all.String()
		default:
			return nil
		}
	}
	return v
}

func text(v any) string {
	switch v := v.(type) {
	case nil:
		return ""
	case string:
		return v
	case bool:
		return strconv.FormatBool(v)
	case int64:
		return strconv.FormatInt(v, 10)
	case doc:
		return text(v["id"])
	}
	return fmt.Sprint(v)
}
