package stripe

import "strings"

func customerRoutes() map[string]handler {
	nothing := func(q *request) (any, *Error) {
		return doc{"object": "list", "data": []any{}, "has_more": false, "url": q.path}, nil
	}
	return map[string]handler{
		"POST /v1/customers":                         createCustomer,
		"DELETE /v1/customers/{customer}":            deleteCustomer,
		"GET /v1/customers/{customer}/subscriptions": customerSubscriptions,
		"GET /v1/customers/{customer}/sources":       nothing,
		"GET /v1/customers/{customer}/tax_ids":       nothing,

		"GET /v1/customers/{customer}/payment_methods":     below("customer", "payment_method", "customer"),
		"POST /v1/payment_methods":                         createPaymentMethod,
		"POST /v1/payment_methods/{payment_method}/attach": attachPaymentMethod,
		"POST /v1/payment_methods/{payment_method}/detach": detachPaymentMethod,
	}
}

// newCustomer is a customer of whom nothing is known.
func (s *Sandbox) newCustomer() doc {
	d := s.spec.fresh("customer")
	d["balance"], d["tax_exempt"], d["preferred_locales"], d["metadata"], d["delinquent"] = int64(0), "none", []any{}, doc{}, false
	d["invoice_settings"] = doc{"custom_fields": nil, "default_payment_method": nil, "footer": nil, "rendering_options": nil}
	d["next_invoice_sequence"] = int64(1)
	return d
}

func createCustomer(q *request) (any, *Error) {
	d := q.s.newCustomer()
	dice := q.tx().dice("customer")
	d["invoice_prefix"] = strings.ToUpper(dice.Text(8))
	if err := q.s.assign("customer", d, q.params); err != nil {
		return nil, err
	}
	t := q.tx()
	method := text(q.params["payment_method"])
	if method == "" {
		return t.create("customer", d).doc(), nil
	}
	pm, err := t.methodFor(method, "payment_method")
	if err != nil {
		return nil, err
	}
	r := t.create("customer", d)
	t.attach(pm, r.id)
	return r.doc(), nil
}

func deleteCustomer(q *request) (any, *Error) {
	r, err := q.s.get("customer", q.vars["id"])
	if err != nil {
		return nil, err
	}
	return q.tx().deleteCustomer(r), nil
}

// deleteCustomer cancels the subscriptions and lets go of the payment methods first.
func (t *tx) deleteCustomer(r *row) doc {
	for _, sub := range t.s.children("subscription", "customer", r.id) {
		t.cancelSubscription(sub, "cancellation_requested")
	}
	for _, pm := range t.s.children("payment_method", "customer", r.id) {
		t.change(pm, func(d doc) { d["customer"] = nil }, "payment_method.detached")
	}
	return t.remove(r)
}

func customerSubscriptions(q *request) (any, *Error) {
	if _, err := q.s.get("customer", q.vars["id"]); err != nil {
		return nil, err
	}
	q.params["customer"] = q.vars["id"]
	return q.listOf(q.s.tables["subscription"].kind, q.path, nil)
}

// card makes a payment method. reason is why payments with it are declined, or "".
func (t *tx) card(brand, reason string) *row {
	d := t.s.spec.fresh("payment_method")
	dice := t.dice("payment_method")
	last := map[string]string{"visa": "4242", "mastercard": "4444", "amex": "8431"}[brand]
	if reason != "" {
		last = "0002"
	}
	card := t.s.spec.zero(&schema{Ref: "payment_method_card"}).(doc)
	card["brand"], card["last4"], card["country"], card["funding"], card["fingerprint"] = brand, last, "US", "credit", dice.Text(16)
	card["exp_month"], card["exp_year"] = int64(dice.Between(1, 12)), int64(t.now.Year()+dice.Between(1, 4))
	card["display_brand"] = brand
	d["type"], d["card"], d["metadata"], d["allow_redisplay"] = "card", card, doc{}, "unspecified"
	d["billing_details"] = t.s.spec.zero(&schema{Ref: "billing_details"})
	if reason != "" {
		d["metadata"] = doc{"sandbox_decline": reason}
	}
	return t.create("payment_method", d)
}

// methodFor returns the payment method of an id, or makes one of Stripe's test ids:
// pm_card_visa, pm_card_mastercard, pm_card_chargeDeclined …, tok_visa.
func (t *tx) methodFor(id, param string) (*row, *Error) {
	name, test := strings.CutPrefix(id, "pm_card_")
	if !test {
		name, test = strings.CutPrefix(id, "tok_")
	}
	if !test {
		r, err := t.s.get("payment_method", id)
		if err != nil {
			return nil, err.inParam(param)
		}
		return r, nil
	}
	switch {
	case name == "mastercard" || name == "amex":
		return t.card(name, ""), nil
	case strings.Contains(name, "InsufficientFunds"):
		return t.card("visa", "insufficient_funds"), nil
	case strings.Contains(name, "eclined") || strings.Contains(name, "CustomerFail"):
		return t.card("visa", "generic_decline"), nil
	}
	return t.card("visa", ""), nil
}

func (t *tx) attach(pm *row, customer string) doc {
	return t.change(pm, func(d doc) { d["customer"] = customer }, "payment_method.attached")
}

func createPaymentMethod(q *request) (any, *Error) {
	kind := text(q.params["type"])
	if kind == "" {
		return nil, invalid("type", "parameter_missing", "Missing required param: type.")
	}
	if kind != "card" {
		return nil, invalid("type", "", "The sandbox makes payment methods of type card only; got "+kind)
	}
	if err := q.s.assign("payment_method", q.s.spec.fresh("payment_method"), q.params); err != nil {
		return nil, err
	}
	t := q.tx()
	token := text(dig(q.params, []string{"card", "token"}))
	if token == "" {
		token = "pm_card_visa"
		if strings.HasSuffix(text(dig(q.params, []string{"card", "number"})), "0002") {
			token = "pm_card_chargeDeclined"
		}
	}
	pm, err := t.methodFor(token, "card[token]")
	if err != nil {
		return nil, err
	}
	return q.edit(pm, nil)
}

func attachPaymentMethod(q *request) (any, *Error) {
	customer, err := q.s.named("customer", "customer", q.params)
	if err != nil {
		return nil, err
	}
	t := q.tx()
	pm, err := t.methodFor(q.vars["id"], "payment_method")
	if err != nil {
		return nil, err
	}
	if owner := text(pm.doc()["customer"]); owner != "" && owner != customer.id {
		return nil, invalid("", "", "The payment method you provided has already been attached to a customer.")
	}
	return t.attach(pm, customer.id), nil
}

func detachPaymentMethod(q *request) (any, *Error) {
	pm, err := q.s.get("payment_method", q.vars["id"])
	if err != nil {
		return nil, err
	}
	if text(pm.doc()["customer"]) == "" {
		return nil, invalid("", "", "The payment method you provided is not attached to a customer so detachment is impossible.")
	}
	return q.tx().change(pm, func(d doc) { d["customer"] = nil }, "payment_method.detached"), nil
}
