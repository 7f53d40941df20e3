package stripe

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"unicode/utf8"
)

// handlers returns what answers which route: for every kind its list, its objects
// and the plain update, then what has rules of its own.
func (s *Sandbox) handlers() map[string]handler {
	h := map[string]handler{}
	for _, k := range s.kinds {
		if k.path == "" {
			continue
		}
		h["GET "+k.path] = s.list(k)
		one := s.spec.one(k.path)
		h["GET "+one] = retrieve(k)
		if _, ok := s.spec.Paths[one]["post"]; ok {
			h["POST "+one] = update(k)
		}
	}
	for _, more := range []map[string]handler{accountRoutes(), customerRoutes(), catalogRoutes(), billingRoutes(), invoiceRoutes(), paymentRoutes(), checkoutRoutes()} {
		maps.Copy(h, more)
	}
	return h
}

// one returns the pattern of a list's objects: /v1/customers/{customer}.
func (s *spec) one(list string) string {
	for pattern := range s.Paths {
		if rest, ok := strings.CutPrefix(pattern, list+"/{"); ok && !strings.Contains(rest, "/") {
			return pattern
		}
	}
	return ""
}

func accountRoutes() map[string]handler {
	return map[string]handler{
		"GET /v1/account": func(q *request) (any, *Error) { return q.s.account(), nil },
		"GET /v1/balance": func(q *request) (any, *Error) { return q.s.balanceNow(), nil },
		"GET /v1/events":  listEvents, "GET /v1/events/{id}": retrieveEvent,
	}
}

func (s *Sandbox) account() doc {
	d := s.spec.fresh("account")
	d["id"], d["type"], d["country"], d["email"], d["default_currency"] = s.accountID(), "standard", "US", "owner@sandbox.example", "usd"
	d["charges_enabled"], d["payouts_enabled"], d["details_submitted"] = true, true, true
	d["business_profile"] = doc{"annual_revenue": nil, "estimated_worker_count": nil, "mcc": nil, "minority_owned_business_designation": nil, "name": "Sandbox",
		"product_description": nil, "support_address": nil, "support_email": nil, "support_phone": nil, "support_url": nil, "url": nil}
	d["settings"] = s.spec.zero(&schema{Ref: "account_settings"})
	d["metadata"] = doc{}
	return d
}

func (s *Sandbox) balanceNow() doc {
	money := []any{doc{"amount": s.balance, "currency": "usd", "source_types": doc{"card": s.balance}}}
	none := []any{doc{"amount": int64(0), "currency": "usd", "source_types": doc{"card": int64(0)}}}
	return doc{"object": "balance", "available": money, "pending": none, "livemode": false}
}

func retrieve(k *kind) handler {
	return func(q *request) (any, *Error) {
		r := q.s.tables[k.name].find(q.vars["id"])
		if r == nil || r.deleted && !k.keeps {
			return nil, missing(k.noun, q.vars["id"], k.param)
		}
		if r.deleted {
			return doc{"id": r.id, "object": k.name, "deleted": true}, nil
		}
		return r.doc(), nil
	}
}

// update sets the parameters that are fields.
func update(k *kind) handler {
	return func(q *request) (any, *Error) {
		r, err := q.s.get(k.name, q.vars["id"])
		if err != nil {
			return nil, err
		}
		return q.edit(r, nil)
	}
}

// edit assigns the request's parameters to an object and lets more be changed with
// them. What more returns an error for must be checked before.
func (q *request) edit(r *row, more func(doc)) (any, *Error) {
	if err := q.s.assign(r.kind.name, r.doc(), q.params); err != nil {
		return nil, err
	}
	return q.tx().change(r, func(d doc) {
		_ = q.s.assign(r.kind.name, d, q.params)
		if more != nil {
			more(d)
		}
	}), nil
}

// remover answers the deletion of a kind without rules.
func remover(name string) handler {
	return func(q *request) (any, *Error) {
		r, err := q.s.get(name, q.vars["id"])
		if err != nil {
			return nil, err
		}
		return q.tx().remove(r), nil
	}
}

// below answers the list of a kind inside another object.
func below(parent, child, key string) handler {
	return func(q *request) (any, *Error) {
		id := q.vars["id"]
		if _, err := q.s.get(parent, id); err != nil {
			return nil, err
		}
		return q.listOf(q.s.tables[child].kind, q.path, doc{key: id})
	}
}

// Limits of metadata.
const (
	mostMetadata = 50
	longestName  = 40
	longestValue = 500
)

// assign sets those of the parameters that are fields of the object, as they are
// given: "" clears, metadata is merged, objects replace.
func (s *Sandbox) assign(name string, d, params doc) *Error {
	fields := s.spec.Schemas[name].Properties
	for param, value := range params {
		if param == "metadata" {
			if err := mergeMetadata(d, value); err != nil {
				return err
			}
			continue
		}
		field := fields[param]
		if field == nil || slices.Contains(ownRules(), name+"."+param) {
			continue
		}
		if param == "email" && !strings.Contains(text(value), "@") && value != (unset{}) && value != "" {
			return invalid("email", "email_invalid", "Invalid email address: "+text(value))
		}
		d[param] = s.settled(field, value)
	}
	return nil
}

// ownRules are parameters named like fields that mean something else.
func ownRules() []string {
	return []string{
		"customer.sources", "product.default_price_data", "price.product", "subscription.items", "subscription.trial_end", "subscription.cancel_at",
		"subscription.discounts", "subscription.billing_cycle_anchor", "subscription.default_tax_rates", "subscription_item.tax_rates", "subscription_item.price",
		"subscription_item.discounts", "invoice.discounts", "invoice.default_tax_rates", "invoice.lines", "invoice.shipping_cost", "invoiceitem.discounts",
		"invoiceitem.tax_rates", "invoiceitem.pricing", "coupon.applies_to", "promotion_code.promotion", "credit_note.lines", "credit_note.refunds",
		"credit_note.shipping_cost", "checkout.session.line_items", "checkout.session.discounts", "checkout.session.shipping_options",
		"checkout.session.optional_items", "checkout.session.custom_fields", "payment_intent.payment_method", "payment_intent.amount_details",
		"payment_intent.hooks", "setup_intent.payment_method", "dispute.evidence", "refund.charge", "payment_method.card", "coupon.percent_off",
		"payment_intent.payment_method_options", "setup_intent.payment_method_options", "checkout.session.payment_method_options",
	}
}

// settled is a parameter's value as the field shows it.
func (s *Sandbox) settled(field *schema, value any) any {
	switch value := value.(type) {
	case unset:
		return s.spec.zero(field)
	case string:
		if field.Format == "currency" {
			return strings.ToLower(value)
		}
		return strings.TrimSpace(value)
	case doc:
		o := s.spec.object(field)
		if o == nil {
			return clean(value)
		}
		full, _ := s.spec.zero(&schema{Type: "object", Properties: o.Properties, Required: o.Required}).(doc)
		for name, inner := range value {
			if below := o.Properties[name]; below != nil {
				full[name] = s.settled(below, inner)
			} else if len(o.Properties) == 0 {
				full[name] = clean(inner)
			}
		}
		return full
	}
	return clean(value)
}

// clean turns what was cleared into null.
func clean(v any) any {
	switch v := v.(type) {
	case unset:
		return nil
	case doc:
		for name, inner := range v {
			v[name] = clean(inner)
		}
	case []any:
		for i, inner := range v {
			v[i] = clean(inner)
		}
	}
	return v
}

func mergeMetadata(d doc, value any) *Error {
	if _, ok := value.(unset); ok {
		d["metadata"] = doc{}
		return nil
	}
	had, _ := d["metadata"].(doc)
	merged := doc{}
	maps.Copy(merged, had)
	given, _ := value.(doc)
	for name, v := range given {
		switch {
		case utf8.RuneCountInString(name) > longestName:
			return invalid(inside("metadata", name), "", fmt.Sprintf("Metadata keys can be at most %d characters.", longestName))
		case utf8.RuneCountInString(text(v)) > longestValue:
			return invalid(inside("metadata", name), "", fmt.Sprintf("Metadata values can have up to %d characters, but you passed in a value that is %d characters.", longestValue, utf8.RuneCountInString(text(v))))
		case v == "" || v == unset{}:
			delete(merged, name)
		default:
			merged[name] = v
		}
	}
	if len(merged) > mostMetadata {
		return invalid("metadata", "", fmt.Sprintf("Metadata can have at most %d keys.", mostMetadata))
	}
	d["metadata"] = merged
	return nil
}
