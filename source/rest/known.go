package rest

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"

	"lockstep/source"
)

// Some APIs cannot fetch a record by its id alone: they want to know where it lies, in
// which repository or under which number. Such a get uses {known.…}: members of the
// record as it was seen last, in a list or in a webhook's body. What was never seen since
// the process began, and was not learnt, is looked for in the collection's list.

// maxKnown bounds how many records' whereabouts are remembered, half of them for sure.
const maxKnown = 200_000

// knownIDs remembers whereabouts, the newest for sure.
type knownIDs struct {
	fresh, old map[string]string // by collection and id: values by name, as JSON
}

func (k *knownIDs) put(key, v string) {
	if k.fresh == nil {
		k.fresh = map[string]string{}
	}
	if k.fresh[key] = v; len(k.fresh) >= maxKnown/2 {
		k.old, k.fresh = k.fresh, nil
	}
}

func (k *knownIDs) get(key string) (string, bool) {
	if v, ok := k.fresh[key]; ok {
		return v, true
	}
	v, ok := k.old[key]
	return v, ok
}

// walked is what the last look through a whole list found: the hashes of the ids.
type walked struct {
	began time.Time
	at    time.Time // by the API's clock
	ids   map[uint64]bool
}

// walkHolds is how long what was not in a list is taken for gone without reading the
// list again: records are asked for in portions.
const walkHolds = 30 * time.Second

// needs says what a get must know of a record besides its id.
func (g *Get) needs() []string {
	if g == nil {
		return nil
	}
	var names []string
	add := func(t Template) {
		for _, p := range t.parts {
			if p.root == "known" && !slices.Contains(names, p.path.String()) {
				names = append(names, p.path.String())
			}
		}
	}
	requests := []*Request{&g.Request, g.Confirm}
	if g.Within != nil {
		requests = append(requests, &g.Within.Request)
	}
	for _, q := range requests {
		if q == nil {
			continue
		}
		add(q.Path)
		for _, t := range q.Query {
			add(t)
		}
		if q.GraphQL != nil {
			q.GraphQL.Variables.each(add)
		}
		q.JSON.each(add)
	}
	g.Parent.each(add)
	return names
}

// each calls f with every template in a body.
func (b *Body) each(f func(Template)) {
	if b == nil {
		return
	}
	f(b.text)
	for i := range b.items {
		b.items[i].each(f)
	}
}

func (c *checker) get(col *Collection) {
	g := col.Get
	if g == nil {
		return
	}
	if g.Within != nil {
		c.list(g.Within, true)
	} else {
		c.request(g.Request, g.At)
	}
	if g.Confirm != nil {
		c.request(*g.Confirm, g.At)
	}
	if g.Batch > 1 && g.Records == nil && c.spec.Records == nil {
		c.r.wrong(g.At, "a batch needs records", "say where in the answer they are")
	}
	var err error
	if g.form, err = regexp.Compile(`^(?:` + g.Form + `)$`); err != nil {
		c.r.wrong(g.At, "form is no regular expression", "mend it")
	}
	g.known = g.needs()
	if g.Batch > 1 && len(g.known) > 0 {
		c.r.wrong(g.At, "a batch cannot use {known}", "leave batch out")
	}
	for _, name := range g.known {
		if strings.Contains(name, ".") {
			c.r.wrong(g.At, fmt.Sprintf("{known.%s} is not a member of the record", name), "name a member of the record itself, or one that add adds")
		}
	}
}

// learn remembers where a record lies.
func (s *Source) learn(c *Collection, id string, value func(name string) json.RawMessage) {
	if c.Get == nil || len(c.Get.known) == 0 || id == "" {
		return
	}
	known := json.RawMessage("{}")
	for _, name := range c.Get.known {
		v := value(name)
		if len(v) == 0 || string(v) == "null" {
			return
		}
		known = add(known, name, v)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.known.put(c.name+" "+id, string(known))
}

// Learn tells the source what is known of records: their data, as they were mirrored. A
// record whose whereabouts are known so is fetched with one request; another one is
// looked for in the collection's list. It asks nothing of the API.
func (s *Source) Learn(records []source.Record) {
	for _, r := range records {
		if c := s.spec.Collections[r.Collection]; c != nil {
			s.learn(c, r.ID, func(name string) json.RawMessage { return Path{name}.in(r.Data) })
		}
	}
}

// recall returns what is known of a record, from its id's own form or from before.
func (s *Source) recall(c *Collection, id string) (json.RawMessage, bool) {
	known := json.RawMessage("{}")
	if m := c.Get.form.FindStringSubmatch(id); m != nil {
		for i, name := range c.Get.form.SubexpNames() {
			if name != "" {
				known = add(known, name, scalarJSON(m[i]))
			}
		}
	}
	complete := func(v json.RawMessage) bool {
		return !slices.ContainsFunc(c.Get.known, func(name string) bool { return len(Path{name}.in(v)) == 0 })
	}
	if complete(known) {
		return known, true
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	v, ok := s.known.get(c.name + " " + id)
	return json.RawMessage(v), ok && complete(json.RawMessage(v))
}

var wholeNumber = regexp.MustCompile(`^(0|[1-9][0-9]{0,17})$`)

// scalarJSON is a part of an id as JSON: a number where it is one.
func scalarJSON(text string) json.RawMessage {
	if wholeNumber.MatchString(text) {
		return json.RawMessage(text)
	}
	return quote(text)
}

// siftIDs parts ids: those to fetch, and what is said of the others without asking for them
// one by one.
func (s *Source) siftIDs(ctx context.Context, c *Collection, ids []string) (fetch []string, page source.Page, err error) {
	page.At = s.clock.now()
	var lost []string
	for _, id := range ids {
		switch {
		case c.Get.Form != "" && !c.Get.form.MatchString(id):
			page.Records = append(page.Records, missing(c, id))
		case len(c.Get.known) == 0:
			fetch = append(fetch, id)
		default:
			if _, ok := s.recall(c, id); ok {
				fetch = append(fetch, id)
			} else {
				lost = append(lost, id)
			}
		}
	}
	if len(lost) == 0 {
		return fetch, page, nil
	}
	found, err := s.seek(ctx, c, lost)
	page.Records = append(page.Records, found.Records...)
	page.At = earlier(page.At, found.At)
	return fetch, page, err
}

// seek looks for records in the whole list of the collection. What cannot be listed is an
// error, as in a sweep.
func (s *Source) seek(ctx context.Context, c *Collection, ids []string) (source.Page, error) {
	s.mu.Lock()
	last := s.walks[c.name]
	s.mu.Unlock()
	if last != nil && time.Since(last.began) < walkHolds && !slices.ContainsFunc(ids, func(id string) bool { return last.ids[hashOf([]byte(id))] }) {
		return unlisted(c, source.Page{At: last.at}, ids)
	}
	walk := &walked{began: time.Now(), at: s.clock.now(), ids: map[uint64]bool{}}
	ctx = insist(context.WithValue(ctx, sweepKey{}, true))
	page := source.Page{At: walk.at}
	left := map[string]bool{}
	for _, id := range ids {
		left[id] = true
	}
	for at := source.Cursor(nil); ; {
		got, err := s.list(ctx, c, c.List, at)
		if err != nil {
			return source.Page{}, err
		}
		page.At = earlier(page.At, got.At)
		for _, r := range got.Records {
			if walk.ids[hashOf([]byte(r.ID))] = true; left[r.ID] {
				delete(left, r.ID)
				page.Records = append(page.Records, r)
			}
		}
		if at = got.Next; at == nil || len(left) == 0 {
			break
		}
	}
	if len(left) == 0 {
		return page, nil
	}
	s.mu.Lock()
	s.walks[c.name] = walk
	s.mu.Unlock()
	return unlisted(c, page, slices.DeleteFunc(slices.Clone(ids), func(id string) bool { return !left[id] }))
}

// unlisted adds what was looked for in the whole list and is not there. A child may be
// missing because its parent is hidden, and nobody knows which that was: no deletion.
func unlisted(c *Collection, page source.Page, ids []string) (source.Page, error) {
	if c.Parent != nil {
		return source.Page{}, &source.Error{Kind: source.Forbidden, Message: fmt.Sprintf("fetch %s %s: it is in no list, and it is not known which %s it was in; taken for lost access", c.name, shorten(ids[0]), c.Parent.Collection)}
	}
	for _, id := range ids {
		page.Records = append(page.Records, missing(c, id))
	}
	return page, nil
}

// confirmed says whether a record that was not found is gone: when what it lay in is
// still there. Otherwise that is lost access.
func (s *Source) confirmed(ctx context.Context, c *Collection, sc *scope) error {
	if c.Get.Confirm == nil {
		return nil
	}
	_, err := s.do(ctx, call{what: "see whether " + c.name + " " + sc.id + " is gone", request: c.Get.Confirm, scope: sc})
	if e, ok := asError(err); ok && (e.Kind == source.Gone || errors.Is(err, errSkip)) {
		return &source.Error{Kind: source.Forbidden, Status: e.Status, Message: e.Message + "; taken for lost access", Err: err}
	}
	return err
}

// within looks for a record in the list that it lies in.
func (s *Source) within(ctx context.Context, c *Collection, sc *scope) (*answer, json.RawMessage, error) {
	l, at := c.Get.Within, spot{}
	for range maxNested {
		inner := *sc
		inner.after = at.At
		k := call{what: "fetch " + c.name + " " + sc.id, request: &l.Request, scope: &inner, extra: l.extra(at, &inner), url: at.URL}
		if at.URL != "" {
			k.extra = nil
		}
		a, err := s.do(ctx, k)
		if err != nil {
			return a, nil, err
		}
		records, ok := l.Records.list(a.body)
		if !ok {
			return a, nil, &source.Error{Kind: source.Retry, Status: a.status, Message: fmt.Sprintf("%s: the answer of %s has no list at %q; check records in the spec", k.what, s.name(), l.Records)}
		}
		for _, raw := range records {
			if c.ID.t.fill(&scope{record: raw}) == sc.id {
				return a, raw, nil
			}
		}
		next, more := l.next(at, a, records, func(raw json.RawMessage) string { return l.idOf(c, raw) })
		if !more || next == at {
			return a, nil, nil
		}
		at = next
	}
	return nil, nil, &source.Error{Kind: source.Failed, Message: fmt.Sprintf("fetch %s %s: %s lists more than %d pages", c.name, sc.id, s.name(), maxNested)}
}
