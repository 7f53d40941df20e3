package pull_test

import (
	"context"
	"errors"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"lockstep/internal/pgdb/pgtest"
	"lockstep/internal/pull"
	"lockstep/source"
)

// A change that cannot be fetched is not there, whatever the feeds' cursors say: the
// status tells of it, and a wait has everything read again, and holds until it is.
func TestAWaitHoldsUntilWhatWasMissedIsThere(t *testing.T) {
	t.Parallel()
	f := newFake(thing("thing"))
	f.fed = true
	b := newBench(t, "fake", f)
	b.tune = func(s *pull.Sync) { s.OwedEvery(time.Hour) }
	e := b.run()
	e.wait(t)
	f.script(func(_ context.Context, method, _ string, _ int) error {
		if method == "get" {
			return refuse(source.Invalid)
		}
		return nil
	})
	f.set("thing", "bad", "new")
	e.eventually(t, "the trouble in the status", func() bool {
		c := e.collection(t, "fake:thing")
		return c.State == pull.Failing && strings.Contains(c.Reason, "could not be fetched") && !c.NextAt.IsZero()
	})
	e.wait(t)
	if len(b.rows("thing")) != 1 {
		t.Error("the wait returned, and the record is not there")
	}
	e.eventually(t, "the end of the trouble", func() bool { return e.Status().State == pull.Polling })
}

// A collection whose records may not be seen any more is found out to be blocked at
// its first change: it costs the others nothing from then on. When access is back what
// was missed is read at once.
func TestAScopeThatIsTakenAwayBlocksItsCollectionSoon(t *testing.T) {
	t.Parallel()
	f := newFake(thing("thing"), thing("other"))
	f.fed = true
	f.fill("thing", 50)
	b := newBench(t, "fake", f)
	b.tune = func(s *pull.Sync) { s.OwedEvery(time.Hour) }
	e := b.run()
	e.wait(t)
	f.script(func(_ context.Context, method, name string, _ int) error {
		if strings.HasPrefix(name, "thing") && method != "changes" {
			return refuse(source.Forbidden)
		}
		return nil
	})
	f.set("thing", "t000001", "new")
	e.eventually(t, "the block", func() bool { return e.collection(t, "fake:thing").State == pull.Blocked })
	asked := f.count("get thing t000002")
	f.set("thing", "t000002", "new")
	f.set("other", "one", "new")
	e.wait(t) // does not wait for what nobody may see
	f.same(b, e, "other")
	if n := f.count("get thing t000002") - asked; n > 0 {
		t.Errorf("a blocked collection's record was asked for %d times", n)
	}
	f.script(nil)
	f.same(b, e, "thing")
	e.becomes(t, pull.Polling)
}

// What a feed has forgotten, or a table that was dropped has lost, is read again: a wait
// during that holds until it is done.
func TestAWaitHoldsUntilALostPlaceIsReadAgain(t *testing.T) {
	t.Parallel()
	f := newFake(thing("thing"))
	f.fill("thing", 300)
	b := newBench(t, "fake", f)
	e := b.run()
	e.wait(t)
	held := make(chan struct{})
	f.script(func(ctx context.Context, method, _ string, _ int) error {
		if method != "backfill" {
			return nil
		}
		select {
		case <-held:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	})
	pgtest.Exec(t, b.url, "DROP TABLE fake.thing")
	f.set("thing", "t000001", "new")
	e.eventually(t, "the reading", func() bool { return e.collection(t, "fake:thing").State == pull.Backfilling })
	ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
	defer cancel()
	if err := e.Wait(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("a wait while the table is filled again gave %v", err)
	}
	close(held)
	e.wait(t)
	if n := len(b.rows("thing")); n != 300 {
		t.Errorf("after the wait there are %d rows", n)
	}
}

// An engine that has waited finds out whether it still is what the sync is by, before
// it asks the API anything.
func TestAnEngineThatWasOvertakenEnds(t *testing.T) {
	t.Parallel()
	f := newFake(thing("thing"))
	b := newBench(t, "fake", f)
	one := b.run()
	one.wait(t)
	var stale atomic.Bool
	b.config.Current = func(context.Context) (bool, error) { return !stale.Load(), nil }
	second := newFake(thing("thing"))
	b.config.Source = second
	two := b.run()
	two.becomes(t, pull.Waiting)
	stale.Store(true)
	one.kill(t)
	select {
	case err := <-two.done:
		if !errors.Is(err, pull.ErrStale) || second.count("check ") > 0 {
			t.Errorf("Run returned %v, and asked %d times", err, second.count("check "))
		}
		two.done <- nil
	case <-time.After(soon):
		t.Error("Run did not return")
	}
}

// The sync was removed while an engine waited for it.
func TestAnEngineWhoseSyncWasRemovedEnds(t *testing.T) {
	t.Parallel()
	f := newFake(thing("thing"))
	b := newBench(t, "fake", f)
	one := b.run()
	one.wait(t)
	two := b.run()
	two.becomes(t, pull.Waiting)
	b.query("DELETE FROM lockstep.sync RETURNING 1")
	one.cancel()
	select {
	case err := <-two.done:
		if !errors.Is(err, pull.ErrStale) {
			t.Errorf("Run returned %v", err)
		}
		two.done <- nil
	case <-time.After(soon):
		t.Error("Run did not return")
	}
}
