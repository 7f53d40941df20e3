package stripe

import "time"

// dispute lets a cardholder dispute a charge.
func (t *tx) dispute(charge *row, reason string) *row {
	c := charge.doc()
	d := t.s.spec.fresh("dispute")
	d["amount"], d["charge"], d["payment_intent"], d["currency"], d["reason"], d["status"] = c["amount"], c["id"], c["payment_intent"], c["currency"], reason, "needs_response"
	d["is_charge_refundable"], d["metadata"] = false, doc{}
	details := t.s.spec.zero(&schema{Ref: "dispute_evidence_details"}).(doc)
	details["due_by"], details["has_evidence"], details["past_due"], details["submission_count"] = t.now.Add(7*24*time.Hour).Unix(), false, false, int64(0)
	d["evidence_details"] = details
	r := t.insert("dispute", d)
	txn := t.money("adjustment", -c["amount"].(int64), 1500, c["currency"], r.id, "dispute")
	t.set(r, func(d doc) { d["balance_transactions"] = []any{t.s.whole("balance_transaction", txn)} })
	t.tell("charge.dispute.created", r)
	t.change(charge, func(d doc) { d["disputed"] = true }, "charge.updated")
	return r
}

// closeDispute decides a dispute.
func (t *tx) closeDispute(r *row, status string) doc {
	return t.change(r, func(d doc) { d["status"] = status }, "charge.dispute.closed")
}

func updateDispute(q *request) (any, *Error) {
	r, err := q.s.get("dispute", q.vars["id"])
	if err != nil {
		return nil, err
	}
	evidence, _ := q.params["evidence"].(doc)
	return q.edit(r, func(d doc) {
		kept, _ := d["evidence"].(doc)
		for name, value := range evidence {
			kept[name] = clean(value)
		}
		details, _ := d["evidence_details"].(doc)
		details["has_evidence"] = len(evidence) > 0 || details["has_evidence"] == true
		if q.params["submit"] != false && len(evidence) > 0 {
			d["status"], details["submission_count"] = "under_review", details["submission_count"].(int64)+1
		}
	})
}

func closeDispute(q *request) (any, *Error) {
	r, err := q.s.get("dispute", q.vars["id"])
	if err != nil {
		return nil, err
	}
	if status := r.doc()["status"]; status == "lost" || status == "won" {
		return nil, invalid("", "", "This dispute is already closed.")
	}
	return q.tx().closeDispute(r, "lost"), nil
}
