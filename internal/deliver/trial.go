package deliver

import (
	"cmp"

	"lockstep"
)

// Trial shows what a consumer of a definition would get, without there being one. It
// is immutable and safe for concurrent use.
type Trial struct{ m *matcher }

// NewTrial makes the trial of a definition, of which it reads the database and what
// selects and forms changes: tables or collections, sync, actions, filter, transform.
// All that is wrong with them comes as one *DefinitionError. mirrored is that of
// [Config]; nil: nothing is mirrored.
func NewTrial(d Definition, mirrored func(database, schema, table string) (Mirrored, bool)) (*Trial, error) {
	d.Start, d.Name = "now", cmp.Or(d.Name, "to be tried")
	var v validation
	v.selection(d)
	if len(v.problems) > 0 {
		return nil, &DefinitionError{Name: d.Name, Problems: v.problems}
	}
	m, err := newMatcher(d, mirrored)
	if err != nil {
		return nil, err
	}
	return &Trial{m: m}, nil
}

// Wants reports whether the change is of a table and an action that the consumer gets,
// before its filter is asked.
func (t *Trial) Wants(r lockstep.Record) bool {
	return t.m.takes(r.Action()) && t.m.selects(r.Table())
}

// Verdict is what becomes of a change that a trial wants.
type Verdict struct {
	Passed bool
	// Fault tells why filter or transform failed; empty: they did not. A consumer would
	// put the change into its dead letters.
	Fault string
	// Before is the message ahead of the transform, and Message the one that workers
	// get, nil when they get none. Neither tells a token, an attempt or a consumer.
	Before, Message []byte
}

// Try runs filter and transform over a change that the trial wants.
func (t *Trial) Try(r lockstep.Record) Verdict {
	d := Delivery{Record: r}
	var known bool
	if d.form, known = t.m.formOf(r); !known {
		return Verdict{}
	}
	message := func() []byte {
		buf := d.appendMembers([]byte{'{'}, lockstep.MessageOptions{Database: t.m.database})
		return append(buf, '}')
	}
	v := Verdict{Before: message()}
	ok, fault := t.m.passes(r, t.m.input(r))
	if fault != "" || !ok {
		v.Fault = fault
		return v
	}
	row, err := t.m.row(r)
	if err != nil {
		v.Fault = "transform: " + err.Error()
		return v
	}
	v.Passed, v.Message = true, v.Before
	if d.Row = row; row != nil {
		v.Message = message()
	}
	return v
}
