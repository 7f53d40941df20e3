package deliver_test

import (
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"lockstep"
	"lockstep/internal/deliver"
)

func TestAckThatCannotBeSavedFailsAndIsNotForgotten(t *testing.T) {
	t.Parallel()
	timed(t, func(t *testing.T, r *rig) {
		r.log.append(t, ins("a", "a")...)
		c := r.put(definition(nil))
		ds := next(t, c, 1)
		r.states.failWith(errDisk)
		if _, err := c.Ack(t.Context(), tokens(ds...)); !errors.Is(err, lockstep.ErrUnavailable) {
			t.Fatalf("got error %v, want ErrUnavailable", err)
		}
		want(t, "the next of its key, while the ack is not on disk", next(t, c, 2), "")
		<-time.After(10 * time.Minute) // far beyond the lease: it was acked
		want(t, "later", next(t, c, 2), "")
		r.states.failWith(nil)
		want(t, "once the disk is back", await(t, c, 2), "a@2")
		ack(t, c, ds...)
	})
}

func TestKeyGoesOnOnlyWhenTheAckIsOnDisk(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.log.append(t, ins("a", "a")...)
	c := r.put(definition(nil))
	ds := next(t, c, 1)
	gate := make(chan struct{})
	r.states.mu.Lock()
	r.states.gate = gate
	r.states.mu.Unlock()
	acked := make(chan error)
	go func() {
		_, err := c.Ack(t.Context(), tokens(ds...))
		acked <- err
	}()
	eventually(t, "the ack is in memory", func() bool { return c.Stats().InFlight == 0 })
	want(t, "before the save", next(t, c, 1), "")
	close(gate)
	if err := <-acked; err != nil {
		t.Fatal(err)
	}
	want(t, "after it", next(t, c, 1), "a@2")
}

func TestAcksThatComeDuringASaveShareTheNext(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	const n = 50
	for i := range n {
		r.log.append(t, ins(fmt.Sprint(i))...)
	}
	c := r.put(definition(nil))
	ds := next(t, c, n)
	for len(ds) < n {
		ds = append(ds, next(t, c, n)...)
	}
	gate := make(chan struct{}, n)
	r.states.mu.Lock()
	r.states.gate = gate
	before := r.states.saves
	r.states.mu.Unlock()
	var wg sync.WaitGroup
	for _, d := range ds {
		wg.Go(func() { ack(t, c, d) })
	}
	eventually(t, "all are acked in memory", func() bool { return c.Stats().Acked == n })
	for range n {
		gate <- struct{}{}
	}
	wg.Wait()
	r.states.mu.Lock()
	defer r.states.mu.Unlock()
	r.states.gate = nil
	if saves := r.states.saves - before; saves > 3 {
		t.Errorf("%d acks took %d saves", n, saves)
	}
}

func TestSaveWhoseAnswerGotLostIsNotTakenForAnotherNode(t *testing.T) {
	t.Parallel()
	timed(t, func(t *testing.T, r *rig) {
		r.log.append(t, ins("a", "b")...)
		c := r.put(definition(nil))
		ds := next(t, c, 2)
		r.states.mu.Lock()
		r.states.lost = errors.New("no answer")
		r.states.mu.Unlock()
		if _, err := c.Ack(t.Context(), tokens(ds[0])); !errors.Is(err, lockstep.ErrUnavailable) {
			t.Fatalf("got error %v", err)
		}
		r.states.mu.Lock()
		r.states.lost = nil
		r.states.mu.Unlock()
		ack(t, c, ds...)
	})
}

func TestConsumerServedElsewhereStops(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.log.append(t, ins("a", "b", "c")...)
	d := definition(nil)
	c := r.put(d)
	mine := next(t, c, 1)

	other := deliver.New(r.config())
	run(t, other)
	c2, err := other.Put(t.Context(), d)
	if err != nil {
		t.Fatal(err)
	}
	theirs := next(t, c2, 1)
	if _, err := c.Ack(t.Context(), tokens(mine...)); !errors.Is(err, lockstep.ErrFenced) {
		t.Fatalf("ack at the node that lost it: error %v, want ErrFenced", err)
	}
	if _, err := c.Next(t.Context(), deliver.NextRequest{}); !errors.Is(err, lockstep.ErrFenced) {
		t.Errorf("next at the node that lost it: error %v, want ErrFenced", err)
	}
	wantStale(t, c2, mine...)
	ack(t, c2, theirs...)
}

func TestRestartKeepsAcksAttemptsAndDelays(t *testing.T) {
	t.Parallel()
	timed(t, func(t *testing.T, r *rig) {
		r.log.append(t, ins("a", "a", "b", "c", "d")...)
		d := definition(nil)
		c := r.put(d)
		ds := next(t, c, 4)
		want(t, "before", ds, "a@1 b@3 c@4 d@5")
		hour := time.Hour
		nack(t, c, deliver.NackOptions{Delay: &hour}, ds[0])
		ack(t, c, ds[2])
		c = r.restart(d)
		want(t, "after the restart", next(t, c, 10), "b@3 d@5")
		began := time.Now()
		ds = nil
		for len(ds) == 0 || show(ds) == "" {
			res, err := c.Next(t.Context(), deliver.NextRequest{Batch: 10, Wait: 2 * time.Hour})
			if err != nil {
				t.Fatal(err)
			}
			if ds = res.Deliveries; ds[0].Record.Seq() != 1 {
				ds = nil // leases of the others ran out meanwhile
			}
		}
		if waited := time.Since(began); waited < 59*time.Minute || ds[0].Attempt != 2 {
			t.Errorf("a came after %s as attempt %d", waited, ds[0].Attempt)
		}
	})
}

func TestStateStaysSmallWhateverIsAcked(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	d := definition(nil)
	c := r.put(d)
	r.log.append(t, ins("stuck")...)
	stuck := next(t, c, 1)
	hour := time.Hour
	nack(t, c, deliver.NackOptions{Delay: &hour}, stuck...)
	for i := range 200 {
		rows := make([]row, 0, 100)
		for j := range 100 {
			rows = append(rows, row{key: fmt.Sprint(i, "-", j)})
		}
		rows[50].key = "stuck"
		r.log.append(t, rows...)
		ack(t, c, next(t, c, 100)...)
	}
	r.states.mu.Lock()
	size := len(r.states.values[d.ID])
	r.states.mu.Unlock()
	if size > 400 {
		t.Errorf("the state has %d bytes after 20000 acks and one key that waits", size)
	}
	c = r.restart(d)
	want(t, "after a restart", next(t, c, 10), "")
	if p := c.Stats().Pending; p != 201 {
		t.Errorf("%d pending, want the 201 of the key", p)
	}
}
