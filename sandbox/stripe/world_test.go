package stripe_test

import (
	"encoding/json"
	"strings"
	"testing"

	"lockstep/sandbox/stripe"
)

// lists are the collections with a list of their own, by the object's name.
func lists() map[string]string {
	return map[string]string{
		"customer": "/v1/customers", "product": "/v1/products", "price": "/v1/prices", "plan": "/v1/plans", "coupon": "/v1/coupons",
		"promotion_code": "/v1/promotion_codes", "tax_rate": "/v1/tax_rates", "payment_method": "/v1/payment_methods", "setup_intent": "/v1/setup_intents",
		"subscription": "/v1/subscriptions?status=all", "invoice": "/v1/invoices", "invoiceitem": "/v1/invoiceitems", "invoice_payment": "/v1/invoice_payments",
		"payment_intent": "/v1/payment_intents", "charge": "/v1/charges", "refund": "/v1/refunds", "dispute": "/v1/disputes",
		"balance_transaction": "/v1/balance_transactions", "payout": "/v1/payouts", "credit_note": "/v1/credit_notes", "checkout.session": "/v1/checkout/sessions",
		"event": "/v1/events",
	}
}

func TestAWorldFillsEveryCollectionAndEveryAnswerIsAsStripeDescribesIt(t *testing.T) {
	t.Parallel()
	a := open(t, stripe.Options{Customers: 300, Unlimited: true})
	o := readOpenAPI(t)
	for name, path := range lists() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			bare, _, _ := strings.Cut(path, "?")
			page := a.get(path + map[bool]string{true: "&", false: "?"}[bare != path] + "limit=100")
			if len(data(page)) == 0 {
				t.Fatal("the world has none of them")
			}
			seen := map[string]bool{}
			for _, problem := range o.validate(name, o.Paths[bare]["get"].Answer, any(page)) {
				if problem = strings.TrimLeft(problem[strings.IndexByte(problem, ']')+1:], ""); !seen[problem] {
					seen[problem] = true
					t.Error(problem)
				}
			}
			one := data(page)[0]
			if got := a.get(bare + "/" + one["id"].(string)); text(got) != text(one) {
				t.Errorf("retrieved\n%s\nlisted\n%s", text(got), text(one))
			}
		})
	}
}

func text(v any) string {
	b, err := json.Marshal(v)
	if err != nil {
		return err.Error()
	}
	return string(b)
}
