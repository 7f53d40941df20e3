package mirror_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5"

	"lockstep"
	"lockstep/internal/mirror"
	"lockstep/internal/pgdb/pgtest"
	"lockstep/source"
)

const columnsOfThing = `
	SELECT attname, format_type(atttypid, -1) FROM pg_attribute
	WHERE attrelid = 'api.thing'::regclass AND attnum > 0 AND NOT attisdropped AND attname NOT LIKE '\_%' AND attname <> 'id' ORDER BY attname COLLATE "C"`

func TestDiscoveredFieldsBecomeColumns(t *testing.T) {
	t.Parallel()
	f := newFixture(t, anything())
	f.put("thing", 1, record("a", 1, `{"id":"a","name":"x","n":7,"big":123456789012345678901234567890,"price":1.50,"ok":true,"at":"2026-01-02T03:04:05Z","tags":["a"],"nothing":null}`))
	f.want(columnsOfThing, row("at", "timestamp with time zone"), row("big", "numeric"), row("n", "bigint"), row("name", "text"),
		row("ok", "boolean"), row("price", "numeric"), row("tags", "jsonb"))
	f.want("SELECT name, n, big, price, ok, at AT TIME ZONE 'UTC', tags FROM api.thing",
		row("x", "7", "123456789012345678901234567890", "1.50", "t", "2026-01-02 03:04:05", `["a"]`))
	f.put("thing", 2, record("b", 2, `{"id":"b","nothing":"now"}`))
	f.want("SELECT id, nothing FROM api.thing ORDER BY id", row("a", "NULL"), row("b", "now"))
}

// A field whose type changes keeps its column for what fits, and gets another one
// for all of it, for rows from before too.
func TestATypeThatChangesGetsASecondColumn(t *testing.T) {
	t.Parallel()
	f := newFixture(t, anything())
	f.put("thing", 1, record("a", 1, `{"amount":5}`), record("b", 1, `{"amount":6}`))
	f.result(f.put("thing", 2, record("c", 2, `{"amount":7.25}`)), mirror.Result{Inserted: 1, Noted: 1})
	f.eventually("SELECT string_agg(coalesce(amount::text, '-') || ' ' || amount__numeric, ', ' ORDER BY id) FROM api.thing", "5 5, 6 6, - 7.25")
	f.put("thing", 3, record("d", 3, `{"amount":"many"}`), record("e", 3, `{"amount":8}`))
	f.eventually("SELECT string_agg(coalesce(amount__text, '-'), ', ' ORDER BY id) FROM api.thing", "5, 6, 7.25, many, 8")
	f.result(f.put("thing", 4, record("f", 4, `{"amount":"few"}`)), mirror.Result{Inserted: 1})
	f.want("SELECT amount, amount__numeric, amount__text, _raw -> 'amount', _notes FROM api.thing WHERE id = 'f'", row("NULL", "NULL", "few", `"few"`, "NULL"))
}

func TestADeclaredFieldThatIsNewIsFilled(t *testing.T) {
	t.Parallel()
	old := source.Collection{Name: "customer", Fields: []source.Field{{Name: "balance", Type: source.Text}}}
	f := newFixture(t, old)
	var page []source.Record
	for i := range 1200 {
		page = append(page, customer(fmt.Sprintf("c%04d", i), 1, i))
	}
	f.put("customer", 1, page...)
	f.prepare(customers()) // email and others are new, balance is a bigint now
	f.eventually("SELECT count(*) FROM api.customer WHERE email = id || '@example.com' AND balance__bigint::text = balance AND city = 'Ulm'", "1200")
	f.eventually("SELECT count(*) FROM lockstep.sync_column WHERE NOT filled", "0")
	f.result(f.put("customer", 5, page...), mirror.Result{Unchanged: 1200})
}

func TestNamesThatPostgresDoesNotTake(t *testing.T) {
	t.Parallel()
	f := newFixture(t, anything())
	names := []string{"a b", "a_b", "A B", "aB", "xmin", "ctid", "_raw", "_id", "ID", "select", "user", "", " ", "😀", "naïve ñ", `quo"te'; DROP TABLE x`, "a\u200bb", "\u202eabc",
		strings.Repeat("long", 20), strings.Repeat("long", 20) + "er", strings.Repeat("ü", 40), "tab\t", `back\slash`}
	data := map[string]string{}
	for i, n := range names {
		data[n] = fmt.Sprint("v", i)
	}
	raw, _ := json.Marshal(data)
	f.put("thing", 1, record("r", 1, string(raw)))
	columns := f.query(columnsOfThing)
	values := map[string]bool{}
	for _, c := range f.query("SELECT key, path[1], column_name FROM lockstep.sync_column WHERE collection = 'thing'") {
		if len(c[2]) > 63 || c[2] == "" {
			t.Errorf("%q has the column %q", c[1], c[2])
		}
		got := f.query("SELECT " + pgx.Identifier{c[2]}.Sanitize() + " FROM api.thing")[0][0]
		if got != data[c[1]] {
			t.Errorf("%q in column %q is %q, want %q", c[1], c[2], got, data[c[1]])
		}
		values[got] = true
	}
	if len(values) != len(names) {
		t.Errorf("%d of %d fields have a column of their own: %v", len(values), len(names), columns)
	}
}

func TestNamesAreStableOverRestarts(t *testing.T) {
	t.Parallel()
	f := newFixture(t, anything())
	f.put("thing", 1, record("r", 1, `{"a b":1,"A B":2,"xmin":3}`))
	before := f.query(columnsOfThing)
	f.restart(anything())
	f.put("thing", 2, record("s", 2, `{"a_b":40,"A B":20,"a b":10,"xmin":30}`))
	if after := f.query(columnsOfThing); len(after) != len(before)+1 {
		t.Errorf("columns before %v, after %v", before, after)
	}
	f.want("SELECT a_b FROM api.thing ORDER BY id", f.query("SELECT CASE id WHEN 'r' THEN _raw ->> c.key ELSE _raw ->> c.key END FROM api.thing, lockstep.sync_column c WHERE column_name = 'a_b' ORDER BY id")...)
}

func TestMoreFieldsThanATableHolds(t *testing.T) {
	t.Parallel()
	f := newFixture(t, anything())
	data := map[string]any{}
	for i := range 2000 {
		data[fmt.Sprintf("f%04d", i)] = true
	}
	raw, _ := json.Marshal(data)
	f.result(f.put("thing", 1, record("a", 1, string(raw))), mirror.Result{Inserted: 1})
	f.want("SELECT f0000, f1400, _raw ->> 'f1999' FROM api.thing", row("t", "t", "true"))
	f.want("SELECT count(*) FROM lockstep.sync_column WHERE column_name = ''", row("459"))
	pgtest.Exec(t, f.url, "ALTER TABLE api.thing ADD COLUMN mine text") // there is room for users
	long := map[string]any{}
	for i := range 600 {
		long[fmt.Sprintf("f%04d", i)] = strings.Repeat(fmt.Sprint(i), 1000)
	}
	raw, _ = json.Marshal(long)
	f.put("thing", 2, record("a", 2, string(raw)))
	f.want("SELECT length(_raw ->> 'f0599'), _raw ->> 'f1999' FROM api.thing", row("3000", "NULL"))
}

func TestARowOfManyNumbersKeepsWhatFits(t *testing.T) {
	t.Parallel()
	f := newFixture(t, anything())
	data := map[string]any{}
	for i := range 1400 {
		data[fmt.Sprintf("f%04d", i)] = i
	}
	raw, _ := json.Marshal(data)
	f.result(f.put("thing", 1, record("a", 1, string(raw))), mirror.Result{Inserted: 1, Noted: 1})
	f.want("SELECT f0899, f0900, _notes -> 0 ->> 'reason' LIKE '500 fields are only here: row is too big%' FROM api.thing", row("899", "NULL", "t"))
}

func TestARowTooBigKeepsWhatFits(t *testing.T) {
	t.Parallel()
	f := newFixture(t, anything())
	long := map[string]any{}
	for i := range 600 {
		long[fmt.Sprintf("f%04d", i)] = strings.Repeat(fmt.Sprintf("%016x", i*7919), 200)
	}
	raw, _ := json.Marshal(long)
	r := f.put("thing", 1, record("big", 1, string(raw)), record("small", 1, `{"f0000":"x"}`))
	f.result(r, mirror.Result{Inserted: 2, Noted: 1})
	f.want("SELECT id, f0399 IS NOT NULL, f0400 IS NOT NULL, _raw ? 'f0599', jsonb_array_length(_notes) FROM api.thing ORDER BY id",
		row("big", "t", "f", "t", "1"), row("small", "f", "f", "f", "NULL"))
}

func TestUsersObjectsSurvive(t *testing.T) {
	t.Parallel()
	f := newFixture(t, anything())
	f.put("thing", 1, record("a", 1, `{"n":1,"name":"x"}`))
	pgtest.Exec(t, f.url, "ALTER TABLE api.thing ADD COLUMN mine int DEFAULT 5, ADD COLUMN score text",
		"CREATE INDEX by_name ON api.thing (name)", "CREATE VIEW named AS SELECT id, n, name FROM api.thing",
		"CREATE TABLE note (thing text REFERENCES api.thing (id), body text)", "INSERT INTO note VALUES ('a', 'hello')", "UPDATE api.thing SET mine = 6, score = 'mine'")
	f.put("thing", 2, record("a", 2, `{"n":2.5,"name":{"first":"x"},"score":99,"new":true}`), record("b", 2, `{"n":3}`))
	f.eventually("SELECT string_agg(id || coalesce(n::text, '-') || n__numeric || mine || coalesce(score, '-'), ' ' ORDER BY id) FROM api.thing", "a-2.56mine b335-")
	f.want("SELECT count(*) FROM named", row("2"))
	f.want("SELECT count(*) FROM pg_indexes WHERE indexname = 'by_name'", row("1"))
	f.want("SELECT column_name LIKE 'score\\__%' FROM lockstep.sync_column WHERE key = 'score'", row("t"))

	// The foreign key of a user forbids the deletion: it is parked, and done when it may be.
	f.result(f.put("thing", 3, gone("a", 3)), mirror.Result{Parked: 1})
	f.want("SELECT count(*) FROM api.thing", row("2"))
	pgtest.Exec(t, f.url, "DELETE FROM note")
	f.eventually("SELECT count(*) FROM api.thing", "1")
	f.want("SELECT id FROM lockstep.sync_parked")
}

func TestForeignKeysBetweenMirrorTables(t *testing.T) {
	t.Parallel()
	order := source.Collection{Name: "order", Fields: []source.Field{{Name: "customer", Type: source.Text}}}
	f := newFixture(t, customers(), order)
	pgtest.Exec(t, f.url, `ALTER TABLE api."order" ADD FOREIGN KEY (customer) REFERENCES api.customer (id)`)
	f.put("customer", 1, customer("a", 1, 1))
	var page []source.Record
	for i := range 40 {
		page = append(page, record(fmt.Sprint("o", i), 1, fmt.Sprintf(`{"customer":%q}`, []string{"a", "b"}[i%2])))
	}
	r := f.put("order", 1, page...)
	f.result(r, mirror.Result{Inserted: 20, Parked: 20})
	f.want("SELECT DISTINCT attempts FROM lockstep.sync_parked", row("1"))
	f.put("customer", 2, customer("b", 2, 2))
	f.eventually(`SELECT count(customer) FROM api."order"`, "40")
	f.want("SELECT id FROM lockstep.sync_parked")
}

func TestHandMadeChangesOfTheTable(t *testing.T) {
	t.Parallel()
	f := newFixture(t, customers())
	f.put("customer", 1, customer("a", 1, 1))
	pgtest.Exec(t, f.url, "ALTER TABLE api.customer DROP COLUMN email, DROP COLUMN _notes", "ALTER TABLE api.customer RENAME COLUMN balance TO saldo",
		"ALTER TABLE api.customer DROP COLUMN city, ADD COLUMN city int")
	f.result(f.put("customer", 2, customer("b", 2, 2)), mirror.Result{Inserted: 1})
	f.eventually("SELECT string_agg(email || saldo || coalesce(city::text, '-'), ' ' ORDER BY id) FROM api.customer", "a@example.com1- b@example.com2-")
	f.want("SELECT count(*) > 0 FROM lockstep.sync_log WHERE kind = 'schema' AND message LIKE '%email was dropped%' AND message LIKE '%is now called saldo%'", row("t"))

	f.apply(mirror.Change{States: []mirror.State{{Name: "backfill:customer", Cursor: json.RawMessage(`"b"`)}}})
	pgtest.Exec(t, f.url, "DROP TABLE api.customer")
	f.result(f.put("customer", 3, customer("c", 3, 3)), mirror.Result{Inserted: 1})
	states, err := f.States(t.Context())
	if err != nil || len(states) != 0 {
		t.Errorf("the backfill of a table that was dropped is not forgotten: %v, %v", states, err)
	}
	f.want("SELECT outcome FROM lockstep.sync_log WHERE outcome = 'table_made_again'", row("table_made_again"))
}

func TestMendCorrectsHandMadeValues(t *testing.T) {
	t.Parallel()
	f := newFixture(t, customers())
	f.put("customer", 1, customer("a", 1, 1), customer("b", 1, 2), customer("c", 1, 3))
	pgtest.Exec(t, f.url, "UPDATE api.customer SET balance = 99, email = NULL WHERE id = 'b'")
	mended, next, err := f.Mend(t.Context(), "customer", "", 2)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"b"}, mended); diff != "" || next != "b" {
		t.Errorf("mended (-want +got):\n%s\nnext %q", diff, next)
	}
	f.want("SELECT email, balance FROM api.customer WHERE id = 'b'", row("b@example.com", "2"))
}

// Pages go on while somebody holds the table; the new column comes afterwards.
func TestALockedTableDoesNotStopPages(t *testing.T) {
	t.Parallel()
	f := newFixture(t, anything())
	f.put("thing", 1, record("a", 1, `{"n":1}`))
	conn, err := pgx.Connect(t.Context(), f.url)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(t.Context())
	if _, err := conn.Exec(t.Context(), "BEGIN; SELECT * FROM api.thing"); err != nil {
		t.Fatal(err)
	}
	f.result(f.put("thing", 2, record("b", 2, `{"n":2,"new":"x"}`)), mirror.Result{Inserted: 1})
	f.want("SELECT id, n FROM api.thing ORDER BY id", row("a", "1"), row("b", "2"))
	f.prepare(anything())
	if _, err := conn.Exec(t.Context(), "COMMIT"); err != nil {
		t.Fatal(err)
	}
	f.eventually(`SELECT count(*) FROM lockstep.sync_column WHERE key = 'new' AND filled`, "1")
	f.want("SELECT new FROM api.thing WHERE id = 'b'", row("x"))
}

func TestATableThatIsNoMirrorIsLeftAlone(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	pgtest.Exec(t, f.url, "CREATE SCHEMA api", "CREATE TABLE api.customer (id text)")
	if err := f.Prepare(t.Context(), []source.Collection{customers()}); !errors.Is(err, lockstep.ErrConflict) {
		t.Errorf("got %v, want ErrConflict", err)
	}
}

func TestASchemaBelongsToOneSync(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	_, err := mirror.Open(t.Context(), mirror.Config{Pool: f.pool, Sync: "11111111-1111-4111-8111-111111111111", Name: "other", Provider: "api"})
	if !errors.Is(err, lockstep.ErrConflict) || !strings.Contains(err.Error(), "api") {
		t.Errorf("got %v, want ErrConflict naming the schema", err)
	}
	for _, schema := range []string{"lockstep", "pg_x", "information_schema", strings.Repeat("x", 64)} {
		_, err := mirror.Open(t.Context(), mirror.Config{Pool: f.pool, Sync: f.id, Name: "other", Provider: "api", Schema: schema})
		if !errors.Is(err, lockstep.ErrInvalid) {
			t.Errorf("schema %q: got %v, want ErrInvalid", schema, err)
		}
	}
}
