package filter

import (
	"github.com/expr-lang/expr/ast"
	"github.com/expr-lang/expr/parser"
)

// checkSize refuses what would take expr for ever: a < b < c makes two
// comparisons that share b, each of which is checked and compiled by itself, so
// that chains within chains double at every level.
func checkSize(kind Kind, source string) error {
	tree, err := parser.Parse(source)
	if err != nil {
		// Said better when it is compiled.
		return nil
	}
	if weigh(tree.Node, map[ast.Node]int{}) > maxNodes {
		return &Error{Kind: kind, Message: "has too many parts"}
	}
	return nil
}

// weigh returns how many nodes there are below and at a node, shared ones counted
// as often as they are reached; more than maxNodes is all the same.
func weigh(node ast.Node, known map[ast.Node]int) int {
	if node == nil {
		return 0
	}
	if n, ok := known[node]; ok {
		return n
	}
	n := 1
	for _, child := range children(node) {
		n += weigh(child, known)
	}
	known[node] = min(n, maxNodes+1)
	return known[node]
}

func children(node ast.Node) []ast.Node {
	switch n := node.(type) {
	case *ast.UnaryNode:
		return []ast.Node{n.Node}
	case *ast.BinaryNode:
		return []ast.Node{n.Left, n.Right}
	case *ast.ChainNode:
		return []ast.Node{n.Node}
	case *ast.MemberNode:
		return []ast.Node{n.Node, n.Property}
	case *ast.SliceNode:
		return []ast.Node{n.Node, n.From, n.To}
	case *ast.CallNode:
		return append([]ast.Node{n.Callee}, n.Arguments...)
	case *ast.BuiltinNode:
		return n.Arguments
	case *ast.PredicateNode:
		return []ast.Node{n.Node}
	case *ast.VariableDeclaratorNode:
		return []ast.Node{n.Value, n.Expr}
	case *ast.SequenceNode:
		return n.Nodes
	case *ast.ConditionalNode:
		return []ast.Node{n.Cond, n.Exp1, n.Exp2}
	case *ast.ArrayNode:
		return n.Nodes
	case *ast.MapNode:
		return n.Pairs
	case *ast.PairNode:
		return []ast.Node{n.Key, n.Value}
	}
	return nil
}
