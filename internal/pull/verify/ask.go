package verify

import (
	"context"
	"errors"
	"time"

	"lockstep/source"
)

const (
	// askTries is how often a request is sent that fails for the moment, with pauses
	// from firstPause on, each twice as long as the one before.
	askTries   = 7
	firstPause = 500 * time.Millisecond
	// listTries is how often a list is read from its beginning when it breaks off.
	listTries = 3
)

// ask asks the API, again if that may help.
func (k *check) ask(ctx context.Context, do func() (source.Page, error)) (source.Page, error) {
	pause := firstPause
	for try := 1; ; try++ {
		asked := time.Now()
		page, err := do()
		if page.At.IsZero() {
			page.At = asked
		}
		if err == nil || ctx.Err() != nil {
			return page, err
		}
		refusal, ok := errors.AsType[*source.Error](err)
		if !ok || !refusal.Retryable() || try == askTries {
			return page, err
		}
		if err := wait(ctx, max(refusal.After, pause)); err != nil {
			return page, err
		}
		pause *= 2
	}
}

func wait(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// each reads the collection's list once from its beginning to its end, and returns when
// the API was asked for the first page, by its clock. again is called before each
// beginning: what a list that broke off has shown counts for nothing.
func (k *check) each(ctx context.Context, again func() error, take func(source.Page) error) (started time.Time, err error) {
	for try := 1; ; try++ {
		if err := again(); err != nil {
			return started, err
		}
		started, err = k.walk(ctx, take)
		refusal, ok := errors.AsType[*source.Error](err)
		// Failed: the Source has lost its way in the list, perhaps with another reader's help.
		if !ok || refusal.Kind != source.Restart && refusal.Kind != source.Failed || try == listTries || ctx.Err() != nil {
			return started, err
		}
	}
}

func (k *check) walk(ctx context.Context, take func(source.Page) error) (started time.Time, err error) {
	k.pages = 0
	for at := source.Cursor(nil); ; {
		page, err := k.ask(ctx, func() (source.Page, error) { return k.config.Source.Backfill(ctx, k.c.Name, at) })
		if err != nil {
			return started, err
		}
		if k.pages++; k.pages == 1 {
			started = page.At
		}
		if err := take(page); err != nil {
			return started, err
		}
		if at = page.Next; at == nil {
			return started, nil
		}
	}
}

// list stages everything that the API lists.
func (k *check) list(ctx context.Context) (started time.Time, err error) {
	started, err = k.each(ctx,
		func() error { return k.stage.clear(ctx) },
		func(page source.Page) error { return k.listed(ctx, page) })
	if err != nil {
		return started, err
	}
	return started, k.stage.flush(ctx)
}

func (k *check) listed(ctx context.Context, page source.Page) error {
	for _, r := range page.Records {
		if r.Deleted {
			continue // it is gone, and the mirror should not have it
		}
		r.Collection = k.c.Name
		// Without a fingerprint it is no record that a row could be made of. It is there.
		print, err := k.config.Mirror.Fingerprint(r)
		if err != nil {
			print = [16]byte{}
		}
		if err := k.stage.add(ctx, listing{id: r.ID, print: print, at: page.At}); err != nil {
			return err
		}
	}
	return nil
}
