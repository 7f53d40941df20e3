package engine_test

import (
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"lockstep"
	"lockstep/client"
	"lockstep/internal/pgdb/pgtest"
	"lockstep/sandbox/stripe"
)

func TestASyncLiesInADatabaseMadeByAPI(t *testing.T) {
	t.Parallel()
	a := newAccount(t, stripe.Options{Customers: 3, Unlimited: true})
	n, _ := newHome(t)
	address, d := shop(t, "api_synced")
	d.Tables = nil
	n.create(d)
	n.captures("shop")
	if _, err := n.api.CreateConsumer(t.Context(), client.Definition{Name: "customers", Database: "shop", Collections: []string{"stripe:customer"}, Start: "beginning"}); err != nil {
		t.Fatal(err)
	}
	body := fmt.Sprintf(`{"name":"acme","provider":"stripe","base_url":%q,"database":"shop","collections":["stripe:customer"],"every":"200ms","credential":{"kind":"stripe_key","properties":{"secret":"sk_test_4eC39HqLyjWDarjtT1zdp7dc"}}}`, a.url)
	if code, answer := n.post("/v1/syncs", body); code != http.StatusCreated {
		t.Fatalf("status %d, %v", code, answer)
	}
	a.equal(address, "customer")
	ack(t, n.api, "customers", take(t, n.api, "customers", 3)...)
	n.kill()
	n.start()
	n.knows("customers")
	pgtest.Eventually(t, 30*time.Second, "the sync to be there again", func() bool {
		_, err := n.api.Sync(t.Context(), "acme")
		return err == nil
	})
	if err := n.api.DeleteConsumer(t.Context(), "customers"); err != nil {
		t.Fatal(err)
	}
	if _, err := n.api.DeleteDatabase(t.Context(), "shop", client.DropSlot); !errors.Is(err, lockstep.ErrConflict) || !strings.Contains(err.Error(), "acme") {
		t.Errorf("deleted under a sync: %v, want a conflict that names it", err)
	}
	if err := n.api.DeleteSync(t.Context(), "acme"); err != nil {
		t.Fatal(err)
	}
	if _, err := n.api.DeleteDatabase(t.Context(), "shop", client.DropSlot); err != nil {
		t.Fatal(err)
	}
	if code, answer := n.post("/v1/syncs", body); code != http.StatusUnprocessableEntity {
		t.Errorf("a sync into a deleted database: status %d, %v", code, answer)
	}
}
