package stripe

import (
	"reflect"
	"strconv"
	"time"
)

func billingRoutes() map[string]handler {
	return map[string]handler{
		"POST /v1/subscriptions":                             createSubscription,
		"POST /v1/subscriptions/{subscription_exposed_id}":   updateSubscription,
		"DELETE /v1/subscriptions/{subscription_exposed_id}": cancelSubscription,
		"GET /v1/subscription_items":                         listItems,
		"POST /v1/subscription_items":                        createItem,
		"POST /v1/subscription_items/{item}":                 updateItem,
		"DELETE /v1/subscription_items/{item}":               deleteItem,
	}
}

// ordered is one thing that a customer subscribes to.
type ordered struct {
	price    doc
	quantity int64
	metadata any
}

// orders reads the items of a request.
func (s *Sandbox) orders(list []any) (orders []ordered, err *Error) {
	for i, element := range list {
		item, _ := element.(doc)
		at := "items[" + strconv.Itoa(i) + "][price]"
		id := text(item["price"])
		if id == "" {
			id = text(item["plan"])
		}
		if id == "" {
			return nil, invalid(at, "parameter_missing", "Missing required param: "+at+".")
		}
		price, err := s.get("price", id)
		if err != nil {
			return nil, err.inParam(at)
		}
		d := price.doc()
		if d["type"] != "recurring" {
			return nil, invalid(at, "", "The price specified is set to `type=one_time` but this field only accepts prices with `type=recurring`.")
		}
		if d["active"] != true {
			return nil, invalid(at, "", "The price specified is inactive. This field only accepts active prices.")
		}
		quantity, ok := item["quantity"].(int64)
		if !ok {
			quantity = 1
		}
		orders = append(orders, ordered{d, quantity, item["metadata"]})
	}
	return orders, nil
}

func createSubscription(q *request) (any, *Error) {
	customer, err := q.s.named("customer", "customer", q.params)
	if err != nil {
		return nil, err
	}
	list, _ := q.params["items"].([]any)
	orders, err := q.s.orders(list)
	if err != nil {
		return nil, err
	}
	if len(orders) == 0 {
		return nil, invalid("items", "parameter_missing", "Missing required param: items.")
	}
	d := q.s.newSubscription(customer.id, orders[0].price["currency"])
	if err := q.s.assign("subscription", d, q.params); err != nil {
		return nil, err
	}
	if days, ok := q.params["trial_period_days"].(int64); ok && days > 0 {
		d["trial_start"], d["trial_end"] = q.now.Unix(), q.now.AddDate(0, 0, int(days)).Unix()
	}
	if end, ok := q.params["trial_end"].(int64); ok {
		d["trial_start"], d["trial_end"] = q.now.Unix(), end
	}
	return q.tx().subscribe(customer, d, orders).doc(), nil
}

func (s *Sandbox) newSubscription(customer string, currency any) doc {
	d := s.spec.fresh("subscription")
	d["customer"], d["currency"], d["collection_method"], d["metadata"] = customer, currency, "charge_automatically", doc{}
	d["automatic_tax"] = doc{"disabled_reason": nil, "enabled": false, "liability": nil}
	d["billing_mode"] = doc{"type": "classic", "flexible": nil}
	d["invoice_settings"] = doc{"account_tax_ids": nil, "custom_fields": nil, "description": nil, "footer": nil, "issuer": doc{"type": "self"}}
	d["payment_settings"] = doc{"payment_method_options": nil, "payment_method_types": nil, "save_default_payment_method": "off"}
	d["trial_settings"] = doc{"end_behavior": doc{"missing_payment_method": "create_invoice"}}
	d["cancellation_details"] = doc{"comment": nil, "feedback": nil, "feedback_option": nil, "reason": nil}
	return d
}

// subscribe makes a subscription with its items and its first invoice.
func (t *tx) subscribe(customer *row, d doc, orders []ordered) *row {
	now := t.now.Unix()
	d["start_date"], d["billing_cycle_anchor"], d["status"] = now, now, "active"
	trial := d["trial_end"] != nil
	if trial {
		d["status"] = "trialing"
	}
	r := t.insert("subscription", d)
	for _, o := range orders {
		t.item(r.id, o)
	}
	t.set(r, func(d doc) { d["items"] = t.s.itemsOf(r.id) })
	invoice := t.bill(r, "subscription_create")
	d = t.set(r, func(d doc) {
		d["latest_invoice"] = invoice.id
		if !trial && invoice.doc()["status"] != "paid" && d["collection_method"] == "charge_automatically" {
			d["status"] = "incomplete"
		}
	})
	t.tell("customer.subscription.created", r)
	if text(customer.doc()["currency"]) == "" {
		t.change(customer, func(c doc) { c["currency"] = d["currency"] })
	}
	return r
}

// item adds an item to a subscription, whose list of them the caller brings up to date.
func (t *tx) item(subscription string, o ordered) *row {
	d := t.s.spec.fresh("subscription_item")
	d["subscription"], d["price"], d["quantity"], d["discounts"], d["tax_rates"] = subscription, o.price, o.quantity, []any{}, []any{}
	if d["metadata"] = o.metadata; o.metadata == nil {
		d["metadata"] = doc{}
	}
	d["current_period_start"], d["current_period_end"] = t.now.Unix(), period(t.now, o.price).Unix()
	return t.insert("subscription_item", d)
}

// period returns when a recurring price is due again.
func period(from time.Time, price doc) time.Time {
	n, _ := dig(price, []string{"recurring", "interval_count"}).(int64)
	count := int(max(n, 1))
	switch dig(price, []string{"recurring", "interval"}) {
	case "day":
		return from.AddDate(0, 0, count)
	case "week":
		return from.AddDate(0, 0, 7*count)
	case "year":
		return from.AddDate(count, 0, 0)
	}
	return from.AddDate(0, count, 0)
}

func (s *Sandbox) itemsOf(subscription string) doc {
	return s.nested(s.children("subscription_item", "subscription", subscription), "/v1/subscription_items?subscription="+subscription)
}

func updateSubscription(q *request) (any, *Error) {
	r, err := q.s.get("subscription", q.vars["id"])
	if err != nil {
		return nil, err
	}
	if r.doc()["status"] == "canceled" {
		return nil, invalid("", "", "A canceled subscription can only update its cancellation_details and metadata.")
	}
	list, _ := q.params["items"].([]any)
	var fresh []any
	for i, element := range list {
		item, _ := element.(doc)
		if id := text(item["id"]); id != "" {
			if have, err := q.s.get("subscription_item", id); err != nil || text(have.doc()["subscription"]) != r.id {
				return nil, missing("subscription item", id, "").inParam("items[" + strconv.Itoa(i) + "][id]")
			}
			continue
		}
		fresh = append(fresh, element)
	}
	orders, err := q.s.orders(fresh)
	if err != nil {
		return nil, err
	}
	if err := q.s.assign("subscription", r.doc(), q.params); err != nil {
		return nil, err
	}
	t := q.tx()
	edited := false
	for _, element := range list {
		if item, _ := element.(doc); item["id"] != nil {
			edited = t.editItem(item) || edited
		}
	}
	for _, o := range orders {
		t.item(r.id, o)
	}
	told := q.s.events.n
	d, err := q.edit(r, func(d doc) {
		d["items"] = q.s.itemsOf(r.id)
		switch at := q.params["cancel_at"].(type) {
		case int64:
			d["cancel_at"], d["canceled_at"] = at, q.now.Unix()
		case unset:
			d["cancel_at"], d["canceled_at"] = nil, nil
		}
		switch q.params["cancel_at_period_end"] {
		case true:
			d["canceled_at"], d["cancel_at"] = q.now.Unix(), periodEnd(d)
		case false:
			d["canceled_at"], d["cancel_at"] = nil, nil
		}
	})
	if edited && q.s.events.n == told {
		t.tell("customer.subscription.updated", r) // of an item that it does not show
	}
	return d, err
}

// editItem changes or deletes an item that a subscription's update names. It reports
// whether that made a difference.
func (t *tx) editItem(item doc) bool {
	r, err := t.s.get("subscription_item", text(item["id"]))
	if err != nil {
		return false
	}
	if item["deleted"] == true {
		t.remove(r)
		return true
	}
	before := r.doc()
	price, _ := t.s.get("price", text(item["price"]))
	after := t.change(r, func(d doc) {
		if n, ok := item["quantity"].(int64); ok {
			d["quantity"] = n
		}
		if price != nil {
			d["price"] = price.doc()
		}
		_ = t.s.assign("subscription_item", d, doc{"metadata": orDoc(item["metadata"])})
	})
	return !reflect.DeepEqual(before, after)
}

func orDoc(v any) any {
	if v == nil {
		return doc{}
	}
	return v
}

// periodEnd returns when the first of a subscription's items is due.
func periodEnd(subscription doc) any {
	data, _ := dig(subscription, []string{"items"}).(doc)
	if list, _ := data["data"].([]any); len(list) > 0 {
		return list[0].(doc)["current_period_end"]
	}
	return nil
}

func cancelSubscription(q *request) (any, *Error) {
	r, err := q.s.get("subscription", q.vars["id"])
	if err != nil {
		return nil, err
	}
	if r.doc()["status"] == "canceled" {
		return nil, missing("subscription", r.id, "id")
	}
	return q.tx().cancelSubscription(r, "cancellation_requested"), nil
}

// cancelSubscription ends a subscription. It still exists, but lists hide it.
func (t *tx) cancelSubscription(r *row, reason string) doc {
	now := t.now.Unix()
	if r.doc()["status"] == "canceled" {
		return r.doc()
	}
	return t.change(r, func(d doc) {
		d["status"], d["ended_at"], d["canceled_at"], d["cancel_at_period_end"] = "canceled", now, now, false
		d["cancellation_details"].(doc)["reason"] = reason
	}, "customer.subscription.deleted")
}

func listItems(q *request) (any, *Error) {
	id := text(q.params["subscription"])
	if _, err := q.s.named("subscription", "subscription", q.params); err != nil {
		return nil, err
	}
	return q.listOf(q.s.tables["subscription_item"].kind, "/v1/subscription_items?subscription="+id, nil)
}

// refreshItems brings the items in a subscription up to date after one of them has
// changed. The subscription has, also when it does not show that one.
func (t *tx) refreshItems(subscription string) {
	r, err := t.s.get("subscription", subscription)
	if err != nil {
		return
	}
	told := t.s.events.n
	t.change(r, func(d doc) { d["items"] = t.s.itemsOf(subscription) })
	if t.s.events.n == told {
		t.tell("customer.subscription.updated", r)
	}
}

func createItem(q *request) (any, *Error) {
	sub, err := q.s.named("subscription", "subscription", q.params)
	if err != nil {
		return nil, err
	}
	orders, err := q.s.orders([]any{q.params})
	if err != nil {
		return nil, err
	}
	t := q.tx()
	r := t.item(sub.id, orders[0])
	t.refreshItems(sub.id)
	return r.doc(), nil
}

func updateItem(q *request) (any, *Error) {
	r, err := q.s.get("subscription_item", q.vars["id"])
	if err != nil {
		return nil, err
	}
	if id := text(q.params["price"]); id != "" {
		if _, err := q.s.named("price", "price", q.params); err != nil {
			return nil, err
		}
	}
	if err := q.s.assign("subscription_item", r.doc(), q.params); err != nil {
		return nil, err
	}
	t := q.tx()
	q.params["id"] = r.id
	if t.editItem(q.params) {
		t.refreshItems(text(r.doc()["subscription"]))
	}
	return r.doc(), nil
}

func deleteItem(q *request) (any, *Error) {
	r, err := q.s.get("subscription_item", q.vars["id"])
	if err != nil {
		return nil, err
	}
	sub := text(r.doc()["subscription"])
	if len(q.s.children("subscription_item", "subscription", sub)) < 2 {
		return nil, invalid("", "", "A subscription must have at least one active plan. To cancel the subscription, please use the cancel API endpoint on /v1/subscriptions.")
	}
	t := q.tx()
	gone := t.remove(r)
	t.refreshItems(sub)
	return gone, nil
}
