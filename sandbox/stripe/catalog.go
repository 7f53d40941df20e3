package stripe

import (
	"maps"
	"strconv"
	"strings"
)

func catalogRoutes() map[string]handler {
	return map[string]handler{
		"POST /v1/products":           createProduct,
		"POST /v1/products/{id}":      updateProduct,
		"DELETE /v1/products/{id}":    deleteProduct,
		"POST /v1/prices":             createPrice,
		"POST /v1/prices/{price}":     updatePrice,
		"POST /v1/plans":              createPlan,
		"DELETE /v1/plans/{plan}":     deletePlan,
		"POST /v1/coupons":            createCoupon,
		"DELETE /v1/coupons/{coupon}": remover("coupon"),
		"POST /v1/promotion_codes":    createPromotionCode,
		"POST /v1/tax_rates":          createTaxRate,
	}
}

func createProduct(q *request) (any, *Error) {
	d, err := q.newProduct(q.params)
	if err != nil {
		return nil, err
	}
	if id := text(q.params["id"]); id != "" && q.s.tables["product"].find(id) != nil {
		return nil, invalid("id", "resource_already_exists", "Product already exists.")
	}
	var price doc
	if data, ok := q.params["default_price_data"].(doc); ok {
		if price, err = q.s.newPrice(data); err != nil {
			return nil, err
		}
	}
	t := q.tx()
	r := t.create("product", d)
	if price != nil {
		id := t.price(r.id, price).id
		return t.change(r, func(d doc) { d["default_price"] = id }), nil
	}
	return r.doc(), nil
}

func updateProduct(q *request) (any, *Error) {
	r, err := q.s.get("product", q.vars["id"])
	if err != nil {
		return nil, err
	}
	return q.edit(r, func(d doc) { d["updated"] = q.now.Unix() })
}

func deleteProduct(q *request) (any, *Error) {
	r, err := q.s.get("product", q.vars["id"])
	if err != nil {
		return nil, err
	}
	if len(q.s.children("price", "product", r.id)) > 0 {
		return nil, invalid("", "", "This product cannot be deleted because it has one or more user-created prices.")
	}
	return q.tx().remove(r), nil
}

// newPrice reads the parameters of a price.
func (s *Sandbox) newPrice(params doc) (doc, *Error) {
	d := s.spec.fresh("price")
	d["active"], d["billing_scheme"], d["tax_behavior"], d["type"], d["metadata"] = true, "per_unit", "unspecified", "one_time", doc{}
	if err := s.assign("price", d, params); err != nil {
		return nil, err
	}
	if err := setAmount(d, params, "unit_amount"); err != nil {
		return nil, err
	}
	d["custom_unit_amount"] = nil
	if recurring, ok := params["recurring"].(doc); ok {
		d["type"] = "recurring"
		d["recurring"] = doc{"interval": recurring["interval"], "interval_count": orOne(recurring["interval_count"]), "meter": recurring["meter"],
			"usage_type": orText(recurring["usage_type"], "licensed")}
	}
	return d, nil
}

// price makes a price, and the plan that Stripe makes of every recurring one.
func (t *tx) price(product string, d doc) *row {
	d["product"] = product
	r := t.create("price", d)
	if plan, ok := planOf(r.doc()).(doc); ok {
		t.create("plan", plan)
	}
	return r
}

// newProduct reads the parameters of a product.
func (q *request) newProduct(params doc) (doc, *Error) {
	d := q.s.spec.fresh("product")
	d["active"], d["type"], d["metadata"], d["updated"] = true, "service", doc{}, q.now.Unix()
	return d, q.s.assign("product", d, params)
}

// setAmount sets an amount and its decimal from either parameter.
func setAmount(d, params doc, name string) *Error {
	amount, whole := params[name].(int64)
	decimal := text(params[name+"_decimal"])
	switch {
	case whole && amount < 0:
		return invalid(name, "parameter_invalid_integer", "This value must be greater than or equal to 0.")
	case whole:
		decimal = strconv.FormatInt(amount, 10)
	case decimal == "":
		amount, decimal = 0, "0"
	default:
		f, err := strconv.ParseFloat(decimal, 64)
		if err != nil {
			return invalid(name+"_decimal", "", "Invalid decimal: "+decimal)
		}
		d[name], d[name+"_decimal"] = nil, decimal
		if f == float64(int64(f)) {
			d[name] = int64(f)
		}
		return nil
	}
	d[name], d[name+"_decimal"] = amount, decimal
	return nil
}

func orOne(v any) any {
	if v == nil {
		return int64(1)
	}
	return v
}

func orText(v any, other string) any {
	if v == nil || v == "" {
		return other
	}
	return v
}

// planOf is a recurring price as a plan, which is the same thing under an older name.
func planOf(price any) any {
	p, ok := price.(doc)
	recurring, isPlan := p["recurring"].(doc)
	if !ok || !isPlan {
		return nil
	}
	return doc{
		"id": p["id"], "object": "plan", "active": p["active"], "amount": p["unit_amount"], "amount_decimal": p["unit_amount_decimal"],
		"billing_scheme": p["billing_scheme"], "created": p["created"], "currency": p["currency"], "interval": recurring["interval"],
		"interval_count": recurring["interval_count"], "livemode": false, "metadata": p["metadata"], "meter": nil, "nickname": p["nickname"],
		"product": p["product"], "tiers_mode": nil, "transform_usage": nil, "trial_period_days": nil, "usage_type": recurring["usage_type"],
	}
}

func createPrice(q *request) (any, *Error) {
	price, err := q.s.newPrice(q.params)
	if err != nil {
		return nil, err
	}
	t := q.tx()
	if data, ok := q.params["product_data"].(doc); ok {
		d, err := q.newProduct(data)
		if err != nil {
			return nil, err
		}
		return t.price(t.create("product", d).id, price).doc(), nil
	}
	product, err := q.s.named("product", "product", q.params)
	if err != nil {
		return nil, err
	}
	return t.price(product.id, price).doc(), nil
}

func updatePrice(q *request) (any, *Error) {
	r, err := q.s.get("price", q.vars["id"])
	if err != nil {
		return nil, err
	}
	d, err := q.edit(r, nil)
	if err != nil {
		return nil, err
	}
	q.tx().followPlan(r)
	return d, nil
}

// followPlan brings the plan of a price up to date.
func (t *tx) followPlan(price *row) {
	plan, err := t.s.get("plan", price.id)
	if err != nil {
		return
	}
	t.change(plan, func(d doc) {
		maps.Copy(d, planOf(price.doc()).(doc))
	})
}

func createPlan(q *request) (any, *Error) {
	params := doc{"currency": q.params["currency"], "recurring": doc{"interval": q.params["interval"], "interval_count": q.params["interval_count"]}}
	for from, to := range map[string]string{"amount": "unit_amount", "amount_decimal": "unit_amount_decimal", "nickname": "nickname", "metadata": "metadata", "active": "active"} {
		if v, ok := q.params[from]; ok {
			params[to] = v
		}
	}
	price, err := q.s.newPrice(params)
	if err != nil {
		return nil, err
	}
	t, product := q.tx(), text(q.params["product"])
	if data, ok := q.params["product"].(doc); ok {
		d, err := q.newProduct(data)
		if err != nil {
			return nil, err
		}
		product = t.create("product", d).id
	} else if _, err := q.s.get("product", product); err != nil {
		return nil, err.inParam("product")
	}
	return q.s.whole("plan", t.price(product, price).id), nil
}

func deletePlan(q *request) (any, *Error) {
	r, err := q.s.get("plan", q.vars["id"])
	if err != nil {
		return nil, err
	}
	t := q.tx()
	if price, err := q.s.get("price", r.id); err == nil {
		t.remove(price)
	}
	return t.remove(r), nil
}

func createCoupon(q *request) (any, *Error) {
	percent, off := q.params["percent_off"], q.params["amount_off"]
	if (percent == nil) == (off == nil) {
		return nil, invalid("percent_off", "parameter_missing", "Must provide percent_off or amount_off.")
	}
	if id := text(q.params["id"]); id != "" && q.s.tables["coupon"].byID[id] != nil && !q.s.tables["coupon"].byID[id].deleted {
		return nil, invalid("id", "resource_already_exists", "Coupon already exists.")
	}
	d := q.s.spec.fresh("coupon")
	d["duration"], d["valid"], d["metadata"], d["percent_off"] = "once", true, doc{}, clean(percent)
	if err := q.s.assign("coupon", d, q.params); err != nil {
		return nil, err
	}
	return q.tx().create("coupon", d).doc(), nil
}

func createPromotionCode(q *request) (any, *Error) {
	coupon, err := q.s.get("coupon", text(dig(q.params, []string{"promotion", "coupon"})))
	if err != nil {
		return nil, err.inParam("promotion[coupon]")
	}
	d := q.s.spec.fresh("promotion_code")
	dice := q.tx().dice("promotion_code")
	d["active"], d["metadata"], d["code"] = true, doc{}, strings.ToUpper(dice.Text(8))
	if err := q.s.assign("promotion_code", d, q.params); err != nil {
		return nil, err
	}
	d["promotion"] = doc{"type": "coupon", "coupon": coupon.id}
	return q.tx().create("promotion_code", d).doc(), nil
}

func createTaxRate(q *request) (any, *Error) {
	d := q.s.spec.fresh("tax_rate")
	d["active"], d["metadata"], d["rate_type"] = true, doc{}, "percentage"
	if err := q.s.assign("tax_rate", d, q.params); err != nil {
		return nil, err
	}
	d["effective_percentage"] = d["percentage"]
	return q.tx().create("tax_rate", d).doc(), nil
}
