package engine_test

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/alicebob/miniredis/v2"
	"github.com/google/go-cmp/cmp"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"

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

func TestEveryChangeReachesKafkaAndRedis(t *testing.T) {
	cluster, err := kfake.NewCluster(kfake.NumBrokers(1))
	if err != nil {
		t.Fatal(err)
	}
	defer cluster.Close()
	cache := miniredis.RunT(t)
	database := pgtest.Database(t)
	pgtest.Exec(t, database, "CREATE TABLE orders (id bigint PRIMARY KEY, note text)")
	n := newNode(t, database, fmt.Sprintf(`  - {name: log, kind: kafka, start: beginning, kafka: {brokers: [%q], topic: orders}}
  - {name: cache, kind: redis, start: beginning, redis: {url: "redis://%s/0", mode: string, key: "order:{pk}"}}
`, cluster.ListenAddrs()[0], cache.Addr()))
	n.start()
	pgtest.Exec(t, database, "INSERT INTO orders SELECT i, 'n' || i FROM generate_series(1, 500) i", "UPDATE orders SET note = 'last' WHERE id = 7", "DELETE FROM orders WHERE id = 8")
	reader, err := kgo.NewClient(kgo.SeedBrokers(cluster.ListenAddrs()...), kgo.ConsumeTopics("orders"))
	if err != nil {
		t.Fatal(err)
	}
	defer reader.Close()
	records := 0
	pgtest.Eventually(t, 60*time.Second, "every change in Kafka", func() bool {
		bounded, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
		defer cancel()
		records += reader.PollFetches(bounded).NumRecords()
		return records >= 502
	})
	pgtest.Eventually(t, 60*time.Second, "the cache to be as the table", func() bool {
		row, _ := cache.Get("order:7")
		return strings.Contains(row, "last") && !cache.Exists("order:8") && cache.Exists("order:500")
	})
}
