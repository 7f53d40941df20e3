package pull

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"lockstep/internal/mirror"
	"lockstep/source"
)

const (
	// walked is how many rows of the mirror are looked at in one query.
	walked = 5000
	// mostMissing is how many missing ids are kept in memory, and handed to the mirror
	// at once.
	mostMissing = 100_000
	// quiet is the pause between sweeps below which those that found nothing are not
	// in the log.
	quiet = time.Hour
)

// scan is one complete look at what the API lists, against what the mirror has.
type scan struct {
	seen    *idSet
	start   time.Time // by the API's clock
	missing []string  // rows that were not listed, the first mostMissing of them
	gone    int       // all of them
	rows    int
	absent  []string // what was listed and is not in the mirror as listed, the first mostMissing
	lacking int      // all of them
}

// many is beyond what is believed at once: the mirror's safety valve.
func many(n, of int) bool { return n > max(50, of/20) }

// outcome is what a sweep did.
type outcome struct {
	deleted, alive, kept, found int
	reason                      error // why some were kept
}

// sweep reads the collection again where no feed tells of its changes, lists all ids,
// fetches what the mirror lacks, and has deleted what does not exist any more. When it
// returns without an error and is not noted as done, it is to be done again.
func (c *collection) sweep(ctx context.Context) error {
	c.w.s.mu.Lock()
	begun, before, rereads := time.Now(), c.swept, c.rereads()
	c.w.s.mu.Unlock()
	var done *scan
	var err error
	if rereads {
		if done, err = c.reread(ctx, begun, before); err != nil {
			return c.interlude(ctx, err)
		}
	}
	var out outcome
	if c.IDs && (done == nil || done.gone > 0) {
		if done, err = c.listed(ctx, before); err != nil {
			return c.interlude(ctx, err)
		}
		if err := c.supply(ctx, done, &out); err != nil {
			return err
		}
		if err := c.settle(ctx, done, &out); err != nil {
			return err
		}
	}
	c.places = nil
	return c.finish(ctx, begun, done, out)
}

// interlude is what comes after a scan that was broken off: where the API has
// forgotten the list's place, a pause.
func (c *collection) interlude(ctx context.Context, err error) error {
	switch {
	case errors.Is(err, errAnew):
		return nil
	case kindOf(err) == source.Restart:
		return c.misplaced(ctx, err)
	}
	return err
}

// reread reads all records again. The scan is nil when it does not say which ids
// there are.
func (c *collection) reread(ctx context.Context, begun time.Time, before swept) (*scan, error) {
	s := c.w.s
	r := &reading{c: c, priority: source.Sweeping, at: c.place}
	if c.IDs && c.place == nil {
		r.seen = &idSet{slice: sliceOf(before)}
	}
	whole, total := c.place == nil, 0
	name := "reread:" + c.Name
	r.saves = func(next source.Cursor, _, pages int) ([]mirror.State, []mirror.Entry) {
		if next != nil && (total+pages)/seldom == total/seldom {
			return nil, nil
		}
		return []mirror.State{{Name: name, Cursor: next}}, nil
	}
	r.saved = func(next source.Cursor, _, pages int) {
		if next == nil || (total+pages)/seldom != total/seldom {
			c.place = next
		}
		total += pages
	}
	err := r.run(ctx)
	if kindOf(err) == source.Restart {
		c.place = nil
	}
	if err != nil {
		return nil, err
	}
	if whole {
		s.mu.Lock()
		c.readAt = begun
		s.changed()
		s.mu.Unlock()
	}
	if r.seen == nil {
		return nil, nil
	}
	return c.walk(ctx, &scan{seen: r.seen, start: r.start})
}

// listed lists all ids.
func (c *collection) listed(ctx context.Context, before swept) (*scan, error) {
	have := &shelf{slice: sliceOf(before)}
	err := c.each(ctx, func(rows []mirror.Row) error {
		for i := range rows {
			have.add(rows[i].ID, rows[i].Version)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	have.sort()
	s := &scan{seen: &idSet{slice: have.slice}}
	var round circle
	for at := source.Cursor(nil); ; {
		page, err := c.ids(ctx, at, &round)
		if err != nil {
			return nil, err
		}
		if s.start.IsZero() {
			s.start = page.At
		}
		s.take(page, have)
		if at = page.Next; at == nil {
			return c.walk(ctx, s)
		}
		if c.interrupted() {
			return nil, errAnew
		}
	}
}

// take notes what a page lists.
func (s *scan) take(page source.Page, have *shelf) {
	s.seen.page(page)
	for i := range page.Records {
		r := &page.Records[i]
		if r.Deleted || !have.lacks(r) {
			continue
		}
		if s.lacking++; s.lacking <= mostMissing {
			s.absent = append(s.absent, r.ID)
		}
	}
}

// ids asks for a page of ids.
func (c *collection) ids(ctx context.Context, at source.Cursor, round *circle) (page source.Page, err error) {
	w := c.w
	err = c.task.try(ctx, func(ctx context.Context) error {
		var began time.Time
		err := w.worker(ctx, source.Sweeping, func(ctx context.Context) (err error) {
			began = time.Now()
			page, err = w.s.config.Source.IDs(ctx, c.Name, at)
			return err
		})
		if err == nil && page.Next != nil && round.closes(page.Next) {
			err = &source.Error{Kind: source.Failed, Message: fmt.Sprintf("list the ids of %s: %s sends in a circle: the place to go on was read before", c.Name, w.s.config.Provider)}
		}
		page.At = when(page, began)
		return err
	})
	return page, err
}

// walk goes through the mirror's rows, and finds those that were not listed.
func (c *collection) walk(ctx context.Context, s *scan) (*scan, error) {
	s.seen.sort()
	err := c.each(ctx, func(rows []mirror.Row) error {
		s.rows += len(rows)
		ids := s.unlisted(rows)
		s.gone += len(ids)
		if room := mostMissing - len(s.missing); room > 0 {
			s.missing = append(s.missing, ids[:min(room, len(ids))]...)
		}
		return nil
	})
	return s, err
}

// unlisted returns the ids of the rows that were not listed, and not read since.
func (s *scan) unlisted(rows []mirror.Row) (ids []string) {
	for i := range rows {
		if h := hash(rows[i].ID); s.seen.covers(h) && !s.seen.has(h) && rows[i].SyncedAt.Before(s.start) {
			ids = append(ids, rows[i].ID)
		}
	}
	return ids
}

// each goes through the mirror's rows, page by page.
func (c *collection) each(ctx context.Context, do func([]mirror.Row) error) error {
	for after := ""; ; {
		rows, err := c.rows(ctx, after, walked)
		if err != nil {
			return err
		}
		if err := do(rows); err != nil {
			return err
		}
		if len(rows) < walked {
			return nil
		}
		after = rows[len(rows)-1].ID
	}
}

// supply fetches what is listed and is not in the mirror like that: no event told of
// it. Where it is much, or cannot be fetched by id, everything is read again.
func (c *collection) supply(ctx context.Context, s *scan, out *outcome) error {
	switch {
	case s.lacking == 0:
		return nil
	case c.Get && !many(s.lacking, s.seen.listed):
		var all outcome
		err := c.confirm(ctx, &looked{}, s.absent, &all)
		out.found = all.alive
		return err
	}
	c.w.s.mu.Lock()
	fresh := c.progress.Began.After(c.swept.At) // then reading it again does not help
	c.w.s.mu.Unlock()
	if !fresh {
		c.owe(whyHoles)
	}
	return nil
}

// settle has deleted what is missing and does not exist. What can be asked for is
// asked for: a list may hide what exists, and lost access looks like deletion.
func (c *collection) settle(ctx context.Context, s *scan, out *outcome) error {
	if s.gone == 0 {
		return nil
	}
	if many(s.gone, s.rows) {
		text := "each of them is asked for"
		if !c.Get {
			text = "the API has no request for one record, so nothing is deleted; verify, or read the collection again into an empty table"
		}
		c.w.s.note(ctx, mirror.Entry{Kind: "sweep", Collection: c.Name, Outcome: "held", Payload: figures("missing", s.gone, "rows", s.rows),
			Message: fmt.Sprintf("%d of %d rows were not listed: too many to believe it; %s", s.gone, s.rows, text)})
	}
	if c.Get {
		l := &looked{}
		err := c.missing(ctx, s, func(ids []string) error { return c.confirm(ctx, l, ids, out) })
		out.reason = l.reason
		return err
	}
	if s.gone > len(s.missing) {
		out.kept = s.gone
		return nil
	}
	result, err := c.w.applyBulk(ctx, c.store, mirror.Change{Missing: []mirror.Missing{{Collection: c.Name, IDs: s.missing, Started: s.start}}})
	out.deleted, out.kept = result.Deleted, result.Held
	return err
}

// missing hands over the missing ids, from memory if they are all there.
func (c *collection) missing(ctx context.Context, s *scan, do func(ids []string) error) error {
	if s.gone == len(s.missing) {
		return do(s.missing)
	}
	return c.each(ctx, func(rows []mirror.Row) error { return do(s.unlisted(rows)) })
}

// confirm asks for records, and applies what comes of it.
func (c *collection) confirm(ctx context.Context, l *looked, ids []string, out *outcome) error {
	for len(ids) > 0 {
		n := min(len(ids), lookAtOnce)
		row := l.row
		err := c.task.try(ctx, func(ctx context.Context) error {
			l.records, l.refused, l.at, l.row = nil, nil, time.Time{}, row
			return l.some(ctx, c.w, c, source.Sweeping, ids[:n])
		})
		if err != nil {
			return err
		}
		out.kept += len(l.refused)
		if ids = ids[n:]; len(l.records) == 0 {
			continue
		}
		result, err := c.w.applyBulk(ctx, c.store, mirror.Change{Collection: c.Name, Records: l.records, At: l.at})
		if err != nil {
			return err
		}
		out.deleted += result.Deleted
		for i := range l.records {
			if !l.records[i].Deleted {
				out.alive++
			}
		}
	}
	return nil
}

// finish saves that the sweep is done.
func (c *collection) finish(ctx context.Context, begun time.Time, done *scan, out outcome) error {
	s := c.w.s
	s.mu.Lock()
	p := c.progress
	s.mu.Unlock()
	now := swept{At: begun}
	listed, missing := 0, 0
	if done != nil {
		now.Part, now.Parts = done.seen.next()
		listed, missing = done.seen.listed, done.gone
	}
	text, _ := json.Marshal(now) // of our own fields
	change := mirror.Change{States: []mirror.State{{Name: "sweep:" + c.Name, Cursor: text}}}
	if p.Sweep {
		p.Sweep = false
		change.States = append(change.States, c.state(p))
	}
	if out != (outcome{}) || c.sweepEvery() >= quiet {
		e := mirror.Entry{Kind: "sweep", Collection: c.Name, Outcome: "completed", Message: "what is not listed any more was looked for",
			Payload: figures("listed", listed, "missing", missing, "deleted", out.deleted, "alive", out.alive, "found", out.found, "kept", out.kept, "seconds", time.Since(begun).Seconds())}
		if out.kept > 0 {
			e.Outcome, e.Message = "held", "records that are not listed stay, since the API does not say that they are gone"
			if out.reason != nil {
				e.Message += ": " + out.reason.Error()
			}
		}
		change.Entries = append(change.Entries, e)
	}
	if _, err := c.w.apply(ctx, c.store, change); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	c.progress, c.swept = p, now
	s.changed()
	return nil
}
