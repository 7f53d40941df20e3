package engine_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"lockstep"
	"lockstep/client"
	"lockstep/engine"
	"lockstep/internal/config"
	"lockstep/internal/pgdb/pgtest"
)

// take takes changes until it has that many.
func take(t *testing.T, api *client.Client, consumer string, n int) []client.Delivery {
	t.Helper()
	var all []client.Delivery
	deadline := time.Now().Add(30 * time.Second)
	for len(all) < n && time.Now().Before(deadline) {
		got, err := api.Next(t.Context(), consumer, n-len(all), time.Second)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, got.Deliveries...)
	}
	if len(all) < n {
		t.Fatalf("%d changes came, want %d", len(all), n)
	}
	return all
}

func ack(t *testing.T, api *client.Client, consumer string, deliveries ...client.Delivery) {
	t.Helper()
	tokens := make([]string, len(deliveries))
	for i, d := range deliveries {
		tokens[i] = d.Token
	}
	if err := api.Ack(t.Context(), consumer, tokens...); err != nil {
		t.Fatal(err)
	}
}

func TestStoppedNodeDrainsAndGoesOnWhereItWas(t *testing.T) {
	t.Parallel()
	url := pgtest.Database(t)
	pgtest.Exec(t, url, `CREATE TABLE orders (id int PRIMARY KEY)`)
	n := newNode(t, url, "  - {name: orders, tables: [public.orders], start: beginning}\n")
	n.start()
	pgtest.Exec(t, url, `INSERT INTO orders SELECT generate_series(1, 10)`)
	got := take(t, n.api, "orders", 10)
	ack(t, n.api, "orders", got[:6]...)
	if err := n.stop(); err != nil {
		t.Fatalf("the node did not end in order: %v", err)
	}
	pgtest.Exec(t, url, `INSERT INTO orders VALUES (11)`)
	n.start()
	var pks []string
	for _, d := range take(t, n.api, "orders", 5) {
		pks = append(pks, d.Metadata.RecordPKs...)
	}
	if want := "7 8 9 10 11"; strings.Join(pks, " ") != want {
		t.Errorf("after the restart came %v, want %s", pks, want)
	}
	if err := n.api.Ack(t.Context(), "orders", got[0].Token); err != nil {
		t.Errorf("acking again after the restart: %v, want success", err)
	}
	if err := n.api.Ack(t.Context(), "orders", got[9].Token); !errors.Is(err, lockstep.ErrConflict) {
		t.Errorf("an ack with a token of before the restart: %v, want a conflict", err)
	}
}

func TestConsumerMadeByAPISurvivesARestart(t *testing.T) {
	t.Parallel()
	url := pgtest.Database(t)
	pgtest.Exec(t, url, `CREATE TABLE orders (id int PRIMARY KEY, status text)`)
	n := newNode(t, url, "  []\n")
	n.start()
	made, err := n.api.CreateConsumer(t.Context(), client.Definition{Name: "mail", Tables: []string{"public.orders"}, Filter: "record.status == 'paid'", Start: "beginning"})
	if err != nil {
		t.Fatal(err)
	}
	if err := n.api.PauseConsumer(t.Context(), "mail"); err != nil {
		t.Fatal(err)
	}
	n.kill()
	n.start()
	pgtest.Eventually(t, 10*time.Second, "the consumer to be back", func() bool {
		back, err := n.api.Consumer(t.Context(), "mail")
		return err == nil && back.ID == made.ID && back.Filter == made.Filter && back.Status == "paused"
	})
	if err := n.api.ResumeConsumer(t.Context(), "mail"); err != nil {
		t.Fatal(err)
	}
	pgtest.Exec(t, url, `INSERT INTO orders VALUES (1, 'new'), (2, 'paid')`)
	if got := take(t, n.api, "mail", 1); got[0].Metadata.RecordPKs[0] != "2" {
		t.Errorf("got row %v, want 2", got[0].Metadata.RecordPKs)
	}
	if rows := pgtest.Query(t, url, `SELECT action FROM lockstep.audit ORDER BY id`); len(rows) != 3 {
		t.Errorf("the audit has %v, want create, pause and resume", rows)
	}
}

func TestUnreachableDatabaseIsToldAndHeals(t *testing.T) {
	t.Parallel()
	own := pgtest.Cluster(t, nil)
	if err := own.CreateDatabase(t.Context(), "app"); err != nil {
		t.Fatal(err)
	}
	url := own.TCPURL("app")
	if err := own.Kill(); err != nil {
		t.Fatal(err)
	}
	n := newNode(t, url, "  - {name: all, start: beginning}\n")
	n.launch()
	pgtest.Eventually(t, 20*time.Second, "the node to tell the cause", func() bool {
		databases, err := n.api.Databases(t.Context())
		return err == nil && n.api.Ready(t.Context()) != nil && strings.Contains(databases[0].Reason, "connect to")
	})
	if got, err := n.api.Next(t.Context(), "all", 1, 0); err != nil || len(got.Deliveries) != 0 {
		t.Errorf("while the database is away next gave %v, %v; want an empty answer", got, err)
	}
	if err := own.Restart(t.Context()); err != nil {
		t.Fatal(err)
	}
	pgtest.Eventually(t, 40*time.Second, "the node to heal", func() bool { return n.api.Ready(t.Context()) == nil })
}

// embedded is a configuration with a private Postgres.
func embedded(t *testing.T) *config.Config {
	t.Helper()
	cfg := config.Default()
	cfg.DataDir = filepath.Join(t.TempDir(), "data")
	cfg.Listen = "127.0.0.1:0"
	cfg.PGBin = os.Getenv("LOCKSTEP_PG_BIN")
	c := config.DefaultConsumer()
	c.Name, c.Database, c.Start = "all", "app", config.Start{Kind: config.StartBeginning}
	cfg.Consumers = append(cfg.Consumers, c)
	return cfg
}

// run runs an engine until the returned function is called, which returns its error.
func run(t *testing.T, cfg *config.Config) (engine.Node, func() error) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	ready, done := make(chan engine.Node, 1), make(chan error, 1)
	go func() {
		done <- engine.New(cfg, engine.Options{Ready: func(n engine.Node) { ready <- n }}).Run(ctx)
	}()
	stop := func() error {
		cancel()
		err := <-done
		done <- err
		return err
	}
	t.Cleanup(func() { _ = stop() })
	select {
	case n := <-ready:
		return n, stop
	case err := <-done:
		done <- err
		t.Fatalf("the engine ended: %v", err)
	}
	return engine.Node{}, nil
}

func TestTwoEnginesLiveInOneProcess(t *testing.T) {
	t.Parallel()
	for i := range 2 {
		t.Run(fmt.Sprint(i), func(t *testing.T) {
			t.Parallel()
			n, stop := run(t, embedded(t))
			api, err := client.New(client.Config{Server: n.Server})
			if err != nil {
				t.Fatal(err)
			}
			defer api.Close()
			pgtest.Eventually(t, 30*time.Second, "capture", func() bool { return api.Ready(t.Context()) == nil })
			pgtest.Exec(t, n.Databases["app"], `CREATE TABLE things (id int PRIMARY KEY, engine int)`, fmt.Sprintf(`INSERT INTO things VALUES (1, %d)`, i))
			got := take(t, api, "all", 1)
			if want := fmt.Sprintf(`{"id":1,"engine":%d}`, i); string(got[0].Record) != want {
				t.Errorf("got %s, want %s", got[0].Record, want)
			}
			api.Close()
			if err := stop(); err != nil {
				t.Errorf("the engine ended with %v", err)
			}
		})
	}
}

func TestSecondNodeOnADirectoryIsRefused(t *testing.T) {
	t.Parallel()
	cfg := embedded(t)
	run(t, cfg)
	err := engine.New(cfg, engine.Options{}).Run(t.Context())
	if !errors.Is(err, lockstep.ErrConflict) || !strings.Contains(err.Error(), fmt.Sprint(os.Getpid())) {
		t.Errorf("got %v, want a conflict that names the process", err)
	}
}

func TestPortInUseIsToldAndNothingRuns(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	cfg := embedded(t)
	cfg.Listen = l.Addr().String()
	err = engine.New(cfg, engine.Options{}).Run(t.Context())
	if err == nil || !strings.Contains(err.Error(), cfg.Listen) || !strings.Contains(err.Error(), "in use") {
		t.Errorf("got %v, want an error that names the address", err)
	}
}

func TestUnwritableDataDirectoryIsToldAsTheMachines(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	cfg := embedded(t)
	cfg.DataDir = filepath.Join(file, "data")
	if err := engine.New(cfg, engine.Options{}).Run(t.Context()); !errors.Is(err, lockstep.ErrEnvironment) {
		t.Errorf("got %v, want ErrEnvironment", err)
	}
}
