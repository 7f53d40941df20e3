// Package filter compiles and runs the expressions of a consumer's filter and
// transform. The language is that of github.com/expr-lang/expr, with exact
// numbers, forgiving access and a closed set of functions; nothing of expr leaves
// this package.
//
// # Guarantees
//
//  1. An expression sees record, changes, action and metadata, as in the message,
//     and nothing else: no I/O, no clock, no randomness, no state. It gives the
//     same result for the same change, always.
//  2. It ends: work, memory and the size of the result are limited, in proportion
//     to the change. Whatever goes wrong is an error of that one evaluation; it
//     never panics and never touches another change.
//  3. Numbers are exact: nothing passes through float64. A column of type numeric
//     travels as a string and still compares as a number with a number.
//  4. What an expression does not change is copied byte for byte into the result
//     of a transform: objects, arrays and the text of numbers.
//  5. Only what the expression looks at is decoded, once per change, however many
//     programs look at it.
//  6. Errors name line and column within the expression and never hold data.
//
// # Values
//
//   - A missing field, a field of null and an index out of range are nil, which is
//     also written null: changes.status is nil when changes is null.
//   - A number is exact at any size. A string counts as a number when it is
//     compared or calculated with one and is written as Postgres writes numbers:
//     "12.50" > 12, "12.50" == 12.5. NaN equals itself and is above all others,
//     as in Postgres. Any other string is unequal to a number, and an error in <
//     and in arithmetic.
//   - Two strings compare as text, byte by byte: right for timestamps, wrong for
//     two numeric columns, which are compared by number(a) < number(b), and
//     added by number(a) + number(b), for + joins two strings.
//   - <, <=, > and >= with nil are false; arithmetic with nil is nil.
//   - Where true or false is needed, nil counts as false.
//   - a / b is exact when it can be, else it has at least 34 digits. Division by
//     zero is an error.
//   - record is nil for truncate and gap, so that a condition on a column is false
//     there: whoever delivers decides whether such changes are filtered at all.
//   - Functions over lists take nil as an empty list; functions of text give nil
//     for nil.
//
// Functions: number, int, abs, floor, ceil, round(x, digits), min, max, sum;
// string, len, upper, lower, trim, trimPrefix, trimSuffix, hasPrefix, hasSuffix,
// split, join, replace, indexOf; keys, values, get, pick, omit, merge; first,
// last, concat, reverse, sort, uniq; type, toJSON, fromJSON; and with a condition
// all, none, any, one, filter, map, find, findIndex, count, reduce. Operators are
// those of expr without ** and ^. An object inside map stands in parentheses:
// map(record.items, ({"sku": .sku})).
package filter

import (
	"errors"
	"fmt"

	"github.com/expr-lang/expr"
	"github.com/expr-lang/expr/file"
	"github.com/expr-lang/expr/types"
	"github.com/expr-lang/expr/vm"

	"lockstep"
)

// Kind says what an expression is for. It is the key of the configuration.
type Kind string

// The kinds of expression.
const (
	Filter    Kind = "filter"    // yields true for the changes that the consumer gets
	Transform Kind = "transform" // yields what takes the place of the row
)

const (
	// maxSource bounds an expression, in bytes: the parser recurses.
	maxSource = 64 << 10
	// maxNodes bounds the parts of an expression. It keeps its parts from nesting
	// deeper than stacks can take as well.
	maxNodes = 10_000
)

// Program is a compiled expression. It is immutable and safe for concurrent use.
type Program struct {
	kind   Kind
	source string
	code   *vm.Program
	needs  needs
}

// Error is what is wrong with an expression, or with its use on one change. It
// wraps [lockstep.ErrInvalid]: trying again gives the same.
type Error struct {
	Kind         Kind
	Line, Column int // from 1, in characters; 0: the expression as a whole
	Message      string
	Hint         string // what to write instead, or empty
}

// Error implements error.
func (e *Error) Error() string {
	s := string(e.Kind)
	if e.Line > 0 {
		s += fmt.Sprintf(" (line %d, column %d)", e.Line, e.Column)
	}
	s += ": " + e.Message
	if e.Hint != "" {
		s += "; " + e.Hint
	}
	return s
}

// Unwrap returns [lockstep.ErrInvalid].
func (e *Error) Unwrap() error { return lockstep.ErrInvalid }

// Compile checks an expression and makes it ready to run. The error is an [*Error].
func Compile(kind Kind, source string) (p *Program, err error) {
	defer func() {
		if r := recover(); r != nil {
			p, err = nil, &Error{Kind: kind, Message: fmt.Sprintf("cannot be compiled: %v", r)}
		}
	}()
	if err := checkSource(kind, source); err != nil {
		return nil, err
	}
	if err := checkSize(kind, source); err != nil {
		return nil, err
	}
	rw := &rewriter{source: []rune(source), functions: functions(), operators: operators(), done: map[any]bool{}}
	code, err := expr.Compile(source, rw.options()...)
	if rw.err != nil {
		return nil, compileError(kind, rw.err.Bind(file.NewSource(source)))
	}
	if err != nil {
		return nil, compileError(kind, err)
	}
	if yields := rw.resultOf(code.Node()); kind == Filter && yields != resultBool && yields != resultAny {
		return nil, &Error{
			Kind: kind, Line: 1, Column: 1, Message: fmt.Sprintf("yields %s, not true or false", yields),
			Hint: "compare it with something, for example by != nil",
		}
	}
	return &Program{kind: kind, source: source, code: code, needs: rw.needs}, nil
}

func (rw *rewriter) options() []expr.Option {
	options := []expr.Option{
		expr.Env(types.Map{
			"record": types.Any, "changes": types.Any, "metadata": types.Any, "action": types.String, runName: types.Any,
		}),
		expr.DisableAllBuiltins(),
		// The rewritten tree is not what the optimizer expects, and folds itself.
		expr.Optimize(false),
		expr.MaxNodes(maxNodes),
		expr.Patch(rw),
	}
	for name, f := range rw.functions {
		options = append(options, expr.Function(name, f.call))
	}
	for name, f := range rw.operators {
		options = append(options, expr.Function(name, f.call))
	}
	return options
}

// Source returns the expression as it was written.
func (p *Program) Source() string { return p.source }

// Match evaluates a filter. The error is an [*Error]; the change is then to be
// parked with it as the reason.
func (p *Program) Match(in *Input) (bool, error) {
	v, err := p.eval(in)
	if err != nil {
		return false, err
	}
	switch v := v.(type) {
	case bool:
		return v, nil
	case nil:
		return false, nil
	}
	return false, &Error{Kind: p.kind, Message: fmt.Sprintf("yielded %s, not true or false", typeName(v))}
}

// MatchWithin is Match for callers that must not take long: it gives up after some work,
// given in about the bytes that are looked at, beyond a few for each byte of the change.
// done is false then, and nothing is known.
func (p *Program) MatchWithin(in *Input, work int) (matched, done bool, err error) {
	in.most = work
	matched, err = p.Match(in)
	in.most = 0
	if e, ok := errors.AsType[*Error](err); ok && (in.run.left < 0 || e.Message == memoryMessage) {
		return false, false, nil
	}
	return matched, true, err
}

// memoryMessage is what expr says when lists have too many elements.
const memoryMessage = "memory budget exceeded"

// Apply evaluates a transform and returns its result as JSON, which the caller
// owns. Objects keep the order in which they were written. The error is an [*Error].
func (p *Program) Apply(in *Input) ([]byte, error) {
	v, err := p.eval(in)
	if err != nil {
		return nil, err
	}
	w := encoder{limit: in.size + maxResult}
	if err := w.value(v, maxDepth); err != nil {
		return nil, &Error{Kind: p.kind, Message: err.Error()}
	}
	return w.buf, nil
}

func (p *Program) eval(in *Input) (any, error) {
	env, err := in.prepare(p.needs)
	if err != nil {
		return nil, &Error{Kind: p.kind, Message: err.Error()}
	}
	v, err := in.machine.Run(p.code, env)
	if err != nil {
		return nil, runError(p.kind, err)
	}
	return v, nil
}

func runError(kind Kind, err error) error {
	e := &Error{Kind: kind, Message: err.Error()}
	if at, ok := errors.AsType[*file.Error](err); ok {
		e.Line, e.Column, e.Message = at.Line, at.Column+1, at.Message
	}
	return e
}
