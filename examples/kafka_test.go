package examples_test

import (
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kfake"

	"lockstep/internal/pgdb/pgtest"
)

// TestKafkaGo: killed under load.
func TestKafkaGo(t *testing.T) {
	t.Parallel()
	broker, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.DefaultNumPartitions(3))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(broker.Close)
	n := newNode(t, "", "")
	pgtest.Eventually(t, time.Minute, "the control plane to take the consumer", func() bool {
		_, err := n.api.CreateConsumer(t.Context(), map[string]any{
			"name": "orders", "kind": "kafka", "tables": []string{"public.orders"}, "start": "beginning", "kafka": map[string]any{"brokers": broker.ListenAddrs()},
		})
		return err == nil
	})
	n.load(0)
	n.settled() // the topic is made with the first change
	file := filepath.Join(t.TempDir(), "orders.json")
	p := newProgram(t, []string{"KAFKA_BROKERS=" + strings.Join(broker.ListenAddrs(), ","), "COPY=" + file}, build(t, "kafka-go"))
	for round := 1; round < 3; round++ {
		p.start()
		n.load(round)
		pgtest.Eventually(t, time.Minute, "some rows", func() bool { return len(copied(file)) > 50 })
		p.terminate() // killed, its membership would last for the session's 45 s
	}
	p.start()
	pgtest.Eventually(t, time.Minute, "the copy to equal the table", func() bool { return slices.Equal(copied(file), n.table()) })
	n.load(3)
	p.kill()
	p.start()
	n.exec("UPDATE orders SET amount = amount + 1 WHERE id % 7 = 0", "DELETE FROM orders WHERE id % 5 = 0")
	pgtest.Eventually(t, 2*time.Minute, "the copy to equal the table after the session of the one that was killed", func() bool { return slices.Equal(copied(file), n.table()) })
	p.terminate()
	if strings.Contains(p.text(), "level=ERROR") {
		t.Error("it failed meanwhile")
	}
}
