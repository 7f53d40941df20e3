package rest

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"strconv"
	"time"

	"lockstep/source"
)

// listCursor is a place in a collection's list.
type listCursor struct {
	spot
	Parents *spot  `json:"parents,omitempty"` // page of the parents
	Parent  string `json:"parent,omitempty"`  // id of the one being read
}

// loaded is one page of a list as it came.
type loaded struct {
	records []json.RawMessage
	next    spot
	more    bool
	at      time.Time
	etag    string
	same    bool // 304: as it was
}

// patience is how many requests one call may need to find a record: parents without
// children, mostly.
const patience = 25

// Backfill implements [source.Source].
func (s *Source) Backfill(ctx context.Context, collection string, at source.Cursor) (source.Page, error) {
	c, err := s.collection(collection)
	if err != nil {
		return source.Page{}, err
	}
	return s.list(ctx, c, c.List, at)
}

// IDs implements [source.Source]. What cannot be listed is an error here, whatever the
// spec says about skipping: a sweep must not take it for deleted.
func (s *Source) IDs(ctx context.Context, collection string, at source.Cursor) (source.Page, error) {
	c, err := s.collection(collection)
	if err != nil {
		return source.Page{}, err
	}
	l := c.IDs
	if l == nil {
		l = c.List
	}
	page, err := s.list(context.WithValue(ctx, sweepKey{}, true), c, l, at)
	for i := range page.Records {
		page.Records[i].Data = nil
	}
	return page, err
}

type sweepKey struct{}

func sweeping(ctx context.Context) bool { return ctx.Value(sweepKey{}) != nil }

func (s *Source) list(ctx context.Context, c *Collection, l *List, at source.Cursor) (source.Page, error) {
	var cur listCursor
	if len(at) > 0 {
		if err := json.Unmarshal(at, &cur); err != nil {
			return source.Page{}, &source.Error{Kind: source.Restart, Message: fmt.Sprintf("list %s: %v", c.name, errNoCursor), Err: err}
		}
	}
	var page source.Page
	var next *listCursor
	var err error
	for range patience {
		if c.Parent == nil {
			page, next, err = s.rootPage(ctx, c, l, cur)
		} else {
			page, next, err = s.childPage(ctx, c, l, cur)
		}
		if err != nil || next == nil || len(page.Records) > 0 {
			break
		}
		cur = *next
	}
	if err != nil {
		return source.Page{}, err
	}
	if next != nil {
		if page.Next, err = json.Marshal(next); err != nil {
			return source.Page{}, fmt.Errorf("list %s: %w", c.name, err)
		}
		kind := "ids"
		if l == c.List && !sweeping(ctx) {
			kind = "list"
		}
		if s.seen(kind+" "+c.name, at, page.Next) {
			return source.Page{}, &source.Error{Kind: source.Failed, Message: fmt.Sprintf("list %s: %s sends in a circle: the place to go on was read before; check page in the spec", c.name, s.name())}
		}
	}
	return page, nil
}

func (s *Source) rootPage(ctx context.Context, c *Collection, l *List, cur listCursor) (source.Page, *listCursor, error) {
	got, err := s.load(ctx, c, l, cur.spot, nil)
	if err != nil {
		return source.Page{}, nil, err
	}
	page, err := s.page(ctx, c, got, nil)
	if err != nil || !got.more {
		return page, nil, err
	}
	return page, &listCursor{spot: got.next}, nil
}

// page makes records of what a list brought.
func (s *Source) page(ctx context.Context, c *Collection, got loaded, parent json.RawMessage) (source.Page, error) {
	page := source.Page{At: got.at, Records: make([]source.Record, 0, len(got.records))}
	for _, raw := range got.records {
		r, ok, err := s.record(c, raw, parent, source.RankList)
		if err != nil {
			return source.Page{}, err
		}
		if ok {
			page.Records = append(page.Records, r)
		}
	}
	if sweeping(ctx) {
		return page, nil
	}
	return page, s.fillNested(ctx, c, page.Records)
}

// load asks for one page of a list.
func (s *Source) load(ctx context.Context, c *Collection, l *List, at spot, w *window) (loaded, error) {
	sc := *s.scope
	sc.after = at.At
	k := call{what: "list " + c.name, request: &l.Request, scope: &sc, extra: l.extra(at, &sc)}
	if w != nil {
		sc.parent, sc.since, sc.till, k.etag = w.parent, w.since, w.until, w.etag
		k.what = "read changes of " + c.name
		k.extra = l.extra(at, &sc)
	}
	if l.Page.Size != nil {
		k.number = l.Page.Size.Param
	}
	if at.URL != "" {
		k.url, k.extra = at.URL, nil
	}
	a, err := s.do(ctx, k)
	for size := l.size(); errors.Is(err, errSplit) && size > 1 && k.url == ""; {
		size /= 2
		k.extra[k.number] = strconv.Itoa(size)
		a, err = s.do(ctx, k)
	}
	if e, ok := asError(err); ok && e.Kind == source.Restart && at.Back != "" {
		k.extra[l.Page.Param] = at.Back
		a, err = s.do(ctx, k)
	}
	if errors.Is(err, errEmpty) || errors.Is(err, errSkip) && !sweeping(ctx) {
		return loaded{at: a.at}, nil
	}
	if err != nil {
		return loaded{}, s.lost(ctx, err)
	}
	got := loaded{at: a.at, etag: a.header.Get("ETag")}
	if a.status == 304 {
		got.same = true
		return got, nil
	}
	records, ok := l.Records.list(a.body)
	if !ok {
		if string(l.Records.in(a.body)) != "null" {
			return loaded{}, &source.Error{Kind: source.Retry, Status: a.status, Message: fmt.Sprintf("%s: the answer of %s has no list at %q; check records in the spec", k.what, s.name(), l.Records)}
		}
		records = nil
	}
	got.records = records
	got.next, got.more = l.next(at, a, records, func(raw json.RawMessage) string { return l.idOf(c, raw) })
	if got.next.URL != "" {
		u, err := s.follow(a.url, got.next.URL)
		if err != nil {
			return loaded{}, &source.Error{Kind: source.Failed, Message: fmt.Sprintf("%s: %v", k.what, err), Err: err}
		}
		got.next.URL = (&url.URL{Path: u.Path, RawPath: u.RawPath, RawQuery: u.RawQuery}).String()
	}
	if got.more && got.next == at {
		kind := source.Failed
		if len(records) == 0 {
			kind = source.Retry // an empty page that is not the last: it may have more the next time
		}
		return loaded{}, &source.Error{Kind: kind, Message: fmt.Sprintf("%s: %s sends in a circle: the next page is this one; check page in the spec", k.what, s.name())}
	}
	return got, nil
}

func (l *List) size() int {
	if l.Page.Size == nil {
		return 1
	}
	return l.Page.Size.Count
}

func (l *List) idOf(c *Collection, raw json.RawMessage) string {
	if l.Page.ID != nil {
		return l.Page.ID.text(raw)
	}
	return c.ID.t.fill(&scope{record: raw})
}

// lost turns "not there" of a list into lost access: what cannot be listed is not
// deleted.
func (s *Source) lost(ctx context.Context, err error) error {
	e, ok := asError(err)
	if !ok || e.Kind != source.Gone && (!sweeping(ctx) || !errors.Is(err, errSkip)) {
		return err
	}
	return &source.Error{Kind: source.Forbidden, Status: e.Status, Message: e.Message + "; taken for lost access", Err: err}
}

// record makes a record of its data; false when the collection leaves it out.
func (s *Source) record(c *Collection, raw, parent json.RawMessage, rank source.Rank) (source.Record, bool, error) {
	if len(raw) == 0 || string(raw) == "null" || len(c.Where) > 0 && !c.Where.of(raw) {
		return source.Record{}, false, nil
	}
	sc := &scope{record: raw, parent: parent}
	r := source.Record{Collection: c.name, ID: c.ID.t.fill(sc), Rank: rank, Version: c.Version.of(raw), Created: c.Created.of(raw), Data: raw}
	if r.ID == "" {
		return r, false, &source.Error{Kind: source.Failed, Message: fmt.Sprintf("read %s: a record of %s has no id; check id in the spec", c.name, s.name())}
	}
	if c.Deleted.of(raw) {
		r.Deleted, r.Reason = true, "flag"
		return r, true, nil
	}
	for _, name := range sortedKeys(c.Add) {
		t := c.Add[name]
		v := json.RawMessage("null")
		if len(t.parts) == 1 && t.parts[0].root != "" {
			if found := sc.raw(t.parts[0]); found != nil {
				v = found
			}
		} else {
			v = quote(t.fill(sc))
		}
		r.Data = add(r.Data, name, v)
	}
	s.learn(c, r.ID, func(name string) json.RawMessage { return Path{name}.in(r.Data) })
	return r, true, nil
}
