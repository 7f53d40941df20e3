package engine_test

import (
	"errors"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"lockstep"
	"lockstep/client"
	"lockstep/internal/pgdb/pgtest"
)

// controlled waits until databases can be made: the control plane comes up a moment after
// the node does.
func (n *node) controlled() {
	n.t.Helper()
	pgtest.Eventually(n.t, 30*time.Second, "the control plane", func() bool {
		_, err := n.api.UpdateDatabase(n.t.Context(), "nobody", nil)
		return errors.Is(err, lockstep.ErrNotFound)
	})
}

// withPassword is an address with another password.
func withPassword(t *testing.T, address, password string) string {
	t.Helper()
	u, err := url.Parse(address)
	if err != nil {
		t.Fatal(err)
	}
	u.User = url.UserPassword(u.User.Username(), password)
	return u.String()
}

// A database that cannot be reached is told at the field, with what to do; its password
// is never shown, and is still there when the form is sent again.
func TestConsoleAddsADatabaseByForm(t *testing.T) {
	t.Parallel()
	n, _ := newHome(t)
	n.controlled()
	address := pgtest.Cluster(t, nil).TCPURL("postgres")
	pgtest.Exec(t, address, `CREATE TABLE orders (id int PRIMARY KEY, note text)`, `CREATE TABLE audit (id int PRIMARY KEY)`)
	const wrong = "hunter2hunter2"
	form := url.Values{"do": {"create"}, "name": {"shop"}, "url": {withPassword(t, address, wrong)}, "tables": {"public.orders"}, "slot": {"console_added"}}
	status, _, page := n.send("create/database", form)
	if status != http.StatusUnprocessableEntity {
		t.Fatalf("with a wrong password: status %d\n%s", status, page)
	}
	holds(t, "the form with a wrong password", page, "password authentication failed", "<pre tabindex=\"0\"># correct the password in the URL", "ALTER ROLE …", `name="unchecked" value="true">`, "${DATABASE_PASSWORD}@127.0.0.1")
	lacks(t, "the form with a wrong password", page, wrong)
	lacks(t, "a new form", n.consolePage("create/database?url=postgres://u:"+wrong+"@h/db"), wrong, `name="unchecked"`, `name="kept.url"`)

	form.Set("url", address)
	form.Set("tables", "no pattern.at all.is this")
	status, _, page = n.send("create/database", form)
	_, kept, _ := strings.Cut(page, `name="kept.url" value="`)
	kept, _, _ = strings.Cut(kept, `"`)
	if status != http.StatusUnprocessableEntity || kept == "" {
		t.Fatalf("with a wrong pattern: status %d, kept %q", status, kept)
	}
	lacks(t, "the form with a wrong pattern", page, `name="unchecked"`)
	form.Del("url")
	form.Set("kept.url", kept)
	form.Set("tables", "public.orders")
	if status, to, page := n.send("create/database", form); status != http.StatusSeeOther || to != "/console/databases/shop" {
		t.Fatalf("a good form: status %d to %q\n%s", status, to, page)
	}
	n.captures("shop")
	if _, err := n.api.CreateConsumer(t.Context(), client.Definition{Name: "mail", Database: "shop"}); err != nil {
		t.Fatal(err)
	}
	pgtest.Exec(t, address, `INSERT INTO audit VALUES (1)`, `INSERT INTO orders VALUES (1, 'one')`)
	if got := take(t, n.api, "mail", 1); string(got[0].Record) != `{"id":1,"note":"one"}` {
		t.Errorf("captured is %s", got[0].Record)
	}
	page = n.consolePage("databases/shop")
	holds(t, "its page", page, "made by API", "postgres on 127.0.0.1:", ">Save<", ">Delete<")
	holds(t, "the page of one of the configuration", n.consolePage("databases/app"), "Defined in lockstep.yml: change it there")
	lacks(t, "the page of one of the configuration", n.consolePage("databases/app"), ">Save<", ">Delete<")
}

// What cannot be reached is stored when somebody says so.
func TestConsoleStoresADatabaseUnchecked(t *testing.T) {
	t.Parallel()
	n, _ := newHome(t)
	n.controlled()
	form := url.Values{"do": {"create"}, "name": {"away"}, "url": {"postgres://lockstep:hunter2hunter2@127.0.0.1:9/away"}, "unchecked": {"true"}}
	if status, to, page := n.send("create/database", form); status != http.StatusSeeOther || to != "/console/databases/away" {
		t.Fatalf("status %d to %q\n%s", status, to, page)
	}
	page := n.consolePage("databases/away")
	holds(t, "its page", page, "not connected", "away on 127.0.0.1:9, as lockstep")
	lacks(t, "its page", page, "hunter2")
}

// Patterns are changed, and the database is deleted by who types its name; what is left
// in it is said.
func TestConsoleChangesAndDeletesADatabase(t *testing.T) {
	t.Parallel()
	n, _ := newHome(t)
	address, d := shop(t, "console_changed")
	n.create(d)
	n.captures("shop")
	const at = "databases/shop"
	status, _, page := n.send(at, url.Values{"do": {"tables"}, "tables": {"public.orders\r\nno pattern.at all.is this"}})
	if status != http.StatusUnprocessableEntity {
		t.Errorf("a wrong pattern: status %d", status)
	}
	holds(t, "the page with a wrong pattern", page, `aria-invalid="true"`, "is not a pattern", "public.orders\nno pattern")
	if status, to, page := n.send(at, url.Values{"do": {"tables"}, "tables": {"public.orders\r\n-public.audit"}}); status != http.StatusSeeOther {
		t.Fatalf("status %d to %q\n%s", status, to, page)
	}
	if now, err := n.api.Database(t.Context(), "shop"); err != nil || !slices.Equal(now.Patterns, []string{"public.orders", "-public.audit"}) {
		t.Errorf("it captures %v, %v", now.Patterns, err)
	}
	n.captures("shop")
	n.send(at, url.Values{"do": {"delete"}, "typed": {"another"}})
	holds(t, "its page after a wrong name was typed", n.consolePage(at), ">Delete<")
	status, _, page = n.send(at, url.Values{"do": {"delete"}, "typed": {"shop"}, "slot": {"keep"}})
	if status != http.StatusOK || slots(t, address, "console_changed") != 1 {
		t.Errorf("deleted with its slot kept: status %d", status)
	}
	holds(t, "what is left", page, "slot console_changed: kept, as asked", "<pre tabindex=\"0\">SELECT pg_drop_replication_slot(&#39;console_changed&#39;);", "publication lockstep_shop_inserts: kept")

	d.Name, d.Slot, d.Publication = "second", "console_dropped", "console_dropped"
	n.create(d)
	n.captures("second")
	if status, to, _ := n.send("databases/second", url.Values{"do": {"delete"}, "typed": {"second"}}); status != http.StatusSeeOther || to != "/console/databases" {
		t.Errorf("deleted: status %d to %q", status, to)
	}
	if slots(t, address, "console_dropped") != 0 {
		t.Error("the slot is still there")
	}
	if _, err := n.api.Database(t.Context(), "second"); !errors.Is(err, lockstep.ErrNotFound) {
		t.Errorf("it is still there: %v", err)
	}
}
