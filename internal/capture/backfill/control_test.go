package backfill

import (
	"context"
	"sync/atomic"
	"testing"
	"time"

	"lockstep"
	"lockstep/internal/pgdb/pgtest"
)

func TestPauseAndResumeAtAnyMoment(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "CREATE TABLE a (id int PRIMARY KEY, v text)", "INSERT INTO a SELECT i, 'v' || i FROM generate_series(1, 400) i").capturing("a")
	r, _ := w.running(func(t *tuning) { t.most = 5 })
	v := start(t, r, Request{Tables: []string{"public.a"}})
	for range 10 {
		paused, err := r.Pause(t.Context(), v.ID)
		if err != nil {
			t.Log("it was faster:", err)
			break
		}
		if paused.State != Paused {
			t.Fatalf("got %s", paused.State)
		}
		before := w.log.Last().Seq
		stored, err := w.store.Find(t.Context(), v.ID)
		if err != nil || stored.State != Paused {
			t.Fatalf("stored as %s, %v", stored.State, err)
		}
		if again, err := r.Pause(t.Context(), v.ID); err != nil || again.State != Paused {
			t.Fatalf("paused twice: %s, %v", again.State, err)
		}
		resumed, err := r.Resume(t.Context(), v.ID)
		if err != nil || resumed.State != Running {
			t.Fatalf("resumed: %s, %v", resumed.State, err)
		}
		pgtest.Eventually(t, 20*time.Second, "it goes on", func() bool {
			v, err := r.Get(t.Context(), v.ID)
			return err == nil && (v.State == Completed || w.log.Last().Seq > before)
		})
	}
	v = awaits(t, r, v.ID, Completed)
	once(t, w.reads(orders, "a"), 400)
	if v.Rows != 400 {
		t.Errorf("it says that %d rows went out", v.Rows)
	}
}

func TestCancelledIsOverAndASecondStartBeginsAnew(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "CREATE TABLE a (id int PRIMARY KEY, v text)", "INSERT INTO a SELECT i, 'v' || i FROM generate_series(1, 500) i").capturing("a")
	r, _ := w.running(func(t *tuning) { t.most = 5 })
	v := start(t, r, Request{Tables: []string{"public.a"}})
	pgtest.Eventually(t, 20*time.Second, "a page is out", func() bool { return len(w.reads(orders, "a")) > 0 })
	_, err := r.Start(t.Context(), Request{Consumer: "orders", Tables: []string{"public.a"}})
	refused(t, err, lockstep.ErrConflict, "backfill 1", "public.a", "cancel it")

	v, err = r.Cancel(t.Context(), v.ID)
	if err != nil || v.State != Cancelled || v.Tables[0].State != Cancelled || v.EndedAt.IsZero() {
		t.Fatalf("got %+v, %v", v, err)
	}
	if v, err = r.Cancel(t.Context(), v.ID); err != nil || v.State != Cancelled {
		t.Errorf("cancelled twice: %s, %v", v.State, err)
	}
	_, err = r.Resume(t.Context(), v.ID)
	refused(t, err, lockstep.ErrConflict, "cancelled", "start a new one")
	_, err = r.Pause(t.Context(), "018f0000-0000-7000-8000-00000000ffff")
	refused(t, err, lockstep.ErrNotFound)

	second := awaits(t, r, start(t, r, Request{Tables: []string{"public.a"}}).ID, Completed)
	if second.N != 2 || second.Rows != 500 {
		t.Errorf("got %+v", second)
	}
	_, err = r.Cancel(t.Context(), second.ID)
	refused(t, err, lockstep.ErrConflict, "completed")
	first, err := r.ByNumber(t.Context(), orders, 1)
	if err != nil || first.ID != v.ID {
		t.Errorf("number 1 is %+v, %v", first, err)
	}
	list, err := r.List(t.Context(), Filter{Consumer: "orders"})
	if err != nil || len(list) != 2 || list[0].N != 2 || list[1].N != 1 {
		t.Errorf("listed %+v, %v", list, err)
	}
	if list, err = r.List(t.Context(), Filter{Active: true}); err != nil || len(list) != 0 {
		t.Errorf("active: %+v, %v", list, err)
	}
}

func TestLiveChangesGoFirst(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "CREATE TABLE a (id int PRIMARY KEY, v text)", "INSERT INTO a SELECT i, 'v' || i FROM generate_series(1, 300) i").capturing("a")
	var acked, pending atomic.Uint64
	w.people.put(Consumer{ID: orders, Name: "orders", Database: "app", Standing: func() Standing {
		return Standing{Pending: pending.Load(), Acked: acked.Load()}
	}})
	r, _ := w.running(func(t *tuning) { t.most, t.few, t.ahead, t.present = 10, 100, 1000, time.Second })
	pending.Store(1001)
	v := start(t, r, Request{Tables: []string{"public.a"}})
	v = awaits(t, r, v.ID, Waiting)
	if want := "waits for workers of orders: more than 1000 changes wait and nobody takes them; start a worker"; v.Reason != want {
		t.Errorf("got reason %q, want %q", v.Reason, want)
	}
	pgtest.Eventually(t, 20*time.Second, "the reason is stored", func() bool {
		return pgtest.Query(t, w.url, "SELECT state FROM lockstep.backfill")[0][0] == "waiting"
	})
	// A worker comes: now little may wait.
	pending.Store(101)
	acked.Store(1)
	v = awaits(t, r, v.ID, Waiting)
	pgtest.Eventually(t, 20*time.Second, "it waits for the worker", func() bool {
		acked.Add(1)
		v, _ = r.Get(t.Context(), v.ID)
		return v.Reason == "waits for the workers of orders: they have much to do, and live changes go first"
	})
	pending.Store(0)
	awaits(t, r, v.ID, Completed)
	once(t, w.reads(orders, "a"), 300)
}

func TestJobsTakeTurns(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "CREATE TABLE a (id int PRIMARY KEY, v text)", "INSERT INTO a SELECT i, 'v' || i FROM generate_series(1, 300) i",
		"CREATE TABLE b (id int PRIMARY KEY, v text)", "INSERT INTO b SELECT * FROM a").capturing("a", "b")
	const other = "018f0000-0000-7000-8000-000000000002"
	w.people.put(Consumer{ID: other, Name: "other", Database: "app"})
	r, _ := w.running(func(t *tuning) { t.most, t.stride = 10, 1 })
	jobs := []Job{
		start(t, r, Request{Tables: []string{"public.a"}}),
		start(t, r, Request{Tables: []string{"public.b"}}),
		start(t, r, Request{Consumer: other, Tables: []string{"public.a"}}),
	}
	for _, v := range jobs {
		awaits(t, r, v.ID, Completed)
	}
	once(t, w.reads(orders, "a"), 300)
	once(t, w.reads(orders, "b"), 300)
	once(t, w.reads(other, "a"), 300)
	// Each began before the first had ended.
	var first [3]uint64
	var last uint64
	w.records(func(r lockstep.Record) {
		for i, v := range jobs {
			if len(r.Table().Progress) > 36 && r.Table().Progress[:36] == v.ID {
				if first[i] == 0 {
					first[i] = r.Seq()
				}
				if i == 0 {
					last = r.Seq()
				}
			}
		}
	})
	if first[1] > last || first[2] > last {
		t.Errorf("the jobs began at %v, and the first ended at %d", first, last)
	}
}

func TestAConsumerThatIsDeletedEndsItsBackfill(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "CREATE TABLE a (id int PRIMARY KEY, v text)", "INSERT INTO a SELECT i, 'v' || i FROM generate_series(1, 500) i").capturing("a")
	r, _ := w.running(func(t *tuning) { t.most = 5 })
	v := start(t, r, Request{Tables: []string{"public.a"}})
	w.people.remove(orders)
	v = awaits(t, r, v.ID, Cancelled)
	if v.Reason != "the consumer was deleted" {
		t.Errorf("got reason %q", v.Reason)
	}
}

func TestADefinitionStartsOneBackfillOnly(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "CREATE TABLE a (id int PRIMARY KEY, v text)", "INSERT INTO a VALUES (1, 'x')").capturing("a")
	r, _ := w.running()
	for range 3 {
		if err := r.Ensure(t.Context(), "orders"); err != nil {
			t.Fatal(err)
		}
	}
	list, err := r.List(t.Context(), Filter{})
	if err != nil || len(list) != 1 || list[0].Origin != OriginDefinition {
		t.Fatalf("got %+v, %v", list, err)
	}
	awaits(t, r, list[0].ID, Completed)
	if err := r.Ensure(t.Context(), "orders"); err != nil {
		t.Fatal(err)
	}
	once(t, w.reads(orders, "a"), 1)
}

// Two nodes on one control plane: the one that comes later goes on, the other ends.
func TestASecondNodeIsNoticed(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "CREATE TABLE a (id int PRIMARY KEY, v text)", "INSERT INTO a SELECT i, 'v' || i FROM generate_series(1, 100) i").capturing("a")
	r := w.runner(func(t *tuning) { t.most = 10 })
	v := start(t, r, Request{Tables: []string{"public.a"}})
	j := r.job(v.ID)
	if !r.turn(t.Context(), j) {
		t.Fatal("no first page")
	}
	pgtest.Exec(t, w.url, "UPDATE lockstep.backfill SET revision = revision + 1, writer = 'another'")
	if r.turn(t.Context(), j) || r.job(v.ID) != nil {
		t.Error("it goes on although another node does")
	}
}

func TestRunEndsWhenItIsTold(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	pgtest.Exec(t, w.url, "DROP TABLE lockstep.backfill_table, lockstep.backfill") // the control plane does not answer
	r := w.runner()
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- r.Run(ctx) }()
	cancel()
	select {
	case err := <-ended:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(10 * time.Second):
		t.Error("it does not end")
	}
}
