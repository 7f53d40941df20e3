package engine_test

import (
	"errors"
	"strings"
	"testing"
	"time"

	"lockstep"
	"lockstep/client"
	"lockstep/internal/pgdb/pgtest"
)

func TestTheNodeIsExaminedAndMendedByCall(t *testing.T) {
	t.Parallel()
	url := pgtest.Database(t)
	pgtest.Exec(t, url, `CREATE TABLE keyless (v int)`)
	n := newNode(t, url, "  []\n")
	n.slot("examined")
	n.start()
	began := time.Now()
	r, err := n.api.Examine(t.Context())
	if err != nil || r.At == nil || r.At.Before(began.Add(-time.Second)) || len(r.Findings) < 20 {
		t.Fatalf("the examination: %+v, %v", r, err)
	}
	find := func(r client.Examination) client.Finding {
		for _, f := range r.Findings {
			if f.ID == "table_identity" {
				return f
			}
		}
		t.Fatalf("there is no finding of the identities: %+v", r)
		return client.Finding{}
	}
	bad := find(r)
	if bad.Status != "warn" || !bad.Fixable || bad.Why == "" || !strings.Contains(bad.Remedy, "REPLICA IDENTITY FULL") {
		t.Errorf("the finding: %+v", bad)
	}
	fixed, err := n.api.Fix(t.Context(), bad.ID, bad.Target)
	if err != nil || len(fixed.Done) != 2 || fixed.Done[0].What != `ALTER TABLE "public"."keyless" REPLICA IDENTITY FULL;` || fixed.Done[0].Error != "" || fixed.Done[1].Error != "" {
		t.Fatalf("fixed: %+v, %v", fixed.Done, err)
	}
	if now := find(fixed.Report); now.Status != "pass" || now.Fixable {
		t.Errorf("after it: %+v", now)
	}
	last, err := n.api.Doctor(t.Context())
	if err != nil || last.At == nil || !last.At.Equal(*fixed.Report.At) {
		t.Errorf("the last report: %v, %v; want that of %v", last.At, err, fixed.Report.At)
	}
	if _, err := n.api.Fix(t.Context(), bad.ID, bad.Target); !errors.Is(err, lockstep.ErrConflict) {
		t.Errorf("what is mended, again: %v", err)
	}
	if _, err := n.api.Fix(t.Context(), "nonsense", bad.Target); !errors.Is(err, lockstep.ErrNotFound) {
		t.Errorf("a check that is not there: %v", err)
	}
	// The table is captured in full from then on, without a restart.
	page, err := n.api.Tables(t.Context(), "app", client.Page{})
	if err != nil || len(page.Data) != 1 || page.Data[0].Published != "full" {
		t.Errorf("the table: %+v, %v", page.Data, err)
	}
	audit, err := n.api.Audit(t.Context(), bad.Target, client.Page{})
	if err != nil || len(audit.Data) != 1 || audit.Data[0].Action != "doctor.fix" || !strings.Contains(string(audit.Data[0].After), "REPLICA IDENTITY FULL") {
		t.Errorf("the audit: %+v, %v", audit.Data, err)
	}
}
