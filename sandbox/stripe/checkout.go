package stripe

import (
	"maps"
	"strconv"
	"time"
)

func checkoutRoutes() map[string]handler {
	return map[string]handler{
		"POST /v1/checkout/sessions":                     createSession,
		"POST /v1/checkout/sessions/{session}/expire":    expireSession,
		"GET /v1/checkout/sessions/{session}/line_items": below("checkout.session", "item", "session"),
		"POST /v1/setup_intents":                         createSetup,
		"POST /v1/setup_intents/{intent}/confirm":        confirmSetup,
		"POST /v1/setup_intents/{intent}/cancel":         cancelSetup,
	}
}

func createSession(q *request) (any, *Error) {
	mode := text(orText(q.params["mode"], "payment"))
	d := q.s.spec.fresh("checkout.session")
	if err := q.s.assign("checkout.session", d, q.params); err != nil {
		return nil, err
	}
	list, _ := q.params["line_items"].([]any)
	items := make([]doc, 0, len(list))
	for i, element := range list {
		line, _ := element.(doc)
		price, err := q.s.get("price", text(line["price"]))
		if err != nil {
			return nil, err.inParam("line_items[" + strconv.Itoa(i) + "][price]")
		}
		quantity, _ := orOne(line["quantity"]).(int64)
		items = append(items, sessionItem(price.doc(), quantity))
	}
	if len(items) == 0 && mode != "setup" {
		return nil, invalid("line_items", "parameter_missing", "Missing required param: line_items.")
	}
	if _, ok := q.params["customer"]; ok {
		if _, err := q.s.named("customer", "customer", q.params); err != nil {
			return nil, err
		}
	}
	return q.tx().session(mode, d, items).doc(), nil
}

func sessionItem(price doc, quantity int64) doc {
	amount, _ := price["unit_amount"].(int64)
	amount *= quantity
	return doc{"object": "item", "amount_discount": int64(0), "amount_subtotal": amount, "amount_tax": int64(0), "amount_total": amount,
		"currency": price["currency"], "description": orText(price["nickname"], "Item"), "price": price, "quantity": quantity,
		"adjustable_quantity": nil, "metadata": doc{}}
}

// session opens a checkout.
func (t *tx) session(mode string, d doc, items []doc) *row {
	d["mode"], d["status"], d["payment_status"], d["expires_at"], d["ui_mode"] = mode, "open", "unpaid", t.now.Add(24*time.Hour).Unix(), "hosted_page"
	d["payment_method_types"], d["payment_method_collection"] = []any{"card"}, "if_required"
	d["automatic_tax"] = doc{"enabled": false, "liability": nil, "provider": nil, "status": nil}
	if d["metadata"] == nil {
		d["metadata"] = doc{}
	}
	total := int64(0)
	for _, item := range items {
		total += item["amount_total"].(int64)
		d["currency"] = item["currency"]
	}
	if len(items) > 0 {
		d["amount_subtotal"], d["amount_total"] = total, total
		d["total_details"] = doc{"amount_discount": int64(0), "amount_shipping": int64(0), "amount_tax": int64(0)}
	}
	r := t.insert("checkout.session", d)
	for _, item := range items {
		item["session"] = r.id
		t.insert("item", item)
	}
	t.set(r, func(d doc) { d["url"] = "https://checkout.stripe.example/c/pay/" + r.id })
	return r
}

// complete lets a customer finish a checkout, with what came of it.
func (t *tx) complete(r, customer *row, made doc) doc {
	c := customer.doc()
	details := t.s.spec.zero(&schema{Ref: "payment_pages_checkout_session_customer_details"}).(doc)
	details["email"], details["name"], details["phone"], details["address"], details["tax_exempt"] = c["email"], c["name"], c["phone"], c["address"], "none"
	return t.change(r, func(d doc) {
		d["status"], d["payment_status"], d["url"], d["customer"], d["customer_details"] = "complete", "paid", nil, customer.id, details
		maps.Copy(d, made)
	}, "checkout.session.completed")
}

func expireSession(q *request) (any, *Error) {
	r, err := q.s.get("checkout.session", q.vars["id"])
	if err != nil {
		return nil, err
	}
	if r.doc()["status"] != "open" {
		return nil, invalid("", "", "Only Checkout Sessions with a status in [\"open\"] can be expired. This Checkout Session has a status of `"+text(r.doc()["status"])+"`.")
	}
	return q.tx().expire(r), nil
}

func (t *tx) expire(r *row) doc {
	return t.change(r, func(d doc) { d["status"], d["url"] = "expired", nil }, "checkout.session.expired")
}

func (s *Sandbox) newSetup() doc {
	d := s.spec.fresh("setup_intent")
	d["status"], d["usage"], d["payment_method_types"], d["metadata"] = "requires_payment_method", "off_session", []any{"card"}, doc{}
	d["payment_method_options"] = doc{"card": doc{"mandate_options": nil, "network": nil, "request_three_d_secure": "automatic"}}
	return d
}

func createSetup(q *request) (any, *Error) {
	d := q.s.newSetup()
	if err := q.s.assign("setup_intent", d, q.params); err != nil {
		return nil, err
	}
	if _, ok := q.params["customer"]; ok {
		if _, err := q.s.named("customer", "customer", q.params); err != nil {
			return nil, err
		}
	}
	t := q.tx()
	id := text(q.params["payment_method"])
	if id == "" {
		return t.create("setup_intent", d).doc(), nil
	}
	pm, err := t.methodFor(id, "payment_method")
	if err != nil {
		return nil, err
	}
	d["payment_method"], d["status"] = pm.id, "requires_confirmation"
	r := t.create("setup_intent", d)
	if q.params["confirm"] == true {
		return t.setUp(r, pm), nil
	}
	return r.doc(), nil
}

// setUp confirms a setup intent and attaches its payment method.
func (t *tx) setUp(r, pm *row) doc {
	d := t.change(r, func(d doc) { d["status"], d["payment_method"] = "succeeded", pm.id }, "setup_intent.succeeded")
	if customer := text(d["customer"]); customer != "" {
		t.attach(pm, customer)
	}
	return d
}

func confirmSetup(q *request) (any, *Error) {
	r, err := q.s.get("setup_intent", q.vars["id"])
	if err != nil {
		return nil, err
	}
	d := r.doc()
	id := text(q.params["payment_method"])
	if id == "" {
		id = text(d["payment_method"])
	}
	switch {
	case d["status"] == "succeeded" || d["status"] == "canceled":
		return nil, invalid("", "setup_intent_unexpected_state", "You cannot confirm this SetupIntent because it has already been "+text(d["status"])+".")
	case id == "":
		return nil, invalid("payment_method", "parameter_missing", "You cannot confirm this SetupIntent because it's missing a payment method.")
	}
	t := q.tx()
	pm, err := t.methodFor(id, "payment_method")
	if err != nil {
		return nil, err
	}
	return t.setUp(r, pm), nil
}

func cancelSetup(q *request) (any, *Error) {
	r, err := q.s.get("setup_intent", q.vars["id"])
	if err != nil {
		return nil, err
	}
	if status := r.doc()["status"]; status == "succeeded" || status == "canceled" {
		return nil, invalid("", "setup_intent_unexpected_state", "You cannot cancel this SetupIntent because it has a status of "+text(status)+".")
	}
	return q.tx().change(r, func(d doc) {
		d["status"], d["cancellation_reason"] = "canceled", orText(q.params["cancellation_reason"], "requested_by_customer")
	}, "setup_intent.canceled"), nil
}
