package plan

import (
	"slices"
	"time"
)

// Operation is one call that carries a part of a plan out.
type Operation struct {
	What   string // [Sync] or [Consumer]
	Name   string
	Action Action // [Create], [Change] or [Delete]
	ID     string // of what is changed or deleted
	// Expected is when what is changed or deleted was changed last, as the plan saw it.
	Expected time.Time
	Body     map[string]any // of a create or a change; holds secrets
}

// Operations returns what carries the plan out, in an order that is safe to stop in:
// syncs, then consumers, then deletions, those of consumers first. A sync that has to go
// so that another one can have its schema goes before that. Items with problems are left
// out.
func (p Plan) Operations() []Operation {
	var first, syncs, consumers, last []Operation
	wanted := map[string]bool{}
	for _, i := range p.Items {
		if i.What == Sync && i.makes() && i.Problem == "" {
			wanted[i.place] = true
		}
	}
	for _, i := range p.Items {
		if i.Problem != "" {
			continue
		}
		list := i.operations()
		switch {
		case i.Action == Delete && i.What == Sync && wanted[i.place]:
			first = append(first, list...)
		case i.Action == Delete:
			last = append(last, list...)
		case i.What == Sync:
			syncs = append(syncs, list...)
		default:
			consumers = append(consumers, list...)
		}
	}
	slices.SortStableFunc(last, func(a, b Operation) int { return order(a) - order(b) })
	return slices.Concat(first, syncs, consumers, last)
}

// order puts deletions of consumers before those of syncs.
func order(o Operation) int {
	if o.What == Consumer {
		return 0
	}
	return 1
}

// operations are those of one item: a replacement has two.
func (i Item) operations() []Operation {
	gone := Operation{What: i.What, Name: i.Name, Action: Delete, ID: i.id, Expected: i.expected}
	made := Operation{What: i.What, Name: i.Name, Action: Create, Body: i.body}
	switch i.Action {
	case Create:
		return []Operation{made}
	case Change, Adopt:
		return []Operation{{What: i.What, Name: i.Name, Action: Change, ID: i.id, Expected: i.expected, Body: i.body}}
	case Replace:
		return []Operation{gone, made}
	case Delete:
		return []Operation{gone}
	case Same, Leave:
	}
	return nil
}
