package limit_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"lockstep/internal/pull/limit"
	"lockstep/source"
)

// bench is a limiter in a bubble's time, and who left it when.
type bench struct {
	*limit.Limiter
	t     *testing.T
	began time.Time
	wait  sync.WaitGroup
	mu    sync.Mutex
	left  []departure
}

type departure struct {
	name string
	at   time.Duration
}

func inBubble(t *testing.T, c limit.Config, test func(b *bench)) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := &bench{Limiter: limit.New(c), t: t, began: time.Now()}
		test(b)
		b.wait.Wait()
	})
}

// ask lets a request wait; once it may leave it takes so long to be answered.
func (b *bench) ask(name string, p source.Priority, took time.Duration, buckets ...string) {
	b.askFor(name, p, 1, took, buckets...)
}

func (b *bench) askFor(name string, p source.Priority, cost float64, took time.Duration, buckets ...string) {
	ctx := b.t.Context()
	b.wait.Go(func() {
		release, err := b.Wait(ctx, buckets, p, cost)
		if err != nil {
			b.t.Errorf("%s: %v", name, err)
			return
		}
		b.note(name)
		time.Sleep(took) //nolint:forbidigo // the bubble's time
		release(nil)
	})
	synctest.Wait() // so that the order of coming is that of asking
}

func (b *bench) note(name string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.left = append(b.left, departure{name, time.Since(b.began)})
}

func (b *bench) names() (names []string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, d := range b.left {
		names = append(names, d.name)
	}
	return names
}

func (b *bench) at(name string) time.Duration {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, d := range b.left {
		if d.name == name {
			return d.at.Round(time.Millisecond)
		}
	}
	b.t.Errorf("%s has not left", name)
	return 0
}

func (b *bench) pass(d time.Duration) {
	time.Sleep(d) //nolint:forbidigo // the bubble's time
	synctest.Wait()
}

func equal(t *testing.T, got, want any) {
	t.Helper()
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}

func one(b limit.Bucket) limit.Config { return limit.Config{Buckets: map[string]limit.Bucket{"a": b}} }

func TestThePriorityDecidesThenTheOrderOfComing(t *testing.T) {
	inBubble(t, one(limit.Bucket{Rate: 10}), func(b *bench) {
		b.ask("first", source.Sweeping, 0, "a")
		for i := range 2 {
			for p := source.Sweeping; ; p-- {
				b.ask(fmt.Sprint(p, ".", i), p, 0, "a")
				if p == source.Writing {
					break
				}
			}
		}
		b.wait.Wait()
		want := []string{"first"}
		for p := range 6 {
			want = append(want, fmt.Sprint(p, ".", 0), fmt.Sprint(p, ".", 1))
		}
		equal(b.t, b.names(), want)
	})
}

func TestRequestsAreSpacedAndABurstLeavesAtOnce(t *testing.T) {
	inBubble(t, limit.Config{Buckets: map[string]limit.Bucket{"even": {Rate: 10}, "burst": {Rate: 10, Burst: 4}}}, func(b *bench) {
		for i := range 3 {
			b.ask(fmt.Sprint("even", i), source.Changing, 0, "even")
		}
		for i := range 6 {
			b.ask(fmt.Sprint("burst", i), source.Changing, 0, "burst")
		}
		b.wait.Wait()
		equal(b.t, []time.Duration{b.at("even0"), b.at("even1"), b.at("even2")}, []time.Duration{0, 100 * time.Millisecond, 200 * time.Millisecond})
		equal(b.t, []time.Duration{b.at("burst3"), b.at("burst4"), b.at("burst5")}, []time.Duration{0, 100 * time.Millisecond, 200 * time.Millisecond})
	})
}

// Only writes touch the reserve, and it is there for them however much is read.
func TestTheReserveIsForWrites(t *testing.T) {
	inBubble(t, one(limit.Bucket{Rate: 100, Burst: 100, Reserve: 0.2}), func(b *bench) {
		for i := range 200 {
			b.ask(fmt.Sprint("read", i), source.Changing, 0, "a")
		}
		if n := len(b.names()); n != 80 {
			b.t.Errorf("%d reads left at once, want 80", n)
		}
		for i := range 20 {
			b.ask(fmt.Sprint("write", i), source.Writing, 0, "a")
		}
		if at := b.at("write19"); at != 0 {
			b.t.Errorf("the last write left after %s", at)
		}
	})
}

func TestLowPrioritiesGetTheirShare(t *testing.T) {
	inBubble(t, one(limit.Bucket{Rate: 100}), func(b *bench) {
		ctx, stop := context.WithTimeout(b.t.Context(), time.Minute)
		defer stop()
		count := map[source.Priority]int{}
		for _, p := range []source.Priority{source.Changing, source.Backfilling} {
			for range 5 { // more than enough to take everything
				b.wait.Go(func() {
					for {
						release, err := b.Wait(ctx, []string{"a"}, p, 1)
						if err != nil {
							return
						}
						b.mu.Lock()
						count[p]++
						b.mu.Unlock()
						release(nil)
					}
				})
			}
		}
		b.wait.Wait()
		if share := float64(count[source.Backfilling]) / float64(count[source.Changing]); share < 0.045 || share > 0.06 {
			b.t.Errorf("%v: the lower one got %.3f of the higher", count, share)
		}
	})
}

func TestNoMoreThanTheAllowedAreUnderWay(t *testing.T) {
	inBubble(t, one(limit.Bucket{Concurrency: 2}), func(b *bench) {
		for i := range 5 {
			b.ask(fmt.Sprint(i), source.Changing, time.Second, "a")
		}
		b.wait.Wait()
		equal(b.t, []time.Duration{b.at("1"), b.at("2"), b.at("4")}, []time.Duration{0, time.Second, 2 * time.Second})
	})
}

func TestReleaseCountsOnce(t *testing.T) {
	inBubble(t, one(limit.Bucket{Concurrency: 1}), func(b *bench) {
		release, err := b.Wait(b.t.Context(), []string{"a"}, source.Changing, 1)
		if err != nil {
			b.t.Fatal(err)
		}
		release(nil)
		release(nil)
		b.ask("second", source.Changing, time.Second, "a")
		b.ask("third", source.Changing, 0, "a")
		if got := b.names(); len(got) != 1 {
			b.t.Errorf("under way at once: %v", got)
		}
	})
}

func TestARefusalStopsItsBucketOnly(t *testing.T) {
	c := limit.Config{Buckets: map[string]limit.Bucket{"a": {Rate: 10, Penalty: 7 * time.Second}, "b": {Rate: 10}}}
	inBubble(t, c, func(b *bench) {
		b.Penalize("a", 30*time.Second)
		b.ask("a", source.Changing, 0, "a")
		b.ask("both", source.Changing, 0, "b", "a")
		b.ask("b", source.Backfilling, 0, "b")
		b.wait.Wait()
		if at := b.at("b"); at != 0 {
			b.t.Errorf("the other bucket waited for %s", at)
		}
		if b.at("a") < 30*time.Second || b.at("both") <= b.at("a") {
			b.t.Errorf("left during the pause: %s, %s", b.at("a"), b.at("both"))
		}
		b.Penalize("b", 0)
		b.Penalize("a", 0)
		q := b.Quotas()
		now := time.Since(b.began)
		equal(b.t, []time.Duration{q[0].PausedTo.Sub(b.began) - now, q[1].PausedTo.Sub(b.began) - now}, []time.Duration{7 * time.Second, time.Second})
		equal(b.t, []uint64{q[0].Refusals, q[0].Requests, q[1].Refusals, q[1].Requests}, []uint64{2, 2, 1, 2})
	})
}

func TestAfterARefusalTheBucketStartsSlowly(t *testing.T) {
	inBubble(t, one(limit.Bucket{Rate: 100, Burst: 10}), func(b *bench) {
		b.Penalize("a", 10*time.Second)
		b.Penalize("a", 10*time.Second) // of the same moment
		b.pass(time.Second)
		for i := range 1000 {
			b.ask(fmt.Sprint(i), source.Changing, 0, "a")
		}
		b.pass(10 * time.Second)
		if n := len(b.names()); n < 40 || n > 60 {
			b.t.Errorf("%d left in the first second, want about 50", n)
		}
		b.wait.Wait()
		b.pass(time.Minute)
		now := time.Since(b.began)
		for i := range 100 {
			b.ask(fmt.Sprint("later", i), source.Changing, 0, "a")
		}
		b.wait.Wait()
		if took := b.at("later99") - now; took > 950*time.Millisecond {
			b.t.Errorf("a minute after the pause 100 requests took %s", took)
		}
	})
}

// One of them is not there yet: the other is not kept from anybody.
func TestWhoWaitsForManyBucketsHoldsNone(t *testing.T) {
	c := limit.Config{Buckets: map[string]limit.Bucket{"a": {Rate: 10, Concurrency: 1}, "b": {Rate: 10}}}
	inBubble(t, c, func(b *bench) {
		b.Penalize("b", 10*time.Second)
		b.ask("both", source.Writing, 0, "a", "b")
		for i := range 20 {
			b.ask(fmt.Sprint(i), source.Sweeping, 0, "a")
		}
		b.wait.Wait()
		equal(b.t, b.at("19"), 1900*time.Millisecond)
		if at := b.at("both"); at < 10*time.Second || at > 11*time.Second {
			b.t.Errorf("who waited for both left after %s", at)
		}
	})
}

// Requests through both must not starve behind those through one, and nobody waits
// for ever, whatever the order of the names.
func TestManyBucketsAtOnce(t *testing.T) {
	c := limit.Config{Buckets: map[string]limit.Bucket{"a": {Rate: 20}, "b": {Rate: 30}, "c": {Rate: 40, Concurrency: 2}}}
	inBubble(t, c, func(b *bench) {
		ctx, stop := context.WithTimeout(b.t.Context(), time.Minute)
		defer stop()
		count := map[string]int{}
		for name, buckets := range map[string][]string{"abc": {"a", "b", "c"}, "cba": {"c", "b", "a"}, "a": {"a"}, "b": {"b"}, "c": {"c"}, "bcb": {"b", "c", "b"}} {
			for range 3 {
				b.wait.Go(func() {
					for {
						release, err := b.Wait(ctx, buckets, source.Changing, 1)
						if err != nil {
							return
						}
						b.mu.Lock()
						count[name]++
						b.mu.Unlock()
						time.Sleep(5 * time.Millisecond) //nolint:forbidigo // the bubble's time
						release(nil)
					}
				})
			}
		}
		b.wait.Wait()
		for _, name := range slices.Sorted(maps.Keys(count)) {
			if count[name] < 150 {
				b.t.Errorf("%s left %d times in a minute: %v", name, count[name], count)
			}
		}
		if n := count["abc"] + count["cba"] + count["a"]; n < 1140 {
			b.t.Errorf("%d of 1200 used", n)
		}
	})
}

func TestWhoGivesUpMakesRoom(t *testing.T) {
	inBubble(t, one(limit.Bucket{Rate: 1}), func(b *bench) {
		b.ask("first", source.Changing, 0, "a")
		ctx, cancel := context.WithCancelCause(b.t.Context())
		reason := errors.New("enough")
		b.wait.Go(func() {
			if _, err := b.Wait(ctx, []string{"a"}, source.Writing, 1); !errors.Is(err, reason) {
				b.t.Errorf("got %v", err)
			}
		})
		synctest.Wait()
		b.ask("second", source.Changing, 0, "a")
		b.pass(500 * time.Millisecond)
		cancel(reason)
		b.wait.Wait()
		equal(b.t, b.at("second"), time.Second)
		if _, err := b.Wait(ctx, []string{"a"}, source.Writing, 1); !errors.Is(err, reason) {
			b.t.Errorf("with an ended context: %v", err)
		}
		equal(b.t, b.Quotas()[0].Requests, uint64(2))
	})
}

// Names are resolved when they are asked for. However many there are, so many at most
// are kept.
func TestBucketsByName(t *testing.T) {
	asked := 0
	c := limit.Config{Bucket: func(name string) (limit.Bucket, bool) {
		asked++
		return limit.Bucket{Rate: 1}, name != "nobody"
	}}
	inBubble(t, c, func(b *bench) {
		b.ask("x1", source.Changing, 0, "x")
		b.ask("y1", source.Changing, 0, "y")
		b.ask("free1", source.Changing, 0, "nobody")
		b.ask("free2", source.Changing, 0, "nobody")
		b.ask("x2", source.Changing, 0, "x")
		b.wait.Wait()
		equal(b.t, []time.Duration{b.at("x1"), b.at("y1"), b.at("free2"), b.at("x2")}, []time.Duration{0, 0, 0, time.Second})
		for i := range 3000 {
			b.ask(fmt.Sprint(i), source.Changing, 0, fmt.Sprint("name", i))
			if i%1000 == 0 {
				b.pass(2 * time.Second) // those before are as new ones would be
			}
		}
		b.wait.Wait()
		if at := b.at("2000"); at > 10*time.Second {
			b.t.Errorf("names that nobody used any more were kept: the 2000th waited until %s", at)
		}
		before := asked
		b.ask("again", source.Changing, 0, "name2999")
		equal(b.t, asked, before)
	})
}

func TestACostIsCountedAsAWhole(t *testing.T) {
	inBubble(t, one(limit.Bucket{Rate: 10, Burst: 5}), func(b *bench) {
		b.askFor("free", source.Changing, 0, 0, "a")
		b.askFor("five", source.Changing, 5, 0, "a")
		b.askFor("three", source.Changing, 3, 0, "a")
		b.askFor("more than there is", source.Changing, 25, 0, "a")
		b.askFor("after", source.Changing, 1, 0, "a")
		b.wait.Wait()
		equal(b.t, b.at("three"), 300*time.Millisecond)
		equal(b.t, b.at("more than there is"), 1300*time.Millisecond) // the window is empty
		equal(b.t, b.at("after"), 3400*time.Millisecond)              // five were there for 25, and one
	})
}

func TestAPersonAsksForLess(t *testing.T) {
	c := limit.Config{
		Buckets: map[string]limit.Bucket{"a": {Rate: 100, Burst: 100, Reserve: 0.1}},
		Narrow:  limit.Narrow{RequestsPerSecond: 0.5, MaxConcurrent: 1, Reserve: 0.5},
	}
	inBubble(t, c, func(b *bench) {
		b.ask("1", source.Changing, 3*time.Second, "a")
		b.ask("2", source.Changing, 0)
		b.ask("3", source.Changing, 0, "a")
		b.wait.Wait()
		equal(b.t, []time.Duration{b.at("2"), b.at("3")}, []time.Duration{4 * time.Second, 8 * time.Second}) // half of the pace is reserved
		var names []string
		for _, q := range b.Quotas() {
			names = append(names, q.Bucket)
		}
		equal(b.t, names, []string{"a", "rate_limit"})
	})
}

// The context ends in the moment in which the request may leave: whoever wins, nothing
// stays taken that nobody uses.
func TestLeavingAndGivingUpAtOnce(t *testing.T) {
	inBubble(t, one(limit.Bucket{Concurrency: 1, Rate: 2000, Burst: 2000}), func(b *bench) {
		var gone, left int
		for range 500 {
			holder, err := b.Wait(b.t.Context(), []string{"a"}, source.Changing, 1)
			if err != nil {
				b.t.Fatal(err)
			}
			ctx, cancel := context.WithCancel(b.t.Context())
			b.wait.Go(func() {
				release, err := b.Wait(ctx, []string{"a"}, source.Changing, 1)
				if err != nil {
					gone++
					return
				}
				left++
				release(nil)
			})
			synctest.Wait()
			cancel()
			holder(nil)
			b.wait.Wait()
		}
		if b.Quotas()[0].Requests != uint64(500+left) {
			b.t.Errorf("%d gave up, %d left, %d counted", gone, left, b.Quotas()[0].Requests)
		}
		b.ask("after", source.Changing, 0, "a")
		equal(b.t, b.at("after"), time.Duration(0))
	})
}

func TestWhatWaitsForChangesIsCounted(t *testing.T) {
	inBubble(t, limit.Config{Buckets: map[string]limit.Bucket{"a": {Rate: 1}, "b": {Rate: 1}}}, func(b *bench) {
		b.ask("first", source.Changing, 0, "a")
		synctest.Wait()
		for _, p := range []source.Priority{source.Changing, source.Hydrating, source.Backfilling, source.Sweeping} {
			b.ask("request", p, 0, "a")
		}
		synctest.Wait()
		got := map[string]int{}
		for _, q := range b.Quotas() {
			got[q.Bucket] = q.Waiting
		}
		// Readers of everything may wait for long without anything missing.
		if want := map[string]int{"a": 2, "b": 0}; !maps.Equal(got, want) {
			t.Errorf("waiting %v, want %v", got, want)
		}
	})
}
