package console_test

import (
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"lockstep/client"
	"lockstep/internal/pgdb/pgtest"
)

// eventually waits for something that the node does by itself.
func (n *node) eventually(what string, cond func() bool) {
	n.t.Helper()
	pgtest.Eventually(n.t, time.Minute, what, cond)
}

// sync returns how the mirror is.
func (n *node) sync() client.Sync {
	n.t.Helper()
	s, err := n.api.Sync(n.t.Context(), "acme")
	if err != nil {
		n.t.Fatal(err)
	}
	return s
}

// register makes a customer in the account that is mirrored.
func (n *node) register(email string) {
	n.t.Helper()
	req, err := http.NewRequestWithContext(n.t.Context(), http.MethodPost, n.vendor+"/v1/customers", strings.NewReader(url.Values{"email": {email}}.Encode()))
	if err != nil {
		n.t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer sk_test_sandbox1")
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		n.t.Fatal(err)
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusOK {
		n.t.Fatalf("make a customer: status %d", res.StatusCode)
	}
}

// customers counts those in the mirror that a condition holds for.
func (n *node) customers(where string) string {
	n.t.Helper()
	return pgtest.Query(n.t, n.pg, "SELECT count(*) FROM stripe.customer WHERE "+where)[0][0]
}

// TestASyncIsSteered presses every button of a sync that asks its API once an hour, so
// that what happens is what was asked for.
func TestASyncIsSteered(t *testing.T) {
	t.Parallel()
	n := newNodeEvery(t, "1h", pulled)
	n.eventually("everything to be read", func() bool { return n.sync().BackfilledAt != nil })
	b := newBrowser(t)
	b.size(1280, 900, "light")
	b.enter(n, adminToken)
	b.leads("Syncs")
	b.leads("acme")
	b.says("polling")

	n.register("asked@example.com")
	b.leads("Run now")
	b.says("Everything is asked for now.")
	n.eventually("the new customer", func() bool { return n.customers("email = 'asked@example.com'") == "1" })

	b.leads("Pause")
	b.says("Paused: the API is asked nothing until it is resumed.")
	b.wait("the button that undoes it", "[...document.querySelectorAll('main button')].some(e => e.innerText === 'Resume')")
	if s := n.sync(); !s.Paused {
		t.Errorf("the API says %s", s.State)
	}
	if strings.Contains(b.shows(), "Run now") {
		t.Error("there is a button that does nothing")
	}
	second := n.signedIn(adminToken) // has the page still open as it was before
	told := n.told(second, "/console/syncs/"+url.PathEscape(n.sync().ID)+"/run", url.Values{"back": {"/console/syncs"}})
	if told != "Sync \"acme\" is paused: resume it." {
		t.Errorf("who presses Run now on an old page is told %q", told)
	}
	n.register("while-paused@example.com")
	b.leads("Resume")
	b.says("Resumed.")
	n.eventually("the customer that came meanwhile", func() bool { return n.customers("email = 'while-paused@example.com'") == "1" })
	if s := n.sync(); s.Paused {
		t.Errorf("the API says %s", s.State)
	}
	b.silent("steering a sync")

	t.Run("what was deleted by hand is told, and put right when that is asked for", func(t *testing.T) { comparesAndRepairs(t, n, b) })

	t.Run("everything is read again", func(t *testing.T) { readsAgain(t, n, b) })
	b.silent("comparing and reading again")
}

// comparesAndRepairs takes a record out of the mirror, and has it told and put back.
func comparesAndRepairs(t *testing.T, n *node, b *browser) {
	t.Helper()
	within(t, n, b)
	lost := pgtest.Query(t, n.pg, "DELETE FROM stripe.customer WHERE id = (SELECT min(id) FROM stripe.customer) RETURNING id")[0][0]
	b.fill("collection", "stripe:customer")
	b.leads("Compare")
	b.wait("what differs", "[...document.querySelectorAll('main td')].some(e => e.innerText === '"+lost+"')")
	b.says("different")
	b.accessible("a comparison")
	b.picture("verify")
	if n.customers("id = '"+lost+"'") != "0" {
		t.Error("a comparison alone put it right")
	}
	b.leads("Put it right")
	b.says("1 record was put right")
	if n.customers("id = '"+lost+"'") != "1" {
		t.Error("it is still missing")
	}
	b.leads("Back to the sync")
	b.says("polling")
}

// readsAgain has every collection read from its beginning.
func readsAgain(t *testing.T, n *node, b *browser) {
	t.Helper()
	within(t, n, b)
	log, err := n.api.SyncLog(t.Context(), "acme", 0, 1)
	if err != nil || len(log) != 1 {
		t.Fatalf("the log: %v, %v", log, err)
	}
	b.leads("Read everything again")
	b.says("Every collection is read again from its beginning.")
	n.eventually("both to be read to their ends", func() bool {
		lines, err := n.api.SyncLog(t.Context(), "acme", 0, 100)
		var read []string
		for _, l := range lines {
			if l.ID > log[0].ID && l.Kind == "backfill" && l.Outcome == "completed" {
				read = append(read, l.Collection)
			}
		}
		slices.Sort(read)
		return err == nil && fmt.Sprint(read) == "[customer product]"
	})
	b.wait("the log to tell it", "[...document.querySelectorAll('#log tbody tr')].some(r => r.innerText.includes('backfill') && r.innerText.includes('completed'))")
}
