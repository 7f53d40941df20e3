package github

import (
	"fmt"
)

func queryTable() map[string]resolver {
	return map[string]resolver{
		"viewer": of(func(e *execution, _ *execution) any {
			if e.q.who.account == nil {
				return &gqlError{Kind: "FORBIDDEN", Message: "Resource not accessible by integration"}
			}
			return e.q.who.account
		}),
		"repository": func(e *execution, _ any, args doc) any {
			name := fmt.Sprintf("%v/%v", args["owner"], args["name"])
			r := e.q.s.names[fold(name)]
			if !e.q.who.sees(r) || args["followRenames"] == false && fold(r.now.fullName()) != fold(name) {
				return unresolved("a Repository", "name '"+name+"'")
			}
			return r.current()
		},
		"organization": byLogin("an Organization", func(a *account) bool { return a.kind == kindOrg }),
		"user":         byLogin("a User", func(a *account) bool { return a.kind != kindOrg }),
		"node": func(e *execution, _ any, args doc) any {
			return e.node(args["id"].(string))
		},
		"nodes": func(e *execution, _ any, args doc) any {
			ids, _ := args["ids"].([]any)
			out := make([]any, 0, len(ids))
			for _, id := range ids {
				out = append(out, e.node(id.(string)))
			}
			return out
		},
		"rateLimit": of(func(e *execution, _ *execution) any {
			n := e.q.standing(limitGraphQL)
			return doc{"cost": e.cost, "limit": int64(n.Limit), "nodeCount": e.nodes, "remaining": int64(n.Remaining), "resetAt": stamp(n.Reset), "used": int64(n.Used)}
		}),
	}
}

func byLogin(kind string, fits func(*account) bool) resolver {
	return func(e *execution, _ any, args doc) any {
		login, _ := args["login"].(string)
		if a := e.q.s.accounts[fold(login)]; a != nil && fits(a) {
			return a
		}
		return unresolved(kind, "login of '"+login+"'")
	}
}

// node returns the object that a node id names, or the error that GitHub has for it.
func (e *execution) node(id string) any {
	missing := &gqlError{Kind: "NOT_FOUND", Message: "Could not resolve to a node with the global id of '" + id + "'"}
	n, ok := parseNode(id)
	if !ok {
		return missing
	}
	switch n.kind {
	case nodeUser, nodeOrg:
		for _, a := range e.q.s.accounts {
			if a.node() == id {
				return a
			}
		}
		return missing
	case nodeRepo:
		n.repository = n.id
	}
	r := e.q.s.byID[n.repository]
	if !e.q.who.sees(r) {
		return missing
	}
	if n.kind == nodeRepo {
		return r.current()
	}
	if found := r.part(n); found != nil {
		return found
	}
	return missing
}

// part returns an object in a repository, or nil.
func (r *repo) part(n node) any {
	switch n.kind {
	case nodeIssue:
		if i := r.issues.find(n.id); i != nil && i.now.pull == nil {
			return i.current()
		}
	case nodePull:
		if i := r.pulls[n.id]; i != nil && i.now != nil {
			return i.current()
		}
	case nodeCommit:
		return commitAt(r, n.sha)
	case nodeComment:
		return existing(&r.comments, n.id)
	case nodeReview:
		return existing(&r.reviews, n.id)
	case nodeLine:
		return existing(&r.reviewComments, n.id)
	case nodeLabel:
		return existing(&r.labels, n.id)
	case nodeMilestone:
		return existing(&r.milestones, n.id)
	case nodeRelease:
		return existing(&r.releases, n.id)
	}
	return nil
}

func existing[T any](t *table[T], id int64) any {
	if one := t.find(id); one != nil {
		return one.current()
	}
	return nil
}

// onIssue runs a mutation of an issue that its input names.
func onIssue(field string, do func(e *execution, t *tx, i *row[issueData], input doc) any) resolver {
	return func(e *execution, _ any, args doc) any {
		input, _ := args["input"].(doc)
		id, _ := input[field].(string)
		i, ok := e.node(id).(view[issueData])
		if !ok {
			return &gqlError{Kind: "NOT_FOUND", Message: "Could not resolve to a node with the global id of '" + id + "'"}
		}
		out := do(e, e.q.tx(), i.row, input)
		if d, ok := out.(doc); ok {
			d["clientMutationId"] = input["clientMutationId"]
		}
		return out
	}
}

func mutationTable() map[string]resolver {
	return map[string]resolver{
		"deleteIssue": onIssue("issueId", func(_ *execution, t *tx, i *row[issueData], _ doc) any {
			if i.now.pull != nil {
				return &gqlError{Kind: "UNPROCESSABLE", Message: "Pull requests cannot be deleted"}
			}
			t.deleteIssue(i)
			return doc{"repository": i.repo.current()}
		}),
		"transferIssue": onIssue("issueId", func(e *execution, t *tx, i *row[issueData], input doc) any {
			id, _ := input["repositoryId"].(string)
			to, ok := e.node(id).(view[repoData])
			switch {
			case !ok:
				return &gqlError{Kind: "NOT_FOUND", Message: "Could not resolve to a node with the global id of '" + id + "'"}
			case i.now.pull != nil || to.repo == i.repo || to.v.owner != i.repo.now.owner:
				return &gqlError{Kind: "UNPROCESSABLE", Message: "Issue cannot be transferred to that repository"}
			}
			return doc{"issue": t.transferIssue(i, to.repo).current()}
		}),
		"addComment": onIssue("subjectId", func(_ *execution, t *tx, i *row[issueData], input doc) any {
			body, _ := input["body"].(string)
			t.comment(i, body)
			return doc{"subject": i.current()}
		}),
	}
}
