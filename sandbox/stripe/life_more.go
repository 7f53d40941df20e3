package stripe

import (
	"fmt"
	"strings"

	"lockstep/sandbox"
)

func (t *tx) retirePrice(l *life) bool {
	r := t.some(l, "price", recurringPrice)
	if r == nil || t.s.tables["price"].count() < 6 {
		return false
	}
	t.change(r, func(d doc) { d["active"] = false })
	t.followPlan(r)
	return true
}

// campaign makes a coupon with a promotion code, or ends one.
func (t *tx) campaign(l *life) bool {
	if old := t.some(l, "coupon", nil); old != nil && l.dice.Chance(0.3) {
		for _, code := range t.s.children("promotion_code", "coupon", old.id) {
			t.change(code, func(d doc) { d["active"] = false })
		}
		t.remove(old)
		return true
	}
	d := t.s.spec.fresh("coupon")
	d["duration"], d["valid"], d["metadata"], d["name"], d["percent_off"] = "once", true, doc{}, l.dice.Thing(), int64(l.dice.Between(1, 9)*10)
	coupon := t.create("coupon", d)
	code := t.s.spec.fresh("promotion_code")
	code["active"], code["metadata"], code["code"] = true, doc{}, strings.ToUpper(l.dice.Text(8))
	code["promotion"] = doc{"type": "coupon", "coupon": coupon.id}
	t.create("promotion_code", code)
	return true
}

// addItem adds to a subscription; now and then so much that its list is not whole.
func (t *tx) addItem(l *life) bool {
	r, price := t.some(l, "subscription", living), t.some(l, "price", recurringPrice)
	if r == nil || price == nil {
		return false
	}
	n := 1
	if l.dice.Chance(0.2) {
		n = embedded + 2
	}
	for range n {
		t.item(r.id, ordered{price.doc(), int64(l.dice.Between(1, 5)), nil})
	}
	t.refreshItems(r.id)
	return true
}

func (t *tx) changeQuantity(l *life) bool {
	item := t.some(l, "subscription_item", nil)
	if item == nil {
		return false
	}
	t.set(item, func(d doc) { d["quantity"] = d["quantity"].(int64) + 1 })
	t.refreshItems(text(item.doc()["subscription"]))
	return true
}

func (t *tx) disputeOne(l *life) bool {
	if open := t.some(l, "dispute", func(r *row) bool { return r.doc()["status"] == "needs_response" }); open != nil && l.dice.Chance(0.5) {
		t.closeDispute(open, l.dice.Pick("won", "lost"))
		return true
	}
	r := t.some(l, "charge", refundable)
	if r == nil {
		return false
	}
	t.dispute(r, l.dice.Pick("fraudulent", "product_not_received", "duplicate"))
	return true
}

// payOut sends money to the bank, or lets it arrive.
func (t *tx) payOut(l *life) bool {
	if way := t.some(l, "payout", func(r *row) bool { return r.keys[0] == "in_transit" }); way != nil {
		t.change(way, func(d doc) { d["status"] = "paid" }, "payout.updated", "payout.paid")
		return true
	}
	if t.s.balance < 10_000 {
		return false
	}
	t.payout(t.s.balance*9/10, doc{})
	return true
}

func (t *tx) creditOne(l *life) bool {
	r := t.some(l, "invoice", func(r *row) bool {
		d := r.doc()
		return d["status"] == "paid" && d["total"].(int64) > 200 && d["post_payment_credit_notes_amount"].(int64) == 0
	})
	if r == nil {
		return false
	}
	t.creditNote(r, r.doc()["total"].(int64)/2, doc{"memo": l.dice.Sentence(4), "reason": "order_change"})
	return true
}

// checkOut opens a checkout session, or ends an open one.
func (t *tx) checkOut(l *life) bool {
	open := t.some(l, "checkout.session", func(r *row) bool { return r.keys[3] == "open" })
	customer, price := t.some(l, "customer", nil), t.some(l, "price", recurringPrice)
	if customer == nil || price == nil {
		return false
	}
	switch {
	case open == nil || l.dice.Chance(0.3):
		d := t.s.spec.fresh("checkout.session")
		d["success_url"] = "https://shop.example/thanks"
		t.session("subscription", d, []doc{sessionItem(price.doc(), 1)})
	case l.dice.Chance(0.3):
		t.expire(open)
	default:
		t.attach(t.card("visa", ""), customer.id)
		sub := t.subscribe(customer, t.s.newSubscription(customer.id, price.doc()["currency"]), []ordered{{price.doc(), 1, nil}})
		t.complete(open, customer, doc{"subscription": sub.id, "invoice": sub.doc()["latest_invoice"]})
	}
	return true
}

// extraItem puts something on the next invoice, or takes it off again.
func (t *tx) extraItem(l *life) bool {
	if old := t.some(l, "invoiceitem", func(r *row) bool { return r.keys[1] == "" }); old != nil && l.dice.Chance(0.4) {
		t.remove(old)
		return true
	}
	customer := t.some(l, "customer", nil)
	if customer == nil {
		return false
	}
	d := t.s.spec.fresh("invoiceitem")
	amount := int64(l.dice.Between(1, 50)) * 100
	d["customer"], d["currency"], d["metadata"], d["discountable"], d["quantity"], d["quantity_decimal"] = customer.id, "usd", doc{}, true, int64(1), "1"
	d["discounts"], d["tax_rates"], d["period"] = []any{}, []any{}, doc{"start": t.now.Unix(), "end": t.now.Unix()}
	d["amount"], d["net_amount"], d["description"] = amount, amount, l.dice.Thing()
	t.create("invoiceitem", d)
	return true
}

func (t *tx) changeTaxes(l *life) bool {
	if r := t.some(l, "tax_rate", nil); r != nil && l.dice.Chance(0.5) {
		t.change(r, func(d doc) { d["active"] = d["active"] != true })
		return true
	}
	d := t.s.spec.fresh("tax_rate")
	d["active"], d["metadata"], d["rate_type"], d["display_name"], d["country"] = true, doc{}, "percentage", l.dice.Pick("VAT", "GST", "Sales Tax"), l.dice.Pick("CH", "FR", "US")
	d["percentage"] = []any{7.7, int64(19), 20.5}[l.dice.Int(3)]
	d["effective_percentage"] = d["percentage"]
	t.create("tax_rate", d)
	return true
}

// bigInvoice makes a draft with more lines than an invoice shows.
func (t *tx) bigInvoice(l *life) bool {
	customer := t.some(l, "customer", nil)
	if customer == nil {
		return false
	}
	var lines []doc
	for i := range l.dice.Between(2, 25) {
		lines = append(lines, t.line(int64(l.dice.Between(1, 90))*100, fmt.Sprintf("%d %s", i+1, l.dice.Thing()), doc{"currency": "usd"}, 1))
	}
	r := t.open(t.newInvoice(customer, "manual", "usd"), lines)
	if l.dice.Chance(0.7) {
		t.finalize(r)
	}
	return true
}

// dropDraft deletes a draft.
func (t *tx) dropDraft(l *life) bool {
	r := t.some(l, "invoice", func(r *row) bool { return r.keys[1] == "draft" })
	if r == nil {
		return false
	}
	for _, line := range t.s.children("line_item", "invoice", r.id) {
		t.remove(line)
	}
	t.remove(r)
	return true
}

func (t *tx) setUpCard(l *life) bool {
	customer := t.some(l, "customer", nil)
	if customer == nil {
		return false
	}
	d := t.s.newSetup()
	d["customer"] = customer.id
	t.setUp(t.create("setup_intent", d), t.card("mastercard", ""))
	return true
}

// announce tells of an invoice that is to come: an event about an object without id.
func (t *tx) announce(l *life) bool {
	r := t.some(l, "subscription", living)
	if r == nil {
		return false
	}
	d, lines := t.upcoming(r)
	if d == nil {
		return false
	}
	data := make([]any, 0, embedded)
	for _, line := range lines[:min(len(lines), embedded)] {
		data = append(data, line)
	}
	d["lines"] = doc{"object": "list", "data": data, "has_more": len(lines) > embedded, "url": "/v1/invoices/upcoming/lines"}
	t.emit("invoice.upcoming", t.rendered(sandbox.Encode(d)), nil)
	return true
}
