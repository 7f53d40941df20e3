package console_test

import (
	"context"
	"fmt"
	"maps"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/network"
	"github.com/chromedp/chromedp"

	"lockstep/client"
	"lockstep/internal/pgdb/pgtest"
)

const demonstrated = `  - {name: orders, database: app, tables: [public.orders], start: beginning, max_attempts: 1}
  - {name: waiting, database: app, tables: [public.orders], start: beginning}
  - {name: customers, collections: ["stripe:customer"], start: beginning}
  - name: shop
    kind: webhook
    database: app
    tables: [public.orders]
    start: beginning
    webhook: {url: "http://127.0.0.1:9/hook", allow_private: true, secret: whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw}
`

// enter signs the browser in.
func (b *browser) enter(n *node, token string) {
	b.t.Helper()
	b.open(n.url + "/console/")
	b.wait("the sign-in page", "document.querySelector('input[name=token]')")
	b.do(chromedp.SendKeys(chromedp.CSS("input[name=token]"), token), chromedp.Click(chromedp.CSS("main button[type=submit]")))
	b.wait("the overview", "document.querySelector('.flow')")
}

// TestPagesInABrowser opens every page, light and dark, wide and narrow: nothing is said
// in the browser's console, axe finds nothing serious, and what is hostile is text.
func TestPagesInABrowser(t *testing.T) {
	t.Parallel()
	n := newNode(t, demonstrated)
	b := newBrowser(t)
	pgtest.Exec(t, n.pg, "INSERT INTO orders SELECT g, 'customer ' || g % 7, g * 1.25, '"+strings.ReplaceAll(hostile, "'", "''")+"' FROM generate_series(1, 300) g",
		"UPDATE orders SET amount = amount + 1 WHERE id % 3 = 0", "DELETE FROM orders WHERE id % 50 = 0")
	n.refuse("orders", 300)
	for _, do := range []func(context.Context, string) error{n.api.PauseConsumer, n.api.ResumeConsumer} { // for the audit
		if err := do(t.Context(), "waiting"); err != nil {
			t.Fatal(err)
		}
	}
	b.size(1280, 900, "light")
	b.enter(n, adminToken)
	b.silent("sign-in")
	pages := pagesOf(t, n)
	for _, name := range slices.Sorted(maps.Keys(pages)) {
		path := pages[name]
		t.Run(name, func(t *testing.T) {
			p, all := b, b.t
			p.t = t // its failures are this page's
			defer func() { p.t = all }()
			for _, scheme := range []string{"light", "dark"} {
				p.size(1280, 900, scheme)
				p.open(n.url + path)
				p.wait("charts to be drawn", drawn)
				p.accessible(path + ", " + scheme)
				p.picture(name + "-" + scheme)
				if p.eval("String(document.querySelectorAll('img, main script').length)") != "0" {
					t.Errorf("%s: a value became an element", path)
				}
			}
			p.size(390, 844, "light")
			p.open(n.url + path)
			p.picture(name + "-phone")
			if p.eval("String(document.documentElement.scrollWidth <= innerWidth)") != "true" {
				t.Errorf("%s is %s wide on a phone of 390", path, p.eval("String(document.documentElement.scrollWidth)"))
			}
			p.silent(path)
		})
	}
}

// drawn is true when every chart is, or has nothing to draw yet.
const drawn = "[...document.querySelectorAll('figure[data-chart]')].every(f => f.querySelector('canvas') || 'empty' in f.dataset)"

// pagesOf names every page with an address that shows something on it.
func pagesOf(t testing.TB, n *node) map[string]string {
	t.Helper()
	k, err := n.api.Consumer(t.Context(), "orders")
	if err != nil {
		t.Fatal(err)
	}
	hook, err := n.api.Consumer(t.Context(), "shop")
	if err != nil {
		t.Fatal(err)
	}
	s, err := n.api.Sync(t.Context(), "acme")
	if err != nil {
		t.Fatal(err)
	}
	edited, mirrored := n.change(client.TailOptions{Tables: []string{"public.orders"}, Actions: []string{"update"}}), n.change(client.TailOptions{Tables: []string{"stripe.customer"}})
	at := "/console/consumers/" + url.PathEscape(k.ID)
	return map[string]string{
		"overview": "/console/", "databases": "/console/databases", "database": "/console/databases/app", "syncs": "/console/syncs",
		"sync": "/console/syncs/" + url.PathEscape(s.ID), "stream": "/console/stream",
		"change": fmt.Sprintf("/console/databases/app/changes/%d", edited), "change-mirrored": fmt.Sprintf("/console/databases/app/changes/%d", mirrored),
		"consumers": "/console/consumers", "consumer": at, "dead": at + "/dead", "connect": at + "/connect", "settings": at + "/settings", "backfills": at + "/backfills",
		"attempts":        "/console/consumers/" + url.PathEscape(hook.ID) + "/attempts",
		"create-consumer": "/console/create/consumer", "create-sync": "/console/create/sync", "create-database": "/console/create/database",
		"setup": "/console/setup", "audit": "/console/audit",
	}
}

// change waits for the first change of a kind, and returns its seq.
func (n *node) change(o client.TailOptions) uint64 {
	n.t.Helper()
	o.From = "beginning"
	ctx, cancel := context.WithTimeout(n.t.Context(), time.Minute)
	defer cancel()
	for e, err := range n.api.Tail(ctx, "app", o) {
		if err != nil {
			n.t.Fatal(err)
		}
		c, err := client.ParseChange(e.Data)
		if err != nil {
			n.t.Fatal(err)
		}
		return c.Metadata.Seq
	}
	n.t.Fatal("the tail ended without a change")
	return 0
}

// TestAPageOutlivesItsNode: the node goes away under an open page and comes back.
func TestAPageOutlivesItsNode(t *testing.T) {
	t.Parallel()
	n := newNode(t, demonstrated)
	b := newBrowser(t)
	b.size(1280, 900, "light")
	b.enter(n, adminToken)
	n.stop()
	b.wait("the page to say that the node is away", "!document.getElementById('lost').hidden")
	n.start()
	b.wait("the page to go on", "document.getElementById('lost').hidden")
	pgtest.Exec(t, n.pg, "INSERT INTO orders SELECT g, 'a', 1, '' FROM generate_series(1, 123) g")
	pgtest.Eventually(t, time.Minute, "the page to show the new changes", func() bool { return strings.Contains(b.shows(), "123 waiting") })

	// The session ends under the open page: its reader is asked to sign in, and comes back.
	b.do(func(ctx context.Context, t *chromedp.Target) (chromedp.Void, error) {
		_, err := cdp.Call(ctx, t, network.ClearBrowserCookies, cdp.Empty{})
		return chromedp.Void{}, err
	})
	b.wait("the sign-in page", "location.pathname === '/console/sign-in' && document.querySelector('input[name=token]')")
}
