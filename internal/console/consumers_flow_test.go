package console_test

import (
	"errors"
	"fmt"
	"html"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"

	"lockstep"
	"lockstep/client"
	"lockstep/internal/pgdb/pgtest"
)

// noticed is what a page tells of the action before it.
var noticed = regexp.MustCompile(`<p class="notice (done|failed)" role="status">([^<]*)</p>`)

// told presses a button as a browser without scripts does, and returns what the page says
// then that it leads to.
func (n *node) told(cookie, address string, form url.Values) string {
	n.t.Helper()
	res := n.send(http.MethodPost, address, cookie, form.Encode())
	if res.StatusCode != http.StatusSeeOther {
		n.t.Fatalf("%s: status %d", address, res.StatusCode)
	}
	for _, c := range res.Cookies() {
		cookie += "; " + c.Name + "=" + c.Value
	}
	next := n.get(res.Header.Get("Location"), cookie)
	text := body(n.t, next)
	said := noticed.FindStringSubmatch(text)
	if next.StatusCode != http.StatusOK || said == nil {
		n.t.Fatalf("%s leads to %s, status %d, without a word: %s", address, res.Header.Get("Location"), next.StatusCode, text)
	}
	return html.UnescapeString(said[2])
}

// together presses the same button twice at the same time, as two people.
func (n *node) together(address string, form url.Values) []string {
	n.t.Helper()
	one, other := n.signedIn(adminToken), n.signedIn(adminToken)
	said := make([]string, 2)
	var both sync.WaitGroup
	for i, cookie := range []string{one, other} {
		both.Go(func() { said[i] = n.told(cookie, address, form) })
	}
	both.Wait()
	slices.Sort(said)
	return said
}

// consumer returns how a consumer is.
func (n *node) consumer(name string) client.Consumer {
	n.t.Helper()
	k, err := n.api.Consumer(n.t.Context(), name)
	if err != nil {
		n.t.Fatal(err)
	}
	return k
}

// create makes a consumer, as soon as the node reaches where it keeps them.
func (n *node) create(d client.Definition) {
	n.t.Helper()
	n.eventually("the consumer "+d.Name, func() bool {
		_, err := n.api.CreateConsumer(n.t.Context(), d)
		if err != nil && !errors.Is(err, lockstep.ErrUnavailable) {
			n.t.Fatal(err)
		}
		return err == nil
	})
}

// within makes what a node and a browser meet the failures of a part of a test.
func within(t *testing.T, n *node, b *browser) {
	node, page := n.t, b.t
	n.t, b.t = t, t
	t.Cleanup(func() { n.t, b.t = node, page })
}

// take takes what a consumer can have at once and acks it; it returns the seqs.
func (n *node) take(name string) []uint64 {
	n.t.Helper()
	batch, err := n.api.Next(n.t.Context(), name, 1000, 0)
	if err != nil {
		n.t.Fatal(err)
	}
	var seqs []uint64
	var tokens []string
	for _, d := range batch.Deliveries {
		seqs, tokens = append(seqs, d.Metadata.Seq), append(tokens, d.Token)
	}
	if len(tokens) > 0 {
		if err := n.api.Ack(n.t.Context(), name, tokens...); err != nil {
			n.t.Fatal(err)
		}
	}
	return seqs
}

// TestAConsumerIsSteered moves, changes, pauses and resumes a consumer that was made by
// API, and looks at one of the configuration.
func TestAConsumerIsSteered(t *testing.T) {
	t.Parallel()
	n := newNode(t, pulled)
	n.create(client.Definition{Name: "mine", Tables: []string{"public.orders"}, Start: "beginning"})
	waiting := func(want uint64) {
		t.Helper()
		n.eventually(fmt.Sprintf("%d changes to wait", want), func() bool { return n.consumer("mine").Stats.Pending == want })
	}
	pgtest.Exec(t, n.pg, orders(1, 10))
	waiting(10)
	between := pgtest.Query(t, n.pg, `SELECT to_char(clock_timestamp() AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI:SS.US')`)[0][0]
	pgtest.Exec(t, n.pg, orders(11, 20))
	waiting(20)
	all := n.take("mine")
	b := newBrowser(t)
	b.size(1280, 900, "light")
	b.enter(n, adminToken)
	b.leads("Consumers")
	b.leads("mine")

	t.Run("back to the beginning", func(t *testing.T) {
		within(t, n, b)
		b.fill("to", "beginning")
		b.leads("Move")
		b.says("Moved to beginning.")
		if got := n.take("mine"); !slices.Equal(got, all) {
			t.Errorf("it gets %v, want %v", got, all)
		}
	})
	t.Run("to a time, to the microsecond", func(t *testing.T) {
		within(t, n, b)
		b.fill("to", "time")
		b.fill("where", between)
		b.leads("Move")
		b.says("What was in flight is handed out anew")
		if got := n.take("mine"); !slices.Equal(got, all[10:]) {
			t.Errorf("it gets %v, want %v", got, all[10:])
		}
	})
	t.Run("nowhere, without an effect", func(t *testing.T) {
		within(t, n, b)
		b.fill("to", "time")
		b.fill("where", "yesterday at noon")
		b.leads("Move")
		b.wait("what is wrong", "document.querySelector('main > .notice.failed[role=status]')?.innerText.includes('yesterday at noon')")
		if k := n.consumer("mine"); k.Stats.Pending != 0 {
			t.Errorf("%d changes wait", k.Stats.Pending)
		}
	})
	t.Run("other settings", func(t *testing.T) { within(t, n, b); otherSettings(t, n, b) })
	t.Run("paused and resumed", func(t *testing.T) {
		within(t, n, b)
		b.leads("Pause")
		b.says("Paused: nothing is handed out until you resume.")
		if k := n.consumer("mine"); k.Status != "paused" {
			t.Errorf("it is %s", k.Status)
		}
		b.leads("Resume")
		b.says("Resumed.")
		if k := n.consumer("mine"); k.Status != "active" {
			t.Errorf("it is %s", k.Status)
		}
	})
	t.Run("one of the configuration is shown, not edited", func(t *testing.T) { within(t, n, b); fixedSettings(t, n, b) })
	b.silent("steering consumers")
}

// otherSettings gives a consumer another filter and fewer attempts.
func otherSettings(t *testing.T, n *node, b *browser) {
	b.leads("Settings")
	b.fill("filter", "record.id >")
	b.leads("Save")
	b.wait("the field's fault", "document.querySelector('[name=filter][aria-invalid=true]')")
	b.accessible("settings with a fault")
	b.fill("filter", "record.id > 15")
	b.fill("max_attempts", "3")
	b.leads("Save")
	b.says("Changed: filter, max_attempts.")
	if k := n.consumer("mine"); k.Filter != "record.id > 15" || k.MaxAttempts != 3 {
		t.Errorf("it is %+v", k.Definition)
	}
	done, err := n.api.Audit(t.Context(), "mine", client.Page{Limit: 10})
	if err != nil || len(done.Data) == 0 || done.Data[0].Action != "consumer.change" || done.Data[0].Actor != "admin" || !strings.Contains(string(done.Data[0].After), "record.id > 15") {
		t.Errorf("the audit: %+v, %v", done.Data, err)
	}
	b.leads("Audit")
	b.eval("document.querySelector('main tbody details').open = true; ''")
	b.wait("the change with who and what", "(r => r.innerText.includes('consumer.change') && r.innerText.includes('record.id > 15') && r.innerText.includes('max_attempts') && r.innerText.includes('admin'))([...document.querySelectorAll('table.audit > tbody > tr:not(.day)')][0])")
	b.leads("Consumers")
	b.leads("mine")
	for _, said := range b.console() {
		if !strings.Contains(said, "status of 422") { // the form with a fault is one
			t.Errorf("the browser's console says %s", said)
		}
	}
	b.mu.Lock()
	b.said = nil
	b.mu.Unlock()
}

// fixedSettings looks at a consumer of the configuration, and tries to change it by a form
// that the page does not have.
func fixedSettings(t *testing.T, n *node, b *browser) {
	b.leads("Consumers")
	b.leads("orders")
	b.leads("Settings")
	b.says("Defined in lockstep.yml: change it there, and restart the node.")
	if b.eval("String(document.querySelectorAll('main :is(input:not([type=hidden]), textarea, select)').length)") != "0" {
		t.Error("there are fields to edit")
	}
	admin, before := n.signedIn(adminToken), n.consumer("orders")
	at := "/console/consumers/" + url.PathEscape(before.ID)
	res := n.send(http.MethodPost, at+"/settings", admin, url.Values{"filter": {"record.id > 3"}}.Encode())
	if text := body(t, res); res.StatusCode != http.StatusUnprocessableEntity || !strings.Contains(text, "Defined in lockstep.yml") {
		t.Errorf("status %d: %s", res.StatusCode, text)
	}
	if said := n.told(admin, at+"/delete", url.Values{"name": {"orders"}}); !strings.Contains(said, "lockstep.yml: change it there") {
		t.Errorf("who deletes it is told %q", said)
	}
	if after := n.consumer("orders"); after.Filter != before.Filter || !after.UpdatedAt.Equal(before.UpdatedAt) {
		t.Errorf("it became %+v", after.Definition)
	}
}

// TestTwoPeoplePressTheSameButton: there is one effect, and both get a sentence.
func TestTwoPeoplePressTheSameButton(t *testing.T) {
	t.Parallel()
	n := newNode(t, pulled)
	b := newBrowser(t)
	n.create(client.Definition{Name: "mine", Tables: []string{"public.orders"}})
	pgtest.Exec(t, n.pg, orders(1, 3))
	n.refuse("orders", 3)
	at := func(name string) string { return "/console/consumers/" + url.PathEscape(n.consumer(name).ID) }

	t.Run("retry a dead letter", func(t *testing.T) {
		within(t, n, b)
		list, _, err := n.api.DeadLetters(t.Context(), "orders", "")
		if err != nil || len(list) != 3 {
			t.Fatalf("%d dead letters, %v", len(list), err)
		}
		said := n.together(fmt.Sprintf("%s/dead/%d/retry", at("orders"), list[0].Seq), url.Values{"back": {at("orders") + "/dead"}})
		if !slices.Contains(said, "1 dead letter is delivered again.") {
			t.Errorf("they are told %q", said)
		}
		batch, err := n.api.Next(t.Context(), "orders", 100, 0)
		if err != nil || len(batch.Deliveries) != 1 || batch.Deliveries[0].Metadata.Seq != list[0].Seq {
			t.Fatalf("%d changes are handed out, %v", len(batch.Deliveries), err)
		}
		if err := n.api.Ack(t.Context(), "orders", batch.Deliveries[0].Token); err != nil {
			t.Fatal(err)
		}
		if again := n.take("orders"); len(again) != 0 {
			t.Errorf("%v are handed out again", again)
		}
		late := n.told(n.signedIn(adminToken), fmt.Sprintf("%s/dead/%d/retry", at("orders"), list[0].Seq), url.Values{"back": {at("orders") + "/dead"}})
		if strings.Contains(late, "1 dead letter is") || !strings.Contains(late, "1 was not there any more") {
			t.Errorf("who comes too late is told %q", late)
		}
	})
	t.Run("resume", func(t *testing.T) {
		within(t, n, b)
		if err := n.api.PauseConsumer(t.Context(), "mine"); err != nil {
			t.Fatal(err)
		}
		if said := n.together(at("mine")+"/resume", url.Values{"back": {at("mine")}}); !slices.Equal(said, []string{"Resumed.", "Resumed."}) {
			t.Errorf("they are told %q", said)
		}
		if k := n.consumer("mine"); k.Status != "active" {
			t.Errorf("it is %s", k.Status)
		}
	})
	t.Run("delete, while somebody looks at it", func(t *testing.T) {
		within(t, n, b)
		b.size(1280, 900, "light")
		b.enter(n, adminToken)
		b.leads("Consumers")
		b.leads("mine")
		said := n.together(at("mine")+"/delete", url.Values{"name": {"mine"}})
		if !slices.Contains(said, "Consumer mine is deleted, with its position and its dead letters.") ||
			!slices.ContainsFunc(said, func(s string) bool { return strings.Contains(s, "somebody else has deleted it") }) {
			t.Errorf("they are told %q", said)
		}
		if _, err := n.api.Consumer(t.Context(), "mine"); !errors.Is(err, lockstep.ErrNotFound) {
			t.Errorf("it is still there: %v", err)
		}
		b.says("Not here")
	})
}

// TestDeadLettersAreLookedAtDroppedAndRetried chooses some, and then takes all the others.
func TestDeadLettersAreLookedAtDroppedAndRetried(t *testing.T) {
	t.Parallel()
	n := newNode(t, pulled)
	pgtest.Exec(t, n.pg, orders(1, 20))
	n.refuse("orders", 20)
	b := newBrowser(t)
	b.size(1280, 900, "light")
	b.enter(n, adminToken)
	b.leads("consumer orders")
	b.eval("document.querySelector('nav.tabs a[href$=\"/dead\"]').click(); ''")
	b.wait("the letters", "document.querySelectorAll('input[name=seq]').length === 20")

	var dropped []uint64
	for text := range strings.FieldsSeq(b.eval("[...document.querySelectorAll('input[name=seq]')].slice(0, 3).map(c => c.value).join(' ')")) {
		var seq uint64
		if _, err := fmt.Sscan(text, &seq); err != nil {
			t.Fatal(err)
		}
		dropped = append(dropped, seq)
	}
	b.eval(fmt.Sprintf("document.querySelector('main tbody a[href$=\"/dead/%d\"]').click(); ''", dropped[0]))
	b.says("As it was delivered")
	b.says("the worker said: " + hostile)
	b.accessible("a dead letter")
	b.picture("dead-letter")
	b.leads("All dead letters")
	b.wait("the letters", "document.querySelectorAll('input[name=seq]').length === 20")
	b.eval("[...document.querySelectorAll('input[name=seq]')].slice(0, 3).forEach(c => c.checked = true); ''")
	b.leads("Drop the chosen")
	b.says("3 dead letters are dropped")
	left, _, err := n.api.DeadLetters(t.Context(), "orders", "")
	if err != nil || len(left) != 17 || slices.ContainsFunc(left, func(l client.DeadLetter) bool { return slices.Contains(dropped, l.Seq) }) {
		t.Errorf("%d dead letters are left, %v", len(left), err)
	}
	b.leads("Retry all 17")
	b.says("17 dead letters are delivered again.")
	if got := n.take("orders"); len(got) != 17 || slices.ContainsFunc(got, func(seq uint64) bool { return slices.Contains(dropped, seq) }) {
		t.Errorf("it gets %v", got)
	}
	n.eventually("no dead letter to be left", func() bool { return n.consumer("orders").Stats.Dead == 0 })
	b.silent("dead letters")
}
