package wal

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"lockstep/internal/capture/publish"
	"lockstep/internal/pgdb/pgtest"
)

// Partitions that are empty look the same after TRUNCATE of the table, which is in the
// log, and after TRUNCATE of each of them, which is not. Only who did it tells.
func TestTruncateOfAPartitionedTableIsNoGap(t *testing.T) {
	t.Parallel()
	url := pgtest.Database(t)
	pgtest.Exec(t, url, "CREATE TABLE a (id int PRIMARY KEY) PARTITION BY RANGE (id)",
		"CREATE TABLE a1 PARTITION OF a FOR VALUES FROM (0) TO (100)", "CREATE TABLE a2 PARTITION OF a FOR VALUES FROM (100) TO (200)", "CREATE TABLE b (id int PRIMARY KEY)")
	publishTables(t, url, "a", "b")
	log := newMemoryLog(t)
	book := &gapBook{log: log}
	config := func(c *Config, _ *tuning) { c.JoinSecret, c.Gap = "secret", book.note }
	r := begin(t, url, log, config)
	oid := pgtest.Query(t, url, "SELECT 'a'::regclass::oid")[0][0]
	emptied := func(xids ...string) string { return emptiedBy(oid, xids...) }
	xmin := func(table string) string {
		return pgtest.Query(t, url, "SELECT xmin FROM pg_class WHERE relname = $1::text", table)[0][0]
	}
	pgtest.Exec(t, url, "TRUNCATE a")
	whole := xmin("a1")
	pgtest.Exec(t, url, emptied(whole), "TRUNCATE b", "TRUNCATE a, b", "INSERT INTO a VALUES (1)")
	again := xmin("a1")
	pgtest.Exec(t, url, emptied(whole, again), "TRUNCATE a1")
	r.caughtUp()
	equal(t, book.all(), nil)
	leaf := xmin("a1")
	pgtest.Exec(t, url, emptied(again, leaf))
	r.caughtUp()
	equal(t, book.all(), []string{"leaf_truncated public.a from false"})
	changes := log.changes(t)
	last := changes[len(changes)-1]
	equal(t, last.Action, "gap")
	if want := `"missed":null,"detail":"it was \"truncated\""}`; !strings.HasSuffix(last.Extra, want) {
		t.Errorf("the gap is told as %s, want it to end in %s", last.Extra, want)
	}
	r.stop()

	r = begin(t, url, log, config)
	pgtest.Exec(t, url, emptied(whole)) // nobody remembers
	r.caughtUp()
	equal(t, len(book.all()), 2)
}

// The log has the TRUNCATE, and another process the rest of its transaction.
func TestTruncateThatIsReadAgainIsKnown(t *testing.T) {
	t.Parallel()
	url := pgtest.Database(t)
	pgtest.Exec(t, url, "CREATE TABLE a (id int PRIMARY KEY) PARTITION BY RANGE (id)", "CREATE TABLE a1 PARTITION OF a DEFAULT")
	publishTables(t, url, "a")
	log := newMemoryLog(t)
	book := &gapBook{log: log}
	config := func(c *Config, _ *tuning) { c.JoinSecret, c.Gap, c.BatchBytes = "secret", book.note, 4<<10 }
	r := begin(t, url, log, config)
	log.set(func() { log.room = 20 })
	pgtest.Exec(t, url, "BEGIN; TRUNCATE a; INSERT INTO a SELECT generate_series(1, 10000); COMMIT")
	pgtest.Eventually(t, 20*time.Second, "the disk takes no more", func() (full bool) {
		log.set(func() { full = log.stopped })
		return full
	})
	equal(t, log.mark().Seq > 0 && !log.mark().Complete, true)
	r.stop()
	log.start()
	r = begin(t, url, log, config)
	oid, xid := pgtest.Query(t, url, "SELECT 'a'::regclass::oid")[0][0], pgtest.Query(t, url, "SELECT xmin FROM pg_class WHERE relname = 'a1'")[0][0]
	pgtest.Exec(t, url, emptiedBy(oid, xid))
	r.caughtUp()
	equal(t, len(log.rows(t)), 10001)
	equal(t, book.all(), nil)
}

// emptiedBy is what package publish says of a partitioned table.
func emptiedBy(oid string, xids ...string) string {
	return fmt.Sprintf(`SELECT pg_logical_emit_message(true, 'lockstep:gap:secret', '{"reason":"leaf_truncated","tables":[{"oid":%s,"schema":"public","name":"a","detail":"it was \"truncated\"","truncated_by":[%s]}]}')`,
		oid, strings.Join(xids, ","))
}

func TestTruncationsAreKeptForAWhile(t *testing.T) {
	t.Parallel()
	var known truncations
	for xid := range uint32(maxTruncations + 10) {
		known.met(7, xid)
	}
	equal(t, len(known.latest), maxTruncations)
	for xid, want := range map[uint32]bool{9: false, 10: true, maxTruncations + 9: true, maxTruncations + 10: false} {
		equal(t, known.explain(publish.GapTable{OID: 7, TruncatedBy: []uint32{xid}}), want)
	}
	equal(t, known.explain(publish.GapTable{OID: 7, TruncatedBy: []uint32{20, 21}}), true)
	equal(t, known.explain(publish.GapTable{OID: 7, TruncatedBy: []uint32{20, 9}}), false)
	equal(t, known.explain(publish.GapTable{OID: 8, TruncatedBy: []uint32{20}}), false)
	equal(t, known.explain(publish.GapTable{OID: 7}), false)
	known.forget()
	equal(t, known.explain(publish.GapTable{OID: 7, TruncatedBy: []uint32{20}}), false)
}
