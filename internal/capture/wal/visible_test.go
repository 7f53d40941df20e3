package wal

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"lockstep"
	"lockstep/internal/pgdb/pgtest"
)

// hiddenCommits returns a cluster of whose sessions those with synchronous_commit on
// wait for a standby that does not exist: their commits are in the WAL, and nobody
// sees them before release is called.
func hiddenCommits(t testing.TB) (url string, release func()) {
	t.Helper()
	c := pgtest.Cluster(t, nil)
	url = c.URL("postgres")
	pgtest.Exec(t, url, "ALTER DATABASE postgres SET synchronous_commit = local")
	pgtest.Exec(t, url, "ALTER SYSTEM SET synchronous_standby_names = 'nobody'", "SELECT pg_reload_conf()")
	pgtest.Eventually(t, 10*time.Second, "commits wait", func() bool {
		return pgtest.Query(t, url, "SHOW synchronous_standby_names")[0][0] == "nobody"
	})
	conn, err := pgconn.Connect(t.Context(), url)
	ok(t, err)
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		_ = conn.Close(ctx)
	})
	return url, func() {
		if _, err := conn.Exec(context.Background(), "SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE wait_event = 'SyncRep'").ReadAll(); err != nil {
			t.Error(err)
		}
	}
}

// A row read before a change became visible, which the log has from before the low
// watermark, would come after it and be older.
func TestCommitThatIsInTheLogAndNotVisibleYetHoldsThePageUp(t *testing.T) {
	t.Parallel()
	url, release := hiddenCommits(t)
	pgtest.Exec(t, url, simpleTable(1)...)
	publishTables(t, url, "a")
	log := newMemoryLog(t)
	config := func(c *Config, tune *tuning) { c.Slot, tune.visible = "s", 50*time.Millisecond }
	r := begin(t, url, log, config)
	reader := newPageReader(t, url, "a")
	var hidden sync.WaitGroup
	hidden.Go(func() { pgtest.Exec(t, url, "SET synchronous_commit = on", "UPDATE a SET v = 'new'") })
	pgtest.Eventually(t, 10*time.Second, "the log has it", func() bool { return len(log.rows(t)) == 1 })
	called := false
	interleave := func() error {
		_, err := r.Interleave(t.Context(), reader.table.OID, func(ctx context.Context, _ uint64) (Page, error) {
			called = true
			return reader.read(ctx, "")
		})
		return err
	}
	err := interleave()
	if !errors.Is(err, lockstep.ErrUnavailable) || !strings.Contains(err.Error(), "synchronous standby") || called {
		t.Error(err, called)
	}
	// A process that did not see the commit come in finds it too.
	r.stop()
	r = begin(t, url, log, config)
	equal(t, errors.Is(interleave(), lockstep.ErrUnavailable), true)
	equal(t, called, false)
	r.stop()
	r = begin(t, url, log, config, func(_ *Config, tune *tuning) { tune.visible = time.Minute })
	done := make(chan error, 1)
	go func() { done <- interleave() }()
	release()
	ok(t, <-done)
	hidden.Wait()
	equal(t, log.rows(t), []string{`update {"id":1,"v":"new"}`, `read {"id":1,"v":"new"}`})
}

// A reader that takes its snapshot too early is refused.
func TestSnapshotFromBeforeTheWatermarkIsRefused(t *testing.T) {
	t.Parallel()
	url, release := hiddenCommits(t)
	pgtest.Exec(t, url, simpleTable(1)...)
	publishTables(t, url, "a")
	log := newMemoryLog(t)
	r := begin(t, url, log, func(c *Config, tune *tuning) { c.Slot, tune.poll = "s", time.Hour })
	reader := newPageReader(t, url, "a")
	var hidden sync.WaitGroup
	hidden.Go(func() { pgtest.Exec(t, url, "SET synchronous_commit = on", "UPDATE a SET v = 'new'") })
	pgtest.Eventually(t, 10*time.Second, "the log has it", func() bool { return len(log.rows(t)) == 1 })
	early, err := reader.read(t.Context(), "")
	ok(t, err)
	equal(t, string(early.Values[1]), "old")
	release()
	hidden.Wait()
	_, err = r.Interleave(t.Context(), reader.table.OID, func(context.Context, uint64) (Page, error) { return early, nil })
	if !errors.Is(err, lockstep.ErrUnavailable) {
		t.Error(err)
	}
	equal(t, len(log.rows(t)), 1)
}

// model is the table as the log tells it: rows by primary key. What is not known yet
// has no entry, what is known not to be there a nil one.
type model struct {
	rows    map[string]map[string]any
	emptied bool // everything not in rows is known not to be there
	columns int  // of a whole row
	deleted map[string]any
	// moved are rows whose key was changed before they were read, to one that the
	// reader had behind it: no change carries their large value.
	moved map[string]bool
}

func newModel(columns int) *model {
	return &model{rows: map[string]map[string]any{}, columns: columns, moved: map[string]bool{}}
}

// apply applies a change, and says what is wrong with it.
func (m *model) apply(r lockstep.Record) error {
	key := string(r.PKs())
	if r.Action() == lockstep.Truncate {
		m.rows, m.emptied = map[string]map[string]any{}, true
		return nil
	}
	var row map[string]any
	if err := json.Unmarshal(r.Row(), &row); err != nil {
		return err
	}
	before, known := m.rows[key]
	known = known || m.emptied
	switch r.Action() {
	case lockstep.Read:
		// Every change that comes before it is in it, and none that comes later.
		if known && (len(before) == 0 || len(before) == m.columns && !maps.Equal(before, row)) {
			return fmt.Errorf("seq %d reads %s as %s; the changes before it make it %v", r.Seq(), key, r.Row(), summary(before))
		}
		m.rows[key] = row
	case lockstep.Delete:
		m.deleted, m.rows[key] = before, nil
	case lockstep.Insert:
		if len(row) < m.columns {
			// A changed key: the row is the one that was deleted just before.
			whole := maps.Clone(m.deleted)
			if whole == nil {
				whole = map[string]any{}
			}
			maps.Copy(whole, row)
			row = whole
			m.moved[key] = len(row) < m.columns
		}
		m.rows[key] = row
	case lockstep.Update:
		if before == nil {
			before = map[string]any{}
		}
		maps.Copy(before, row)
		m.rows[key] = before
	}
	return nil
}

// complete checks that of every row all is known.
func (m *model) complete(t testing.TB) {
	t.Helper()
	for key, row := range m.rows {
		if row != nil && len(row) < m.columns && !m.moved[key] {
			t.Errorf("after a pass over the table the log lacks a part of %s: %v", key, row)
		}
	}
}

func summary(row map[string]any) string {
	if row == nil {
		return "gone"
	}
	return fmt.Sprint(row)
}

// tableRows returns the table's rows by key, as the model has them.
func tableRows(t testing.TB, url string) map[string]map[string]any {
	t.Helper()
	all := map[string]map[string]any{}
	for _, row := range pgtest.Query(t, url, `SELECT json_build_array(b::text, a::text)::text, row_to_json(w)::text FROM w`) {
		var pks []string
		var values map[string]any
		ok(t, json.Unmarshal([]byte(row[0]), &pks))
		ok(t, json.Unmarshal([]byte(row[1]), &values))
		key := []byte{'['}
		for i, p := range pks {
			if i > 0 {
				key = append(key, ',')
			}
			key = lockstep.AppendJSONString(key, p)
		}
		all[string(append(key, ']'))] = values
	}
	return all
}

// writer writes to table w whatever comes to its mind until stop is set. Errors of
// single statements (keys that are taken, deadlocks) belong to it.
func writer(t testing.TB, url string, random *rand.Rand, stop *atomic.Bool) {
	ctx := context.Background() // a test that fails still stops its writers in order
	conn, err := pgconn.Connect(ctx, url)
	if err != nil {
		t.Error(err)
		return
	}
	defer conn.Close(context.Background())
	for n := 0; err == nil && !stop.Load(); n++ {
		sql := make([]string, 1+random.IntN(3))
		for i := range sql {
			sql[i] = statement(random, n)
		}
		text := strings.Join(sql, "; ")
		if random.IntN(100) == 0 {
			text += "; SELECT set_config('synchronous_commit', 'on', true)" // not visible for a while
		}
		if random.IntN(4) == 0 {
			text = "BEGIN; " + text + "; SAVEPOINT s; DELETE FROM w WHERE a < 20; ROLLBACK TO s; COMMIT"
		}
		_, err = conn.Exec(ctx, text).ReadAll()
		if _, refused := errors.AsType[*pgconn.PgError](err); refused {
			_, err = conn.Exec(ctx, "ROLLBACK").ReadAll()
		}
	}
	if err != nil {
		t.Error(err)
	}
}

func statement(random *rand.Rand, n int) string {
	a, b := random.IntN(60), "abc"[random.IntN(3):][:1]
	at := fmt.Sprintf("WHERE a = %d AND b = '%s'", a, b)
	switch k := random.IntN(100); {
	case k < 35:
		return fmt.Sprintf("INSERT INTO w VALUES (%d, '%s', %d, repeat('%d', 3000)) ON CONFLICT DO NOTHING", a, b, n, n%10)
	case k < 55:
		return fmt.Sprintf("UPDATE w SET v = %d %s", n, at)
	case k < 70:
		return fmt.Sprintf("UPDATE w SET body = repeat('%d', 3000) %s", n%10, at)
	case k < 85:
		return fmt.Sprintf("UPDATE w SET a = %d %s", random.IntN(60), at)
	case k < 98:
		return "DELETE FROM w " + at
	case k == 98:
		return fmt.Sprintf("UPDATE w SET v = %d WHERE b = '%s'", n, b)
	}
	if random.IntN(20) > 0 {
		return "SELECT 1"
	}
	return "TRUNCATE w"
}

// backfill reads the table in pages by key, some of them one after the other while
// others are on their way, and again what has to be.
func backfill(r *running, reader *pageReader, random *rand.Rand) error {
	last, end := "('', -1)", false
	for !end {
		next, again, err := stride(r, reader, random, last, &end)
		if err != nil && !errors.Is(err, lockstep.ErrUnavailable) {
			return err
		}
		end = end && err == nil
		last = next
		for len(again) > 0 {
			if again, err = rereading(r, reader, random, again); err != nil {
				return err
			}
		}
	}
	return nil
}

// stride reads pages behind a key. It returns the key up to which they were placed, and
// the keys of those rows that are to be read again.
func stride(r *running, reader *pageReader, random *rand.Rand, last string, end *bool) (next string, again []string, err error) {
	var flying []Page
	next = last
	ended := false
	err = r.InterleaveEach(r.t.Context(), reader.table.OID, func(ctx context.Context, _ uint64) (Page, error) {
		if ended || random.IntN(6) == 0 {
			return Page{}, ErrNoPage
		}
		limit := 5 + random.IntN(40)
		page, err := reader.read(ctx, fmt.Sprintf("WHERE (b, a) > %s ORDER BY b, a LIMIT %d", last, limit))
		if err != nil {
			return page, err
		}
		disturb(r, page, random)
		if ended = page.rows() < limit; !ended {
			last = keyOf(page, page.rows()-1)
		}
		flying = append(flying, page)
		return page, nil
	}, func(got Interleaved) error {
		page := flying[0]
		flying = flying[1:]
		for _, i := range got.Again {
			again = append(again, keyOf(page, i))
		}
		if n := page.rows(); n > 0 {
			next = keyOf(page, n-1)
		}
		return nil
	})
	*end = ended
	return next, again, err
}

// disturb changes one row that was read, at times: whatever the writers do.
func disturb(r *running, page Page, random *rand.Rand) {
	if n := page.rows(); n > 0 && random.IntN(3) == 0 {
		// The writers' transactions change several rows: now and then one of them and this
		// wait for each other.
		pgtest.Exec(r.t, r.url, fmt.Sprintf("DO $do$ BEGIN UPDATE w SET v = -1 WHERE (b, a) = %s; EXCEPTION WHEN deadlock_detected THEN NULL; END $do$", keyOf(page, random.IntN(n))))
	}
}

// rereading reads rows again, and returns the keys of those that it must be done with
// once more.
func rereading(r *running, reader *pageReader, random *rand.Rand, keys []string) (again []string, err error) {
	for {
		var page Page
		got, err := r.Interleave(r.t.Context(), reader.table.OID, func(ctx context.Context, _ uint64) (_ Page, err error) {
			page, err = reader.read(ctx, "WHERE (b, a) IN ("+strings.Join(keys, ", ")+")")
			disturb(r, page, random)
			return page, err
		})
		if errors.Is(err, lockstep.ErrUnavailable) {
			continue
		}
		for _, i := range got.Again {
			again = append(again, keyOf(page, i))
		}
		return again, err
	}
}

func keyOf(p Page, i int) string { return fmt.Sprintf("('%s', %s)", p.Values[4*i+1], p.Values[4*i]) }

// writers starts four of them, and the one that lets commits become visible; finish
// ends them.
func writers(t testing.TB, url string, round uint64, release func()) (finish func()) {
	var stop, quiet atomic.Bool
	var writing, releasing sync.WaitGroup
	for i := range uint64(4) {
		writing.Go(func() { writer(t, url, rand.New(rand.NewPCG(round, i)), &stop) })
	}
	releasing.Go(func() {
		tick := time.NewTicker(20 * time.Millisecond)
		defer tick.Stop()
		for !quiet.Load() {
			<-tick.C
			release()
		}
	})
	return sync.OnceFunc(func() {
		stop.Store(true)
		writing.Wait()
		quiet.Store(true)
		releasing.Wait()
	})
}

// Whatever others write meanwhile: the log from its begin, with rows read in between
// by pages, makes the table; and no row read is older or newer than its place.
func TestPagesUnderConcurrentWritersMakeTheTable(t *testing.T) {
	t.Parallel()
	for round := range uint64(3) {
		t.Run(fmt.Sprint("seed ", round), func(t *testing.T) {
			t.Parallel()
			url, release := hiddenCommits(t)
			pgtest.Exec(t, url, "CREATE TABLE w (a int, b text, v int, body text, PRIMARY KEY (b, a))", "ALTER TABLE w ALTER body SET STORAGE EXTERNAL",
				"INSERT INTO w SELECT i, b, 0, repeat('-', 3000) FROM generate_series(0, 59) i, unnest('{a,b,c}'::text[]) b")
			publishTables(t, url, "w")
			log := newMemoryLog(t)
			r := begin(t, url, log, func(c *Config, _ *tuning) { c.Slot, c.BatchBytes = "s", 4<<10 })
			reader := newPageReader(t, url, "w")
			finish := writers(t, url, round, release)
			t.Cleanup(finish) // also when the test fails
			random := rand.New(rand.NewPCG(round, 99))
			until := time.Now().Add(3 * time.Second)
			var passes []uint64
			for time.Now().Before(until) && !t.Failed() {
				if err := backfill(r, reader, random); err != nil {
					t.Error(err)
				}
				passes = append(passes, log.mark().Seq)
			}
			finish()
			r.caughtUp()
			check(t, log, url, passes)
		})
	}
}

func check(t testing.TB, log *memoryLog, url string, passes []uint64) {
	t.Helper()
	m := newModel(4)
	counts := map[string]int{}
	log.each(t, func(r lockstep.Record) {
		counts[r.Action().String()]++
		if err := m.apply(r); err != nil {
			t.Error(err)
		}
		for len(passes) > 0 && r.Seq() == passes[0] {
			passes = passes[1:]
			m.complete(t)
		}
	})
	maps.DeleteFunc(m.rows, func(_ string, row map[string]any) bool { return row == nil })
	want, moved := tableRows(t, url), 0
	for key, row := range m.rows {
		if m.moved[key] && len(row) < m.columns && want[key] != nil {
			row["body"] = want[key]["body"]
			moved++
		}
	}
	equal(t, m.rows, want)
	t.Log(counts, moved)
}
