package deliver_test

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"lockstep/internal/deliver"
)

// TestConsumersJoinTheTailWithoutAGap lets consumers catch up while the log grows and
// the tail moves, which others keep going.
func TestConsumersJoinTheTailWithoutAGap(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	const n = 1500
	watch := r.put(definition(func(d *deliver.Definition) { d.Name, d.Filter = "watch", "false" }))
	next(t, watch, 1)
	var wg sync.WaitGroup
	wg.Go(func() {
		for i := range n {
			r.log.append(t, ins(fmt.Sprint(i))...)
		}
	})
	for i := range 15 {
		wg.Go(func() {
			c := r.put(definition(func(d *deliver.Definition) { d.Name = fmt.Sprint("c", i) }))
			seen := uint64(0)
			for seen < n {
				ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
				res, err := c.Next(ctx, deliver.NextRequest{Batch: 10, Wait: time.Minute})
				cancel()
				if err != nil {
					t.Errorf("consumer %d after %d: %v", i, seen, err)
					return
				}
				for _, d := range res.Deliveries {
					if seen++; d.Record.Seq() != seen {
						t.Errorf("consumer %d: got change %d, want %d", i, d.Record.Seq(), seen)
						return
					}
				}
				ack(t, c, res.Deliveries...)
			}
		})
	}
	wg.Wait()
}

func TestIdleConsumerSavesWhereItStands(t *testing.T) {
	t.Parallel()
	timed(t, func(t *testing.T, r *rig) {
		d := definition(func(d *deliver.Definition) { d.Tables = []string{"public.items"} })
		c := r.put(d)
		next(t, c, 1)
		for range 10 {
			r.log.append(t, ins(slicesRepeat("a", 1000)...)...)
		}
		<-time.After(11 * time.Second)
		r.states.mu.Lock()
		saves := r.states.saves
		r.states.mu.Unlock()
		// Killed: nothing more is saved.
		other := deliver.New(r.config())
		stop := run(t, other)
		c, err := other.Put(t.Context(), d)
		if err != nil {
			t.Fatal(err)
		}
		if s := c.Stats(); saves < 2 || s.Head != 10_001 {
			t.Errorf("after %d saves it begins at %d, want 10001", saves, s.Head)
		}
		stop()
	})
}

func TestConsumerThatNobodyAsksKeepsLittle(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	c := r.put(definition(nil))
	next(t, c, 1)
	for i := range 300 {
		rows := make([]row, 100)
		for j := range rows {
			rows[j] = row{key: fmt.Sprint(i, "-", j)}
		}
		r.log.append(t, rows...)
	}
	eventually(t, "it has left the tail", func() bool { return !c.Stats().Attached })
	if s := c.Stats(); s.Waiting > 2000 || s.Pending != 30_000 {
		t.Errorf("stats %+v", s)
	}
	for got := 0; got < 30_000; {
		ds := next(t, c, 1000)
		if len(ds) == 0 {
			t.Fatalf("nothing more after %d", got)
		}
		got += len(ds)
		ack(t, c, ds...)
	}
}
