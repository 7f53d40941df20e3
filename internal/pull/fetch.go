package pull

import (
	"context"
	"fmt"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"lockstep"
	"lockstep/internal/mirror"
	"lockstep/internal/obs"
	"lockstep/source"
)

const (
	// mostHints bounds the records that wait to be fetched.
	mostHints = 10_000
	// fetchers is how many collections are fetched of at the same time.
	fetchers = 4
	// fetchTries is how often a record is asked for; after that polling must find it.
	fetchTries = 8
)

// record names one.
type record struct{ collection, id string }

// due says when a record is to be fetched.
type due struct {
	at    time.Time
	tries int
}

// queue is records that are to be fetched by id, each once.
type queue struct {
	mu     sync.Mutex
	due    map[record]due
	busy   map[string]bool // collections that are being fetched of
	change chan struct{}
}

func newQueue() *queue {
	return &queue{due: map[record]due{}, busy: map[string]bool{}, change: make(chan struct{}, 1)}
}

// put adds a record, or has it fetched sooner; false when there is no room.
func (q *queue) put(collection, id string, at time.Time) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	k := record{collection, id}
	old, known := q.due[k]
	switch {
	case known && !at.Before(old.at):
		return true
	case !known && len(q.due) >= mostHints:
		return false
	}
	q.due[k] = due{at: at}
	q.poke()
	return true
}

func (q *queue) poke() {
	select {
	case q.change <- struct{}{}:
	default:
	}
}

// back puts records in again that could not be fetched, and returns how many were tried
// often enough.
func (q *queue) back(collection string, ids map[string]due, pause time.Duration) (dropped int) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for id, d := range ids {
		if d.tries++; d.tries >= fetchTries {
			dropped++
			continue
		}
		d.at = time.Now().Add(pause << min(d.tries, 6))
		if _, hinted := q.due[record{collection, id}]; !hinted && len(q.due) < mostHints {
			q.due[record{collection, id}] = d
		}
	}
	return dropped
}

// take returns records of one collection that are due, or when the next one is.
func (q *queue) take(now time.Time) (collection string, ids map[string]due, next time.Time) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for k, d := range q.due {
		switch {
		case q.busy[k.collection]:
		case d.at.After(now):
			next = earliest(next, d.at)
		case collection == "":
			collection, ids = k.collection, map[string]due{k.id: d}
		case collection == k.collection && len(ids) < lookAtOnce:
			ids[k.id] = d
		}
	}
	for id := range ids {
		delete(q.due, record{collection, id})
	}
	if collection != "" {
		q.busy[collection] = true
	}
	return collection, ids, next
}

func (q *queue) done(collection string) {
	q.mu.Lock()
	defer q.mu.Unlock()
	delete(q.busy, collection)
	q.poke()
}

// Hint has records fetched soon: a webhook said that they changed. It returns at
// once. Records of collections that are not mirrored are passed over; where one
// cannot be fetched by its id, the feed of its collection is polled instead. A hint
// moves no cursor; those that a crash or a pause loses are found by polling.
//
// Errors: [lockstep.ErrUnavailable] when too many wait already.
func (s *Sync) Hint(_ context.Context, hints []source.Record) error {
	s.mu.Lock()
	w := s.work
	s.mu.Unlock()
	now := time.Now()
	for _, h := range hints {
		if w != nil {
			c := w.collections[h.Collection]
			if c == nil {
				continue
			}
			if !c.Get || h.ID == "" {
				c.hasten(now)
				continue
			}
		}
		if h.ID != "" && !s.hints.put(h.Collection, h.ID, now) {
			return fmt.Errorf("sync %q: %d hints wait already: %w", s.config.Name, mostHints, lockstep.ErrUnavailable)
		}
	}
	return nil
}

// hasten has changes of the collection looked for now.
func (c *collection) hasten(now time.Time) {
	if c.feed != nil {
		for _, f := range c.feeds() {
			f.ask(now)
		}
		return
	}
	c.ask(now)
}

// fetch fetches the records that wait for it, until the session ends.
func (w *work) fetch(ctx context.Context) error {
	q := w.s.hints
	q.mu.Lock()
	clear(q.busy) // of the last session
	q.mu.Unlock()
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(fetchers + 1)
	g.Go(func() error {
		for {
			collection, ids, next := q.take(time.Now())
			if collection != "" {
				g.Go(func() error {
					defer q.done(collection)
					return w.fetchSome(ctx, collection, ids)
				})
				continue
			}
			if next.IsZero() {
				next = time.Now().Add(time.Hour)
			}
			timer := time.NewTimer(time.Until(next))
			select {
			case <-timer.C:
			case <-q.change:
			case <-ctx.Done():
				timer.Stop()
				return context.Cause(ctx)
			}
			timer.Stop()
		}
	})
	return g.Wait()
}

// fetchSome fetches records of one collection. What fails is tried some more times.
func (w *work) fetchSome(ctx context.Context, collection string, ids map[string]due) error {
	s := w.s
	c := w.collections[collection]
	if c == nil || !c.Get || !c.open() {
		return nil
	}
	list := make([]string, 0, len(ids))
	for id := range ids {
		list = append(list, id)
	}
	l, err := w.look(ctx, c, source.Hydrating, list)
	if err == nil && len(l.refused) > 0 {
		left := map[string]due{}
		for _, id := range l.refused {
			left[id] = ids[id]
		}
		s.hints.back(collection, left, s.pace.slow)
	}
	if err == nil && len(l.records) > 0 {
		_, err = w.s.config.Mirror.Apply(ctx, mirror.Change{Collection: collection, Records: l.records, At: l.at})
	}
	if ctx.Err() != nil {
		s.hints.back(collection, ids, 0)
		return context.Cause(ctx)
	}
	if err != nil {
		if judge(err).course == over && kindOf(err) == "" {
			return err
		}
		if n := s.hints.back(collection, ids, max(judge(err).after, s.pace.retry)); n > 0 {
			s.log.WarnContext(ctx, "records that a hint named could not be fetched; polling must find them", obs.KeySync, s.config.Name, obs.KeyCollection, collection, obs.KeyCount, n, obs.KeyError, err)
		}
	}
	return nil
}
