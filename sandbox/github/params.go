package github

import (
	"cmp"
	"slices"
	"strconv"
)

// has says whether a write names a field.
func (q *request) has(name string) bool { _, ok := q.body[name]; return ok }

// str is a field of a write that is text; empty when it is not.
func (q *request) str(name string) string { s, _ := q.body[name].(string); return s }

// flag is a field of a write that is true or false.
func (q *request) flag(name string) bool { b, _ := q.body[name].(bool); return b }

// optional is a text that may be null.
func (q *request) optional(name string) *string {
	s, ok := q.body[name].(string)
	if !ok {
		return nil
	}
	return &s
}

// number is a variable of the path that is a number; 0 when it is none.
func (q *request) number(name string) int64 {
	n, _ := strconv.ParseInt(q.vars[name], 10, 64)
	return n
}

// names are the texts in a list, or in one of objects with that member.
func (q *request) names(field, member string) []string {
	list, _ := q.body[field].([]any)
	out := make([]string, 0, len(list))
	for _, one := range list {
		switch one := one.(type) {
		case string:
			out = append(out, one)
		case doc:
			s, _ := one[member].(string)
			out = append(out, s)
		}
	}
	return out
}

// accounts are the people that a write names.
func (q *request) people(field string) ([]*account, *Error) {
	var out []*account
	for _, login := range q.names(field, "login") {
		a := q.s.accounts[fold(login)]
		if a == nil || a.kind == kindOrg {
			return nil, invalid("Issue", field, "invalid", "")
		}
		if !slices.Contains(out, a) {
			out = append(out, a)
		}
	}
	return out, nil
}

// sortRepos sorts by full name, in the order that people expect.
func sortRepos(list []view[repoData], direction string) {
	slices.SortFunc(list, func(a, b view[repoData]) int {
		order := cmp.Compare(fold(a.v.fullName()), fold(b.v.fullName()))
		if direction == "desc" {
			return -order
		}
		return order
	})
}
