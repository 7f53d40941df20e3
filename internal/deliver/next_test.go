package deliver_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"lockstep"
	"lockstep/internal/deliver"
)

func TestNextTakesOneOfEachKeyFirstThenExtendsRuns(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.log.append(t, ins("a", "a", "a", "b", "c", "b")...)
	c := r.put(definition(nil))
	want(t, "a batch of 4", next(t, c, 4), "a@1 a@2 b@4 c@5")
	want(t, "while all keys are out", next(t, c, 4), "")
}

func TestNoLaterChangeOfAKeyGoesOutBeforeTheRunIsSettled(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.log.append(t, ins("a", "a", "a")...)
	c := r.put(definition(nil))
	run := next(t, c, 2)
	want(t, "the run", run, "a@1 a@2")
	ack(t, c, run[0])
	want(t, "with half of the run acked", next(t, c, 2), "")
	ack(t, c, run[1])
	want(t, "with all of the run acked", next(t, c, 2), "a@3")
}

func TestRunMayBeAckedOutOfOrder(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.log.append(t, ins("a", "a", "a", "a")...)
	c := r.put(definition(nil))
	run := next(t, c, 3)
	ack(t, c, run[1])
	nack(t, c, deliver.NackOptions{Mode: deliver.Release}, run[0])
	wantStale(t, c, run[2])
	want(t, "what comes back", next(t, c, 10), "a@1 a@3 a@4")
}

func TestNextRefusesBatchesOutOfRange(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	c := r.put(definition(nil))
	for _, n := range []int{-1, deliver.MaxBatch + 1} {
		if _, err := c.Next(t.Context(), deliver.NextRequest{Batch: n}); !errors.Is(err, lockstep.ErrInvalid) {
			t.Errorf("batch %d: got error %v, want ErrInvalid", n, err)
		}
	}
}

func TestMaxInFlightBoundsWhatIsOut(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.log.append(t, ins("a", "b", "c", "d", "e")...)
	c := r.put(definition(func(d *deliver.Definition) { d.MaxInFlight = 3 }))
	first := next(t, c, 2)
	second := next(t, c, 10)
	want(t, "the rest of what may be out", second, "c@3")
	want(t, "beyond it", next(t, c, 10), "")
	ack(t, c, first...)
	want(t, "after two acks", next(t, c, 10), "d@4 e@5")
}

func TestNextWakesAtTheFirstChange(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	c := r.put(definition(nil))
	got := make(chan []deliver.Delivery)
	go func() {
		res, _ := c.Next(context.Background(), deliver.NextRequest{Batch: 100, Wait: time.Minute})
		got <- res.Deliveries
	}()
	eventually(t, "the consumer is at the tail", func() bool { return c.Stats().Attached })
	r.log.append(t, ins("a", "b")...)
	want(t, "the waiting call", <-got, "a@1 b@2")
}

func TestEachChangeGoesToOneOfManyWaiters(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	c := r.put(definition(nil))
	const waiters = 20
	got := make(chan deliver.Result, waiters)
	for range waiters {
		go func() {
			res, _ := c.Next(context.Background(), deliver.NextRequest{Wait: time.Minute})
			got <- res
		}()
	}
	for i := range waiters {
		r.log.append(t, ins(fmt.Sprint(i))...)
	}
	seen := map[uint64]bool{}
	for range waiters {
		for _, d := range (<-got).Deliveries {
			seen[d.Record.Seq()] = true
		}
	}
	if len(seen) != waiters {
		t.Errorf("%d waiters got %d changes", waiters, len(seen))
	}
}

func TestNextAtOnceSeesWhatIsInTheLog(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	c := r.put(definition(nil))
	for i := range 500 {
		r.log.append(t, ins(fmt.Sprint("k", i))...)
		ds := next(t, c, 10)
		if len(ds) != 1 {
			t.Fatalf("change %d: got %q", i+1, show(ds))
		}
		ack(t, c, ds...)
	}
	res, err := c.Next(t.Context(), deliver.NextRequest{})
	if err != nil || res.Pending != 0 || res.AckPending != 0 {
		t.Errorf("at the end: %+v, error %v; want nothing pending", res, err)
	}
}

func TestWaitEndsEmpty(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		c := r.put(definition(nil))
		began := time.Now()
		res, err := c.Next(t.Context(), deliver.NextRequest{Wait: 3 * time.Second})
		if err != nil || len(res.Deliveries) != 0 || time.Since(began) != 3*time.Second {
			t.Errorf("got %+v after %s, error %v", res, time.Since(began), err)
		}
		r.stop()
	})
}

func TestCancelledWaiterLosesNothing(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		c := r.put(definition(nil))
		ctx, cancel := context.WithCancel(t.Context())
		failed := make(chan error)
		go func() {
			_, err := c.Next(ctx, deliver.NextRequest{Wait: time.Hour})
			failed <- err
		}()
		synctest.Wait()
		cancel()
		if err := <-failed; !errors.Is(err, context.Canceled) {
			t.Errorf("got error %v", err)
		}
		r.log.append(t, ins("a")...)
		want(t, "the next call", next(t, c, 1), "a@1")
		r.stop()
	})
}

func TestPausedConsumerAnswersEmptyAndResumeWakes(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		r.log.append(t, ins("a", "b")...)
		c := r.put(definition(nil))
		out := next(t, c, 1)
		if err := c.Pause(t.Context()); err != nil {
			t.Fatal(err)
		}
		want(t, "while paused", next(t, c, 1), "")
		ack(t, c, out...)
		got := make(chan deliver.Result)
		go func() {
			res, _ := c.Next(t.Context(), deliver.NextRequest{Wait: time.Hour})
			got <- res
		}()
		synctest.Wait()
		if err := c.Resume(t.Context()); err != nil {
			t.Fatal(err)
		}
		want(t, "the waiting call", (<-got).Deliveries, "b@2")
		r.stop()
	})
}

func TestStopEndsWaitingCallsAndLaterOnesFail(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	c := r.put(definition(nil))
	got := make(chan error)
	go func() {
		res, err := c.Next(context.Background(), deliver.NextRequest{Wait: time.Hour})
		if len(res.Deliveries) > 0 {
			err = errors.New("handed out")
		}
		got <- err
	}()
	eventually(t, "the call waits", func() bool { return c.Stats().Attached })
	r.stop()
	if err := <-got; err != nil {
		t.Errorf("the waiting call: %v", err)
	}
	if _, err := c.Next(t.Context(), deliver.NextRequest{}); !errors.Is(err, lockstep.ErrUnavailable) {
		t.Errorf("a later call: got error %v, want ErrUnavailable", err)
	}
}

func TestFilterAndTablesSelect(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.log.append(t,
		row{key: "1", extra: `,"amount":"5"`}, row{key: "2", extra: `,"amount":"50"`}, row{table: "items", key: "3", extra: `,"amount":"500"`},
		row{key: "2", action: lockstep.Delete, extra: `,"amount":"50"`}, truncate("orders"), row{key: "4", action: lockstep.Read, extra: `,"amount":"51"`})
	c := r.put(definition(func(d *deliver.Definition) {
		d.Tables, d.Actions, d.Filter = []string{"public.orders"}, []lockstep.Action{lockstep.Insert}, "record.amount > 10"
	}))
	ds := next(t, c, 10)
	want(t, "before the truncate", ds, "2@2")
	ack(t, c, ds...)
	ds = next(t, c, 10)
	want(t, "the truncate", ds, "truncate@5")
	ack(t, c, ds...)
	want(t, "after it", next(t, c, 10), "4@6")
}

func TestOrderByColumnsHoldsAcrossTables(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.log.append(t,
		row{key: "1", extra: `,"tenant":"x"`}, row{table: "items", key: "1", extra: `,"tenant":"x"`}, row{table: "items", key: "2", extra: `,"tenant":"y"`},
		row{key: "3", extra: `,"tenant":null`}, row{key: "4"})
	c := r.put(definition(func(d *deliver.Definition) { d.OrderBy.Columns = []string{"tenant"} }))
	ds := next(t, c, 3)
	want(t, "one of each tenant", ds, "1@1 2@3 3@4")
	ack(t, c, ds...)
	want(t, "the next of each", next(t, c, 10), "1@2 4@5")
}

func TestOrderByNoneHandsOutEverything(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.log.append(t, ins("a", "a", "a")...)
	c := r.put(definition(func(d *deliver.Definition) { d.OrderBy.None = true }))
	want(t, "the first worker", next(t, c, 1), "a@1")
	want(t, "the second", next(t, c, 2), "a@2 a@3")
}
