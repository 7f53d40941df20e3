package verify_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"lockstep"
	"lockstep/internal/mirror"
	"lockstep/internal/pgdb/pgtest"
	"lockstep/internal/pull/verify"
	core "lockstep/sandbox"
	sandbox "lockstep/sandbox/stripe"
	"lockstep/source"
)

// What fails for the moment is tried again, a list that breaks off begins anew, and a
// collection that cannot be read is told, and keeps nobody from the others.
func TestACollectionThatCannotBeReadIsTold(t *testing.T) {
	t.Parallel()
	a := open(t, sandbox.Options{Customers: 40, Unlimited: true}, "customer", "product", "price", "charge")
	a.exec("DELETE FROM stripe.customer WHERE id = (SELECT min(id) FROM stripe.customer)", "DROP TABLE stripe.charge")
	calls := map[string]*atomic.Int64{"customer": {}, "product": {}, "price": {}, "charge": {}}
	c := a.config()
	c.Source = faulty{Source: a.source, backfill: func(collection string, at source.Cursor) (source.Page, error, bool) {
		n := calls[collection].Add(1)
		switch {
		case collection == "product":
			return source.Page{}, &source.Error{Kind: source.Forbidden, Status: 403, Message: "list product: no access"}, true
		case collection == "customer" && n == 1:
			return source.Page{}, &source.Error{Kind: source.RateLimited, Status: 429, Message: "too often"}, true
		case collection == "customer" && n == 3:
			return source.Page{}, &source.Error{Kind: source.Restart, Message: "begin again"}, true
		case collection == "price" && n <= 2:
			return source.Page{}, &source.Error{Kind: source.Retry, Status: 502, Message: "later"}, true
		}
		return source.Page{}, nil, false
	}}
	r := a.run(c, verify.Options{})
	if r.MissingN != 1 || r.StaleN+r.ExtraN != 0 || len(r.Missing) != 1 {
		t.Errorf("found %v", short(r))
	}
	if len(r.Unchecked) != 2 || r.Unchecked[0].Collection != "stripe:charge" || r.Unchecked[1] != (verify.Unchecked{Collection: "stripe:product", Reason: "list product: no access"}) {
		t.Errorf("unchecked: %+v", r.Unchecked)
	}
	got := a.ids("SELECT collection || ' ' || outcome FROM lockstep.sync_log WHERE kind = 'verify'")
	if want := []string{"charge failed", "customer different", "price equal", "product failed"}; !slices.Equal(got, want) {
		t.Errorf("log: %v", got)
	}
}

// Where much is missing, all is listed once more instead of asked for one by one.
func TestMuchThatIsMissingIsListed(t *testing.T) {
	t.Parallel()
	a := open(t, sandbox.Options{Customers: -1, Bulk: 3000, Unlimited: true}, "customer")
	a.exec("DELETE FROM stripe.customer")
	before := a.world.Core().Log().Summary().Requests
	r := a.verify(verify.Options{Repair: true})
	if r.MissingN != 3000 || len(r.Missing) != verify.Shown || r.Repaired != 3000 || r.Checked != 3000 {
		t.Errorf("%d missing, %d shown, %d repaired, %d checked", r.MissingN, len(r.Missing), r.Repaired, r.Checked)
	}
	if n := a.world.Core().Log().Summary().Requests - before; n > 70 {
		t.Errorf("%d requests for two lists of 30 pages", n)
	}
	a.want(a.verify(verify.Options{}))
}

// Whatever is deleted was asked for by its id, however much it is.
func TestNothingIsDeletedBlindly(t *testing.T) {
	t.Parallel()
	a := open(t, sandbox.Options{Customers: -1, Bulk: 300, Unlimited: true}, "customer")
	a.exec("INSERT INTO stripe.customer (id) SELECT 'cus_made_up_' || n FROM generate_series(1, 80) n")
	// The list shows a third of what there is; each of them is there when it is asked for.
	c := a.config()
	asked := atomic.Int64{}
	c.Source = faulty{Source: a.source,
		backfill: func(collection string, _ source.Cursor) (source.Page, error, bool) {
			page, err := a.source.Backfill(t.Context(), collection, nil)
			page.Next = nil
			return page, err, true
		},
		get: func(_ string, ids []string, page source.Page) (source.Page, error) {
			asked.Add(int64(len(ids)))
			return page, nil
		},
	}
	r := a.run(c, verify.Options{Repair: true})
	if r.ExtraN != 80 || r.Repaired != 80 || r.MissingN+r.StaleN != 0 || asked.Load() < 280 {
		t.Errorf("%d extra, %d repaired, %d asked for", r.ExtraN, r.Repaired, asked.Load())
	}
	if n := len(a.ids("SELECT id FROM stripe.customer")); n != 300 {
		t.Errorf("%d of 300 rows are left", n)
	}
}

// The second list is empty, as one of somebody without access is: what it does not show
// is asked for before it is deleted.
func TestAnEmptyListDeletesNothing(t *testing.T) {
	t.Parallel()
	a := open(t, sandbox.Options{Customers: -1, Bulk: 300, Unlimited: true}, "customer")
	a.exec(`UPDATE stripe.customer SET _fingerprint = '\x00'`)
	lists := 0
	c := a.config()
	c.Source = faulty{Source: a.source, backfill: func(_ string, at source.Cursor) (source.Page, error, bool) {
		if at == nil {
			lists++
		}
		return source.Page{}, nil, lists > 1
	}}
	r := a.run(c, verify.Options{Repair: true})
	if r.StaleN != 300 || r.Repaired != 300 || r.ExtraN != 0 {
		t.Errorf("%d stale, %d extra, %d repaired", r.StaleN, r.ExtraN, r.Repaired)
	}
	a.want(a.verify(verify.Options{}))
}

// What the mirror reads while it is being compared is newer than what it is compared with.
func TestWhatTheMirrorReadsMeanwhileIsNewer(t *testing.T) {
	t.Parallel()
	a := open(t, sandbox.Options{Customers: 20, Unlimited: true}, "customer")
	id := a.ids("UPDATE stripe.customer SET _fingerprint = '\\x00' WHERE id = (SELECT min(id) FROM stripe.customer) RETURNING id")[0]
	n := 0
	c := a.config()
	c.Source = faulty{Source: a.source, get: func(_ string, _ []string, page source.Page) (source.Page, error) {
		n++
		_, err := a.mirror.Apply(t.Context(), mirror.Change{Collection: "customer", At: page.At.Add(time.Millisecond), Records: []source.Record{
			{ID: id, Rank: source.RankObject, Data: fmt.Appendf(nil, `{"id":%q,"n":%d}`, id, n)}}})
		return page, err
	}}
	a.want(a.run(c, verify.Options{}))
}

// Without a way to ask for one record, two lists decide; beyond the valve nothing does.
func TestWithoutAskingForOneRecord(t *testing.T) {
	t.Parallel()
	a := open(t, sandbox.Options{Customers: -1, Bulk: 600, Unlimited: true}, "customer")
	c := a.config()
	c.Collections = slices.Clone(a.collections)
	c.Collections[0].Get = false
	insert := func(n int) {
		a.exec(fmt.Sprintf("INSERT INTO stripe.customer (id) SELECT 'cus_made_up_' || n FROM generate_series(1, %d) n", n))
	}
	insert(51)
	r := a.run(c, verify.Options{Repair: true})
	if r.ExtraN != 51 || r.Repaired != 0 {
		t.Errorf("beyond the valve: %d extra, %d repaired", r.ExtraN, r.Repaired)
	}
	if got := a.ids("SELECT message FROM lockstep.sync_log WHERE kind = 'verify'"); len(got) != 1 || !strings.Contains(got[0], "51 extra were left") {
		t.Errorf("log: %v", got)
	}
	a.exec("DELETE FROM stripe.customer WHERE id LIKE 'cus_made_up_%'")
	insert(50)
	a.exec("DELETE FROM stripe.customer WHERE id = (SELECT max(id) FROM stripe.customer)")
	r = a.run(c, verify.Options{Repair: true})
	if r.ExtraN != 50 || r.MissingN != 1 || r.Repaired != 51 {
		t.Errorf("%d extra, %d missing, %d repaired", r.ExtraN, r.MissingN, r.Repaired)
	}
	a.want(a.run(c, verify.Options{}))
}

// The API shows a record in the list and nothing when asked for it.
func TestAnAPIThatSaysNothingOfARecord(t *testing.T) {
	t.Parallel()
	a := open(t, sandbox.Options{Customers: 20, Unlimited: true}, "customer")
	a.exec("INSERT INTO stripe.customer (id) VALUES ('cus_made_up')")
	id := a.ids("DELETE FROM stripe.customer WHERE id = (SELECT max(id) FROM stripe.customer WHERE id <> 'cus_made_up') RETURNING id")[0]
	c := a.config()
	c.Source = faulty{Source: a.source, get: func(string, []string, source.Page) (source.Page, error) { return source.Page{}, nil }}
	a.want(a.run(c, verify.Options{Repair: true}), "extra stripe:customer cus_made_up", "missing stripe:customer "+id)
	a.want(a.verify(verify.Options{}))
}

// A record whose API changes it all the time is no difference while the mirror follows,
// and is one when it does not.
func TestARecordThatNeverStandsStill(t *testing.T) {
	t.Parallel()
	a := open(t, sandbox.Options{Customers: 20, Unlimited: true}, "customer")
	pair := a.ids("SELECT id FROM stripe.customer ORDER BY id LIMIT 2")
	a.exec(`UPDATE stripe.customer SET _fingerprint = '\x00' WHERE id IN (SELECT id FROM stripe.customer ORDER BY id LIMIT 2)`)
	n := 0
	c := a.config()
	c.Source = faulty{Source: a.source, get: func(_ string, _ []string, page source.Page) (source.Page, error) {
		for i := range page.Records {
			n++
			page.Records[i].Data = fmt.Appendf(nil, `{"id":%q,"n":%d}`, page.Records[i].ID, n)
			if page.Records[i].ID == pair[0] { // the mirror has read it in between
				_, err := a.mirror.Apply(t.Context(), mirror.Change{Collection: "customer", At: page.At.Add(-time.Millisecond), Records: []source.Record{
					{ID: pair[0], Rank: source.RankObject, Data: fmt.Appendf(nil, `{"id":%q,"n":-%d}`, pair[0], n)}}})
				if err != nil {
					return page, err
				}
			}
		}
		return page, nil
	}}
	a.want(a.run(c, verify.Options{}), "stale stripe:customer "+pair[1])
}

func TestRecordsThatTheTableRefusesAreToldApart(t *testing.T) {
	t.Parallel()
	a := open(t, sandbox.Options{Customers: 20, Unlimited: true}, "customer")
	id := a.ids("DELETE FROM stripe.customer WHERE id = (SELECT max(id) FROM stripe.customer) RETURNING id")[0]
	a.exec(fmt.Sprintf("ALTER TABLE stripe.customer ADD CHECK (id <> '%s')", id))
	a.backfill("customer")
	want := "missing stripe:customer " + id + " the table has refused it: see lockstep.sync_parked"
	a.want(a.verify(verify.Options{}), want)
	r := a.verify(verify.Options{Repair: true})
	a.want(r, want)
	if r.Repaired != 0 {
		t.Errorf("%d repaired", r.Repaired)
	}
}

func TestTheEndOfTheContextIsTheEnd(t *testing.T) {
	t.Parallel()
	a := open(t, sandbox.Options{Customers: -1, Bulk: 500, Unlimited: true}, "customer")
	a.exec("DELETE FROM stripe.customer WHERE id = (SELECT max(id) FROM stripe.customer)")
	for name, stop := range map[string]func(*verify.Config, context.CancelFunc){
		"in the list": func(c *verify.Config, cancel context.CancelFunc) {
			if err := a.world.Core().Faults().Add(core.Fault{Kind: core.FaultDelay, Path: "/v1/customers", Times: 1, Delay: core.Duration(time.Minute)}); err != nil {
				t.Fatal(err)
			}
			time.AfterFunc(200*time.Millisecond, cancel)
		},
		"while it settles": func(c *verify.Config, cancel context.CancelFunc) {
			a.world.Core().Faults().Clear()
			c.Settle = time.Hour
			time.AfterFunc(3*time.Second, cancel)
		},
	} {
		ctx, cancel := context.WithCancel(t.Context())
		c := a.config()
		c.Source = a.connect(nil)
		stop(&c, cancel)
		began := time.Now()
		if _, err := verify.Run(ctx, c, verify.Options{}); !errors.Is(err, context.Canceled) {
			t.Errorf("%s: got %v", name, err)
		}
		if took := time.Since(began); took > 5*time.Second {
			t.Errorf("%s: it went on for %s", name, took)
		}
	}
	pgtest.Eventually(t, 10*time.Second, "the sessions have ended", func() bool {
		return len(a.ids("SELECT pid::text FROM pg_stat_activity WHERE application_name = 'lockstep verify'")) == 0
	})
}

// Only who holds the sync's lock repairs.
func TestARepairNeedsTheLock(t *testing.T) {
	t.Parallel()
	a := open(t, sandbox.Options{Customers: 20, Unlimited: true}, "customer")
	a.exec("DELETE FROM stripe.customer WHERE id = (SELECT max(id) FROM stripe.customer)", "UPDATE lockstep.sync SET fence = fence + 1")
	if _, err := verify.Run(t.Context(), a.config(), verify.Options{Repair: true}); !errors.Is(err, lockstep.ErrFenced) {
		t.Errorf("got %v", err)
	}
	if r := a.verify(verify.Options{}); r.MissingN != 1 {
		t.Errorf("found %v", short(r))
	}
}
