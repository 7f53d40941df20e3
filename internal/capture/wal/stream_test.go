package wal

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"lockstep/internal/capture/publish"
	"lockstep/internal/pgdb"
	"lockstep/internal/pgdb/pgtest"
	"lockstep/internal/stream"
)

func openLog(t testing.TB, dir string) *stream.Log {
	t.Helper()
	server, err := stream.Open(t.Context(), stream.Config{Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := server.Close(); err != nil {
			t.Error(err)
		}
	})
	log, err := server.Log(t.Context(), "app")
	if err != nil {
		t.Fatal(err)
	}
	return log
}

// read returns "action table row" of the changes from seq 1 on, once there are n.
func read(t testing.TB, log *stream.Log, n int) []string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	reader := log.Reader(1)
	defer reader.Close()
	var all []string
	for len(all) < n {
		b, err := reader.Next(ctx)
		if err != nil {
			t.Fatalf("after %d of %d changes: %v", len(all), n, err)
		}
		for i := range b.Len() {
			r := b.Record(i)
			if int(r.Seq()) != len(all)+1 {
				t.Fatalf("seq %d follows %d", r.Seq(), len(all))
			}
			all = append(all, r.Action().String()+" "+r.Table().String()+" "+string(r.Row()))
		}
	}
	return all
}

// The way as it is in the product: publications kept by package publish, the slot
// made here, the log on disk, restarts in between, tables that come later.
func TestFromPostgresToTheStream(t *testing.T) {
	t.Parallel()
	url := pgtest.Database(t)
	pgtest.Exec(t, url, "CREATE TABLE a (id int PRIMARY KEY, v text)", "CREATE TABLE nokey (v text)", "INSERT INTO a VALUES (0, 'before the slot')")
	pool, err := pgdb.Open(t.Context(), url, "test")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(pool.Close)
	reconciler, err := publish.New(publish.Config{Pool: pool, Database: "app", Publication: "p", Slot: slotOf(url), JoinSecret: "s3cret"})
	if err != nil {
		t.Fatal(err)
	}
	ensure := func(ctx context.Context) error {
		_, _, err := reconciler.Ensure(ctx)
		return err
	}
	log := openLog(t, t.TempDir())
	product := func(c *Config, _ *tuning) { c.Publish, c.JoinSecret = ensure, "s3cret" }
	start := func() *running {
		t.Helper()
		r := launchOn(t, url, log, product)
		pgtest.Eventually(t, 20*time.Second, "capture streams", func() bool { return r.Status().Connected })
		return r
	}
	r := start()
	pgtest.Exec(t, url, "INSERT INTO a VALUES (1, 'x')", "INSERT INTO nokey VALUES ('n')", "UPDATE nokey SET v = 'm'", "UPDATE a SET v = 'y' WHERE id = 1")
	want := []string{`insert public.a {"id":1,"v":"x"}`, `insert public.nokey {"v":"n"}`, `update public.a {"id":1,"v":"y"}`}
	equal(t, read(t, log, 3), want)
	pgtest.Exec(t, url, "CREATE TABLE late (id int PRIMARY KEY)", "INSERT INTO late VALUES (1), (2)")
	if err := ensure(t.Context()); err != nil {
		t.Fatal(err)
	}
	pgtest.Exec(t, url, "UPDATE late SET id = 3 WHERE id = 2")
	want = append(want, `insert public.late {"id":1}`, `insert public.late {"id":2}`, `delete public.late {"id":2}`, `insert public.late {"id":3}`)
	equal(t, read(t, log, 7), want)
	r.stop()
	pgtest.Exec(t, url, "DELETE FROM a WHERE id = 1")
	start()
	equal(t, read(t, log, 8), append(want, `delete public.a {"id":1}`))
	equal(t, log.Last().SystemID != 0, true)
}

// The log as a process of its own leaves it: closed and opened between restarts,
// with transactions cut by the end of batches.
func TestReopenedStreamGoesOnExactly(t *testing.T) {
	t.Parallel()
	url := pgtest.Database(t)
	pgtest.Exec(t, url, "CREATE TABLE a (id int PRIMARY KEY)")
	publishTables(t, url, "a")
	dir := t.TempDir()
	var want []string
	for round := range 3 {
		t.Run(fmt.Sprint(round), func(t *testing.T) {
			log := openLog(t, dir)
			r := launchOn(t, url, log, func(c *Config, _ *tuning) { c.BatchBytes = 4 << 10 })
			pgtest.Eventually(t, 20*time.Second, "capture streams", func() bool { return r.Status().Connected })
			pgtest.Exec(t, url, fmt.Sprintf("INSERT INTO a SELECT generate_series(%d, %d)", round*5000, round*5000+4999))
			for i := range 5000 {
				want = append(want, fmt.Sprintf(`insert public.a {"id":%d}`, round*5000+i))
			}
			if round == 1 {
				// In the middle: the rest comes to the next one.
				pgtest.Eventually(t, 20*time.Second, "some of it has arrived", func() bool { return log.Last().Seq > 6000 })
				r.stop()
				return
			}
			if got := read(t, log, len(want)); !slices.Equal(got, want) {
				equal(t, got, want)
			}
			r.stop()
		})
	}
}

// A change beyond what one message of the stream can carry.
func TestHugeRowPasses(t *testing.T) {
	t.Parallel()
	url := pgtest.Database(t)
	pgtest.Exec(t, url, "CREATE TABLE a (id int PRIMARY KEY, v text)")
	publishTables(t, url, "a")
	log := openLog(t, t.TempDir())
	launchOn(t, url, log)
	pgtest.Eventually(t, 20*time.Second, "the slot is there", func() bool { return log.Last().SystemID != 0 })
	pgtest.Exec(t, url, "INSERT INTO a VALUES (1, 'small')", "INSERT INTO a VALUES (2, repeat('x', 20000000))", "INSERT INTO a VALUES (3, 'small')")
	rows := read(t, log, 3)
	equal(t, []string{rows[0], rows[2]}, []string{`insert public.a {"id":1,"v":"small"}`, `insert public.a {"id":3,"v":"small"}`})
	if rows[1] != `insert public.a {"id":2,"v":"`+strings.Repeat("x", 20000000)+`"}` {
		t.Error("the large row differs:", len(rows[1]))
	}
}

var _ Log = (*stream.Log)(nil)
