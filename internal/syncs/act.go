package syncs

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"strings"

	"lockstep"
	"lockstep/internal/pull"
	"lockstep/internal/pull/verify"
	"lockstep/source"
)

// Run asks for everything now instead of at its time.
func (s *Set) Run(_ context.Context, ref string) (View, error) {
	return s.act(ref, func(o *opened) error {
		switch o.pull.Status().State {
		case pull.Paused:
			return fmt.Errorf("sync %q is paused: resume it: %w", ref, lockstep.ErrConflict)
		case pull.Waiting:
			return fmt.Errorf("sync %q: another engine works on it, ask that: %w", ref, lockstep.ErrUnavailable)
		default:
			o.pull.Poll()
			return nil
		}
	})
}

// Resync reads collections from their beginning again; all of them when none is named.
func (s *Set) Resync(ctx context.Context, ref string, collections []string) (View, error) {
	return s.act(ref, func(o *opened) error { return o.pull.Resync(ctx, collections) })
}

func (s *Set) act(ref string, do func(o *opened) error) (View, error) {
	r, err := s.find(ref)
	if err != nil {
		return View{}, err
	}
	o, err := r.working()
	if err == nil {
		err = do(o)
	}
	if err != nil {
		return View{}, err
	}
	return r.view(), nil
}

// Pause stops asking the API, also over restarts. For syncs of the configuration too:
// it is a state, not a definition.
func (s *Set) Pause(ctx context.Context, ref string) (View, error) {
	return s.pausing(ctx, ref, func(d *Definition) { d.Paused = true })
}

// Resume is the end of what Pause began.
func (s *Set) Resume(ctx context.Context, ref string) (View, error) {
	return s.pausing(ctx, ref, func(d *Definition) { d.Paused = false })
}

func (s *Set) pausing(ctx context.Context, ref string, change func(*Definition)) (View, error) {
	s.change.Lock()
	defer s.change.Unlock()
	r, err := s.find(ref)
	if err != nil {
		return View{}, err
	}
	d := r.definition()
	change(&d)
	st := s.store(d.Database)
	if err := st.await(ctx, d.Name); err != nil {
		return View{}, err
	}
	changed, err := st.switched(ctx, d)
	if err != nil {
		return View{}, err
	}
	r.pause(d.Paused, changed)
	return r.view(), nil
}

// Wait returns when everything that was in the API when it was called is in Postgres,
// and acked by the consumer if one is named.
func (s *Set) Wait(ctx context.Context, ref, consumer string) error {
	r, err := s.find(ref)
	if err != nil {
		return err
	}
	o, err := r.await(ctx)
	if err != nil {
		return err
	}
	if err := o.pull.Wait(ctx); err != nil {
		return err
	}
	if consumer == "" {
		return nil
	}
	return s.config.Settled(ctx, r.definition().Database, consumer)
}

// Verify compares the API with its mirror.
func (s *Set) Verify(ctx context.Context, ref string, o VerifyOptions) (verify.Result, error) {
	r, err := s.find(ref)
	if err != nil {
		return verify.Result{}, err
	}
	open, err := r.working()
	if err != nil {
		return verify.Result{}, err
	}
	d := r.definition()
	collections, err := open.chosen(ctx, o.Collections)
	if err != nil {
		return verify.Result{}, fmt.Errorf("sync %q: %w", d.Name, err)
	}
	return verify.Run(ctx, verify.Config{
		Source: open.connection.Second, Mirror: open.mirror, Pool: s.store(d.Database).target.Pool, Collections: collections,
		Provider: open.account.Prefix(), Logger: s.config.Logger,
	}, verify.Options{Repair: o.Repair})
}

// chosen returns the collections that the sync mirrors, or those of them that are named.
func (o *opened) chosen(ctx context.Context, names []string) ([]source.Collection, error) {
	all, err := o.connection.Source.Collections(ctx)
	if err != nil {
		return nil, fmt.Errorf("list its collections: %w", err)
	}
	mirrored := o.account.Collections()
	all = slices.DeleteFunc(slices.Clone(all), func(c source.Collection) bool { return !slices.Contains(mirrored, c.Name) })
	if len(names) == 0 {
		return all, nil
	}
	var chosen []source.Collection
	for _, name := range names {
		i := slices.IndexFunc(all, func(c source.Collection) bool { return c.Name == strings.TrimPrefix(name, o.account.Prefix()+":") })
		if i < 0 {
			return nil, fmt.Errorf("a collection %q is not mirrored: %w", name, lockstep.ErrInvalid)
		}
		chosen = append(chosen, all[i])
	}
	return chosen, nil
}

// Log returns what a sync did, newest first: up to limit lines with ids below before;
// 0 for before: the newest.
func (s *Set) Log(ctx context.Context, ref string, before int64, limit int) ([]Entry, error) {
	r, err := s.find(ref)
	if err != nil {
		return nil, err
	}
	st := s.store(r.definition().Database)
	if err := st.await(ctx, r.definition().Name); err != nil {
		return nil, err
	}
	return st.log(ctx, r.id, before, limit)
}

// Receive takes a webhook of the API: what it is about is fetched soon.
//
// Errors: [lockstep.ErrInvalid] for one that is not signed by the API, or by a
// provider that has none; [lockstep.ErrUnavailable] when there are too many.
func (s *Set) Receive(ctx context.Context, ref string, header http.Header, body []byte) error {
	r, err := s.find(ref)
	if err != nil {
		return err
	}
	o, err := r.working()
	if err != nil {
		return err
	}
	receiver, ok := o.receiver()
	if !ok {
		return fmt.Errorf("sync %q: the provider %s has no webhooks: %w", r.definition().Name, r.definition().Provider, lockstep.ErrInvalid)
	}
	hints, err := receiver.Receive(ctx, header, body)
	if err != nil {
		return fmt.Errorf("sync %q: %w: %w", r.definition().Name, err, lockstep.ErrInvalid)
	}
	return o.pull.Hint(ctx, hints)
}
