package pull_test

import (
	"encoding/json"
	"errors"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"lockstep/internal/pull"
	"lockstep/source"
	"lockstep/source/rest"
	"lockstep/source/stripe"

	sandbox "lockstep/sandbox/stripe"
)

const key = "sk_test_123456789"

// account is a Stripe account that a test controls.
type account struct {
	*sandbox.Sandbox
	limiter source.Limiter
	t       testing.TB
	url     string
	key     string
}

func newAccount(t testing.TB, o sandbox.Options) *account {
	t.Helper()
	o.Unlimited = true
	return limitedAccount(t, o)
}

// limitedAccount is an account with Stripe's limits.
func limitedAccount(t testing.TB, o sandbox.Options) *account {
	t.Helper()
	world, err := sandbox.New(o)
	if err != nil {
		t.Fatal(err)
	}
	server := httptest.NewServer(world.Handler())
	t.Cleanup(server.Close)
	return &account{Sandbox: world, t: t, url: server.URL, key: key}
}

// simulated are the collections that the sandbox has.
func simulated() []string {
	return strings.Fields("customer product price plan coupon promotion_code tax_rate payment_method setup_intent subscription invoice invoiceitem " +
		"invoice_payment payment_intent charge refund dispute balance_transaction payout credit_note checkout_session")
}

// source opens the account. Requests end soon, and what no event tells is swept often.
func (a *account) source() source.Source {
	a.t.Helper()
	spec, err := stripe.Spec(a.key)
	if err != nil {
		a.t.Fatal(err)
	}
	spec.Timeout = 2 * time.Second
	s, err := rest.New(spec, rest.Options{BaseURL: a.url, Credential: map[string]string{"secret": a.key}, Limiter: a.limiter})
	if err != nil {
		a.t.Fatal(err)
	}
	return s
}

// truth is what the account holds of a collection.
func (a *account) truth(collection string) map[string]json.RawMessage {
	a.t.Helper()
	out := map[string]json.RawMessage{}
	rows, ok := a.Records(strings.Replace(collection, "checkout_", "checkout.", 1))
	if !ok {
		a.t.Fatalf("the sandbox has no %s", collection)
	}
	for id, data := range rows {
		out[id] = a.whole(collection, id, data)
	}
	return out
}

// whole fills the lists in an object, of which Stripe shows ten, to their end.
func (a *account) whole(collection, id string, data []byte) json.RawMessage {
	a.t.Helper()
	list, ok := map[string][3]string{
		"subscription": {"items", "subscription_item", "subscription"},
		"invoice":      {"lines", "line_item", "invoice"},
		"credit_note":  {"lines", "credit_note_line_item", "credit_note"},
	}[collection]
	if !ok {
		return data
	}
	var object map[string]json.RawMessage
	var shown struct {
		Object string            `json:"object"`
		Data   []json.RawMessage `json:"data"`
		More   bool              `json:"has_more"`
		Total  *int              `json:"total_count,omitempty"`
		URL    string            `json:"url"`
	}
	if err := errors.Join(json.Unmarshal(data, &object), json.Unmarshal(object[list[0]], &shown)); err != nil {
		a.t.Fatal(err)
	}
	if !shown.More {
		return data
	}
	var all []json.RawMessage
	rows, _ := a.Records(list[1])
	for _, row := range rows {
		var parent map[string]any
		if err := json.Unmarshal(row, &parent); err != nil {
			a.t.Fatal(err)
		}
		if parent[list[2]] == id {
			all = append(all, row)
		}
	}
	slices.Reverse(all)
	shown.Data, shown.More = all, false
	object[list[0]], _ = json.Marshal(shown)
	out, err := json.Marshal(object)
	if err != nil {
		a.t.Fatal(err)
	}
	return out
}

// same waits until the mirror holds exactly what the account does.
func (a *account) same(b *bench, e *engine, collections ...string) {
	a.t.Helper()
	wrong := ""
	if !holds(soon, func() bool {
		wrong = ""
		for _, c := range collections {
			if d := difference(b.rows(c), a.truth(c)); d != "" {
				wrong = c + ":\n" + d
				return false
			}
		}
		return true
	}) {
		a.t.Fatalf("the mirror never became equal: %s\nstatus %+v\nlog %v", wrong, e.Status(), b.log())
	}
}

func TestAMirrorFollowsALivingAccount(t *testing.T) {
	t.Parallel()
	a := newAccount(t, sandbox.Options{Customers: 40})
	b := newBench(t, "stripe", often{a.source()}, simulated()...)
	a.Core().Live(20)
	e := b.run()
	e.wait(t)
	if s := e.Status(); s.State != pull.Polling || s.BackfilledAt.IsZero() || s.Account == "" || len(s.Collections) != len(simulated()) {
		t.Errorf("status %+v", s)
	}
	a.Core().Live(0)
	e.wait(t)
	a.same(b, e, simulated()...)
	b.logged(t, "backfill customer started")
	b.logged(t, "backfill customer completed")
}

// Stripe has no event for a new checkout session, only for its end: its list tells of it.
func TestWhatHasNoEventIsThereAfterAWait(t *testing.T) {
	t.Parallel()
	a := newAccount(t, sandbox.Options{Customers: 5, Unlimited: true})
	b := newBench(t, "stripe", a.source(), "checkout_session")
	e := b.run()
	e.wait(t)
	prices := slices.Collect(maps.Keys(a.truth("price")))
	form := url.Values{"mode": {"payment"}, "success_url": {"https://shop.example/ok"}, "line_items[0][price]": {prices[0]}, "line_items[0][quantity]": {"1"}}
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, a.url+"/v1/checkout/sessions", strings.NewReader(form.Encode()))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+a.key)
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	if body, _ := io.ReadAll(res.Body); res.StatusCode != http.StatusOK {
		t.Fatalf("status %d: %s", res.StatusCode, body)
	}
	e.wait(t)
	a.same(b, e, "checkout_session")
}
