package engine_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"lockstep"
	"lockstep/client"
	"lockstep/internal/pgdb/pgtest"
)

func TestTheAuditIsReadNewestFirstAndHoldsNoSecrets(t *testing.T) {
	t.Parallel()
	url := pgtest.Database(t)
	pgtest.Exec(t, url, `CREATE TABLE orders (id int PRIMARY KEY)`)
	n := newNode(t, url, "  []\n")
	n.slot("audit_read")
	n.start()
	const secret = "whsec_c2VjcmV0LXNlY3JldC1zZWNyZXQtc2VjcmV0"
	status, answer := n.post("/v1/consumers", `{"name":"hook","kind":"webhook","tables":["public.orders"],"webhook":{"url":"http://127.0.0.1:1/","allow_private":true,"secret":"`+secret+`","headers":{"X-Key":"hidden-header"}}}`)
	if status != 201 {
		t.Fatalf("make the webhook: %d %v", status, answer)
	}
	for i := range 5 {
		if _, err := n.api.CreateConsumer(t.Context(), client.Definition{Name: fmt.Sprintf("c%d", i), Tables: []string{"public.orders"}}); err != nil {
			t.Fatal(err)
		}
	}
	var all []client.AuditEntry
	for p := (client.Page{Limit: 2}); ; {
		page, err := n.api.Audit(t.Context(), "", p)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, page.Data...)
		if p.Cursor = page.Next; p.Cursor == "" {
			break
		}
	}
	var targets []string
	for _, e := range all {
		targets = append(targets, e.Target)
		if e.Actor != "local" || e.Action != "consumer.create" || e.Remote == "" || time.Since(e.At) > time.Minute || string(e.Before) != "null" {
			t.Errorf("entry %+v", e)
		}
		for _, hidden := range []string{secret, "hidden-header"} {
			if strings.Contains(string(e.After), hidden) {
				t.Errorf("the audit holds %s: %s", hidden, e.After)
			}
		}
	}
	if want := "c4 c3 c2 c1 c0 hook"; strings.Join(targets, " ") != want {
		t.Errorf("by pages of two: %v, want %s", targets, want)
	}
	one, err := n.api.Audit(t.Context(), "hook", client.Page{})
	if err != nil || len(one.Data) != 1 || !strings.Contains(string(one.Data[0].After), `"webhook"`) {
		t.Errorf("of one target: %+v, %v", one, err)
	}
}

func TestTheHistoryOfANode(t *testing.T) {
	t.Parallel()
	url := pgtest.Database(t)
	pgtest.Exec(t, url, `CREATE TABLE orders (id int PRIMARY KEY)`)
	n := newNode(t, url, "  - {name: mail, tables: [public.orders], start: beginning}\n")
	n.slot("history")
	n.start()
	pgtest.Exec(t, url, `INSERT INTO orders SELECT generate_series(1, 100)`)
	ack(t, n.api, "mail", take(t, n.api, "mail", 60)...)
	last := func(values []*float64) float64 {
		if len(values) == 0 || values[len(values)-1] == nil {
			return -1
		}
		return *values[len(values)-1]
	}
	var h client.History
	pgtest.Eventually(t, 40*time.Second, "two samples, the last with what waits", func() bool {
		var err error
		if h, err = n.api.History(t.Context(), client.HistoryQuery{Minutes: 5}); err != nil {
			t.Fatal(err)
		}
		mail := h.Consumers["mail"]
		return last(mail.Pending) == 40 && last(mail.Settled) >= 0 && last(h.Databases["app"].Changes) >= 0
	})
	if len(h.At) != 30 || len(h.Consumers["mail"].Pending) != 30 || h.At[29]%10 != 0 || h.At[29]-h.At[0] != 290 || h.Consumers["mail"].Pending[0] != nil {
		t.Errorf("the places: %v, %v", h.At, h.Consumers["mail"].Pending)
	}
	if h.Node == nil || last(h.Node.RSS) < 1<<20 || last(h.Node.Goroutines) < 10 || last(h.Databases["app"].Lag) < 0 {
		t.Errorf("the node: %+v", h.Node)
	}
	c, err := n.api.Consumer(t.Context(), "mail")
	if err != nil || c.Stats.Rate == nil {
		t.Errorf("the consumer's rate: %v, %v", c.Stats.Rate, err)
	}
	one, err := n.api.History(t.Context(), client.HistoryQuery{Consumer: c.ID})
	if err != nil || len(one.Consumers) != 1 || len(one.Databases) != 0 || one.Node != nil || len(one.At) != 360 {
		t.Errorf("of one consumer: %v, %+v", err, one)
	}
	if _, err := n.api.History(t.Context(), client.HistoryQuery{Consumer: "nobody"}); !errors.Is(err, lockstep.ErrNotFound) {
		t.Errorf("of nobody: %v", err)
	}
}
