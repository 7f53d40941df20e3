package torture_test

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"lockstep/internal/pgdb/pgtest"
)

// scenario is a case that needs no faults: SQL in, lines out.
type scenario struct {
	before []string // what is there before capture begins
	config string   // YAML of the database's entry, such as `, tables: [public.a]`
	in     []string // statements, each a transaction of its own
	out    []string // see line
	terms
}

func (s scenario) run(t *testing.T) *node {
	t.Helper()
	url := pgtest.Database(t)
	if len(s.before) > 0 {
		pgtest.Exec(t, url, s.before...)
	}
	n := newNode(t, url, s.config).start()
	n.exec(s.in...)
	n.check(s.terms)
	n.expect(s.out...)
	return n
}

// expect compares everything that came so far.
func (n *node) expect(lines ...string) {
	n.t.Helper()
	if diff := cmp.Diff(lines, n.lines()); diff != "" {
		n.t.Errorf("what came (-want +got):\n%s", diff)
	}
}
