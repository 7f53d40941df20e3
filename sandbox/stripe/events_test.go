package stripe_test

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"lockstep/sandbox"
	"lockstep/sandbox/stripe"
)

func (a *account) newestEvent(kind string) object {
	a.t.Helper()
	list := data(a.get("/v1/events?limit=1&type=" + kind))
	if len(list) == 0 {
		a.t.Fatalf("no event %s", kind)
	}
	return list[0]
}

func payload(event object) object { return event["data"].(object)["object"].(object) }

func TestAWriteMakesItsEventWithWhatWasBefore(t *testing.T) {
	t.Parallel()
	a := open(t, stripe.Options{Customers: -1, Version: newest, Unlimited: true})
	made := a.post("/v1/customers", "name=Ana&metadata[a]=1&metadata[b]=2")
	id := made["id"].(string)
	if diff := cmp.Diff(made, payload(a.newestEvent("customer.created"))); diff != "" {
		t.Error(diff)
	}
	w := a.do("POST", "/v1/customers/"+id, "name=Bea&metadata[a]=9&metadata[c]=3&email=b@x.example", header{"Idempotency-Key": "k1"})
	event := a.newestEvent("customer.updated")
	want := object{"name": "Ana", "email": nil, "metadata": object{"a": "1", "c": nil}}
	if diff := cmp.Diff(want, event["data"].(object)["previous_attributes"]); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff(object{"id": w.header.Get("Request-Id"), "idempotency_key": "k1"}, event["request"]); diff != "" {
		t.Error(diff)
	}
	before := a.Collections()
	a.post("/v1/customers/"+id, "name=Bea")
	if diff := cmp.Diff(before, a.Collections()); diff != "" {
		t.Errorf("an update of nothing made an event: %s", diff)
	}
	a.must("DELETE", "/v1/customers/"+id, "")
	if got := payload(a.newestEvent("customer.deleted")); got["id"] != id || got["name"] != "Bea" {
		t.Errorf("deleted: %v", got)
	}
}

func TestAChangeOfAnItemThatASubscriptionDoesNotShowIsAnEvent(t *testing.T) {
	t.Parallel()
	a := open(t, stripe.Options{Customers: -1, Version: newest, Unlimited: true})
	customer, product := a.post("/v1/customers", "name=Ana")["id"].(string), a.post("/v1/products", "name=Tea")["id"].(string)
	price := a.post("/v1/prices", "currency=usd&unit_amount=500&recurring[interval]=month&product="+product)["id"].(string)
	form := "customer=" + customer
	for i := range 12 {
		form += fmt.Sprintf("&items[%d][price]=%s", i, price)
	}
	sub := a.post("/v1/subscriptions", form)["id"].(string)
	items := a.all("/v1/subscription_items?subscription=" + sub)
	hidden := items[len(items)-1]["id"].(string)
	for i, update := range []struct{ path, form string }{
		{"/v1/subscription_items/" + hidden, "quantity=7"},
		{"/v1/subscriptions/" + sub, "items[0][id]=" + hidden + "&items[0][quantity]=8"},
	} {
		for range 2 { // the second time nothing changes
			a.post(update.path, update.form)
			if got := data(a.get("/v1/events?type=customer.subscription.updated")); len(got) != i+1 {
				t.Errorf("%s %s: %d events, want %d", update.path, update.form, len(got), i+1)
			}
		}
	}
}

func TestTheEventLogTellsTheWholeStory(t *testing.T) {
	t.Parallel()
	a := open(t, stripe.Options{Customers: -1, Version: newest, Unlimited: true})
	a.Core().Step(900)
	kinds := []string{"customer", "product", "price", "coupon", "subscription", "charge", "invoiceitem", "payout", "credit_note", "tax_rate", "setup_intent"}
	replayed := map[string]map[string]object{}
	events := a.all("/v1/events")
	slices.Reverse(events)
	for _, e := range events {
		o := payload(e)
		kind, _ := o["object"].(string)
		if replayed[kind] == nil {
			replayed[kind] = map[string]object{}
		}
		id, _ := o["id"].(string)
		if strings.HasSuffix(e["type"].(string), ".deleted") && kind != "subscription" {
			delete(replayed[kind], id)
			continue
		}
		// The order within a second is none: the newest of it is what is there.
		replayed[kind][id] = o
	}
	for _, kind := range kinds {
		for _, id := range a.truth(kind) {
			if replayed[kind][id] == nil {
				t.Errorf("%s %s has no event", kind, id)
			}
		}
	}
}

func TestEventsKeepTheVersionTheyHappenedIn(t *testing.T) {
	t.Parallel()
	a := open(t, stripe.Options{Customers: -1, Version: "2024-06-20", Unlimited: true})
	customer := a.post("/v1/customers", "payment_method=pm_card_visa")["id"].(string)
	price := a.post("/v1/prices", "currency=usd&unit_amount=100&recurring[interval]=month&product_data[name]=P")["id"].(string)
	subscribe := func() object {
		return a.post("/v1/subscriptions", "customer="+customer+"&items[0][price]="+price)
	}
	sub := subscribe()
	if _, old := sub["current_period_end"]; old || sub["billing_mode"] == nil {
		t.Errorf("asked for %s, came %v", newest, sub)
	}
	event := a.newestEvent("customer.subscription.created")
	old := payload(event)
	if event["api_version"] != "2024-06-20" || old["current_period_end"] == nil || old["plan"] == nil || old["billing_mode"] != nil {
		t.Errorf("event at %v: %v", event["api_version"], old)
	}
	invoice := payload(a.newestEvent("invoice.paid"))
	if invoice["subscription"] != sub["id"] || invoice["paid"] != true || invoice["charge"] == nil || invoice["parent"] != nil {
		t.Errorf("invoice of then: %v", invoice)
	}
	if err := a.SetVersion(newest); err != nil {
		t.Fatal(err)
	}
	subscribe()
	if event := a.newestEvent("customer.subscription.created"); event["api_version"] != newest || payload(event)["billing_mode"] == nil {
		t.Errorf("event after the upgrade: %v", event)
	}
	w := a.do("GET", "/v1/subscriptions/"+sub["id"].(string), "", header{"Stripe-Version": "2024-06-20"})
	if w.header.Get("Stripe-Version") != "2024-06-20" || w.body["current_period_end"] == nil {
		t.Errorf("at the old version: %v", w.body)
	}
}

func TestEventsGoBackThirtyDaysAndACursorAgesOut(t *testing.T) {
	t.Parallel()
	a := open(t, stripe.Options{Customers: 100, Unlimited: true})
	all := a.all("/v1/events")
	now := a.Core().Clock().Now()
	oldest := time.Unix(int64(all[len(all)-1]["created"].(float64)), 0)
	if age := now.Sub(oldest); age > 30*24*time.Hour || age < 29*24*time.Hour {
		t.Errorf("the oldest is %v old", age)
	}
	cursor := all[len(all)/2]["id"].(string)
	a.get("/v1/events?ending_before=" + cursor)
	a.Core().Clock().Shift(20 * 24 * time.Hour)
	e := a.refused(http.StatusBadRequest, "GET", "/v1/events?ending_before="+cursor, "")
	if !strings.Contains(e["message"].(string), "is no longer available because it's aged out of our retention policy") {
		t.Errorf("%v", e)
	}
	// The same when it is not only too old to be shown but forgotten.
	a.Core().Step(1)
	a.refused(http.StatusBadRequest, "GET", "/v1/events?ending_before="+cursor, "")
	if e := a.refused(http.StatusBadRequest, "GET", "/v1/events?ending_before=evt_1nonsense", ""); e["code"] != "resource_missing" {
		t.Errorf("never was: %v", e)
	}
}

func TestEventsAreFilteredByTypeAndTime(t *testing.T) {
	t.Parallel()
	a := open(t, stripe.Options{Customers: 60, Unlimited: true})
	all := a.all("/v1/events")
	count := func(keep func(string) bool) (n int) {
		for _, e := range all {
			if keep(e["type"].(string)) {
				n++
			}
		}
		return n
	}
	for query, keep := range map[string]func(string) bool{
		"type=invoice.*":                           func(k string) bool { return strings.HasPrefix(k, "invoice.") },
		"type=invoice.paid":                        func(k string) bool { return k == "invoice.paid" },
		"types[]=invoice.paid&types[]=charge.*":    func(k string) bool { return k == "invoice.paid" || strings.HasPrefix(k, "charge.") },
		"types[0]=customer.created&types[1]=x.y.z": func(k string) bool { return k == "customer.created" },
	} {
		if got, want := len(a.all("/v1/events?"+query)), count(keep); got != want || want == 0 {
			t.Errorf("%s: %d, want %d", query, got, want)
		}
	}
	many := ""
	for i := range 21 {
		many += fmt.Sprintf("types[]=a.b%d&", i)
	}
	a.refused(http.StatusBadRequest, "GET", "/v1/events?"+many, "")
	a.refused(http.StatusBadRequest, "GET", "/v1/events?expand[]=data.data.object.customer", "")
}

func TestLateEventsAppearBehindNewerOnesThatWereReadAlready(t *testing.T) {
	t.Parallel()
	late := stripe.Lateness{Events: 0.5, EventMax: sandbox.Duration(60 * time.Second), Lists: 0.5, ListMax: sandbox.Duration(60 * time.Second)}
	clock := sandbox.NewClock()
	clock.Scale(0)
	a := open(t, stripe.Options{Customers: -1, Unlimited: true, Clock: clock})
	a.SetLateness(late)
	var made []string
	for i := range 40 {
		made = append(made, a.post("/v1/customers", fmt.Sprintf("name=%d", i))["id"].(string))
		clock.Shift(time.Second)
	}
	slices.Reverse(made)
	for _, path := range []string{"/v1/customers", "/v1/events?type=customer.created"} {
		first := ids(a.all(path))
		if len(first) >= 40 || len(first) < 10 {
			t.Fatalf("%s shows %d of 40 at once", path, len(first))
		}
	}
	for _, id := range made {
		a.get("/v1/customers/" + id)
	}
	newest := ids(a.all("/v1/events?type=customer.created"))[0]
	clock.Shift(61 * time.Second)
	if got := ids(a.all("/v1/customers")); !slices.Equal(got, made) {
		t.Errorf("in the end %d of 40", len(got))
	}
	if got := len(a.all("/v1/events?type=customer.created")); got != 40 {
		t.Errorf("in the end %d events of 40", got)
	}
	// Who reads on from the newest it saw misses the late ones: that is the point.
	if got := len(a.all("/v1/events?type=customer.created&ending_before=" + newest)); got >= 20 {
		t.Errorf("%d came after the newest", got)
	}
}

func TestEventsOfOneSecondAreInNoOrder(t *testing.T) {
	t.Parallel()
	clock := sandbox.NewClock()
	clock.Scale(0)
	a := open(t, stripe.Options{Customers: -1, Unlimited: true, Clock: clock, Version: newest})
	var made []string
	for i := range 20 {
		made = append(made, a.post("/v1/customers", fmt.Sprintf("name=%d", i))["id"].(string))
	}
	var listed []string
	for _, e := range a.all("/v1/events") {
		listed = append(listed, payload(e)["id"].(string))
	}
	backwards := slices.Clone(made)
	slices.Reverse(backwards)
	if slices.Equal(listed, made) || slices.Equal(listed, backwards) {
		t.Error("they are in order")
	}
	slices.Sort(listed)
	slices.Sort(made)
	if diff := cmp.Diff(made, listed); diff != "" {
		t.Error(diff)
	}
}
