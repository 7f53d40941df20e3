package console_test

import (
	"fmt"
	"strconv"
	"strings"
	"testing"
	"time"

	"lockstep/internal/pgdb/pgtest"
)

// press presses the button, or follows the link, that a person knows by this text, and
// says yes to what it asks.
func (b *browser) press(text string) {
	b.t.Helper()
	found := fmt.Sprintf(`[...document.querySelectorAll('main button, main a, nav a')].find(e => e.checkVisibility() && e.innerText.trim() === %s)`, strconv.Quote(text))
	b.wait("the button "+text, found)
	b.eval(`window.confirm = () => true; document.documentElement.dataset.old = 'true'; (` + found + `).click(); ''`)
}

// leads presses something that leads to another page, and waits for it.
func (b *browser) leads(text string) {
	b.t.Helper()
	b.press(text)
	b.wait("another page after "+text, "!document.documentElement.dataset.old && window.lockstep && document.readyState === 'complete'")
}

// fill writes into a field as a person would.
func (b *browser) fill(name, value string) {
	b.t.Helper()
	field := fmt.Sprintf("document.querySelector('main [name=%s]')", strconv.Quote(name))
	b.wait("the field "+name, field)
	b.eval(fmt.Sprintf("{ const f = %s; f.focus(); f.value = %s; f.dispatchEvent(new Event('input', {bubbles: true})); f.dispatchEvent(new Event('change', {bubbles: true})); '' }", field, strconv.Quote(value)))
}

// says waits until the page shows a text.
func (b *browser) says(text string) {
	b.t.Helper()
	b.wait(text, "document.body.innerText.includes("+strconv.Quote(text)+")")
}

func orders(from, to int) string {
	return fmt.Sprintf("INSERT INTO orders SELECT g, 'customer ' || g %% 7, g * 1.25, '' FROM generate_series(%d, %d) g", from, to)
}

// TestFromTheSymptomToTheRemedy follows what a person does who opens the console at
// three in the morning: something needs them, and they get to it by clicking.
func TestFromTheSymptomToTheRemedy(t *testing.T) {
	t.Parallel()
	n := newNode(t, demonstrated)
	pgtest.Exec(t, n.pg, orders(1, 20))
	n.refuse("orders", 20)
	b := newBrowser(t)
	b.size(1280, 900, "light")
	b.enter(n, adminToken)

	b.says("What needs you")
	b.leads("consumer orders")
	b.says("There are dead letters")
	b.leads("Pause")
	b.says("paused")
	b.leads("Resume")
	b.says("Resumed")
	b.open(n.url + b.eval("document.querySelector('nav.tabs a[href$=\"/dead\"]').getAttribute('href')"))
	b.wait("the letters", "document.querySelectorAll('input[name=seq]').length === 20")
	b.eval("[...document.querySelectorAll('input[name=seq]')].slice(0, 5).forEach(c => c.checked = true); ''")
	b.leads("Retry the chosen")
	b.wait("five of them on their way", "[...document.querySelectorAll('main tbody tr')].filter(r => r.innerText.includes('retrying')).length === 5")
	batch, err := n.api.Next(t.Context(), "orders", 100, 0)
	if err != nil || len(batch.Deliveries) != 5 {
		t.Errorf("%d changes are handed out again, %v; want 5", len(batch.Deliveries), err)
	}
	b.silent("from the symptom to the remedy")
}

// TestAConsumerIsMadeByForm tries its filter on real changes first.
func TestAConsumerIsMadeByForm(t *testing.T) {
	t.Parallel()
	n := newNode(t, pulled)
	pgtest.Exec(t, n.pg, orders(1, 30))
	b := newBrowser(t)
	b.size(1280, 900, "dark")
	b.enter(n, adminToken)
	b.open(n.url + "/console/create/consumer")
	b.fill("name", "large")
	b.fill("tables", "public.orders")
	b.fill("filter", "record.amount >")
	b.leads("Try it on the last 100 changes")
	b.wait("the field's fault", "document.querySelector('[name=filter][aria-invalid=true]')")
	b.fill("filter", "record.id > 20")
	b.leads("Try it on the last 100 changes")
	b.says("10 pass")
	b.leads("Create the consumer")
	b.wait("its page, with how to connect", "location.pathname.endsWith('/connect')")
	b.says("/v1/http-consumers/large")
	if k, err := n.api.Consumer(t.Context(), "large"); err != nil || k.Filter != "record.id > 20" {
		t.Errorf("made: %+v, %v", k.Definition, err)
	}
	b.silent("making a consumer")
}

// TestTheStreamIsFollowedLive filters, pauses and goes on.
func TestTheStreamIsFollowedLive(t *testing.T) {
	t.Parallel()
	n := newNode(t, pulled)
	b := newBrowser(t)
	b.size(1280, 900, "light")
	b.enter(n, adminToken)
	b.open(n.url + "/console/stream?tables=public.orders&filter=" + "record.id+%25+2+%3D%3D+0")
	b.wait("the tail to be live", "document.querySelector('#tail-pause') && !document.querySelector('#tail-pause').hidden && document.body.innerText.includes('live')")
	pgtest.Exec(t, n.pg, orders(1, 6))
	shown := func(want int) string {
		return fmt.Sprintf("[...document.querySelectorAll('main tbody tr')].filter(r => r.innerText.includes('public.orders')).length === %d", want)
	}
	b.wait("three changes", shown(3))
	b.press("Pause")
	pgtest.Exec(t, n.pg, orders(7, 12))
	pgtest.Eventually(t, time.Minute, "the changes to be captured", func() bool {
		d, err := n.api.Database(t.Context(), "app")
		return err == nil && d.LastSeq >= 12
	})
	if b.eval("String("+shown(3)+")") != "true" {
		t.Error("a paused tail went on")
	}
	b.eval("document.querySelector('#tail-pause').click(); ''")
	b.wait("six changes", shown(6))
	b.eval("document.querySelector('main tbody a').click(); ''")
	b.says("Its way")
	if text := b.shows(); !strings.Contains(text, "Committed") || !strings.Contains(text, "orders") {
		t.Errorf("the change's page shows %s", text)
	}
	b.silent("the stream")
}
