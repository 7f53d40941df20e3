package pull

import (
	"context"
	"errors"
	"fmt"
	"time"

	"golang.org/x/sync/errgroup"

	"lockstep/internal/mirror"
	"lockstep/source"
)

const (
	// joined is how many records are applied at once: the mirror writes a thousand
	// twice as fast as ten times a hundred.
	joined = 1000
	// queued is how many pages may wait to be applied.
	queued = 3
	// seldom is how many pages of a reading that is done again and again lie between
	// saves of its place: mostly nothing else is written for them.
	seldom = 100
)

// reading is one way through a collection's list, from a place to the end.
type reading struct {
	c        *collection
	priority source.Priority
	at       source.Cursor
	seen     *idSet // takes the ids; nil: not wanted
	// saves returns what is saved with the pages up to a place; next is nil at the end.
	saves func(next source.Cursor, records, pages int) ([]mirror.State, []mirror.Entry)
	// saved is told that it is.
	saved    func(next source.Cursor, records, pages int)
	start    time.Time // when the API was asked for the first page, by its clock
	versions bool      // the list shows versions; for write
	circle
}

// fetched is a page that was read.
type fetched struct {
	source.Page
	bytes int64
	pays  bool // what was owed is read by the list that begins with it
}

var errAnew = errors.New("the collection is to be read from its beginning")

// run reads pages, while those before are applied.
func (r *reading) run(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	pages := make(chan fetched, queued)
	g.Go(func() error {
		defer close(pages)
		return r.read(ctx, pages)
	})
	g.Go(func() error { return r.write(ctx, pages) })
	err := g.Wait()
	for f := range pages { // read in vain
		r.c.w.ahead.Release(f.bytes)
	}
	return err
}

func (r *reading) read(ctx context.Context, pages chan<- fetched) error {
	for at := r.at; ; {
		f, err := r.page(ctx, at)
		if err != nil {
			return err
		}
		if err := r.c.w.ahead.Acquire(ctx, f.bytes); err != nil {
			return err
		}
		select {
		case pages <- f:
		case <-ctx.Done():
			r.c.w.ahead.Release(f.bytes)
			return context.Cause(ctx)
		}
		if at = f.Next; at == nil {
			return nil
		}
		if r.c.interrupted() {
			return errAnew
		}
	}
}

// size is about what a page takes in memory, at most all that there is for pages.
func size(page source.Page) int64 {
	n := 1000
	for i := range page.Records {
		n += 200 + len(page.Records[i].Data)
	}
	return int64(min(n, readAhead))
}

func (r *reading) page(ctx context.Context, at source.Cursor) (f fetched, err error) {
	w, c := r.c.w, r.c
	var began time.Time
	err = c.task.try(ctx, func(ctx context.Context) error {
		err := w.worker(ctx, r.priority, func(ctx context.Context) (err error) {
			began = time.Now()
			f.Page, err = w.s.config.Source.Backfill(ctx, c.Name, at)
			return err
		})
		if err == nil && f.Next != nil && r.closes(f.Next) {
			err = &source.Error{Kind: source.Failed, Message: fmt.Sprintf("list %s: %s sends in a circle: the place to go on was read before", c.Name, w.s.config.Provider)}
		}
		return err
	})
	if err != nil {
		return f, err
	}
	f.At, f.bytes = when(f.Page, began), size(f.Page)
	if r.start.IsZero() {
		r.start = f.At
	}
	f.pays = at == nil && c.paid(began)
	if r.seen != nil {
		r.seen.page(f.Page)
	}
	return f, nil
}

// interrupted reports whether the reading is of no use any more.
func (c *collection) interrupted() bool {
	c.w.s.mu.Lock()
	defer c.w.s.mu.Unlock()
	return c.again != "" && c.again != whyOwed
}

// write applies pages, several small ones together.
func (r *reading) write(ctx context.Context, pages <-chan fetched) error {
	for first := range pages {
		batch, records := []fetched{first}, len(first.Records)
		end := time.NewTimer(r.c.w.s.pace.join)
		pause := time.NewTimer(r.c.w.s.pace.linger)
		for waiting := first.Next != nil; waiting && records < joined; {
			select {
			case f, more := <-pages:
				if !more {
					waiting = false
					break
				}
				batch, records = append(batch, f), records+len(f.Records)
				waiting = f.Next != nil
				pause.Reset(r.c.w.s.pace.linger)
			case <-pause.C:
				waiting = false
			case <-end.C:
				waiting = false
			case <-ctx.Done():
				waiting = false
			}
		}
		end.Stop()
		pause.Stop()
		if err := r.apply(ctx, batch); err != nil {
			return err
		}
	}
	return nil
}

// apply applies pages in one transaction. They count as read when the first of them
// was: nothing newer is known to be in all of them.
func (r *reading) apply(ctx context.Context, batch []fetched) error {
	c := r.c
	change := mirror.Change{Collection: c.Name, At: batch[0].At}
	var bytes int64
	var paid []mirror.State
	for _, f := range batch {
		for i := range f.Records {
			f.Records[i].Collection = c.Name
			r.versions = r.versions || !f.Records[i].Version.IsZero()
		}
		if f.pays {
			paid = []mirror.State{{Name: "again:" + c.Name}}
		}
		change.Records = append(change.Records, f.Records...)
		change.At = earliest(change.At, f.At)
		bytes += f.bytes
	}
	defer c.w.ahead.Release(bytes)
	next := batch[len(batch)-1].Next
	change.States, change.Entries = r.saves(next, len(change.Records), len(batch))
	change.States = append(change.States, paid...)
	if _, err := c.w.applyBulk(ctx, c.store, change); err != nil {
		return err
	}
	r.saved(next, len(change.Records), len(batch))
	return nil
}

// backfill reads everything, from where it stopped.
func (c *collection) backfill(ctx context.Context) error {
	s := c.w.s
	s.mu.Lock()
	p := c.progress
	c.begun, c.before = time.Now(), p.Records
	s.mu.Unlock()
	r := &reading{c: c, priority: source.Backfilling, at: p.Next}
	after := func(next source.Cursor, records, pages int) progress {
		n := p
		n.Versions = n.Versions || r.versions
		n.Next, n.Records, n.Pages = next, n.Records+uint64(records), n.Pages+uint64(pages)
		if next == nil {
			n.Done, n.Ended = true, time.Now()
			if n.First.IsZero() {
				n.First = n.Ended
			}
		}
		return n
	}
	r.saves = func(next source.Cursor, records, pages int) ([]mirror.State, []mirror.Entry) {
		n := after(next, records, pages)
		if !n.Done {
			return []mirror.State{c.state(n)}, nil
		}
		return []mirror.State{c.state(n)}, []mirror.Entry{{Kind: "backfill", Collection: c.Name, Outcome: "completed", Message: "everything has been read",
			Payload: figures("records", n.Records, "pages", n.Pages, "seconds", n.Ended.Sub(n.Began).Seconds())}}
	}
	r.saved = func(next source.Cursor, records, pages int) {
		p = after(next, records, pages)
		s.mu.Lock()
		defer s.mu.Unlock()
		c.progress = p
		if p.Done {
			c.readAt = p.Began
		}
		s.changed()
	}
	err := r.run(ctx)
	if err == nil {
		c.places = nil
	}
	if errors.Is(err, errAnew) {
		return nil
	}
	if kindOf(err) == source.Restart {
		return c.lost(ctx, err)
	}
	return err
}

// lost begins a list anew whose place the API does not know any more. What was read
// stays read: only the place is lost.
func (c *collection) lost(ctx context.Context, reason error) error {
	if err := c.misplaced(ctx, reason); err != nil {
		return err
	}
	c.w.s.mu.Lock()
	p := c.progress
	c.w.s.mu.Unlock()
	p.Next, p.Done = nil, false
	entry := mirror.Entry{Kind: "backfill", Collection: c.Name, Outcome: "restarted", Message: "the list is read from its beginning again: " + reason.Error()}
	if _, err := c.w.apply(ctx, c.store, mirror.Change{States: []mirror.State{c.state(p)}, Entries: []mirror.Entry{entry}}); err != nil {
		return err
	}
	c.w.s.mu.Lock()
	defer c.w.s.mu.Unlock()
	c.progress = p
	return nil
}

// misplaced waits before a list is begun anew whose place the API has forgotten, the
// longer the more often that happens.
func (c *collection) misplaced(ctx context.Context, reason error) error {
	if c.places == nil {
		c.places = steps(c.w.s.pace.retry, c.w.s.pace.slowMax)
	}
	c.task.fail(ctx, verdict{err: reason})
	return hold(ctx, c.places.NextBackOff(), nil)
}
