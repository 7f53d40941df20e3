package console_test

import (
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
