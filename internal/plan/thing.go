package plan

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
	"time"
)

// thing is a sync or a consumer in the words of the file, whichever side it is from.
type thing struct {
	name     string
	database string
	fields   []field // in the order of the file; the same names on both sides

	// Of the file's side: what makes it, and what a changed field is sent with.
	create map[string]any
	group  func(field string) map[string]any

	// Of the node's side.
	id, managedBy, appliedFrom string
	updated                    time.Time

	place  string // of a sync: where its tables lie
	start  string // of a consumer: where it began
	paused string // of a sync: "true" or empty
}

// field is one part of a definition.
type field struct {
	name     string
	shown    string // JSON in one form, with a mark in the place of secrets; empty: not set
	secret   bool   // equal marks do not mean equal values
	standard bool   // it is what a definition has that says nothing of it
	fixed    bool   // it cannot be changed
	free     bool   // of the node: a file that says nothing of it does not mind
	needs    []string
}

// hidden is what a node shows in the place of a secret.
const hidden = "[hidden]"

// visible is a value for people.
func visible(shown string) string { return strings.ReplaceAll(shown, hidden, "(secret)") }

// canonical is a value as JSON in one form: keys sorted, no space.
func canonical(value any) string {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(value); err != nil {
		return fmt.Sprintf("%q", err.Error()) // JSON that was decoded always marshals
	}
	return strings.TrimSuffix(b.String(), "\n")
}

// canonicalRaw is canonical of JSON text, with its numbers as they are.
func canonicalRaw(raw json.RawMessage) string {
	d := json.NewDecoder(bytes.NewReader(raw))
	d.UseNumber()
	var v any
	if d.Decode(&v) != nil {
		return string(raw)
	}
	return canonical(v)
}

// difference is a field that differs.
type difference struct {
	field Field
	fixed bool
}

// diff returns what differs, in the order of the file.
func (m maker) diff(w, t thing) []difference {
	there := map[string]field{}
	for _, f := range t.fields {
		there[f.name] = f
	}
	var list []difference
	for _, f := range w.fields {
		old := there[f.name]
		delete(there, f.name)
		one := difference{Field{Name: f.name, Old: visible(old.shown), New: visible(f.shown)}, f.fixed}
		switch {
		case f.secret && f.shown != "" && old.shown != "" && len(f.needs) > 0 && !m.o.Secrets:
			// It is set on both sides, and that is all that can be known.
		case f.shown != old.shown:
			list = append(list, one)
		case m.o.Secrets && f.secret && f.shown != "" && t.managedBy != "file":
			one.field.New += ", sent again"
			list = append(list, one)
		}
	}
	for _, f := range t.fields {
		if _, left := there[f.name]; left && f.shown != "" && !f.free {
			list = append(list, difference{Field{Name: f.name, Old: visible(f.shown)}, f.fixed})
		}
	}
	return list
}

// patch is the body that changes what differs.
func (t thing) patch(diff []difference) map[string]any {
	body := map[string]any{}
	for _, d := range diff {
		merge(body, t.group(d.field.Name))
	}
	return body
}

// merge puts members into a body, those of objects beside each other.
func merge(into, more map[string]any) {
	for name, value := range more {
		have, inner := into[name].(map[string]any)
		add, also := value.(map[string]any)
		if inner && also {
			merge(have, add)
			continue
		}
		if also {
			value = maps.Clone(add)
		}
		into[name] = value
	}
}

// Unset is what stands in the place of a variable that is not set, for
// [config.Options].
func Unset(name string) string { return "lockstep-unset." + name + "." }

var unset = regexp.MustCompile(`lockstep-unset\.([A-Za-z_][A-Za-z0-9_]*)\.`)

// IsUnset reports whether a text holds a variable that is not set.
func IsUnset(text string) bool { return unset.MatchString(text) }

// needsOf returns the variables that must be set before a value can be sent.
func needsOf(value any) []string {
	var names []string
	for _, found := range unset.FindAllStringSubmatch(canonical(value), -1) {
		names = append(names, found[1])
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// Needs returns the variables that are not set in a text.
func Needs(text string) []string { return needsOf(text) }

func (t thing) needs() []string { return needsOf(t.create) }

// notes tells of differences that matter only when something is made.
func notes(w, t thing) []string {
	var list []string
	if w.start != t.start {
		list = append(list, fmt.Sprintf("it began at %s and not at %s: start matters when it is made, seek goes elsewhere", t.start, w.start))
	}
	if w.paused != "" && t.paused == "" {
		list = append(list, "it is not paused: paused matters when it is made, lockstep sync pause pauses it")
	}
	return list
}
