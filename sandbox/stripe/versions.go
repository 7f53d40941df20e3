package stripe

// API versions, as far as they differ in what a mirror sees. Objects are kept at the
// newest one and made older on the way out, as Stripe does it.
//
// The differences are those of the changelog that rename or move fields of mirrored
// objects; older versions than 2024 come as if they were of then.
const (
	acacia = iota // before 2025-03-31: invoice.subscription, subscription.current_period_end, line_item.price …
	basil         // before 2025-09-30: promotion_code.coupon
	latest
)

func era(version string) int {
	switch {
	case version < "2025-03-31":
		return acacia
	case version < "2025-09-30":
		return basil
	}
	return latest
}

// atVersion returns an object, with all that is embedded in it, as a version has it.
// It changes what it is given.
func (s *Sandbox) atVersion(d doc, version string) doc {
	if e := era(version); e < latest {
		s.age(d, e)
	}
	return d
}

func (s *Sandbox) age(v any, e int) {
	switch v := v.(type) {
	case []any:
		for _, element := range v {
			s.age(element, e)
		}
	case doc:
		if v["object"] == "event" {
			return // its version is its own
		}
		s.ageObject(v, e)
		for _, field := range v {
			s.age(field, e)
		}
	}
}

func (s *Sandbox) ageObject(d doc, e int) {
	switch name := text(d["object"]); {
	case name == "promotion_code":
		promotion, ok := d["promotion"].(doc)
		if !ok {
			return
		}
		d["coupon"] = s.whole("coupon", text(promotion["coupon"]))
		delete(d, "promotion")
	case e > acacia:
	case name == "subscription":
		s.ageSubscription(d)
	case name == "subscription_item":
		delete(d, "current_period_start")
		delete(d, "current_period_end")
		d["plan"] = planOf(d["price"])
	case name == "invoice":
		s.ageInvoice(d)
	case name == "line_item":
		s.ageLine(d)
	case name == "invoiceitem":
		s.ageInvoiceItem(d)
	case name == "charge" || name == "payment_intent":
		intent := text(d["payment_intent"])
		if name == "payment_intent" {
			intent = text(d["id"])
		}
		d["invoice"] = nil
		if rows := s.tables["invoice_payment"].index["payment="+intent]; intent != "" && len(rows) > 0 {
			d["invoice"] = rows[0].doc()["invoice"]
		}
	}
}

func (s *Sandbox) ageSubscription(d doc) {
	if _, old := d["current_period_end"]; old {
		return
	}
	d["current_period_start"], d["current_period_end"], d["discount"], d["plan"], d["quantity"] = d["created"], d["created"], nil, nil, nil
	delete(d, "billing_mode")
	items := dig(d, []string{"items"})
	list, _ := items.(doc)
	data, _ := list["data"].([]any)
	if len(data) == 0 {
		return
	}
	first := data[0].(doc)
	d["current_period_start"], d["current_period_end"] = first["current_period_start"], first["current_period_end"]
	if len(data) == 1 {
		d["plan"], d["quantity"] = planOf(first["price"]), first["quantity"]
	}
}

func (s *Sandbox) ageInvoice(d doc) {
	if _, newer := d["parent"]; !newer {
		return
	}
	d["subscription"] = dig(d, []string{"parent", "subscription_details", "subscription"})
	d["paid"], d["paid_out_of_band"], d["discount"], d["quote"], d["tax"] = d["status"] == "paid", false, nil, nil, nil
	d["charge"], d["payment_intent"] = nil, nil
	if rows := s.tables["invoice_payment"].index["invoice="+text(d["id"])]; len(rows) > 0 {
		intent := dig(rows[len(rows)-1].doc(), []string{"payment", "payment_intent"})
		d["payment_intent"] = intent
		if r, err := s.get("payment_intent", text(intent)); err == nil {
			d["charge"] = r.doc()["latest_charge"]
		}
	}
	for _, field := range []string{"parent", "amount_overpaid", "amount_paid_off_stripe", "total_taxes", "total_pretax_credit_amounts"} {
		delete(d, field)
	}
}

func (s *Sandbox) ageLine(d doc) {
	if _, newer := d["pricing"]; !newer {
		return
	}
	price := s.whole("price", text(dig(d, []string{"pricing", "price_details", "price"})))
	d["price"], d["plan"], d["type"], d["proration"] = price, planOf(price), "invoiceitem", false
	if item := text(dig(d, []string{"parent", "subscription_item_details", "subscription_item"})); item != "" {
		d["type"], d["subscription_item"] = "subscription", item
		d["subscription"] = dig(d, []string{"parent", "subscription_item_details", "subscription"})
	}
	for _, field := range []string{"parent", "pricing", "taxes", "subtotal", "pretax_credit_amounts", "quantity_decimal"} {
		delete(d, field)
	}
}

func (s *Sandbox) ageInvoiceItem(d doc) {
	if _, newer := d["pricing"]; !newer {
		return
	}
	price := s.whole("price", text(dig(d, []string{"pricing", "price_details", "price"})))
	d["price"], d["plan"], d["subscription"] = price, planOf(price), nil
	d["unit_amount"], d["unit_amount_decimal"] = d["amount"], dig(d, []string{"pricing", "unit_amount_decimal"})
	for _, field := range []string{"parent", "pricing", "net_amount", "quantity_decimal"} {
		delete(d, field)
	}
}

// whole returns an object, or nil when it is not there.
func (s *Sandbox) whole(name, id string) any {
	if r, err := s.get(name, id); err == nil {
		return r.doc()
	}
	return nil
}
