package stripe_test

import (
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"lockstep/sandbox"
	"lockstep/sandbox/stripe"
)

// truth returns the ids of what exists, newest first.
func (a *account) truth(collection string) []string {
	a.t.Helper()
	records, ok := a.Records(collection)
	if !ok {
		a.t.Fatalf("no collection %s", collection)
	}
	var list []string
	for id := range records {
		list = append(list, id)
	}
	slices.Reverse(list)
	return list
}

func TestEveryListPagesThroughAllThereIsNewestFirst(t *testing.T) {
	t.Parallel()
	a := open(t, stripe.Options{Customers: 60, Unlimited: true})
	for name, path := range lists() {
		if name == "price" {
			continue // has a test of its own: the list hides
		}
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			want := a.truth(name)
			join := map[bool]string{true: "&", false: "?"}[strings.Contains(path, "?")]
			for _, limit := range []int{1, 7, 100} {
				var forth []string
				for after, more := "", true; more; {
					page := a.get(fmt.Sprintf("%s%slimit=%d%s", path, join, limit, after))
					forth = append(forth, ids(data(page))...)
					if more = page["has_more"] == true; more {
						after = "&starting_after=" + url.QueryEscape(forth[len(forth)-1])
					}
				}
				if diff := cmp.Diff(want, forth); diff != "" {
					t.Errorf("limit %d: %s", limit, diff)
				}
			}
			back := []string{want[len(want)-1]}
			for more := true; more; {
				page := a.get(fmt.Sprintf("%s%slimit=9&ending_before=%s", path, join, url.QueryEscape(back[0])))
				back = append(ids(data(page)), back...)
				more = page["has_more"] == true
			}
			if diff := cmp.Diff(want, back); diff != "" {
				t.Errorf("backwards: %s", diff)
			}
		})
	}
}

func TestAPageIsTenUnlessTheCallerSaysOneToAHundred(t *testing.T) {
	t.Parallel()
	a := open(t, stripe.Options{Customers: -1, Bulk: 500, Unlimited: true})
	for query, want := range map[string]int{"": 10, "?limit=1": 1, "?limit=100": 100} {
		if got := len(data(a.get("/v1/customers" + query))); got != want {
			t.Errorf("%q: %d, want %d", query, got, want)
		}
	}
	for _, limit := range []string{"0", "101", "-1", "x"} {
		if e := a.refused(http.StatusBadRequest, "GET", "/v1/customers?limit="+limit, ""); e["param"] != "limit" {
			t.Errorf("limit %s: %v", limit, e)
		}
	}
	e := a.refused(http.StatusBadRequest, "GET", "/v1/customers?starting_after=cus_nobody", "")
	if e["code"] != "resource_missing" || e["param"] != "starting_after" {
		t.Errorf("unknown cursor: %v", e)
	}
	a.refused(http.StatusBadRequest, "GET", "/v1/customers?starting_after=a&ending_before=b", "")
}

func TestCreatedNarrowsAList(t *testing.T) {
	t.Parallel()
	a := open(t, stripe.Options{Customers: 40, Bulk: 1000, Unlimited: true})
	all := a.all("/v1/customers")
	at := func(i int) int64 { return int64(all[i]["created"].(float64)) }
	for _, i := range []int{0, 5, len(all) / 2, len(all) - 1} {
		for op, keep := range map[string]func(int64) bool{
			"[gte]": func(c int64) bool { return c >= at(i) }, "[gt]": func(c int64) bool { return c > at(i) },
			"[lte]": func(c int64) bool { return c <= at(i) }, "[lt]": func(c int64) bool { return c < at(i) }, "": func(c int64) bool { return c == at(i) },
		} {
			var want []string
			for j := range all {
				if keep(at(j)) {
					want = append(want, all[j]["id"].(string))
				}
			}
			got := ids(a.all(fmt.Sprintf("/v1/customers?created%s=%d", op, at(i))))
			if !slices.Equal(got, want) {
				t.Errorf("created%s at %d: %d, want %d", op, i, len(got), len(want))
			}
		}
	}
}

func TestListsHideWhatStripesHide(t *testing.T) {
	t.Parallel()
	a := open(t, stripe.Options{Customers: 80, Unlimited: true})
	prices, subs := a.truth("price"), a.truth("subscription")
	active, inactive := a.all("/v1/prices"), a.all("/v1/prices?active=false")
	if len(inactive) == 0 || len(active)+len(inactive) != len(prices) {
		t.Errorf("prices: %d active, %d inactive of %d", len(active), len(inactive), len(prices))
	}
	shown, all, gone := a.all("/v1/subscriptions"), a.all("/v1/subscriptions?status=all"), a.all("/v1/subscriptions?status=canceled")
	if len(gone) == 0 || len(all) != len(subs) || len(shown)+len(gone) != len(subs) {
		t.Errorf("subscriptions: %d shown, %d all, %d canceled of %d", len(shown), len(all), len(gone), len(subs))
	}
	for _, s := range shown {
		if s["status"] == "canceled" {
			t.Errorf("%s is canceled and shown", s["id"])
		}
	}
}

func TestFiltersKeepWhatTheyName(t *testing.T) {
	t.Parallel()
	a := open(t, stripe.Options{Customers: 60, Unlimited: true})
	for path, c := range map[string]struct{ field, query string }{
		"/v1/charges": {"customer", "customer"}, "/v1/invoices": {"status", "status"}, "/v1/payment_intents": {"customer", "customer"},
		"/v1/refunds": {"charge", "charge"}, "/v1/balance_transactions": {"type", "type"}, "/v1/customers": {"email", "email"},
		"/v1/prices": {"product", "product"}, "/v1/payment_methods": {"customer", "customer"},
	} {
		all := a.all(path)
		var value string
		for _, one := range all {
			if value, _ = one[c.field].(string); value != "" {
				break
			}
		}
		var want []string
		for _, one := range all {
			if one[c.field] == value {
				want = append(want, one["id"].(string))
			}
		}
		got := ids(a.all(path + "?" + c.query + "=" + url.QueryEscape(value)))
		if !slices.Equal(got, want) || len(got) == 0 {
			t.Errorf("%s by %s=%s: %d, want %d", path, c.query, value, len(got), len(want))
		}
	}
	sub := a.all("/v1/subscriptions?status=all")[0]
	price := data(sub["items"].(object))[0]["price"].(object)["id"].(string)
	if got := ids(a.all("/v1/subscriptions?status=all&price=" + price)); !slices.Contains(got, sub["id"].(string)) {
		t.Errorf("by price: %v lacks %s", got, sub["id"])
	}
	if got := ids(data(a.get("/v1/products?ids[]=" + a.truth("product")[1]))); len(got) != 1 {
		t.Errorf("by ids: %v", got)
	}
}

func TestACursorOfADeletedObjectWorksOnlyWhereStripeKeepsTheDead(t *testing.T) {
	t.Parallel()
	a := open(t, stripe.Options{Customers: 20, Unlimited: true})
	customers := ids(a.all("/v1/customers"))
	a.must("DELETE", "/v1/customers/"+customers[4], "")
	if got := ids(data(a.get("/v1/customers?limit=3&starting_after=" + customers[4]))); !slices.Equal(got, customers[5:8]) {
		t.Errorf("after a deleted customer: %v", got)
	}
	if got := a.get("/v1/customers/" + customers[4]); got["deleted"] != true {
		t.Errorf("deleted customer: %v", got)
	}
	product := a.post("/v1/products", "name=Gone")["id"].(string)
	a.must("DELETE", "/v1/products/"+product, "")
	a.refused(http.StatusBadRequest, "GET", "/v1/products?starting_after="+product, "")
	a.refused(http.StatusNotFound, "GET", "/v1/products/"+product, "")
}

func TestNestedListsShowTenAndGoOnAtTheirURL(t *testing.T) {
	t.Parallel()
	a := open(t, stripe.Options{Customers: 5, Unlimited: true})
	customer := a.post("/v1/customers", "payment_method=pm_card_visa")["id"].(string)
	price := a.post("/v1/prices", "currency=usd&unit_amount=100&recurring[interval]=month&product_data[name]=P")["id"].(string)
	items := ""
	for i := range 20 {
		items += fmt.Sprintf("&items[%d][price]=%s", i, price)
	}
	sub := a.post("/v1/subscriptions", "customer="+customer+items)
	for range 230 {
		a.post("/v1/subscription_items", "subscription="+sub["id"].(string)+"&price="+price)
	}
	sub = a.get("/v1/subscriptions/" + sub["id"].(string))
	for parent, nested := range map[string]object{
		"subscription": sub["items"].(object), "invoice": a.get("/v1/invoices/" + sub["latest_invoice"].(string))["lines"].(object),
	} {
		want := map[string]int{"subscription": 250, "invoice": 20}[parent]
		if len(data(nested)) != 10 || nested["has_more"] != true {
			t.Fatalf("%s shows %d", parent, len(data(nested)))
		}
		rest := a.all(nested["url"].(string))
		if len(rest) != want {
			t.Errorf("%s: %d, want %d", parent, len(rest), want)
		}
		if diff := cmp.Diff(ids(data(nested)), ids(rest)[:10]); diff != "" {
			t.Errorf("%s: the list and its url disagree: %s", parent, diff)
		}
	}
}

func TestAMillionCustomersAreThereAtOnceAndCanBeChanged(t *testing.T) {
	t.Parallel()
	const many = 1_000_000
	a := open(t, stripe.Options{Customers: -1, Bulk: many, Unlimited: true})
	page := data(a.get("/v1/customers?limit=100"))
	oldest := ids(data(a.get("/v1/customers?limit=3&ending_before=" + page[99]["id"].(string))))
	if want := ids(page[96:99]); !slices.Equal(oldest, want) {
		t.Errorf("before the hundredth: %v, want %v", oldest, want)
	}
	o := readOpenAPI(t)
	for _, problem := range o.validate("customer", o.Schemas["customer"], any(page[0])) {
		t.Error(problem)
	}
	one, two := page[3]["id"].(string), page[5]["id"].(string)
	if changed := a.post("/v1/customers/"+one, "name=Changed"); changed["name"] != "Changed" || changed["email"] != page[3]["email"] {
		t.Errorf("changed: %v", changed)
	}
	a.must("DELETE", "/v1/customers/"+two, "")
	again := data(a.get("/v1/customers?limit=5"))
	if again[3]["name"] != "Changed" || slices.Contains(ids(data(a.get("/v1/customers?limit=100"))), two) {
		t.Error("the list does not show it")
	}
	a.post("/v1/customers", "name=Newest")
	if first := data(a.get("/v1/customers?limit=1"))[0]; first["name"] != "Newest" {
		t.Errorf("first is %v", first["name"])
	}
	if got := a.Collections()[0]; got != (sandbox.Collection{Name: "customer", Count: many}) {
		t.Errorf("%+v", got)
	}
}

func TestABulkIsListedAsItIs(t *testing.T) {
	t.Parallel()
	const many = 20_000
	a := open(t, stripe.Options{Customers: -1, Bulk: many, Unlimited: true})
	want := a.truth("customer")
	if diff := cmp.Diff(want, ids(a.all("/v1/customers"))); diff != "" {
		t.Error(diff)
	}
	slices.Sort(want)
	if n := len(slices.Compact(want)); n != many {
		t.Errorf("%d different ids of %d", n, many)
	}
}

func TestListsOfThingsThatNobodyHasAreEmpty(t *testing.T) {
	t.Parallel()
	a := open(t, stripe.Options{})
	for _, path := range []string{"/v1/quotes", "/v1/files", "/v1/tax/registrations"} {
		if list := a.get(path); len(data(list)) != 0 || list["has_more"] != false {
			t.Errorf("%s: %v", path, list)
		}
	}
}
