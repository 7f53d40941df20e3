package backfill

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"lockstep"
	"lockstep/internal/capture/wal"
	"lockstep/internal/pgdb/pgtest"
)

// gapped makes a world whose slot is lost while the statements run.
func (w *world) gapped(stop func(), sql ...string) (again func()) {
	w.t.Helper()
	w.caughtUp()
	stop()
	pgtest.Eventually(w.t, 20*time.Second, "the slot is free", func() bool {
		return pgtest.Query(w.t, w.url, "SELECT count(*) FROM pg_replication_slots WHERE database = current_database() AND active")[0][0] == "0"
	})
	pgtest.Exec(w.t, w.url, "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE database = current_database()")
	pgtest.Exec(w.t, w.url, sql...)
	return w.startCapture()
}

// ends returns what the closing marks of gaps say.
func (w *world) ends() (all []string) {
	w.records(func(r lockstep.Record) {
		if r.Action() == lockstep.Gap && strings.Contains(string(r.Extra()), `"state":"end"`) {
			all = append(all, r.Table().String()+string(r.Extra()))
		}
	})
	return all
}

func published(t testing.TB, w *world, tables string) (stop func()) {
	t.Helper()
	pgtest.Exec(t, w.url, "CREATE PUBLICATION p FOR TABLE "+tables+" WITH (publish_via_partition_root = true)", "CREATE PUBLICATION p_inserts WITH (publish = 'insert,truncate')")
	return w.startCapture()
}

func TestARepairRestoresWhatWasMissedWithDeletes(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "CREATE TABLE a (id int PRIMARY KEY, v text)", "CREATE TABLE b (id int PRIMARY KEY, v text)", "CREATE TABLE bare (v text)", "CREATE TABLE emptied (id int PRIMARY KEY, v text)")
	stop := published(t, w, "a, b, emptied")
	pgtest.Exec(t, w.url, "ALTER PUBLICATION p_inserts ADD TABLE bare",
		"INSERT INTO a SELECT i, 'v' || i FROM generate_series(1, 500) i", "INSERT INTO b SELECT i, 'b' || i FROM generate_series(1, 20) i",
		"INSERT INTO emptied SELECT i, 'e' || i FROM generate_series(1, 300) i", "DELETE FROM a WHERE id = 7", "TRUNCATE b", "INSERT INTO b VALUES (5, 'five'), (6, 'six')")
	w.gapped(stop, "DELETE FROM a WHERE id % 3 = 0", "UPDATE a SET v = 'new' WHERE id % 5 = 0", "UPDATE a SET id = 10000 + id WHERE id % 7 = 1", "INSERT INTO a VALUES (9001, 'missed')",
		"DELETE FROM b WHERE id = 6", "TRUNCATE emptied")
	if list := w.gaps.List("app"); len(list) != 1 || list[0].Reason != "slot_lost" {
		t.Fatalf("open gaps: %+v", list)
	}
	r, _ := w.running(func(t *tuning) { t.most, t.memory, t.sweepPage = 50, 10_000, 30 })
	v := start(t, r, Request{Gap: true, Database: "app"})
	_, err := r.Start(t.Context(), Request{Gap: true, Database: "app"})
	if err != nil { // it may be over already
		refused(t, err, lockstep.ErrConflict)
	}
	v = awaits(t, r, v.ID, Completed)
	for _, table := range []string{"a", "b", "emptied"} {
		w.same("anybody", table)
	}
	if n := len(w.gaps.List("app")); n != 0 {
		t.Errorf("%d gaps are open still", n)
	}
	deletes, of := 0, map[string]int{}
	w.records(func(r lockstep.Record) {
		if r.Action() == lockstep.Delete && r.Table().Progress != "" {
			deletes++
			of[r.Table().Name]++
			if r.OldKnown() || r.Table().Consumer != "" {
				t.Errorf("seq %d: old known %t, for %q", r.Seq(), r.OldKnown(), r.Table().Consumer)
			}
		}
	})
	if deletes == 0 || uint64(deletes) != v.Deletes {
		t.Errorf("%d deletes, it says %d", deletes, v.Deletes)
	}
	if of["b"] != 1 || of["emptied"] != 300 { // what a TRUNCATE in the log took away is told
		t.Errorf("deletes by table: %v", of)
	}
	ends := w.ends()
	want := fmt.Sprintf(`"complete":false,"reads":%d,"deletes":%d,"unrepaired":["public.bare: it has no key`, v.Rows, v.Deletes)
	if len(ends) != 1 || !strings.Contains(ends[0], `"reason":"slot_lost"`) || !strings.Contains(ends[0], want) {
		t.Errorf("closing marks %q, want one with %s", ends, want)
	}
	if !strings.Contains(v.Reason, "1 of 4 tables") || v.Consumer != "" || v.N != 1 {
		t.Errorf("got %+v", v)
	}
}

// Every turn may be the last of its process: what the next one adds is what was
// missing, once.
func TestARepairSurvivesCrashes(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "CREATE TABLE a (id int PRIMARY KEY, v text)")
	stop := published(t, w, "a")
	pgtest.Exec(t, w.url, "INSERT INTO a SELECT i, 'v' || i FROM generate_series(1, 200) i")
	w.gapped(stop, "DELETE FROM a WHERE id <= 100")
	id := ""
	for turns := 0; ; turns++ {
		r := w.runner(func(t *tuning) { t.most, t.sweepPage = 30, 15 })
		w.gaps = NewGaps(w.keep) // as another process has them
		r.cfg.Gaps = w.gaps
		if id == "" {
			id = start(t, r, Request{Gap: true, Database: "app"}).ID
		} else if err := r.load(t.Context()); err != nil {
			t.Fatal(err)
		}
		j := r.job(id)
		if j == nil {
			break
		}
		if turns > 100 {
			t.Fatal("it does not come to an end")
		}
		for range 3 + turns%4 {
			r.turn(t.Context(), j)
		}
	}
	w.same("anybody", "a")
	once(t, w.reads("", "a"), 100)
	deleted := map[string]int{}
	w.records(func(r lockstep.Record) {
		if r.Action() == lockstep.Delete {
			deleted[string(r.PKs())]++
		}
	})
	once(t, deleted, 100)
	if ends := w.ends(); len(ends) != 1 || !strings.Contains(ends[0], `"complete":true,"reads":100,"deletes":100,"unrepaired":[]`) {
		t.Errorf("closing marks %q", ends)
	}
	v, err := w.runner().Get(t.Context(), id)
	if err != nil || v.State != Completed || v.Rows != 100 || v.Deletes != 100 {
		t.Errorf("got %+v, %v", v, err)
	}
}

// A gap that comes while one is repaired makes the repair wider: what was read
// before it is read again.
func TestASecondGapWidensTheRepair(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "CREATE TABLE a (id int PRIMARY KEY, v text)", "CREATE TABLE b (id int PRIMARY KEY, v text)")
	stop := published(t, w, "a, b")
	pgtest.Exec(t, w.url, "INSERT INTO a SELECT i, 'v' || i FROM generate_series(1, 100) i", "INSERT INTO b SELECT * FROM a")
	a := lockstep.Table{OID: parsed(pgtest.Query(t, w.url, "SELECT 'a'::regclass::oid")[0][0]), Schema: "public", Name: "a"}
	w.gapped(stop, "DELETE FROM a WHERE id <= 10")
	// The gap concerns table a only: as if it had been found so.
	if err := w.gaps.Close(t.Context(), "app", w.gaps.List("app")...); err != nil {
		t.Fatal(err)
	}
	if err := w.gaps.Open(t.Context(), "app", wal.Gap{Reason: "table_rewritten", Tables: []lockstep.Table{a}, To: 5}); err != nil {
		t.Fatal(err)
	}
	r := w.runner(func(t *tuning) { t.most = 30 })
	id := start(t, r, Request{Gap: true, Database: "app"}).ID
	j := r.job(id)
	if len(j.view().Tables) != 1 {
		t.Fatalf("got tables %+v", j.view().Tables)
	}
	for j.current() >= 0 {
		r.turn(t.Context(), j)
	}
	w.startAgain("DELETE FROM a WHERE id = 50", "UPDATE a SET v = 'second' WHERE id = 60", "DELETE FROM b WHERE id = 70")
	deadline := time.Now().Add(30 * time.Second)
	for !j.ended() && time.Now().Before(deadline) {
		if !r.turn(t.Context(), j) {
			pgtest.Query(t, w.url, "SELECT 1")
		}
	}
	v := j.view()
	if v.State != Completed || len(v.Tables) != 2 {
		t.Fatalf("got %+v", v)
	}
	w.same("anybody", "a")
	w.same("anybody", "b")
	if ends := w.ends(); len(ends) != 2 || len(w.gaps.List("app")) != 0 {
		t.Errorf("closing marks %q, open %v", ends, w.gaps.List("app"))
	}
}

// A key is only deleted when it is not in the table, whatever the log says: here a
// mark of a gap lies behind all that was read.
func TestARepairDeletesNothingThatIsThere(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "CREATE TABLE a (id int PRIMARY KEY, v text)")
	stop := published(t, w, "a")
	pgtest.Exec(t, w.url, "INSERT INTO a SELECT i, 'v' || i FROM generate_series(1, 100) i")
	w.gapped(stop, "DELETE FROM a WHERE id <= 10")
	r := w.runner()
	j := r.job(start(t, r, Request{Gap: true, Database: "app"}).ID)
	for j.current() >= 0 {
		r.turn(t.Context(), j)
	}
	pgtest.Exec(t, w.url, "SELECT pg_logical_emit_message(true, 'lockstep:gap:secret', '')")
	w.caughtUp()
	for _, g := range w.gaps.List("app") {
		if g.Reason == "publication_rebuilt" {
			if err := w.gaps.Close(t.Context(), "app", g); err != nil {
				t.Fatal(err)
			}
		}
	}
	pgtest.Eventually(t, 30*time.Second, "the repair ends", func() bool {
		r.turn(t.Context(), j)
		return j.ended()
	})
	if v := j.view(); v.Deletes != 10 || v.State != Completed {
		t.Errorf("got %+v", v)
	}
	w.same("anybody", "a")
}

// startAgain loses the slot of the capture that runs.
func (w *world) startAgain(sql ...string) {
	w.t.Helper()
	w.caughtUp()
	ctx, cancel := context.WithTimeout(w.t.Context(), 20*time.Second)
	defer cancel()
	for {
		_, err := w.pool.Exec(ctx, "SELECT pg_terminate_backend(active_pid) FROM pg_replication_slots WHERE database = current_database() AND active")
		if err == nil {
			_, err = w.pool.Exec(ctx, "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE database = current_database()")
		}
		if err == nil {
			break
		}
		if ctx.Err() != nil {
			w.t.Fatal(err)
		}
	}
	pgtest.Exec(w.t, w.url, sql...)
	pgtest.Eventually(w.t, 30*time.Second, "the gap is noticed", func() bool {
		list := w.gaps.List("app")
		return len(list) > 0 && list[len(list)-1].Reason == "slot_lost" && w.capture.Status().Connected
	})
}

// Rows that changed in the window without their large values are read again.
func TestRowsThatChangedInPartAreReadAgain(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "CREATE TABLE a (id int PRIMARY KEY, v text, n int)", "ALTER TABLE a ALTER v SET STORAGE EXTERNAL",
		"INSERT INTO a SELECT i, repeat('x', 3000) || i, 0 FROM generate_series(1, 20) i").capturing("a")
	disturb := &disturbing{Interleaver: w.capture, w: w}
	w.source.Capture = disturb
	r, _ := w.running(func(t *tuning) { t.most, t.rereads = 10, 3 })
	v := awaits(t, r, start(t, r, Request{Tables: []string{"public.a"}, Where: "id <> 4"}).ID, Completed)
	if v.Overridden == 0 {
		t.Error("nothing was overridden, so nothing was tested")
	}
	// Row 3 never stands still; the others do.
	if !strings.Contains(v.Tables[0].Reason, "1 rows changed again and again") {
		t.Errorf("got reason %q", v.Tables[0].Reason)
	}
	view := w.view(orders, "a")
	for key, row := range view {
		if row["v"] == "" && key != `["3"]` && key != `["4"]` {
			t.Errorf("%s has no large value: %v", key, row["n"])
		}
	}
	once(t, w.reads(orders, "a"), 18)
}

// disturbing changes rows between the reading of a page and its place in the log.
type disturbing struct {
	Interleaver
	w    *world
	page int
}

// InterleaveEach implements [Interleaver].
func (d *disturbing) InterleaveEach(ctx context.Context, oid uint32, read func(context.Context, uint64) (wal.Page, error), placed func(wal.Interleaved) error) error {
	return alone(ctx, d, oid, read, placed)
}

// Interleave implements [Interleaver].
func (d *disturbing) Interleave(ctx context.Context, oid uint32, read func(context.Context, uint64) (wal.Page, error)) (wal.Interleaved, error) {
	return d.Interleaver.Interleave(ctx, oid, func(ctx context.Context, low uint64) (wal.Page, error) {
		page, err := read(ctx, low)
		rows := "id IN (3, 4)"
		if d.page++; d.page == 1 {
			rows = "id BETWEEN 1 AND 6"
		}
		pgtest.Exec(d.w.t, d.w.url, "UPDATE a SET n = n + 1 WHERE "+rows)
		return page, err
	})
}

// forgetful loses what it is to keep, once, when a gap is to be closed.
type forgetful struct {
	*keep
	lose func(value []byte) bool
}

// Save implements [Keep].
func (f *forgetful) Save(ctx context.Context, database string, value []byte) error {
	if f.lose(value) {
		return errors.New("the process has died")
	}
	return f.keep.Save(ctx, database, value)
}

// A process that dies between a closing mark and the note that the gap is closed: the
// next one finds the mark in the log.
func TestAClosingMarkIsWrittenOnce(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "CREATE TABLE a (id int PRIMARY KEY, v text)")
	stop := published(t, w, "a")
	pgtest.Exec(t, w.url, "INSERT INTO a SELECT i, 'v' || i FROM generate_series(1, 20) i")
	w.gapped(stop, "DELETE FROM a WHERE id <= 5")
	lost := false
	w.gaps = NewGaps(&forgetful{w.keep, func([]byte) bool { lost = true; return true }})
	if err := w.gaps.Load(t.Context(), "app"); err != nil {
		t.Fatal(err)
	}
	r := w.runner()
	id := start(t, r, Request{Gap: true, Database: "app"}).ID
	pgtest.Eventually(t, 30*time.Second, "the process dies", func() bool {
		r.turn(t.Context(), r.job(id))
		return lost
	})
	if len(w.ends()) != 1 {
		t.Fatalf("closing marks %q", w.ends())
	}
	w.gaps = NewGaps(w.keep)
	again, _ := w.running()
	awaits(t, again, id, Completed)
	if ends := w.ends(); len(ends) != 1 || len(w.gaps.List("app")) != 0 {
		t.Errorf("closing marks %q, open %v", ends, w.gaps.List("app"))
	}
	w.same("anybody", "a")
}

func TestGapsAreKept(t *testing.T) {
	t.Parallel()
	k := &keep{}
	g := NewGaps(k)
	ctx := t.Context()
	a, b := lockstep.Table{OID: 1, Schema: "s", Name: "a"}, lockstep.Table{OID: 2, Schema: "s", Name: "b"}
	for _, gap := range []wal.Gap{
		{Reason: "slot_lost", From: 5, To: 10}, {Reason: "slot_lost", From: 5, To: 10},
		{Reason: "table_rewritten", Tables: []lockstep.Table{a}, To: 20}, {Reason: "table_rewritten", Tables: []lockstep.Table{b}, To: 21},
	} {
		if err := g.Open(ctx, "app", gap); err != nil {
			t.Fatal(err)
		}
	}
	listed := g.List("app")
	if len(listed) != 3 || listed[0].Number != 1 || listed[0].From != 5 || listed[2].Number != 3 {
		t.Fatalf("got %+v", listed)
	}
	// The same comes again, further on: it is wider, and what was listed does not close it.
	if err := g.Open(ctx, "app", wal.Gap{Reason: "slot_lost", From: 12, To: 30}); err != nil {
		t.Fatal(err)
	}
	g = NewGaps(k)
	if err := g.Close(ctx, "app", listed...); err != nil {
		t.Fatal(err)
	}
	left := g.List("app")
	if len(left) != 1 || left[0].Number != 4 || left[0].From != 5 || left[0].To != 30 {
		t.Fatalf("got %+v", left)
	}
	if err := g.Close(ctx, "app", left...); err != nil || len(g.List("app")) != 0 {
		t.Errorf("left %v, %v", g.List("app"), err)
	}
	if len(g.List("other")) != 0 {
		t.Error("gaps of another database")
	}
}
