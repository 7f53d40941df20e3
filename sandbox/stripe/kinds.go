package stripe

import "strings"

// kind is one of Stripe's types of objects.
type kind struct {
	name   string // as in the field object
	path   string // of its list; "" for what lives inside others
	prefix string // of ids
	length int    // of the rest of an id
	// keys are what lists filter by, besides created: parameter, or parameter=path
	// in the object. A * marks those with an index.
	keys string
	// events is the prefix of its events' types; "": it has none (saas-apis: 36 lists
	// of Stripe's have no events).
	events string
	// keeps: a deleted one can still be retrieved, as {id, object, deleted}.
	keeps bool
	// hides says which objects a list leaves out unless it is asked for them.
	hides func(r *row, asked doc) bool
	// dated is the field of creation; "-": there is none.
	dated string
	// owner is a field that only filters use: the object does not show it.
	owner string
	noun  string // in messages; default: the name
	param string // what messages call a wrong id; default: id

	names []string // of keys
	paths [][]string
	index []bool
}

func (k *kind) prepare() *kind {
	for key := range strings.FieldsSeq(k.keys) {
		key, starred := strings.CutSuffix(key, "*")
		name, path, found := strings.Cut(key, "=")
		if !found {
			path = name
		}
		k.names, k.paths, k.index = append(k.names, name), append(k.paths, strings.Split(path, ".")), append(k.index, starred)
	}
	if k.dated == "" {
		k.dated = "created"
	}
	if k.noun == "" {
		k.noun = k.name
	}
	if k.param == "" {
		k.param = "id"
	}
	return k
}

// kinds lists what is simulated. Parents come before their children.
func kinds() []*kind {
	return []*kind{
		{name: "customer", path: "/v1/customers", prefix: "cus_", length: 14, events: "customer", keeps: true, keys: "email test_clock"},
		{name: "product", path: "/v1/products", prefix: "prod_", length: 14, events: "product", keys: "ids=id active shippable url"},
		{name: "price", path: "/v1/prices", prefix: "price_1", length: 23, events: "price", hides: inactive,
			keys: "active currency lookup_keys=lookup_key product* type"},
		{name: "plan", path: "/v1/plans", prefix: "plan_", length: 14, events: "plan", keys: "active product*"},
		{name: "coupon", path: "/v1/coupons", prefix: "", length: 8, events: "coupon"},
		{name: "promotion_code", path: "/v1/promotion_codes", prefix: "promo_1", length: 23, events: "promotion_code", noun: "promotion code",
			keys: "active code coupon=promotion.coupon* customer*"},
		{name: "tax_rate", path: "/v1/tax_rates", prefix: "txr_1", length: 23, events: "tax_rate", noun: "tax rate", keys: "active inclusive"},
		{name: "payment_method", path: "/v1/payment_methods", prefix: "pm_1", length: 23, events: "payment_method", noun: "PaymentMethod",
			keys: "customer* type allow_redisplay"},
		{name: "setup_intent", path: "/v1/setup_intents", prefix: "seti_1", length: 23, events: "setup_intent", noun: "setupintent", param: "intent",
			keys: "customer* payment_method attach_to_self"},
		{name: "subscription", path: "/v1/subscriptions", prefix: "sub_1", length: 23, events: "customer.subscription", hides: canceled,
			keys: "customer* status collection_method price=items.data.price.id test_clock automatic_tax"},
		{name: "subscription_item", path: "/v1/subscription_items", prefix: "si_", length: 14, noun: "subscription item", keys: "subscription*"},
		{name: "invoice", path: "/v1/invoices", prefix: "in_1", length: 23, events: "invoice",
			keys: "customer* status collection_method due_date subscription=parent.subscription_details.subscription*"},
		{name: "line_item", prefix: "il_1", length: 23, dated: "-", keys: "invoice*"},
		{name: "invoiceitem", path: "/v1/invoiceitems", prefix: "ii_1", length: 23, events: "invoiceitem", dated: "date", noun: "invoice item",
			keys: "customer* invoice*"},
		{name: "invoice_payment", path: "/v1/invoice_payments", prefix: "inpay_1", length: 23, noun: "invoice payment", keys: "invoice* status payment=payment.payment_intent*"},
		{name: "payment_intent", path: "/v1/payment_intents", prefix: "pi_3", length: 23, events: "payment_intent", param: "intent", keys: "customer*"},
		{name: "charge", path: "/v1/charges", prefix: "ch_3", length: 23, events: "charge", keys: "customer* payment_intent* transfer_group"},
		{name: "refund", path: "/v1/refunds", prefix: "re_3", length: 23, events: "refund", keys: "charge* payment_intent*"},
		{name: "dispute", path: "/v1/disputes", prefix: "du_1", length: 23, events: "charge.dispute", keys: "charge* payment_intent*"},
		{name: "balance_transaction", path: "/v1/balance_transactions", prefix: "txn_3", length: 23, noun: "balance transaction",
			keys: "currency type source*"},
		{name: "payout", path: "/v1/payouts", prefix: "po_1", length: 23, events: "payout", keys: "status arrival_date destination"},
		{name: "credit_note", path: "/v1/credit_notes", prefix: "cn_1", length: 23, events: "credit_note", noun: "credit note", keys: "customer* invoice*"},
		{name: "credit_note_line_item", prefix: "cnli_1", length: 23, dated: "-", owner: "credit_note", keys: "credit_note*"},
		{name: "checkout.session", path: "/v1/checkout/sessions", prefix: "cs_test_a1", length: 56, events: "checkout.session", noun: "checkout.session",
			keys: "customer* payment_intent* subscription* status"},
		{name: "item", prefix: "li_1", length: 23, dated: "-", owner: "session", keys: "session*"},
	}
}

// inactive: prices come as active ones only, unless the caller says otherwise.
func inactive(r *row, asked doc) bool {
	if _, ok := asked["active"]; ok {
		return false
	}
	return r.keys[0] != "true"
}

// canceled: subscriptions come without those that have been canceled.
func canceled(r *row, asked doc) bool {
	switch status := r.keys[1]; asked["status"] {
	case nil:
		return status == "canceled"
	case "all":
		return false
	case "ended":
		return status != "canceled" && status != "incomplete_expired"
	default:
		return status != asked["status"]
	}
}
