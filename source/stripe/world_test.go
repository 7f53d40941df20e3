package stripe_test

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	core "lockstep/sandbox"
	"lockstep/source"

	sandbox "lockstep/sandbox/stripe"
)

func refused(t testing.TB, err error, want source.Kind) *source.Error {
	t.Helper()
	var e *source.Error
	if !errors.As(err, &e) || e.Kind != want {
		t.Fatalf("got %v, want an error of kind %s", err, want)
	}
	return e
}

// poll reads a feed to its end.
func poll(t testing.TB, s source.Source, at source.Cursor, settle time.Duration) ([]source.Record, source.Cursor) {
	t.Helper()
	var out []source.Record
	for {
		page, err := s.Changes(t.Context(), "events", at, settle)
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, page.Records...)
		at = page.Next
		if !page.More {
			return out, at
		}
	}
}

func start(t testing.TB, s source.Source) source.Cursor {
	t.Helper()
	at, err := s.Start(t.Context(), "events")
	if err != nil {
		t.Fatal(err)
	}
	return at
}

// Events come in another order than they happened in, up to some seconds late. All
// are found, and each object is fetched at the pinned version.
func TestLateEventsAreFound(t *testing.T) {
	t.Parallel()
	world, base := account(t, sandbox.Options{Customers: 20, Lateness: sandbox.Lateness{Events: 0.5, EventMax: core.Duration(3 * time.Second)}})
	s := open(t, base, nil, nil)
	at := start(t, s)
	world.Core().Step(150)
	seen := map[string]bool{}
	deadline := time.Now().Add(20 * time.Second)
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	var missing []string
	for {
		var records []source.Record
		records, at = poll(t, s, at, 0)
		for _, r := range records {
			seen[r.Collection+" "+r.ID] = true
		}
		missing = nil
		for id := range truth(world)(t, "charge") {
			if !seen["charge "+id] && createdAfter(t, world, id) {
				missing = append(missing, id)
			}
		}
		if len(missing) == 0 {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("%d charges were never seen", len(missing))
		}
		<-tick.C
	}
	if len(seen) < 50 {
		t.Errorf("only %d records changed", len(seen))
	}
}

// createdAfter says whether a charge is younger than the test's world.
func createdAfter(t testing.TB, world *sandbox.Sandbox, id string) bool {
	t.Helper()
	var charge struct {
		Created int64 `json:"created"`
	}
	if err := json.Unmarshal(truth(world)(t, "charge")[id], &charge); err != nil {
		t.Fatal(err)
	}
	return time.Since(time.Unix(charge.Created, 0)) < time.Minute
}

// An event names each object once however often it changed, whatever the version of
// the event is.
func TestChangesAreFetchedAgainAtThePinnedVersion(t *testing.T) {
	t.Parallel()
	world, base := account(t, sandbox.Options{Customers: 5, Version: "2020-08-27"})
	s := open(t, base, nil, nil)
	at := start(t, s)
	made, err := s.Write(t.Context(), source.Write{Collection: "customer", Action: "create", Data: json.RawMessage(`{"email":"a@b.example","metadata":{"n":"0"}}`), Key: "once"})
	if err != nil {
		t.Fatal(err)
	}
	twice, err := s.Write(t.Context(), source.Write{Collection: "customer", Action: "create", Data: json.RawMessage(`{"email":"a@b.example","metadata":{"n":"0"}}`), Key: "once"})
	if err != nil || twice.ID != made.ID {
		t.Errorf("the same write made %s and %s, %v", made.ID, twice.ID, err)
	}
	for n := range 5 {
		if _, err := s.Write(t.Context(), source.Write{Collection: "customer", Action: "update", ID: made.ID, Data: json.RawMessage(fmt.Sprintf(`{"metadata":{"n":"%d"}}`, n))}); err != nil {
			t.Fatal(err)
		}
	}
	got, at := poll(t, s, at, 0)
	if len(got) != 1 || got[0].ID != made.ID || !strings.Contains(string(got[0].Data), `"n":"4"`) || got[0].Rank != source.RankObject {
		t.Errorf("got %v", got)
	}
	for _, call := range world.Core().Log().Calls(0) {
		if call.Version != "2026-08-26.dahlia" {
			t.Errorf("%s %s was asked at version %q", call.Method, call.Path, call.Version)
		}
	}
	if _, err := s.Write(t.Context(), source.Write{Collection: "customer", Action: "delete", ID: made.ID}); err != nil {
		t.Fatal(err)
	}
	if got, _ = poll(t, s, at, 0); len(got) != 1 || !got[0].Deleted || got[0].Reason != "event" {
		t.Errorf("after the deletion: %v", got)
	}
}

func TestAnAgedOutCursorRestarts(t *testing.T) {
	t.Parallel()
	world, base := account(t, sandbox.Options{Customers: 5})
	s := open(t, base, nil, nil)
	at := start(t, s)
	if err := world.Core().Faults().Add(core.Fault{Kind: "status", Path: "/v1/events", Status: 400, Times: 1,
		Body: `{"error":{"type":"invalid_request_error","message":"The event 'evt_1' is no longer available because it's aged out of our retention policy."}}`}); err != nil {
		t.Fatal(err)
	}
	_, err := s.Changes(t.Context(), "events", at, 0)
	_ = refused(t, err, source.Restart)
	_, err = s.Changes(t.Context(), "events", source.Cursor(`{"since":"2026-01-01T00:00:00Z"}`), 0)
	_ = refused(t, err, source.Restart)
}

// A1 and A8 of the sandbox: a list that stands still, one that is empty for once, one
// that is short.
func TestListsThatMisbehave(t *testing.T) {
	t.Parallel()
	world, base := account(t, sandbox.Options{Customers: 250})
	s := open(t, base, nil, nil)
	first, err := s.Backfill(t.Context(), "customer", nil)
	if err != nil || first.Next == nil {
		t.Fatal(err)
	}
	break1 := func(kind string) {
		t.Helper()
		if err := world.Core().Faults().Add(core.Fault{Kind: kind, Path: "/v1/customers", Times: 1}); err != nil {
			t.Fatal(err)
		}
	}
	break1("list_empty")
	_, err = s.Backfill(t.Context(), "customer", first.Next)
	_ = refused(t, err, source.Retry)
	break1("list_short")
	found := map[string]bool{}
	for at := source.Cursor(nil); ; {
		page, err := s.Backfill(t.Context(), "customer", at)
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range page.Records {
			found[r.ID] = true
		}
		if at = page.Next; at == nil {
			break
		}
	}
	if n := len(truth(world)(t, "customer")); len(found) != n {
		t.Errorf("found %d of %d", len(found), n)
	}
}

func TestUpcomingInvoicesAreVirtual(t *testing.T) {
	t.Parallel()
	world, base := account(t, sandbox.Options{Customers: 60})
	s := open(t, base, nil, nil)
	live := 0
	for _, data := range truth(world)(t, "subscription") {
		var sub struct {
			Status   string `json:"status"`
			CancelAt *int64 `json:"cancel_at"`
		}
		if err := json.Unmarshal(data, &sub); err != nil {
			t.Fatal(err)
		}
		if slices.Contains([]string{"active", "trialing", "past_due"}, sub.Status) {
			live++
		}
	}
	found := 0
	for at := source.Cursor(nil); ; {
		page, err := s.Backfill(t.Context(), "upcoming_invoice", at)
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range page.Records {
			if !strings.HasPrefix(r.ID, "sub_") {
				t.Fatalf("the id is %s, want the subscription's", r.ID)
			}
			found++
		}
		if at = page.Next; at == nil {
			break
		}
	}
	if found == 0 || found > live {
		t.Errorf("%d upcoming invoices of %d living subscriptions", found, live)
	}
}

func TestWebhooksAreHints(t *testing.T) {
	t.Parallel()
	_, base := account(t, sandbox.Options{Customers: -1})
	s := open(t, base, nil, nil)
	body := `{"id":"evt_1","object":"event","created":1,"type":"invoice.paid","data":{"object":{"id":"in_1","object":"invoice"}}}`
	stamp := fmt.Sprint(time.Now().Unix())
	mac := hmac.New(sha256.New, []byte("whsec_1"))
	mac.Write([]byte(stamp + "." + body))
	header := http.Header{}
	header.Set("Stripe-Signature", "t="+stamp+",v1="+hex.EncodeToString(mac.Sum(nil)))
	got, err := s.Receive(t.Context(), header, []byte(body))
	if err != nil || len(got) != 1 || got[0].Collection != "invoice" || got[0].ID != "in_1" || got[0].Data != nil {
		t.Errorf("got %v, %v", got, err)
	}
	_, err = s.Receive(t.Context(), header, []byte(body+" "))
	_ = refused(t, err, source.Unauthorized)
}

func TestRevokedAndRestrictedKeys(t *testing.T) {
	t.Parallel()
	world, base := account(t, sandbox.Options{Customers: 3})
	s := open(t, base, nil, nil)
	for status, want := range map[int]source.Kind{401: source.Unauthorized, 403: source.Forbidden} {
		if err := world.Core().Faults().Add(core.Fault{Kind: "status", Status: status, Times: 1}); err != nil {
			t.Fatal(err)
		}
		_, err := s.Backfill(t.Context(), "customer", nil)
		if e := refused(t, err, want); strings.Contains(e.Message, key) {
			t.Error("the key shows")
		}
	}
	if _, err := s.Backfill(t.Context(), "customer", nil); err != nil {
		t.Errorf("afterwards: %v", err)
	}
}

// Stripe's own mock validates every request against Stripe's description. It is run
// by hand: LOCKSTEP_STRIPE_MOCK is its address.
func TestStripeMockTakesEveryRequest(t *testing.T) {
	t.Parallel()
	base := os.Getenv("LOCKSTEP_STRIPE_MOCK")
	if base == "" {
		t.Skip("stripe-mock is not running: set LOCKSTEP_STRIPE_MOCK to its address, such as http://127.0.0.1:12111")
	}
	s := open(t, base, nil, nil)
	list, err := s.Collections(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Check(t.Context()); err != nil {
		t.Error(err)
	}
	at := start(t, s)
	if _, err := s.Changes(t.Context(), "events", at, time.Second); err != nil {
		t.Error(err)
	}
	for _, c := range list {
		page, err := s.Backfill(t.Context(), c.Name, nil)
		if err != nil {
			t.Errorf("%s: %v", c.Name, err)
			continue
		}
		if len(page.Records) == 0 || page.Records[0].ID == "" || c.Virtual {
			continue
		}
		// The mock answers with its own fixture, whatever the id is.
		var e *source.Error
		if _, err := s.Get(t.Context(), c.Name, []string{page.Records[0].ID}); errors.As(err, &e) && e.Status == 400 {
			t.Errorf("get %s: %v", c.Name, err)
		}
		if _, err := s.IDs(t.Context(), c.Name, nil); err != nil {
			t.Errorf("ids of %s: %v", c.Name, err)
		}
	}
}
