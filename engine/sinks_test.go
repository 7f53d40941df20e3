package engine_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"lockstep/internal/pgdb/pgtest"
)

// A table of one database is kept equal in another, also over a kill in the middle.
func TestPostgresConsumerKeepsAReplica(t *testing.T) {
	source, target := pgtest.Database(t), pgtest.Database(t)
	pgtest.Exec(t, source, "CREATE TABLE orders (id bigint PRIMARY KEY, amount numeric, note text, tags text[], data jsonb, at timestamptz)")
	pgtest.Exec(t, target, "CREATE TABLE orders (id bigint PRIMARY KEY, amount numeric, note text, tags text[], data jsonb, at timestamptz)")
	n := newNode(t, source, fmt.Sprintf(`  - {name: replica, kind: postgres, tables: [public.orders], start: beginning, postgres: {url: %q, table: "public.orders"}}
`, target))
	n.start()
	pgtest.Exec(t, source, `INSERT INTO orders SELECT i, i * 1.10, 'n' || i, ARRAY['a', NULL, 'b"c'], '{"k": 1.10}', now() FROM generate_series(1, 2000) i`)
	n.kill()
	pgtest.Exec(t, source, "UPDATE orders SET note = 'changed' WHERE id % 3 = 0", "DELETE FROM orders WHERE id % 5 = 0", "UPDATE orders SET id = id + 100000 WHERE id % 7 = 0")
	n.start()
	const all = "SELECT id, amount, note, tags, data, at FROM orders ORDER BY id"
	want := pgtest.Query(t, source, all)
	pgtest.Eventually(t, 60*time.Second, "the replica to be equal", func() bool { return cmp.Equal(want, pgtest.Query(t, target, all)) })
}
