package console_test

import (
	"encoding/json"
	"fmt"
	"testing"

	"lockstep/internal/pgdb/pgtest"
)

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
	// The doctor looks again by itself.
	b.wait("the overview to need nobody for it", "document.querySelector('.flow') && ![...document.querySelectorAll('main .concern')].some(e => /database app/i.test(e.innerText))")
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
			if d.Action != "gap" { // that says that something is missing, and the repair sends it
				if err := json.Unmarshal(d.Record, &row); err != nil {
					t.Fatalf("%s: %v", d.Record, err)
				}
				if held[row.ID.String()] = row.Amount.String(); d.Action == "delete" {
					delete(held, row.ID.String())
				}
			}
			if err := n.api.Ack(t.Context(), "orders", d.Token); err != nil {
				t.Fatal(err)
			}
		}
		return until()
	})
}
