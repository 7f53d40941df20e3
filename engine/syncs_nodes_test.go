package engine_test

import (
	"bytes"
	"encoding/json"
	"net/http"
	"net/url"
	"os"
	"regexp"
	"strings"
	"testing"
	"time"

	"lockstep/internal/pgdb/pgtest"
	"lockstep/sandbox/stripe"
)

// slot gives the node a slot and a publication of its own.
func (n *node) slot(name string) {
	n.t.Helper()
	text, err := os.ReadFile(n.config)
	if err == nil {
		text = regexp.MustCompile(`\{name: app, slot: \w+, `).ReplaceAll(text, []byte("{name: app, slot: "+name+", publication: "+name+", "))
		err = os.WriteFile(n.config, text, 0o600)
	}
	if err != nil {
		n.t.Fatal(err)
	}
}

// A node that only waits for a sync delivers what another node mirrors: it learns from
// the database whose the tables are.
func TestAConsumerOfCollectionsIsServedByTheNodeThatWaits(t *testing.T) {
	a := newAccount(t, stripe.Options{Customers: 20, Unlimited: true})
	database := pgtest.Database(t)
	one := newNode(t, database, a.syncing(`"stripe:customer"`))
	one.start()
	two := newNode(t, database, a.syncing(`"stripe:customer"`))
	two.slot("second")
	two.start()
	if code, answer := one.call(http.MethodGet, "/v1/syncs/acme/wait?timeout=60s", ""); code != http.StatusOK {
		t.Fatalf("wait: status %d, %v", code, answer)
	}
	a.call(http.MethodPost, "/v1/customers", url.Values{"email": {"new@example.com"}})
	pgtest.Eventually(t, 60*time.Second, "the new customer at the node that waits", func() bool {
		for _, d := range two.some("customers") {
			if bytes.Contains(d.Record, []byte("new@example.com")) && bytes.Contains(d.Record, []byte(`"collection_id":"stripe:customer"`)) {
				return true
			}
		}
		return false
	})
}

// What is wrong in a spec that comes over HTTP is told with its line and column.
func TestASpecsFaultsAreToldWithTheirPlace(t *testing.T) {
	n := newNode(t, pgtest.Database(t), "  []")
	n.start()
	spec, err := json.Marshal("name: x\nbase_url: http://127.0.0.1:1\nauth: {kind: beaer}\ncollections:\n  a: {lst: {path: /a}}\n")
	if err != nil {
		t.Fatal(err)
	}
	code, answer := n.post("/v1/syncs", `{"name":"own","provider":"rest","spec":`+string(spec)+`,"credential":{"properties":{}}}`)
	detail, _ := answer["detail"].(string)
	if code != http.StatusUnprocessableEntity || !strings.Contains(detail, "3:14: auth[0].kind") || !strings.Contains(detail, "5:7: collections.a.lst") {
		t.Errorf("status %d, %s", code, detail)
	}
}
