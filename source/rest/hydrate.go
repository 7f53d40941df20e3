package rest

import (
	"context"
	"encoding/json"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"

	"lockstep/source"
)

// entry is what a log says: this record changed.
type entry struct {
	collection *Collection
	id         string
	at         time.Time
	gone       bool
	data       json.RawMessage
}

// entries returns what one entry of a log is about; several collections may match.
func (s *Source) entries(f *Feed, of *Collection, raw, parent json.RawMessage) []entry {
	var out []entry
	for _, name := range sortedKeys(s.spec.Collections) {
		c := s.spec.Collections[name]
		if of != nil && c != of || of == nil && c.Feed != f.name || s.only != nil && !s.only[name] || !c.about(raw) {
			continue
		}
		// An entry may hold several records: a pull request its reviews.
		records, _ := f.Record.list(raw)
		if len(records) == 0 {
			records = []json.RawMessage{nil}
		}
		for _, data := range records {
			e := entry{collection: c, at: f.Time.of(raw), gone: f.Deletes.of(raw), data: data}
			e.id = c.ID.t.fill(&scope{record: data, parent: parent})
			if f.RecordID != nil {
				e.id = f.RecordID.text(raw)
			}
			if e.id != "" {
				out = append(out, e)
			}
		}
	}
	return out
}

func (c *Collection) about(raw json.RawMessage) bool {
	if own, ok := c.Object["."]; ok && len(c.Object) == 1 && slices.Equal(own, Words{"*"}) {
		return true
	}
	return c.Object.of(raw)
}

// records makes records of what a feed showed.
func (p *pass) records(ctx context.Context, fresh []found, parent json.RawMessage) ([]source.Record, error) {
	if p.feed.Kind == "log" {
		return p.logged(ctx, fresh, parent)
	}
	out := make([]source.Record, 0, len(fresh))
	for _, e := range fresh {
		r, ok, err := p.s.record(p.of, e.raw, parent, source.RankList)
		if err != nil {
			return nil, err
		}
		if ok {
			out = append(out, r)
		}
	}
	if p.feed.Hydrate {
		ids := make([]string, len(out))
		for i := range out {
			ids[i] = out[i].ID
		}
		page, err := p.s.Get(hydrating(ctx), p.of.name, ids)
		p.looked(page.At)
		return page.Records, err
	}
	return out, p.s.fillNested(hydrating(ctx), p.of, out)
}

// hydrating is the priority of what follows a change.
func hydrating(ctx context.Context) context.Context {
	if source.PriorityOf(ctx) != source.Changing {
		return ctx
	}
	return source.WithPriority(ctx, source.Hydrating)
}

// looked makes the page as old as the oldest look in it.
func (p *pass) looked(at time.Time) {
	if !at.IsZero() {
		p.at = earlier(p.at, at)
	}
}

func (p *pass) logged(ctx context.Context, fresh []found, parent json.RawMessage) ([]source.Record, error) {
	var all []entry
	for _, e := range fresh {
		all = append(all, p.s.entries(p.feed, p.of, e.raw, parent)...)
	}
	if p.feed.Hydrate {
		return p.hydrate(ctx, all)
	}
	var out []source.Record
	for _, e := range all {
		r := source.Record{Collection: e.collection.name, ID: e.id, Rank: source.RankEvent, Version: e.at, Deleted: e.gone}
		if e.gone {
			r.Reason = "event"
			out = append(out, r)
			continue
		}
		full, ok, err := p.s.record(e.collection, e.data, parent, source.RankEvent)
		if err != nil {
			return nil, err
		}
		if !ok {
			continue
		}
		if full.Version.IsZero() {
			full.Version = e.at
		}
		out = append(out, full)
	}
	return out, nil
}

// withheld reports whether the API refuses these records, and would do so again.
func withheld(err error) bool {
	e, ok := asError(err)
	return ok && (e.Kind == source.Forbidden || e.Kind == source.Invalid || e.Kind == source.Failed)
}

// named are records of which only the ids are known: other collections of the feed
// must not wait for them.
func named(collection string, ids []string) (page source.Page) {
	for _, id := range ids {
		page.Records = append(page.Records, source.Record{Collection: collection, ID: id, Rank: source.RankEvent})
	}
	return page
}

// hydrate fetches what a log says that it changed, each record once however often it
// is named, in the order in which it is named last.
func (p *pass) hydrate(ctx context.Context, all []entry) ([]source.Record, error) {
	type key struct{ collection, id string }
	last := map[key]int{}
	gone := map[key]bool{}
	for i, e := range all {
		k := key{e.collection.name, e.id}
		last[k] = i
		gone[k] = gone[k] || e.gone
	}
	ids := map[string][]string{}
	for i, e := range all {
		if last[key{e.collection.name, e.id}] == i {
			ids[e.collection.name] = append(ids[e.collection.name], e.id)
		}
	}
	names := sortedKeys(ids)
	pages := make([]source.Page, len(names))
	g, fetching := errgroup.WithContext(insist(hydrating(ctx)))
	for i, name := range names {
		g.Go(func() (err error) {
			if pages[i], err = p.s.Get(fetching, name, ids[name]); withheld(err) {
				pages[i], err = named(name, ids[name]), nil
			}
			return err
		})
	}
	if err := g.Wait(); err != nil {
		return nil, err
	}
	var out []source.Record
	for _, page := range pages {
		p.looked(page.At)
		for _, r := range page.Records {
			if r.Deleted && gone[key{r.Collection, r.ID}] {
				r.Reason = "event"
			}
			out = append(out, r)
		}
	}
	slices.SortStableFunc(out, func(a, b source.Record) int {
		return last[key{a.Collection, a.ID}] - last[key{b.Collection, b.ID}]
	})
	return out, nil
}
