package console

import (
	"cmp"
	"encoding/json"
	"fmt"
	"slices"

	"lockstep/client"
)

// rowDiff is a change column by column.
type rowDiff struct {
	Changed []column // those that a reader looks for, in the order of the table
	Rest    []column // those that stayed, or that there is no room for
	Two     bool     // old and new stand side by side
	Partial bool     // old values are not known
	Unread  string   // why the row cannot be shown; empty: it can
	Cut     bool     // a value was cut: the whole one is in the raw JSON
	Count   int
}

// column is one column of a change.
type column struct {
	Name     string
	Mark     string // changed, new, old, key, same or not sent
	Old, New value

	Within []difference // where the values differ, when they have parts
	More   int          // further places
}

// value is what a cell shows.
type value struct {
	Text string
	Null string // NULL or JSON null, when it is one
	None bool   // there is no value to show
	Size string // of a value that was cut
}

const (
	columnsShown = 60        // of a row that is shown as a whole
	valueShown   = 2 << 10   // bytes of a value
	valueSmall   = 200       // bytes of a value when the page is full
	rowShown     = 256 << 10 // bytes of all values before the page is full
)

// diffOf writes a change column by column.
func diffOf(c *client.Change) rowDiff {
	d := rowDiff{Two: c.Action == "update"}
	now, err := membersOf(c.Record, 0)
	if err == nil && d.Two {
		d.Partial = !c.Metadata.OldKnown
	}
	var before []member
	if err == nil {
		before, err = membersOf(c.Changes, 0)
	}
	if err != nil {
		d.Unread = fmt.Sprintf("The row cannot be shown here (%v): see the raw JSON.", err)
		return d
	}
	old := map[string]json.RawMessage{}
	for _, f := range before {
		old[f.Name] = f.Value
	}
	w := diffWriter{diff: &d, meta: &c.Metadata, action: c.Action}
	for _, f := range now {
		was, changed := old[f.Name]
		delete(old, f.Name)
		w.column(f, was, changed)
	}
	for _, f := range before { // columns that only the old row has
		if _, left := old[f.Name]; left {
			w.add(column{Name: f.Name, Mark: "old", Old: w.value(f), New: value{None: true}})
		}
	}
	// What a sync keeps for itself comes last.
	slices.SortStableFunc(d.Changed, func(a, b column) int { return cmp.Compare(ownColumn(a.Name), ownColumn(b.Name)) })
	for _, name := range c.Metadata.Unchanged {
		if !w.seen[name] {
			w.add(column{Name: name, Mark: "not sent", Old: value{None: true}, New: value{None: true}})
		}
	}
	return d
}

// diffWriter puts columns where they belong.
type diffWriter struct {
	diff   *rowDiff
	meta   *client.Metadata
	action string
	bytes  int
	seen   map[string]bool
}

func (w *diffWriter) column(f member, was json.RawMessage, changed bool) {
	one := column{Name: f.Name}
	switch {
	case slices.Contains(w.meta.Unchanged, f.Name):
		one.Mark, one.Old, one.New = "not sent", value{None: true}, value{None: true}
	case changed:
		one.Mark = "changed"
		if one.Within, one.More = within(was, f.Value); len(one.Within) > 0 {
			one.Old, one.New = value{None: true}, value{None: true} // the raw JSON has the rest
			break
		}
		one.Old, one.New = w.value(member{f.Name, was}), w.value(f)
	case w.action == "delete":
		one.Mark, one.Old, one.New = "old", w.value(f), value{None: true}
	case w.action == "update" && w.meta.OldKnown:
		one.Mark, one.New = "same", w.value(f)
		one.Old = one.New
	case w.action == "update":
		one.Mark, one.Old, one.New = "as it is", value{None: true}, w.value(f)
	default:
		one.Mark, one.Old, one.New = "new", value{None: true}, w.value(f)
	}
	w.add(one)
}

func (w *diffWriter) add(one column) {
	if w.seen == nil {
		w.seen = map[string]bool{}
	}
	w.seen[one.Name] = true
	w.diff.Count++
	whole := w.action != "update" || !w.meta.OldKnown
	if one.Mark == "changed" || whole && one.Mark != "not sent" && len(w.diff.Changed) < columnsShown {
		w.diff.Changed = append(w.diff.Changed, one)
		return
	}
	w.diff.Rest = append(w.diff.Rest, one)
}

// value writes a value as far as there is room.
func (w *diffWriter) value(f member) value {
	if string(f.Value) == "null" {
		if slices.Contains(w.meta.JSONNull, f.Name) {
			return value{Null: "JSON null"}
		}
		return value{Null: "NULL"}
	}
	most := valueShown
	if w.bytes > rowShown {
		most = valueSmall
	}
	if len(f.Value) <= 4*most {
		if text := plainValue(f.Value); len(text) <= most {
			w.bytes += len(text)
			return value{Text: text}
		}
	}
	w.bytes += most
	w.diff.Cut = true
	return value{Text: clip(string(f.Value[:min(len(f.Value), 2*most)]), most) + "…", Size: byteText(len(f.Value))}
}

// ownColumn orders the columns of a table's own before those that a sync adds to it.
func ownColumn(name string) int {
	if len(name) > 0 && name[0] == '_' {
		return 1
	}
	return 0
}
