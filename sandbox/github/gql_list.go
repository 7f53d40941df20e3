package github

import (
	"encoding/base64"
	"fmt"
	"slices"
	"strings"
	"time"
)

// connection is a page of a list.
type connection struct {
	nodes      []any
	cursors    []string
	total      int64
	next, prev bool
}

func (c *connection) field(name string) any {
	switch name {
	case "nodes":
		return c.nodes
	case "totalCount":
		return c.total
	case "edges":
		out := make([]any, 0, len(c.nodes))
		for i, n := range c.nodes {
			out = append(out, doc{"cursor": c.cursors[i], "node": n})
		}
		return out
	}
	info := doc{"hasNextPage": c.next, "hasPreviousPage": c.prev, "startCursor": nil, "endCursor": nil}
	if len(c.cursors) > 0 {
		info["startCursor"], info["endCursor"] = c.cursors[0], c.cursors[len(c.cursors)-1]
	}
	return info
}

// place is where an object is in a list: what it is sorted by, then its id.
type place struct {
	by string
	id int64
}

func (p place) cursor() string {
	return base64.StdEncoding.EncodeToString(fmt.Appendf(nil, "cursor:v2:%s:%d", p.by, p.id))
}

func placeOf(cursor any) (place, bool) {
	text, _ := cursor.(string)
	raw, err := base64.StdEncoding.DecodeString(text)
	rest, ok := strings.CutPrefix(string(raw), "cursor:v2:")
	i := strings.LastIndexByte(rest, ':')
	if err != nil || !ok || i < 0 {
		return place{}, false
	}
	var id int64
	_, err = fmt.Sscan(rest[i+1:], &id)
	return place{by: rest[:i], id: id}, err == nil
}

func (p place) compare(o place, down bool) int {
	order := strings.Compare(p.by, o.by)
	if order == 0 {
		order = int(min(1, max(-1, p.id-o.id)))
	}
	if down {
		return -order
	}
	return order
}

// connect cuts a page out of a list, by cursors that say where an object is, not which:
// what moved meanwhile is met again or not at all, as with GitHub's.
func connect[T any](list []T, args doc, at func(T) place) any {
	order, _ := args["orderBy"].(doc)
	down := order["direction"] == "DESC"
	slices.SortStableFunc(list, func(a, b T) int { return at(a).compare(at(b), down) })
	c := &connection{total: int64(len(list))}
	from, to := 0, len(list)
	for name, bound := range map[string]*int{"after": &from, "before": &to} {
		if args[name] == nil {
			continue
		}
		p, ok := placeOf(args[name])
		if !ok {
			return &gqlError{Kind: "INVALID_CURSOR_ARGUMENTS", Message: fmt.Sprintf("`%v` does not appear to be a valid cursor.", args[name])}
		}
		*bound = 0
		for *bound < len(list) {
			if d := at(list[*bound]).compare(p, down); d > 0 || d == 0 && name == "before" {
				break
			}
			*bound++
		}
	}
	to = max(from, to)
	if n, ok := args["first"].(int64); ok {
		to = min(to, from+int(n))
	}
	if n, ok := args["last"].(int64); ok {
		from = max(from, to-int(n))
	}
	for _, one := range list[from:to] {
		c.nodes, c.cursors = append(c.nodes, one), append(c.cursors, at(one).cursor())
	}
	c.next, c.prev = to < len(list), from > 0
	if c.nodes == nil {
		c.nodes = []any{}
	}
	return c
}

func second(t time.Time) string { return fmt.Sprintf("%012d", t.Unix()) }

// ordered says by what a list is sorted: the field of orderBy.
func ordered(args doc) string {
	order, _ := args["orderBy"].(doc)
	field, _ := order["field"].(string)
	return field
}

func issuePlace(args doc) func(view[issueData]) place {
	return func(v view[issueData]) place {
		switch ordered(args) {
		case "UPDATED_AT":
			return place{second(v.v.updated), v.id}
		case "COMMENTS":
			return place{fmt.Sprintf("%09d", v.v.comments), v.id}
		}
		return place{second(v.v.created), v.id}
	}
}

// assignees keep the order in which they were assigned.
func assignees(_ *execution, v any, args doc) any {
	list := v.(view[issueData]).v.assignees
	return connect(slices.Clone(list), args, func(a *account) place { return place{fmt.Sprintf("%03d", slices.Index(list, a)), a.id} })
}

func has(list any, want string) bool {
	all, ok := list.([]any)
	return !ok || slices.Contains(all, any(want))
}

// repositories are those of an owner.
func repositories(e *execution, v any, args doc) any {
	list := e.q.visible(func(r *repoData) bool { return r.owner == v.(*account) })
	return connect(list, args, func(v view[repoData]) place {
		switch ordered(args) {
		case "UPDATED_AT":
			return place{second(v.v.updated), v.id}
		case "PUSHED_AT":
			return place{second(v.v.pushed), v.id}
		case "NAME":
			return place{fold(v.v.name), v.id}
		case "STARGAZERS":
			return place{fmt.Sprintf("%09d", v.v.stars), v.id}
		}
		return place{second(v.v.created), v.id}
	})
}

func issueConnection(e *execution, v any, args doc) any {
	r := v.(view[repoData]).repo
	filter, _ := args["filterBy"].(doc)
	since, _ := filter["since"].(time.Time)
	return connect(r.issues.shown(e.q.now, func(v view[issueData]) bool {
		return v.v.pull == nil && has(args["states"], upper(v.v.state)) && has(filter["states"], upper(v.v.state)) && !v.v.updated.Before(since) &&
			r.labelled(v.v, args["labels"]) && r.labelled(v.v, filter["labels"])
	}), args, issuePlace(args))
}

func (r *repo) labelled(i *issueData, names any) bool {
	list, ok := names.([]any)
	if !ok {
		return true
	}
	return slices.ContainsFunc(i.labels, func(id int64) bool { l := r.labels.find(id); return l != nil && slices.Contains(list, any(l.now.name)) })
}

func pullConnection(e *execution, v any, args doc) any {
	r := v.(view[repoData]).repo
	same := func(arg, have string) bool { return args[arg] == nil || args[arg] == have }
	return connect(r.issues.shown(e.q.now, func(v view[issueData]) bool {
		return v.v.pull != nil && has(args["states"], pullState(v.v)) && r.labelled(v.v, args["labels"]) && same("baseRefName", v.v.pull.baseRef) && same("headRefName", v.v.pull.headRef)
	}), args, issuePlace(args))
}

func pullState(i *issueData) string {
	if i.pull.merged {
		return "MERGED"
	}
	return upper(i.state)
}
