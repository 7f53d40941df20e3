package rest

import (
	"context"
	"encoding/json"
	"slices"

	"lockstep/source"
)

// parentPage is a page of parents that is kept while their children are read.
type parentPage struct {
	at   spot
	ids  []string
	data []json.RawMessage
	next spot
	more bool
}

// childPage reads a page of the children of one parent. The cursor names the page of
// the parents and the parent in it by id, so that it holds when the list has moved.
func (s *Source) childPage(ctx context.Context, c *Collection, l *List, cur listCursor) (source.Page, *listCursor, error) {
	parents, i, err := s.parentOf(ctx, c, &cur)
	if err != nil {
		return source.Page{}, nil, err
	}
	if i == len(parents.ids) {
		return source.Page{At: s.clock.now()}, parents.after(i), nil
	}
	got, err := s.load(ctx, c, l, cur.spot, &window{parent: parents.data[i]})
	if err != nil {
		return source.Page{}, nil, err
	}
	page, err := s.page(ctx, c, got, parents.data[i])
	if err != nil {
		return source.Page{}, nil, err
	}
	if got.more {
		return page, &listCursor{spot: got.next, Parents: cur.Parents, Parent: parents.ids[i]}, nil
	}
	return page, parents.after(i + 1), nil
}

// parentOf returns the page of parents of a cursor and the index of the parent in it.
// One that is not there any more means the beginning of the page.
func (s *Source) parentOf(ctx context.Context, c *Collection, cur *listCursor) (*parentPage, int, error) {
	if cur.Parents == nil {
		cur.Parents = &spot{}
	}
	parents, err := s.parentsAt(ctx, c, *cur.Parents, cur.Parent != "")
	if err != nil {
		return nil, 0, err
	}
	if cur.Parent == "" {
		return parents, 0, nil
	}
	i := slices.Index(parents.ids, cur.Parent)
	if i < 0 {
		i, cur.spot = 0, spot{}
	}
	return parents, i, nil
}

// after is the cursor of the i-th parent; nil behind the last.
func (p *parentPage) after(i int) *listCursor {
	if i < len(p.ids) {
		at := p.at
		return &listCursor{Parents: &at, Parent: p.ids[i]}
	}
	if !p.more {
		return nil
	}
	next := p.next
	return &listCursor{Parents: &next}
}

// parentsAt returns a page of parents: a kept one only within it, so that what is
// entered is always fresh.
func (s *Source) parentsAt(ctx context.Context, c *Collection, at spot, within bool) (*parentPage, error) {
	key := c.name
	if sweeping(ctx) {
		key += " sweep"
	}
	s.mu.Lock()
	kept := s.parents[key]
	s.mu.Unlock()
	if within && kept != nil && kept.at == at {
		return kept, nil
	}
	of := s.spec.Collections[c.Parent.Collection]
	got, err := s.load(ctx, of, of.List, at, nil)
	if err != nil {
		return nil, err
	}
	p := &parentPage{at: at, next: got.next, more: got.more}
	for _, raw := range got.records {
		r, ok, err := s.record(of, raw, nil, source.RankList)
		if err != nil {
			return nil, err
		}
		if !ok || r.Deleted || len(c.Parent.Where) > 0 && !c.Parent.Where.of(r.Data) {
			continue
		}
		p.ids = append(p.ids, r.ID)
		p.data = append(p.data, r.Data)
	}
	s.mu.Lock()
	s.parents[key] = p
	s.mu.Unlock()
	return p, nil
}
