package pull

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/semaphore"

	"lockstep/internal/mirror"
	"lockstep/internal/obs"
	"lockstep/source"
)

// readAhead bounds the pages that were read and are not applied yet, in bytes.
const readAhead = 32 << 20

// work is what a session does.
type work struct {
	s           *Sync
	end         context.CancelCauseFunc // of the session
	list        []source.Collection     // as the source said
	feeds       map[string]*feed
	collections map[string]*collection
	workers     *semaphore.Weighted // requests of backfills and sweeps
	ahead       *semaphore.Weighted // bytes of pages
	bulk        *semaphore.Weighted // held by the one backfill whose page is applied

	checking sync.Mutex
	checked  time.Time // when the credential was last taken, guarded by checking
}

func newWork(s *Sync, end context.CancelCauseFunc) *work {
	return &work{
		s: s, end: end, feeds: map[string]*feed{}, collections: map[string]*collection{},
		workers: semaphore.NewWeighted(int64(s.config.Workers)), ahead: semaphore.NewWeighted(readAhead), bulk: semaphore.NewWeighted(1),
	}
}

func (w *work) add(c source.Collection) *collection {
	added := newCollection(w, c)
	w.collections[c.Name] = added
	return added
}

// errNews says that the source has other collections than it had.
var errNews = errors.New("the API's collections have changed")

// denial ends a session because the credential is refused.
type denial struct{ error }

// Is implements the interface that errors.Is looks for.
func (denial) Is(target error) bool { return target == errDenied }

// ask makes a call of the source. When the credential is refused, it finds out
// whether that is so everywhere, and then ends the session.
func (w *work) ask(ctx context.Context, p source.Priority, call func(context.Context) error) error {
	err := w.s.ask(ctx, p, call)
	if kindOf(err) == source.Unauthorized && ctx.Err() == nil {
		w.doubt(ctx)
	}
	return err
}

// worker is ask for backfills and sweeps, of which only so many may ask at once.
func (w *work) worker(ctx context.Context, p source.Priority, call func(context.Context) error) error {
	if err := w.workers.Acquire(ctx, 1); err != nil {
		return err
	}
	defer w.workers.Release(1)
	return w.ask(ctx, p, call)
}

// doubt asks whether the credential works at all.
func (w *work) doubt(ctx context.Context) {
	w.checking.Lock()
	defer w.checking.Unlock()
	if time.Since(w.checked) < w.s.pace.denied || ctx.Err() != nil {
		return
	}
	err := w.s.ask(ctx, source.Changing, func(ctx context.Context) error {
		_, err := w.s.config.Source.Check(ctx)
		return err
	})
	switch kindOf(err) {
	case source.Unauthorized:
		w.end(denial{err})
	default:
		w.checked = time.Now() // it works, but not there
	}
}

// apply brings a change in, however often Postgres has to be asked. It returns an
// error when the session has ended.
func (w *work) apply(ctx context.Context, store *task, change mirror.Change) (result mirror.Result, err error) {
	err = store.try(ctx, func(ctx context.Context) (err error) {
		result, err = w.s.config.Mirror.Apply(ctx, change)
		return err
	})
	if err == nil {
		w.count(change, result)
	}
	return result, err
}

// applyBulk is apply for pages that can wait: one at a time of all collections, so
// that changes are not behind many of them.
func (w *work) applyBulk(ctx context.Context, store *task, change mirror.Change) (mirror.Result, error) {
	if err := w.bulk.Acquire(ctx, 1); err != nil {
		return mirror.Result{}, err
	}
	defer w.bulk.Release(1)
	return w.apply(ctx, store, change)
}

// count notes what a change did. A page of several collections is shared out among
// them by their records.
func (w *work) count(change mirror.Change, r mirror.Result) {
	written := r.Inserted + r.Updated + r.Resurrected + r.Deleted
	s := w.s
	if written > 0 {
		shares := map[string]int{}
		for i := range change.Records {
			shares[change.Records[i].Collection]++
		}
		for _, m := range change.Missing {
			shares[m.Collection] += len(m.IDs)
		}
		s.mu.Lock()
		s.share(shares, uint64(written), func(t *tally, n uint64) { t.changed += n })
		s.share(shares, uint64(r.Deleted), func(t *tally, n uint64) { t.deleted += n })
		s.mu.Unlock()
		if s.config.Changed != nil {
			s.config.Changed()
		}
	}
	for _, d := range r.Doubtful {
		if c := w.collections[d.Collection]; c != nil {
			s.hints.put(d.Collection, d.ID, time.Now().Add(max(c.Settle, s.pace.doubt)))
		}
	}
}

// share adds n to the tallies by their shares. The caller holds mu.
func (s *Sync) share(shares map[string]int, n uint64, add func(*tally, uint64)) {
	total := 0
	for _, k := range shares {
		total += k
	}
	left := n
	names := slices.Sorted(maps.Keys(shares))
	for i, name := range names {
		part := n * uint64(shares[name]) / uint64(max(total, 1))
		if i == len(names)-1 {
			part = left
		}
		left -= part
		if s.seen[name] == nil {
			s.seen[name] = &tally{}
		}
		add(s.seen[name], part)
	}
}

// restore takes over where the last session stopped.
func (w *work) restore(states map[string]json.RawMessage) error {
	for name, f := range w.feeds {
		f.restore(states["change:"+name], states["trailing:"+name])
	}
	for _, c := range w.collections {
		if err := c.restore(states); err != nil {
			return err
		}
	}
	return nil
}

// Why a collection is read anew.
const (
	whyAsked   = "asked"   // a person wants it
	whyRestart = "restart" // the feed has forgotten where it was
	whyOwed    = "owed"    // changes could not be looked at
	whyDropped = "dropped" // its table was dropped
	whyHoles   = "holes"   // the API lists what the mirror has not
)

// again is the state that says so, until the reading has begun.
func stateAgain(c *collection, why string) mirror.State {
	text, _ := json.Marshal(why) // a string
	return mirror.State{Name: "again:" + c.Name, Cursor: text}
}

// anew plans to read collections again from their beginning.
func (w *work) anew(ctx context.Context, chosen []*collection, why string) error {
	var states []mirror.State
	for _, c := range chosen {
		states = append(states, stateAgain(c, why))
	}
	if _, err := w.s.config.Mirror.Apply(ctx, mirror.Change{States: states}); err != nil {
		return fmt.Errorf("plan to read sync %q again: %w", w.s.config.Name, err)
	}
	for _, c := range chosen {
		c.owe(why)
	}
	return nil
}

// describeEvery is how many looks for dropped tables lie between questions for the
// collections, which may cost a request each.
const describeEvery = 20

// watch looks whether tables were dropped, and whether the source has other
// collections or fields.
func (w *work) watch(ctx context.Context) error {
	for n := 1; ; n++ {
		if err := hold(ctx, w.s.pace.watch, nil); err != nil {
			return err
		}
		w.findDropped(ctx)
		if n%describeEvery != 0 {
			continue
		}
		var now []source.Collection
		err := w.ask(ctx, source.Trailing, func(ctx context.Context) (err error) {
			now, err = w.s.config.Source.Collections(ctx)
			return err
		})
		if err == nil && !reflect.DeepEqual(w.list, now) {
			return errNews
		}
	}
}

// findDropped has collections read again whose tables were made again meanwhile.
func (w *work) findDropped(ctx context.Context) {
	before := map[*collection]bool{}
	for _, c := range w.collections {
		before[c] = c.filled()
	}
	states, err := w.s.config.Mirror.States(ctx)
	if err != nil {
		w.s.log.DebugContext(ctx, "the cursors cannot be read", obs.KeySync, w.s.config.Name, obs.KeyError, err)
		return
	}
	for c, filled := range before {
		if filled && states["backfill:"+c.Name] == nil {
			c.owe(whyDropped)
		}
	}
}
