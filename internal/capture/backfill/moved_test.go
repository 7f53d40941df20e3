package backfill

import (
	"cmp"
	"fmt"
	"testing"

	"lockstep"
	"lockstep/internal/pgdb/pgtest"
)

// A row that has not been read changes its key to a place that has: no page sees it,
// and its insert lacks the value that is stored out of line.
func TestARowThatMovesBehindTheCursorIsReadAgain(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		where string
		more  int // rows that are read again
	}{"all": {"", 4}, "some": {"n < 1", 3}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, "CREATE TABLE a (id int PRIMARY KEY, v text, n int DEFAULT 0)", "ALTER TABLE a ALTER v SET STORAGE EXTERNAL",
				"INSERT INTO a SELECT i, repeat('x', 3000) || i FROM generate_series(1, 40) i", "INSERT INTO a VALUES (41, 'short')").capturing("a")
			pages := &between{Interleaver: w.capture, after: map[int]func(){
				2: func() {
					pgtest.Exec(t, w.url, "UPDATE a SET id = -id WHERE id IN (30, 31)", "UPDATE a SET id = -id, n = 1 WHERE id = 32",
						"UPDATE a SET id = -id WHERE id = 41", "UPDATE a SET id = 100 WHERE id = 40")
				},
				// While it is looked for what has moved.
				5: func() { pgtest.Exec(t, w.url, "UPDATE a SET id = -331 WHERE id = -31") },
			}}
			w.source.Capture = pages
			r, _ := w.running(func(t *tuning) { t.most, t.stride = 10, 1 })
			v := awaits(t, r, start(t, r, Request{Tables: []string{"public.a"}, Where: c.where}).ID, Completed)
			if len(pages.after) > 0 {
				t.Fatal("not everything has happened")
			}
			view := w.view(orders, "a")
			for key := range w.table(`SELECT '["' || id || '"]', v FROM a WHERE ` + cmp.Or(c.where, "true")) {
				if len(view[key]["v"]) < 5 {
					t.Errorf("%s lacks its value: %.40v", key, view[key])
				}
			}
			again := 0
			w.records(func(r lockstep.Record) {
				if _, kind, _ := parts(r.Table().Progress); kind == pageAgain {
					again++
				}
			})
			if v.Tables[0].Reason != "" || again != c.more || v.Rows != uint64(again+37) {
				t.Errorf("%d rows again, got %+v", again, v)
			}
		})
	}
}

func parts(progress string) (id, kind string, table int) {
	_, _ = fmt.Sscan(progress, &id, &kind, &table) // what is no progress has no kind
	return id, kind, table
}

// Where nothing is stored out of line, no insert lacks anything, and nothing is looked
// for.
func TestAnInsertThatLacksNothingIsNotReadAgain(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "CREATE TABLE a (id int PRIMARY KEY, v text)", "INSERT INTO a SELECT i, 'v' || i FROM generate_series(1, 40) i").capturing("a")
	pages := &between{Interleaver: w.capture, after: map[int]func(){2: func() { pgtest.Exec(t, w.url, "UPDATE a SET id = -id WHERE id > 30") }}}
	w.source.Capture = pages
	r, _ := w.running(func(t *tuning) { t.most, t.stride = 10, 1 })
	v := awaits(t, r, start(t, r, Request{Tables: []string{"public.a"}}).ID, Completed)
	once(t, w.reads(orders, "a"), 30)
	if v.Rows != 30 {
		t.Errorf("%d rows", v.Rows)
	}
	w.same(orders, "a")
}
