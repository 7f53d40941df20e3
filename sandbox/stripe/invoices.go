package stripe

import (
	"fmt"
	"strconv"
	"time"
)

func invoiceRoutes() map[string]handler {
	return map[string]handler{
		"POST /v1/invoices":                        createInvoice,
		"POST /v1/invoices/create_preview":         previewInvoice,
		"DELETE /v1/invoices/{invoice}":            deleteInvoice,
		"GET /v1/invoices/{invoice}/lines":         below("invoice", "line_item", "invoice"),
		"POST /v1/invoices/{invoice}/finalize":     finalizeInvoice,
		"POST /v1/invoices/{invoice}/pay":          payInvoice,
		"POST /v1/invoices/{invoice}/void":         voidInvoice,
		"POST /v1/invoiceitems":                    createInvoiceItem,
		"POST /v1/invoiceitems/{invoiceitem}":      updateInvoiceItem,
		"DELETE /v1/invoiceitems/{invoiceitem}":    deleteInvoiceItem,
		"POST /v1/credit_notes":                    createCreditNote,
		"POST /v1/credit_notes/{id}/void":          voidCreditNote,
		"GET /v1/credit_notes/{credit_note}/lines": below("credit_note", "credit_note_line_item", "credit_note"),
	}
}

// newInvoice is a draft for a customer.
func (t *tx) newInvoice(customer *row, reason string, currency any) doc {
	d, c := t.s.spec.fresh("invoice"), customer.doc()
	now := t.now.Unix()
	d["customer"], d["currency"], d["status"], d["billing_reason"], d["collection_method"] = customer.id, currency, "draft", reason, "charge_automatically"
	d["customer_email"], d["customer_name"], d["customer_phone"], d["customer_address"], d["customer_shipping"] = c["email"], c["name"], c["phone"], c["address"], c["shipping"]
	d["customer_tax_exempt"], d["customer_tax_ids"] = c["tax_exempt"], []any{}
	d["account_country"], d["account_name"], d["issuer"] = "US", "Sandbox", doc{"type": "self"}
	d["automatic_tax"] = doc{"disabled_reason": nil, "enabled": false, "liability": nil, "provider": nil, "status": nil}
	d["payment_settings"] = doc{"default_mandate": nil, "payment_method_options": nil, "payment_method_types": nil}
	d["period_start"], d["period_end"], d["metadata"], d["auto_advance"] = now, now, doc{}, false
	d["discounts"], d["default_tax_rates"], d["total_discount_amounts"], d["total_taxes"], d["total_pretax_credit_amounts"] = []any{}, []any{}, []any{}, []any{}, []any{}
	return d
}

// line is a line of an invoice, without one.
func (t *tx) line(amount int64, description string, price doc, quantity int64) doc {
	d := t.s.spec.fresh("line_item")
	d["amount"], d["subtotal"], d["description"], d["quantity"], d["currency"] = amount, amount, description, quantity, price["currency"]
	d["quantity_decimal"] = strconv.FormatInt(quantity, 10)
	d["discountable"], d["metadata"], d["period"] = true, doc{}, doc{"start": t.now.Unix(), "end": t.now.Unix()}
	d["discount_amounts"], d["taxes"], d["pretax_credit_amounts"] = []any{}, []any{}, []any{}
	if id := text(price["id"]); id != "" {
		d["pricing"] = doc{"type": "price_details", "unit_amount_decimal": price["unit_amount_decimal"],
			"price_details": doc{"price": id, "product": price["product"]}}
	}
	return d
}

// lines returns what a subscription owes for the period that begins now.
func (t *tx) lines(sub doc, free bool) (lines []doc) {
	for _, r := range t.s.children("subscription_item", "subscription", text(sub["id"])) {
		item := r.doc()
		price := item["price"].(doc)
		quantity, _ := item["quantity"].(int64)
		amount, _ := price["unit_amount"].(int64)
		if amount *= quantity; free {
			amount = 0
		}
		d := t.line(amount, fmt.Sprintf("%d × %s", quantity, orText(price["nickname"], "plan")), price, quantity)
		d["period"] = doc{"start": item["current_period_start"], "end": item["current_period_end"]}
		d["subscription"] = sub["id"]
		d["parent"] = doc{"type": "subscription_item_details", "invoice_item_details": nil, "subscription_item_details": doc{
			"invoice_item": nil, "proration": false, "proration_details": doc{"credited_items": nil}, "subscription": sub["id"], "subscription_item": r.id}}
		lines = append(lines, d)
	}
	return lines
}

// open makes an invoice with its lines, as a draft, and tells of it.
func (t *tx) open(d doc, lines []doc) *row {
	r := t.insert("invoice", d)
	for _, line := range lines {
		line["invoice"] = r.id
		t.insert("line_item", line)
	}
	t.set(r, t.total)
	t.tell("invoice.created", r)
	return r
}

// total brings an invoice's lines and sums up to date.
func (t *tx) total(d doc) {
	id := text(d["id"])
	rows := t.s.children("line_item", "invoice", id)
	sum := int64(0)
	for _, line := range rows {
		sum += line.doc()["amount"].(int64)
	}
	d["lines"] = t.s.nested(rows, "/v1/invoices/"+id+"/lines")
	for _, field := range []string{"subtotal", "total", "subtotal_excluding_tax", "total_excluding_tax"} {
		d[field] = sum
	}
	d["amount_due"] = max(sum, 0)
	d["amount_remaining"] = max(sum, 0) - d["amount_paid"].(int64)
}

// bill makes, finalizes and tries to collect an invoice of a subscription.
func (t *tx) bill(sub *row, reason string) *row {
	s := sub.doc()
	customer, err := t.s.get("customer", text(s["customer"]))
	if err != nil {
		return sub // unreachable: deleting a customer cancels
	}
	d := t.newInvoice(customer, reason, s["currency"])
	d["parent"] = doc{"type": "subscription_details", "quote_details": nil, "subscription_details": doc{"metadata": s["metadata"], "subscription": sub.id}}
	d["collection_method"] = s["collection_method"]
	if days, ok := s["days_until_due"].(int64); ok {
		d["due_date"] = t.now.AddDate(0, 0, int(days)).Unix()
	}
	lines := append(t.lines(s, s["status"] == "trialing"), t.pending(customer.id)...)
	r := t.open(d, lines)
	t.claim(customer.id, r.id)
	t.finalize(r)
	if pm := t.payer(s, customer); pm != nil && d["collection_method"] == "charge_automatically" {
		t.collect(r, pm)
	}
	return r
}

// payer returns the payment method that a subscription is paid by, or nil.
func (t *tx) payer(sub doc, customer *row) *row {
	for _, id := range []any{sub["default_payment_method"], dig(customer.doc(), []string{"invoice_settings", "default_payment_method"})} {
		if r, err := t.s.get("payment_method", text(id)); err == nil {
			return r
		}
	}
	if all := t.s.children("payment_method", "customer", customer.id); len(all) > 0 {
		return all[0]
	}
	return nil
}

// finalize makes a draft binding; one of nothing is paid at once.
func (t *tx) finalize(r *row) doc {
	number := fmt.Sprintf("SANDBOX-%06d", r.seq)
	d := t.change(r, func(d doc) {
		d["status"], d["number"], d["effective_at"], d["attempted"] = "open", number, t.now.Unix(), false
		d["status_transitions"].(doc)["finalized_at"] = t.now.Unix()
		d["hosted_invoice_url"], d["invoice_pdf"] = "https://invoice.stripe.example/i/"+r.id, "https://pay.stripe.example/invoice/"+r.id+"/pdf"
	}, "invoice.finalized", "invoice.updated")
	if d["amount_due"].(int64) > 0 {
		return d
	}
	return t.paid(r)
}

func (t *tx) paid(r *row) doc {
	d := t.change(r, func(d doc) {
		d["status"], d["attempted"], d["amount_paid"], d["amount_remaining"], d["next_payment_attempt"] = "paid", true, d["amount_due"], int64(0), nil
		d["status_transitions"].(doc)["paid_at"] = t.now.Unix()
	}, "invoice.updated", "invoice.paid", "invoice.payment_succeeded")
	return d
}

// collect tries to pay an open invoice and returns why it was declined, or "".
func (t *tx) collect(r, pm *row) (reason string) {
	d := r.doc()
	amount, _ := d["amount_remaining"].(int64)
	if d["status"] != "open" || amount <= 0 {
		return ""
	}
	intent := t.s.newIntent(amount, d["currency"])
	intent["customer"], intent["payment_method"], intent["description"] = d["customer"], pm.id, "Payment for Invoice "+text(d["number"])
	pi := t.create("payment_intent", intent)
	reason = t.confirm(pi, pm)
	pay := t.s.spec.fresh("invoice_payment")
	pay["invoice"], pay["amount_requested"], pay["currency"], pay["is_default"], pay["status"] = r.id, amount, d["currency"], true, "open"
	pay["payment"] = doc{"type": "payment_intent", "payment_intent": pi.id}
	if reason == "" {
		pay["status"], pay["amount_paid"] = "paid", amount
		pay["status_transitions"].(doc)["paid_at"] = t.now.Unix()
	}
	t.insert("invoice_payment", pay)
	t.set(r, func(d doc) { d["attempt_count"], d["attempted"] = d["attempt_count"].(int64)+1, true })
	if reason == "" {
		t.paid(r)
		return ""
	}
	t.change(r, func(d doc) { d["next_payment_attempt"] = t.now.Add(72 * time.Hour).Unix() }, "invoice.updated", "invoice.payment_failed")
	return reason
}

// upcoming is what a subscription will be billed next: an object without an id.
func (t *tx) upcoming(sub *row) (doc, []doc) {
	s := sub.doc()
	customer, err := t.s.get("customer", text(s["customer"]))
	if err != nil {
		return nil, nil
	}
	d := t.newInvoice(customer, "upcoming", s["currency"])
	d["created"], d["object"] = t.now.Unix(), "invoice"
	d["parent"] = doc{"type": "subscription_details", "quote_details": nil, "subscription_details": doc{"metadata": s["metadata"], "subscription": sub.id}}
	d["next_payment_attempt"] = periodEnd(s)
	lines := append(t.lines(s, false), t.pending(customer.id)...)
	sum := int64(0)
	for i, line := range lines {
		line["id"] = "il_tmp_1" + t.s.options.Seed.Code("preview"+sub.id, uint64(i), 23)
		line["invoice"], line["object"] = nil, "line_item"
		sum += line["amount"].(int64)
	}
	for _, field := range []string{"subtotal", "total", "subtotal_excluding_tax", "total_excluding_tax", "amount_due", "amount_remaining"} {
		d[field] = sum
	}
	delete(d, "id")
	return d, lines
}

func previewInvoice(q *request) (any, *Error) {
	sub, err := q.previewed()
	if err != nil {
		return nil, err
	}
	d, lines := q.tx().upcoming(sub)
	id := "upcoming_in_1" + q.s.options.Seed.Code("preview", sub.seq, 23)
	d["id"] = id
	data := make([]any, 0, embedded)
	for _, line := range lines[:min(len(lines), embedded)] {
		data = append(data, line)
	}
	d["lines"] = doc{"object": "list", "data": data, "has_more": len(lines) > embedded, "url": "/v1/invoices/" + id + "/lines"}
	return d, nil
}

// previewed returns the subscription that a preview is asked of.
func (q *request) previewed() (*row, *Error) {
	if id := text(q.params["subscription"]); id != "" {
		sub, err := q.s.named("subscription", "subscription", q.params)
		if err != nil {
			return nil, err
		}
		if status := sub.doc()["status"]; status == "canceled" || sub.doc()["cancel_at_period_end"] == true {
			return nil, noUpcoming(text(sub.doc()["customer"]))
		}
		return sub, nil
	}
	customer, err := q.s.named("customer", "customer", q.params)
	if err != nil {
		return nil, err
	}
	for _, sub := range q.s.children("subscription", "customer", customer.id) {
		if d := sub.doc(); d["status"] != "canceled" && d["cancel_at_period_end"] != true {
			return sub, nil
		}
	}
	return nil, noUpcoming(customer.id)
}

func noUpcoming(customer string) *Error {
	e := missing("upcoming invoices for customer", customer, "")
	e.Code, e.Message = "invoice_upcoming_none", "No upcoming invoices for customer: "+customer
	return e
}
