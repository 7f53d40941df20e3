package verify_test

import (
	"testing"
	"time"

	"lockstep/internal/pull/verify"
	sandbox "lockstep/sandbox/stripe"
)

func all() []string {
	return []string{"customer", "product", "price", "subscription", "invoice", "payment_intent", "charge", "refund", "balance_transaction", "upcoming_invoice"}
}

func TestNothingIsFoundWhereAllIsEqual(t *testing.T) {
	t.Parallel()
	a := open(t, sandbox.Options{Customers: 60, Unlimited: true}, all()...)
	r := a.verify(verify.Options{})
	a.want(r)
	n := uint64(0)
	for _, c := range all() {
		n += uint64(len(a.ids("SELECT id FROM stripe." + c)))
	}
	if r.Checked != n || n == 0 || r.EndedAt.Before(r.StartedAt) {
		t.Errorf("%d of %d checked", r.Checked, n)
	}
	if got := len(a.ids("SELECT collection FROM lockstep.sync_log WHERE kind = 'verify' AND outcome = 'equal'")); got != len(all()) {
		t.Errorf("%d collections in the log", got)
	}
}

// Rows that are gone, too many, of another content, or edited by hand.
func damage(a *account) (want []string) {
	note := func(what, sql string) {
		a.t.Helper()
		ids := a.ids(sql)
		if len(ids) == 0 {
			a.t.Fatal("nothing to damage for: " + what)
		}
		for _, id := range ids {
			want = append(want, what+" "+id)
		}
	}
	note("missing stripe:customer", "DELETE FROM stripe.customer WHERE id IN (SELECT id FROM stripe.customer ORDER BY id LIMIT 7) RETURNING id")
	note("stale stripe:customer", "UPDATE stripe.customer SET email = 'somebody@else.example' WHERE id = (SELECT min(id) FROM stripe.customer) RETURNING id")
	note("stale stripe:customer", `UPDATE stripe.customer SET _raw = _raw || '{"name": "else"}' WHERE id = (SELECT max(id) FROM stripe.customer) RETURNING id`)
	note("stale stripe:invoice", "UPDATE stripe.invoice SET total = NULL WHERE id IN (SELECT id FROM stripe.invoice WHERE total <> 0 ORDER BY id LIMIT 3) RETURNING id")
	note("stale stripe:charge", `UPDATE stripe.charge SET _fingerprint = '\x00' WHERE id = (SELECT min(id) FROM stripe.charge) RETURNING id`)
	// As an older version of it would be.
	note("stale stripe:charge", `UPDATE stripe.charge SET amount = 1, _raw = _raw || '{"amount": 1}', _fingerprint = md5(id)::uuid::text::bytea WHERE id = (SELECT max(id) FROM stripe.charge) RETURNING id`)
	note("extra stripe:price", "INSERT INTO stripe.price (id, active) SELECT 'price_made_up_' || n, true FROM generate_series(1, 3) n RETURNING id")
	note("extra stripe:product", "INSERT INTO stripe.product (id, _synced_at, _fingerprint, _raw) SELECT id || 'x', _synced_at, _fingerprint, _raw FROM stripe.product LIMIT 1 RETURNING id")
	note("missing stripe:balance_transaction", "DELETE FROM stripe.balance_transaction WHERE id = (SELECT max(id) FROM stripe.balance_transaction) RETURNING id")
	note("stale stripe:upcoming_invoice", "UPDATE stripe.upcoming_invoice SET total = 1 WHERE id = (SELECT min(id) FROM stripe.upcoming_invoice) RETURNING id")
	return want
}

func TestDamageIsFoundExactlyAndRepaired(t *testing.T) {
	t.Parallel()
	a := open(t, sandbox.Options{Customers: 60, Unlimited: true}, all()...)
	want := damage(a)
	r := a.verify(verify.Options{})
	a.want(r, want...)
	if n := r.MissingN + r.StaleN + r.ExtraN; n != uint64(len(want)) || r.Repaired != 0 {
		t.Errorf("%+v", r)
	}
	r = a.verify(verify.Options{Repair: true})
	a.want(r, want...)
	if r.Repaired != uint64(len(want)) {
		t.Errorf("%d of %d repaired", r.Repaired, len(want))
	}
	a.want(a.verify(verify.Options{}))
}

// While the world lives and the mirror follows, the damage is found, and nothing else.
func TestALivingWorldIsNoDifference(t *testing.T) {
	t.Parallel()
	// What has no events does not follow here.
	collections := []string{"customer", "product", "price", "subscription", "invoice", "payment_intent", "charge", "refund"}
	a := open(t, sandbox.Options{Customers: 60, Unlimited: true}, collections...)
	a.live()
	want := []string{}
	for _, id := range a.ids("UPDATE stripe.product SET name = 'else' WHERE id IN (SELECT id FROM stripe.product ORDER BY id LIMIT 2) RETURNING id") {
		want = append(want, "stale stripe:product "+id)
	}
	c := a.config()
	c.Source, c.Settle = a.connect(nil), 3*time.Second
	a.want(a.run(c, verify.Options{Repair: true}), want...)
	a.want(a.run(c, verify.Options{}))
}
