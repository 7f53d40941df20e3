package filter

import (
	"encoding/json"
	"fmt"
	"regexp"
	"strings"

	"github.com/expr-lang/expr/ast"
	"github.com/expr-lang/expr/file"
)

// rewriter turns the tree of an expression, bottom up, into one whose operators,
// accesses and calls are functions of this package. It also notes what the
// expression needs, and the first thing in it that is not allowed.
type rewriter struct {
	source    []rune
	functions map[string]function // that expressions may call
	operators map[string]function // that operators become
	needs     needs
	err       *file.Error
	// done holds the nodes made here: a < b < c visits the middle one twice.
	done map[any]bool
}

// Visit implements ast.Visitor.
func (rw *rewriter) Visit(node *ast.Node) {
	if rw.done[*node] {
		return
	}
	switch n := (*node).(type) {
	case *ast.IdentifierNode:
		rw.identifier(node, n)
	case *ast.FloatNode:
		rw.replace(node, &ast.ConstantNode{Value: json.Number(rw.literal(n))})
	case *ast.BytesNode:
		rw.fail(n, "bytes are not available")
	case *ast.UnaryNode:
		rw.unary(node, n)
	case *ast.BinaryNode:
		rw.binary(node, n)
	case *ast.MemberNode:
		rw.call(node, opMember, n.Node, n.Property)
	case *ast.SliceNode:
		rw.call(node, opSlice, n.Node, orNil(n.From), orNil(n.To))
	case *ast.MapNode:
		rw.object(node, n)
	case *ast.ArrayNode:
		rw.array(node, n)
	case *ast.ConditionalNode:
		rw.truth(&n.Cond)
	case *ast.CallNode:
		rw.function(n)
	case *ast.BuiltinNode:
		rw.builtin(n)
	}
}

func (rw *rewriter) fail(n ast.Node, format string, args ...any) {
	if rw.err == nil {
		rw.err = &file.Error{Location: n.Location(), Message: fmt.Sprintf(format, args...)}
	}
}

func (rw *rewriter) replace(node *ast.Node, with ast.Node) {
	ast.Patch(node, with)
	rw.done[with] = true
}

// call replaces a node by a call of one of our functions.
func (rw *rewriter) call(node *ast.Node, name string, args ...ast.Node) {
	rw.replace(node, &ast.CallNode{
		Callee:    &ast.IdentifierNode{Value: name},
		Arguments: append([]ast.Node{&ast.IdentifierNode{Value: runName}}, args...),
	})
}

// wrap puts a call of a function of one argument around a node.
func (rw *rewriter) wrap(node *ast.Node, name string) { rw.call(node, name, *node) }

func (rw *rewriter) identifier(node *ast.Node, n *ast.IdentifierNode) {
	switch n.Value {
	case "record":
		rw.needs.record = true
	case "changes":
		rw.needs.changes = true
	case "metadata":
		rw.needs.metadata = true
	case "null":
		rw.replace(node, &ast.NilNode{})
	case "$env":
		rw.fail(n, "$env is not available")
	}
}

// literal returns a number as it was written: its float64 has fewer digits.
func (rw *rewriter) literal(n *ast.FloatNode) string {
	at := n.Location()
	if at.From >= 0 && at.From < at.To && at.To <= len(rw.source) {
		text := strings.ReplaceAll(string(rw.source[at.From:at.To]), "_", "")
		text = strings.TrimSuffix(text, ".")
		if strings.HasPrefix(text, ".") {
			text = "0" + text
		}
		if _, ok := parseDecimal(text); ok {
			return text
		}
	}
	rw.fail(n, "the number cannot be read: write it like 12.50")
	return "0"
}

func (rw *rewriter) unary(node *ast.Node, n *ast.UnaryNode) {
	switch n.Operator {
	case "-":
		switch v := n.Node.(type) {
		case *ast.IntegerNode:
			rw.replace(node, &ast.IntegerNode{Value: -v.Value})
			return
		case *ast.ConstantNode:
			if number, ok := v.Value.(json.Number); ok && number[0] != '-' {
				rw.replace(node, &ast.ConstantNode{Value: "-" + number})
				return
			}
		}
		rw.call(node, opMinus, n.Node)
	case "+":
		rw.call(node, opPlus, n.Node)
	default:
		rw.truth(&n.Node)
	}
}

func (rw *rewriter) binary(node *ast.Node, n *ast.BinaryNode) {
	switch n.Operator {
	case "and", "&&", "or", "||":
		rw.truth(&n.Left)
		rw.truth(&n.Right)
	case "??", "..":
	case "**", "^":
		rw.fail(n, "powers are not available")
	case "matches":
		rw.matches(node, n)
	default:
		name := operatorName(n.Operator)
		if _, ok := rw.operators[name]; !ok {
			rw.fail(n, "operator %s is not available", n.Operator)
			return
		}
		rw.call(node, name, n.Left, n.Right)
	}
}

// matches compiles the pattern once and finds its mistakes now.
func (rw *rewriter) matches(node *ast.Node, n *ast.BinaryNode) {
	pattern, ok := n.Right.(*ast.StringNode)
	if !ok {
		rw.fail(n.Right, "the pattern of matches must be a string in quotes")
		return
	}
	re, err := regexp.Compile(pattern.Value)
	if err != nil {
		rw.fail(n.Right, "the pattern is no regular expression: %v", err)
		return
	}
	constant := &ast.ConstantNode{Value: re}
	constant.SetLocation(pattern.Location())
	rw.call(node, operatorName(n.Operator), n.Left, constant)
}

func (rw *rewriter) object(node *ast.Node, n *ast.MapNode) {
	var args []ast.Node
	for _, p := range n.Pairs {
		pair, ok := p.(*ast.PairNode)
		if !ok {
			rw.fail(p, "an object is written {key: value}")
			return
		}
		args = append(args, pair.Key, pair.Value)
	}
	rw.call(node, opObject, args...)
}

// array makes a list of literals a constant, so that it is made only once.
func (rw *rewriter) array(node *ast.Node, n *ast.ArrayNode) {
	items := make([]any, 0, len(n.Nodes))
	for _, item := range n.Nodes {
		switch v := item.(type) {
		case *ast.StringNode:
			items = append(items, v.Value)
		case *ast.IntegerNode:
			items = append(items, v.Value)
		case *ast.BoolNode:
			items = append(items, v.Value)
		case *ast.NilNode:
			items = append(items, nil)
		case *ast.ConstantNode:
			items = append(items, v.Value)
		default:
			return
		}
	}
	rw.replace(node, &ast.ConstantNode{Value: items})
}

// truth makes nil count as false where expr wants true or false.
func (rw *rewriter) truth(node *ast.Node) {
	if rw.resultOf(*node) != resultBool {
		rw.wrap(node, opTruth)
	}
}

// function checks a call and passes the run to it.
func (rw *rewriter) function(n *ast.CallNode) {
	callee, ok := n.Callee.(*ast.IdentifierNode)
	if !ok {
		rw.fail(n, "values have no functions of their own: write upper(record.name), not record.name.upper()")
		return
	}
	f, ok := rw.functions[callee.Value]
	if !ok {
		rw.fail(n, "there is no function %s", callee.Value)
		return
	}
	if len(n.Arguments) < f.min || len(n.Arguments) > f.max {
		rw.fail(n, "%s takes %s, not %d", callee.Value, arguments(f), len(n.Arguments))
		return
	}
	n.Arguments = append([]ast.Node{&ast.IdentifierNode{Value: runName}}, n.Arguments...)
	rw.done[n] = true
}

func arguments(f function) string {
	switch {
	case f.max == variadic:
		return fmt.Sprintf("%d or more arguments", f.min)
	case f.min != f.max:
		return fmt.Sprintf("%d or %d arguments", f.min, f.max)
	case f.min == 1:
		return "1 argument"
	}
	return fmt.Sprintf("%d arguments", f.min)
}

// builtin prepares expr's functions with a condition: the list may be nil, and
// each turn is paid for.
func (rw *rewriter) builtin(n *ast.BuiltinNode) {
	body := opStep
	switch n.Name {
	case "all", "none", "any", "one", "filter", "find", "findIndex", "count":
		body = opTruth
	case "map", "reduce":
	case "findLast", "findLastIndex":
		// In expr 1.17.8 they leave a value behind that corrupts the rest.
		rw.fail(n, "%s is not available: find in reverse(list)", n.Name)
		return
	default:
		rw.fail(n, "there is no function %s", n.Name)
		return
	}
	if len(n.Arguments) < 2 {
		rw.fail(n, "%s takes a list and a condition, for example %s(record.tags, # == \"a\")", n.Name, n.Name)
		return
	}
	rw.wrap(&n.Arguments[0], opList)
	if predicate, ok := n.Arguments[1].(*ast.PredicateNode); ok {
		rw.wrap(&predicate.Node, body)
	}
	rw.done[n] = true
}

func orNil(n ast.Node) ast.Node {
	if n == nil {
		return &ast.NilNode{}
	}
	return n
}

// resultOf returns what is known of the value of a node.
func (rw *rewriter) resultOf(node ast.Node) result {
	switch n := node.(type) {
	case *ast.BoolNode:
		return resultBool
	case *ast.IntegerNode:
		return resultNumber
	case *ast.StringNode:
		return resultString
	case *ast.NilNode:
		return resultNull
	case *ast.ConstantNode:
		return resultOfConstant(n.Value)
	case *ast.UnaryNode, *ast.BinaryNode:
		return resultOfOperator(n)
	case *ast.ArrayNode:
		return resultArray
	case *ast.CallNode:
		return rw.resultOfCall(n)
	case *ast.BuiltinNode:
		return resultOfBuiltin(n.Name)
	case *ast.ConditionalNode:
		if a := rw.resultOf(n.Exp1); a == rw.resultOf(n.Exp2) {
			return a
		}
	case *ast.VariableDeclaratorNode:
		return rw.resultOf(n.Expr)
	case *ast.SequenceNode:
		return rw.resultOf(n.Nodes[len(n.Nodes)-1])
	}
	return resultAny
}

func resultOfConstant(v any) result {
	if _, ok := v.(json.Number); ok {
		return resultNumber
	}
	return resultArray
}

// resultOfOperator is about the operators that stay: not, and, or, ??, a range.
func resultOfOperator(node ast.Node) result {
	switch n := node.(type) {
	case *ast.UnaryNode:
		return resultBool
	case *ast.BinaryNode:
		switch n.Operator {
		case "..":
			return resultArray
		case "??":
			return resultAny
		}
		return resultBool
	}
	return resultAny
}

func (rw *rewriter) resultOfCall(n *ast.CallNode) result {
	callee, ok := n.Callee.(*ast.IdentifierNode)
	if !ok {
		return resultAny
	}
	if f, ok := rw.operators[callee.Value]; ok {
		return f.result
	}
	return rw.functions[callee.Value].result
}

func resultOfBuiltin(name string) result {
	switch name {
	case "all", "none", "any", "one":
		return resultBool
	case "map", "filter":
		return resultArray
	case "count", "findIndex":
		return resultNumber
	}
	return resultAny
}
