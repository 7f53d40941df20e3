package stripe

func createInvoice(q *request) (any, *Error) {
	customer, err := q.s.named("customer", "customer", q.params)
	if err != nil {
		return nil, err
	}
	t := q.tx()
	d := t.newInvoice(customer, "manual", orText(q.params["currency"], "usd"))
	if err := q.s.assign("invoice", d, q.params); err != nil {
		return nil, err
	}
	if days, ok := q.params["days_until_due"].(int64); ok {
		d["due_date"] = q.now.AddDate(0, 0, int(days)).Unix()
	}
	if q.params["pending_invoice_items_behavior"] != "include" {
		return t.open(d, nil).doc(), nil
	}
	r := t.open(d, t.pending(customer.id))
	t.claim(customer.id, r.id)
	return r.doc(), nil
}

// pending returns the lines of invoice items that wait for an invoice.
func (t *tx) pending(customer string) (lines []doc) {
	for _, r := range t.waiting(customer) {
		lines = append(lines, t.lineOf(r))
	}
	return lines
}

func (t *tx) waiting(customer string) (rows []*row) {
	for _, r := range t.s.children("invoiceitem", "customer", customer) {
		if text(r.doc()["invoice"]) == "" {
			rows = append(rows, r)
		}
	}
	return rows
}

// claim puts the waiting items on an invoice.
func (t *tx) claim(customer, invoice string) {
	for _, r := range t.waiting(customer) {
		t.change(r, func(d doc) { d["invoice"] = invoice })
	}
}

func (t *tx) lineOf(r *row) doc {
	item := r.doc()
	price := doc{"currency": item["currency"]}
	if p, ok := t.s.whole("price", text(dig(item, []string{"pricing", "price_details", "price"}))).(doc); ok {
		price = p
	}
	line := t.line(item["amount"].(int64), text(item["description"]), price, item["quantity"].(int64))
	line["parent"] = doc{"type": "invoice_item_details", "subscription_item_details": nil, "invoice_item_details": doc{
		"invoice_item": r.id, "proration": false, "proration_details": doc{"credited_items": nil}, "subscription": nil}}
	return line
}

// draft returns the invoice of the path, which must be one.
func (q *request) draft(doing string) (*row, *Error) {
	r, err := q.s.get("invoice", q.vars["id"])
	if err != nil {
		return nil, err
	}
	if r.doc()["status"] != "draft" {
		return nil, invalid("", "invoice_not_editable", "You can only "+doing+" draft invoices. If you want to void, use the void endpoint instead.")
	}
	return r, nil
}

func deleteInvoice(q *request) (any, *Error) {
	r, err := q.draft("delete")
	if err != nil {
		return nil, err
	}
	t := q.tx()
	for _, line := range q.s.children("line_item", "invoice", r.id) {
		t.remove(line)
	}
	for _, item := range q.s.children("invoiceitem", "invoice", r.id) {
		t.remove(item)
	}
	return t.remove(r), nil
}

func finalizeInvoice(q *request) (any, *Error) {
	r, err := q.draft("finalize")
	if err != nil {
		return nil, err
	}
	return q.tx().finalize(r), nil
}

func payInvoice(q *request) (any, *Error) {
	r, err := q.s.get("invoice", q.vars["id"])
	if err != nil {
		return nil, err
	}
	t := q.tx()
	d := r.doc()
	switch d["status"] {
	case "paid":
		return nil, invalid("", "invoice_already_paid", "Invoice is already paid")
	case "void", "uncollectible":
		return nil, invalid("", "", "Invoices with status "+text(d["status"])+" cannot be paid.")
	}
	customer, err := q.s.get("customer", text(d["customer"]))
	if err != nil {
		return nil, err
	}
	pm := t.payer(doc{"default_payment_method": d["default_payment_method"]}, customer)
	if id := text(q.params["payment_method"]); id != "" {
		if pm, err = t.methodFor(id, "payment_method"); err != nil {
			return nil, err
		}
	}
	outside := q.params["paid_out_of_band"] == true
	if pm == nil && !outside {
		return nil, invalid("", "", "There is no `default_payment_method` set on this Customer or Invoice. Please attach a PaymentMethod and try again.")
	}
	if d["status"] == "draft" {
		d = t.finalize(r)
	}
	if d["status"] == "paid" {
		return d, nil
	}
	if outside {
		return t.paid(r), nil
	}
	if reason := t.collect(r, pm); reason != "" {
		return nil, declined("card_declined", reason, declineText(reason))
	}
	return r.doc(), nil
}

func voidInvoice(q *request) (any, *Error) {
	r, err := q.s.get("invoice", q.vars["id"])
	if err != nil {
		return nil, err
	}
	if status := r.doc()["status"]; status != "open" && status != "uncollectible" {
		return nil, invalid("", "", "You can only pass in open invoices. This invoice isn't open.")
	}
	return q.tx().change(r, func(d doc) {
		d["status"] = "void"
		d["status_transitions"].(doc)["voided_at"] = q.now.Unix()
	}, "invoice.updated", "invoice.voided"), nil
}

func createInvoiceItem(q *request) (any, *Error) {
	customer, err := q.s.named("customer", "customer", q.params)
	if err != nil {
		return nil, err
	}
	d := q.s.spec.fresh("invoiceitem")
	d["customer"], d["currency"], d["metadata"], d["discountable"], d["quantity"] = customer.id, "usd", doc{}, true, int64(1)
	d["discounts"], d["tax_rates"], d["period"] = []any{}, []any{}, doc{"start": q.now.Unix(), "end": q.now.Unix()}
	if err := q.s.assign("invoiceitem", d, q.params); err != nil {
		return nil, err
	}
	if id := text(dig(q.params, []string{"pricing", "price"})); id != "" {
		price, err := q.s.get("price", id)
		if err != nil {
			return nil, err.inParam("pricing[price]")
		}
		p := price.doc()
		amount, _ := p["unit_amount"].(int64)
		d["amount"], d["currency"] = amount*d["quantity"].(int64), p["currency"]
		d["pricing"] = doc{"type": "price_details", "unit_amount_decimal": p["unit_amount_decimal"], "price_details": doc{"price": id, "product": p["product"]}}
	}
	if d["amount"] == nil {
		d["amount"] = int64(0)
	}
	d["net_amount"], d["quantity_decimal"] = d["amount"], text(d["quantity"])
	var invoice *row
	if id := text(q.params["invoice"]); id != "" {
		if invoice, err = q.s.named("invoice", "invoice", q.params); err != nil {
			return nil, err
		}
		if invoice.doc()["status"] != "draft" {
			return nil, invalid("invoice", "invoice_not_editable", "This invoice is no longer editable")
		}
	}
	t := q.tx()
	r := t.create("invoiceitem", d)
	if invoice != nil {
		line := t.lineOf(r)
		line["invoice"] = invoice.id
		t.insert("line_item", line)
		t.change(invoice, t.total)
	}
	return r.doc(), nil
}

func updateInvoiceItem(q *request) (any, *Error) {
	r, err := q.s.get("invoiceitem", q.vars["id"])
	if err != nil {
		return nil, err
	}
	before := text(r.doc()["invoice"])
	d, err := q.edit(r, func(d doc) { d["net_amount"], d["quantity_decimal"] = d["amount"], text(d["quantity"]) })
	if err != nil {
		return nil, err
	}
	if before != "" {
		q.tx().relines(r, before, func(line doc) { line["amount"], line["description"] = d.(doc)["amount"], d.(doc)["description"] })
	}
	return d, nil
}

// relines edits the line of an invoice item, or deletes it when edit is nil.
func (t *tx) relines(item *row, invoice string, edit func(doc)) {
	for _, line := range t.s.children("line_item", "invoice", invoice) {
		if text(dig(line.doc(), []string{"parent", "invoice_item_details", "invoice_item"})) != item.id {
			continue
		}
		if edit == nil {
			t.remove(line)
			continue
		}
		t.set(line, edit)
	}
	if r, err := t.s.get("invoice", invoice); err == nil {
		t.change(r, t.total)
	}
}

func deleteInvoiceItem(q *request) (any, *Error) {
	r, err := q.s.get("invoiceitem", q.vars["id"])
	if err != nil {
		return nil, err
	}
	invoice := text(r.doc()["invoice"])
	if invoice != "" {
		if on, err := q.s.get("invoice", invoice); err == nil && on.doc()["status"] != "draft" {
			return nil, invalid("", "invoice_not_editable", "This invoice item is attached to an invoice that is no longer editable.")
		}
	}
	t := q.tx()
	gone := t.remove(r)
	if invoice != "" {
		t.relines(r, invoice, nil)
	}
	return gone, nil
}

func createCreditNote(q *request) (any, *Error) {
	invoice, err := q.s.named("invoice", "invoice", q.params)
	if err != nil {
		return nil, err
	}
	d := invoice.doc()
	if d["status"] != "paid" && d["status"] != "open" {
		return nil, invalid("invoice", "", "You can only create credit notes for open or paid invoices.")
	}
	amount, ok := q.params["amount"].(int64)
	if !ok {
		amount, _ = q.params["credit_amount"].(int64)
	}
	credited := d["post_payment_credit_notes_amount"].(int64) + d["pre_payment_credit_notes_amount"].(int64)
	if amount <= 0 || amount+credited > d["total"].(int64) {
		return nil, invalid("amount", "", "The credit note amount must be positive and not greater than what is left of the invoice.")
	}
	check := q.s.spec.fresh("credit_note")
	if err := q.s.assign("credit_note", check, q.params); err != nil {
		return nil, err
	}
	return q.tx().creditNote(invoice, amount, check).doc(), nil
}

// creditNote credits an amount of an invoice.
func (t *tx) creditNote(invoice *row, amount int64, fields doc) *row {
	inv := invoice.doc()
	d := t.s.spec.fresh("credit_note")
	d["memo"], d["reason"], d["metadata"] = fields["memo"], fields["reason"], orDoc(fields["metadata"])
	d["invoice"], d["customer"], d["currency"], d["status"], d["type"] = invoice.id, inv["customer"], inv["currency"], "issued", "post_payment"
	field := "post_payment_credit_notes_amount"
	if inv["status"] == "open" {
		d["type"], field = "pre_payment", "pre_payment_credit_notes_amount"
	}
	for _, name := range []string{"amount", "subtotal", "total", "subtotal_excluding_tax", "total_excluding_tax"} {
		d[name] = amount
	}
	d[field[:len(field)-len("_credit_notes_amount")]+"_amount"] = amount
	d["effective_at"], d["number"] = t.now.Unix(), text(inv["number"])+"-CN-"+text(int64(len(t.s.children("credit_note", "invoice", invoice.id))+1))
	d["total_taxes"] = []any{}
	r := t.insert("credit_note", d)
	line := t.s.spec.fresh("credit_note_line_item")
	line["amount"], line["description"], line["quantity"], line["type"], line["unit_amount"] = amount, "Credit", int64(1), "custom_line_item", amount
	line["unit_amount_decimal"], line["credit_note"], line["metadata"], line["taxes"] = text(amount), r.id, doc{}, []any{}
	t.insert("credit_note_line_item", line)
	t.set(r, func(d doc) {
		d["lines"] = t.s.nested(t.s.children("credit_note_line_item", "credit_note", r.id), "/v1/credit_notes/"+r.id+"/lines")
		d["pdf"] = "https://pay.stripe.example/credit_notes/" + r.id + "/pdf"
	})
	t.tell("credit_note.created", r)
	t.change(invoice, func(d doc) { d[field] = d[field].(int64) + amount })
	return r
}

func voidCreditNote(q *request) (any, *Error) {
	r, err := q.s.get("credit_note", q.vars["id"])
	if err != nil {
		return nil, err
	}
	if r.doc()["status"] == "void" {
		return nil, invalid("", "", "This credit note is already void.")
	}
	return q.tx().change(r, func(d doc) { d["status"], d["voided_at"] = "void", q.now.Unix() }, "credit_note.voided"), nil
}
