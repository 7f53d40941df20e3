package pump_test

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"lockstep"
	"lockstep/internal/deliver"
	"lockstep/internal/pump"
	"lockstep/sink"
)

func settled(c *deliver.Consumer, floor uint64) func() bool {
	return func() bool { return c.Stats().Floor >= floor }
}

func TestEverythingArrivesOnceInOrderOfItsKey(t *testing.T) {
	t.Parallel()
	for _, size := range []int{1, 7, 100} {
		r := newRig(t)
		r.fill(3000, 37)
		c := r.consumer(func(d *deliver.Definition) { d.Batch.Size = size })
		to := newReceiver()
		p, stop := pumping(t, c, to, nil)
		eventually(t, "all are settled", settled(c, 3000))
		stop()
		to.check(t, 3000)
		if to.total != 3000 {
			t.Errorf("batches of %d: %d arrived, want 3000", size, to.total)
		}
		if s := p.Status(); s.State != pump.OK || s.Delivered != 3000 || s.Failed != 0 || s.Held != 0 {
			t.Errorf("batches of %d: status %+v", size, s)
		}
		if to.closed != 1 {
			t.Errorf("the sink was closed %d times", to.closed)
		}
	}
}

func TestABatchWaitsForOthersToGoWith(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	c := r.consumer(func(d *deliver.Definition) { d.Batch = deliver.Batch{Size: 10, Wait: 200 * time.Millisecond} })
	to := newReceiver()
	var sizes atomic.Pointer[[]int]
	sizes.Store(&[]int{})
	to.decide(func(_ context.Context, m []sink.Message) (int, error) {
		list := append(slices.Clone(*sizes.Load()), len(m))
		sizes.Store(&list)
		return len(m), nil
	})
	_, stop := pumping(t, c, to, nil)
	defer stop()
	began := time.Now()
	for _, k := range []string{"a", "b", "c"} {
		r.append(change{key: k})
	}
	eventually(t, "the three arrive", func() bool { return to.distinct() == 3 })
	if took := time.Since(began); took < 150*time.Millisecond || len(*sizes.Load()) != 1 {
		t.Errorf("they came after %s in batches of %v, want one batch after its wait", took, *sizes.Load())
	}
}

func TestOneKeyThatIsRefusedHoldsNoOther(t *testing.T) {
	t.Parallel()
	for _, kind := range []sink.Kind{sink.Rejected, sink.Retry} {
		r := newRig(t)
		r.fill(1000, 20)
		c := r.consumer(nil)
		to := newReceiver()
		to.decide(func(_ context.Context, m []sink.Message) (int, error) {
			if string(m[0].PKs) == `["k3"]` {
				return 0, &sink.Error{Kind: kind, Message: "not this one"}
			}
			return len(m), nil
		})
		p, stop := pumping(t, c, to, nil)
		eventually(t, "all the others arrive", func() bool { return to.distinct() == 950 })
		if s := p.Status(); s.State == pump.Open {
			t.Errorf("%s: one key opened the breaker: %+v", kind, s)
		}
		// What comes later goes at once.
		seq := r.append(change{key: "new"})
		eventually(t, "a new one arrives", func() bool { return to.distinct() == 951 })
		to.decide(nil)
		eventually(t, "the key goes on", settled(c, seq))
		stop()
		to.check(t, 1001)
	}
}

func TestAKeyThatFailsForEverDoesNotStopADestination(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.append(change{key: "bad"})
	c := r.consumer(nil)
	to := newReceiver()
	var tries atomic.Int32
	to.decide(func(_ context.Context, m []sink.Message) (int, error) {
		if string(m[0].PKs) == `["bad"]` {
			tries.Add(1)
			return 0, errors.New("connection reset")
		}
		return len(m), nil
	})
	p, stop := pumping(t, c, to, func(c *pump.Config) { c.FirstPause = time.Hour })
	defer stop()
	eventually(t, "many tries", func() bool { return tries.Load() > 30 })
	if s := p.Status(); s.State != pump.Retrying || s.Reason != "connection reset" {
		t.Errorf("status %+v", s)
	}
	r.append(change{key: "good"})
	eventually(t, "another key goes", func() bool { return to.distinct() == 1 })
}

func TestARejectedChangeIsParkedAfterItsAttempts(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	last := r.append(change{key: "a"}, change{key: "b"}, change{key: "a"})
	c := r.consumer(func(d *deliver.Definition) { d.MaxAttempts = 3 })
	to := newReceiver()
	var tries atomic.Int32
	to.decide(func(_ context.Context, m []sink.Message) (int, error) {
		if m[0].Seq == 1 {
			if n := tries.Add(1); int(n) != m[0].Attempt {
				t.Errorf("try %d says attempt %d", n, m[0].Attempt)
			}
			return 0, &sink.Error{Kind: sink.Rejected, Status: 400, Message: "endpoint: answered 400"}
		}
		return len(m), nil
	})
	p, stop := pumping(t, c, to, nil)
	defer stop()
	eventually(t, "all are settled", settled(c, last))
	letters, _, err := c.Dead(t.Context(), 0, 10)
	if err != nil || len(letters) != 1 || letters[0].Seq != 1 || !strings.Contains(letters[0].Reason, "400") {
		t.Fatalf("dead letters: %+v, %v", letters, err)
	}
	if tries.Load() != 3 {
		t.Errorf("it was tried %d times, want 3", tries.Load())
	}
	failed, _ := p.Book.List(0, 10, pump.FailedOnly)
	if len(failed) != 3 || failed[0].Status != 400 || failed[0].Outcome != "rejected" || failed[0].Number != 3 || !slices.Equal(failed[0].Seqs, []uint64{1}) {
		t.Errorf("attempts: %+v", failed)
	}
}

func TestADestinationThatFailsForEverythingCostsNoAttempts(t *testing.T) {
	t.Parallel()
	for _, keys := range []int{8, 100} { // few keys are tried again and again
		r := newRig(t)
		r.fill(1000, keys)
		c := r.consumer(func(d *deliver.Definition) { // every key has its first attempt before any has its second
			d.MaxAttempts, d.Backoff = 2, deliver.Backoff{First: 300 * time.Millisecond, Max: 300 * time.Millisecond}
		})
		to := newReceiver()
		var writes atomic.Int32
		to.decide(func(context.Context, []sink.Message) (int, error) {
			writes.Add(1)
			return 0, &sink.Error{Kind: sink.Retry, Status: 500, Message: "endpoint: answered 500"}
		})
		p, stop := pumping(t, c, to, func(c *pump.Config) { c.LongestPause = 10 * time.Millisecond })
		eventually(t, "the breaker opens", func() bool { return p.Status().State == pump.Open })
		at := writes.Load()
		eventually(t, "it is tried now and then", func() bool { return writes.Load() >= at+30 })
		if s := p.Status(); s.Reason != "endpoint: answered 500" || s.Held > 1 {
			t.Errorf("status %+v", s)
		}
		to.decide(nil)
		eventually(t, "all are settled", settled(c, 1000))
		stop()
		to.check(t, 1000)
		if n := c.Stats().Dead; n != 0 {
			t.Errorf("%d keys: %d changes went to the dead letters", keys, n)
		}
	}
}

func TestABadChangeAtTheHeadDoesNotKeepADestinationClosed(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.fill(200, 20)
	c := r.consumer(nil)
	to := newReceiver()
	down := errors.New("connection refused")
	to.decide(func(context.Context, []sink.Message) (int, error) { return 0, down })
	p, stop := pumping(t, c, to, nil)
	eventually(t, "the breaker opens", func() bool { return p.Status().State == pump.Open })
	to.decide(func(_ context.Context, m []sink.Message) (int, error) {
		if string(m[0].PKs) == `["k0"]` {
			return 0, down
		}
		return len(m), nil
	})
	eventually(t, "the others arrive", func() bool { return to.distinct() == 190 })
	to.decide(nil)
	eventually(t, "all are settled", settled(c, 200))
	stop()
	to.check(t, 200)
}

func TestAPauseThatIsAskedForIsKept(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.fill(200, 200)
	c := r.consumer(func(d *deliver.Definition) { d.MaxAttempts = 1 })
	to := newReceiver()
	const after = 150 * time.Millisecond
	var from atomic.Int64 // when the pause began
	var early, asked atomic.Int32
	to.decide(func(_ context.Context, m []sink.Message) (int, error) {
		if began := from.Load(); began != 0 && time.Since(time.UnixMicro(began)) < after-30*time.Millisecond {
			early.Add(1) // those that were under way when it was asked for
		}
		if asked.Add(1) == 50 {
			from.Store(time.Now().UnixMicro())
			return 0, &sink.Error{Kind: sink.Throttled, Status: 429, After: after, Message: "endpoint: answered 429"}
		}
		return len(m), nil
	})
	p, stop := pumping(t, c, to, nil)
	eventually(t, "the destination pauses", func() bool { return p.Status().State == pump.Throttled })
	if s := p.Status(); time.Until(s.NextTry) > after || s.Reason == "" {
		t.Errorf("status %+v", s)
	}
	eventually(t, "all are settled", settled(c, 200))
	stop()
	to.check(t, 200)
	if early.Load() > 16 {
		t.Errorf("%d writes began within the pause", early.Load())
	}
	if n := c.Stats().Dead; n != 0 {
		t.Errorf("%d changes were parked though max_attempts is 1: a pause is no attempt", n)
	}
}

func TestADestinationThatIsGoneWaitsForAPerson(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.fill(50, 10)
	c := r.consumer(func(d *deliver.Definition) { d.MaxAttempts = 1 })
	to := newReceiver()
	var writes atomic.Int32
	gone := func(context.Context, []sink.Message) (int, error) {
		writes.Add(1)
		return 0, &sink.Error{Kind: sink.Gone, Status: 410, Message: "endpoint: answered 410 Gone"}
	}
	to.decide(gone)
	keep := &kept{}
	p, stop := pumping(t, c, to, func(c *pump.Config) { c.Keep = keep })
	eventually(t, "it is gone", func() bool { return p.Status().State == pump.Gone })
	if !c.Definition().Paused || keep.reason.Load() == nil {
		t.Error("the consumer is not paused, or the reason not kept")
	}
	stop()
	// Also after a restart nothing is sent.
	if err := c.Resume(t.Context()); err != nil {
		t.Fatal(err)
	}
	before := writes.Load()
	p, stop = pumping(t, c, to, func(c *pump.Config) { c.Keep = keep })
	eventually(t, "it is gone still", func() bool { s := p.Status(); return s.State == pump.Gone && strings.Contains(s.Reason, "410") })
	if writes.Load() != before {
		t.Error("something was sent")
	}
	to.decide(nil)
	if err := c.Resume(t.Context()); err != nil {
		t.Fatal(err)
	}
	eventually(t, "all are settled", settled(c, 50))
	if s := p.Status(); s.State != pump.OK || *keep.reason.Load() != "" {
		t.Errorf("status %+v, kept %q", s, *keep.reason.Load())
	}
	stop()
	to.check(t, 50)
}

type kept struct{ reason atomic.Pointer[string] }

func (k *kept) Load(context.Context, string) (string, error) {
	if r := k.reason.Load(); r != nil {
		return *r, nil
	}
	return "", nil
}

func (k *kept) Save(_ context.Context, _, reason string) error {
	k.reason.Store(&reason)
	return nil
}

func TestADestinationThatRefusesIsTriedNowAndThen(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.fill(50, 10)
	c := r.consumer(func(d *deliver.Definition) { d.MaxAttempts = 1 })
	to := newReceiver()
	var writes atomic.Int32
	to.decide(func(context.Context, []sink.Message) (int, error) {
		writes.Add(1)
		return 0, &sink.Error{Kind: sink.Refused, Status: 401, Message: "endpoint: answered 401"}
	})
	p, stop := pumping(t, c, to, nil)
	eventually(t, "it says why", func() bool { s := p.Status(); return s.State == pump.Refused && strings.Contains(s.Reason, "401") })
	at := writes.Load()
	eventually(t, "it is tried again", func() bool { return writes.Load() > at+1 })
	to.decide(nil)
	eventually(t, "all are settled", settled(c, 50))
	stop()
	to.check(t, 50)
	if n := c.Stats().Dead; n != 0 {
		t.Errorf("%d changes were parked", n)
	}
}

func TestPartsOfABatchFail(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.fill(1000, 50)
	c := r.consumer(func(d *deliver.Definition) { d.Batch.Size = 40 })
	to := newReceiver()
	var round atomic.Int32
	to.decide(func(_ context.Context, m []sink.Message) (int, error) {
		var failed []sink.Failure
		held := map[uint64]bool{}
		for i := range m {
			if held[m[i].Key] || (m[i].Seq+uint64(round.Add(1)))%7 == 0 {
				held[m[i].Key] = true
				failed = append(failed, sink.Failure{Index: i, Err: errors.New("busy")})
			}
		}
		if len(failed) > 0 {
			return 0, &sink.PartialError{Failed: failed}
		}
		return len(m), nil
	})
	_, stop := pumping(t, c, to, nil)
	eventually(t, "all are settled", settled(c, 1000))
	stop()
	to.check(t, 1000)
	if to.total != 1000 {
		t.Errorf("%d arrived, want each once", to.total)
	}
}

func TestAShortWriteIsGoneOnWith(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.fill(300, 30)
	c := r.consumer(func(d *deliver.Definition) { d.Batch.Size = 20 })
	to := newReceiver()
	to.decide(func(_ context.Context, m []sink.Message) (int, error) {
		if len(m) > 3 {
			return 3, errors.New("no more at once")
		}
		return len(m), nil
	})
	_, stop := pumping(t, c, to, nil)
	eventually(t, "all are settled", settled(c, 300))
	stop()
	to.check(t, 300)
}

func TestStoppingKeepsWhatIsWritten(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.fill(2000, 300)
	c := r.consumer(nil)
	to := newReceiver()
	to.decide(func(ctx context.Context, m []sink.Message) (int, error) {
		select {
		case <-time.After(2 * time.Millisecond):
			return len(m), nil
		case <-ctx.Done():
			return 0, ctx.Err()
		}
	})
	for round := 0; c.Stats().Floor < 2000; round++ {
		_, stop := pumping(t, c, to, nil)
		at := to.distinct()
		eventually(t, "some arrive", func() bool { return to.distinct() >= min(at+150, 2000) })
		stop()
		if s := c.Stats(); s.InFlight != 0 {
			t.Fatalf("round %d: %d changes are still out", round, s.InFlight)
		}
	}
	to.check(t, 2000)
	if to.total != 2000 {
		t.Errorf("%d arrived: what was written before a stop came again", to.total)
	}
}

func TestASinkThatHangsIsCutOffWhenThePumpStops(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.append(change{key: "a"})
	c := r.consumer(func(d *deliver.Definition) { d.MaxAttempts = 1 })
	to := newReceiver()
	entered := make(chan struct{}, 1)
	to.decide(func(ctx context.Context, _ []sink.Message) (int, error) {
		entered <- struct{}{}
		<-ctx.Done()
		return 0, ctx.Err()
	})
	_, stop := pumping(t, c, to, func(c *pump.Config) { c.Grace = 50 * time.Millisecond })
	<-entered
	began := time.Now()
	stop()
	if took := time.Since(began); took > 2*time.Second {
		t.Errorf("it took %s", took)
	}
	if at, err := c.Where(t.Context(), 1); err != nil || at.State != deliver.ChangeWaiting || at.Attempts != 0 {
		t.Errorf("a stop cost an attempt: %+v, %v", at, err)
	}
}

func TestASinkThatPanicsHasFailed(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.fill(20, 5)
	c := r.consumer(nil)
	to := newReceiver()
	var n atomic.Int32
	to.decide(func(_ context.Context, m []sink.Message) (int, error) {
		if n.Add(1) == 3 {
			panic("a bug")
		}
		return len(m), nil
	})
	_, stop := pumping(t, c, to, nil)
	eventually(t, "all are settled", settled(c, 20))
	stop()
	if d := to.distinct(); d != 20 {
		t.Errorf("%d arrived", d)
	}
}

func TestAPausedConsumerSendsNothing(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	c := r.consumer(nil)
	to := newReceiver()
	p, stop := pumping(t, c, to, nil)
	defer stop()
	if err := c.Pause(t.Context()); err != nil {
		t.Fatal(err)
	}
	eventually(t, "it says so", func() bool { return p.Status().State == pump.Paused })
	seq := r.append(change{key: "a"})
	if err := c.Resume(t.Context()); err != nil {
		t.Fatal(err)
	}
	eventually(t, "it goes on", settled(c, seq))
}

func TestATruncateWaitsForItsTable(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.append(change{key: "a"}, change{key: "b"}, change{action: lockstep.Truncate}, change{key: "a"}, change{key: "c"})
	c := r.consumer(func(d *deliver.Definition) { d.Batch.Size = 10 })
	to := newReceiver()
	var batches [][]uint64
	to.decide(func(_ context.Context, m []sink.Message) (int, error) {
		var seqs []uint64
		for _, one := range m {
			seqs = append(seqs, one.Seq)
		}
		batches = append(batches, seqs) // one write at a time: they wait for each other
		return len(m), nil
	})
	_, stop := pumping(t, c, to, func(c *pump.Config) { c.Concurrency = 1 })
	eventually(t, "all are settled", settled(c, 5))
	stop()
	at := slices.IndexFunc(batches, func(b []uint64) bool { return slices.Contains(b, 3) })
	if at < 1 || len(batches[at]) != 1 || slices.Max(slices.Concat(batches[:at]...)) > 2 {
		t.Errorf("batches %v", batches)
	}
}

func TestASeekReplaysInOrder(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.fill(500, 20)
	c := r.consumer(nil)
	to := newReceiver()
	_, stop := pumping(t, c, to, nil)
	eventually(t, "some arrive", func() bool { return to.distinct() > 100 })
	if err := c.Seek(t.Context(), "beginning"); err != nil {
		t.Fatal(err)
	}
	eventually(t, "all are settled", settled(c, 500))
	stop()
	to.check(t, 500)
}
