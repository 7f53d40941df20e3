package pull

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/cenkalti/backoff/v5"
	"golang.org/x/sync/errgroup"

	"lockstep/internal/mirror"
	"lockstep/source"
)

// feed is one list of changes, which several collections may share.
type feed struct {
	w           *work
	name        string
	collections []*collection
	every       time.Duration
	settle      time.Duration
	trailing    time.Duration
	started     chan struct{} // closed when the place to go on from is saved
	main, late  *follower

	// saving is held while a cursor is saved, so that a new beginning is not
	// overwritten by a page that was read before.
	saving     sync.Mutex
	beginnings int // counts new beginnings, guarded by saving

	// Guarded by s.mu.
	asked    time.Time // somebody wants a poll that begins then or later
	complete time.Time // when the last pass began that was read to its end
	polledAt time.Time
	nextAt   time.Time
	wake     chan struct{}
}

// follower reads a feed at some distance from now.
type follower struct {
	f        *feed
	state    string // of its cursor
	settle   time.Duration
	priority source.Priority
	task     *task
	store    *task
	cursor   source.Cursor // guarded by f.saving
	whole    bool          // the next pass begins at its beginning
	circle   circle
	lost     *backoff.ExponentialBackOff // since the cursor was forgotten; nil: it was not
}

func newFeed(w *work, name string) *feed {
	f := &feed{w: w, name: name, started: make(chan struct{}), wake: make(chan struct{}, 1)}
	f.main = &follower{f: f, state: "change:" + name, priority: source.Changing, task: w.s.task("poll", name), store: w.s.task("store", name)}
	f.late = &follower{f: f, state: "trailing:" + name, priority: source.Trailing, task: w.s.task("trailing", name), store: w.s.task("store", name)}
	return f
}

// take adds a collection, and goes by the strictest of all of them.
func (f *feed) take(c *collection) {
	f.collections = append(f.collections, c)
	f.settle, f.trailing = max(f.settle, c.Settle), max(f.trailing, c.Trailing)
	if c.Every > 0 && (f.every == 0 || c.Every < f.every) {
		f.every = c.Every
	}
}

func (f *feed) restore(main, late source.Cursor) {
	f.main.cursor, f.late.cursor = main, late
	if late == nil {
		f.late.cursor = main
	}
}

// ask has the feed polled not later than at a time.
func (f *feed) ask(at time.Time) {
	f.w.s.mu.Lock()
	if f.asked.Before(at) {
		f.asked = at
	}
	f.w.s.mu.Unlock()
	select {
	case f.wake <- struct{}{}:
	default:
	}
}

// run follows the feed until the session ends.
func (f *feed) run(ctx context.Context) error {
	s := f.w.s
	if s.config.Every > 0 {
		f.every = s.config.Every
	} else if f.every == 0 {
		f.every = s.pace.every
	}
	f.main.settle, f.late.settle = f.settle, f.trailing
	if f.main.cursor == nil {
		if err := f.begin(ctx, f.main, 0, nil); err != nil {
			return err
		}
	}
	close(f.started)
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return f.main.follow(ctx, f.next) })
	if f.trailing > f.settle {
		pause := max(f.every, min(f.trailing/2, s.pace.trailing))
		g.Go(func() error { return f.late.follow(ctx, func(time.Time) time.Time { return time.Now().Add(pause) }) })
	}
	return g.Wait()
}

// next is when to poll after a pass that began then.
func (f *feed) next(began time.Time) time.Time {
	s := f.w.s
	s.mu.Lock()
	defer s.mu.Unlock()
	next := began.Add(f.every)
	if f.asked.After(began) && f.asked.Before(next) {
		next = f.asked
	}
	f.nextAt = next
	return next
}

// begin takes the place from which changes go on, and saves it, together with what
// must be read again because of that. A follower that has seen another beginning
// than the last one has nothing to do.
func (f *feed) begin(ctx context.Context, l *follower, seen int, reason error) error {
	var start source.Cursor
	err := l.task.try(ctx, func(ctx context.Context) error {
		return f.w.ask(ctx, source.Changing, func(ctx context.Context) (err error) {
			start, err = f.w.s.config.Source.Start(ctx, f.name)
			return err
		})
	})
	if err != nil {
		return err
	}
	f.saving.Lock()
	defer f.saving.Unlock()
	if f.beginnings != seen {
		return nil
	}
	change := mirror.Change{States: []mirror.State{{Name: f.main.state, Cursor: start}}}
	if f.trailing > f.settle {
		change.States = append(change.States, mirror.State{Name: f.late.state, Cursor: start})
	}
	if reason != nil {
		for _, c := range f.collections {
			change.States = append(change.States, stateAgain(c, whyRestart))
		}
		change.Entries = append(change.Entries, mirror.Entry{Kind: "backfill", Collection: f.name, Outcome: "restarted",
			Message: "everything is read again, and nothing is deleted for it: " + reason.Error()})
	}
	if _, err := f.w.apply(ctx, l.store, change); err != nil {
		return err
	}
	f.main.cursor, f.late.cursor = start, start
	f.beginnings++
	l.whole = true
	if reason != nil {
		for _, c := range f.collections {
			c.owe(whyRestart)
		}
	}
	return nil
}

// follow reads passes for ever, with pauses between them.
func (l *follower) follow(ctx context.Context, next func(began time.Time) time.Time) error {
	for {
		began, whole, seen := time.Now(), l.whole, l.beginning()
		err := l.pass(ctx)
		switch {
		case kindOf(err) == source.Restart:
			if err := l.restart(ctx, seen, err); err != nil {
				return err
			}
			continue
		case errors.Is(err, errMoved):
			l.whole = true
			continue
		case err != nil:
			return err
		}
		l.whole, l.lost = true, nil
		if l == l.f.main {
			l.f.passed(began, whole)
		}
		if err := l.rest(ctx, began, next); err != nil {
			return err
		}
	}
}

func (l *follower) beginning() int {
	l.f.saving.Lock()
	defer l.f.saving.Unlock()
	return l.f.beginnings
}

// restart begins anew where the API has forgotten the cursor.
func (l *follower) restart(ctx context.Context, seen int, reason error) error {
	if l.lost == nil {
		l.lost = steps(l.f.w.s.pace.slow, l.f.w.s.pace.slowMax)
	} else if err := hold(ctx, l.lost.NextBackOff(), nil); err != nil { // it forgets what it has just said
		return err
	}
	return l.f.begin(ctx, l, seen, reason)
}

// rest waits until the next pass is due.
func (l *follower) rest(ctx context.Context, began time.Time, next func(time.Time) time.Time) error {
	wake := l.f.wake
	if l != l.f.main {
		wake = nil
	}
	for {
		timer := time.NewTimer(time.Until(next(began)))
		select {
		case <-timer.C:
			return nil
		case <-wake:
			timer.Stop()
		case <-ctx.Done():
			timer.Stop()
			return context.Cause(ctx)
		}
	}
}

// passed notes that everything is in Postgres that the API told since a time. A pass
// that an earlier session began may have passed by what is newer than its beginning.
func (f *feed) passed(began time.Time, whole bool) { //nolint:revive // see above
	s := f.w.s
	s.mu.Lock()
	defer s.mu.Unlock()
	f.polledAt = began
	if whole {
		f.complete = began
	}
	s.changed()
}

// errMoved says that a page is of no use: the feed has begun anew meanwhile.
var errMoved = errors.New("the feed has begun anew")

// pass reads a feed from its cursor to the end of what there is.
func (l *follower) pass(ctx context.Context) error {
	l.circle = circle{}
	for {
		l.f.saving.Lock()
		at, seen := l.cursor, l.f.beginnings
		l.f.saving.Unlock()
		page, owing, err := l.read(ctx, at)
		if err != nil {
			return err
		}
		if err := l.save(ctx, at, seen, page, owing); err != nil {
			return err
		}
		if !page.More {
			return nil
		}
	}
}

// read asks for a page of changes, and for what the page only names.
func (l *follower) read(ctx context.Context, at source.Cursor) (page source.Page, owing []*collection, err error) {
	w := l.f.w
	err = l.task.try(ctx, func(ctx context.Context) error {
		began := time.Now()
		err := w.ask(ctx, l.priority, func(ctx context.Context) (err error) {
			page, err = w.s.config.Source.Changes(ctx, l.f.name, at, l.settle)
			return err
		})
		if err != nil {
			return err
		}
		if page.Next == nil {
			page.Next, page.More = at, false
		}
		if page.More && (bytes.Equal(page.Next, at) || l.circle.closes(page.Next)) {
			return &source.Error{Kind: source.Failed, Message: fmt.Sprintf("read changes of %s: %s sends in a circle: the place to go on was read before", l.f.name, w.s.config.Provider)}
		}
		page.At = when(page, began)
		owing, err = w.complete(ctx, l.priority, &page)
		return err
	})
	return page, owing, err
}

// complete leaves out of a page what is not mirrored, and asks for the records that
// it only names. It returns the collections that must be read again because what
// changed in them cannot be seen now.
func (w *work) complete(ctx context.Context, p source.Priority, page *source.Page) (owing []*collection, err error) {
	owes := map[*collection]bool{}
	named := map[*collection][]string{}
	kept := page.Records[:0:0]
	for _, r := range page.Records {
		c := w.collections[r.Collection]
		switch {
		case c == nil:
		case !c.open():
			owes[c] = true
		case r.Data == nil && !r.Deleted:
			named[c] = append(named[c], r.ID)
		default:
			kept = append(kept, r)
		}
	}
	if p == source.Changing {
		p = source.Hydrating
	}
	for c, ids := range named {
		if !c.Get {
			owes[c] = true
			continue
		}
		l, err := w.look(ctx, c, p, ids)
		if err != nil {
			return nil, err
		}
		kept = append(kept, l.records...)
		if len(l.records) > 0 {
			page.At = earliest(page.At, l.at)
		}
		if len(l.refused) > 0 && w.owing(ctx, c, l) {
			owes[c] = true
			c.miss(l.reason)
		}
	}
	page.Records = kept
	for c := range owes {
		owing = append(owing, c)
	}
	return owing, nil
}

// cheap is how many records a collection may have that is read again because of single
// ones.
const cheap = 10_000

// owing reports whether a collection must be read again because of records that could
// not be fetched. Of a large one single records are asked for again instead.
func (w *work) owing(ctx context.Context, c *collection, l *looked) bool {
	w.s.mu.Lock()
	records := c.progress.Records
	w.s.mu.Unlock()
	if k := kindOf(l.reason); k == source.Forbidden || k == source.Unauthorized || records <= cheap {
		return true
	}
	for _, id := range l.refused {
		w.s.hints.put(c.Name, id, time.Now().Add(w.s.pace.slow))
	}
	w.s.note(ctx, mirror.Entry{Kind: "poll", Collection: c.Name, Outcome: "failed", Payload: figures("records", len(l.refused)),
		Message: "records that changed cannot be fetched; they are asked for some more times: " + l.reason.Error()})
	return false
}

// save applies a page together with the place behind it.
func (l *follower) save(ctx context.Context, at source.Cursor, seen int, page source.Page, owing []*collection) error {
	if len(page.Records) == 0 && len(owing) == 0 && bytes.Equal(page.Next, at) {
		return nil
	}
	l.f.saving.Lock()
	defer l.f.saving.Unlock()
	if l.f.beginnings != seen {
		return errMoved
	}
	change := mirror.Change{Records: page.Records, At: page.At, States: []mirror.State{{Name: l.state, Cursor: page.Next}}}
	for _, c := range owing {
		if !c.owes() {
			change.States = append(change.States, stateAgain(c, whyOwed))
		}
	}
	if _, err := l.f.w.apply(ctx, l.store, change); err != nil {
		return err
	}
	l.cursor = page.Next
	for _, c := range owing {
		c.owe(whyOwed)
	}
	return nil
}
