package pull

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/cenkalti/backoff/v5"
	"golang.org/x/sync/errgroup"

	"lockstep"
	"lockstep/internal/mirror"
	"lockstep/internal/obs"
	"lockstep/source"
)

// Run reads until ctx ends, and then returns nil, or until the sync was changed, and
// then returns [ErrStale]. Whatever fails is tried again; see [Sync.Status]. It may be
// called again when it has returned, not while it runs.
func (s *Sync) Run(ctx context.Context) error {
	defer s.become(Starting, "")
	fails := steps(s.pace.retry, s.pace.retryMax)
	for s.awaitResume(ctx) {
		began := time.Now()
		err := s.session(ctx)
		if ctx.Err() != nil || err == nil || errors.Is(err, errPaused) || errors.Is(err, errNews) {
			continue
		}
		if errors.Is(err, ErrStale) {
			return err
		}
		if time.Since(began) > s.pace.retryMax {
			fails.Reset()
		}
		if errors.Is(err, lockstep.ErrFenced) {
			s.log.WarnContext(ctx, "another engine has taken the sync over", obs.KeySync, s.config.Name)
		} else {
			s.become(Failing, oneLine(err))
			s.log.WarnContext(ctx, "the sync cannot begin, and tries again", obs.KeySync, s.config.Name, obs.KeyError, err)
		}
		if hold(ctx, fails.NextBackOff(), s.kicked()) != nil {
			break
		}
	}
	return nil
}

// awaitResume waits while the sync is paused; false when ctx has ended.
func (s *Sync) awaitResume(ctx context.Context) bool {
	told := false
	for ctx.Err() == nil {
		s.mu.Lock()
		paused, news := s.paused, s.news
		s.mu.Unlock()
		if !paused {
			if told {
				s.note(ctx, mirror.Entry{Kind: "pause", Outcome: "resumed", Message: "goes on"})
			}
			return true
		}
		if !told {
			told = true
			s.become(Paused, "")
			s.note(ctx, mirror.Entry{Kind: "pause", Outcome: "paused", Message: "nothing is asked of the API until it is resumed"})
			s.report(ctx)
			continue
		}
		select {
		case <-news:
		case <-ctx.Done():
		}
	}
	return false
}

// noteTime bounds what is written beside the pages.
const noteTime = 5 * time.Second

// note writes a line of the sync's log. That it cannot is no reason to stop.
func (s *Sync) note(ctx context.Context, e mirror.Entry) {
	ctx, cancel := context.WithTimeout(ctx, noteTime)
	defer cancel()
	if err := s.config.Mirror.Log(ctx, e); err != nil && !errors.Is(err, context.Canceled) {
		s.log.DebugContext(ctx, "a line of the sync's log is lost", obs.KeySync, s.config.Name, obs.KeyError, err)
	}
}

// session works on the sync from taking its lock until the lock, the credential's
// access or ctx is lost, or the sync is paused.
func (s *Sync) session(ctx context.Context) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	s.mu.Lock()
	s.stop = cancel
	if s.paused {
		cancel(errPaused)
	}
	s.mu.Unlock()
	release, err := s.lock(ctx)
	if err != nil {
		return cause(ctx, err)
	}
	defer release()
	if err := s.current(ctx); err != nil {
		return cause(ctx, err)
	}
	denials := steps(s.pace.denied, s.pace.denyMax)
	for {
		if err := s.admit(ctx, denials); err != nil {
			return cause(ctx, err)
		}
		began := time.Now()
		err := s.read(ctx)
		if !errors.Is(err, errDenied) || ctx.Err() != nil {
			return cause(ctx, err)
		}
		if time.Since(began) > s.pace.denyMax {
			denials.Reset()
		}
		s.refused(ctx, err)
		if err := hold(ctx, denials.NextBackOff(), s.kicked()); err != nil {
			return err
		}
	}
}

// cause is why ctx has ended, if it has.
func cause(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return err
}

// lock takes the sync's lock, and says so when that takes long.
func (s *Sync) lock(ctx context.Context) (release func(), err error) {
	waiting := time.AfterFunc(s.pace.waiting, func() { s.become(Waiting, "another engine works on the sync") })
	defer waiting.Stop()
	release, err = s.config.Mirror.Lock(ctx)
	if err == nil {
		s.become(Starting, "")
	}
	if errors.Is(err, lockstep.ErrNotFound) {
		err = fmt.Errorf("%w: %w", ErrStale, err)
	}
	return release, err
}

// current returns [ErrStale] when the sync is defined otherwise by now.
func (s *Sync) current(ctx context.Context) error {
	if s.config.Current == nil {
		return nil
	}
	same, err := s.config.Current(ctx)
	if err == nil && !same {
		err = fmt.Errorf("sync %q: %w", s.config.Name, ErrStale)
	}
	return err
}

// admit waits until the API takes the credential.
func (s *Sync) admit(ctx context.Context, denials *backoff.ExponentialBackOff) error {
	t := s.task("check", "")
	for {
		kick := s.kicked()
		account, err := s.check(ctx, t)
		if err == nil {
			s.admitted(ctx, account)
			return nil
		}
		if kindOf(err) != source.Unauthorized {
			return err
		}
		s.refused(ctx, err)
		if err := hold(ctx, denials.NextBackOff(), kick); err != nil {
			return err
		}
	}
}

func (s *Sync) admitted(ctx context.Context, account string) {
	s.mu.Lock()
	was := s.state
	s.account = account
	s.mu.Unlock()
	s.become(Starting, "")
	if was == Blocked {
		s.note(ctx, mirror.Entry{Kind: "check", Outcome: "recovered", Message: "the API takes the credential again"})
	}
}

// check asks whether the credential works, again and again until there is an answer.
func (s *Sync) check(ctx context.Context, t *task) (account string, err error) {
	for {
		err = s.ask(ctx, source.Changing, func(ctx context.Context) (err error) {
			account, err = s.config.Source.Check(ctx)
			return err
		})
		// An account that may not be seen is one nevertheless.
		if err == nil || kindOf(err) == source.Forbidden {
			t.succeed(ctx)
			return account, nil
		}
		if ctx.Err() != nil || kindOf(err) == source.Unauthorized {
			return "", cause(ctx, err)
		}
		kick := s.kicked()
		pause := t.fail(ctx, judge(err))
		if err := hold(ctx, pause, kick); err != nil {
			return "", err
		}
	}
}

// refused says that a person must act.
func (s *Sync) refused(ctx context.Context, err error) {
	s.mu.Lock()
	news := s.state != Blocked
	s.mu.Unlock()
	reason := "reconnect needed: " + err.Error()
	s.become(Blocked, reason)
	if news {
		s.log.ErrorContext(ctx, "the API refuses the credential", obs.KeySync, s.config.Name, obs.KeyError, err)
		s.note(ctx, mirror.Entry{Kind: "check", Outcome: "blocked", Message: reason})
		s.report(ctx)
	}
}

// read follows the API until the session ends.
func (s *Sync) read(ctx context.Context) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	w, err := s.plan(ctx, cancel)
	if err != nil {
		return cause(ctx, err)
	}
	s.mu.Lock()
	s.work, s.last, s.state, s.reason = w, w, Polling, ""
	s.changed()
	s.mu.Unlock()
	defer func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.work = nil
		s.changed()
	}()
	g := &errgroup.Group{}
	loops := []func(context.Context) error{w.fetch, w.tell, w.watch}
	for _, f := range w.feeds {
		loops = append(loops, f.run)
	}
	for _, c := range w.collections {
		loops = append(loops, c.run)
	}
	for _, run := range loops {
		g.Go(func() error {
			err := run(ctx)
			if err != nil {
				cancel(err) // the first counts
			}
			return err
		})
	}
	return cause(ctx, g.Wait())
}

// plan asks what there is, makes the tables, and reads where everything stands.
func (s *Sync) plan(ctx context.Context, cancel context.CancelCauseFunc) (*work, error) {
	w := newWork(s, cancel)
	t := s.task("check", "")
	err := t.try(ctx, func(ctx context.Context) error {
		err := s.ask(ctx, source.Changing, func(ctx context.Context) (err error) {
			w.list, err = s.config.Source.Collections(ctx)
			return err
		})
		if kindOf(err) == source.Unauthorized {
			return denial{err}
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	w.choose(w.list)
	for _, c := range w.collections {
		if err := c.shape(ctx); err != nil {
			return nil, err
		}
	}
	states, err := s.config.Mirror.States(ctx)
	if err != nil {
		return nil, err
	}
	if err := w.restore(states); err != nil {
		return nil, err
	}
	return w, s.learnTables(ctx)
}

// choose takes the collections that the sync reads, and their feeds.
func (w *work) choose(list []source.Collection) {
	wanted := w.s.config.Collections
	for _, name := range wanted {
		if !slices.ContainsFunc(list, func(c source.Collection) bool { return c.Name == name }) {
			c := w.add(source.Collection{Name: name})
			c.unknown = fmt.Sprintf("%s has no collection %s: take it out of the sync's collections, or correct its name", w.s.config.Provider, name)
		}
	}
	for _, c := range list {
		if len(wanted) > 0 && !slices.Contains(wanted, c.Name) {
			continue
		}
		added := w.add(c)
		if c.Feed == "" {
			continue
		}
		w.feed(c.Feed).take(added)
		added.feed = w.feeds[c.Feed]
		for _, name := range c.Also {
			w.feed(name).take(added)
			added.also = append(added.also, w.feeds[name])
		}
	}
}

// feed returns the feed of that name, which is made when somebody needs it.
func (w *work) feed(name string) *feed {
	f := w.feeds[name]
	if f == nil {
		f = newFeed(w, name)
		w.feeds[name] = f
	}
	return f
}
