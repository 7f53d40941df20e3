package publish

import (
	"context"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"go.uber.org/goleak"

	"lockstep/internal/pattern"
	"lockstep/internal/pgdb"
	"lockstep/internal/pgdb/pgtest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(pgtest.Suite{M: m}) }

const (
	testPublication = "lockstep_app"
	testSecret      = "s3cret"
)

func openPool(t testing.TB, url string) *pgxpool.Pool {
	t.Helper()
	pool, err := pgdb.Open(t.Context(), url, "publish-test")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(pool.Close)
	return pool
}

// newReconciler makes one for the tests' publication; configure may change anything.
func newReconciler(t testing.TB, url string, configure ...func(*Config)) *Reconciler {
	t.Helper()
	config := Config{Pool: openPool(t, url), Database: "app", Publication: testPublication, JoinSecret: testSecret}
	for _, f := range configure {
		f(&config)
	}
	r, err := New(config)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func withPatterns(t testing.TB, list ...string) func(*Config) {
	t.Helper()
	p, err := pattern.Parse(list)
	if err != nil {
		t.Fatal(err)
	}
	return func(c *Config) { c.Patterns = p }
}

func prepare(t testing.TB, r *Reconciler) []TableState {
	t.Helper()
	_, states, err := r.Prepare(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return states
}

func ensure(t testing.TB, r *Reconciler) []TableState {
	t.Helper()
	_, states, err := r.Ensure(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return states
}

func stateOf(t testing.TB, states []TableState, name string) TableState {
	t.Helper()
	for _, s := range states {
		if s.String() == name {
			return s
		}
	}
	t.Fatalf("no state for %s in %v", name, namesOf(states))
	return TableState{}
}

func namesOf(states []TableState) []string {
	names := make([]string, len(states))
	for i, s := range states {
		names[i] = s.String()
	}
	return names
}

// members returns the tables of a publication as the catalog lists them.
func members(t testing.TB, url, publication string) []string {
	t.Helper()
	rows := pgtest.Query(t, url, `
		SELECT n.nspname || '.' || c.relname
		FROM pg_publication_rel m
		JOIN pg_publication p ON p.oid = m.prpubid
		JOIN pg_class c ON c.oid = m.prrelid
		JOIN pg_namespace n ON n.oid = c.relnamespace
		WHERE p.pubname = $1::text
		ORDER BY 1`, publication)
	names := []string{}
	for _, r := range rows {
		names = append(names, r[0])
	}
	return names
}

func wantMembers(t testing.TB, url, publication string, want ...string) {
	t.Helper()
	slices.Sort(want)
	if got := members(t, url, publication); !slices.Equal(got, want) {
		t.Errorf("tables of %s: got %q, want %q", publication, got, want)
	}
}

// tryExec executes a statement as the application would, and returns its error.
func tryExec(t testing.TB, url, sql string) error {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	_, err := openPool(t, url).Exec(ctx, sql)
	return err
}

func serverVersion(t testing.TB, url string) int {
	t.Helper()
	major := pgtest.Query(t, url, `SELECT current_setting('server_version_num')::int / 10000`)[0][0]
	n := 0
	for _, c := range major {
		n = n*10 + int(c-'0')
	}
	return n
}

func contains(t testing.TB, what, text string, parts ...string) {
	t.Helper()
	for _, p := range parts {
		if !strings.Contains(text, p) {
			t.Errorf("%s: got %q, want %q in it", what, text, p)
		}
	}
}
