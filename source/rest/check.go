package rest

import (
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"

	"lockstep/internal/suggest"
)

// checker checks what one part of a spec says about others.
type checker struct {
	r    *reader
	spec *Spec
}

func (c *checker) check() {
	s := c.spec
	if s.Name != "" && !nameForm.MatchString(s.Name) {
		c.r.wrong(s.At, fmt.Sprintf("name: %q is not a name", s.Name), "use lower-case letters, digits and _, a letter first")
	}
	for name, p := range s.Credential {
		if _, err := regexp.Compile(p.Pattern); err != nil {
			c.r.wrong(s.At, fmt.Sprintf("credential.%s: the pattern is no regular expression", name), "mend it")
		}
	}
	for _, a := range s.Auth {
		if a.When != "" {
			c.r.use(a.When, a.At)
		}
		c.auth(a)
	}
	c.credentials()
	c.buckets(s.At, s.Buckets)
	for _, name := range sortedKeys(s.Limits) {
		if b := s.Limits[name]; b.Reserve >= 1 {
			c.r.wrong(b.At, "a reserve of 1 or more leaves nothing", "write for example 0.1")
		}
	}
	if s.Check != nil {
		c.request(s.Check.Request, s.Check.At)
	}
	c.rules(s.Errors)
	if s.Page != nil {
		c.pager(s.Page)
	}
	for _, name := range sortedKeys(s.Feeds) {
		f := s.Feeds[name]
		f.name = name
		if f.Kind != "log" {
			c.r.wrong(f.At, "only feeds of kind log are shared", "write it below its collection, as changes")
		}
		c.feed(f, nil)
	}
	for _, name := range sortedKeys(s.Collections) {
		col := s.Collections[name]
		col.name = name
		c.collection(col)
	}
	c.webhook()
}

func (c *checker) collection(col *Collection) {
	if !nameForm.MatchString(col.name) {
		c.r.wrong(col.At, fmt.Sprintf("%q is not a name of a collection", col.name), "use lower-case letters, digits and _, a letter first")
	}
	if col.ID.t.empty() {
		col.ID.t = Template{parts: []part{{root: "record", path: Path{"id"}}}}
	}
	for _, l := range []*List{col.List, col.IDs} {
		if l != nil {
			c.list(l, col.Parent != nil)
		}
	}
	if p := col.Parent; p != nil {
		parent, ok := c.spec.Collections[p.Collection]
		switch {
		case !ok:
			c.r.wrong(p.At, fmt.Sprintf("there is no collection %s", p.Collection), suggest.Remedy(p.Collection, sortedKeys(c.spec.Collections)))
		case parent.Parent != nil:
			c.r.wrong(p.At, fmt.Sprintf("%s has a parent itself", p.Collection), "children of children are not supported: name its parent, or use a list of the whole account")
		}
	}
	c.get(col)
	for i := range col.Nested {
		n := &col.Nested[i]
		if n.Records == nil {
			n.Records = Path{"data"}
		}
		n.List.Records = n.Records
		c.list(&n.List, true)
	}
	for _, action := range sortedKeys(col.Write) {
		w := col.Write[action]
		if !slices.Contains([]string{"create", "update", "upsert", "delete"}, action) {
			c.r.wrong(w.At, fmt.Sprintf("unknown write %s", action), suggest.Remedy(action, []string{"create", "update", "upsert", "delete"}))
		}
		c.request(w.Request, w.At)
	}
	c.columns(col)
	c.changes(col)
}

func (c *checker) columns(col *Collection) {
	for _, name := range sortedKeys(col.Fields) {
		if f := col.Fields[name]; name == "" || strings.HasPrefix(name, "_") {
			c.r.wrong(f.At, fmt.Sprintf("%q cannot be a column", name), "columns that begin with _ are the mirror's own")
		}
	}
}

func (c *checker) changes(col *Collection) {
	if col.Feed != "" && col.Changes != nil && col.Changes.Kind != "created" {
		c.r.wrong(col.At, "feed and changes are two ways to find changes", "keep one of them, or let changes tell of creations only: kind: created")
	}
	if f := col.Changes; f != nil {
		f.name = col.name
		if f.Kind == "log" && len(col.Object) == 0 {
			col.Object = Match{".": {"*"}} // its own log: every entry is about it
		}
		c.feed(f, col)
		if c.spec.Feeds[col.name] != nil {
			c.r.wrong(f.At, fmt.Sprintf("there is a feed %s already", col.name), "rename it")
		}
	}
	if col.Feed == "" {
		return
	}
	f, ok := c.spec.Feeds[col.Feed]
	switch {
	case !ok:
		c.r.wrong(col.At, fmt.Sprintf("there is no feed %s", col.Feed), suggest.Remedy(col.Feed, sortedKeys(c.spec.Feeds)))
	case len(col.Object) == 0:
		c.r.wrong(col.At, "object is missing", "say which entries of the feed are about this collection")
	case f.Hydrate && col.Get == nil:
		c.r.wrong(col.At, "the feed fetches every record again, but get is missing", "add get, or leave hydrate out of the feed")
	}
}

func (c *checker) feed(f *Feed, col *Collection) {
	if f.Path.empty() && f.GraphQL == nil {
		if col == nil {
			c.r.wrong(f.At, "path is missing", "add the path of the log")
			return
		}
		inherit(&f.List, col.List)
	}
	c.list(&f.List, col != nil && col.Parent != nil)
	if f.Order == "" {
		f.Order = "oldest_first"
	}
	if col != nil && f.Time == nil {
		f.Time = col.Version
		if f.Kind == "created" {
			f.Time = col.Created
		}
	}
	if f.Kind != "etag" && f.Time == nil {
		c.r.wrong(f.At, "time is missing", "say where the time of an entry is, or give the collection a version")
	}
	if f.Kind == "log" && f.ID == nil {
		c.r.wrong(f.At, "id is missing", "say where the id of an entry is")
	}
	if f.Kind == "etag" && f.Order == "newest_first" {
		c.r.wrong(f.At, "a list that is read whole has no order", "leave it out")
	}
	if f.Hydrate && col != nil && col.Get == nil {
		c.r.wrong(f.At, "hydrate needs get", "add get to the collection")
	}
}

// inherit takes from a collection's list what its changes do not say themselves.
func inherit(to, from *List) {
	if from == nil {
		return
	}
	query := map[string]Template{}
	maps.Copy(query, from.Query)
	maps.Copy(query, to.Query)
	own := to.Request
	to.Request = from.Request
	to.Query, to.At = query, own.At
	if own.Errors != nil {
		to.Errors = own.Errors
	}
	if to.Records == nil {
		to.Records = from.Records
	}
	if to.Page == nil {
		to.Page = from.Page
	}
	if to.Passes == nil {
		to.Passes = from.Passes
	}
}

func (c *checker) list(l *List, child bool) {
	c.request(l.Request, l.At)
	if l.Records == nil {
		l.Records = c.spec.Records
	}
	if l.Page == nil {
		l.Page = c.spec.Page
	}
	if l.Page == nil {
		c.r.wrong(l.At, "page is missing", "say how the list goes on, or write page: {kind: none}")
		return
	}
	if l.Page != c.spec.Page {
		c.pager(l.Page)
	}
	if l.Page.Kind == "graphql" && l.GraphQL == nil {
		c.r.wrong(l.Page.At, "paging of kind graphql needs a graphql request", "use token")
	}
	if !child && usesParent(l.Request) {
		c.r.wrong(l.At, "{parent} is used, but there is no parent", "add parent: {collection: …}")
	}
}

func usesParent(q Request) bool {
	if q.Path.uses("parent") {
		return true
	}
	for _, t := range q.Query {
		if t.uses("parent") {
			return true
		}
	}
	return false
}

// needs says what a way of paging cannot do without.
func needs(kind string) (path, param bool) {
	switch kind {
	case "next_url":
		return true, false
	case "token", "graphql":
		return true, true
	case "last_id", "offset", "page":
		return false, true
	}
	return false, false
}

func (c *checker) pager(p *Pager) {
	path, param := needs(p.Kind)
	if path && p.Path == nil {
		c.r.wrong(p.At, "path is missing", "say where in the answer the place to go on is")
	}
	if param && p.Param == "" {
		c.r.wrong(p.At, "param is missing", "name the parameter that carries the place to go on")
	}
	if counted := p.Kind == "offset" || p.Kind == "page"; counted && p.Size == nil && p.More == nil {
		c.r.wrong(p.At, "nothing says where the list ends", "add size or more")
	}
	if p.Kind == "last_id" && p.More == nil && p.Size == nil {
		c.r.wrong(p.At, "nothing says where the list ends", "add more or size")
	}
}

func (c *checker) request(q Request, at place) {
	if q.Path.empty() && q.GraphQL == nil {
		c.r.wrong(at, "path is missing", "add the path behind base_url")
	}
	bodies := 0
	for _, there := range []bool{q.JSON != nil, len(q.Form) > 0, q.GraphQL != nil} {
		if there {
			bodies++
		}
	}
	if bodies > 1 {
		c.r.wrong(at, "json, form and graphql are three bodies", "keep one of them")
	}
	c.buckets(at, q.Buckets)
	c.rules(q.Errors)
}

func (c *checker) buckets(at place, names []string) {
	for _, name := range names {
		if c.spec.Limits[name] == nil {
			c.r.wrong(at, fmt.Sprintf("there is no limit %s", name), suggest.Remedy(name, sortedKeys(c.spec.Limits)))
		}
	}
}

func (c *checker) rules(rules []Rule) {
	for _, rule := range rules {
		if rule.Bucket != "" {
			c.buckets(rule.At, []string{rule.Bucket})
		}
		if len(rule.Status)+len(rule.Body)+len(rule.Header) == 0 {
			c.r.wrong(rule.At, "the rule matches nothing", "add status, body or header")
		}
	}
}

// auth checks that a way to sign in has what it needs.
func (c *checker) auth(a Auth) {
	need := map[string]bool{}
	switch a.Kind {
	case "bearer":
		need["token"] = a.Token.empty()
	case "basic":
		need["user"] = a.User.empty()
	case "header":
		need["header"], need["value"] = a.Header == "", a.Value.empty()
	case "oauth_refresh":
		need["token_url"], need["refresh_token"] = a.TokenURL.empty(), a.RefreshToken.empty()
	case "jwt_bearer", "github_app":
		need["token_url"], need["issuer"], need["private_key"] = a.TokenURL.empty(), a.Issuer.empty(), a.PrivateKey.empty()
	}
	for _, name := range sortedKeys(need) {
		if need[name] {
			c.r.wrong(a.At, fmt.Sprintf("%s is missing for auth of kind %s", name, a.Kind), "add it")
		}
	}
}

// credentials checks that every {credential.x} was declared.
func (c *checker) credentials() {
	for _, name := range sortedKeys(c.r.used) {
		if _, ok := c.spec.Credential[name]; !ok {
			c.r.wrong(c.r.used[name], fmt.Sprintf("{credential.%s} is used but not declared", name), "add it below credential")
		}
	}
}
