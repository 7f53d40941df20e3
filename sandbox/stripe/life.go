package stripe

import (
	"time"

	"lockstep/sandbox"
)

// life decides what happens next in an account.
type life struct {
	dice sandbox.Dice
	n    uint64 // customers that have come
}

func newLife(seed sandbox.Seed) *life { return &life{dice: seed.Dice("life", 0)} }

// happening is something that can happen, as often as its weight among all. It does
// nothing and returns false when there is nobody it could happen to.
type happening struct {
	weight int
	do     func(*tx, *life) bool
}

func happenings() []happening {
	return []happening{
		{18, (*tx).signUp}, {22, (*tx).editCustomer}, {14, (*tx).renew}, {10, (*tx).payOnce}, {5, (*tx).refundOne}, {5, (*tx).cancelOne},
		{3, (*tx).leave}, {3, (*tx).newProductAndPrice}, {2, (*tx).retirePrice}, {3, (*tx).campaign}, {3, (*tx).addItem}, {3, (*tx).changeQuantity},
		{2, (*tx).disputeOne}, {2, (*tx).payOut}, {2, (*tx).creditOne}, {3, (*tx).checkOut}, {3, (*tx).extraItem}, {1, (*tx).changeTaxes},
		{2, (*tx).bigInvoice}, {2, (*tx).dropDraft}, {2, (*tx).setUpCard}, {2, (*tx).announce},
	}
}

// Step implements sandbox.World: one thing happens.
func (s *Sandbox) Step(at time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.step(at)
	if s.world.dice.Chance(0.001) {
		s.once.prune(at)
	}
}

func (s *Sandbox) step(at time.Time) {
	t := &tx{s: s, now: at}
	all := happenings()
	total := 0
	for _, h := range all {
		total += h.weight
	}
	n := s.world.dice.Int(total)
	for _, h := range all {
		if n -= h.weight; n >= 0 {
			continue
		}
		// Whoever cannot do that signs up: so that every step leaves a trace.
		if !h.do(t, s.world) {
			t.signUp(s.world)
		}
		return
	}
}

// live fills a new account: between two times, until that many customers came.
func (s *Sandbox) live(from, to time.Time, customers int) {
	if customers <= 0 {
		return
	}
	t := &tx{s: s, now: from}
	for range 4 {
		t.newProductAndPrice(s.world)
	}
	t.campaign(s.world)
	t.changeTaxes(s.world)
	// A customer comes about every fourth step.
	every := to.Sub(from) / time.Duration(customers*5+1)
	for at := from; s.world.n < uint64(customers); {
		if at = at.Add(every); at.After(to) {
			at = to
		}
		s.step(at)
	}
}

// some returns one of the newest thousand objects of a kind that fit, or nil.
func (t *tx) some(l *life, name string, fits func(*row) bool) *row {
	rows := t.s.tables[name].rows
	recent := rows[max(0, len(rows)-1000):]
	for range 12 {
		if len(recent) == 0 {
			return nil
		}
		if r := recent[l.dice.Int(len(recent))]; !r.deleted && (fits == nil || fits(r)) {
			return r
		}
	}
	return nil
}

func (t *tx) signUp(l *life) bool {
	l.n++
	p := l.dice.Person(l.n)
	d := t.s.newCustomer()
	d["name"], d["email"], d["phone"], d["invoice_prefix"] = p.First+" "+p.Last, p.Email, p.Phone, "SB"+text(int64(l.n))
	d["address"] = doc{"line1": p.Street, "line2": nil, "city": p.City, "state": nil, "postal_code": p.Postcode, "country": p.Country}
	if p.Company != "" {
		d["metadata"] = doc{"company": p.Company}
	}
	customer := t.create("customer", d)
	if l.dice.Chance(0.25) {
		return true
	}
	pm := t.card(l.dice.Pick("visa", "visa", "mastercard", "amex"), pickDecline(l))
	t.attach(pm, customer.id)
	t.change(customer, func(d doc) { d["invoice_settings"].(doc)["default_payment_method"] = pm.id })
	price := t.some(l, "price", recurringPrice)
	if price == nil || l.dice.Chance(0.2) {
		return true
	}
	sub := t.s.newSubscription(customer.id, price.doc()["currency"])
	if l.dice.Chance(0.2) {
		sub["trial_start"], sub["trial_end"] = t.now.Unix(), t.now.AddDate(0, 0, 14).Unix()
	}
	t.subscribe(customer, sub, []ordered{{price.doc(), int64(l.dice.Between(1, 3)), nil}})
	return true
}

func pickDecline(l *life) string {
	if l.dice.Chance(0.08) {
		return l.dice.Pick("generic_decline", "insufficient_funds")
	}
	return ""
}

func recurringPrice(r *row) bool { return r.keys[0] == "true" && r.keys[4] == "recurring" }

func living(r *row) bool { return r.keys[1] != "canceled" }

func (t *tx) editCustomer(l *life) bool {
	r := t.some(l, "customer", nil)
	if r == nil {
		return false
	}
	p := l.dice.Person(l.n + l.dice.Uint64()%1000)
	t.change(r, func(d doc) {
		switch l.dice.Int(4) {
		case 0:
			d["email"] = p.Email
		case 1:
			d["phone"] = p.Phone
		case 2:
			d["address"] = doc{"line1": p.Street, "line2": nil, "city": p.City, "state": nil, "postal_code": p.Postcode, "country": p.Country}
		default:
			d["description"] = l.dice.Sentence(l.dice.Between(2, 8))
		}
	})
	return true
}

// renew bills a subscription for its next period.
func (t *tx) renew(l *life) bool {
	r := t.some(l, "subscription", living)
	if r == nil {
		return false
	}
	for _, item := range t.s.children("subscription_item", "subscription", r.id) {
		t.set(item, func(d doc) {
			d["current_period_start"], d["current_period_end"] = t.now.Unix(), period(t.now, d["price"].(doc)).Unix()
		})
	}
	t.set(r, func(d doc) {
		if d["status"] == "trialing" {
			d["status"] = "active"
		}
	})
	invoice := t.bill(r, "subscription_cycle")
	t.change(r, func(d doc) {
		d["items"], d["latest_invoice"], d["status"] = t.s.itemsOf(r.id), invoice.id, "active"
		if invoice.doc()["status"] != "paid" {
			d["status"] = "past_due"
		}
	})
	return true
}

func (t *tx) payOnce(l *life) bool {
	pm := t.some(l, "payment_method", func(r *row) bool { return r.keys[0] != "" })
	if pm == nil {
		return false
	}
	intent := t.s.newIntent(int64(l.dice.Between(5, 900))*100, "usd")
	intent["customer"], intent["description"], intent["payment_method"] = pm.doc()["customer"], l.dice.Thing(), pm.id
	t.confirm(t.create("payment_intent", intent), pm)
	return true
}

func refundable(r *row) bool {
	d := r.doc()
	return d["paid"] == true && d["disputed"] != true && d["amount_refunded"].(int64) < d["amount_captured"].(int64)
}

func (t *tx) refundOne(l *life) bool {
	r := t.some(l, "charge", refundable)
	if r == nil {
		return false
	}
	d := r.doc()
	left := d["amount_captured"].(int64) - d["amount_refunded"].(int64)
	if left > 200 && l.dice.Chance(0.5) {
		left /= 2
	}
	t.refund(r, left, l.dice.Pick("requested_by_customer", "duplicate"), nil)
	return true
}

func (t *tx) cancelOne(l *life) bool {
	r := t.some(l, "subscription", living)
	if r == nil {
		return false
	}
	if l.dice.Chance(0.3) && r.doc()["cancel_at_period_end"] != true {
		t.change(r, func(d doc) {
			d["cancel_at_period_end"], d["canceled_at"], d["cancel_at"] = true, t.now.Unix(), periodEnd(d)
		})
		return true
	}
	t.cancelSubscription(r, "cancellation_requested")
	return true
}

// leave deletes a customer.
func (t *tx) leave(l *life) bool {
	r := t.some(l, "customer", nil)
	if r == nil || t.s.tables["customer"].count() < 10 {
		return false
	}
	t.deleteCustomer(r)
	return true
}

func (t *tx) newProductAndPrice(l *life) bool {
	d := t.s.spec.fresh("product")
	d["active"], d["type"], d["metadata"], d["updated"], d["name"], d["description"] = true, "service", doc{}, t.now.Unix(), l.dice.Thing(), l.dice.Sentence(5)
	product := t.create("product", d)
	for _, interval := range []string{"month", "year"} {
		params := doc{"currency": "usd", "unit_amount": int64(l.dice.Between(5, 200)) * 100, "nickname": l.dice.Pick("Basic", "Pro", "Team") + " " + interval,
			"recurring": doc{"interval": interval}}
		if price, err := t.s.newPrice(params); err == nil {
			t.price(product.id, price)
		}
	}
	return true
}
