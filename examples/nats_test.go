package examples_test

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"

	"lockstep/internal/pgdb/pgtest"
)

// TestNATSGo: killed under load, with a server of one's own and with the node's.
func TestNATSGo(t *testing.T) {
	t.Parallel()
	t.Run("of one's own", func(t *testing.T) {
		t.Parallel()
		broker, err := server.NewServer(&server.Options{Host: "127.0.0.1", Port: -1, JetStream: true, StoreDir: t.TempDir(), NoSigs: true, NoLog: true})
		if err != nil {
			t.Fatal(err)
		}
		broker.Start()
		t.Cleanup(func() { broker.Shutdown(); broker.WaitForShutdown() })
		if !broker.ReadyForConnections(30 * time.Second) {
			t.Fatal("the NATS server does not start")
		}
		consumeFromNATS(t, newNode(t, "", ""), broker.ClientURL(), map[string]string{"url": broker.ClientURL()})
	})
	t.Run("the node's", func(t *testing.T) {
		t.Parallel()
		address := freeAddress(t)
		n := newNode(t, "secret", "tokens: [{name: all, token: secret, scopes: [admin]}]\nstream: {listen: "+address+"}\n")
		consumeFromNATS(t, n, "nats://secret@"+address, nil)
	})
}

func consumeFromNATS(t *testing.T, n *node, url string, settings map[string]string) {
	t.Helper()
	pgtest.Eventually(t, time.Minute, "the control plane to take the consumer", func() bool {
		_, err := n.api.CreateConsumer(t.Context(), map[string]any{
			"name": "orders", "kind": "nats", "tables": []string{"public.orders"}, "start": "beginning", "nats": settings,
		})
		return err == nil
	})
	n.load(0)
	n.settled() // the stream is made with the first change
	file := filepath.Join(t.TempDir(), "orders.json")
	p := newProgram(t, []string{"NATS_URL=" + url, "COPY=" + file}, build(t, "nats-go"))
	for round := 1; round < 4; round++ {
		p.start()
		n.load(round)
		pgtest.Eventually(t, time.Minute, "some rows", func() bool { return len(copied(file)) > 50 })
		p.kill()
	}
	p.start()
	pgtest.Eventually(t, 90*time.Second, "the copy to equal the table", func() bool { return slices.Equal(copied(file), n.table()) })
	n.exec("TRUNCATE orders")
	pgtest.Eventually(t, time.Minute, "the rows to be gone", func() bool { return len(copied(file)) == 0 })
	p.terminate()
	if strings.Contains(p.text(), "level=ERROR") {
		t.Error("it failed meanwhile")
	}
}

// copied is what a program has written of the rows.
func copied(file string) []string {
	text, err := os.ReadFile(file)
	rows := map[string]struct{ Record *struct{ ID, Amount int } }{}
	if err != nil || json.Unmarshal(text, &rows) != nil {
		return nil
	}
	var list []string
	for _, r := range rows {
		if r.Record != nil {
			list = append(list, fmt.Sprintf("%d %d", r.Record.ID, r.Record.Amount))
		}
	}
	slices.Sort(list)
	return list
}
