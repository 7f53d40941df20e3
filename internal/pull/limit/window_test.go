package limit_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"lockstep/internal/pull/limit"
	"lockstep/sandbox"
	"lockstep/sandbox/stripe"
	"lockstep/source"
)

// span is when a request was under way: the API counts it once, at some time in it.
type span struct{ left, arrived time.Duration }

// most returns how many arrived within one stretch at most.
func most(spans []span, per time.Duration) (n int) {
	slices.SortFunc(spans, func(a, b span) int { return int(a.arrived - b.arrived) })
	first := 0
	for i, s := range spans {
		for s.arrived-spans[first].arrived >= per {
			first++
		}
		n = max(n, i-first+1)
	}
	return n
}

// Whatever is asked in whatever order, with whatever delays on the way up to the
// slack: the API never counts more than it allows within any stretch.
func TestNoWindowHasMoreThanIsAllowed(t *testing.T) {
	t.Parallel()
	for seed := range uint64(40) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			dice := rand.New(rand.NewPCG(seed, 1)) //nolint:gosec // a test that is the same each time
			rate := 1 + dice.IntN(40)
			per := time.Duration(1+dice.IntN(20)) * 100 * time.Millisecond
			spec := limit.Bucket{Rate: float64(rate), Per: per, Burst: float64(1 + dice.IntN(2*rate)), Concurrency: dice.IntN(5), Reserve: float64(dice.IntN(3)) / 10}
			inBubble(t, limit.Config{Buckets: map[string]limit.Bucket{"a": spec, "b": {Rate: 30}}}, func(b *bench) {
				var spans []span
				for range 300 {
					ctx, cancel := b.t.Context(), func() {}
					if dice.IntN(5) == 0 {
						ctx, cancel = context.WithTimeout(ctx, time.Duration(dice.IntN(2000))*time.Millisecond)
					}
					p, way, back := source.Priority(dice.IntN(6)), time.Duration(dice.Int64N(int64(per/30))), time.Duration(dice.Int64N(int64(per)))
					buckets := [][]string{{"a"}, {"a", "b"}, {"b", "a"}}[dice.IntN(3)]
					b.wait.Go(func() {
						defer cancel()
						release, err := b.Wait(ctx, buckets, p, 1)
						if err != nil {
							return
						}
						left := time.Since(b.began)
						time.Sleep(way) //nolint:forbidigo // the bubble's time
						b.mu.Lock()
						spans = append(spans, span{left, time.Since(b.began)})
						b.mu.Unlock()
						time.Sleep(back) //nolint:forbidigo // the bubble's time
						release(nil)
					})
					if dice.IntN(3) == 0 {
						b.pass(time.Duration(dice.IntN(int(2*per/time.Millisecond))) * time.Millisecond / 4)
					}
					if dice.IntN(50) == 0 {
						b.Penalize("a", time.Duration(dice.IntN(1000))*time.Millisecond)
					}
				}
				b.wait.Wait()
				if n := most(spans, per); n > rate {
					b.t.Errorf("%d within %s, of %d: %+v", n, per, rate, spec)
				}
				if len(spans) < 200 {
					b.t.Errorf("only %d of 300 left", len(spans))
				}
			})
		})
	}
}

// server counts as an API does, and refuses what is too much.
type server interface {
	enter(now time.Time) (leave func(), ok bool)
}

type vendor struct {
	l       *sandbox.Limiter
	charges []sandbox.Charge
}

func (v vendor) enter(now time.Time) (func(), bool) {
	leave, refused := v.l.Enter(now, v.charges...)
	return leave, refused == nil
}

// All that is allowed is used, and nothing is refused, however the API counts.
func TestWhatIsAllowedIsUsed(t *testing.T) {
	t.Parallel()
	for _, window := range []sandbox.Window{sandbox.Bucket, sandbox.Sliding, sandbox.Fixed} {
		for _, latency := range []time.Duration{2 * time.Millisecond, 30 * time.Millisecond, 400 * time.Millisecond} {
			t.Run(fmt.Sprint(window, " ", latency), func(t *testing.T) {
				spec := limit.Bucket{Rate: 25, Burst: 5, Concurrency: 40}
				v := vendor{sandbox.NewLimiter(sandbox.Limit{Name: "a", Rate: 25, Window: window}), []sandbox.Charge{{Limit: "a"}}}
				t.Parallel()
				synctest.Test(t, func(t *testing.T) {
					l := limit.New(one(spec))
					dice := rand.New(rand.NewPCG(1, 1)) //nolint:gosec // a test that is the same each time
					used, refused := load(t, l, v, 20, time.Minute, func() (time.Duration, time.Duration) {
						jitter := time.Duration(dice.Int64N(int64(33 * time.Millisecond)))
						return min(latency/2, 5*time.Millisecond) + min(jitter, latency), latency / 2
					})
					if refused > 0 || used < 25*60*95/100 {
						t.Errorf("%d of %d used, %d refused", used, 25*60, refused)
					}
				})
			})
		}
	}
}

// load asks as much as it may for a while, and returns what the server took and refused.
func load(t *testing.T, l *limit.Limiter, s server, workers int, stretch time.Duration, way func() (there, back time.Duration)) (used, refused int) {
	ctx, stop := context.WithTimeout(t.Context(), stretch)
	defer stop()
	var wait sync.WaitGroup
	var mu sync.Mutex
	for range workers {
		wait.Go(func() {
			for {
				release, err := l.Wait(ctx, []string{"a"}, source.Backfilling, 1)
				if err != nil {
					return
				}
				mu.Lock()
				there, back := way()
				mu.Unlock()
				time.Sleep(there) //nolint:forbidigo // the bubble's time
				mu.Lock()
				leave, ok := s.enter(time.Now())
				if ok {
					used++
				} else {
					refused++
				}
				mu.Unlock()
				time.Sleep(back) //nolint:forbidigo // the bubble's time
				leave()
				release(nil)
			}
		})
	}
	wait.Wait()
	return used, refused
}

// In real time over real HTTP, against Stripe's limits in live mode as the sandbox
// counts them.
func TestARealServerRefusesNothing(t *testing.T) {
	t.Parallel()
	const rate, stretch = 100, 4 * time.Second
	counts := sandbox.NewLimiter(stripe.Limits()...)
	var used, refused atomic.Int64
	api := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		leave, no := counts.Enter(time.Now(), sandbox.Charge{Limit: "global-rate:live"}, sandbox.Charge{Limit: "endpoint-rate", Key: r.URL.Path}, sandbox.Charge{Limit: "global-concurrency"})
		defer leave()
		if used.Add(1); no != nil {
			refused.Add(1)
			w.WriteHeader(http.StatusTooManyRequests)
		}
	}))
	t.Cleanup(api.Close)
	l := limit.New(limit.Config{Buckets: map[string]limit.Bucket{"account": {Rate: rate, Burst: 20, Concurrency: 40}}, Bucket: func(name string) (limit.Bucket, bool) {
		return limit.Bucket{Rate: 25, Burst: 5}, strings.HasPrefix(name, "endpoint:")
	}})
	ctx, stop := context.WithTimeout(t.Context(), stretch)
	defer stop()
	var wait sync.WaitGroup
	for i := range 24 {
		path := fmt.Sprint("/", i%6)
		wait.Go(func() {
			for {
				release, err := l.Wait(ctx, []string{"account", "endpoint:" + path}, source.Backfilling, 1)
				if err != nil {
					return
				}
				response, err := api.Client().Get(api.URL + path)
				if err == nil {
					_ = response.Body.Close()
				}
				release(response)
			}
		})
	}
	wait.Wait()
	allowed := int64(rate * stretch / time.Second)
	t.Logf("%d of %d used, %d refused", used.Load(), allowed, refused.Load())
	if refused.Load() > 0 || used.Load() < allowed*95/100 {
		t.Errorf("%d of %d used, %d refused", used.Load(), allowed, refused.Load())
	}
}
