package stripe_test

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"lockstep/sandbox"
	"lockstep/sandbox/stripe"
)

func TestAnyKeyOfTheRightFormSignsIn(t *testing.T) {
	t.Parallel()
	a := open(t, stripe.Options{Customers: -1, Unlimited: true})
	for key, want := range map[string]int{
		"Bearer sk_test_abcdef123456": 200, "Bearer sk_live_abcdef123456": 200, "Bearer rk_test_abcdef123456": 200,
		"Basic c2tfdGVzdF9hYmNkZWYxMjM0NTY6": 200, "": 401, "Bearer nonsense": 401, "Bearer pk_test_abcdef123456": 401, "Bearer sk_test_": 401,
	} {
		w := a.do("GET", "/v1/account", "", header{"Authorization": key})
		if w.status != want {
			t.Errorf("%q: %d %s", key, w.status, w.text)
		}
		if want == 200 && !strings.HasPrefix(w.body["id"].(string), "acct_1") {
			t.Errorf("%q: %v", key, w.body["id"])
		}
		if strings.Contains(w.text, "nonsense") {
			t.Errorf("the key is in the answer: %s", w.text)
		}
	}
}

func TestKeysAreRevokedAndRestricted(t *testing.T) {
	t.Parallel()
	a := open(t, stripe.Options{Customers: -1, Unlimited: true})
	a.RevokeKey(testKey)
	if e := a.refused(http.StatusUnauthorized, "GET", "/v1/customers", ""); e["code"] != "api_key_expired" {
		t.Errorf("%v", e)
	}
	a.post("/_sandbox/keys", `{"key":"`+testKey+`","only":["customers","events"]}`)
	a.get("/v1/customers")
	a.get("/v1/customers/x/tax_ids")
	a.refused(http.StatusForbidden, "GET", "/v1/charges", "")
	a.AllowKey(testKey)
	a.get("/v1/charges")
	if w := a.do("GET", "/v1/charges", "", header{"Stripe-Account": "acct_1other"}); w.status != http.StatusForbidden || w.body["error"].(object)["code"] != "account_invalid" {
		t.Errorf("another's account: %d %s", w.status, w.text)
	}
}

func TestLimitsAreThoseOfTheAccountAndOfEachEndpoint(t *testing.T) {
	t.Parallel()
	a := open(t, stripe.Options{Customers: -1})
	// Frozen buckets: the test must not depend on how fast it runs.
	a.Core().Limits().Set(sandbox.Limit{Name: "global-rate:test", Rate: 5, Per: sandbox.Duration(time.Hour)},
		sandbox.Limit{Name: "endpoint-rate", Rate: 3, Per: sandbox.Duration(time.Hour)})
	ask := func(path, key string) answer { return a.do("GET", path, "", header{"Authorization": "Bearer " + key}) }
	for range 3 {
		if w := ask("/v1/customers", testKey); w.status != 200 {
			t.Fatalf("%d %s", w.status, w.text)
		}
	}
	w := ask("/v1/customers", testKey)
	e, _ := w.body["error"].(object)
	if w.status != 429 || e["type"] != "invalid_request_error" || e["code"] != "rate_limit" || w.header.Get("Stripe-Rate-Limited-Reason") != "endpoint-rate" ||
		w.header.Get("Stripe-Should-Retry") != "true" || w.header.Get("Retry-After") != "" {
		t.Errorf("%d %s %v", w.status, w.text, w.header)
	}
	for range 2 {
		if w := ask("/v1/charges", testKey); w.status != 200 {
			t.Errorf("another endpoint: %d", w.status)
		}
	}
	if w := ask("/v1/refunds", testKey); w.status != 429 || w.header.Get("Stripe-Rate-Limited-Reason") != "global-rate" {
		t.Errorf("all together: %d %v", w.status, w.header)
	}
	if w := ask("/v1/refunds", "sk_live_abcdef123456"); w.status != 200 {
		t.Errorf("live mode has its own: %d", w.status)
	}
	s := a.Core().Log().Summary()
	if s.Limited["endpoint-rate"] != 1 || s.Limited["global-rate:test"] != 1 || s.Endpoints["GET /v1/customers"].Limited != 1 || s.Endpoints["GET /v1/customers"].Requests != 4 {
		t.Errorf("%+v", s)
	}
}

func TestTheDocumentedLimitsHoldForASecond(t *testing.T) {
	t.Parallel()
	for _, l := range stripe.Limits() {
		want := map[string]float64{"global-rate:test": 25, "global-rate:live": 100, "endpoint-rate": 25}[l.Name]
		if l.Rate != want {
			t.Errorf("%s: %v a second, want %v", l.Name, l.Rate, want)
		}
	}
}

func TestListsGoWrongOnDemand(t *testing.T) {
	t.Parallel()
	a := open(t, stripe.Options{Customers: -1, Bulk: 30, Unlimited: true})
	all := ids(a.all("/v1/customers"))
	fault := func(kind string, n int) {
		a.Core().Faults().Clear()
		if err := a.Core().Faults().Add(sandbox.Fault{Kind: kind, Path: "^/v1/(customers|events)$", N: n}); err != nil {
			t.Fatal(err)
		}
	}
	fault("list_stuck", 0)
	stuck := a.get("/v1/customers?limit=5&starting_after=" + all[20])
	if got := ids(data(stuck)); got[0] != all[0] || stuck["has_more"] != true {
		t.Errorf("stuck: %v", got)
	}
	fault("list_empty", 0)
	if got := a.get("/v1/customers"); len(data(got)) != 0 || got["has_more"] != true {
		t.Errorf("empty: %v", got)
	}
	fault("list_short", 3)
	if got := a.get("/v1/customers?limit=10"); len(data(got)) != 7 || got["has_more"] != true {
		t.Errorf("short: %d", len(data(got)))
	}
	fault("list_duplicate", 0)
	if got := data(a.get("/v1/customers?limit=5")); len(got) != 6 || got[4]["id"] != got[5]["id"] || text(got[4]) == text(got[5]) {
		t.Errorf("duplicate: %v", got)
	}
	fault("step", 2)
	before := len(a.truth("event"))
	a.get("/v1/customers?limit=5")
	if len(a.truth("event")) <= before {
		t.Error("nothing happened between the pages")
	}
	fault("events_aged_out", 0)
	event := a.truth("event")[0]
	if e := a.refused(http.StatusBadRequest, "GET", "/v1/events?ending_before="+event, ""); !strings.Contains(e["message"].(string), "aged out") {
		t.Errorf("aged out: %v", e)
	}
}

func TestTheSameSeedMakesTheSameWorld(t *testing.T) {
	t.Parallel()
	world := func(seed sandbox.Seed) string {
		clock := sandbox.NewClock()
		clock.Scale(0)
		clock.Set(time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC))
		s, err := stripe.New(stripe.Options{Seed: seed, Customers: 30, Clock: clock})
		if err != nil {
			t.Fatal(err)
		}
		s.Core().Step(50)
		var all strings.Builder
		for _, c := range s.Collections() {
			records, _ := s.Records(c.Name)
			for _, body := range records {
				all.Write(body)
			}
		}
		s.Reset()
		return all.String()
	}
	one, two, other := world(5), world(5), world(6)
	if one != two {
		t.Error("two runs differ")
	}
	if one == other {
		t.Error("two seeds do not")
	}
}

func TestExpandReplacesIdsAtTheirPlace(t *testing.T) {
	t.Parallel()
	a := open(t, stripe.Options{Customers: 40, Unlimited: true})
	charge := data(a.get("/v1/charges?limit=1&expand[]=data.customer.default_source&expand[]=data.balance_transaction.source"))[0]
	if charge["customer"].(object)["object"] != "customer" || charge["balance_transaction"].(object)["source"].(object)["id"] != charge["id"] {
		t.Errorf("%v", charge)
	}
	customer := a.get("/v1/customers/" + charge["customer"].(object)["id"].(string) + "?expand[0]=subscriptions&expand[1]=sources")
	if customer["subscriptions"].(object)["object"] != "list" || customer["sources"].(object)["object"] != "list" {
		t.Errorf("%v", customer)
	}
	if plain := a.get("/v1/customers/" + customer["id"].(string)); plain["subscriptions"] != nil {
		t.Error("subscriptions come unasked")
	}
	sub := data(a.get("/v1/subscriptions?limit=1&status=all&expand[]=data.items.data.price.product"))[0]
	if data(sub["items"].(object))[0]["price"].(object)["product"].(object)["object"] != "product" {
		t.Errorf("%v", sub["items"])
	}
	o := readOpenAPI(t)
	for _, problem := range o.validate("customer", o.Schemas["customer"], any(customer)) {
		t.Error(problem)
	}
}

func TestOptionsThatCannotBeAreRefused(t *testing.T) {
	t.Parallel()
	for _, o := range []stripe.Options{{Version: "latest"}, {Bulk: -1}, {Pace: -1}} {
		if _, err := stripe.New(o); err == nil {
			t.Errorf("%+v", o)
		}
	}
	if err := open(t, stripe.Options{Customers: -1}).SetVersion("x"); err == nil {
		t.Error("version x")
	}
}

func TestASignatureIsThatOfStripesOwnClient(t *testing.T) {
	t.Parallel()
	// From stripe.webhooks.generateTestHeaderString of stripe 23.1.0 for Node.
	const want = "t=1700000000,v1=c89214b5b5da833daed6f0b8c5bb6bd58cea9022bd80ccc78230f3942d632925"
	if got := stripe.Sign("whsec_test", []byte(`{"id":"evt_1"}`), time.Unix(1_700_000_000, 0)); got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}
