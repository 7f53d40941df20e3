package console_test

import (
	"errors"
	"strings"
	"testing"

	"lockstep"
	"lockstep/internal/pgdb/pgtest"
)

// TestADatabaseIsAddedInTheBrowser makes a database by the form, whose first connection
// does not answer, gives it other patterns and deletes it.
func TestADatabaseIsAddedInTheBrowser(t *testing.T) {
	t.Parallel()
	n := newNode(t, pulled)
	second := pgtest.Database(t)
	pgtest.Exec(t, second, "CREATE TABLE orders (id int PRIMARY KEY)")
	b := newBrowser(t)
	b.size(1280, 900, "light")
	b.enter(n, adminToken)
	b.open(n.url + "/console/create/database")
	b.fill("name", "second")
	b.fill("url", "postgres://lockstep:hunter2hunter2@127.0.0.1:9/second")
	b.leads("Add the database")
	b.wait("the field's fault", "document.querySelector('[name=url][aria-invalid=true]')")
	b.accessible("the form of a database with a fault")
	b.picture("create-database-fault")
	b.fill("url", second)
	b.fill("tables", "public.*")
	b.leads("Add the database")
	b.says("Database second is there")
	b.wait("its page", "location.pathname === '/console/databases/second'")
	b.accessible("the page of a database made by API")
	b.eval("document.getElementById('manage').scrollIntoView(); ''")
	b.picture("database-manage")
	b.fill("tables", "public.orders")
	b.leads("Save")
	b.says("these tables of second are captured: public.orders")
	b.eval("document.querySelector('[name=slot][value=keep]').checked = true; window.confirm = () => true; ''")
	b.fill("typed", "second")
	b.leads("Delete")
	b.says("pg_drop_replication_slot")
	b.accessible("what is left of a database")
	b.picture("database-gone")
	for _, said := range b.console() {
		if !strings.Contains(said, "status of 422") { // the form with a fault is one
			t.Errorf("the browser's console says %s", said)
		}
	}
	if _, err := n.api.Database(t.Context(), "second"); !errors.Is(err, lockstep.ErrNotFound) {
		t.Errorf("it is still there: %v", err)
	}
	pgtest.Exec(t, second, "SELECT pg_drop_replication_slot('lockstep_second')")
}
