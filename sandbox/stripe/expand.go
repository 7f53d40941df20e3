package stripe

import (
	"slices"
	"strings"
)

// deepestExpand is how many levels one may ask for; the "data" of lists are none.
const deepestExpand = 4

// show renders an answer at the request's version, with what it asked to expand.
func (q *request) show(d doc, answer *schema) (any, *Error) {
	d = q.s.atVersion(d, q.version)
	for _, path := range q.expand {
		parts := strings.Split(path, ".")
		depth := 0
		for _, part := range parts {
			if part != "data" {
				depth++
			}
		}
		if depth > deepestExpand {
			return nil, invalid("expand", "", "You cannot expand more than 4 levels of a property: "+path)
		}
		if err := q.expandPath(d, q.s.spec.object(answer), parts, path); err != nil {
			return nil, err
		}
	}
	return d, nil
}

// expandPath replaces the ids at a path below an object by what they stand for.
func (q *request) expandPath(v any, x *schema, parts []string, path string) *Error {
	if list, ok := v.([]any); ok {
		for _, element := range list {
			if err := q.expandPath(element, x, parts, path); err != nil {
				return err
			}
		}
		return nil
	}
	d, ok := v.(doc)
	if !ok || d["deleted"] == true {
		return nil
	}
	if known := q.s.spec.Schemas[text(d["object"])]; known != nil {
		x = known
	}
	name, rest := parts[0], parts[1:]
	var field *schema
	if x != nil {
		field = x.Properties[name]
	}
	value, present := d[name]
	if !present {
		if field == nil {
			return q.notExpandable(d, name, path)
		}
		value = q.include(d, name, field)
		d[name] = value
	}
	if field != nil && field.Expands == nil && !expandableInside(q.s.spec.resolve(field)) {
		return q.notExpandable(d, name, path)
	}
	d[name] = q.fetch(value, field)
	if len(rest) == 0 {
		return nil
	}
	return q.expandPath(d[name], q.s.spec.object(field), rest, path)
}

func (q *request) notExpandable(d doc, name, path string) *Error {
	hint := ""
	if d["object"] == "list" {
		hint = " You may want to try expanding 'data." + path + "' instead."
	}
	return invalid("expand", "", "This property cannot be expanded ("+name+")."+hint)
}

// expandableInside says whether a field that is no id may be part of a path.
func expandableInside(x *schema) bool {
	switch {
	case x == nil:
		return false
	case x.Type == "array":
		return x.Items != nil
	case len(x.AnyOf) > 0:
		return slices.ContainsFunc(x.AnyOf, func(o *schema) bool { return o.Ref != "" || o.Type == "object" })
	}
	return x.Type == "object"
}

// fetch replaces an id, or a list of them.
func (q *request) fetch(v any, field *schema) any {
	switch v := v.(type) {
	case string:
		return q.fetchOne(v, field)
	case []any:
		for i, element := range v {
			if id, ok := element.(string); ok {
				v[i] = q.fetchOne(id, field)
			}
		}
	}
	return v
}

func (q *request) fetchOne(id string, field *schema) any {
	for _, k := range q.s.kinds {
		if field != nil && len(field.Expands) > 0 && !slices.Contains(field.Expands, k.name) {
			continue
		}
		r := q.s.tables[k.name].find(id)
		if r == nil {
			continue
		}
		if r.deleted {
			return doc{"id": id, "object": k.name, "deleted": true}
		}
		return q.s.atVersion(r.doc(), q.version)
	}
	return id
}

// include makes a field that only comes when it is asked for.
func (q *request) include(d doc, name string, field *schema) any {
	id, s := text(d["id"]), q.s
	var rows []*row
	url := ""
	switch text(d["object"]) + "." + name {
	case "customer.subscriptions":
		rows, url = s.children("subscription", "customer", id), "/v1/customers/"+id+"/subscriptions"
		rows = slices.DeleteFunc(rows, func(r *row) bool { return canceled(r, doc{}) })
	case "charge.refunds":
		rows, url = s.children("refund", "charge", id), "/v1/charges/"+id+"/refunds"
	case "checkout.session.line_items":
		rows, url = s.children("item", "session", id), "/v1/checkout/sessions/"+id+"/line_items"
	case "invoice.payments":
		rows, url = s.children("invoice_payment", "invoice", id), "/v1/invoice_payments?invoice="+id
	case "customer.sources", "customer.tax_ids":
		url = "/v1/customers/" + id + "/" + name
	default:
		x := *s.spec.resolve(field)
		x.Nullable = false
		return s.spec.zero(&x)
	}
	return s.atVersion(s.nested(rows, url), q.version)
}
