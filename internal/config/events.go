package config

import (
	"net/url"
	"strings"
)

// Events says which table /events serves. The zero value: the first captured table that
// is called events.
type Events struct {
	Database string // empty: the first one
	Table    string // schema.table, or a table of public; empty: the one called events
}

func (r *reader) events(v value, e *Events, known []string) {
	if v.node == nil {
		return
	}
	f, ok := r.mapping(v, "database", "table")
	if !ok {
		return
	}
	r.reference(f.get("database"), &e.Database, known)
	r.text(f.get("table"), &e.Table)
	if strings.Contains(e.Table, "*") {
		r.wrong(f.get("table"), "a pattern, where one table is expected", "write schema.table, such as public.events")
	}
}

// cors reads the origins of pages that may read answers meant for pages.
func (r *reader) cors(v value) []string {
	var out []string
	for _, item := range r.list(v) {
		text, ok := r.scalar(item, "an origin")
		if !ok {
			continue
		}
		u, err := url.Parse(text)
		if text != "*" && (err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || strings.Trim(u.Path, "/") != "" || u.RawQuery != "" || u.User != nil) {
			r.wrong(item, "not the origin of a page", "write it as the browser does, such as https://app.example.com, without a path; or * for every page")
			continue
		}
		out = append(out, strings.TrimSuffix(text, "/"))
	}
	return out
}
