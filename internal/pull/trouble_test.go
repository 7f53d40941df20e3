package pull_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"lockstep"
	core "lockstep/sandbox"
	"lockstep/source"

	"lockstep/internal/pull"
	sandbox "lockstep/sandbox/stripe"
)

// write changes something in the account through its API.
func (a *account) write(w source.Write) source.Record {
	a.t.Helper()
	r, err := a.source().(source.Writer).Write(a.t.Context(), w)
	if err != nil {
		a.t.Fatal(err)
	}
	return r
}

func TestWaitReturnsWhenWhatWasWrittenIsThere(t *testing.T) {
	t.Parallel()
	a := newAccount(t, sandbox.Options{Customers: 5})
	b := newBench(t, "stripe", a.source(), "customer", "product", "shipping_rate")
	b.config.Every = 10 * time.Second // a wait does not wait for the next poll
	e := b.run()
	e.wait(t)
	for i := range 8 {
		made := a.write(source.Write{Collection: "customer", Action: "create", Data: []byte(fmt.Sprintf(`{"email":"%d@x.example"}`, i))})
		e.wait(t)
		if got := b.query("SELECT email FROM stripe.customer WHERE id = $1::text", made.ID); len(got) != 1 || got[0][0] != fmt.Sprintf("%d@x.example", i) {
			t.Fatalf("after the wait the row is %v", got)
		}
		a.write(source.Write{Collection: "customer", Action: "delete", ID: made.ID})
		e.wait(t)
		if got := b.query("SELECT id FROM stripe.customer WHERE id = $1::text", made.ID); len(got) != 0 {
			t.Fatal("after the wait the deleted row is there")
		}
	}
	c := e.collection(t, "stripe:customer")
	if c.Deleted != 8 || c.Changed < 16 || c.PolledAt.IsZero() || c.Table != "stripe.customer" {
		t.Errorf("status %+v", c)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 0)
	defer cancel()
	if err := e.Wait(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("a wait without time gave %v", err)
	}
}

// A hint is fetched at once, without a poll, and moves no cursor.
func TestAHintIsFetchedAtOnce(t *testing.T) {
	t.Parallel()
	a := newAccount(t, sandbox.Options{Customers: 5})
	b := newBench(t, "stripe", a.source(), "customer", "price")
	b.config.Every = time.Hour
	e := b.run()
	e.wait(t)
	cursor := func() string {
		return b.query("SELECT cursors -> 'change' FROM lockstep.sync_state WHERE collection = 'events'")[0][0]
	}
	before := cursor()
	made := a.write(source.Write{Collection: "customer", Action: "create", Data: []byte(`{"email":"a@x.example"}`)})
	hint := source.Record{Collection: "customer", ID: made.ID}
	if err := e.Hint(t.Context(), []source.Record{hint, hint, {Collection: "charge", ID: "ch_1"}, {Collection: "customer", ID: "cus_none"}}); err != nil {
		t.Fatal(err)
	}
	e.eventually(t, "the hinted row", func() bool { return b.rows("customer")[made.ID] != nil })
	if after := cursor(); after != before {
		t.Errorf("the cursor moved from %s to %s", before, after)
	}
	e.Poll()
	e.eventually(t, "a poll", func() bool { return cursor() != before })
}

func TestAPausedSyncAsksNothing(t *testing.T) {
	t.Parallel()
	a := newAccount(t, sandbox.Options{Customers: 30})
	b := newBench(t, "stripe", a.source(), "customer", "charge")
	a.Core().Live(10)
	e := b.run()
	e.wait(t)
	e.Pause()
	e.becomes(t, pull.Paused)
	b.logged(t, "pause  paused")
	if err := e.Wait(t.Context()); !errors.Is(err, lockstep.ErrConflict) {
		t.Errorf("a wait for a paused sync gave %v", err)
	}
	if err := e.Resync(t.Context(), nil); !errors.Is(err, lockstep.ErrUnavailable) {
		t.Errorf("a resync of a paused sync gave %v", err)
	}
	var asked int
	e.eventually(t, "the end of what was under way", func() bool {
		before := asked
		asked = len(a.Core().Log().Calls(0))
		return !holds(100*time.Millisecond, func() bool { return len(a.Core().Log().Calls(0)) != before })
	})
	e.Poll()
	_ = holds(300*time.Millisecond, func() bool { return false })
	if n := len(a.Core().Log().Calls(0)); n != asked {
		t.Errorf("%d requests while it was paused", n-asked)
	}
	if got := b.query("SELECT state FROM lockstep.sync_state WHERE collection = 'customer'"); got[0][0] != "paused" {
		t.Errorf("psql shows %s", got[0][0])
	}
	e.Resume()
	e.wait(t)
	b.logged(t, "pause  resumed")
	a.Core().Live(0)
	e.wait(t)
	a.same(b, e, "customer", "charge")
}

func TestAWrongKeyThatIsMended(t *testing.T) {
	t.Parallel()
	a := newAccount(t, sandbox.Options{Customers: 10})
	b := newBench(t, "stripe", a.source(), "customer")
	a.RevokeKey(key)
	e := b.run()
	e.becomes(t, pull.Blocked)
	if s := e.Status(); !strings.Contains(s.Reason, "reconnect needed") || strings.Contains(s.Reason, key) {
		t.Errorf("the reason is %q", s.Reason)
	}
	if err := e.Wait(t.Context()); !errors.Is(err, lockstep.ErrConflict) {
		t.Errorf("a wait for a blocked sync gave %v", err)
	}
	asked := len(a.Core().Log().Calls(0))
	_ = holds(time.Second, func() bool { return false })
	if n := len(a.Core().Log().Calls(0)) - asked; n > 8 {
		t.Errorf("a refused key was tried %d times in a second", n)
	}
	a.AllowKey(key)
	e.becomes(t, pull.Polling)
	a.RevokeKey(key) // while it follows
	e.becomes(t, pull.Blocked)
	a.write2(source.Write{Collection: "customer", Action: "create", Data: []byte(`{"email":"a@x.example"}`)})
	a.AllowKey(key)
	e.becomes(t, pull.Polling)
	e.wait(t)
	a.same(b, e, "customer")
	b.logged(t, "check  blocked")
	b.logged(t, "check  recovered")
}

// write2 writes with another key.
func (a *account) write2(w source.Write) {
	a.t.Helper()
	other := *a
	other.key = "sk_test_987654321"
	other.write(w)
}

// Lost access is no deletion, and stops no other collection. What changed meanwhile is
// found when it is back.
func TestAccessThatIsLostAndComesBack(t *testing.T) {
	t.Parallel()
	a := newAccount(t, sandbox.Options{Customers: 30})
	b := newBench(t, "stripe", a.source(), "customer", "charge", "price")
	e := b.run()
	e.wait(t)
	had := len(b.rows("charge"))
	a.AllowKey(key, "account", "events", "customers", "prices")
	a.Core().Step(80)
	e.eventually(t, "the block", func() bool { return e.collection(t, "stripe:charge").State == pull.Blocked })
	a.same(b, e, "customer", "price")
	if s := e.Status(); s.State != pull.Polling || !strings.Contains(s.Reason, "stripe:charge") {
		t.Errorf("status %+v", s)
	}
	if n := len(b.rows("charge")); n < had {
		t.Errorf("%d of %d charges are left", n, had)
	}
	e.wait(t) // does not wait for what nobody may see
	b.logged(t, "backfill charge blocked")
	a.AllowKey(key)
	a.same(b, e, "customer", "charge", "price")
	e.eventually(t, "its end", func() bool { return e.Status().Reason == "" })
}

// A cursor that the API has forgotten means reading everything again: nothing is
// deleted for it, and what was deleted meanwhile is found.
func TestAnAgedOutCursor(t *testing.T) {
	t.Parallel()
	a := newAccount(t, sandbox.Options{Customers: 40})
	b := newBench(t, "stripe", a.source(), "customer", "charge", "price")
	e := b.run()
	e.wait(t)
	e.kill(t)
	a.Core().Step(50)
	for id := range a.truth("customer") {
		a.write(source.Write{Collection: "customer", Action: "delete", ID: id})
		break
	}
	if err := a.Core().Faults().Add(core.Fault{Kind: "status", Path: "/v1/events", Status: 400, Times: 2,
		Body: `{"error":{"type":"invalid_request_error","message":"The event 'evt_1' is no longer available because it's aged out of our retention policy."}}`}); err != nil {
		t.Fatal(err)
	}
	// The events are gone, too.
	b.query("UPDATE lockstep.sync_state SET cursors = cursors - 'trailing' WHERE collection = 'events' RETURNING 1")
	e = b.run()
	a.same(b, e, "customer", "charge", "price")
	b.logged(t, "backfill events restarted")
	b.logged(t, "sweep customer completed")
}

// One engine works, the other waits, and takes over.
func TestTwoEnginesOnOneSync(t *testing.T) {
	t.Parallel()
	a := newAccount(t, sandbox.Options{Customers: 20})
	b := newBench(t, "stripe", a.source(), "customer", "charge")
	one := b.run()
	one.wait(t)
	two := b.run()
	two.becomes(t, pull.Waiting)
	if err := two.Wait(t.Context()); !errors.Is(err, lockstep.ErrUnavailable) {
		t.Errorf("a wait for the engine that waits gave %v", err)
	}
	a.Core().Live(10)
	one.wait(t)
	one.kill(t)
	two.becomes(t, pull.Polling)
	// A fence that was raised by somebody else: the engine begins anew.
	b.query("UPDATE lockstep.sync SET fence = fence + 1 RETURNING 1")
	a.Core().Live(0)
	two.wait(t)
	a.Core().Step(20)
	a.same(b, two, "customer", "charge")
}

// A call that hangs is given up; the others go on meanwhile.
func TestACallThatHangs(t *testing.T) {
	t.Parallel()
	f := newFake(thing("thing"), source.Collection{Name: "other", Feed: "others"})
	f.fill("thing", 300)
	f.fill("other", 300)
	f.script(func(ctx context.Context, method, name string, n int) error {
		if method == "backfill" && name == "thing" && n <= 2 || method == "changes" && name == "log" && n == 1 {
			<-ctx.Done()
			return ctx.Err()
		}
		return nil
	})
	b := newBench(t, "fake", f)
	b.config.Workers = 2
	b.tune = func(s *pull.Sync) { s.CallsLastAtMost(300 * time.Millisecond) }
	e := b.run()
	f.same(b, e, "other")
	f.same(b, e, "thing")
	b.logged(t, "backfill thing recovered")
	e.wait(t)
}
