package deliver_test

import (
	"fmt"
	"strings"
	"testing"

	"lockstep"
	"lockstep/internal/deliver"
)

// readFor is an existing row that a backfill read for one consumer.
func readFor(d deliver.Definition, key, extra string) row {
	return row{key: key, extra: extra, action: lockstep.Read, only: d.ID}
}

// Rows that a backfill reads for one consumer lie in the log of everybody.
func TestRowsForOneConsumerReachOnlyThatOne(t *testing.T) {
	t.Parallel()
	for _, at := range []string{"read from the log", "at the end of the log"} {
		t.Run(at, func(t *testing.T) {
			t.Parallel()
			r := newRig(t)
			mine := definition(func(d *deliver.Definition) { d.Name = "mine" })
			other := definition(func(d *deliver.Definition) { d.Name = "other" })
			var c, o *deliver.Consumer
			attached := strings.HasPrefix(at, "at")
			if attached {
				c, o = r.put(mine), r.put(other)
				next(t, c, 1)
				next(t, o, 1)
				eventually(t, "both are at the end", func() bool { return c.Stats().Attached && o.Stats().Attached })
			}
			// Of a table alone in its batch, and of one beside others.
			r.log.append(t, row{key: "a"})
			r.log.append(t, readFor(mine, "b", ""))
			r.log.append(t, readFor(other, "c", ""), row{key: "b"}, readFor(mine, "d", ""))
			if !attached {
				c, o = r.put(mine), r.put(other)
			}
			for _, seq := range []uint64{2, 5} {
				if w, err := o.Where(t.Context(), seq); err != nil || w.State != deliver.ChangeNotMatching {
					t.Errorf("change %d at the other consumer: %+v, error %v", seq, w, err)
				}
			}
			peeked, err := o.Peek(t.Context(), 10)
			if err != nil {
				t.Fatal(err)
			}
			want(t, "a peek of the other", peeked, "a@1 c@3 b@4")
			want(t, "the other gets", await(t, o, 10), "a@1 c@3 b@4")
			want(t, "the one they are for gets", await(t, c, 10), "a@1 b@2 b@4 d@5")
			if w, err := c.Where(t.Context(), 2); err != nil || w.State != deliver.ChangeInFlight {
				t.Errorf("change 2 at its consumer: %+v, error %v", w, err)
			}
		})
	}
}

func TestRowsForOneConsumerStandInTheOrderOfTheirKey(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	d := definition(nil)
	r.log.append(t, row{key: "a"}, readFor(d, "b", ""))
	r.log.append(t, readFor(d, "a", ""), row{key: "b", action: lockstep.Update}, row{key: "a", action: lockstep.Delete})
	c := r.put(d)
	first := next(t, c, 2)
	want(t, "one of each key", first, "a@1 b@2")
	want(t, "while both keys are out", next(t, c, 10), "")
	ack(t, c, first[0])
	second := next(t, c, 10)
	want(t, "the row behind the change, and the change behind the row", second, "a@3 a@5")
	nack(t, c, deliver.NackOptions{Mode: deliver.Release}, second[0])
	want(t, "after a nack of the row", next(t, c, 10), "a@3 a@5")
	ack(t, c, first[1])
	want(t, "behind the row of b", next(t, c, 10), "b@4")
}

// Filter and transform hold for existing rows as for changes; that a consumer wants
// inserts only does not keep rows from it that it asked for.
func TestRowsForOneConsumerPassItsFilterAndTransformWhateverItsActions(t *testing.T) {
	t.Parallel()
	for _, actions := range [][]lockstep.Action{nil, {lockstep.Insert}, {lockstep.Delete}} {
		r := newRig(t)
		d := definition(func(d *deliver.Definition) {
			d.Actions, d.Filter, d.Transform = actions, "record.n > 1", "{double: record.n * 2}"
		})
		r.log.append(t, readFor(d, "a", `,"n":1`), readFor(d, "b", `,"n":2`), readFor(d, "c", `,"n":3`))
		ds := next(t, r.put(d), 10)
		want(t, fmt.Sprint("with actions ", string(actions)), ds, "b@2 c@3")
		if string(ds[1].Row) != `{"double":6}` {
			t.Errorf("transformed: %s", ds[1].Row)
		}
	}
}

func TestRowsForOneConsumerComeOnceOverARestartAndAgainAfterASeek(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	d := definition(nil)
	r.log.append(t, readFor(d, "a", ""), readFor(d, "b", ""))
	c := r.put(d)
	ack(t, c, next(t, c, 1)...)
	c = r.restart(d)
	want(t, "after a restart", next(t, c, 10), "b@2")
	if err := c.Seek(t.Context(), "beginning"); err != nil {
		t.Fatal(err)
	}
	want(t, "after a seek", next(t, c, 10), "a@1 b@2")
}

// A letter's body is a batch of its own: it must still be its consumer's.
func TestLetterOfARowForOneConsumerCanBeRetried(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	d := exhausting(deliver.Park, 1)
	r.log.append(t, readFor(d, "a", ""))
	c := r.put(d)
	nack(t, c, deliver.NackOptions{}, next(t, c, 1)...)
	eventually(t, "it is a letter", func() bool { return c.Stats().Dead == 1 })
	c = r.restart(d)
	r.log.retain(2)
	if err := c.Retry(t.Context(), 1); err != nil {
		t.Fatal(err)
	}
	want(t, "the retried row", await(t, c, 1), "a@1")
}

func TestWantingABackfillIsKeptAndChangesNothing(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.log.append(t, ins("a", "b")...)
	d := definition(func(d *deliver.Definition) { d.Backfill = true })
	c := r.put(d)
	out := next(t, c, 1)
	if !c.Definition().Backfill {
		t.Error("the definition lost it")
	}
	d.Backfill, d.MaxInFlight = false, 7
	if c = r.put(d); c.Definition().Backfill {
		t.Error("the definition kept it")
	}
	ack(t, c, out...) // what is out stays out: nothing was read again
	d.Backfill = true
	if c = r.put(d); !c.Definition().Backfill {
		t.Error("the definition did not take it")
	}
	want(t, "what is left", next(t, c, 10), "b@2")
}

// While one worker is busy with a hot key, another gets everything else at once.
func TestOtherKeysDoNotWaitBehindTheBacklogOfAHotOne(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	for i := range 100 {
		r.log.append(t, ins(append(slicesRepeat("hot", 50), fmt.Sprint("cold", i))...)...)
	}
	c := r.put(definition(nil))
	held := next(t, c, 1)
	want(t, "the first worker", held, "hot@1")
	for cold := 0; cold < 100; {
		ds := next(t, c, 10)
		if len(ds) == 0 {
			t.Fatalf("nothing after %d other keys, while only the hot one is out", cold)
		}
		for _, d := range ds {
			if strings.Contains(string(d.Record.PKs()), "hot") {
				t.Fatalf("a second worker got %s while the first has the hot key", show(ds))
			}
		}
		cold += len(ds)
		ack(t, c, ds...)
	}
}

func TestAWorkerGetsOneOfEachKeyBeforeASecondOfAHotOne(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.log.append(t, ins(append(slicesRepeat("hot", 300), "b", "c", "d")...)...)
	want(t, "the first batch", next(t, r.put(definition(nil)), 5), "hot@1 hot@2 b@301 c@302 d@303")
}
