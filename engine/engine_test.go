package engine_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
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

// get returns status and body of what is at the address, or 0 when nothing is.
func get(t *testing.T, address string) (int, string) {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, address, nil)
	if err != nil {
		t.Fatal(err)
	}
	c := http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: 10 * time.Second}
	answer, err := c.Do(request)
	if err != nil {
		return 0, ""
	}
	defer answer.Body.Close()
	body, err := io.ReadAll(answer.Body)
	if err != nil {
		return 0, ""
	}
	return answer.StatusCode, string(body)
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
	pgtest.Eventually(t, 20*time.Second, "readiness to tell the cause", func() bool {
		status, body := get(t, "http://"+n.server+"/readyz")
		return status == http.StatusServiceUnavailable && strings.Contains(body, "connect to")
	})
	if err := own.Restart(t.Context()); err != nil {
		t.Fatal(err)
	}
	pgtest.Eventually(t, 40*time.Second, "the node to heal", func() bool { return n.api.Ready(t.Context()) == nil })
}

func TestNodeThatCapturesNoTableIsNotReady(t *testing.T) {
	t.Parallel()
	own := pgtest.Cluster(t, nil)
	if err := own.CreateDatabase(t.Context(), "app"); err != nil {
		t.Fatal(err)
	}
	pgtest.Exec(t, own.URL("app"), `CREATE TABLE foreign_to_us (id int PRIMARY KEY)`, `CREATE ROLE little LOGIN REPLICATION PASSWORD 'x'`, `GRANT CREATE ON DATABASE app TO little`)
	url := strings.Replace(own.URL("app"), "://postgres@", "://little@", 1)
	n := newNode(t, url, "  []\n")
	n.launch()
	pgtest.Eventually(t, 20*time.Second, "readiness to name the table and the remedy", func() bool {
		status, body := get(t, "http://"+n.server+"/readyz")
		return status == http.StatusServiceUnavailable && strings.Contains(body, "public.foreign_to_us") && strings.Contains(body, "GRANT")
	})
	pgtest.Exec(t, own.URL("app"), `ALTER TABLE foreign_to_us OWNER TO little`)
	pgtest.Eventually(t, 20*time.Second, "the node to be ready by itself", func() bool { return n.api.Ready(t.Context()) == nil })
}

func TestDeliveryGoesOnWhilePostgresIsAway(t *testing.T) {
	t.Parallel()
	own := pgtest.Cluster(t, nil)
	if err := own.CreateDatabase(t.Context(), "app"); err != nil {
		t.Fatal(err)
	}
	url := own.URL("app")
	pgtest.Exec(t, url, `CREATE TABLE orders (id int PRIMARY KEY)`)
	n := newNode(t, url, "  - {name: orders, tables: [public.orders], start: beginning}\n")
	n.start()
	pgtest.Eventually(t, 10*time.Second, "the control plane", func() bool { _, err := n.api.Tokens(t.Context()); return err == nil })
	pgtest.Exec(t, url, `INSERT INTO orders SELECT generate_series(1, 3)`)
	ack(t, n.api, "orders", take(t, n.api, "orders", 1)...)
	if err := own.Kill(); err != nil {
		t.Fatal(err)
	}
	n.kill()
	n.launch()
	pgtest.Eventually(t, 20*time.Second, "the API without Postgres", func() bool { _, err := n.api.Databases(t.Context()); return err == nil })
	got := take(t, n.api, "orders", 2)
	ack(t, n.api, "orders", got...)
	if pks := got[0].Metadata.RecordPKs[0] + got[1].Metadata.RecordPKs[0]; pks != "23" {
		t.Errorf("got rows %s, want 2 and 3", pks)
	}
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
