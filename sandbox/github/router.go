package github

import (
	"net/http"
	"net/url"
	"slices"
	"strings"
)

// handler answers one route. Those of writes run alone, those of reads do not change
// anything. What they return is JSON as Encode takes it; nil is an empty body.
type handler func(*request) (any, *Error)

// route is one operation.
type route struct {
	method, pattern string
	handle          handler
	content         bool // makes what notifies people: limited further
}

// router finds routes by the parts of a path.
type router struct {
	next map[string]*router
	any  *router // any part: a variable
	ends map[string]*route
}

func newRouter(handlers map[string]handler) *router {
	root := fresh()
	for name, handle := range handlers {
		method, pattern, _ := strings.Cut(name, " ")
		at := root
		for part := range strings.SplitSeq(strings.Trim(pattern, "/"), "/") {
			at = at.step(part)
		}
		last := pattern[strings.LastIndexByte(pattern, '/')+1:]
		content := method == http.MethodPost && slices.Contains([]string{"issues", "comments", "pulls", "reviews", "releases"}, last)
		at.ends[method] = &route{method: method, pattern: pattern, handle: handle, content: content}
	}
	return root
}

func fresh() *router { return &router{next: map[string]*router{}, ends: map[string]*route{}} }

func (r *router) step(part string) *router {
	if strings.HasPrefix(part, "{") {
		if r.any == nil {
			r.any = fresh()
		}
		return r.any
	}
	if r.next[part] == nil {
		r.next[part] = fresh()
	}
	return r.next[part]
}

// find returns the route of a path and the values of its variables.
func (r *router) find(method, path string) (*route, map[string]string) {
	var values []string
	at := r
	for part := range strings.SplitSeq(strings.Trim(path, "/"), "/") {
		if to := at.next[part]; to != nil {
			at = to
			continue
		}
		if at = at.any; at == nil {
			return nil, nil
		}
		value, err := url.PathUnescape(part)
		if err != nil || value == "" {
			return nil, nil
		}
		values = append(values, value)
	}
	found := at.ends[method]
	if found == nil {
		return nil, nil
	}
	vars := map[string]string{}
	for part := range strings.SplitSeq(found.pattern, "/") {
		if strings.HasPrefix(part, "{") {
			vars[strings.Trim(part, "{}")], values = values[0], values[1:]
		}
	}
	return found, vars
}
