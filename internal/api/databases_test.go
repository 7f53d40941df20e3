package api_test

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"lockstep"
	"lockstep/internal/api"
)

// pickyManaged takes everything for the database app, and nothing else.
type pickyManaged struct{}

func (pickyManaged) Loaded() bool { return true }

func (pickyManaged) Create(_ context.Context, d api.DatabaseDefinition) error {
	switch {
	case d.Name != "app":
		return fmt.Errorf("there is a database %q already: %w", d.Name, lockstep.ErrConflict)
	case !d.Unchecked && strings.Contains(d.URL, "minimal"):
		return &api.DatabaseError{Name: d.Name, Wrong: []api.DatabaseFault{{Field: "url", Message: "check wal_level: ALTER SYSTEM"}, {Field: "slot", Message: "check slot_reader: taken"}}}
	}
	return nil
}

func (pickyManaged) Change(_ context.Context, name string, tables []string) error {
	if len(tables) == 1 && tables[0] == "-" {
		return &api.DatabaseError{Name: name, Wrong: []api.DatabaseFault{{Field: "tables[0]", Message: "no pattern"}}}
	}
	return nil
}

func (pickyManaged) Delete(_ context.Context, name string, leave api.LeaveSlot) (api.DatabaseRemoval, error) {
	if leave == api.KeepSlot {
		return api.DatabaseRemoval{Name: name, Left: []string{"slot s"}}, nil
	}
	return api.DatabaseRemoval{Name: name, Dropped: []string{"slot s"}}, nil
}

func TestWhatIsWrongWithADatabaseIsToldByField(t *testing.T) {
	t.Parallel()
	n := newNodeWith(t, func(c *api.Config) { c.Managed = pickyManaged{} })
	for _, c := range []struct {
		method, target, body string
		status               int
		want                 []string
	}{
		{"POST", "/v1/databases", `{"name":"app","url":"postgres://minimal"}`, 422, []string{`"location":"body.url"`, `"location":"body.slot"`, "ALTER SYSTEM"}},
		{"POST", "/v1/databases?check=false", `{"name":"app","url":"postgres://minimal"}`, 201, []string{`"managed_by":"file"`, `"patterns":[]`}},
		{"POST", "/v1/databases", `{"name":"app","url":"postgres://x","poll":{"interval":"1s"}}`, 422, []string{`"location":"body.poll"`}},
		{"POST", "/v1/databases", `{"name":"other","url":"postgres://x"}`, 409, []string{"already"}},
		{"PATCH", "/v1/databases/app", `{"tables":["-"]}`, 422, []string{`"location":"body.tables[0]"`}},
		{"PATCH", "/v1/databases/nope", `{"tables":[]}`, 404, nil},
		{"DELETE", "/v1/databases/nope", "", 404, nil},
		{"DELETE", "/v1/databases/app", "", 200, []string{`"dropped":["slot s"]`, `"left":[]`}},
		{"DELETE", "/v1/databases/app?keep_slot=true", "", 200, []string{`"dropped":[]`, `"left":["slot s"]`}},
	} {
		got := n.do(c.method, c.target, c.body)
		if got.status != c.status {
			t.Errorf("%s %s %s: %d %s, want %d", c.method, c.target, c.body, got.status, got.body, c.status)
		}
		for _, want := range c.want {
			if !strings.Contains(got.body, want) {
				t.Errorf("%s %s: the answer lacks %s: %s", c.method, c.target, want, got.body)
			}
		}
	}
	for _, e := range n.audit.all() {
		if strings.Contains(string(e.After)+string(e.Before), "minimal") {
			t.Errorf("the audit has the URL: %s", e.After)
		}
	}
}
