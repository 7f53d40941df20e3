package rest

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"lockstep/source"
)

// window is what a feed is asked for.
type window struct {
	parent       json.RawMessage
	since, until time.Time
	etag         string
}

// feedCursor is how far a feed was read. Everything before Since was; what was handed
// out of the time behind it is in Seen, because the API may yet show more there.
type feedCursor struct {
	Since time.Time `json:"since"`
	Seen  []string  `json:"seen,omitempty"`
	Done  int64     `json:"done,omitempty"` // Start of the last whole pass, in ns

	// A pass reads everything from Since on; these are its place and what it learnt.
	Start time.Time `json:"start,omitzero"`  // when it began, by the API's clock
	Fresh []string  `json:"fresh,omitempty"` // like Seen, of this pass
	Read  int       `json:"read,omitempty"`  // pages of this list so far
	From  time.Time `json:"from,omitzero"`   // Since, or later when the list was asked anew from there
	listCursor
}

const (
	// maxSeen bounds a cursor. What falls out of it is handed out again.
	maxSeen = 5000
	// idle is how long a cursor stays as it is while nothing happens: moving it would
	// be a write each time.
	idle = time.Minute
)

// feed returns a feed by its name, and the collection that it is of when it has one.
func (s *Source) feed(name string) (*Feed, *Collection, error) {
	if f := s.spec.Feeds[name]; f != nil {
		return f, nil, nil
	}
	if c := s.spec.Collections[name]; c != nil && c.Changes != nil {
		return c.Changes, c, nil
	}
	return nil, nil, &source.Error{Kind: source.Failed, Message: fmt.Sprintf("%s has no feed %s", s.name(), name)}
}

// lag is how far a cursor stays behind the API's clock.
func (f *Feed) lag(settle time.Duration) time.Duration {
	return max(settle, f.Overlap) + resolution
}

// Start implements [source.Source]. It asks the API for its time. What is shown late may
// be missing in the first pages of a backfill too: the cursor lies behind all of that.
func (s *Source) Start(ctx context.Context, feed string) (source.Cursor, error) {
	f, c, err := s.feed(feed)
	if err != nil {
		return nil, err
	}
	now, err := s.touch(ctx, f, c)
	if err != nil {
		return nil, err
	}
	return json.Marshal(feedCursor{Since: now.Add(-f.lag(max(f.Settle, f.Trailing))).Truncate(time.Second).UTC()})
}

// touch asks the API for anything, to learn its time.
func (s *Source) touch(ctx context.Context, f *Feed, c *Collection) (time.Time, error) {
	if s.spec.Check != nil {
		a, err := s.do(ctx, call{what: "begin " + f.name, request: &s.spec.Check.Request, scope: s.scope})
		if a == nil || err != nil && !errors.Is(err, errEmpty) {
			return time.Time{}, err
		}
		return a.at, nil
	}
	l := &f.List
	switch {
	case c == nil:
		c = &Collection{name: f.name}
	case c.Parent != nil:
		c = s.spec.Collections[c.Parent.Collection]
		l = c.List
	default:
		l = c.List
	}
	got, err := s.load(ctx, c, l, spot{}, nil)
	return got.at, err
}

// Changes implements [source.Source].
func (s *Source) Changes(ctx context.Context, feed string, at source.Cursor, settle time.Duration) (source.Page, error) {
	f, c, err := s.feed(feed)
	if err != nil {
		return source.Page{}, err
	}
	p := &pass{s: s, feed: f, of: c, settle: settle, given: at}
	var cursor feedCursor
	if json.Unmarshal(at, &cursor) == nil && s.clock.sure() && cursor.Since.Sub(s.clock.now()) > leap {
		return source.Page{}, &source.Error{Kind: source.Restart, Message: fmt.Sprintf("read changes of %s: the last look was at %s, and %s says that it is %s: its clock was set back; everything is read again",
			feed, cursor.Since.Format(time.RFC3339), s.name(), s.clock.now().UTC().Format(time.RFC3339))}
	}
	if err := json.Unmarshal(at, &p.cur); err != nil || p.cur.Since.IsZero() {
		return source.Page{}, &source.Error{Kind: source.Restart, Message: fmt.Sprintf("read changes of %s: %v", feed, errNoCursor), Err: err}
	}
	if f.Retention > 0 && s.clock.sure() && s.clock.now().Sub(p.cur.Since) > f.Retention {
		return source.Page{}, &source.Error{Kind: source.Restart, Message: fmt.Sprintf("read changes of %s: %s keeps them for %s, and the last look was at %s; everything is read again", feed, s.name(), f.Retention, p.cur.Since.Format(time.RFC3339))}
	}
	for range patience {
		page, done, err := p.step(ctx)
		if err != nil || len(page.Records) > 0 || done {
			return page, err
		}
	}
	return p.result(nil, false)
}

// pass is one call of Changes.
type pass struct {
	s      *Source
	feed   *Feed
	of     *Collection // whose own feed it is; nil: shared
	settle time.Duration
	given  source.Cursor
	cur    feedCursor
	at     time.Time
	found  int  // entries that were handed out by this call
	young  bool // some were left out because they have not settled
}

// step reads one page; done says that the pass is at its end.
func (p *pass) step(ctx context.Context) (source.Page, bool, error) {
	w, parents, i, err := p.window(ctx)
	if err != nil {
		return source.Page{}, false, err
	}
	if parents != nil && i == len(parents.ids) {
		return p.advance(parents, i, nil)
	}
	key := p.key(i, parents)
	first := p.cur.spot == (spot{})
	if first {
		w.etag = p.etag(key)
	}
	got, err := p.s.load(ctx, p.collection(), &p.feed.List, p.cur.spot, w)
	if err != nil {
		return source.Page{}, false, err
	}
	p.at = got.at
	if p.cur.Start.IsZero() {
		p.cur.Start = got.at
	}
	fresh, stop := p.sift(got.records)
	if first {
		p.learn(key, got, len(fresh) > 0 || got.more && !stop)
	}
	records, err := p.records(ctx, fresh, w.parent)
	if err != nil {
		return source.Page{}, false, err
	}
	p.note(fresh)
	p.cur.Read++
	if got.more && !stop && (p.feed.Pages == 0 || p.cur.Read < p.feed.Pages) {
		p.goOn(got, fresh)
		page, err := p.result(records, true)
		return page, false, err
	}
	p.cur.From, p.cur.Read = time.Time{}, 0
	return p.advance(parents, i+1, records)
}

func (p *pass) collection() *Collection {
	if p.of != nil {
		return p.of
	}
	return &Collection{name: p.feed.name, ID: ID{t: Template{parts: []part{{root: "record", path: p.feed.ID}}}}}
}

// window is what to ask for now: for children, of which parent.
func (p *pass) window(ctx context.Context) (*window, *parentPage, int, error) {
	w := &window{since: p.cur.Since}
	if !p.cur.From.IsZero() {
		w.since = p.cur.From
	}
	if p.settle > 0 && p.s.clock.sure() {
		w.until = p.s.clock.now().Add(-p.settle).Add(resolution)
	}
	if p.of == nil || p.of.Parent == nil {
		return w, nil, 0, nil
	}
	parents, i, err := p.s.parentOf(ctx, p.of, &p.cur.listCursor)
	if err == nil && i < len(parents.ids) {
		w.parent = parents.data[i]
	}
	return w, parents, i, err
}

// advance goes to the next parent, or ends the pass.
func (p *pass) advance(parents *parentPage, i int, records []source.Record) (source.Page, bool, error) {
	if parents != nil {
		if next := parents.after(i); next != nil {
			p.cur.listCursor = *next
			page, err := p.result(records, true)
			return page, false, err
		}
	}
	p.end()
	page, err := p.result(records, false)
	return page, true, err
}

// end moves the cursor: everything up to the lag before the pass began was seen.
func (p *pass) end() {
	if p.cur.Start.IsZero() {
		p.cur.Start = p.s.clock.now() // no parents, so nothing was asked
	}
	since := p.cur.Start.Add(-p.feed.lag(p.settle)).Truncate(time.Second).UTC()
	// It goes back with the API's clock, but not with what the estimate of it is off by.
	if back := p.cur.Since.Sub(since); back > 0 && back <= 2*resolution {
		since = p.cur.Since
	}
	seen := append(p.cur.Seen, p.cur.Fresh...)
	kept := seen[:0]
	for _, mark := range seen {
		if t, _ := strconv.ParseInt(mark[:max(0, len(mark)-markHash)], 36, 64); t >= since.Unix() {
			kept = append(kept, mark)
		}
	}
	slices.Sort(kept)
	kept = slices.Compact(kept)
	if len(kept) > maxSeen {
		kept = kept[len(kept)-maxSeen:]
	}
	p.cur = feedCursor{Since: since, Seen: kept, Done: p.cur.Start.UnixNano()}
}

func (p *pass) result(records []source.Record, more bool) (source.Page, error) {
	p.found += len(records)
	if !more && p.found == 0 && p.cur.Start.IsZero() {
		var before feedCursor
		if json.Unmarshal(p.given, &before) == nil && before.Start.IsZero() && !p.cur.Since.Before(before.Since) && p.cur.Since.Sub(before.Since) < idle {
			return source.Page{Next: p.given, At: p.at}, nil
		}
	}
	next, err := json.Marshal(p.cur)
	if err != nil {
		return source.Page{}, fmt.Errorf("read changes of %s: %w", p.feed.name, err)
	}
	return source.Page{Records: records, Next: next, At: p.at, More: more || !p.cur.Start.IsZero()}, nil
}

// entry is one thing of a feed that was not handed out yet.
type found struct {
	raw  json.RawMessage
	at   time.Time
	mark string
}

// markHash is how many characters at the end of a mark are its hash.
const markHash = 13

// mark is an entry's identity: its time, and a hash of its id; of all of it where it is
// the record itself, which may change twice within what the API's clock tells apart.
func (p *pass) mark(raw json.RawMessage, at time.Time) string {
	id := p.feed.ID.text(raw)
	if p.feed.Kind != "log" {
		id = p.of.ID.t.fill(&scope{record: raw}) + "@" + string(raw)
	}
	hash := strconv.FormatUint(hashOf([]byte(id)), 36)
	return strconv.FormatInt(at.Unix(), 36) + strings.Repeat("0", markHash-len(hash)) + hash
}

// sift leaves out what is too young and what was handed out. stop says that the rest
// of the list is older than the cursor.
func (p *pass) sift(raws []json.RawMessage) (fresh []found, stop bool) {
	upper := p.cur.Start.Add(-p.settle)
	for _, raw := range raws {
		if p.feed.Kind == "etag" {
			fresh = append(fresh, found{raw: raw})
			continue
		}
		if string(raw) == "null" {
			continue
		}
		at := p.feed.Time.of(raw)
		if !at.IsZero() && at.Before(p.cur.Since) {
			stop = stop || p.feed.Order == "newest_first"
			continue
		}
		if p.settle > 0 && at.After(upper) {
			p.young = true
			continue
		}
		mark := p.mark(raw, at)
		if slices.Contains(p.cur.Fresh, mark) {
			continue
		}
		if _, known := slices.BinarySearch(p.cur.Seen, mark); known {
			continue
		}
		fresh = append(fresh, found{raw: raw, at: at, mark: mark})
	}
	if p.feed.Order == "newest_first" {
		slices.Reverse(fresh)
	}
	return fresh, stop
}

// note remembers what is handed out and may be met again.
func (p *pass) note(fresh []found) {
	hot := p.cur.Start.Add(-p.feed.lag(p.settle)).Truncate(time.Second)
	for _, e := range fresh {
		if e.mark != "" && !e.at.Before(hot) && len(p.cur.Fresh) < maxSeen {
			p.cur.Fresh = append(p.cur.Fresh, e.mark)
		}
	}
}

// goOn moves within the pass. A list that shifts while it is read by numbers is asked
// anew from the last time it showed, unless a whole page has one time.
func (p *pass) goOn(got loaded, fresh []found) {
	last := p.cur.From
	for _, e := range fresh {
		if e.at.After(last) {
			last = e.at
		}
	}
	hot := p.cur.Start.Add(-p.feed.lag(p.settle))
	if !p.feed.shifts() || len(fresh) == 0 || last.IsZero() || !last.Before(hot) || !fresh[0].at.Before(last) || !last.After(p.cur.From) {
		p.cur.spot = got.next
		return
	}
	p.cur.From, p.cur.spot = last, spot{}
}

// shifts says whether records may move between pages while a list is read, and it can
// be asked from a time on.
func (f *Feed) shifts() bool {
	if f.Order == "newest_first" {
		return false
	}
	byTime := f.Path.uses("since")
	for _, t := range f.Query {
		byTime = byTime || t.uses("since")
	}
	switch f.Page.Kind {
	case "page", "offset", "link_header", "next_url":
		return byTime
	}
	return false
}
