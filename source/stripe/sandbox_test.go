package stripe_test

import (
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

	"lockstep/locksteptest"
	"lockstep/source"
	"lockstep/source/rest"
	"lockstep/source/stripe"

	sandbox "lockstep/sandbox/stripe"
)

const key = "sk_test_123456789"

// account starts a sandbox and returns it with its address.
func account(t testing.TB, o sandbox.Options) (*sandbox.Sandbox, string) {
	t.Helper()
	o.Unlimited = true
	world, err := sandbox.New(o)
	if err != nil {
		t.Fatal(err)
	}
	server := httptest.NewServer(world.Handler())
	t.Cleanup(server.Close)
	return world, server.URL
}

func open(t testing.TB, base string, transport http.RoundTripper, limiter source.Limiter) *rest.Source {
	t.Helper()
	s, err := stripe.New(rest.Options{BaseURL: base, Credential: map[string]string{"secret": key, "webhook_secret": "whsec_1"}, Transport: transport, Limiter: limiter})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// simulated are the collections that the sandbox has.
func simulated() []string {
	return strings.Fields("customer product price plan coupon promotion_code tax_rate payment_method setup_intent subscription invoice invoiceitem " +
		"invoice_payment payment_intent charge refund dispute balance_transaction payout credit_note checkout_session")
}

func truth(world *sandbox.Sandbox) func(t testing.TB, collection string) map[string]json.RawMessage {
	return func(t testing.TB, collection string) map[string]json.RawMessage {
		t.Helper()
		out := map[string]json.RawMessage{}
		rows, ok := world.Records(strings.Replace(collection, "checkout_", "checkout.", 1))
		if !ok {
			t.Fatalf("the sandbox has no %s", collection)
		}
		for id, data := range rows {
			out[id] = whole(t, world, collection, id, data)
		}
		return out
	}
}

// whole fills the lists in an object, of which Stripe shows ten, to their end.
func whole(t testing.TB, world *sandbox.Sandbox, collection, id string, data []byte) json.RawMessage {
	t.Helper()
	lists := map[string][3]string{
		"subscription": {"items", "subscription_item", "subscription"},
		"invoice":      {"lines", "line_item", "invoice"},
		"credit_note":  {"lines", "credit_note_line_item", "credit_note"},
	}
	list, ok := lists[collection]
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
		t.Fatal(err)
	}
	if !shown.More {
		return data
	}
	var all []json.RawMessage
	rows, _ := world.Records(list[1])
	for _, row := range rows {
		var parent map[string]any
		if err := json.Unmarshal(row, &parent); err != nil {
			t.Fatal(err)
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
		t.Fatal(err)
	}
	return out
}

func TestStripeKeepsTheContract(t *testing.T) {
	t.Parallel()
	world, base := account(t, sandbox.Options{Customers: 60})
	locksteptest.TestSource(t, locksteptest.Subject{
		New: func(t testing.TB, transport http.RoundTripper, limiter source.Limiter) source.Source {
			return open(t, base, transport, limiter)
		},
		Truth:       truth(world),
		Change:      func(testing.TB) { world.Core().Step(3) },
		Collections: simulated(),
		Secrets:     []string{key, "whsec_1"},
	})
}
