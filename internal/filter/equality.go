package filter

import (
	"encoding/json"
	"slices"
	"strconv"
	"strings"

	"github.com/expr-lang/expr/ast"
	"github.com/expr-lang/expr/parser"
)

// Equality is a condition that a filter needs to be true: something of a change equals
// one of some constants. Filters that need the same thing to have different values can
// be looked up by the value, instead of being evaluated one after the other. It is
// immutable and safe for concurrent use.
type Equality struct {
	of   *Program
	id   string
	keys []string
}

// Of tells what has to be equal. Equalities with the same Of find the same by [Equality.Find].
func (e *Equality) Of() string { return e.id }

// Keys are what stands for the constants: at least one of them is among those that
// [Equality.Find] gives for each change on which the filter yields true or fails.
func (e *Equality) Keys() []string { return e.keys }

// Find calls found with each key that stands for the value that the change has. A filter
// without any of these keys would yield false. It reports false, and has called nothing,
// when nothing can be told: any of the filters may yield true, or fail. The key is valid
// during the call only.
func (e *Equality) Find(in *Input, found func(key []byte)) bool {
	if in.size > findBytes {
		return false
	}
	v, err := e.of.eval(in)
	if err != nil {
		return false
	}
	in.key = in.key[:0]
	switch v := v.(type) {
	case nil:
		found(append(in.key, keyNull))
	case bool:
		found(keyOfBool(in.key, v))
	case string:
		in.key = append(append(in.key, keyText), v...)
		found(in.key)
		if d, ok := parseDecimal(v); ok {
			in.key = d.appendKey(append(in.key[:0], keyNumber))
			found(in.key)
		}
	case int, json.Number:
		d, ok := decimalOf(v)
		if !ok {
			return false
		}
		in.key = d.appendKey(append(in.key, keyNumber))
		found(in.key)
		in.key[0] = keySpelled
		found(in.key)
	case object, array:
		// A constant never equals them.
	default:
		return false
	}
	return true
}

// The first byte of a key. A string in a filter that spells a number has two keys: as
// the text it equals other text, as the number it equals numbers.
const (
	keyNull    = '0'
	keyTrue    = 't'
	keyFalse   = 'f'
	keyText    = 's'
	keySpelled = 'd'
	keyNumber  = 'n'
)

// Bounds within which a filter cannot run out of work before, or at, its equalities:
// else what was looked up would yield false where the whole filter fails.
const (
	findBytes     = 64 << 10
	findConstants = 256
	findTerms     = 4
)

// Equalities returns equalities that all have to hold for the filter to yield true, or
// to fail; none when there is no such thing in a form that is known. They are terms of a
// conjunction, record.customer == 42 or record.customer in [42, 43], with a remainder
// (record.id % 8 == 3) as well; those about the row come first.
func (p *Program) Equalities() []*Equality {
	tree, err := parser.Parse(p.source)
	if p.kind != Filter || err != nil {
		return nil
	}
	var found []*Equality
	constants := 0
	for _, node := range conjuncts(nil, tree.Node) {
		t, ok := termOf([]rune(p.source), node)
		if constants += len(t.values); !ok || constants > findConstants || len(found) == findTerms {
			break
		}
		e, err := p.equality(t)
		if err != nil {
			break
		}
		found = append(found, e)
		if !t.sure {
			break // it may fail, and then those behind it are not looked at
		}
	}
	slices.SortStableFunc(found, func(a, b *Equality) int { return strings.Compare(b.id[:1], a.id[:1]) })
	return found
}

func (p *Program) equality(t term) (*Equality, error) {
	of, err := Compile(Transform, t.of)
	if err != nil {
		return nil, err
	}
	id := t.of
	if p.needs.metadata {
		// It is read before anything is evaluated, and fails then if it does.
		of.needs.metadata = true
		id += " metadata"
	}
	e := &Equality{of: of, id: id}
	for _, v := range t.values {
		e.keys = appendKeys(e.keys, v)
	}
	slices.Sort(e.keys)
	e.keys = slices.Compact(e.keys)
	return e, nil
}

// appendKeys appends the keys of a constant.
func appendKeys(keys []string, v any) []string {
	switch v := v.(type) {
	case nil:
		return append(keys, string(rune(keyNull)))
	case bool:
		return append(keys, string(keyOfBool(nil, v)))
	case string:
		keys = append(keys, string(rune(keyText))+v)
		if d, ok := parseDecimal(v); ok {
			keys = append(keys, string(d.appendKey([]byte{keySpelled})))
		}
		return keys
	}
	d, _ := decimalOf(v)
	return append(keys, string(d.appendKey([]byte{keyNumber})))
}

func keyOfBool(dst []byte, v bool) []byte {
	if v {
		return append(dst, keyTrue)
	}
	return append(dst, keyFalse)
}

// appendKey appends what is the same for numbers that compare as equal, only.
func (d decimal) appendKey(dst []byte) []byte {
	if d.kind != finite {
		return append(dst, 'x', byte('0'+d.kind+1))
	}
	s := d.digits()
	way := sign(d, s)
	if way == 0 {
		return append(dst, '0')
	}
	dst = strconv.AppendInt(append(dst, byte('1'+way)), s.exp, 10)
	dst = append(append(append(dst, ':'), s.int...), s.frac...)
	for dst[len(dst)-1] == '0' {
		dst = dst[:len(dst)-1]
	}
	return dst
}

// conjuncts appends the terms of a conjunction in the order in which they are evaluated.
func conjuncts(dst []ast.Node, node ast.Node) []ast.Node {
	if n, ok := node.(*ast.BinaryNode); ok && (n.Operator == "and" || n.Operator == "&&") {
		return conjuncts(conjuncts(dst, n.Left), n.Right)
	}
	return append(dst, node)
}

// term is an equality as the expression has it.
type term struct {
	of     string // an expression
	values []any
	sure   bool // it never fails on what is JSON
}

// termOf reads a term in one of the forms that are known.
func termOf(source []rune, node ast.Node) (t term, ok bool) {
	n, ok := node.(*ast.BinaryNode)
	if !ok {
		return t, false
	}
	left, right := n.Left, n.Right
	switch n.Operator {
	case "==":
		v, ok := constantOf(source, right)
		if !ok {
			left = right
			v, ok = constantOf(source, n.Left)
		}
		if !ok {
			return t, false
		}
		t.values = []any{v}
	case "in":
		list, ok := right.(*ast.ArrayNode)
		if !ok || len(list.Nodes) == 0 {
			return t, false
		}
		for _, item := range list.Nodes {
			v, ok := constantOf(source, item)
			if !ok {
				return t, false
			}
			t.values = append(t.values, v)
		}
	default:
		return t, false
	}
	t.of, t.sure, ok = subjectOf(left)
	return t, ok
}

// constantOf returns the value of a constant as evaluations have it.
func constantOf(source []rune, node ast.Node) (any, bool) {
	switch n := node.(type) {
	case *ast.NilNode:
		return nil, true
	case *ast.IdentifierNode:
		return nil, n.Value == "null"
	case *ast.BoolNode:
		return n.Value, true
	case *ast.StringNode:
		return n.Value, true
	case *ast.IntegerNode:
		return n.Value, true
	case *ast.FloatNode:
		rw := &rewriter{source: source}
		text := rw.literal(n)
		return json.Number(text), rw.err == nil
	case *ast.UnaryNode:
		if n.Operator != "-" {
			return nil, false
		}
		switch v, _ := constantOf(source, n.Node); v := v.(type) {
		case int:
			return -v, true
		case json.Number:
			return "-" + v, v[0] != '-'
		}
	}
	return nil, false
}

// subjectOf returns the expression of something that is compared: a member, or what
// remains of it in a division.
func subjectOf(node ast.Node) (text string, sure, ok bool) {
	if n, ok := node.(*ast.BinaryNode); ok {
		by, isNumber := n.Right.(*ast.IntegerNode)
		text, _, ok := memberOf(n.Left)
		if !ok || !isNumber || n.Operator != "%" {
			return "", false, false
		}
		return text + " % " + strconv.Itoa(by.Value), false, true
	}
	text, depth, ok := memberOf(node)
	return text, depth <= 1, ok
}

// memberOf returns the expression of a member of a change, and how deep it lies.
func memberOf(node ast.Node) (text string, depth int, ok bool) {
	switch n := node.(type) {
	case *ast.IdentifierNode:
		return n.Value, 0, slices.Contains([]string{"record", "changes", "metadata", "action"}, n.Value)
	case *ast.MemberNode:
		name, isName := n.Property.(*ast.StringNode)
		text, depth, ok = memberOf(n.Node)
		// A name that needs escapes is left alone; columns hardly have one.
		if !ok || !isName || n.Optional || strings.ContainsFunc(name.Value, func(c rune) bool { return c < ' ' || c > '~' || c == '"' || c == '\\' }) {
			return "", 0, false
		}
		return text + `["` + name.Value + `"]`, depth + 1, true
	}
	return "", 0, false
}
