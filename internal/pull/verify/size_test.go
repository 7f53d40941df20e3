package verify_test

import (
	"context"
	"runtime"
	"sync"
	"testing"
	"time"

	"lockstep/internal/pull/verify"
	sandbox "lockstep/sandbox/stripe"
)

// peak measures the heap, without what the collector has not come to yet.
func peak(ctx context.Context) (stop func() uint64) {
	ctx, cancel := context.WithCancel(ctx)
	var most uint64
	var wait sync.WaitGroup
	wait.Go(func() {
		tick := time.NewTicker(200 * time.Millisecond)
		defer tick.Stop()
		for ctx.Err() == nil {
			runtime.GC()
			var m runtime.MemStats
			runtime.ReadMemStats(&m)
			most = max(most, m.HeapAlloc)
			select {
			case <-tick.C:
			case <-ctx.Done():
			}
		}
	})
	return func() uint64 { cancel(); wait.Wait(); return most }
}

// What is kept in memory does not depend on how many records there are, nor on how many
// differ. Not parallel: it measures the heap of the whole process.
func TestMemoryIsBounded(t *testing.T) { //nolint:paralleltest // see above
	const records = 200_000
	a := open(t, sandbox.Options{Customers: -1, Bulk: records, Unlimited: true}, "customer")
	a.world.Core().Log().Clear()
	a.exec("DELETE FROM stripe.customer WHERE id < 'cus_8'", "INSERT INTO stripe.customer (id) SELECT 'cus_made_up_' || n FROM generate_series(1, 20000) n")
	n := len(a.ids("SELECT id FROM stripe.customer WHERE id NOT LIKE 'cus_made_up_%'"))
	var before runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	stop := peak(t.Context())
	began := time.Now()
	r := a.verify(verify.Options{})
	most := stop()
	t.Logf("%d records in %s: %d MB more of heap", r.Checked, time.Since(began).Round(time.Millisecond), (most-before.HeapAlloc)>>20)
	if r.Checked != records+20_000 || r.MissingN != uint64(records-n) || r.ExtraN != 20_000 || r.StaleN != 0 {
		t.Errorf("%d checked, %d missing, %d extra, %d stale", r.Checked, r.MissingN, r.ExtraN, r.StaleN)
	}
	if most > before.HeapAlloc+48<<20 {
		t.Errorf("the heap grew by %d MB", (most-before.HeapAlloc)>>20)
	}
}

// All that Stripe allows is used, and nothing is refused.
func TestVerifyKeepsToTheLimits(t *testing.T) {
	t.Parallel()
	a := open(t, sandbox.Options{Customers: -1, Bulk: 5_000, Unlimited: true}, "customer")
	a.exec("DELETE FROM stripe.customer WHERE id IN (SELECT id FROM stripe.customer LIMIT 50)")
	a.world.Core().Limits().On()
	log := a.world.Core().Log()
	log.Clear()
	c := a.config()
	c.Source, _ = a.limited()
	began := time.Now()
	if r := a.run(c, verify.Options{Repair: true}); r.Repaired != 50 {
		t.Errorf("%d repaired", r.Repaired)
	}
	s := log.Summary()
	if s.Requests < 100 || s.Status[429] > 0 {
		t.Errorf("%d requests in %s: %v", s.Requests, time.Since(began), s.Status)
	}
}
