package postgres

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"lockstep"
	"lockstep/internal/pgdb/pgtest"
	"lockstep/sink"
)

func TestAServerThatRestartsIsNotNoticed(t *testing.T) {
	t.Parallel()
	c := pgtest.Cluster(t, nil)
	if err := c.CreateDatabase(t.Context(), "app"); err != nil {
		t.Fatal(err)
	}
	pgtest.Exec(t, c.URL("app"), ordersDDL)
	p := open(t, Config{URL: c.TCPURL("app"), Table: "orders"})
	write(t, p, upsert(1, `{"id":1,"a":"x"}`))
	if err := c.Restart(t.Context()); err != nil {
		t.Fatal(err)
	}
	write(t, p, upsert(2, `{"id":1,"a":"y"}`)) // one call: the idle connection is replaced
	if err := c.Kill(); err != nil {
		t.Fatal(err)
	}
	m := upsert(3, `{"id":1,"a":"z"}`)
	text := refused(t, p, sink.Retry, m)
	contains(t, text, "connection refused")
	if err := c.Restart(t.Context()); err != nil {
		t.Fatal(err)
	}
	write(t, p, m)
	same(t, rows(t, c.URL("app"), ordersSQL), "1 z NULL")

	// A primary that became a standby refuses writes until the failover is over.
	pgtest.Exec(t, c.URL("app"), `ALTER SYSTEM SET default_transaction_read_only = on`, `SELECT pg_reload_conf()`)
	late := upsert(4, `{"id":1,"a":"after"}`)
	pgtest.Eventually(t, wait, "the server to be read-only", func() bool {
		_, err := p.Write(t.Context(), []sink.Message{late})
		late.Seq++
		return err != nil && strings.Contains(err.Error(), "read-only")
	})
	pgtest.Exec(t, c.URL("app"), `SET default_transaction_read_only = off`, `ALTER SYSTEM RESET default_transaction_read_only`, `SELECT pg_reload_conf()`)
	pgtest.Eventually(t, wait, "the server to take writes", func() bool {
		_, err := p.Write(t.Context(), []sink.Message{late})
		return err == nil
	})

	wrong := open(t, Config{URL: strings.Replace(c.TCPURL("app"), "/app?", "/nope?", 1), Table: "orders"})
	contains(t, refused(t, wrong, sink.Refused, m), "does not exist")
	intruder := open(t, Config{URL: strings.Replace(c.TCPURL("app"), "@", "x@", 1), Table: "orders"})
	contains(t, refused(t, intruder, sink.Refused, m), "does not let us in")
}

func TestACallEndsWithItsContext(t *testing.T) {
	t.Parallel()
	p, url := orders(t, Config{Connections: 1})
	write(t, p, upsert(1, `{"id":1}`))
	pgtest.Exec(t, url, `CREATE FUNCTION stop() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_advisory_xact_lock_shared(42); RETURN new; END $$`,
		`CREATE TRIGGER stop BEFORE INSERT ON orders FOR EACH ROW EXECUTE FUNCTION stop()`)
	release := hold(t, url)
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	_, err := p.Write(ctx, []sink.Message{upsert(2, `{"id":2}`)})
	var e *sink.Error
	if !errors.As(err, &e) || e.Kind != sink.Retry || !errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("got %v, want an error of kind retry for the deadline", err)
	}
	release()
	write(t, p, upsert(3, `{"id":2,"a":"x"}`), change(4, lockstep.Read, `{"id":3}`))
	same(t, rows(t, url, ordersSQL), "1 NULL NULL\n2 x NULL\n3 NULL NULL")
}

func TestLargeCallsAreParted(t *testing.T) {
	t.Parallel()
	p, url := orders(t, Config{Create: true})
	var messages []sink.Message
	for i := range 12_000 {
		messages = append(messages, upsert(uint64(i+1), `{"id":`+number(i)+`,"a":"x"}`))
	}
	messages = append(messages, upsert(20_000, `{"id":1,"b":"`+strings.Repeat("0123456789abcdef", 1<<20)+`"}`), upsert(20_001, `{"id":2,"b":"y"}`))
	write(t, p, messages...)
	same(t, rows(t, url, `SELECT count(*), max(length(b)) FROM orders`), "12000 16777216")
}

func TestSettingsAreSet(t *testing.T) {
	t.Parallel()
	url := pgtest.Database(t)
	pgtest.Exec(t, url, `CREATE TABLE parents (id int PRIMARY KEY)`, `CREATE TABLE orders (id int PRIMARY KEY, parent int REFERENCES parents)`)
	p := open(t, Config{URL: url, Settings: map[string]string{"session_replication_role": "replica", "statement_timeout": "20s"}})
	write(t, p, upsert(1, `{"id":1,"parent":7}`))
	wrong := open(t, Config{URL: url, Settings: map[string]string{"nonsense": "1"}})
	if _, err := wrong.Write(t.Context(), []sink.Message{upsert(2, `{"id":1}`)}); err == nil {
		t.Error("a setting that does not exist is taken")
	}
}
