package console_test

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"

	"lockstep/client"
	"lockstep/internal/pgdb/pgtest"
)

// findings returns what the doctor found last about a table.
func (n *node) findings(table string) []string {
	n.t.Helper()
	report, err := n.api.Doctor(n.t.Context())
	if err != nil {
		n.t.Fatal(err)
	}
	var list []string
	for _, f := range report.Findings {
		if f.Status != "pass" && strings.Contains(f.Summary, table) {
			list = append(list, f.ID+": "+f.Summary)
		}
	}
	return list
}

// TestSetupIsFixedByAButton: the doctor finds a table whose updates do not come, and puts
// it right.
func TestSetupIsFixedByAButton(t *testing.T) {
	t.Parallel()
	n := newNode(t, pulled)
	pgtest.Exec(t, n.pg, "CREATE TABLE scribbles (words text)")
	b := newBrowser(t)
	b.size(1280, 900, "light")
	b.enter(n, adminToken)
	b.leads("Setup")
	b.leads("Examine again")
	b.says("Examined:")
	b.says("Inserts only of public.scribbles")
	if len(n.findings("scribbles")) == 0 {
		t.Error("the API tells nothing of it")
	}
	b.accessible("setup with something to fix")
	b.picture("setup-fix")
	b.leads("Fix it")
	b.says("Done: ALTER TABLE")
	b.wait("the check to be fine", "![...document.querySelectorAll('main .concern')].some(e => e.innerText.includes('scribbles'))")
	if got := n.findings("scribbles"); len(got) > 0 {
		t.Errorf("the API still tells %q", got)
	}
	if got := pgtest.Query(t, n.pg, "SELECT relreplident::text FROM pg_class WHERE oid = 'scribbles'::regclass")[0][0]; got != "f" {
		t.Errorf("its replica identity is %s, want f", got)
	}
	n.eventually("its updates to be captured", func() bool {
		tables, err := n.api.Tables(t.Context(), "app", client.Page{Limit: 100})
		return err == nil && slices.ContainsFunc(tables.Data, func(one client.Table) bool { return one.Table == "public.scribbles" && one.Published == "full" })
	})
	b.silent("setup")
}

// TestAGapIsRepairedFromTheOverview: the slot is dropped while the node is away, and rows
// change. Whoever opens the console is told, and gets by clicking to where nothing is
// missing any more.
func TestAGapIsRepairedFromTheOverview(t *testing.T) {
	t.Parallel()
	n := newNode(t, pulled)
	pgtest.Exec(t, n.pg, orders(1, 5))
	held := map[string]string{} // what a worker knows of the rows
	follow(t, n, held, func() bool { return len(held) == 5 })
	n.stop()
	pgtest.Exec(t, n.pg, "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE database = current_database()",
		"DELETE FROM orders WHERE id = 2", "UPDATE orders SET amount = 99.5 WHERE id = 3", orders(6, 6))
	n.start()
	b := newBrowser(t)
	b.size(1280, 900, "dark")
	b.enter(n, adminToken)
	b.says("Changes may be missing since")
	b.wait("the remedy, to copy", "[...document.querySelectorAll('main .concern .copy pre')].some(e => e.innerText.includes('lockstep backfill --gap --database app'))")
	b.accessible("the overview with a gap")
	b.picture("overview-gap")
	b.leads("database app")
	b.says("slot_lost")
	b.accessible("a database with a gap")
	b.picture("database-gap")
	b.leads("Repair the gap")
	b.says("The repair has begun")
	n.eventually("the gap to be closed", func() bool {
		d, err := n.api.Database(t.Context(), "app")
		return err == nil && len(d.Gaps) == 0
	})
	follow(t, n, held, func() bool { return held["2"] == "" && held["3"] == "99.50" && held["6"] != "" })
	if got := fmt.Sprint(len(held)); got != pgtest.Query(t, n.pg, "SELECT count(*) FROM orders")[0][0] {
		t.Errorf("the worker knows %v", held)
	}
	b.wait("the page to say so", "!document.body.innerText.includes('Changes may be missing')")
	b.leads("Overview")
	b.wait("nothing to need anybody", "document.querySelector('h1').innerText === 'All is well'")
	b.silent("repairing a gap")
}

// follow takes changes of orders into what is held of them, until that is as it should be.
func follow(t *testing.T, n *node, held map[string]string, until func() bool) {
	t.Helper()
	n.eventually("the worker to know every row", func() bool {
		batch, err := n.api.Next(t.Context(), "orders", 100, 0)
		if err != nil {
			t.Fatal(err)
		}
		for _, d := range batch.Deliveries {
			var row struct {
				ID     json.Number
				Amount json.Number
			}
			if d.Change.Action == "gap" {
				continue // it says that something is missing, and the repair sends it
			}
			if err := json.Unmarshal(d.Change.Record, &row); err != nil {
				t.Fatalf("%s: %v", d.Change.Record, err)
			}
			if held[row.ID.String()] = row.Amount.String(); d.Change.Action == "delete" {
				delete(held, row.ID.String())
			}
			if err := n.api.Ack(t.Context(), "orders", d.Token); err != nil {
				t.Fatal(err)
			}
		}
		return until()
	})
}
