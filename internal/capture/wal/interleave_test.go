package wal

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"lockstep"
	"lockstep/internal/capture/publish"
	"lockstep/internal/pgdb/pgtest"
)

// describe announces a table as the reader of a page does.
func describe(t testing.TB, url, schema, name string) publish.TableMessage {
	t.Helper()
	m := publish.TableMessage{Schema: schema, Name: name, KeyKind: "primary_key"}
	const columns = `
		SELECT c.oid, c.relreplident, a.attname, a.atttypid, COALESCE(a.attnum = ANY(i.indkey), false)
		FROM pg_class c
		JOIN pg_namespace n ON n.oid = c.relnamespace
		JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
		LEFT JOIN pg_index i ON i.indrelid = c.oid AND i.indisprimary
		WHERE n.nspname = $1::text AND c.relname = $2::text
		ORDER BY a.attnum`
	number := func(s string) uint32 {
		n, err := strconv.ParseUint(s, 10, 32)
		if err != nil {
			t.Error(err)
		}
		return uint32(n)
	}
	for _, row := range pgtest.Query(t, url, columns, schema, name) {
		m.OID, m.Identity = number(row[0]), row[1]
		m.Columns = append(m.Columns, publish.Column{Name: row[2], TypeOID: number(row[3]), Key: row[4] == "t"})
	}
	const key = `
		SELECT a.attname
		FROM pg_index i, unnest(i.indkey) WITH ORDINALITY AS u(attnum, n)
		JOIN pg_attribute a ON a.attnum = u.attnum
		WHERE a.attrelid = i.indrelid AND i.indisprimary AND i.indrelid = $1::oid
		ORDER BY u.n`
	for _, row := range pgtest.Query(t, url, key, m.OID) {
		m.KeyColumns = append(m.KeyColumns, row[0])
	}
	return m
}

// pageReader reads pages over a connection of its own.
type pageReader struct {
	conn  *pgconn.PgConn
	table publish.TableMessage
}

func newPageReader(t testing.TB, url, table string) *pageReader {
	t.Helper()
	conn, err := pgconn.Connect(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		_ = conn.Close(ctx)
	})
	return &pageReader{conn: conn, table: describe(t, url, "public", table)}
}

// read reads rows as one transaction sees them; where may be empty.
func (r *pageReader) read(ctx context.Context, where string) (Page, error) {
	columns := make([]string, len(r.table.Columns))
	for i, c := range r.table.Columns {
		columns[i] = `"` + c.Name + `"`
	}
	sql := "BEGIN ISOLATION LEVEL REPEATABLE READ; SET LOCAL TimeZone = 'UTC'; SELECT pg_current_snapshot()::text; SELECT " +
		strings.Join(columns, ", ") + " FROM " + r.table.Name + " " + where + "; COMMIT"
	results, err := r.conn.Exec(ctx, sql).ReadAll()
	if err != nil {
		return Page{}, err
	}
	page := Page{Table: r.table, Action: lockstep.Read}
	if page.Snapshot, err = ParseSnapshot(string(results[2].Rows[0][0])); err != nil {
		return Page{}, err
	}
	for _, row := range results[3].Rows {
		page.Values = append(page.Values, row...)
	}
	return page, nil
}

// interleaving is a capture of one table a, which has rows that no change told.
func interleaving(t testing.TB, ddl []string, change ...settings) (*running, *pageReader) {
	t.Helper()
	url := pgtest.Database(t)
	pgtest.Exec(t, url, ddl...)
	publishTables(t, url, "a")
	change = append([]settings{func(c *Config, _ *tuning) { c.JoinSecret = "secret" }}, change...)
	return begin(t, url, newMemoryLog(t), change...), newPageReader(t, url, "a")
}

func simpleTable(rows int) []string {
	return []string{"CREATE TABLE a (id int PRIMARY KEY, v text)", fmt.Sprintf("INSERT INTO a SELECT i, 'old' FROM generate_series(1, %d) i", rows)}
}

// A row of which the log has a newer change is left out; one whose change the reader
// saw comes after that change.
func TestPageNeverOverridesANewerChange(t *testing.T) {
	t.Parallel()
	r, reader := interleaving(t, simpleTable(6))
	pgtest.Exec(t, r.url, "UPDATE a SET v = 'before' WHERE id = 6")
	got, err := r.Interleave(t.Context(), reader.table.OID, func(ctx context.Context, low uint64) (Page, error) {
		equal(t, low, uint64(1))
		equal(t, r.log.mark().Seq, uint64(1))
		pgtest.Exec(t, r.url, "UPDATE a SET v = 'seen' WHERE id = 1")
		page, err := reader.read(ctx, "ORDER BY id")
		pgtest.Exec(t, r.url, "UPDATE a SET v = 'new' WHERE id = 2", "DELETE FROM a WHERE id = 3", "UPDATE a SET id = 40 WHERE id = 4", "INSERT INTO a VALUES (7, 'new')")
		page.Consumer, page.Progress, page.Extra = "someone", "5", `,"backfill":{"id":"x"}`
		return page, err
	})
	ok(t, err)
	equal(t, got, Interleaved{Written: 3, Overridden: 3, Seq: 10})
	equal(t, r.log.mark().Seq, got.Seq) // durable
	pgtest.Exec(t, r.url, "UPDATE a SET v = 'after' WHERE id = 5")
	r.caughtUp()
	equal(t, r.log.rows(t), []string{
		`update {"id":6,"v":"before"}`,
		`update {"id":1,"v":"seen"}`, `update {"id":2,"v":"new"}`, `delete {"id":3}`, `delete {"id":4}`, `insert {"id":40,"v":"old"}`, `insert {"id":7,"v":"new"}`,
		`read {"id":1,"v":"seen"}`, `read {"id":5,"v":"old"}`, `read {"id":6,"v":"before"}`,
		`update {"id":5,"v":"after"}`,
	})
	var fives []uint64
	r.log.each(t, func(r lockstep.Record) {
		read := r.Action() == lockstep.Read
		equal(t, r.Table().Consumer == "someone" && r.Table().Progress == "5", read)
		equal(t, strings.HasSuffix(string(r.Extra()), `,"backfill":{"id":"x"}`), read)
		equal(t, r.Table().Key, lockstep.KeyPrimary)
		if string(r.PKs()) == `["5"]` {
			fives = append(fives, r.KeyHash())
		}
	})
	equal(t, len(fives), 2)
	equal(t, fives[0], fives[1]) // one order per key, whoever wrote the record
}

// The rows of one page lie in one batch, which is never parted, and have identities
// of their own.
func TestPageIsOneBatch(t *testing.T) {
	t.Parallel()
	r, reader := interleaving(t, simpleTable(2000), func(c *Config, _ *tuning) { c.BatchBytes = 1 << 10 })
	for range 2 {
		got, err := r.Interleave(t.Context(), reader.table.OID, func(ctx context.Context, _ uint64) (Page, error) {
			pgtest.Exec(t, r.url, "UPDATE a SET v = 'x' WHERE id <= 100")
			return reader.read(ctx, "")
		})
		ok(t, err)
		equal(t, got.Written, 2000)
	}
	keys := map[string]bool{}
	for _, b := range r.log.all() {
		reads := 0
		for i := range b.Len() {
			keys[string(lockstep.AppendIdempotencyKey(nil, b.Record(i)))] = true
			if b.Record(i).Action() == lockstep.Read {
				reads++
			}
		}
		if reads != 0 && (reads != 2000 || !b.Mark.Complete) {
			t.Errorf("%d rows of a page of 2000 in a batch, complete: %v", reads, b.Mark.Complete)
		}
	}
	equal(t, len(keys), 4200)
}

// A change that lacks a value stored out of line overrides the row, and leaves the
// reader of the log without that value: the row must be read again.
func TestOverriddenRowWithoutItsLargeValueIsReadAgain(t *testing.T) {
	t.Parallel()
	r, reader := interleaving(t, []string{
		"CREATE TABLE a (id int PRIMARY KEY, v int, body text)", "ALTER TABLE a ALTER body SET STORAGE EXTERNAL",
		"INSERT INTO a SELECT i, 0, repeat('b', 5000) FROM generate_series(1, 8) i",
	})
	got, err := r.Interleave(t.Context(), reader.table.OID, func(ctx context.Context, _ uint64) (Page, error) {
		page, err := reader.read(ctx, "ORDER BY id")
		pgtest.Exec(t, r.url,
			"UPDATE a SET v = 1 WHERE id = 1",                                             // again
			"UPDATE a SET v = 1, body = 'short' WHERE id = 2",                             // whole
			"UPDATE a SET body = 'short' WHERE id = 3", "UPDATE a SET v = 2 WHERE id = 3", // whole, then more of it
			"UPDATE a SET v = 1 WHERE id = 4", "DELETE FROM a WHERE id = 4", // gone
			"BEGIN; DELETE FROM a WHERE id = 5; UPDATE a SET id = 5 WHERE id = 6; COMMIT", // another row's key: again
		)
		return page, err
	})
	ok(t, err)
	equal(t, got, Interleaved{Written: 2, Overridden: 6, Again: []int{0, 4}, Seq: r.log.mark().Seq})
}

func TestTruncateAndGapOverrideEveryRow(t *testing.T) {
	t.Parallel()
	r, reader := interleaving(t, simpleTable(3))
	interleave := func(before, after string) Interleaved {
		t.Helper()
		got, err := r.Interleave(t.Context(), reader.table.OID, func(ctx context.Context, _ uint64) (Page, error) {
			pgtest.Exec(t, r.url, before)
			page, err := reader.read(ctx, "ORDER BY id")
			pgtest.Exec(t, r.url, after)
			return page, err
		})
		ok(t, err)
		got.Seq = 0
		return got
	}
	gap := func(table string) string {
		return fmt.Sprintf(`SELECT pg_logical_emit_message(true, 'lockstep:gap:secret', '{"reason":"table_rewritten","tables":[%s]}')`, table)
	}
	a := fmt.Sprintf(`{"oid":%d,"schema":"public","name":"a"}`, reader.table.OID)
	equal(t, interleave("SELECT 1", "TRUNCATE a"), Interleaved{Overridden: 3})
	equal(t, interleave("TRUNCATE a; INSERT INTO a VALUES (1, 'x')", "SELECT 1"), Interleaved{Written: 1})
	equal(t, interleave(gap(a), "SELECT 1"), Interleaved{Written: 1})
	equal(t, interleave("SELECT 1", gap(a)), Interleaved{Overridden: 1, Again: []int{0}})
	equal(t, interleave("SELECT 1", gap("")), Interleaved{Overridden: 1, Again: []int{0}})
	equal(t, interleave("SELECT 1", gap(`{"oid":1,"schema":"public","name":"other"}`)), Interleaved{Written: 1})
}

// A page of deletes is keys that were not there after the low watermark: only what
// the log has since then speaks against it.
func TestPageOfDeletes(t *testing.T) {
	t.Parallel()
	r, reader := interleaving(t, simpleTable(1))
	table := reader.table
	table.Columns = table.Columns[:1]
	pgtest.Exec(t, r.url, "INSERT INTO a VALUES (5, 'x')", "DELETE FROM a WHERE id = 5")
	_, err := r.Interleave(t.Context(), table.OID, func(context.Context, uint64) (Page, error) {
		pgtest.Exec(t, r.url, "INSERT INTO a VALUES (6, 'y')")
		return Page{Table: table, Action: lockstep.Delete, Values: [][]byte{[]byte("5"), []byte("6"), []byte("7")}}, nil
	})
	ok(t, err)
	changes := r.log.changes(t)
	equal(t, changes[3:], []seen{
		{Action: "delete", Table: "public.a", Row: `{"id":5}`, PKs: `["5"]`},
		{Action: "delete", Table: "public.a", Row: `{"id":7}`, PKs: `["7"]`},
	})
}

// An error of read is the caller's own; a page that makes no sense is refused. Either
// way nothing is written and the next page goes.
func TestPagesThatAreNotWritten(t *testing.T) {
	t.Parallel()
	r, reader := interleaving(t, simpleTable(1), func(c *Config, tune *tuning) {
		c.Tables, tune.notes = []string{"public.a"}, 3
	})
	own := errors.New("the reader's own")
	spoilt := func(spoil func(*Page)) error {
		_, err := r.Interleave(t.Context(), reader.table.OID, func(ctx context.Context, _ uint64) (Page, error) {
			page, err := reader.read(ctx, "")
			if err != nil {
				return page, err
			}
			spoil(&page)
			return page, nil
		})
		return err
	}
	_, err := r.Interleave(t.Context(), reader.table.OID, func(context.Context, uint64) (Page, error) { return Page{}, own })
	equal(t, errors.Is(err, own) && err.Error() == own.Error(), true)
	for name, c := range map[string]struct {
		spoil func(*Page)
		want  error
	}{
		"another table": {func(p *Page) { p.Table.OID++ }, lockstep.ErrInvalid},
		"half a row":    {func(p *Page) { p.Values = p.Values[:1] }, lockstep.ErrInvalid},
		"an action":     {func(p *Page) { p.Action = lockstep.Insert }, lockstep.ErrInvalid},
		"not captured":  {func(p *Page) { p.Table.Name = "b" }, lockstep.ErrInvalid},
		"long progress": {func(p *Page) { p.Progress = strings.Repeat("x", 70000) }, lockstep.ErrInvalid},
		"key not in it": {func(p *Page) { p.Table.KeyColumns = []string{"x"} }, lockstep.ErrInvalid},
		"renamed": {func(*Page) {
			pgtest.Exec(t, r.url, "UPDATE a SET v = 'r'", "ALTER TABLE a RENAME v TO w", "ALTER TABLE a RENAME w TO v")
		}, nil},
		"key altered": {func(*Page) {
			pgtest.Exec(t, r.url, "ALTER TABLE a RENAME id TO i", "UPDATE a SET v = 'r'", "ALTER TABLE a RENAME i TO id")
		}, lockstep.ErrUnavailable},
		"too many change": {func(*Page) {
			pgtest.Exec(t, r.url, "BEGIN; INSERT INTO a SELECT generate_series(10, 20); DELETE FROM a WHERE id >= 10; COMMIT")
		}, lockstep.ErrUnavailable},
	} {
		before := reads(t, r.log)
		err := spoilt(c.spoil)
		if c.want == nil {
			ok(t, err)
			continue
		}
		if !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", name, err, c.want)
		}
		equal(t, reads(t, r.log), before)
	}
	ok(t, spoilt(func(*Page) {}))
}

func reads(t testing.TB, log *memoryLog) (n int) {
	t.Helper()
	log.each(t, func(r lockstep.Record) {
		if r.Action() == lockstep.Read {
			n++
		}
	})
	return n
}

// A watermark that the log has passed is skipped, one that nobody waits for means
// nothing: the page is in the log once or not at all, and the caller is told to look.
func TestPageCutByARestart(t *testing.T) {
	t.Parallel()
	r, reader := interleaving(t, simpleTable(3))
	terminate := func() {
		pgtest.Exec(t, r.url, "SELECT pg_terminate_backend(active_pid) FROM pg_replication_slots WHERE slot_name = '"+r.config.Slot+"'")
	}
	again := func() {
		pgtest.Eventually(t, 10*time.Second, "capture streams again", func() bool { return r.Status().Connected })
	}
	_, err := r.Interleave(t.Context(), reader.table.OID, func(ctx context.Context, _ uint64) (Page, error) {
		terminate()
		<-ctx.Done() // read is told
		again()
		return reader.read(t.Context(), "")
	})
	equal(t, errors.Is(err, lockstep.ErrUnavailable), true)
	r.caughtUp()
	equal(t, reads(t, r.log), 0)

	// On its way to the disk when the connection breaks.
	failed := make(chan error, 1)
	go func() {
		_, err := r.Interleave(t.Context(), reader.table.OID, func(ctx context.Context, _ uint64) (Page, error) {
			page, err := reader.read(ctx, "")
			r.log.stop()
			return page, err
		})
		failed <- err
	}()
	pgtest.Eventually(t, 10*time.Second, "the page is on its way", func() bool {
		r.log.mu.Lock()
		defer r.log.mu.Unlock()
		return slices.ContainsFunc(r.log.waiting, func(a appended) bool { return a.batch.Len() == 3 })
	})
	terminate()
	equal(t, errors.Is(<-failed, lockstep.ErrUnavailable), true)
	r.log.start()
	again()
	r.caughtUp()
	equal(t, reads(t, r.log), 3)
	r.stop()
	_, err = r.Interleave(t.Context(), reader.table.OID, nil)
	equal(t, errors.Is(err, lockstep.ErrUnavailable), true)

	// The whole WAL once more, from a slot that stands before it.
	r = begin(t, r.url, r.log, func(c *Config, _ *tuning) { c.JoinSecret = "secret" })
	r.caughtUp()
	equal(t, reads(t, r.log), 3)
}

// A decoder meets the watermarks of others, and its own ones a second time after a
// restart: nothing comes of it.
func TestWatermarksThatNobodyWaitsFor(t *testing.T) {
	t.Parallel()
	stream := record(t, []string{"CREATE TABLE a (id int PRIMARY KEY)"}, []string{"a"}, []string{
		"INSERT INTO a VALUES (1)", "SELECT pg_logical_emit_message(true, 'lockstep:page:secret', 'x low')",
		"SELECT pg_logical_emit_message(true, 'lockstep:page:secret', 'x high')", "SELECT pg_logical_emit_message(true, 'lockstep:page:secret', '')",
	})
	for _, id := range []string{"", "y"} {
		log := newMemoryLog(t)
		b := unstarted(t, log, 1<<10)
		d := newDecoder(b, &source{}, lockstep.Mark{})
		d.pagePrefix = pagePrefix + "secret"
		if id != "" {
			d.windows.Store(&window{id: id})
		}
		for _, m := range stream {
			ok(t, d.decode(t.Context(), m.data))
		}
		ok(t, b.flush(t.Context()))
		landed(t, log)
		equal(t, log.rows(t), []string{`insert {"id":1}`})
	}
}

func TestPagesTakeTurns(t *testing.T) {
	t.Parallel()
	r, reader := interleaving(t, simpleTable(1))
	entered, leave := make(chan struct{}), make(chan struct{})
	first := make(chan error, 1)
	go func() {
		_, err := r.Interleave(t.Context(), reader.table.OID, func(ctx context.Context, _ uint64) (Page, error) {
			close(entered)
			<-leave
			return reader.read(ctx, "")
		})
		first <- err
	}()
	<-entered
	brief, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	_, err := r.Interleave(brief, reader.table.OID, nil) // never read
	equal(t, errors.Is(err, context.DeadlineExceeded), true)
	close(leave)
	ok(t, <-first)
	equal(t, reads(t, r.log), 1)
}

func TestSnapshots(t *testing.T) {
	t.Parallel()
	s, err := ParseSnapshot("4294967300:4294967310:4294967300,4294967305")
	ok(t, err)
	equal(t, s, Snapshot{Min: 1<<32 + 4, Max: 1<<32 + 14, Running: []uint64{1<<32 + 4, 1<<32 + 9}})
	for xid, want := range map[uint32]bool{3: true, 4: false, 5: true, 9: false, 13: true, 14: false, 1 << 30: false, 1<<32 - 1: true, 3 << 30: true} {
		equal(t, s.Sees(xid), want)
	}
	equal(t, Snapshot{Min: 5, Max: 5}.Sees(1<<32-1), true)
	equal(t, Snapshot{}.Sees(1), false)
	for _, bad := range []string{"", "1:2", "a:2:", "1:b:", "1:2:x"} {
		if _, err := ParseSnapshot(bad); !errors.Is(err, lockstep.ErrInvalid) {
			t.Errorf("%q: %v", bad, err)
		}
	}
}

// What is not known any more is not taken for settled.
func TestSettlingForgetsNothingSilently(t *testing.T) {
	t.Parallel()
	s := newSettling()
	s.limit = 3
	list := func(want []uint32, known bool) {
		t.Helper()
		xids, ok := s.list()
		equal(t, slices.Equal(xids, want), true)
		equal(t, ok, known)
	}
	for _, xid := range []uint32{10, 12, 11} {
		s.met(xid)
	}
	s.seen(Snapshot{Min: 11, Max: 20, Running: []uint64{11, 12}})
	list([]uint32{12, 11}, true)
	s.met(13)
	s.met(14) // one too many
	list([]uint32{14}, false)
	s.seen(Snapshot{Min: 13, Max: 20, Running: []uint64{13}})
	list(nil, false)
	s.seen(Snapshot{Min: 14, Max: 20})
	list(nil, true)
}
