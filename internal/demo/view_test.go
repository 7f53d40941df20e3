package demo

import (
	"encoding/json"
	"strings"
	"testing"

	"lockstep/internal/pgdb"
	"lockstep/internal/pgdb/pgtest"
)

func TestMain(m *testing.M) { pgtest.Main(m) }

// filled returns a database with the demo's tables and a view that has seen them.
func filled(t *testing.T) (*view, func() []string) {
	t.Helper()
	url := pgtest.Database(t)
	db, err := pgdb.Open(t.Context(), url, "test")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(db.Close)
	if err := createTables(t.Context(), db); err != nil {
		t.Fatal(err)
	}
	pgtest.Exec(t, url, `INSERT INTO pgbench_accounts VALUES (1, 1, 10), (2, 1, 20)`, `INSERT INTO pgbench_history VALUES (1, 1, 1, 5)`)
	v := newView()
	v.apply("pgbench_accounts", "insert", []string{"1"}, 1, json.RawMessage(`{"aid":1,"abalance":10}`))
	v.apply("pgbench_accounts", "insert", []string{"2"}, 2, json.RawMessage(`{"aid":2,"abalance":20}`))
	v.apply("pgbench_history", "insert", nil, 3, nil)
	return v, func() []string {
		if _, err := v.compare(t.Context(), db); err != nil {
			t.Fatal(err)
		}
		return v.faults
	}
}

func TestViewThatSawEverythingEqualsTheTables(t *testing.T) {
	t.Parallel()
	v, faults := filled(t)
	v.apply("pgbench_accounts", "insert", []string{"2"}, 2, json.RawMessage(`{"aid":2,"abalance":20}`)) // a redelivery changes nothing
	if got := faults(); len(got) != 0 {
		t.Errorf("faults: %q", got)
	}
}

func TestViewNoticesWhatIsWrong(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		spoil func(*view)
		want  string
	}{
		"a change out of order": {func(v *view) { v.apply("pgbench_accounts", "update", []string{"2"}, 1, nil) }, "came after"},
		"a change too many": {func(v *view) {
			v.apply("pgbench_accounts", "update", []string{"1"}, 4, json.RawMessage(`{"abalance":11}`))
		}, "the table 10"},
		"a row too few":    {func(v *view) { v.apply("pgbench_accounts", "delete", []string{"1"}, 4, nil) }, "never saw it"},
		"a row too many":   {func(v *view) { v.apply("pgbench_tellers", "insert", []string{"9"}, 4, json.RawMessage(`{}`)) }, "the workers have 1 rows"},
		"lost history":     {func(v *view) { clear(v.history) }, "the workers saw 0 rows"},
		"a truncate of it": {func(v *view) { v.apply("pgbench_accounts", "truncate", nil, 4, nil) }, "never saw it"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			v, faults := filled(t)
			c.spoil(v)
			if got := strings.Join(faults(), "\n"); !strings.Contains(got, c.want) {
				t.Errorf("faults %q, want one with %q", got, c.want)
			}
		})
	}
}
