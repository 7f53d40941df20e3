package wal

import (
	"context"
	"encoding/hex"
	"slices"
	"strings"
	"testing"
	"time"

	"lockstep"
	"lockstep/internal/capture/value"
	"lockstep/internal/pgdb"
	"lockstep/internal/pgdb/pgtest"
)

// frame is a message of the replication stream: 'w' and a message of pgoutput.
type frame struct {
	kind byte
	data []byte
}

type recording []frame

// source is a relationSource without a database: every table is wanted, types are
// the built-in ones, and keys are in the order of the stream's flags.
type source struct{ keys map[uint32]tableKeys }

func (*source) Wanted(string, string) bool { return true }

func (*source) Encoder(ctx context.Context, oid uint32) (value.Encoder, error) {
	none := func(context.Context, []uint32) ([]value.Type, error) { return nil, nil }
	return value.NewCatalog(none, value.Options{}).Encoder(ctx, oid)
}

func (s *source) Keys(_ context.Context, oid uint32) (tableKeys, error) { return s.keys[oid], nil }

// replay decodes a recording into log from the mark on, handing batches over as a
// session does between reads.
func replay(t testing.TB, log *memoryLog, from lockstep.Mark, limit int, r recording, s relationSource) {
	t.Helper()
	f := newFlight(from.EndLSN, &counters{}, func(err error) { t.Error("log:", err) })
	b := newBatch(log, f, from, limit)
	d := newDecoder(b, s, from)
	d.secret = "secret"
	for i, m := range r {
		if err := d.decode(t.Context(), m.data); err != nil {
			t.Fatalf("message %d (%q): %v", i, m.data[0], err)
		}
		if err := b.offer(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if !b.midway() && b.w.Count() > 0 {
		if err := b.flush(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	if _, err := log.Recover(ctx); err != nil {
		t.Fatal(err)
	}
}

// peek reads what a slot would send, without moving it.
func peek(t testing.TB, url, slot string) recording {
	t.Helper()
	rows := pgtest.Query(t, url, `
		SELECT data
		FROM pg_logical_slot_peek_binary_changes($1::text, NULL, NULL, 'proto_version', '1', 'publication_names', 'p,p_inserts', 'messages', 'true')`, slot)
	var r recording
	for _, row := range rows {
		data, err := hex.DecodeString(strings.TrimPrefix(row[0], `\x`))
		if err != nil {
			t.Fatal(err)
		}
		r = append(r, frame{'w', data})
	}
	return r
}

// record returns what the statements make a slot send.
func record(t testing.TB, ddl, tables, statements []string) recording {
	t.Helper()
	url := pgtest.Database(t)
	pgtest.Exec(t, url, ddl...)
	publishTables(t, url, tables...)
	slot := slotOf(url)
	pgtest.Exec(t, url, "SELECT pg_create_logical_replication_slot("+pgdb.QuoteLiteral(slot)+", 'pgoutput')")
	pgtest.Exec(t, url, statements...)
	return peek(t, url, slot)
}

// mixed is a stream with every kind of message that a restart could cut.
func mixed(t testing.TB) recording {
	return record(t,
		[]string{
			"CREATE TABLE a (id int PRIMARY KEY, v text)", "CREATE TABLE b (x int, y int, v text, PRIMARY KEY (y, x))",
			"CREATE TABLE f (id int, v text)", "ALTER TABLE f REPLICA IDENTITY FULL", "CREATE TABLE c (id int PRIMARY KEY, v text)",
		},
		[]string{"a", "b", "f", "c"},
		[]string{
			"INSERT INTO a SELECT i, 'v' FROM generate_series(1, 5) i",
			`BEGIN; INSERT INTO b VALUES (1, 2, 'x'); UPDATE b SET x = 3; SELECT pg_logical_emit_message(true, 'lockstep:annotations', '{"n":1}');
			 UPDATE a SET id = id + 10; SELECT pg_logical_emit_message(true, 'other', 'x'); INSERT INTO f VALUES (1, 'x'), (1, 'x');
			 ALTER TABLE a ADD COLUMN w int DEFAULT 5; UPDATE a SET v = 'w' WHERE id < 13; SELECT pg_logical_emit_message(true, 'sequin:transaction_annotations.clear', '');
			 DELETE FROM f WHERE ctid = (SELECT min(ctid) FROM f); TRUNCATE a, c; INSERT INTO c VALUES (1, 'y'); COMMIT`,
			"SELECT pg_logical_emit_message(false, 'lockstep:annotations', '{}')",
			`BEGIN; SELECT pg_logical_emit_message(true, 'lockstep:table:secret', '{"oid":99,"schema":"public","name":"joined","key_kind":"primary_key","identity":"d","columns":[{"name":"id","type_oid":23,"key":true},{"name":"v","type_oid":25,"key":false}],"key_columns":["id"]}');
			 SELECT pg_logical_emit_message(true, 'lockstep:row:secret', ROW(i, 'a "b", \c')::text) FROM generate_series(1, 3) i; COMMIT`,
			"UPDATE b SET v = 'z'", "DELETE FROM b",
		})
}

func messages(t testing.TB, log *memoryLog) []string {
	t.Helper()
	var all []string
	log.each(t, func(r lockstep.Record) {
		all = append(all, string(lockstep.AppendMessage(nil, r, lockstep.MessageOptions{Database: "app"})))
	})
	return all
}

// Invariant 2: wherever the log ended, the rest arrives exactly once, with the
// same content and identities as without a cut.
func TestRestartAtEveryMarkGivesEachChangeExactlyOnce(t *testing.T) {
	t.Parallel()
	stream := mixed(t)
	whole := newMemoryLog(t)
	replay(t, whole, lockstep.Mark{}, 1<<20, stream, &source{})
	want := messages(t, whole)
	// A limit of one byte ends a batch after every message: every possible mark.
	cuts := newMemoryLog(t)
	replay(t, cuts, lockstep.Mark{}, 1, stream, &source{})
	equal(t, messages(t, cuts), want)
	if len(want) < 30 || len(cuts.all()) < 20 {
		t.Fatalf("%d changes in %d batches are too few to say anything", len(want), len(cuts.all()))
	}
	for n := range cuts.all() {
		for _, limit := range []int{1, 700, 1 << 20} {
			log := newMemoryLog(t)
			log.batches = slices.Clone(cuts.all()[:n+1])
			log.last = cuts.all()[n].Mark
			log.next = log.last.Seq + 1
			replay(t, log, log.last, limit, stream, &source{})
			if got := messages(t, log); !slices.Equal(got, want) {
				equal(t, got, want)
				t.Fatalf("restart after batch %d, mark %+v, limit %d", n, cuts.all()[n].Mark, limit)
			}
		}
	}
}

// A transaction that the log has to its end is skipped to its end, even if the rest
// of it did not match the configuration then and does now.
func TestCompleteTransactionIsSkippedAsAWhole(t *testing.T) {
	t.Parallel()
	stream := record(t, []string{"CREATE TABLE a (id int PRIMARY KEY)"}, []string{"a"},
		[]string{"INSERT INTO a VALUES (1), (2), (3)", "INSERT INTO a VALUES (4)"})
	cuts := newMemoryLog(t)
	replay(t, cuts, lockstep.Mark{}, 1, stream, &source{})
	mark := cuts.all()[0].Mark
	mark.Complete = true
	log := newMemoryLog(t)
	replay(t, log, mark, 1, stream, &source{})
	equal(t, log.rows(t), []string{`insert {"id":4}`})
}

// What one message makes lies in one batch.
func TestKeyChangeIsNotParted(t *testing.T) {
	t.Parallel()
	stream := record(t, []string{"CREATE TABLE a (id int PRIMARY KEY)"}, []string{"a"},
		[]string{"INSERT INTO a SELECT generate_series(1, 20)", "UPDATE a SET id = id + 100"})
	log := newMemoryLog(t)
	replay(t, log, lockstep.Mark{}, 1, stream, &source{})
	for _, b := range log.all() {
		for i := range b.Len() {
			if r := b.Record(i); r.Action() == lockstep.Delete && (i+1 == b.Len() || b.Record(i+1).Action() != lockstep.Insert) {
				t.Fatalf("the delete with seq %d ends its batch", r.Seq())
			}
		}
	}
}
