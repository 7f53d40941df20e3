package wal

import (
	"fmt"
	"runtime"
	"strings"
	"testing"
	"time"

	"lockstep"
	"lockstep/internal/pgdb/pgtest"
)

// small makes Postgres spill transactions to disk.
func small(t testing.TB, url string) {
	t.Helper()
	pgtest.Exec(t, url, "ALTER DATABASE "+pgtest.Query(t, url, "SELECT quote_ident(current_database())")[0][0]+" SET logical_decoding_work_mem = '64kB'")
}

// W15, W16, W18
func TestWhatWasRolledBackIsNotSeen(t *testing.T) {
	t.Parallel()
	url := pgtest.Database(t)
	pgtest.Exec(t, url, "CREATE TABLE a (id int PRIMARY KEY)")
	small(t, url)
	publishTables(t, url, "a")
	log := newMemoryLog(t)
	r := begin(t, url, log)
	pgtest.Exec(t, url,
		"BEGIN; INSERT INTO a SELECT generate_series(100000, 120000); ROLLBACK",
		`BEGIN; INSERT INTO a SELECT generate_series(1, 10000); SAVEPOINT s; INSERT INTO a SELECT generate_series(10001, 20000);
		 ROLLBACK TO s; INSERT INTO a SELECT generate_series(20001, 21000); COMMIT`,
		"BEGIN; INSERT INTO a VALUES (50000); SAVEPOINT s; INSERT INTO a VALUES (50001); ROLLBACK TO s; COMMIT")
	r.caughtUp()
	var want []string
	for i := 1; i <= 21000; i++ {
		if i <= 10000 || i > 20000 {
			want = append(want, fmt.Sprintf(`insert {"id":%d}`, i))
		}
	}
	equal(t, log.rows(t), append(want, `insert {"id":50000}`))
}

// W17
func TestInterleavedTransactionsAreNotMixed(t *testing.T) {
	t.Parallel()
	url := pgtest.Database(t)
	pgtest.Exec(t, url, "CREATE TABLE a (id int PRIMARY KEY)")
	small(t, url)
	publishTables(t, url, "a")
	log := newMemoryLog(t)
	r := begin(t, url, log)
	one, two := connectSQL(t, url), connectSQL(t, url)
	one("BEGIN")
	two("BEGIN")
	for i := range 5 {
		one(fmt.Sprintf("INSERT INTO a SELECT generate_series(%d, %d)", i*1000, i*1000+999))
		two(fmt.Sprintf("INSERT INTO a SELECT generate_series(%d, %d)", 10000+i*1000, 10000+i*1000+999))
	}
	two("COMMIT")
	one("COMMIT")
	r.caughtUp()
	var want []string
	for i := range 5000 {
		want = append(want, fmt.Sprintf(`insert {"id":%d}`, 10000+i))
	}
	for i := range 5000 {
		want = append(want, fmt.Sprintf(`insert {"id":%d}`, i))
	}
	equal(t, log.rows(t), want)
}

// W14 at a size for every test run: memory is that of some batches, not of the
// transaction. Not in parallel with other tests: they share the heap.
func TestLargeTransactionPassesInBoundedMemory(t *testing.T) {
	url := pgtest.Database(t)
	pgtest.Exec(t, url, "CREATE TABLE a (id int PRIMARY KEY, v text)")
	publishTables(t, url, "a")
	log := newCountingLog(t)
	c := launchOn(t, url, log)
	pgtest.Eventually(t, 20*time.Second, "capture streams", func() bool { return c.Status().Connected })
	var before, now runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	pgtest.Exec(t, url, "INSERT INTO a SELECT i, repeat('x', 400) FROM generate_series(1, 300000) i")
	var peak uint64
	pgtest.Eventually(t, 60*time.Second, "all rows arrived", func() bool {
		runtime.ReadMemStats(&now)
		peak = max(peak, now.HeapInuse)
		return log.count.Load() == 300000
	})
	if grown := int64(peak) - int64(before.HeapInuse); grown > 100<<20 {
		t.Errorf("the heap grew by %d MB for a transaction of 130 MB", grown>>20)
	}
	equal(t, log.batches.Load() > 300, true)
}

// W21 and the annotations of the contract
func TestAnnotationsTouchTheirOwnTransactionOnly(t *testing.T) {
	t.Parallel()
	url := pgtest.Database(t)
	pgtest.Exec(t, url, "CREATE TABLE a (id int PRIMARY KEY)")
	publishTables(t, url, "a")
	log := newMemoryLog(t)
	r := begin(t, url, log)
	emit := func(prefix, content string) string {
		return "SELECT pg_logical_emit_message(true, '" + prefix + "', '" + content + "');"
	}
	pgtest.Exec(t, url,
		"BEGIN; INSERT INTO a VALUES (1);"+emit("lockstep:annotations", ` {"by": "ann"} `)+"INSERT INTO a VALUES (2), (3);"+
			emit("sequin:transaction_annotations.set", `["b"]`)+"INSERT INTO a VALUES (4);"+
			emit("lockstep:annotations", `{"not json`)+"INSERT INTO a VALUES (5);"+
			emit("sequin:transaction_annotations.clear", ``)+"INSERT INTO a VALUES (6); COMMIT",
		"INSERT INTO a VALUES (7)",
		"BEGIN; SELECT pg_logical_emit_message(false, 'lockstep:annotations', '{}'); INSERT INTO a VALUES (8); COMMIT",
		"BEGIN;"+emit("lockstep:annotations", `1`)+"ROLLBACK",
		"INSERT INTO a VALUES (9)",
		"SELECT pg_logical_emit_message(false, 'lockstep:annotations', '{}')")
	r.caughtUp()
	var got []string
	log.each(t, func(r lockstep.Record) { got = append(got, string(r.Row())+string(r.Tx().Annotations)) })
	equal(t, got, []string{
		`{"id":1}`, `{"id":2}{"by": "ann"}`, `{"id":3}{"by": "ann"}`, `{"id":4}["b"]`, `{"id":5}["b"]`, `{"id":6}`, `{"id":7}`, `{"id":8}`, `{"id":9}`,
	})
	equal(t, r.Status().BadAnnotations, 1)
}

func TestOriginIsThatOfTheTransaction(t *testing.T) {
	t.Parallel()
	url := pgtest.Database(t)
	pgtest.Exec(t, url, "CREATE TABLE a (id int PRIMARY KEY)")
	publishTables(t, url, "a")
	log := newMemoryLog(t)
	r := begin(t, url, log)
	// Origins are the cluster's: their names carry the database's.
	suffix := "_" + slotOf(url)
	var want []lockstep.Origin
	for i, o := range []lockstep.Origin{lockstep.OriginSync, lockstep.OriginProxy, lockstep.OriginBinding, lockstep.OriginUser} {
		name := "lockstep_" + o.String() + suffix
		if o == lockstep.OriginUser {
			name = "other" + suffix
		}
		pgtest.Exec(t, url, "SELECT pg_replication_origin_create('"+name+"')")
		session := connectSQL(t, url)
		session("SELECT pg_replication_origin_session_setup('" + name + "')")
		session(fmt.Sprintf("INSERT INTO a VALUES (%d)", i))
		session("SELECT pg_replication_origin_session_reset()")
		t.Cleanup(func() { pgtest.Exec(t, url, "SELECT pg_replication_origin_drop('"+name+"')") })
		want = append(want, o)
	}
	pgtest.Exec(t, url, "INSERT INTO a VALUES (9)")
	want = append(want, lockstep.OriginUser)
	r.caughtUp()
	var got []lockstep.Origin
	log.each(t, func(r lockstep.Record) { got = append(got, r.Tx().Origin) })
	equal(t, got, want)
}

func TestRowsOfAJoiningTableAreInserts(t *testing.T) {
	t.Parallel()
	url := pgtest.Database(t)
	pgtest.Exec(t, url, "CREATE TABLE a (id int PRIMARY KEY, v text, j jsonb)")
	publishTables(t, url)
	oid := pgtest.Query(t, url, "SELECT 'a'::regclass::oid")[0][0]
	announce := func(secret string) string {
		return `SELECT pg_logical_emit_message(true, 'lockstep:table:` + secret + `', '{"oid":` + oid + `,"schema":"public","name":"a","key_kind":"primary_key","identity":"d",
			"columns":[{"name":"id","type_oid":23,"key":true},{"name":"v","type_oid":25,"key":false},{"name":"j","type_oid":3802,"key":false}],"key_columns":["id"]}');`
	}
	rows := func(secret string) string {
		return `SELECT pg_logical_emit_message(true, 'lockstep:row:` + secret + `', ROW(a.id, a.v, a.j)::text) FROM a;`
	}
	pgtest.Exec(t, url, `INSERT INTO a VALUES (1, 'a "quoted", \ (v)', '{"x": [1, "y"]}'), (2, NULL, 'null'), (3, '', NULL)`)
	log := newMemoryLog(t)
	r := begin(t, url, log, func(c *Config, _ *tuning) { c.JoinSecret = "s3cret" })
	pgtest.Exec(t, url, "BEGIN;"+announce("forged")+rows("forged")+"COMMIT")
	pgtest.Exec(t, url, "BEGIN;"+rows("s3cret")+"COMMIT") // not announced in its transaction
	pgtest.Exec(t, url, "BEGIN; ALTER PUBLICATION p ADD TABLE a;"+announce("s3cret")+rows("s3cret")+"COMMIT")
	pgtest.Exec(t, url, "UPDATE a SET v = 'w' WHERE id = 1")
	r.caughtUp()
	equal(t, log.changes(t), []seen{
		{Action: "insert", Table: "public.a", Row: `{"id":1,"v":"a \"quoted\", \\ (v)","j":{"x": [1, "y"]}}`, PKs: `["1"]`, OldKnown: true},
		{Action: "insert", Table: "public.a", Row: `{"id":2,"v":null,"j":null}`, PKs: `["2"]`, Extra: `,"json_null":["j"]`, OldKnown: true},
		{Action: "insert", Table: "public.a", Row: `{"id":3,"v":"","j":null}`, PKs: `["3"]`, OldKnown: true},
		{Action: "update", Table: "public.a", Row: `{"id":1,"v":"w","j":{"x": [1, "y"]}}`, PKs: `["1"]`},
	})
	h := hashes(t, log)
	equal(t, h[3], h[0])
}

func TestTableThatJoinsWithoutItsRowsIsAGap(t *testing.T) {
	t.Parallel()
	url := pgtest.Database(t)
	pgtest.Exec(t, url, "CREATE TABLE a (id int PRIMARY KEY)", "INSERT INTO a VALUES (1)")
	publishTables(t, url)
	log := newMemoryLog(t)
	r := begin(t, url, log, func(c *Config, _ *tuning) { c.JoinSecret = "s3cret" })
	pgtest.Exec(t, url, `BEGIN; ALTER PUBLICATION p ADD TABLE a;
		SELECT pg_logical_emit_message(true, 'lockstep:table:s3cret', '{"oid":1,"schema":"public","name":"a","key_kind":"primary_key","identity":"d",
			"columns":[{"name":"id","type_oid":23,"key":true}],"key_columns":["id"],"rows":"missing","reason":"it is too large"}'); COMMIT`,
		"INSERT INTO a VALUES (2)")
	r.caughtUp()
	changes := log.changes(t)
	equal(t, len(changes), 2)
	equal(t, changes[0].Action+" "+changes[0].Table, "gap public.a")
	if !strings.HasPrefix(changes[0].Extra, `,"gap":{"state":"start","reason":"rows_missing","from_lsn":null,"to_lsn":`) {
		t.Error(changes[0].Extra)
	}
	equal(t, changes[1].Row, `{"id":2}`)
}

func TestPublicationMadeAgainUnderTheSlotIsAGapOfEverything(t *testing.T) {
	t.Parallel()
	url := pgtest.Database(t)
	pgtest.Exec(t, url, "CREATE TABLE a (id int PRIMARY KEY)")
	publishTables(t, url, "a")
	log := newMemoryLog(t)
	r := begin(t, url, log, func(c *Config, _ *tuning) { c.JoinSecret = "s3cret" })
	pgtest.Exec(t, url, "INSERT INTO a VALUES (1)", `SELECT pg_logical_emit_message(true, 'lockstep:gap:s3cret', 'publication_rebuilt')`,
		`SELECT pg_logical_emit_message(true, 'lockstep:gap:guessed', 'publication_rebuilt')`, "INSERT INTO a VALUES (2)")
	r.caughtUp()
	equal(t, gapOf(t, log), []string{`{"id":1}`, "publication_rebuilt", `{"id":2}`})
}
