package torture_test

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"lockstep/client"
)

// replica is what a consumer builds who knows the messages and nothing else: tables
// of rows, whose values are the JSON that came.
type replica struct {
	terms
	tables map[string]*replicaTable
	last   client.Change
	gone   row  // the row that last deleted
	open   bool // a gap is: what a change refers to may never have come
}

type replicaTable struct {
	rows map[string][]row // by key; a table without keys may have several equal rows
}

type row map[string]cell

// cell is a value as it came.
type cell struct {
	json     string
	jsonNull bool // it is a JSON null and not SQL's
}

func newReplica(t terms) *replica { return &replica{terms: t, tables: map[string]*replicaTable{}} }

func (r *replica) table(c client.Change) *replicaTable {
	name := c.Metadata.Table()
	if now, ok := r.renamed[name]; ok {
		name = now
	}
	if r.tables[name] == nil {
		r.tables[name] = &replicaTable{rows: map[string][]row{}}
	}
	return r.tables[name]
}

// apply applies the next change of the stream. It is an error when it cannot
// follow from those before: an insert of a row that is there, an update of one that
// is not, an old value that was never there.
func (r *replica) apply(c client.Change) error {
	defer func() { r.last = c }()
	switch c.Action {
	case "gap":
		g, ok := gapOf(c)
		if !ok {
			return errors.New("a gap without its state")
		}
		r.open = g.State == "start" && (g.Reason != r.alarm || r.alarm == "")
		return nil
	case "truncate":
		clear(r.table(c).rows)
		return nil
	}
	now, err := readRow(c)
	if err != nil {
		return err
	}
	t := r.table(c)
	switch c.Action {
	case "insert", "read":
		return r.insert(t, c, now)
	case "update":
		return r.update(t, c, now)
	case "delete":
		return r.remove(t, c, now)
	}
	return fmt.Errorf("unknown action %q", c.Action)
}

func (r *replica) insert(t *replicaTable, c client.Change, now row) error {
	key := keyOf(c, now)
	if err := r.keep(c, now, r.parted(c)); err != nil && !r.open {
		return err
	}
	if c.Metadata.KeyKind != "row" && len(t.rows[key]) > 0 {
		if c.Action == "insert" && !r.open {
			return errors.New("the row is there already")
		}
		t.rows[key] = nil
	}
	t.rows[key] = append(t.rows[key], now)
	return nil
}

// parted returns the row that the change before has deleted, when this insert is
// the other half of a changed key.
func (r *replica) parted(c client.Change) row {
	before := r.last.Metadata
	if r.last.Action == "delete" && before.CommitLSN == c.Metadata.CommitLSN && before.CommitIdx+1 == c.Metadata.CommitIdx && before.Table() == c.Metadata.Table() {
		return r.gone
	}
	return nil
}

// keep fills in the columns that Postgres did not send.
func (r *replica) keep(c client.Change, now, old row) error {
	for _, column := range c.Metadata.Unchanged {
		if _, sent := now[column]; sent {
			return fmt.Errorf("column %s is said to be unchanged, and is in the record", column)
		}
		value, known := old[column]
		if !known {
			return fmt.Errorf("column %s is unchanged, and was never told", column)
		}
		now[column] = value
	}
	return nil
}

func (r *replica) update(t *replicaTable, c client.Change, now row) error {
	known := now
	if c.Metadata.OldKnown {
		changed, err := splitObject(c.Changes)
		if err != nil {
			return err
		}
		known = maps.Clone(now)
		for _, p := range changed {
			known[p.name] = cell{json: p.value, jsonNull: p.value == "null" && known[p.name].jsonNull}
		}
	}
	old, err := t.take(c, known)
	if err == nil {
		err = r.keep(c, now, old)
	}
	if err != nil && !r.open {
		return err
	}
	if c.Metadata.OldKnown && !r.open {
		if err := sameRow(old, known); err != nil {
			return fmt.Errorf("the old values are wrong: %w", err)
		}
	}
	key := keyOf(c, now)
	t.rows[key] = append(t.rows[key], now)
	return nil
}

func (r *replica) remove(t *replicaTable, c client.Change, now row) error {
	old, err := t.take(c, now)
	if err != nil && !r.open {
		return err
	}
	r.gone = old
	if c.Metadata.OldKnown && !r.open {
		if err := sameRow(old, now); err != nil {
			return fmt.Errorf("the deleted row is wrong: %w", err)
		}
	}
	return nil
}

// take removes and returns the row that a change replaces.
func (t *replicaTable) take(c client.Change, known row) (row, error) {
	key := keyOf(c, known)
	rows := t.rows[key]
	if len(rows) == 0 {
		return nil, errors.New("the row is not there")
	}
	if t.rows[key] = rows[1:]; len(rows) == 1 {
		delete(t.rows, key)
	}
	return rows[0], nil
}

// sameRow compares what two rows both say: a column that was added or dropped
// between them is in one only.
func sameRow(have, told row) error {
	for _, name := range slices.Sorted(maps.Keys(told)) {
		value, known := have[name]
		if known && value.json != told[name].json {
			return fmt.Errorf("column %s was %.200s, and is told as %.200s", name, value.json, told[name].json)
		}
	}
	return nil
}

func keyOf(c client.Change, r row) string {
	if c.Metadata.KeyKind != "row" {
		return strings.Join(c.Metadata.RecordPKs, "\x00")
	}
	var b strings.Builder
	for _, name := range slices.Sorted(maps.Keys(r)) {
		fmt.Fprintf(&b, "%s\x00%s\x00", name, r[name].json)
	}
	return b.String()
}

func readRow(c client.Change) (row, error) {
	pairs, err := splitObject(c.Record)
	if err != nil {
		return nil, err
	}
	r := make(row, len(pairs))
	for _, p := range pairs {
		if _, twice := r[p.name]; twice {
			return nil, fmt.Errorf("column %s is in the record twice", p.name)
		}
		r[p.name] = cell{p.value, slices.Contains(c.Metadata.JSONNull, p.name)}
	}
	return r, nil
}

// pair is a member of an object, its value byte for byte.
type pair struct{ name, value string }

// splitObject takes an object apart without touching its values: encoding/json
// would drop the space around them, which the type json keeps.
func splitObject(b []byte) ([]pair, error) {
	items, err := splitItems(b, '{', '}')
	if err != nil {
		return nil, err
	}
	pairs := make([]pair, len(items))
	for i, item := range items {
		end := stringEnd(item, 0)
		if end < 0 || end >= len(item) || item[end] != ':' {
			return nil, fmt.Errorf("no name at %.50s", item)
		}
		if pairs[i].name, err = unquote(item[:end]); err != nil {
			return nil, err
		}
		pairs[i].value = item[end+1:]
	}
	return pairs, nil
}

// splitItems splits at the commas between the outer brackets.
func splitItems(b []byte, open, closing byte) ([]string, error) {
	s := string(bytes.TrimSpace(b))
	if len(s) < 2 || s[0] != open || s[len(s)-1] != closing {
		return nil, fmt.Errorf("not in %c%c: %.50s", open, closing, s)
	}
	s = s[1 : len(s)-1]
	if s == "" {
		return nil, nil
	}
	var items []string
	depth, from := 0, 0
	for i := 0; i < len(s); i++ {
		switch s[i] {
		case '"':
			end := stringEnd(s, i)
			if end < 0 {
				return nil, fmt.Errorf("open string at %.50s", s[i:])
			}
			i = end - 1
		case '{', '[':
			depth++
		case '}', ']':
			depth--
		case ',':
			if depth == 0 {
				items = append(items, s[from:i])
				from = i + 1
			}
		}
	}
	return append(items, s[from:]), nil
}

// stringEnd returns the index after the JSON string that begins at s[at], or -1.
func stringEnd(s string, at int) int {
	if at >= len(s) || s[at] != '"' {
		return -1
	}
	for i := at + 1; i < len(s); i++ {
		switch s[i] {
		case '\\':
			i++
		case '"':
			return i + 1
		}
	}
	return -1
}
