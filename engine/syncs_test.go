package engine_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"lockstep/client"
	"lockstep/internal/pgdb/pgtest"
	"lockstep/sandbox"
	"lockstep/sandbox/stripe"
)

// account is a sandbox of Stripe behind a server.
type account struct {
	t   testing.TB
	url string
}

func newAccount(t testing.TB, o stripe.Options) *account {
	t.Helper()
	api, err := stripe.New(o)
	if err != nil {
		t.Fatal(err)
	}
	server := httptest.NewServer(sandbox.Mount(api))
	t.Cleanup(server.Close)
	return &account{t: t, url: server.URL}
}

// call asks the account as its owner's programs do, and returns the answer's object.
func (a *account) call(method, path string, form url.Values) map[string]any {
	a.t.Helper()
	req, err := http.NewRequestWithContext(a.t.Context(), method, a.url+path, strings.NewReader(form.Encode()))
	if err != nil {
		a.t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer sk_test_owner4eC39HqLyjWDarjt")
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	return a.do(req)
}

// steer moves the sandbox itself.
func (a *account) steer(path, body string) {
	a.t.Helper()
	req, err := http.NewRequestWithContext(a.t.Context(), http.MethodPost, a.url+"/_sandbox/"+path, strings.NewReader(body))
	if err != nil {
		a.t.Fatal(err)
	}
	a.do(req)
}

func (a *account) do(req *http.Request) map[string]any {
	a.t.Helper()
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		a.t.Fatal(err)
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err != nil || res.StatusCode >= 300 {
		a.t.Fatalf("%s %s: status %d, error %v, body %s", req.Method, req.URL, res.StatusCode, err, body)
	}
	object := map[string]any{}
	_ = json.Unmarshal(body, &object) // control routes answer other things, which nobody reads
	return object
}

// truth returns the ids of everything of a collection that exists.
func (a *account) truth(collection string) []string {
	a.t.Helper()
	res, err := http.Get(a.url + "/_sandbox/state/" + collection)
	if err != nil {
		a.t.Fatal(err)
	}
	defer res.Body.Close()
	var ids []string
	for d := json.NewDecoder(res.Body); ; {
		var object struct{ ID string }
		if err := d.Decode(&object); err != nil {
			break
		}
		ids = append(ids, object.ID)
	}
	slices.Sort(ids)
	return ids
}

// syncing is the YAML of a sync of the account, and of a consumer of its customers.
func (a *account) syncing(collections string) string {
	return fmt.Sprintf(`  - {name: customers, collections: ["stripe:customer"], start: beginning}
syncs:
  - {name: acme, provider: stripe, base_url: %q, credential: {kind: stripe_key, properties: {secret: sk_test_4eC39HqLyjWDarjtT1zdp7dc}}, collections: [%s], every: 200ms}
`, a.url, collections)
}

// post calls the node's API and returns the answer.
func (n *node) post(path, body string) (int, map[string]any) {
	n.t.Helper()
	return n.call(http.MethodPost, path, body)
}

func (n *node) call(method, path, body string) (int, map[string]any) {
	n.t.Helper()
	req, err := http.NewRequestWithContext(n.t.Context(), method, "http://"+n.server+path, bytes.NewReader([]byte(body)))
	if err != nil {
		n.t.Fatal(err)
	}
	if body != "" {
		req.Header.Set("Content-Type", "application/json")
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0, nil // it is away
	}
	defer res.Body.Close()
	answer := map[string]any{}
	if err := json.NewDecoder(res.Body).Decode(&answer); err != nil && res.StatusCode < 300 && res.StatusCode != http.StatusNoContent {
		n.t.Fatalf("%s %s: status %d: %v", method, path, res.StatusCode, err)
	}
	return res.StatusCode, answer
}

// equal waits until the mirror's ids are the account's.
func (a *account) equal(database, collection string) {
	a.t.Helper()
	want := a.truth(collection)
	pgtest.Eventually(a.t, 60*time.Second, "the mirror to be equal", func() bool {
		var got []string
		if len(pgtest.Query(a.t, database, "SELECT to_regclass('stripe."+collection+"') WHERE to_regclass('stripe."+collection+"') IS NOT NULL")) == 0 {
			return false
		}
		for _, row := range pgtest.Query(a.t, database, `SELECT id FROM stripe.`+collection+` ORDER BY id COLLATE "C"`) {
			got = append(got, row[0])
		}
		return cmp.Equal(want, got)
	})
}

// some takes what is there to take.
func (n *node) some(consumer string) []client.Delivery {
	n.t.Helper()
	got, err := n.api.Next(n.t.Context(), consumer, 500, 200*time.Millisecond)
	if err != nil {
		n.t.Fatal(err)
	}
	return got.Deliveries
}

func TestSyncGoesOnAfterKillsAndTheMirrorEqualsTheAPI(t *testing.T) {
	a := newAccount(t, stripe.Options{Customers: 200, Bulk: 4000, Unlimited: true, Pace: 20})
	database := pgtest.Database(t)
	n := newNode(t, database, a.syncing(`"stripe:customer", "stripe:subscription", "stripe:invoice"`))
	for range 4 {
		n.start()
		before := len(pgtest.Query(t, database, `SELECT FROM pg_class WHERE relname = 'customer'`))
		pgtest.Eventually(t, 30*time.Second, "a page of customers", func() bool {
			return before == 0 && len(pgtest.Query(t, database, `SELECT FROM pg_class WHERE relname = 'customer'`)) > 0 ||
				before > 0 && pgtest.Query(t, database, `SELECT count(*) > 0 FROM stripe.customer`)[0][0] == "t"
		})
		n.kill()
	}
	n.start()
	a.steer("world", `{"pause":true}`)
	if code, answer := n.call(http.MethodGet, "/v1/syncs/acme/wait?timeout=60s", ""); code != http.StatusOK {
		t.Fatalf("wait: status %d, %v", code, answer)
	}
	for _, collection := range []string{"customer", "subscription", "invoice"} {
		a.equal(database, collection)
	}
	code, answer := n.post("/v1/syncs/acme/verify", "")
	if code != http.StatusOK || len(answer["missing"].([]any))+len(answer["stale"].([]any))+len(answer["extra"].([]any)) != 0 || answer["checked"].(float64) < 4000 {
		t.Fatalf("verify: status %d, %v", code, answer)
	}
	// What was delivered, replayed, is the mirror.
	view := map[string]bool{}
	for {
		ds := n.some("customers")
		if len(ds) == 0 {
			break
		}
		for _, d := range ds {
			var record struct {
				UpstreamID   string `json:"upstream_id"`
				CollectionID string `json:"collection_id"`
				Deleted      bool
				Data         struct{ ID string }
			}
			if err := json.Unmarshal(d.Record, &record); err != nil || record.CollectionID != "stripe:customer" || record.Data.ID != record.UpstreamID {
				t.Fatalf("record %s: %v", d.Record, err)
			}
			if view[record.UpstreamID] = true; record.Deleted {
				delete(view, record.UpstreamID)
			}
		}
		ack(t, n.api, "customers", ds...)
	}
	if want := a.truth("customer"); len(view) != len(want) {
		t.Errorf("the consumer's view has %d customers, the account %d", len(view), len(want))
	}
}

func TestWaitReturnsWhenTheChangeIsAcked(t *testing.T) {
	a := newAccount(t, stripe.Options{Customers: 3, Unlimited: true})
	database := pgtest.Database(t)
	n := newNode(t, database, a.syncing(`"stripe:customer"`))
	n.start()
	if code, answer := n.call(http.MethodGet, "/v1/syncs/acme/wait?timeout=60s", ""); code != http.StatusOK {
		t.Fatalf("wait: status %d, %v", code, answer)
	}
	id := a.call(http.MethodPost, "/v1/customers", url.Values{"email": {"new@example.com"}})["id"].(string)
	if code, answer := n.call(http.MethodGet, "/v1/syncs/acme/wait?timeout=60s", ""); code != http.StatusOK {
		t.Fatalf("wait: status %d, %v", code, answer)
	}
	if got := pgtest.Query(t, database, "SELECT email FROM stripe.customer WHERE id = '"+id+"'"); len(got) != 1 || got[0][0] != "new@example.com" {
		t.Fatalf("after wait the row is %v", got)
	}
	if code, _ := n.call(http.MethodGet, "/v1/syncs/acme/wait?timeout=1s&consumer=customers", ""); code != http.StatusGatewayTimeout {
		t.Fatalf("wait for a consumer that has acked nothing: status %d, want 504", code)
	}
	for _, d := range n.some("customers") {
		ack(t, n.api, "customers", d)
	}
	if code, answer := n.call(http.MethodGet, "/v1/syncs/acme/wait?timeout=60s&consumer=customers", ""); code != http.StatusOK {
		t.Fatalf("wait for a consumer that has acked everything: status %d, %v", code, answer)
	}
}

func TestSyncMadeByAPISurvivesARestartWithItsCredential(t *testing.T) {
	a := newAccount(t, stripe.Options{Customers: 3, Unlimited: true})
	database := pgtest.Database(t)
	n := newNode(t, database, "  []")
	n.start()
	older := fmt.Sprintf(`{"provider":"stripe","name":"acme","collection_ids":["stripe:customer"],"base_url":%q,
		"credential":{"provider":"stripe","properties":{"kind":"stripe_key","secret":"sk_test_hush4eC39HqLyjWDarjtT1"}},"sync_frequency":"continuous"}`, a.url)
	code, made := n.post("/v1/syncs", older)
	if code != http.StatusCreated {
		t.Fatalf("create: status %d, %v", code, made)
	}
	a.equal(database, "customer")
	for _, row := range pgtest.Query(t, database, "SELECT definition::text, encode(credential, 'escape') FROM lockstep.sync") {
		if strings.Contains(row[0]+row[1], "hush") {
			t.Fatal("the credential lies readable in the database")
		}
	}
	if err := n.stop(); err != nil {
		t.Fatal(err)
	}
	n.start()
	a.call(http.MethodPost, "/v1/customers", url.Values{"email": {"later@example.com"}})
	a.equal(database, "customer")
	if code, _ := n.call(http.MethodDelete, "/v1/syncs/acme", ""); code != http.StatusNoContent {
		t.Fatalf("delete: status %d", code)
	}
	if code, _ := n.call(http.MethodGet, "/v1/syncs/acme", ""); code != http.StatusNotFound {
		t.Fatalf("after delete: status %d", code)
	}
}
