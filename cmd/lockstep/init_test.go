package main

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"lockstep/internal/pgdb/cluster"
	"lockstep/internal/pgdb/pgtest"
)

func TestAnEventsTableIsMadeOnce(t *testing.T) {
	t.Parallel()
	dir := t.TempDir() // Postgres, which is another user under root, has to get to its data
	file := filepath.Join(dir, "lockstep.yml")
	text := "data_dir: " + filepath.Join(dir, "data") + "\ndatabases: [{name: app, tables: [public.*]}, {name: other}]\n"
	if err := errors.Join(os.Chmod(filepath.Dir(dir), 0o755), os.Chmod(dir, 0o755), os.WriteFile(file, []byte(text), 0o600)); err != nil {
		t.Fatal(err)
	}
	initEvents := func(code int, want string, args ...string) {
		t.Helper()
		var out, errs bytes.Buffer
		got := run(t.Context(), append([]string{"init", "events", "-c", file}, args...), streams{in: strings.NewReader(""), out: &out, err: &errs, lookup: os.LookupEnv})
		if text := out.String() + errs.String(); got != code || !strings.Contains(text, want) {
			t.Errorf("init events %v: exit %d, want %d, with %q in\n%s", args, got, code, want, text)
		}
	}
	initEvents(0, "CREATE TABLE \"public\".\"events\" (\n", "--print")
	initEvents(0, `CREATE SCHEMA IF NOT EXISTS "shop"`, "--print", "--table", "shop.news")
	initEvents(0, "created public.events in database app\n") // no node runs: the private Postgres is run for it
	private, err := cluster.Start(t.Context(), cluster.Config{Dir: filepath.Join(dir, "data", "postgres")})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = private.Stop(context.WithoutCancel(t.Context())) })
	if err := private.CreateDatabase(t.Context(), "other"); err != nil {
		t.Fatal(err)
	}
	app := private.URL("app")
	pgtest.Exec(t, app, `INSERT INTO events (type, subscriber, payload) VALUES ('hello', 'toto', '{"n": 1}')`, `CREATE TABLE taken (id int)`)
	if rows := pgtest.Query(t, app, `SELECT id, payload FROM events WHERE timestamp <= now()`); len(rows) != 1 || rows[0][0] != "1" {
		t.Errorf("the row is %v", rows)
	}
	initEvents(0, "is there already") // and now it runs
	initEvents(0, `"created": false`, "-o", "json")
	initEvents(2, "without the column type", "--table", "taken")
	initEvents(0, "it is not captured", "--table", "shop.news")
	initEvents(0, "created public.news in database other", "--database", "other", "--table", "news")
	initEvents(2, "use app, other", "--database", "nope")
	initEvents(2, "is not a table", "--table", "a.b.c")
}
