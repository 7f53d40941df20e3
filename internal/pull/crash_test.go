package pull_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"lockstep/internal/pull/limit"
	core "lockstep/sandbox"
	"lockstep/source"
	"lockstep/source/stripe"

	sandbox "lockstep/sandbox/stripe"
)

// C1, C2 and C6 of the nasty cases: an engine that is killed again and again, of an
// account that lives and an API that fails in every way. In the end nothing is lost
// and nothing is too much.
func TestKilledAtRandomNothingIsLost(t *testing.T) {
	t.Parallel()
	a := newAccount(t, sandbox.Options{Customers: 30, Bulk: 1000})
	faults := []core.Fault{
		{Kind: core.FaultStatus, Status: 500, Probability: 0.03},
		{Kind: core.FaultStatus, Status: 429, Probability: 0.02},
		{Kind: core.FaultTruncate, Probability: 0.03},
		{Kind: core.FaultReset, Probability: 0.02},
		{Kind: core.FaultHTML, Probability: 0.01},
		{Kind: "list_short", Probability: 0.02},
	}
	if err := a.Core().Faults().Add(faults...); err != nil {
		t.Fatal(err)
	}
	b := newBench(t, "stripe", often{a.source()}, simulated()...)
	a.Core().Live(15)
	seed := uint64(time.Now().UnixNano())
	dice := rand.New(rand.NewPCG(seed, 0))
	t.Log("seed", seed)
	for range 18 {
		e := b.run()
		time.AfterFunc(time.Duration(20+dice.IntN(250))*time.Millisecond, e.cancel)
		e.gone(t)
	}
	e := b.run()
	e.eventually(t, "the backfill", func() bool { return !e.Status().BackfilledAt.IsZero() })
	a.Core().Live(0)
	a.Core().Faults().Clear()
	e.wait(t)
	a.same(b, e, simulated()...)
}

// often is a source whose sweeps come every second where no event tells of changes.
type often struct{ source.Source }

func (o often) Collections(ctx context.Context) ([]source.Collection, error) {
	list, err := o.Source.Collections(ctx)
	for i := range list {
		if list[i].Feed != "events" {
			list[i].SweepEvery = time.Second
		}
	}
	return list, err
}

// A kill costs the pages that were not applied yet, and no others.
func TestABackfillGoesOnWhereItWasKilled(t *testing.T) {
	t.Parallel()
	const records, kills = 6000, 25
	f := newFake(thing("thing"))
	f.fill("thing", records)
	b := newBench(t, "fake", f)
	var killer atomic.Pointer[func()]
	f.script(func(ctx context.Context, method, _ string, _ int) error {
		if method != "backfill" {
			return nil
		}
		if kill := killer.Swap(nil); kill != nil {
			(*kill)()
		}
		select {
		case <-time.After(2 * time.Millisecond):
		case <-ctx.Done():
		}
		return ctx.Err()
	})
	dice := rand.New(rand.NewPCG(7, 7))
	for range kills {
		e := b.run()
		after := time.Duration(dice.IntN(60)) * time.Millisecond
		kill := func() { time.AfterFunc(after, e.cancel) }
		killer.Store(&kill)
		if !holds(soon, func() bool { return len(e.done) > 0 || e.Status().State == "polling" }) {
			t.Fatal("it neither ended nor was killed")
		}
		e.kill(t)
	}
	killer.Store(nil)
	e := b.run()
	f.same(b, e, "thing")
	// A transaction holds at most ten pages; three wait, one is being read.
	if n, most := f.count("backfill thing"), records/100+kills*(10+3+2); n > most {
		t.Errorf("%d pages were read, want at most %d", n, most)
	}
	if n := slices.Index(b.log(), "backfill thing resumed"); n < 0 {
		t.Errorf("the log does not tell of it: %v", b.log())
	}
	if got := b.query("SELECT count(*) FROM lockstep.sync_log WHERE outcome = 'completed' AND kind = 'backfill'"); got[0][0] != "1" {
		t.Errorf("%s backfills were completed", got[0][0])
	}
}

// The point between a commit and what the engine remembers of it.
func TestKilledBehindACommit(t *testing.T) {
	t.Parallel()
	f := newFake(thing("thing"))
	f.fill("thing", 500)
	b := newBench(t, "fake", f)
	b.config.Workers = 1
	for i := range 12 {
		var e *engine
		ready := make(chan struct{})
		b.config.Changed = func() { <-ready; e.cancel() }
		e = b.run()
		close(ready)
		_ = holds(200*time.Millisecond, func() bool { return len(e.done) > 0 }) // or nothing was left to commit
		e.kill(t)
		f.set("thing", fmt.Sprintf("t%06d", i), "new")
	}
	b.config.Changed = nil
	e := b.run()
	f.same(b, e, "thing")
}

// A feed whose cursor is exact: what a kill takes away no later page brings again.
func TestKilledWhileItFollows(t *testing.T) {
	t.Parallel()
	f := newFake(thing("thing"))
	b := newBench(t, "fake", f)
	first := b.run()
	first.wait(t) // the backfill must not make good what the feed loses
	first.kill(t)
	dice := rand.New(rand.NewPCG(3, 3))
	for i := range 30 {
		for j := range 20 {
			f.set("thing", fmt.Sprintf("%d-%d", i, j), "new")
		}
		var e *engine
		ready := make(chan struct{})
		after := time.Duration(dice.IntN(5000)) * time.Microsecond
		f.script(func(_ context.Context, method, _ string, _ int) error {
			if method == "changes" {
				<-ready
				time.AfterFunc(after, e.cancel)
			}
			return nil
		})
		e = b.run()
		close(ready)
		e.gone(t)
	}
	f.script(nil)
	e := b.run()
	f.same(b, e, "thing")
}

// Postgres ends the session that writes, in the middle of everything.
func TestPostgresBreaksTheSession(t *testing.T) {
	t.Parallel()
	a := newAccount(t, sandbox.Options{Customers: 20})
	b := newBench(t, "stripe", a.source(), "customer", "charge", "invoice", "price")
	a.Core().Live(20)
	e := b.run()
	for range 8 {
		_ = holds(50*time.Millisecond, func() bool { return false })
		b.query("SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()")
	}
	a.Core().Live(0)
	e.wait(t)
	a.same(b, e, "customer", "charge", "invoice", "price")
}

// Not one request too many, whatever happens: with Stripe's limits and a limiter that
// outlives the engines, as one account's does within a process.
func TestNoLimitIsBroken(t *testing.T) {
	t.Parallel()
	a := limitedAccount(t, sandbox.Options{Customers: 8})
	spec, err := stripe.Spec(key)
	if err != nil {
		t.Fatal(err)
	}
	buckets := map[string]limit.Bucket{}
	for name, l := range spec.Limits {
		buckets[name] = limit.Bucket{Rate: l.Rate, Per: l.Per, Burst: l.Burst, Concurrency: l.Concurrency, Penalty: l.Penalty}
	}
	each := buckets["endpoint"]
	delete(buckets, "endpoint")
	a.limiter = limit.New(limit.Config{Buckets: buckets, Bucket: func(string) (limit.Bucket, bool) { return each, true }})
	b := newBench(t, "stripe", a.source(), "customer", "charge", "price", "invoice", "subscription", "product")
	b.config.Every = 500 * time.Millisecond
	a.Core().Live(1)
	for range 3 {
		e := b.run()
		time.AfterFunc(700*time.Millisecond, e.cancel)
		e.gone(t)
	}
	e := b.run()
	e.wait(t)
	a.Core().Live(0)
	a.same(b, e, "customer", "charge", "price", "invoice", "subscription", "product")
	for limit, n := range a.Core().Log().Summary().Limited {
		t.Errorf("%s refused %d requests", limit, n)
	}
}
