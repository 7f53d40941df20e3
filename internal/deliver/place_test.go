package deliver_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"lockstep"
	"lockstep/internal/deliver"
)

func TestStartNamesThePlaceOnlyAtTheBeginning(t *testing.T) {
	t.Parallel()
	timed(t, func(t *testing.T, r *rig) {
		r.log.append(t, ins("a")...)
		time.Sleep(time.Hour)
		middle := time.Now()
		r.log.append(t, ins("b")...)
		time.Sleep(time.Hour)
		for i, c := range []struct{ start, want string }{
			{"now", ""}, {"beginning", "a@1 b@2"}, {"seq:2", "b@2"}, {middle.UTC().Format(time.RFC3339Nano), "b@2"}, {"90m", "b@2"}, {"3h", "a@1 b@2"},
		} {
			d := definition(func(d *deliver.Definition) { d.Name, d.Start = fmt.Sprint("c", i), c.start })
			want(t, c.start, next(t, r.put(d), 5), c.want)
		}
		d := definition(func(d *deliver.Definition) { d.Start = "now" })
		r.put(d)
		r.stop()
		r.log.append(t, ins("c")...)
		r.start()
		c := r.put(d)
		want(t, "what came while it was stopped", next(t, c, 5), "c@3")
	})
}

func TestSeekReplaysAndMakesOutstandingTokensStale(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.log.append(t, ins("a", "b", "c")...)
	d := definition(nil)
	c := r.put(d)
	ds := next(t, c, 3)
	ack(t, c, ds[0])
	if err := c.Seek(t.Context(), "beginning"); err != nil {
		t.Fatal(err)
	}
	wantStale(t, c, ds...)
	c = r.restart(d)
	wantStale(t, c, ds...)
	ds = next(t, c, 3)
	want(t, "replayed", ds, "a@1 b@2 c@3")
	if err := c.Seek(t.Context(), "now"); err != nil {
		t.Fatal(err)
	}
	want(t, "purged", next(t, c, 3), "")
	r.log.append(t, ins("d")...)
	want(t, "from now on", next(t, c, 3), "d@4")
	if err := c.Seek(t.Context(), "seq:2"); err != nil {
		t.Fatal(err)
	}
	want(t, "from seq 2", next(t, c, 2), "b@2 c@3")
	if err := c.Seek(t.Context(), "yesterday"); !errors.Is(err, lockstep.ErrInvalid) {
		t.Errorf("got error %v, want ErrInvalid", err)
	}
}

func TestSeekWakesAWaiter(t *testing.T) {
	t.Parallel()
	timed(t, func(t *testing.T, r *rig) {
		r.log.append(t, ins("a")...)
		c := r.put(definition(func(d *deliver.Definition) { d.Start = "now" }))
		got := make(chan deliver.Result)
		go func() {
			res, _ := c.Next(t.Context(), deliver.NextRequest{Wait: time.Hour})
			got <- res
		}()
		synctest.Wait()
		if err := c.Seek(t.Context(), "beginning"); err != nil {
			t.Fatal(err)
		}
		want(t, "the waiter", (<-got).Deliveries, "a@1")
	})
}

func TestPeekTakesNothing(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.log.append(t, ins("a", "a", "b", "c")...)
	c := r.put(definition(nil))
	for range 2 {
		ds, err := c.Peek(t.Context(), 3)
		if err != nil || ds[0].Token != "" {
			t.Fatalf("got %+v, error %v", ds, err)
		}
		want(t, "a look", ds, "a@1 a@2 b@3")
	}
	next(t, c, 1)
	ds, err := c.Peek(t.Context(), 10)
	if err != nil {
		t.Fatal(err)
	}
	want(t, "while the first is out", ds, "a@2 b@3 c@4")
}

func TestWhereTellsWhatBecameOfAChange(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.log.append(t, ins("a", "b", "c", "a")...)
	r.log.append(t, row{table: "items", key: "x"})
	c := r.put(definition(func(d *deliver.Definition) { d.Tables = []string{"public.orders"} }))
	ds := next(t, c, 3)
	ack(t, c, ds[0])
	delay := time.Hour
	nack(t, c, deliver.NackOptions{Delay: &delay, Reason: "later"}, ds[1])
	next(t, c, 1)
	for seq, expected := range map[uint64]string{1: deliver.ChangeSettled, 2: deliver.ChangeWaiting, 3: deliver.ChangeInFlight, 5: deliver.ChangeNotMatching} {
		w, err := c.Where(t.Context(), seq)
		if err != nil || w.State != expected {
			t.Errorf("change %d: got %+v, error %v; want %s", seq, w, err, expected)
		}
		if seq == 2 && (w.Reason != "later" || w.Attempts != 1 || w.Until == nil) {
			t.Errorf("the one that waits: %+v", w)
		}
	}
	r.log.append(t, ins("z")...)
	if err := c.Pause(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Where(t.Context(), 99); !errors.Is(err, lockstep.ErrNotFound) {
		t.Errorf("got error %v, want ErrNotFound", err)
	}
}

func TestTruncateWaitsForItsTableAndHoldsItBack(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.log.append(t, append(ins("a", "b"), truncate(""), row{key: "a"}, row{table: "items", key: "x"})...)
	d := definition(nil)
	c := r.put(d)
	ds := next(t, c, 10)
	want(t, "before the truncate, and other tables", ds, "a@1 b@2 x@5")
	ack(t, c, ds[0], ds[2])
	want(t, "while b is out", next(t, c, 10), "")
	r.log.append(t, append(ins("c"), row{table: "items", key: "y"})...)
	want(t, "other tables go on", next(t, c, 10), "y@7")
	ack(t, c, ds[1])
	barrier := next(t, c, 10)
	want(t, "then the truncate alone", barrier, "truncate@3")
	want(t, "and nothing behind it", next(t, c, 10), "")
	c = r.restart(d)
	want(t, "also after a restart", next(t, c, 10), "truncate@3 y@7")
}

func TestChangesBehindATruncateComeAfterIt(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.log.append(t, append(ins("a"), truncate(""), row{key: "a"}, truncate(""), row{key: "b"})...)
	c := r.put(definition(nil))
	for _, expected := range []string{"a@1", "truncate@2", "a@3", "truncate@4", "b@5", ""} {
		ds := next(t, c, 10)
		want(t, "in turn", ds, expected)
		if len(ds) > 0 {
			ack(t, c, ds...)
		}
	}
	if p := c.Stats().Pending; p != 0 {
		t.Errorf("%d pending at the end", p)
	}
}

func TestGapOfTheWholeDatabaseIsABarrierForAllTables(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.log.append(t, row{key: "a"}, row{table: "items", key: "x"}, row{table: "everything", action: lockstep.Gap, none: true}, row{key: "b"})
	c := r.put(definition(func(d *deliver.Definition) { d.Tables = []string{"public.orders", "public.items"} }))
	for _, expected := range []string{"a@1 x@2", "gap@3", "b@4"} {
		ds := next(t, c, 10)
		want(t, "in turn", ds, expected)
		want(t, "nothing beside it", next(t, c, 10), "")
		ack(t, c, ds...)
	}
}

func TestRetentionThatOvertakesBecomesAGap(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	d := definition(nil)
	r.put(d)
	for i := range 10 {
		r.log.append(t, ins(fmt.Sprint("k", i))...)
	}
	r.stop()
	r.log.retain(8)
	r.start()
	c := r.put(d)
	gap := next(t, c, 10)
	want(t, "first the gap", gap, "gap@7")
	text := string(c.AppendDelivery(nil, gap[0]))
	if !strings.Contains(text, `"record":null`) || !strings.Contains(text, `"gap":{"state":"end","reason":"retention","from_lsn":null,"to_lsn":null,"missed":7,"next_seq":8}`) {
		t.Errorf("got %s", text)
	}
	want(t, "while it is out", next(t, c, 10), "")
	c = r.restart(d)
	gap = next(t, c, 10)
	want(t, "after a restart", gap, "gap@7")
	ack(t, c, gap...)
	want(t, "then what is there", next(t, c, 10), "k7@8 k8@9 k9@10")
}

func TestRetentionTakesWhatWaitsAndLeavesWhatIsOut(t *testing.T) {
	t.Parallel()
	timed(t, func(t *testing.T, r *rig) {
		r.log.append(t, ins("waits")...)
		r.log.append(t, ins("out")...)
		r.log.append(t, ins("done")...)
		c := r.put(definition(nil))
		ds := next(t, c, 3)
		delay := 10 * time.Second
		nack(t, c, deliver.NackOptions{Delay: &delay}, ds[0])
		ack(t, c, ds[2])
		r.log.append(t, ins("new")...)
		r.log.retain(4)
		time.Sleep(15 * time.Second)
		ack(t, c, ds[1])
		gap := await(t, c, 10)
		want(t, "a gap for the one that waited", gap, "gap@3")
		if !strings.Contains(string(c.AppendDelivery(nil, gap[0])), `"missed":1,"next_seq":4`) {
			t.Errorf("got %s", c.AppendDelivery(nil, gap[0]))
		}
		ack(t, c, gap...)
		want(t, "then", next(t, c, 10), "new@4")
	})
}

func TestDamagedChangesBecomeAGap(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.log.append(t, ins("a")...)
	r.log.append(t, ins("b", "c")...)
	r.log.append(t, ins("d")...)
	c := r.put(definition(nil))
	r.log.damage = &deliver.DamageError{First: 2, Last: 3, Err: lockstep.ErrCorrupt}
	ds := await(t, c, 5)
	want(t, "before the damage", ds, "a@1")
	ack(t, c, ds...)
	ds = await(t, c, 5)
	want(t, "instead of the damaged ones", ds, "gap@3")
	if !strings.Contains(string(c.AppendDelivery(nil, ds[0])), `"reason":"damaged"`) {
		t.Errorf("got %s", c.AppendDelivery(nil, ds[0]))
	}
	ack(t, c, ds...)
	want(t, "then", next(t, c, 5), "d@4")
}

func TestReadErrorIsToldAndNothingIsLost(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	c := r.put(definition(nil))
	r.log.append(t, ins("a")...)
	r.log.failWith(errDisk)
	if _, err := c.Next(t.Context(), deliver.NextRequest{}); !errors.Is(err, errDisk) {
		t.Fatalf("got error %v", err)
	}
	r.log.failWith(nil)
	want(t, "afterwards", await(t, c, 1), "a@1")
}

func TestHotKeyDoesNotStarveOthersAndBlockedKeyCostsNothing(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	d := definition(nil)
	c := r.put(d)
	r.log.append(t, ins("hot")...)
	stuck := next(t, c, 1)
	for range 50 {
		r.log.append(t, ins(slicesRepeat("hot", 1000)...)...)
	}
	r.log.append(t, ins("cold")...)
	ds := next(t, c, 100)
	want(t, "behind 50000 changes of a key that is out", ds, "cold@50002")
	ack(t, c, ds...)
	ack(t, c, stuck...)
	for got := 0; got < 50_000; {
		ds := next(t, c, 1000)
		if len(ds) == 0 || ds[0].Record.Seq() != uint64(got+2) {
			t.Fatalf("after %d of the hot key: %d more from %v", got, len(ds), ds)
		}
		got += len(ds)
		ack(t, c, ds...)
	}
	want(t, "at the end", next(t, c, 10), "")
	if s := c.Stats(); s.Pending != 0 || s.Floor != 50_002 {
		t.Errorf("at the end: %+v", s)
	}
}

func slicesRepeat(s string, n int) []string {
	list := make([]string, n)
	for i := range list {
		list[i] = s
	}
	return list
}

func TestPutChangesAConsumerInPlace(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.log.append(t, row{key: "a", extra: `,"n":1`}, row{key: "b", extra: `,"n":2`}, row{key: "a", extra: `,"n":2`})
	d := definition(func(d *deliver.Definition) { d.Filter = "record.n == 1" })
	c := r.put(d)
	out := next(t, c, 5)
	want(t, "with the first filter", out, "a@1")
	d.Filter, d.Name = "record.n == 2", "renamed"
	if again := r.put(d); again != c {
		t.Fatal("the consumer was made anew")
	}
	if _, err := r.broker.Find("orders"); !errors.Is(err, lockstep.ErrNotFound) {
		t.Errorf("the old name is still found: %v", err)
	}
	ack(t, c, out...)
	r.log.append(t, row{key: "c", extra: `,"n":2`})
	want(t, "what was not looked at yet", next(t, c, 5), "c@4")

	d.OrderBy.None = true
	if _, err := r.broker.Put(t.Context(), d); !errors.Is(err, lockstep.ErrConflict) {
		t.Errorf("another order while changes are out: error %v, want ErrConflict", err)
	}
	other := definition(func(o *deliver.Definition) { o.Name = "renamed" })
	if _, err := r.broker.Put(t.Context(), other); !errors.Is(err, lockstep.ErrConflict) {
		t.Errorf("a name in use: error %v, want ErrConflict", err)
	}
}

func TestChangedFilterHoldsForChangesThatWaited(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.log.append(t, row{key: "a", extra: `,"n":1`}, row{key: "a", extra: `,"n":2`}, row{key: "b", extra: `,"n":2`})
	d := definition(nil)
	c := r.put(d)
	zero := time.Duration(0)
	nack(t, c, deliver.NackOptions{Delay: &zero}, next(t, c, 3)...)
	d.Filter = "record.n == 2"
	r.put(d)
	ds := await(t, c, 5)
	for len(ds) < 2 {
		ds = append(ds, await(t, c, 5)...)
	}
	if got := show(ds); got != "a@2 b@3#2" && got != "b@3#2 a@2" {
		t.Errorf("got %q", got)
	}
}

func TestRemovedConsumerEndsItsCallsAndLeavesNothing(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	d := exhausting(deliver.Park, 1)
	c := r.put(d)
	r.log.append(t, ins("a")...)
	fail(t, c, next(t, c, 1)[0])
	failed := make(chan error)
	go func() {
		_, err := c.Next(context.Background(), deliver.NextRequest{Wait: time.Hour})
		failed <- err
	}()
	if err := r.broker.Remove(t.Context(), d.ID); err != nil {
		t.Fatal(err)
	}
	if err := <-failed; !errors.Is(err, lockstep.ErrNotFound) {
		t.Errorf("the waiting call: error %v, want ErrNotFound", err)
	}
	if len(r.states.values) != 0 || len(r.dead.letters) != 0 || len(r.broker.List()) != 0 {
		t.Error("something is left")
	}
	want(t, "made anew", next(t, r.put(d), 1), "a@1")
}

func TestDefinitionNamesEveryFaultWithItsField(t *testing.T) {
	t.Parallel()
	d := deliver.Definition{
		ID: "x", Tables: []string{`"open`}, Filter: "record.", Transform: "1 +", Start: "soon", AckWait: -1, MaxInFlight: -1, MaxAttempts: -1,
		OnExhausted: "explode", Backoff: deliver.Backoff{First: -1, Max: -2, Jitter: 2}, Metadata: []byte("{"), OrderBy: deliver.OrderBy{None: true, Columns: []string{""}},
	}
	var all *deliver.DefinitionError
	if err := d.Validate(); !errors.As(err, &all) || !errors.Is(err, lockstep.ErrInvalid) {
		t.Fatalf("got %v", err)
	}
	got := map[string]bool{}
	for _, p := range all.Problems {
		got[p.Field] = true
	}
	for _, f := range []string{"id", "name", "database", "tables", "filter", "transform", "start", "ack_wait", "max_in_flight", "max_attempts", "on_exhausted",
		"backoff.first", "backoff.max", "backoff.jitter", "metadata", "order_by"} {
		if !got[f] {
			t.Errorf("no fault at %s", f)
		}
	}
	if err := definition(nil).Validate(); err != nil {
		t.Errorf("the defaults are not valid: %v", err)
	}
}

func TestManyConsumersOnOneTail(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	const n = 200
	var list []*deliver.Consumer
	for i := range n {
		list = append(list, r.put(definition(func(d *deliver.Definition) {
			d.Name, d.Tables = fmt.Sprint("c", i), []string{fmt.Sprint("public.t", i)}
		})))
	}
	for i, c := range list {
		want(t, "at the start", next(t, c, 1), "")
		r.log.append(t, row{table: fmt.Sprint("t", i), key: "a"})
	}
	r.log.mu.Lock()
	before := r.log.reads
	r.log.mu.Unlock()
	for i, c := range list {
		want(t, "its own", next(t, c, 10), fmt.Sprint("a@", i+1))
		if !c.Stats().Attached {
			t.Fatalf("consumer %d left the tail", i)
		}
	}
	r.log.mu.Lock()
	defer r.log.mu.Unlock()
	// Each looks up the body of its one change, and Stats that of the oldest.
	if reads := r.log.reads - before; reads > 2*n {
		t.Errorf("%d reads for %d consumers at the tail", reads, n)
	}
}
