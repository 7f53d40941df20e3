package filter

import (
	"bytes"
	"errors"

	"github.com/expr-lang/expr/vm"

	"lockstep"
)

// needs says which parts of a change a program looks at.
type needs struct {
	record, changes, metadata bool
}

// Limits of one evaluation.
const (
	// maxWork is what an evaluation may do whatever the change: a unit is about a
	// byte looked at or made, an operation costs opWork.
	maxWork = 16 << 20
	opWork  = 16
	// workPerByte is what it may do on top for each byte of the change.
	workPerByte = 64
	// maxResult is how many bytes a result may be larger than the change.
	maxResult = 1 << 20
	// maxElements bounds the elements of all lists that an evaluation makes.
	maxElements = 1 << 20
	// What an evaluation may use up that others wait for: work for each byte of the
	// change, on top of what is given, and elements of lists.
	quickPerByte  = 4
	quickElements = 1 << 10
	// maxDepth bounds how deep values nest.
	maxDepth = 10_000
)

var errWork = errors.New("takes too much work for one change; simplify the expression")

// Input is one change as programs see it. It decodes what they ask for, once. It
// is used by one goroutine, and valid as long as the record is.
type Input struct {
	rec      lockstep.Record
	database string
	view     func() []byte // what record is; nil: the row
	message  *doc          // the change as a whole message, in the place of all of the above; nil: it is not
	size     int           // of row and changes
	env      map[string]any
	have     needs
	run      run
	machine  vm.VM
	most     int    // work of an evaluation; 0: what is the limit for all
	key      []byte // scratch of Find
}

// NewInput makes a change ready for programs; nothing is decoded yet.
func NewInput(rec lockstep.Record, database string) *Input {
	return &Input{rec: rec, database: database, size: len(rec.Row()) + len(rec.Changes())}
}

// NewView is NewInput for a change whose record is shown in another form than its
// row: view returns it as JSON, and is called when a program looks at record, once.
// changes is nil in that form.
func NewView(rec lockstep.Record, database string, view func() []byte) *Input {
	in := NewInput(rec, database)
	in.view = view
	return in
}

// NewMessage makes a change ready for programs that is there as a whole message of the
// wire contract. Its bytes must not change while the Input is used.
func NewMessage(message []byte) *Input {
	return &Input{message: &doc{raw: message}, size: len(message)}
}

// members takes what a program looks at out of the message.
func (in *Input) members(n needs) (map[string]any, error) {
	if in.env == nil {
		in.env = map[string]any{runName: runRef{&in.run}}
	}
	in.allow()
	for name, wanted := range map[string]bool{"record": n.record, "changes": n.changes, "metadata": n.metadata, "action": true} {
		if _, there := in.env[name]; there || !wanted {
			continue
		}
		v, err := in.message.get(name)
		if err != nil {
			return nil, err
		}
		in.env[name] = v
	}
	return in.env, nil
}

// record is what programs see as record.
func (in *Input) record() []byte {
	if in.view != nil {
		return in.view()
	}
	return in.rec.Row()
}

// changes is what programs see as changes.
func (in *Input) changes() []byte {
	if in.view != nil {
		return nil
	}
	return in.rec.Changes()
}

func (in *Input) prepare(n needs) (map[string]any, error) {
	if in.message != nil {
		return in.members(n)
	}
	if in.env == nil {
		in.env = map[string]any{"action": in.rec.Action().String(), runName: runRef{&in.run}}
	}
	in.allow()
	if n.record && !in.have.record {
		in.env["record"] = decode(bytes.TrimSpace(in.record()))
		in.have.record = true
	}
	if n.changes && !in.have.changes {
		in.env["changes"] = decode(bytes.TrimSpace(in.changes()))
		in.have.changes = true
	}
	if n.metadata && !in.have.metadata {
		// The message without its row is the metadata and little more.
		small := lockstep.AppendMessage(nil, in.rec, lockstep.MessageOptions{Database: in.database, Row: []byte("null")})
		m, err := object{&doc{raw: small}}.get("metadata")
		if err != nil {
			return nil, err
		}
		in.env["metadata"] = m
		in.have.metadata = true
	}
	return in.env, nil
}

// allow sets what the next evaluation may use up.
func (in *Input) allow() {
	in.run.left, in.machine.MemoryBudget = maxWork+workPerByte*in.size, maxElements
	if in.most > 0 {
		in.run.left, in.machine.MemoryBudget = in.most+quickPerByte*in.size, quickElements
	}
}

// run is the state of one evaluation.
type run struct {
	left int // units of work
}

// runRef carries the run into functions. It is no pointer, because expr follows
// pointers that it meets.
type runRef struct{ *run }

// runName is the variable that holds it; no expression can spell it.
const runName = "the run"

func (r *run) spend(units int) error {
	if r.left -= units + opWork; r.left < 0 {
		return errWork
	}
	return nil
}
