package backfill

import (
	"testing"

	"lockstep"
)

func TestRowsReachTheConsumerOnce(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "CREATE TABLE a (id int PRIMARY KEY, v text)", "INSERT INTO a SELECT i, 'v' || i FROM generate_series(1, 3000) i").capturing("a")
	v := w.complete(Request{Tables: []string{"public.a"}})
	if v.Rows != 3000 || v.N != 1 || v.Tables[0].Rows != 3000 || v.Overridden != 0 {
		t.Errorf("got %+v", v)
	}
	if v.Total != 3000 {
		t.Errorf("an estimate of %d rows, want 3000", v.Total)
	}
	once(t, w.reads(orders, "a"), 3000)
	w.same(orders, "a")
	w.records(func(r lockstep.Record) {
		if want := `,"backfill":{"id":"` + v.ID + `"}`; string(r.Extra()) != want {
			t.Fatalf("metadata %s, want %s", r.Extra(), want)
		}
	})
}
