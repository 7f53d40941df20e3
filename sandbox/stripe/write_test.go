package stripe_test

import (
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"lockstep/sandbox"
	"lockstep/sandbox/stripe"
)

func TestParametersAreReadInBothStylesOfBrackets(t *testing.T) {
	t.Parallel()
	a := open(t, stripe.Options{Customers: -1, Unlimited: true})
	for _, form := range []string{
		"preferred_locales[]=de&preferred_locales[]=fr&address[city]=Bern", "preferred_locales[0]=de&preferred_locales[1]=fr&address[city]=Bern",
		"preferred_locales%5B1%5D=fr&preferred_locales%5B0%5D=de&address%5Bcity%5D=Bern",
	} {
		got := a.post("/v1/customers", form)
		if diff := cmp.Diff([]any{"de", "fr"}, got["preferred_locales"]); diff != "" || got["address"].(object)["city"] != "Bern" {
			t.Errorf("%s: %v", form, got)
		}
	}
	got := a.post("/v1/customers", "name=%C3%89mile+%26+co&metadata[a%5Bb]=x%3Dy")
	if got["name"] != "Émile & co" {
		t.Errorf("name %q", got["name"])
	}
}

func TestParametersThatStripeWouldRefuseAreRefusedInItsWords(t *testing.T) {
	t.Parallel()
	a := open(t, stripe.Options{Customers: -1, Unlimited: true})
	for request, want := range map[string]object{
		"POST /v1/customers nonsense=1":                                  {"code": "parameter_unknown", "param": "nonsense"},
		"POST /v1/customers address[planet]=x":                           {"code": "parameter_unknown", "param": "address[planet]"},
		"POST /v1/customers balance=ten":                                 {"code": "parameter_invalid_integer", "param": "balance"},
		"POST /v1/customers tax_exempt=perhaps":                          {"param": "tax_exempt"},
		"POST /v1/customers email=nobody":                                {"code": "email_invalid", "param": "email"},
		"POST /v1/products active=true":                                  {"code": "parameter_missing", "param": "name"},
		"POST /v1/prices currency=usd&product=prod_x":                    {"code": "resource_missing", "param": "product"},
		"POST /v1/subscriptions customer=cus_x&items[0][price]=p":        {"code": "resource_missing", "param": "customer"},
		"POST /v1/payment_intents amount=0&currency=usd":                 {"code": "parameter_invalid_integer", "param": "amount"},
		"POST /v1/coupons duration=once":                                 {"code": "parameter_missing"},
		"POST /v1/customers metadata[" + strings.Repeat("k", 41) + "]=1": {"param": "metadata[" + strings.Repeat("k", 41) + "]"},
		"GET /v1/customers?created[gte]=yesterday":                       {"code": "parameter_invalid_integer", "param": "created[gte]"},
		"GET /v1/subscription_items":                                     {"code": "parameter_missing", "param": "subscription"},
		"GET /v1/charges?expand[]=customer":                              {"param": "expand"},
		"GET /v1/charges?expand[]=data.customer.a.b.c.d":                 {"param": "expand"},
	} {
		parts := append(strings.SplitN(request, " ", 3), "")
		e := a.refused(http.StatusBadRequest, parts[0], parts[1], parts[2])
		for field, value := range want {
			if e[field] != value {
				t.Errorf("%s: %s is %v, want %v (%v)", request, field, e[field], value, e["message"])
			}
		}
		if e["type"] != "invalid_request_error" || e["request_log_url"] == nil {
			t.Errorf("%s: %v", request, e)
		}
	}
	if got := len(a.all("/v1/customers")); got != 0 {
		t.Errorf("%d customers were made", got)
	}
	a.refused(http.StatusNotFound, "GET", "/v1/nonsense", "")
	a.refused(http.StatusNotFound, "DELETE", "/v1/charges/ch_1", "")
	if w := a.do("POST", "/v1/customers", "{}", header{"Content-Type": "application/json"}); w.status != http.StatusBadRequest {
		t.Errorf("JSON: %d", w.status)
	}
}

func TestAnEmptyValueClearsAndMetadataIsMerged(t *testing.T) {
	t.Parallel()
	a := open(t, stripe.Options{Customers: -1, Unlimited: true})
	id := a.post("/v1/customers", "name=A&phone=1&metadata[a]=1&metadata[b]=2&address[city]=Bern&shipping[name]=S&shipping[address][city]=Bern")["id"].(string)
	got := a.post("/v1/customers/"+id, "phone=&metadata[a]=&metadata[c]=3&address=")
	if got["name"] != "A" || got["phone"] != nil && got["phone"] != "" || got["address"] != nil {
		t.Errorf("%v", got)
	}
	if diff := cmp.Diff(object{"b": "2", "c": "3"}, got["metadata"]); diff != "" {
		t.Error(diff)
	}
	if got := a.post("/v1/customers/"+id, "metadata="); len(got["metadata"].(object)) != 0 {
		t.Errorf("metadata %v", got["metadata"])
	}
}

func TestAnIdempotencyKeyPerformsOnce(t *testing.T) {
	t.Parallel()
	a := open(t, stripe.Options{Customers: -1, Unlimited: true})
	key := header{"Idempotency-Key": "once"}
	first, second := a.do("POST", "/v1/customers", "name=A", key), a.do("POST", "/v1/customers", "name=A", key)
	if first.text != second.text || second.header.Get("Idempotent-Replayed") != "true" || second.header.Get("Original-Request") != first.header.Get("Request-Id") {
		t.Errorf("%s then %s %v", first.text, second.text, second.header)
	}
	if w := a.do("POST", "/v1/customers", "name=B", key); w.status != 400 || w.body["error"].(object)["type"] != "idempotency_error" {
		t.Errorf("other parameters: %d %s", w.status, w.text)
	}
	// What was refused is not kept: corrected it may be sent again.
	again := header{"Idempotency-Key": "again"}
	if w := a.do("POST", "/v1/customers", "email=wrong", again); w.status != 400 {
		t.Errorf("%d", w.status)
	}
	if w := a.do("POST", "/v1/customers", "email=a@b.example", again); w.status != 200 {
		t.Errorf("corrected: %d %s", w.status, w.text)
	}
	// A declined payment is kept, as any result is.
	declined := header{"Idempotency-Key": "declined"}
	form := "amount=100&currency=usd&payment_method=pm_card_chargeDeclined&confirm=true"
	one, two := a.do("POST", "/v1/payment_intents", form, declined), a.do("POST", "/v1/payment_intents", form, declined)
	if one.status != 402 || two.status != 402 || one.text != two.text || len(a.truth("payment_intent")) != 1 {
		t.Errorf("%d %d, %d intents", one.status, two.status, len(a.truth("payment_intent")))
	}
	a.Core().Clock().Shift(25 * time.Hour)
	if w := a.do("POST", "/v1/customers", "name=A", key); w.header.Get("Idempotent-Replayed") != "" || w.text == first.text {
		t.Error("it is kept for more than a day")
	}
	if w := a.do("POST", "/v1/customers", "name=A", header{"Idempotency-Key": strings.Repeat("k", 256)}); w.status != 400 {
		t.Errorf("a long key: %d", w.status)
	}
}

func TestAWriteWhoseAnswerIsLostCanBeAskedForByItsKey(t *testing.T) {
	t.Parallel()
	a := open(t, stripe.Options{Customers: -1, Unlimited: true})
	if err := a.Core().Faults().Add(sandbox.Fault{Kind: "status", Status: 500, After: true, Method: "POST", Nth: 1}); err != nil {
		t.Fatal(err)
	}
	key := header{"Idempotency-Key": "lost"}
	if w := a.do("POST", "/v1/customers", "name=A", key); w.status != 500 {
		t.Fatalf("%d", w.status)
	}
	if w := a.do("POST", "/v1/customers", "name=A", key); w.status != 200 || len(a.truth("customer")) != 1 {
		t.Errorf("%d, %d customers", w.status, len(a.truth("customer")))
	}
}

func TestDeletingACustomerCancelsWhatHePaysFor(t *testing.T) {
	t.Parallel()
	a := open(t, stripe.Options{Customers: -1, Unlimited: true})
	customer := a.post("/v1/customers", "payment_method=pm_card_visa")["id"].(string)
	price := a.post("/v1/prices", "currency=usd&unit_amount=100&recurring[interval]=month&product_data[name]=P")["id"].(string)
	sub := a.post("/v1/subscriptions", "customer="+customer+"&items[0][price]="+price)["id"].(string)
	if got := a.must("DELETE", "/v1/customers/"+customer, ""); text(got) != fmt.Sprintf(`{"deleted":true,"id":%q,"object":"customer"}`, customer) {
		t.Errorf("%s", text(got))
	}
	if got := a.get("/v1/subscriptions/" + sub); got["status"] != "canceled" {
		t.Errorf("subscription %v", got["status"])
	}
	a.newestEvent("customer.subscription.deleted")
	a.refused(http.StatusNotFound, "POST", "/v1/customers/"+customer, "name=X")
	a.refused(http.StatusBadRequest, "POST", "/v1/invoices", "customer="+customer)
}

func TestMoneyAddsUp(t *testing.T) {
	t.Parallel()
	a := open(t, stripe.Options{Customers: 80, Unlimited: true})
	sum := 0.0
	for _, one := range a.all("/v1/balance_transactions") {
		sum += one["net"].(float64)
	}
	balance := a.get("/v1/balance")["available"].([]any)[0].(object)["amount"]
	if balance != sum {
		t.Errorf("balance %v, the transactions sum up to %v", balance, sum)
	}
	for _, c := range a.all("/v1/charges") {
		refunded := 0.0
		for _, r := range a.all("/v1/refunds?charge=" + c["id"].(string)) {
			refunded += r["amount"].(float64)
		}
		if c["amount_refunded"] != refunded {
			t.Errorf("%s: refunded %v, its refunds sum up to %v", c["id"], c["amount_refunded"], refunded)
		}
	}
	for _, i := range a.all("/v1/invoices") {
		total := 0.0
		for _, line := range a.all("/v1/invoices/" + i["id"].(string) + "/lines") {
			total += line["amount"].(float64)
		}
		if i["total"] != total {
			t.Errorf("%s: total %v, its lines %v", i["id"], i["total"], total)
		}
	}
}

func TestUpcomingInvoicesAreComputedAndHaveNoLife(t *testing.T) {
	t.Parallel()
	a := open(t, stripe.Options{Customers: -1, Unlimited: true})
	customer := a.post("/v1/customers", "payment_method=pm_card_visa")["id"].(string)
	price := a.post("/v1/prices", "currency=usd&unit_amount=700&recurring[interval]=month&product_data[name]=P")["id"].(string)
	sub := a.post("/v1/subscriptions", "customer="+customer+"&items[0][price]="+price+"&items[0][quantity]=3")["id"].(string)
	a.post("/v1/invoiceitems", "customer="+customer+"&amount=50&currency=usd")
	before := a.Collections()
	got := a.post("/v1/invoices/create_preview", "customer="+customer)
	if got["amount_due"] != 2150.0 || !strings.HasPrefix(data(got["lines"].(object))[0]["id"].(string), "il_tmp_") {
		t.Errorf("%v", got)
	}
	if diff := cmp.Diff(before, a.Collections()); diff != "" {
		t.Errorf("it left something: %s", diff)
	}
	o := readOpenAPI(t)
	for _, problem := range o.validate("preview", o.Schemas["invoice"], any(got)) {
		t.Error(problem)
	}
	a.must("DELETE", "/v1/subscriptions/"+sub, "")
	if e := a.refused(http.StatusNotFound, "POST", "/v1/invoices/create_preview", "customer="+customer); e["code"] != "invoice_upcoming_none" {
		t.Errorf("%v", e)
	}
}

func TestReadsAndWritesAndLifeGoOnTogether(t *testing.T) {
	t.Parallel()
	a := open(t, stripe.Options{Customers: 10, Bulk: 1000, Pace: 200, Unlimited: true})
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			for j := range 12 {
				switch (i + j) % 4 {
				case 0:
					a.post("/v1/customers", fmt.Sprintf("name=%d-%d", i, j))
				case 1:
					a.get("/v1/events?limit=100")
				case 2:
					a.get("/v1/customers?limit=100&expand[]=data.subscriptions")
				default:
					for _, id := range a.truth("invoice")[:1] {
						a.get("/v1/invoices/" + id + "?expand[]=customer")
					}
				}
			}
		})
	}
	wg.Wait()
}
