package pull

import (
	"context"
	"fmt"
	"time"

	"lockstep"
)

// Wait returns when everything is in Postgres that was in the API when it was called
// and that the API could show by then: a poll of every feed has begun after the call
// and behind its settling time, and was read to its end; collections without a feed
// were read once more, unless the API computes them; during the first backfill, or one
// that reads what was missed, when that is complete. Collections that the credential may not see do not count.
//
// Errors: [lockstep.ErrConflict] at once when the sync is paused or a person must act;
// [lockstep.ErrUnavailable] while another engine works on it; ctx's.
func (s *Sync) Wait(ctx context.Context) error {
	since := time.Now()
	for {
		s.mu.Lock()
		news := s.news
		met, next, err := s.met(since)
		s.mu.Unlock()
		if met || err != nil {
			return err
		}
		if err := s.await(ctx, news, next); err != nil {
			return err
		}
	}
}

// await waits for news or a time.
func (s *Sync) await(ctx context.Context, news <-chan struct{}, next time.Time) error {
	var due <-chan time.Time
	if !next.IsZero() {
		timer := time.NewTimer(time.Until(next))
		defer timer.Stop()
		due = timer.C
	}
	select {
	case <-news:
	case <-due:
	case <-ctx.Done():
		return fmt.Errorf("wait for sync %q: %w", s.config.Name, context.Cause(ctx))
	}
	return nil
}

// met reports whether everything since a time is there, or when to look again. The
// caller holds mu.
func (s *Sync) met(since time.Time) (met bool, next time.Time, err error) {
	switch {
	case s.paused:
		return false, next, fmt.Errorf("sync %q is paused: resume it: %w", s.config.Name, lockstep.ErrConflict)
	case s.state == Blocked:
		return false, next, fmt.Errorf("sync %q is blocked: %s: %w", s.config.Name, s.reason, lockstep.ErrConflict)
	case s.state == Waiting:
		return false, next, fmt.Errorf("sync %q: another engine works on it, ask that: %w", s.config.Name, lockstep.ErrUnavailable)
	case s.work == nil:
		return false, next, nil
	}
	met = true
	for _, c := range s.work.collections {
		switch {
		case c.blocked():
		case c.lags():
			met = false
			c.want(since)
		case c.feed == nil && !c.Virtual && c.readAt.Before(since):
			met = false
			c.want(since)
		}
	}
	for _, f := range s.work.feeds {
		if f.main.task.shut && !f.alone() {
			return false, next, fmt.Errorf("sync %q: changes cannot be read: %s: %w", s.config.Name, f.main.task.reason, lockstep.ErrConflict)
		}
		if f.main.task.shut {
			continue
		}
		need := since
		if f.settle > 0 {
			need = need.Add(f.settle + resolution)
		}
		if f.complete.Before(need) {
			met = false
			if now := time.Now(); need.After(now) {
				next = earliest(next, need)
			} else {
				f.want(need)
			}
		}
	}
	return met, next, nil
}

// resolution is how exact the APIs' clocks are.
const resolution = time.Second

// alone reports whether the feed is of one collection only.
func (f *feed) alone() bool { return len(f.collections) == 1 }

// want is ask for callers that hold s.mu.
func (f *feed) want(at time.Time) {
	if f.asked.Before(at) {
		f.asked = at
		select {
		case f.wake <- struct{}{}:
		default:
		}
	}
}

// want is ask for callers that hold s.mu.
func (c *collection) want(at time.Time) {
	if c.asked.Before(at) {
		c.asked = at
		c.poke()
	}
}

// lags reports whether there may be more in the API than feeds tell of: before the
// first backfill's end, and where everything is read again because something was
// missed. The caller holds s.mu.
func (c *collection) lags() bool {
	p := c.progress
	return p.First.IsZero() || !p.Done && p.Why != whyAsked || c.again != "" && c.again != whyAsked
}

// blocked reports whether a person must act for this collection. The caller holds s.mu.
func (c *collection) blocked() bool {
	return c.task.shut || c.store.shut || c.feed != nil && c.feed.alone() && c.feed.main.task.shut
}
