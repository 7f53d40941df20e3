package github

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"
)

// The sizes of pages.
const (
	defaultPage = 30
	longestPage = 100
)

// paging is which part of a list is asked for.
type paging struct{ page, size int }

func (q *request) paging() paging {
	p := paging{page: 1, size: defaultPage}
	if n, err := strconv.Atoi(q.query.Get("page")); err == nil && n > 0 {
		p.page = n
	}
	if n, err := strconv.Atoi(q.query.Get("per_page")); err == nil && n > 0 {
		p.size = min(n, longestPage)
	}
	return p
}

// page cuts a page out of a list, renders it, and says in Link where the others are.
func page[T any](q *request, all []T, render func(T) any) []any {
	p := q.paging()
	from := min((p.page-1)*p.size, len(all))
	to := min(from+p.size, len(all))
	last := max(1, (len(all)+p.size-1)/p.size)
	next := p.page + 1
	cut := all[from:to]
	if q.fault != nil {
		switch q.fault.Kind {
		case faultStuck:
			next, last = p.page, max(last, p.page+1)
		case faultShort:
			less := q.fault.N
			if less == 0 {
				less = len(cut) / 2
			}
			cut = cut[:len(cut)-min(less, len(cut))]
		case faultDuplicate:
			if len(cut) > 0 {
				cut = append(slices.Clone(cut), cut[len(cut)-1])
			}
		}
	}
	q.link(p.page, next, last)
	out := make([]any, 0, len(cut))
	for _, one := range cut {
		out = append(out, render(one))
	}
	return out
}

// link writes the Link header, in GitHub's order.
func (q *request) link(page, next, last int) {
	var links []string
	add := func(rel string, n int) {
		links = append(links, fmt.Sprintf(`<%s>; rel="%s"`, q.pageURL("page", strconv.Itoa(n)), rel))
	}
	if page > 1 {
		add("prev", page-1)
	}
	if page < last {
		add("next", next)
		add("last", last)
	}
	if page > 1 {
		add("first", 1)
	}
	if links != nil {
		q.header.Set("Link", strings.Join(links, ", "))
	}
}

// pageURL is the address of another page: with the number of the repository or the
// organization in the place of its name, and the parameters in the order they came in.
func (q *request) pageURL(param, value string) string {
	path := q.path
	parts := strings.SplitN(strings.TrimPrefix(path, "/"), "/", 4)
	switch {
	case len(parts) == 4 && parts[0] == "repos":
		if r := q.s.names[fold(parts[1]+"/"+parts[2])]; r != nil {
			path = fmt.Sprintf("/repositories/%d/%s", r.id, parts[3])
		}
	case len(parts) >= 3 && parts[0] == "orgs":
		path = fmt.Sprintf("/organizations/%d/%s", q.s.org.id, strings.Join(parts[2:], "/"))
	}
	query := maps.Clone(q.query)
	query.Del("before")
	query.Del("after")
	if param != "page" {
		query.Del("page")
	}
	query.Set(param, value)
	return q.base + path + "?" + query.Encode()
}

// since is the parameter of that name; false when it is none that GitHub takes.
func (q *request) time(name string) (time.Time, *Error) {
	given := q.query.Get(name)
	if given == "" {
		return time.Time{}, nil
	}
	for _, form := range []string{time.RFC3339, "2006-01-02T15:04:05", "2006-01-02"} {
		if t, err := time.Parse(form, given); err == nil {
			return t, nil
		}
	}
	return time.Time{}, invalid("", name, "invalid", "")
}

// choice is a parameter that must be one of some; the first is the default.
func (q *request) choice(name string, choices ...string) (string, *Error) {
	given := q.query.Get(name)
	switch {
	case given == "":
		return choices[0], nil
	case !slices.Contains(choices, given):
		return "", invalid("", name, "invalid", "")
	}
	return given, nil
}

// arrange sorts by two numbers: a time or the like, then the id, downwards when direction says so.
func arrange[T any](list []T, direction string, of func(T) (int64, int64)) {
	slices.SortStableFunc(list, func(a, b T) int {
		a1, a2 := of(a)
		b1, b2 := of(b)
		order := cmp.Or(cmp.Compare(a1, b1), cmp.Compare(a2, b2))
		if direction == "desc" {
			return -order
		}
		return order
	})
}
