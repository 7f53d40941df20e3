package rest

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"

	"lockstep/source"
)

// Get implements [source.Source]. Records that the spec skips are left out.
func (s *Source) Get(ctx context.Context, collection string, ids []string) (source.Page, error) {
	c, err := s.collection(collection)
	if err != nil {
		return source.Page{}, err
	}
	if c.Get == nil {
		return source.Page{}, &source.Error{Kind: source.Failed, Message: fmt.Sprintf("fetch %s: %s has no request for one record", c.name, s.name())}
	}
	ids, said, err := s.siftIDs(ctx, c, ids)
	if err != nil {
		return source.Page{}, err
	}
	size := max(1, c.Get.Batch)
	var parts [][]string
	for chunk := range slices.Chunk(ids, size) {
		parts = append(parts, chunk)
	}
	pages := make([]source.Page, len(parts))
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(hydrators)
	for i, part := range parts {
		g.Go(func() (err error) {
			if size > 1 {
				pages[i], err = s.getBatch(ctx, c, part)
			} else {
				pages[i], err = s.getOne(ctx, c, part[0])
			}
			return err
		})
	}
	if err := g.Wait(); err != nil {
		return source.Page{}, err
	}
	out := said
	for _, p := range pages {
		out.Records = append(out.Records, p.Records...)
		out.At = earlier(out.At, p.At)
	}
	return out, nil
}

func earlier(a, b time.Time) time.Time {
	if b.Before(a) {
		return b
	}
	return a
}

func (s *Source) getOne(ctx context.Context, c *Collection, id string) (source.Page, error) {
	sc := *s.scope
	sc.id, sc.ids = id, []string{id}
	if len(c.Get.known) > 0 {
		sc.known, _ = s.recall(c, id)
	}
	a, raw, err := s.fetch(ctx, c, &sc)
	if errors.Is(err, errSkip) || errors.Is(err, errEmpty) {
		return source.Page{At: s.clock.now()}, nil
	}
	gone := err == nil && (len(raw) == 0 || string(raw) == "null")
	if e, ok := asError(err); ok && e.Kind == source.Gone {
		gone, err = true, nil
	}
	if err != nil {
		return source.Page{}, err
	}
	if gone {
		return source.Page{At: a.at, Records: []source.Record{missing(c, id)}}, s.confirmed(ctx, c, &sc)
	}
	var parent json.RawMessage
	if c.Get.Parent != nil {
		parent = c.Get.Parent.fill(nil, &sc)
	}
	r, ok, err := s.record(c, raw, parent, source.RankObject)
	if err != nil || !ok {
		return source.Page{At: a.at}, err
	}
	if r.ID != id {
		if a.moved && len(c.Get.known) > 0 {
			return source.Page{At: a.at, Records: []source.Record{missing(c, id)}}, nil // it lives on elsewhere, as another record
		}
		return source.Page{}, &source.Error{Kind: source.Failed, Message: fmt.Sprintf("fetch %s %s: %s answered with %s; check get and id in the spec", c.name, id, s.name(), shorten(r.ID))}
	}
	page := source.Page{At: a.at, Records: []source.Record{r}}
	return page, s.fillNested(ctx, c, page.Records)
}

// fetch asks for one record and returns its data, empty when it is not there.
func (s *Source) fetch(ctx context.Context, c *Collection, sc *scope) (*answer, json.RawMessage, error) {
	if c.Get.Within != nil {
		return s.within(ctx, c, sc)
	}
	a, err := s.do(ctx, call{what: "fetch " + c.name + " " + sc.id, request: &c.Get.Request, scope: sc})
	if err != nil {
		return a, nil, err
	}
	return a, c.Get.Record.in(a.body), nil
}

func missing(c *Collection, id string) source.Record {
	return source.Record{Collection: c.name, ID: id, Rank: source.RankObject, Deleted: true, Reason: "not_found"}
}

func (s *Source) getBatch(ctx context.Context, c *Collection, ids []string) (source.Page, error) {
	sc := *s.scope
	sc.ids = ids
	a, err := s.do(ctx, call{what: fmt.Sprintf("fetch %d of %s", len(ids), c.name), request: &c.Get.Request, scope: &sc})
	if errors.Is(err, errSplit) && len(ids) > 1 {
		return s.getHalves(ctx, c, ids)
	}
	if err != nil {
		return source.Page{}, err
	}
	path := c.Get.Records
	if path == nil {
		path = s.spec.Records
	}
	raws, ok := items(path.in(a.body))
	if !ok {
		return source.Page{}, &source.Error{Kind: source.Retry, Status: a.status, Message: fmt.Sprintf("fetch %s: the answer of %s has no list at %q; check records in the spec", c.name, s.name(), path)}
	}
	page := source.Page{At: a.at}
	found := map[string]bool{}
	for _, raw := range raws {
		r, ok, err := s.record(c, raw, nil, source.RankObject)
		if err != nil {
			return source.Page{}, err
		}
		if ok {
			found[r.ID] = true
			page.Records = append(page.Records, r)
		}
	}
	for _, id := range ids {
		if !found[id] {
			page.Records = append(page.Records, missing(c, id))
		}
	}
	return page, s.fillNested(ctx, c, page.Records)
}

func (s *Source) getHalves(ctx context.Context, c *Collection, ids []string) (source.Page, error) {
	a, err := s.getBatch(ctx, c, ids[:len(ids)/2])
	if err != nil {
		return source.Page{}, err
	}
	b, err := s.getBatch(ctx, c, ids[len(ids)/2:])
	a.Records = append(a.Records, b.Records...)
	a.At = earlier(a.At, b.At)
	return a, err
}

const (
	// nestedTries is how often a record is read again when its lists change meanwhile.
	nestedTries = 3
	// maxNested bounds the pages of one list inside a record.
	maxNested = 10_000
)

// fillNested reads lists inside records that were cut off to their end.
func (s *Source) fillNested(ctx context.Context, c *Collection, records []source.Record) error {
	if len(c.Nested) == 0 {
		return nil
	}
	g, ctx := errgroup.WithContext(insist(ctx))
	g.SetLimit(hydrators)
	for i := range records {
		r := &records[i]
		if r.Deleted || !c.cutOff(r.Data) {
			continue
		}
		g.Go(func() error { return s.complete(ctx, c, r) })
	}
	return g.Wait()
}

func (c *Collection) cutOff(data json.RawMessage) bool {
	return slices.ContainsFunc(c.Nested, func(n Nested) bool { return n.more(data) })
}

func (n *Nested) more(data json.RawMessage) bool {
	envelope := n.Field.in(data)
	if len(envelope) == 0 || n.Page == nil {
		return false
	}
	switch n.Page.Kind {
	case "graphql":
		return string(append(slices.Clone(n.List.Page.Path), "hasNextPage").in(envelope)) == "true"
	default:
		return string(n.Page.More.in(envelope)) == "true"
	}
}

// complete fills one record. When the record has another beginning of the list after
// that, the list changed while it was read, and all begins again.
func (s *Source) complete(ctx context.Context, c *Collection, r *source.Record) error {
	for range nestedTries {
		data := r.Data
		heads := make([]json.RawMessage, len(c.Nested))
		for i := range c.Nested {
			n := &c.Nested[i]
			heads[i] = n.Field.in(r.Data)
			filled, err := s.rest(ctx, c, n, r.ID, data)
			if err != nil {
				return err
			}
			data = filled
		}
		if c.Get == nil || c.Get.Batch > 1 {
			r.Data = data
			return nil
		}
		again, err := s.look(ctx, c, r.ID)
		if err != nil {
			return err
		}
		if again.ID == "" || again.Deleted || c.same(heads, again.Data) {
			if again.Deleted {
				*r = again
				return nil
			}
			r.Data = data
			return nil
		}
		*r = again
	}
	return &source.Error{Kind: source.Retry, Message: fmt.Sprintf("fetch %s %s: a list in it changes while it is read", c.name, r.ID)}
}

func (c *Collection) same(heads []json.RawMessage, data json.RawMessage) bool {
	for i := range c.Nested {
		if !bytes.Equal(heads[i], c.Nested[i].Field.in(data)) {
			return false
		}
	}
	return true
}

// look fetches a record without its nested lists; without an id when it is skipped.
func (s *Source) look(ctx context.Context, c *Collection, id string) (source.Record, error) {
	shallow := *c
	shallow.Nested = nil
	page, err := s.getOne(ctx, &shallow, id)
	if err != nil || len(page.Records) == 0 {
		return source.Record{}, err
	}
	return page.Records[0], nil
}

// rest reads what a nested list lacks and returns the record with all of it.
func (s *Source) rest(ctx context.Context, c *Collection, n *Nested, id string, data json.RawMessage) (json.RawMessage, error) {
	if !n.more(data) {
		return data, nil
	}
	envelope := n.Field.in(data)
	have, _ := items(n.Records.in(envelope))
	all := slices.Clone(have)
	at := spot{}
	first, _ := n.next(spot{}, &answer{body: envelope}, have, func(raw json.RawMessage) string { return n.idOf(&Collection{ID: defaultID()}, raw) })
	at.At = first.At
	sc := *s.scope
	sc.record, sc.id = data, id
	for range maxNested {
		sc.after = at.At
		got, err := s.loadNested(ctx, c, n, at, &sc)
		if err != nil {
			return nil, err
		}
		all = append(all, got.records...)
		if !got.more {
			break
		}
		if got.next == at {
			return nil, &source.Error{Kind: source.Failed, Message: fmt.Sprintf("fetch %s %s: %s sends in a circle within %s", c.name, id, s.name(), n.Field)}
		}
		at = got.next
	}
	joined := append(json.RawMessage("["), bytes.Join(raws(all), []byte(","))...)
	joined = append(joined, ']')
	data = replace(data, append(slices.Clone(n.Field), n.Records...), joined)
	if p := n.Page; p.Kind == "graphql" {
		return replace(data, append(append(slices.Clone(n.Field), p.Path...), "hasNextPage"), json.RawMessage("false")), nil
	}
	return replace(data, append(slices.Clone(n.Field), n.Page.More...), json.RawMessage("false")), nil
}

func raws(all []json.RawMessage) [][]byte {
	out := make([][]byte, len(all))
	for i := range all {
		out[i] = all[i]
	}
	return out
}

func defaultID() ID { return ID{t: Template{parts: []part{{root: "record", path: Path{"id"}}}}} }

func (s *Source) loadNested(ctx context.Context, c *Collection, n *Nested, at spot, sc *scope) (loaded, error) {
	k := call{what: "read " + n.Field.String() + " of " + c.name + " " + sc.id, request: &n.Request, scope: sc, extra: n.extra(at, sc), url: at.URL}
	if n.Page.Size != nil {
		k.number = n.Page.Size.Param
	}
	a, err := s.do(ctx, k)
	if err != nil {
		return loaded{}, err
	}
	body := json.RawMessage(a.body)
	if n.Envelope != nil {
		body = n.Envelope.in(a.body)
	}
	records, ok := items(n.Records.in(body))
	if !ok {
		return loaded{}, &source.Error{Kind: source.Retry, Message: fmt.Sprintf("%s: the answer has no list at %q", k.what, n.Records)}
	}
	got := loaded{records: records, at: a.at}
	got.next, got.more = n.next(at, &answer{body: body, header: a.header}, records, func(raw json.RawMessage) string { return n.idOf(&Collection{ID: defaultID()}, raw) })
	return got, nil
}
