package engine_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"lockstep"
	"lockstep/client"
	"lockstep/internal/config"
	"lockstep/internal/pgdb/pgtest"
)

// newHome starts a node whose configuration captures nothing; it returns where the control
// plane is.
func newHome(t *testing.T) (*node, string) {
	t.Helper()
	home := pgtest.Database(t)
	n := newNode(t, home, "  []\n")
	text, err := os.ReadFile(n.config)
	if err == nil {
		err = os.WriteFile(n.config, regexp.MustCompile(`\{name: app, slot: \w+, `).ReplaceAll(text, []byte("{name: app, capture: none, ")), 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
	n.start()
	return n, home
}

// shop is a database with a table orders, and the definition that captures it.
func shop(t *testing.T, slot string) (string, client.DatabaseDefinition) {
	t.Helper()
	address := pgtest.Database(t)
	pgtest.Exec(t, address, `CREATE TABLE orders (id int PRIMARY KEY, note text)`)
	return address, client.DatabaseDefinition{Name: "shop", URL: address, Slot: slot, Tables: []string{"public.*"}}
}

func (n *node) create(d client.DatabaseDefinition) client.Database {
	n.t.Helper()
	var made client.Database
	// The control plane comes up a moment after the node does.
	pgtest.Eventually(n.t, 30*time.Second, "the control plane", func() bool {
		var err error
		made, err = n.api.CreateDatabase(n.t.Context(), d)
		if err != nil && !errors.Is(err, lockstep.ErrUnavailable) {
			n.t.Fatal(err)
		}
		return err == nil
	})
	return made
}

func (n *node) captures(name string) {
	n.t.Helper()
	pgtest.Eventually(n.t, 60*time.Second, name+" to be captured", func() bool {
		d, err := n.api.Database(n.t.Context(), name)
		return err == nil && d.Connected && d.Status == "ok"
	})
}

// knows waits until what was made by API is there again after a start.
func (n *node) knows(consumer string) {
	n.t.Helper()
	pgtest.Eventually(n.t, 30*time.Second, consumer+" to be there", func() bool {
		_, err := n.api.Consumer(n.t.Context(), consumer)
		return err == nil
	})
}

// answers starts the node and waits until it answers: one of its databases is not well.
func (n *node) answers() {
	n.t.Helper()
	n.launch()
	pgtest.Eventually(n.t, 60*time.Second, "the node to answer", func() bool {
		_, err := n.api.Status(n.t.Context())
		return err == nil
	})
}

func slots(t *testing.T, address, name string) int {
	t.Helper()
	return len(pgtest.Query(t, address, `SELECT slot_name FROM pg_replication_slots WHERE slot_name = '`+name+`'`))
}

func TestADatabaseIsMadeByAPIWhileTheNodeRuns(t *testing.T) {
	t.Parallel()
	n, home := newHome(t)
	address, d := shop(t, "api_made")
	made := n.create(d)
	if made.ManagedBy != "api" || made.Connection == nil || made.Connection.Database == "" || !slices.Equal(made.Patterns, d.Tables) {
		t.Errorf("the answer is %+v", made)
	}
	n.captures("shop")
	if _, err := n.api.CreateConsumer(t.Context(), client.Definition{Name: "mail", Database: "shop"}); err != nil {
		t.Fatal(err)
	}
	pgtest.Exec(t, address, `INSERT INTO orders VALUES (1, 'one')`)
	got := take(t, n.api, "mail", 1)
	if got[0].Metadata.Database != "shop" || string(got[0].Record) != `{"id":1,"note":"one"}` {
		t.Errorf("got %s of %s", got[0].Record, got[0].Metadata.Database)
	}
	ack(t, n.api, "mail", got...)

	n.kill()
	pgtest.Exec(t, address, `INSERT INTO orders VALUES (2, 'while it was away')`)
	n.start()
	n.knows("mail")
	if got := take(t, n.api, "mail", 1); string(got[0].Record) != `{"id":2,"note":"while it was away"}` {
		t.Errorf("after the restart came %s", got[0].Record)
	}
	rows := pgtest.Query(t, home, `SELECT url, definition::text FROM lockstep.database_definition`)
	if len(rows) != 1 || strings.Contains(rows[0][0]+rows[0][1], "postgres:") {
		t.Errorf("stored is %v; the URL must be sealed", rows)
	}
	if rows := pgtest.Query(t, home, `SELECT target FROM lockstep.audit WHERE action = 'database.create'`); len(rows) != 1 || rows[0][0] != "shop" {
		t.Errorf("the audit has %v", rows)
	}
}

func TestADeletedDatabaseLeavesNothingBehind(t *testing.T) {
	t.Parallel()
	n, home := newHome(t)
	address, d := shop(t, "api_deleted")
	n.create(d)
	n.captures("shop")
	if _, err := n.api.CreateConsumer(t.Context(), client.Definition{Name: "mail", Database: "shop"}); err != nil {
		t.Fatal(err)
	}
	if _, err := n.api.DeleteDatabase(t.Context(), "shop", client.DropSlot); !errors.Is(err, lockstep.ErrConflict) || !strings.Contains(err.Error(), "mail") {
		t.Errorf("deleted under a consumer: %v, want a conflict that names it", err)
	}
	pgtest.Exec(t, address, `INSERT INTO orders VALUES (1, 'still captured')`)
	ack(t, n.api, "mail", take(t, n.api, "mail", 1)...)
	if err := n.api.DeleteConsumer(t.Context(), "mail"); err != nil {
		t.Fatal(err)
	}
	if _, text := get(t, "http://"+n.server+"/metrics"); !strings.Contains(text, `database="shop"`) {
		t.Error("the metrics do not know of the database")
	}
	gone, err := n.api.DeleteDatabase(t.Context(), "shop", client.DropSlot)
	if err != nil {
		t.Fatal(err)
	}
	if want := []string{"slot api_deleted", "publication lockstep_shop", "publication lockstep_shop_inserts"}; !slices.Equal(gone.Dropped, want) || len(gone.Left) > 0 {
		t.Errorf("got %+v, want dropped %v", gone, want)
	}
	if slots(t, address, "api_deleted") != 0 || len(pgtest.Query(t, address, `SELECT evtname FROM pg_event_trigger`)) != 0 {
		t.Error("the slot or the event trigger is still there")
	}
	if _, err := n.api.Database(t.Context(), "shop"); !errors.Is(err, lockstep.ErrNotFound) {
		t.Errorf("it is still shown: %v", err)
	}
	if _, text := get(t, "http://"+n.server+"/metrics"); strings.Contains(text, `lag_bytes{database="shop"`) || strings.Contains(text, `seq{database="shop"`) {
		t.Error("the metrics still know of it")
	}
	if rows := pgtest.Query(t, home, `SELECT database FROM lockstep.database_status WHERE database = 'shop'`); len(rows) > 0 {
		t.Errorf("its status is still there")
	}
	if _, err := n.api.CreateConsumer(t.Context(), client.Definition{Name: "other", Database: "app"}); err != nil {
		t.Fatal(err)
	}
	n.kill()
	n.start()
	n.knows("other") // databases come first
	if _, err := n.api.Database(t.Context(), "shop"); !errors.Is(err, lockstep.ErrNotFound) {
		t.Errorf("it is back after a restart: %v", err)
	}
	n.create(d)
	pgtest.Eventually(t, 60*time.Second, "it to be captured again, with a gap", func() bool {
		again, err := n.api.Database(t.Context(), "shop")
		return err == nil && again.Connected && len(again.Gaps) == 1 && again.Gaps[0].Reason == "slot_lost" && again.LastSeq > 1
	})
}

func TestADeletedDatabasesSlotCanBeKept(t *testing.T) {
	t.Parallel()
	n, _ := newHome(t)
	address, d := shop(t, "api_kept")
	n.create(d)
	n.captures("shop")
	gone, err := n.api.DeleteDatabase(t.Context(), "shop", client.KeepSlot)
	if err != nil {
		t.Fatal(err)
	}
	if len(gone.Dropped) > 0 || len(gone.Left) != 3 || slots(t, address, "api_kept") != 1 {
		t.Errorf("got %+v, want everything left", gone)
	}
	pgtest.Exec(t, address, `INSERT INTO orders VALUES (1, 'in between')`)
	n.create(d)
	n.captures("shop") // no gap: the slot has kept everything
	if _, err := n.api.CreateConsumer(t.Context(), client.Definition{Name: "mail", Database: "shop", Start: "beginning"}); err != nil {
		t.Fatal(err)
	}
	if got := take(t, n.api, "mail", 1); !strings.Contains(string(got[0].Record), "in between") {
		t.Errorf("got %s", got[0].Record)
	}
	if err := n.api.DeleteConsumer(t.Context(), "mail"); err != nil {
		t.Fatal(err)
	}
	// What was there before is somebody's: it stays, and is told.
	gone, err = n.api.DeleteDatabase(t.Context(), "shop", client.DropSlot)
	if err != nil || len(gone.Left) != 1 || !strings.Contains(gone.Left[0], "pg_drop_replication_slot") {
		t.Errorf("got %+v, %v", gone, err)
	}
}

func TestTwoDatabasesMadeAtOnceUnderOneName(t *testing.T) {
	t.Parallel()
	n, _ := newHome(t)
	_, d := shop(t, "api_twice")
	// One that goes first, so that the control plane is there.
	other, first := shop(t, "api_first")
	first.Name = "first"
	n.create(first)
	errs := make([]error, 4)
	var calls sync.WaitGroup
	for i := range errs {
		calls.Go(func() { _, errs[i] = n.api.CreateDatabase(t.Context(), d) })
	}
	calls.Wait()
	made := 0
	for _, err := range errs {
		var p *client.Problem
		switch {
		case err == nil:
			made++
		case errors.Is(err, lockstep.ErrConflict):
		case errors.As(err, &p) && p.Status == http.StatusUnprocessableEntity: // the first one's slot is in use already
		default:
			t.Errorf("got %v, want a conflict", err)
		}
	}
	if made != 1 {
		t.Errorf("%d were made, want 1: %v", made, errs)
	}
	n.captures("shop")
	n.captures("first")
	taken := client.DatabaseDefinition{Name: "third", URL: other, Slot: "api_first"}
	if _, err := n.api.CreateDatabase(t.Context(), taken); !errors.Is(err, lockstep.ErrConflict) {
		t.Errorf("a slot that is taken: %v, want a conflict", err)
	}
	taken.Name = "app"
	if _, err := n.api.CreateDatabase(t.Context(), taken); !errors.Is(err, lockstep.ErrConflict) || !strings.Contains(err.Error(), "lockstep.yml") {
		t.Errorf("a name of the configuration: %v, want a conflict that names the file", err)
	}
	for _, change := range []func() error{
		func() error { _, err := n.api.UpdateDatabase(t.Context(), "app", nil); return err },
		func() error { _, err := n.api.DeleteDatabase(t.Context(), "app", client.DropSlot); return err },
	} {
		if err := change(); !errors.Is(err, lockstep.ErrConflict) || !strings.Contains(err.Error(), "lockstep.yml") {
			t.Errorf("a change of a database of the configuration: %v, want a conflict that names the file", err)
		}
	}
}

func TestADatabaseThatCannotBeCapturedIsRefused(t *testing.T) {
	t.Parallel()
	n, home := newHome(t)
	own := pgtest.Cluster(t, map[string]string{"wal_level": "replica"})
	if err := own.CreateDatabase(t.Context(), "shop"); err != nil {
		t.Fatal(err)
	}
	good, err := url.Parse(own.TCPURL("shop"))
	if err != nil {
		t.Fatal(err)
	}
	wrong := *good
	wrong.User = url.UserPassword(good.User.Username(), "not-the-p4ssword")
	for _, c := range []struct{ url, field, want string }{
		{"mysql://shop", "body.url", "postgres://"},
		{"postgres://shop:99999999/x", "body.url", "postgres://"},
		{"postgres://u:s3cretword@127.0.0.1:1/shop", "body.url", "check connect"},
		{wrong.String(), "body.url", "ALTER ROLE … PASSWORD"},
		{good.String(), "body.url", "check wal_level: wal_level is replica, not logical; ALTER SYSTEM SET wal_level = logical"},
	} {
		var refused *client.Problem
		pgtest.Eventually(t, 30*time.Second, "the answer", func() bool {
			_, err = n.api.CreateDatabase(t.Context(), client.DatabaseDefinition{Name: "shop", URL: c.url})
			return !errors.Is(err, lockstep.ErrUnavailable)
		})
		if !errors.As(err, &refused) || refused.Status != http.StatusUnprocessableEntity {
			t.Errorf("%s: %v, want 422", c.url, err)
			continue
		}
		told, _ := json.Marshal(refused)
		if !strings.Contains(fmt.Sprint(refused.Errors), c.want) || refused.Errors[0].Location != c.field {
			t.Errorf("%s: %s, want %s at %s", c.url, told, c.want, c.field)
		}
		if strings.Contains(string(told), "s3cretword") || strings.Contains(string(told), "p4ssword") {
			t.Errorf("the password is told: %s", told)
		}
	}
	if rows := pgtest.Query(t, home, `SELECT name FROM lockstep.database_definition`); len(rows) > 0 {
		t.Errorf("stored all the same: %v", rows)
	}
}

func TestADatabaseMadeByAPIGoesAwayAndComesBack(t *testing.T) {
	t.Parallel()
	n, _ := newHome(t)
	own := pgtest.Cluster(t, nil)
	if err := own.CreateDatabase(t.Context(), "shop"); err != nil {
		t.Fatal(err)
	}
	address := own.TCPURL("shop")
	pgtest.Exec(t, address, `CREATE TABLE orders (id int PRIMARY KEY)`)
	if err := own.Kill(); err != nil {
		t.Fatal(err)
	}
	made := n.create(client.DatabaseDefinition{Name: "shop", URL: address, Unchecked: true})
	if made.Connected {
		t.Error("it is connected to a database that is away")
	}
	if _, err := n.api.CreateConsumer(t.Context(), client.Definition{Name: "mail", Database: "shop", Start: "beginning"}); err != nil {
		t.Fatal(err)
	}
	if err := own.Restart(t.Context()); err != nil {
		t.Fatal(err)
	}
	n.captures("shop")
	pgtest.Exec(t, address, `INSERT INTO orders VALUES (1)`)
	ack(t, n.api, "mail", take(t, n.api, "mail", 1)...)
	if err := n.api.DeleteConsumer(t.Context(), "mail"); err != nil {
		t.Fatal(err)
	}
	if err := own.Kill(); err != nil {
		t.Fatal(err)
	}
	if _, err := n.api.DeleteDatabase(t.Context(), "shop", client.DropSlot); !errors.Is(err, lockstep.ErrUnavailable) || !strings.Contains(err.Error(), "keep_slot=true") {
		t.Errorf("deleted while it is away: %v, want that it is not possible, and what is", err)
	}
	if err := own.Restart(t.Context()); err != nil {
		t.Fatal(err)
	}
	n.captures("shop") // it goes on after the refusal, without a gap
	pgtest.Exec(t, address, `INSERT INTO orders VALUES (2)`)
	pgtest.Eventually(t, 30*time.Second, "the change", func() bool {
		d, err := n.api.Database(t.Context(), "shop")
		return err == nil && d.LastSeq == 2 && len(d.Gaps) == 0
	})
	if _, err := n.api.DeleteDatabase(t.Context(), "shop", client.DropSlot); err != nil {
		t.Error(err)
	}
}

func TestADatabaseMadeByAPIIsGivenOtherTables(t *testing.T) {
	t.Parallel()
	n, _ := newHome(t)
	address, d := shop(t, "api_changed")
	pgtest.Exec(t, address, `CREATE TABLE bills (id int PRIMARY KEY)`)
	d.Tables = []string{"public.orders"}
	n.create(d)
	n.captures("shop")
	if _, err := n.api.CreateConsumer(t.Context(), client.Definition{Name: "all", Database: "shop"}); err != nil {
		t.Fatal(err)
	}
	pgtest.Exec(t, address, `INSERT INTO bills VALUES (1)`, `INSERT INTO orders VALUES (1)`)
	ack(t, n.api, "all", take(t, n.api, "all", 1)...)
	var refused *client.Problem
	if _, err := n.api.UpdateDatabase(t.Context(), "shop", []string{"public.orders", ""}); !errors.As(err, &refused) || refused.Status != http.StatusUnprocessableEntity {
		t.Errorf("a wrong pattern: %v, want 422", err)
	}
	changed, err := n.api.UpdateDatabase(t.Context(), "shop", []string{"public.orders", "public.bills"})
	if err != nil || len(changed.Patterns) != 2 {
		t.Fatalf("got %v, %v", changed.Patterns, err)
	}
	n.captures("shop")
	pgtest.Eventually(t, 30*time.Second, "bills to be published", func() bool {
		return len(pgtest.Query(t, address, `SELECT tablename FROM pg_publication_tables WHERE tablename = 'bills'`)) == 1
	})
	pgtest.Exec(t, address, `INSERT INTO bills VALUES (2)`)
	pgtest.Eventually(t, 30*time.Second, "the new table's change", func() bool {
		got, err := n.api.Next(t.Context(), "all", 10, time.Second)
		return err == nil && slices.ContainsFunc(got.Deliveries, func(d client.Delivery) bool {
			return d.Metadata.TableName == "bills" && slices.Equal(d.Metadata.RecordPKs, []string{"2"})
		})
	})
}

// Another cluster under the name of a deleted database: positions of one mean nothing in
// the other.
func TestADatabaseOfAnotherClusterDoesNotTakeAName(t *testing.T) {
	t.Parallel()
	n, _ := newHome(t)
	address, d := shop(t, "api_moved")
	n.create(d)
	n.captures("shop")
	pgtest.Exec(t, address, `INSERT INTO orders VALUES (1)`)
	pgtest.Eventually(t, 30*time.Second, "the change", func() bool {
		d, err := n.api.Database(t.Context(), "shop")
		return err == nil && d.LastSeq == 1
	})
	if _, err := n.api.DeleteDatabase(t.Context(), "shop", client.DropSlot); err != nil {
		t.Fatal(err)
	}
	own := pgtest.Cluster(t, nil)
	if err := own.CreateDatabase(t.Context(), "shop"); err != nil {
		t.Fatal(err)
	}
	d.URL = own.TCPURL("shop")
	if _, err := n.api.CreateDatabase(t.Context(), d); !errors.Is(err, lockstep.ErrConflict) || !strings.Contains(err.Error(), "another name") {
		t.Errorf("got %v, want a conflict that says what to do", err)
	}
	d.Unchecked = true
	n.create(d)
	pgtest.Eventually(t, 30*time.Second, "the reason to be told", func() bool {
		d, err := n.api.Database(t.Context(), "shop")
		return err == nil && d.Status == "error" && strings.Contains(d.Reason, "another Postgres cluster")
	})
	n.kill()
	n.answers() // it does not keep the node from starting either
	pgtest.Eventually(t, 30*time.Second, "its deletion", func() bool {
		_, err := n.api.DeleteDatabase(t.Context(), "shop", client.DropSlot)
		return err == nil
	})
	n.create(client.DatabaseDefinition{Name: "shop-2", URL: d.URL})
	n.captures("shop-2")
}

func TestADatabaseWhoseURLCannotBeOpened(t *testing.T) {
	t.Parallel()
	n, home := newHome(t)
	address, d := shop(t, "api_sealed")
	n.create(d)
	n.captures("shop")
	if _, err := n.api.CreateConsumer(t.Context(), client.Definition{Name: "mail", Database: "shop"}); err != nil {
		t.Fatal(err)
	}
	n.kill()
	pgtest.Exec(t, home, `UPDATE lockstep.database_definition SET url = set_byte(url, 40, get_byte(url, 40) # 1)`)
	n.answers()
	n.knows("mail")
	got, err := n.api.Database(t.Context(), "shop")
	if err != nil || got.Status != "error" || !strings.Contains(got.Reason, "damaged") {
		t.Errorf("got %s %q, %v", got.Status, got.Reason, err)
	}
	if err := n.api.DeleteConsumer(t.Context(), "mail"); err != nil {
		t.Fatal(err)
	}
	if _, err := n.api.DeleteDatabase(t.Context(), "shop", client.DropSlot); !errors.Is(err, lockstep.ErrConflict) || !strings.Contains(err.Error(), "keep_slot=true") {
		t.Errorf("got %v, want that the slot cannot be dropped", err)
	}
	gone, err := n.api.DeleteDatabase(t.Context(), "shop", client.KeepSlot)
	if err != nil || len(gone.Left) != 3 || slots(t, address, "api_sealed") != 1 {
		t.Errorf("got %+v, %v", gone, err)
	}
}

// In this process, so that what is left running is seen.
func TestADatabaseMadeByAPIEndsWithTheNode(t *testing.T) {
	t.Parallel()
	cfg := config.Default()
	cfg.DataDir, cfg.Listen = filepath.Join(t.TempDir(), "data"), "127.0.0.1:0"
	cfg.Databases[0].URL, cfg.Databases[0].Capture = config.URL(pgtest.Database(t)), config.CaptureNone
	running, stop := run(t, cfg)
	api, err := client.New(client.Config{Server: running.Server})
	if err != nil {
		t.Fatal(err)
	}
	defer api.Close()
	n := &node{t: t, api: api}
	for i := range 3 {
		_, d := shop(t, fmt.Sprintf("api_ends_%d", i))
		d.Name = fmt.Sprintf("shop-%d", i)
		n.create(d)
		n.captures(d.Name)
	}
	if _, err := api.DeleteDatabase(t.Context(), "shop-1", client.DropSlot); err != nil {
		t.Fatal(err)
	}
	api.Close()
	if err := stop(); err != nil {
		t.Errorf("the engine ended with %v", err)
	}
}
