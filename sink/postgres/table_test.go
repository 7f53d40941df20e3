package postgres

import (
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"

	"lockstep"
	"lockstep/internal/pgdb/pgtest"
	"lockstep/sink"
)

func TestABadRowIsFoundAndHoldsItsKeyOnly(t *testing.T) {
	t.Parallel()
	url := pgtest.Database(t)
	pgtest.Exec(t, url, `CREATE TABLE parents (id int PRIMARY KEY)`,
		`CREATE TABLE orders (id int PRIMARY KEY, n int CHECK (n < 100), parent int REFERENCES parents, must text NOT NULL DEFAULT '', short varchar(3), doc jsonb)`)
	p := open(t, Config{URL: url})
	var messages []sink.Message
	for i := range 20 {
		messages = append(messages, upsert(uint64(i+1), fmt.Sprintf(`{"id":%d,"n":%d}`, i%10, i)))
	}
	bad := map[int]string{
		3:  `{"id":3,"n":1000}`,
		4:  `{"id":4,"n":"no number, but secret"}`,
		15: `{"id":5,"must":null}`,
		6:  `{"id":6,"short":"secret"}`,
		7:  `{"id":7,"parent":4711}`,
		8:  `{"id":8,"doc":{"a":"\u0000 secret"}}`,
		9:  `{"id":9,"must":"\u0000secret"}`,
		10: `{"id":null,"n":1}`, // the change before it is written
	}
	for i, record := range bad {
		key := messages[i].Key
		messages[i] = upsert(messages[i].Seq, record)
		messages[i].Key = key
	}
	n, err := p.Write(t.Context(), messages)
	var partial *sink.PartialError
	if !errors.As(err, &partial) || n != 3 {
		t.Fatalf("got %d, %v", n, err)
	}
	for _, f := range partial.Failed {
		want := sink.Rejected
		if bad[f.Index] == "" { // the change behind a bad one of its key
			want = sink.Retry
		}
		var e *sink.Error
		if !errors.As(f.Err, &e) || e.Kind != want {
			t.Errorf("message %d: got %v, want an error of kind %s", f.Index, f.Err, want)
		}
		if text := fmt.Sprintf("%+v %v", f.Err, errors.Unwrap(e)); strings.Contains(text, "secret") || strings.Contains(text, "1000") || strings.Contains(text, "4711") {
			t.Errorf("data shows in %s", text)
		}
		delete(bad, f.Index)
	}
	if len(bad) > 0 {
		t.Errorf("not rejected: %v", bad)
	}
	same(t, rows(t, url, `SELECT id, n FROM orders ORDER BY id`), "0 0\n1 11\n2 12\n5 5")
}

func TestColumnsThatAreMissing(t *testing.T) {
	t.Parallel()
	p, url := orders(t, Config{Table: "orders"})
	text := refused(t, p, sink.Refused, upsert(1, `{"id":1,"d":2,"a":"x","c":null}`))
	contains(t, text, `no column "d", "c": add it`)
	pgtest.Exec(t, url, `ALTER TABLE orders ADD c int, ADD d int`)
	write(t, p, upsert(1, `{"id":1,"d":2,"a":"x","c":null}`))
	same(t, rows(t, url, `SELECT * FROM orders`), "1 x NULL NULL 2")
	pgtest.Exec(t, url, `ALTER TABLE orders DROP d`)
	contains(t, refused(t, p, sink.Refused, upsert(2, `{"id":1,"d":3}`)), `no column "d"`)
	ignoring := open(t, Config{URL: url, Unknown: Ignore})
	write(t, ignoring, upsert(3, `{"id":1,"d":3,"a":"y"}`))
	named := open(t, Config{URL: url, Rename: map[string]string{"d": "", "amount": "c", "a": "b"}})
	write(t, named, upsert(4, `{"id":1,"d":3,"amount":7,"a":"z"}`))
	chosen := open(t, Config{URL: url, Columns: map[string]string{"a": ""}})
	write(t, chosen, upsert(5, `{"id":2,"b":"not chosen","a":"w"}`))
	same(t, rows(t, url, `SELECT id, a, b, c FROM orders ORDER BY id`), "1 y z 7\n2 w NULL NULL")
	missing := open(t, Config{URL: url, Table: "orders", Columns: map[string]string{"nope": "int"}})
	if err := missing.Check(t.Context()); err == nil || !strings.Contains(err.Error(), `no column "nope"`) {
		t.Errorf("got %v", err)
	}
}

func TestTablesAndColumnsAreMade(t *testing.T) {
	t.Parallel()
	url := pgtest.Database(t)
	c := Config{URL: url, Create: true, Table: "copy.{schema}_{table}"}
	p := open(t, c)
	write(t, p, upsert(1, `{"id":"k","n":12,"big":"12.50","ok":true,"doc":{"a":[1]},"nothing":null}`))
	write(t, p, upsert(2, `{"id":"k","n":1.5,"later":"x","nothing":null}`), upsert(3, `{"id":"l","n":1e400,"nothing":[1]}`))
	same(t, rows(t, url, `SELECT id, n < 2, big, ok, doc, nothing, later, _seq FROM copy.public_orders ORDER BY id`),
		`k t 12.50 t {"a": [1]} NULL x 2`+"\n"+`l f NULL NULL NULL [1] NULL 3`)
	declared := open(t, Config{URL: url, Create: true, Table: "declared", Key: []string{"id"}, Columns: map[string]string{"id": "uuid", "at": "timestamptz", "tags": "text[]"}})
	write(t, declared, upsert(1, `{"id":"a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11","at":"2026-11-21T10:00:00.123456Z","tags":["a","b"],"other":1}`))
	same(t, rows(t, url, `SELECT extract(year FROM at), tags[2] FROM declared`), "2026 b")
	var both sync.WaitGroup
	for range 4 { // at the same time
		both.Go(func() {
			write(t, open(t, Config{URL: url, Create: true, Table: "race"}), upsert(1, `{"id":1,"a":"x"}`))
		})
	}
	both.Wait()
	m := upsert(1, `{"id":7,"same":7}`)
	contains(t, refused(t, open(t, Config{URL: url, Create: true, Table: "unclear"}), sink.Refused, m), "name them in key")
	contains(t, refused(t, open(t, Config{URL: url, Table: "nowhere"}), sink.Refused, m), "does not exist: create it")
	absent := open(t, Config{URL: url, Create: true, Table: "absent", Truncate: true})
	write(t, absent, change(1, lockstep.Truncate, ""))
}

func TestKeysOtherThanThePrimaryOne(t *testing.T) {
	t.Parallel()
	url := pgtest.Database(t)
	pgtest.Exec(t, url, `CREATE TABLE orders (tenant int, "Id" text, a text)`)
	p := open(t, Config{URL: url, Table: "orders", Key: []string{"Id", "tenant"}})
	m := upsert(1, `{"tenant":1,"Id":"x","a":"1"}`)
	contains(t, refused(t, p, sink.Refused, m), `CREATE UNIQUE INDEX ON "public"."orders" ("Id", "tenant")`)
	contains(t, refused(t, open(t, Config{URL: url, Table: "orders"}), sink.Refused, m), "no primary key")
	pgtest.Exec(t, url, `CREATE UNIQUE INDEX ON orders (tenant, "Id") INCLUDE (a)`)
	write(t, p, m, upsert(2, `{"tenant":2,"Id":"x","a":"2"}`), upsert(3, `{"tenant":1,"Id":"x","a":"3"}`), remove(4, `{"tenant":2,"Id":"x"}`))
	same(t, rows(t, url, `SELECT * FROM orders`), "1 x 3")
}

func TestSoftDelete(t *testing.T) {
	t.Parallel()
	for _, guard := range guards() {
		t.Run(string(guard), func(t *testing.T) {
			t.Parallel()
			url := pgtest.Database(t)
			pgtest.Exec(t, url, `CREATE TABLE orders (id int PRIMARY KEY, a text NOT NULL, gone boolean NOT NULL DEFAULT false)`)
			p := open(t, Config{URL: url, Guard: guard, SoftDelete: "gone", Truncate: true})
			write(t, p, upsert(1, `{"id":1,"a":"x"}`), upsert(2, `{"id":2,"a":"y"}`))
			write(t, p, remove(3, `{"id":1}`), remove(4, `{"id":7}`))
			write(t, p, upsert(1, `{"id":1,"a":"x"}`))
			same(t, rows(t, url, `SELECT id, a, gone FROM orders ORDER BY id`), "1 x t\n2 y f")
			write(t, p, upsert(5, `{"id":1,"a":"back"}`), change(6, lockstep.Truncate, ""), upsert(7, `{"id":2,"a":"back"}`))
			same(t, rows(t, url, `SELECT id, a, gone FROM orders ORDER BY id`), "1 back t\n2 back f")
		})
	}
}

func TestManyTablesAtOnce(t *testing.T) {
	t.Parallel()
	url := pgtest.Database(t)
	pgtest.Exec(t, url, `CREATE SCHEMA "App"`, `CREATE TABLE "App"."we.ird" (id int PRIMARY KEY, a text)`, `CREATE TABLE orders (id int PRIMARY KEY, a text)`)
	p := open(t, Config{URL: url})
	odd, lost := upsert(2, `{"id":1,"a":"odd"}`), upsert(3, `{"id":2}`)
	odd.Schema, odd.Table = "App", "we.ird"
	lost.Table = "lost"
	n, err := p.Write(t.Context(), []sink.Message{upsert(1, `{"id":1,"a":"x"}`), lost, odd})
	var partial *sink.PartialError
	if n != 1 || !errors.As(err, &partial) || len(partial.Failed) != 1 {
		t.Fatalf("got %d, %v", n, err)
	}
	contains(t, partial.Failed[0].Err.Error(), `"public"."lost" does not exist`)
	same(t, rows(t, url, `SELECT o.a, w.a FROM orders o, "App"."we.ird" w`), "x odd")
}

func TestTheGenericTable(t *testing.T) {
	t.Parallel()
	url := pgtest.Database(t)
	p := open(t, Config{URL: url, Form: Generic, Create: true, Truncate: true, Rename: map[string]string{"id": "sequin_id"}})
	const head = `"sync_id":"6ba7b810-9dad-11d1-80b4-00c04fd430c8","collection_id":"stripe:customer","provider":"stripe","upstream_id":"cus_1"`
	view := `{"id":"1b959a7a-0000-4000-8000-000000000000",` + head + `,"data":%s,"deleted":false,"inserted_at":"2026-01-01T00:00:00Z",
		"upstream_created_at":"2024-03-21T17:47:28.000000Z","upstream_updated_at":null,"updated_idx":42}`
	write(t, p, upsert(1, fmt.Sprintf(view, `{"name":1.10}`)), upsert(2, `{"id":7,"a":"row"}`))
	write(t, p, upsert(3, fmt.Sprintf(view, `null`)))
	write(t, p, upsert(2, `{"id":7,"a":"stale"}`), remove(4, `{"id":7}`), remove(5, `{"id":8,"a":"was"}`))
	const sql = `SELECT collection_id, upstream_id, data, deleted, updated_idx, sync_id IS NULL, extract(year FROM upstream_created_at) FROM lockstep_records ORDER BY updated_idx`
	same(t, rows(t, url, sql), `stripe:customer cus_1 {"name": 1.10} f 3 f 2024
public.orders 7 {"a": "row", "id": 7} t 4 t NULL
public.orders 8 {"a": "was", "id": 8} t 5 t NULL`)
	write(t, p, upsert(6, `{"id":7,"a":"back"}`), change(7, lockstep.Truncate, ""), upsert(6, `{"id":7,"a":"back"}`))
	same(t, rows(t, url, `SELECT data, deleted, updated_idx FROM lockstep_records WHERE upstream_id = '7'`), `{"a": "back", "id": 7} t 7`)
	gone := remove(9, strings.Replace(fmt.Sprintf(view, `null`), `"1b959a7a-0000-4000-8000-000000000000"`, `null`, 1))
	write(t, p, gone)
	same(t, rows(t, url, `SELECT count(*), count(DISTINCT sequin_id) FROM lockstep_records WHERE upstream_id = 'cus_1'`), "2 2")
}

func TestConfigurationsThatAreWrong(t *testing.T) {
	t.Parallel()
	const password = "hunter2"
	for want, c := range map[string]Config{
		"say where the database is":            {},
		"cannot be read":                       {URL: "postgres://u:" + password + "@h:notaport/x"},
		"expected schema.table":                {URL: "postgres://h/x", Table: "a.b.c"},
		"the quotes are not in order":          {URL: "postgres://h/x", Table: `"a.b`},
		"form \"x\" is not known":              {URL: "postgres://h/x", Form: "x"},
		"guard \"x\" is not known":             {URL: "postgres://h/x", Guard: "x"},
		"unknown: \"x\" is not known":          {URL: "postgres://h/x", Unknown: "x"},
		"positions: expected schema.table":     {URL: "postgres://h/x", Positions: "{schema}.p"},
		"form generic has a key, a seq":        {URL: "postgres://h/x", Form: Generic, SoftDelete: "x"},
		"connections must not be negative":     {URL: "postgres://h/x", Connections: -1},
		`"a..b": expected schema.table`[5:]:    {URL: "postgres://h/x", Table: "a..b"},
		"url: say where the database is: post": {URL: "  "},
	} {
		_, err := New(t.Context(), c)
		if !errors.Is(err, lockstep.ErrInvalid) || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), password) {
			t.Errorf("got %v, want %q", err, want)
		}
	}
}
