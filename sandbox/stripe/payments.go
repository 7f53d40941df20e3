package stripe

import (
	"fmt"
	"time"
)

func paymentRoutes() map[string]handler {
	return map[string]handler{
		"POST /v1/payment_intents":                  createIntent,
		"POST /v1/payment_intents/{intent}":         updateIntent,
		"POST /v1/payment_intents/{intent}/confirm": confirmIntent,
		"POST /v1/payment_intents/{intent}/cancel":  cancelIntent,
		"POST /v1/charges":                          createCharge,
		"POST /v1/refunds":                          createRefund,
		"GET /v1/charges/{charge}/refunds":          below("charge", "refund", "charge"),
		"POST /v1/payouts":                          createPayout,
		"POST /v1/disputes/{dispute}":               updateDispute,
		"POST /v1/disputes/{dispute}/close":         closeDispute,
	}
}

// newIntent is a payment intent of an amount.
func (s *Sandbox) newIntent(amount int64, currency any) doc {
	d := s.spec.fresh("payment_intent")
	d["amount"], d["currency"], d["status"], d["capture_method"], d["confirmation_method"] = amount, currency, "requires_payment_method", "automatic_async", "automatic"
	d["amount_capturable"], d["amount_received"], d["metadata"] = int64(0), int64(0), doc{}
	d["payment_method_types"], d["payment_method_options"] = []any{"card"}, doc{"card": doc{"request_three_d_secure": "automatic"}}
	d["client_secret"] = nil
	return d
}

func createIntent(q *request) (any, *Error) {
	amount, _ := q.params["amount"].(int64)
	if amount <= 0 {
		return nil, invalid("amount", "parameter_invalid_integer", "This value must be greater than or equal to 1.")
	}
	d := q.s.newIntent(amount, nil)
	if err := q.s.assign("payment_intent", d, q.params); err != nil {
		return nil, err
	}
	if _, ok := q.params["customer"]; ok {
		if _, err := q.s.named("customer", "customer", q.params); err != nil {
			return nil, err
		}
	}
	if q.params["confirm"] == true && text(q.params["payment_method"]) == "" {
		return nil, needsMethod()
	}
	t := q.tx()
	var pm *row
	if id := text(q.params["payment_method"]); id != "" {
		var err *Error
		if pm, err = t.methodFor(id, "payment_method"); err != nil {
			return nil, err
		}
		d["payment_method"], d["status"] = pm.id, "requires_confirmation"
	}
	r := t.create("payment_intent", d)
	if q.params["confirm"] != true {
		return r.doc(), nil
	}
	return t.settle(r, pm)
}

func needsMethod() *Error {
	return invalid("payment_method", "parameter_missing", "You cannot confirm this PaymentIntent because it's missing a payment method.")
}

// settle confirms an intent; a refusal of the card is an error that names it.
func (t *tx) settle(r, pm *row) (any, *Error) {
	reason := t.confirm(r, pm)
	if reason == "" {
		return r.doc(), nil
	}
	e := declined("card_declined", reason, declineText(reason))
	e.Intent, e.Charge = r.doc(), text(r.doc()["latest_charge"])
	return nil, e
}

func declineText(reason string) string {
	if reason == "insufficient_funds" {
		return "Your card has insufficient funds."
	}
	return "Your card was declined."
}

// confirm charges an intent's payment method and returns why it was declined, or "".
func (t *tx) confirm(r, pm *row) (reason string) {
	method := pm.doc()
	reason = text(dig(method, []string{"metadata", "sandbox_decline"}))
	charge := t.charge(r.doc(), method, reason)
	if reason != "" {
		t.change(r, func(d doc) {
			d["status"], d["latest_charge"], d["payment_method"] = "requires_payment_method", charge.id, nil
			d["last_payment_error"] = doc{"type": "card_error", "code": "card_declined", "decline_code": reason, "message": declineText(reason), "charge": charge.id}
		}, "payment_intent.payment_failed")
		return reason
	}
	t.change(r, func(d doc) {
		d["status"], d["latest_charge"], d["payment_method"], d["amount_received"], d["last_payment_error"] = "succeeded", charge.id, pm.id, d["amount"], nil
	}, "payment_intent.succeeded")
	return ""
}

func updateIntent(q *request) (any, *Error) {
	r, err := q.s.get("payment_intent", q.vars["id"])
	if err != nil {
		return nil, err
	}
	method := text(q.params["payment_method"])
	if method != "" {
		pm, err := q.tx().methodFor(method, "payment_method")
		if err != nil {
			return nil, err
		}
		method = pm.id
	}
	return q.edit(r, func(d doc) {
		if method != "" {
			d["payment_method"], d["status"] = method, "requires_confirmation"
		}
	})
}

func confirmIntent(q *request) (any, *Error) {
	r, err := q.s.get("payment_intent", q.vars["id"])
	if err != nil {
		return nil, err
	}
	d := r.doc()
	if d["status"] == "succeeded" || d["status"] == "canceled" {
		return nil, invalid("", "payment_intent_unexpected_state", fmt.Sprintf(
			"You cannot confirm this PaymentIntent because it has already %s after being previously confirmed.", d["status"]))
	}
	id := text(q.params["payment_method"])
	if id == "" {
		id = text(d["payment_method"])
	}
	if id == "" {
		return nil, needsMethod()
	}
	t := q.tx()
	pm, err := t.methodFor(id, "payment_method")
	if err != nil {
		return nil, err
	}
	return t.settle(r, pm)
}

func cancelIntent(q *request) (any, *Error) {
	r, err := q.s.get("payment_intent", q.vars["id"])
	if err != nil {
		return nil, err
	}
	if status := r.doc()["status"]; status == "succeeded" || status == "canceled" {
		return nil, invalid("", "payment_intent_unexpected_state", fmt.Sprintf("You cannot cancel this PaymentIntent because it has a status of %s.", status))
	}
	return q.tx().change(r, func(d doc) {
		d["status"], d["canceled_at"], d["cancellation_reason"] = "canceled", q.now.Unix(), orText(q.params["cancellation_reason"], "requested_by_customer")
	}, "payment_intent.canceled"), nil
}

// charge moves money by a payment method, or fails for a reason.
func (t *tx) charge(intent, method doc, reason string) *row {
	d := t.s.spec.fresh("charge")
	amount := intent["amount"].(int64)
	for _, field := range []string{"customer", "currency", "description", "receipt_email", "statement_descriptor", "transfer_group", "shipping"} {
		d[field] = intent[field]
	}
	d["amount"], d["metadata"], d["payment_method"], d["billing_details"] = amount, doc{}, method["id"], method["billing_details"]
	if id, ok := intent["id"]; ok {
		d["payment_intent"] = id
	}
	card := t.s.spec.zero(&schema{Ref: "payment_method_details_card"}).(doc)
	for _, field := range []string{"brand", "last4", "exp_month", "exp_year", "country", "funding", "fingerprint"} {
		card[field] = dig(method, []string{"card", field})
	}
	d["payment_method_details"] = doc{"type": "card", "card": card}
	d["fraud_details"] = doc{}
	outcome := t.s.spec.zero(&schema{Ref: "charge_outcome"}).(doc)
	outcome["type"], outcome["network_status"], outcome["seller_message"] = "authorized", "approved_by_network", "Payment complete."
	d["outcome"] = outcome
	if reason != "" {
		d["status"], d["failure_code"], d["failure_message"], d["paid"], d["captured"] = "failed", "card_declined", declineText(reason), false, false
		outcome["type"], outcome["network_status"], outcome["reason"], outcome["seller_message"] = "issuer_declined", "declined_by_network", reason, "The bank returned the decline code."
		r := t.insert("charge", d)
		t.tell("charge.failed", r)
		return r
	}
	d["status"], d["paid"], d["captured"], d["amount_captured"] = "succeeded", true, true, amount
	r := t.insert("charge", d)
	// 2.9 % and 30 cents, as Stripe takes in the United States.
	txn := t.money("charge", amount, amount*29/1000+30, d["currency"], r.id, "charge")
	t.set(r, func(d doc) {
		d["balance_transaction"] = txn
		d["receipt_url"] = "https://pay.stripe.example/receipts/" + r.id
	})
	t.tell("charge.succeeded", r)
	return r
}

// money makes a balance transaction and returns its id.
func (t *tx) money(kind string, amount, fee int64, currency any, source, category string) string {
	d := t.s.spec.fresh("balance_transaction")
	d["type"], d["amount"], d["fee"], d["net"], d["currency"], d["source"], d["reporting_category"] = kind, amount, fee, amount-fee, currency, source, category
	d["status"], d["available_on"], d["balance_type"] = "available", t.now.Add(48*time.Hour).Unix(), "payments"
	if fee != 0 {
		d["fee_details"] = []any{doc{"amount": fee, "application": nil, "currency": currency, "description": "Stripe processing fees", "type": "stripe_fee"}}
	}
	t.s.balance += amount - fee
	return t.create("balance_transaction", d).id
}

func createCharge(q *request) (any, *Error) {
	amount, _ := q.params["amount"].(int64)
	source := text(q.params["source"])
	if amount <= 0 || source == "" {
		return nil, invalid("source", "parameter_missing", "Must provide source or customer, and a positive amount.")
	}
	check := q.s.spec.fresh("charge")
	if err := q.s.assign("charge", check, q.params); err != nil {
		return nil, err
	}
	t := q.tx()
	pm, err := t.methodFor(source, "source")
	if err != nil {
		return nil, err
	}
	reason := text(dig(pm.doc(), []string{"metadata", "sandbox_decline"}))
	r := t.charge(doc{"amount": amount, "currency": check["currency"], "customer": check["customer"], "description": check["description"]}, pm.doc(), reason)
	if reason != "" {
		e := declined("card_declined", reason, declineText(reason))
		e.Charge = r.id
		return nil, e
	}
	if check["metadata"] == nil {
		return r.doc(), nil
	}
	return t.set(r, func(d doc) { d["metadata"] = check["metadata"] }), nil
}

func createRefund(q *request) (any, *Error) {
	id := text(q.params["charge"])
	if intent := text(q.params["payment_intent"]); id == "" && intent != "" {
		r, err := q.s.named("payment_intent", "payment_intent", q.params)
		if err != nil {
			return nil, err
		}
		id = text(r.doc()["latest_charge"])
	}
	if id == "" {
		return nil, invalid("charge", "parameter_missing", "One of the following params should be provided for this request: payment_intent or charge.")
	}
	charge, err := q.s.get("charge", id)
	if err != nil {
		return nil, err.inParam("charge")
	}
	d := charge.doc()
	left := d["amount_captured"].(int64) - d["amount_refunded"].(int64)
	amount, ok := q.params["amount"].(int64)
	if !ok {
		amount = left
	}
	switch {
	case left == 0 && d["paid"] == true:
		return nil, invalid("", "charge_already_refunded", "Charge "+id+" has already been refunded.")
	case amount <= 0 || amount > left:
		return nil, invalid("amount", "", fmt.Sprintf("Refund amount (%d) is greater than unrefunded amount on charge (%d)", amount, left))
	}
	check := q.s.spec.fresh("refund")
	if err := q.s.assign("refund", check, q.params); err != nil {
		return nil, err
	}
	r := q.tx().refund(charge, amount, q.params["reason"], check["metadata"])
	return r.doc(), nil
}

// refund gives an amount of a charge back.
func (t *tx) refund(charge *row, amount int64, reason, metadata any) *row {
	c := charge.doc()
	d := t.s.spec.fresh("refund")
	d["amount"], d["charge"], d["payment_intent"], d["currency"], d["status"], d["reason"] = amount, c["id"], c["payment_intent"], c["currency"], "succeeded", clean(reason)
	d["customer"], d["payment_method"] = c["customer"], c["payment_method"]
	d["destination_details"] = doc{"type": "card", "card": doc{"type": "refund", "reference_type": "acquirer_reference_number", "reference_status": "pending"}}
	if d["metadata"] = metadata; metadata == nil {
		d["metadata"] = doc{}
	}
	r := t.insert("refund", d)
	txn := t.money("refund", -amount, 0, c["currency"], r.id, "refund")
	t.set(r, func(d doc) { d["balance_transaction"] = txn })
	t.tell("refund.created", r)
	t.change(charge, func(d doc) {
		d["amount_refunded"] = d["amount_refunded"].(int64) + amount
		d["refunded"] = d["amount_refunded"] == d["amount_captured"]
	}, "charge.refunded", "charge.updated")
	return r
}

func createPayout(q *request) (any, *Error) {
	amount, _ := q.params["amount"].(int64)
	if amount <= 0 || amount > q.s.balance {
		return nil, invalid("amount", "balance_insufficient", "You have insufficient funds in your Stripe account. One likely reason you have insufficient funds is that your funds are automatically being paid out.")
	}
	check := q.s.spec.fresh("payout")
	if err := q.s.assign("payout", check, q.params); err != nil {
		return nil, err
	}
	return q.tx().payout(amount, check).doc(), nil
}

// payout sends money to the bank; fields are further ones that it gets.
func (t *tx) payout(amount int64, fields doc) *row {
	d := t.s.spec.fresh("payout")
	for _, field := range []string{"metadata", "description", "statement_descriptor"} {
		d[field] = fields[field]
	}
	if d["metadata"] == nil {
		d["metadata"] = doc{}
	}
	d["amount"], d["currency"], d["status"], d["method"], d["type"], d["source_type"] = amount, "usd", "in_transit", "standard", "bank_account", "card"
	d["arrival_date"], d["automatic"], d["reconciliation_status"], d["destination"] = t.now.Add(48*time.Hour).Unix(), false, "not_applicable", "ba_1"+t.s.options.Seed.Code("bank", 0, 23)
	r := t.insert("payout", d)
	txn := t.money("payout", -amount, 0, "usd", r.id, "payout")
	t.set(r, func(d doc) { d["balance_transaction"] = txn })
	t.tell("payout.created", r)
	return r
}
