package github

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"slices"
	"time"

	"lockstep/sandbox"
)

// graphql answers POST /graphql.
func (q *request) graphql(r *http.Request) ([]byte, *Error) {
	q.call.Endpoint = q.method + " " + graphqlPath
	if q.method != http.MethodPost {
		return nil, notFound()
	}
	if q.who.anonymous || q.who.app {
		return nil, &Error{Status: http.StatusUnauthorized, Message: "This endpoint requires you to be authenticated.", URL: "https://docs.github.com/graphql/guides/forming-calls-with-graphql#authenticating-with-graphql"}
	}
	var asked struct {
		Query         *string
		Variables     doc
		OperationName string
	}
	raw, err := io.ReadAll(io.LimitReader(r.Body, 10<<20))
	d := json.NewDecoder(bytes.NewReader(raw))
	d.UseNumber()
	if err != nil || d.Decode(&asked) != nil {
		return nil, &Error{Status: http.StatusBadRequest, Message: "Problems parsing JSON"}
	}
	q.status = http.StatusOK
	if asked.Query == nil {
		return failed(&gqlError{Message: "A query attribute must be specified and must be a string."}), nil
	}
	document, broken := parseQuery(*asked.Query)
	if broken != nil {
		return failed(broken), nil
	}
	i := slices.IndexFunc(document.operations, func(o *operation) bool { return o.name == asked.OperationName })
	switch {
	case i < 0 && (asked.OperationName != "" || len(document.operations) > 1):
		return failed(&gqlError{Message: fmt.Sprintf("No operation named %q", asked.OperationName)}), nil
	case i < 0:
		i = 0
	}
	o := document.operations[i]
	q.mutates = o.kind == "mutation"
	c := &checker{s: q.s.schema, d: document}
	plan := c.plan(o, asked.Variables)
	if c.errs != nil {
		return failed(c.errs...), nil
	}
	return q.execute(o, plan, c)
}

func failed(errs ...*gqlError) []byte {
	list := make([]any, 0, len(errs))
	for _, e := range errs {
		list = append(list, e.doc())
	}
	return sandbox.Encode(doc{"errors": list})
}

// execute asks the limiter and answers a query that was found to be right.
func (q *request) execute(o *operation, plan []*planned, c *checker) ([]byte, *Error) {
	leave, err := q.admit(c.cost())
	defer leave()
	if err != nil {
		return nil, err
	}
	if q.fault != nil && q.fault.Kind == faultStep {
		q.s.core.Step(max(q.fault.N, 1))
	}
	if q.mutates {
		if err := q.who.refusesWrite(); err != nil {
			return nil, err
		}
		q.s.mu.Lock()
		defer q.s.mu.Unlock()
	} else {
		q.s.mu.RLock()
		defer q.s.mu.RUnlock()
	}
	e := &execution{q: q, cost: int64(c.cost()), nodes: c.nodes}
	root := map[string]string{"query": "Query", "mutation": "Mutation"}[o.kind]
	data := e.object(root, e, plan, nil)
	out := doc{"data": data}
	if q.fault != nil && q.fault.Kind == faultPartial {
		e.cut(data)
	}
	if e.errs != nil {
		list := make([]any, 0, len(e.errs))
		for _, one := range e.errs {
			list = append(list, one.doc())
		}
		out["errors"] = list
	}
	return sandbox.Encode(out), nil
}

// execution is one query on its way.
type execution struct {
	q           *request
	cost, nodes int64
	errs        []*gqlError
}

// cut takes half of every list of nodes away, as an answer that took too long has it.
func (e *execution) cut(v any) {
	switch v := v.(type) {
	case doc:
		for name, one := range v {
			if list, ok := one.([]any); ok && name == "nodes" {
				v[name] = list[:len(list)/2]
			}
			e.cut(one)
		}
	case []any:
		for _, one := range v {
			e.cut(one)
		}
		return
	}
	if len(e.errs) == 0 {
		e.errs = append(e.errs, &gqlError{Message: "Something went wrong while executing your query. This may be the result of a timeout, or it could be a GitHub bug. Please include `" + e.q.call.RequestID + "` when reporting this issue."})
	}
}

// object resolves what was selected of an object of a type.
func (e *execution) object(typ string, v any, plan []*planned, path []any) doc {
	out := doc{}
	for _, p := range plan {
		if !e.q.s.schema.is(typ, p.on) {
			continue
		}
		if p.def == nil {
			out[p.key] = typ
			continue
		}
		at := append(slices.Clone(path), p.key)
		have, problem := e.resolve(typ, v, p)
		if problem != nil {
			problem.Path, problem.line, problem.column = at, p.at.line, p.at.column
			e.errs = append(e.errs, problem)
		}
		done := e.complete(p.def.typ, have, p.sub, at)
		if before, ok := out[p.key].(doc); ok {
			maps.Copy(before, done.(doc))
			continue
		}
		out[p.key] = done
	}
	return out
}

// complete renders a value by its type.
func (e *execution) complete(t typeRef, v any, sub []*planned, path []any) any {
	if v == nil {
		return nil
	}
	if t.list != nil {
		list, _ := v.([]any)
		out := make([]any, 0, len(list))
		for i, one := range list {
			if bad, ok := one.(*gqlError); ok {
				bad.Path = append(slices.Clone(path), int64(i))
				e.errs = append(e.errs, bad)
				one = nil
			}
			out = append(out, e.complete(*t.list, one, sub, append(slices.Clone(path), int64(i))))
		}
		return out
	}
	def := e.q.s.schema.types[t.name]
	if def.composite() {
		return e.object(concrete(def, v), v, sub, path)
	}
	switch v := v.(type) {
	case time.Time:
		return stamp(v)
	case int:
		return int64(v)
	case *string:
		return text(v)
	}
	return v
}

// concrete is the type of an object.
func concrete(def *typeDef, v any) string {
	if def.kind == "type" {
		return def.name
	}
	switch v := v.(type) {
	case *account:
		return v.kind
	case view[repoData]:
		return "Repository"
	case view[issueData]:
		if v.v.pull != nil {
			return "PullRequest"
		}
		return "Issue"
	case view[commentData]:
		return "IssueComment"
	case view[reviewData]:
		return "PullRequestReview"
	case view[lineData]:
		return "PullRequestReviewComment"
	case view[labelData]:
		return "Label"
	case view[milestoneData]:
		return "Milestone"
	case view[releaseData]:
		return "Release"
	case view[commitData]:
		return "Commit"
	}
	panic(fmt.Sprintf("github sandbox: %T is of no type of %s", v, def.name))
}

// resolve returns the value of one field.
func (e *execution) resolve(typ string, v any, p *planned) (any, *gqlError) {
	if d, ok := v.(doc); ok {
		return d[p.name], nil
	}
	if c, ok := v.(*connection); ok {
		return c.field(p.name), nil
	}
	f, ok := e.q.s.resolvers[typ][p.name]
	if !ok {
		panic(fmt.Sprintf("github sandbox: %s.%s is in the schema and not simulated", typ, p.name))
	}
	have := f(e, v, p.args)
	if bad, ok := have.(*gqlError); ok {
		return nil, bad
	}
	return have, nil
}

// resolver returns the value of a field of an object: what JSON has, a time, another
// object, a *connection, or a *gqlError.
type resolver func(e *execution, v any, args doc) any

// of makes a resolver of a function of a kind of objects.
func of[T any](f func(e *execution, v T) any) resolver {
	return func(e *execution, v any, _ doc) any { return f(e, v.(T)) }
}
