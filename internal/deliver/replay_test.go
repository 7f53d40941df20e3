package deliver_test

import (
	"errors"
	"testing"
	"time"

	"lockstep"
	"lockstep/internal/deliver"
)

func TestASettledChangeIsReplayed(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.log.append(t, ins("a", "b", "a")...)
	c := r.put(definition(nil))
	ack(t, c, next(t, c, 10)...)
	if err := c.Replay(t.Context(), 1); err != nil {
		t.Fatal(err)
	}
	got := next(t, c, 10)
	want(t, "the replayed one", got, "a@1late")
	// Until it is settled, what comes later of its key waits behind it.
	r.log.append(t, ins("a", "b")...)
	want(t, "another key", await(t, c, 10), "b@5")
	ack(t, c, got...)
	want(t, "the later one", await(t, c, 10), "a@4")
	eventually(t, "its letter goes", func() bool { return c.Stats().Dead == 0 })
}

func TestAReplayOutlivesARestart(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.log.append(t, ins("a", "b")...)
	d := definition(nil)
	c := r.put(d)
	ack(t, c, next(t, c, 10)...)
	if err := c.Replay(t.Context(), 2); err != nil {
		t.Fatal(err)
	}
	r.log.retain(2)
	c = r.restart(d)
	want(t, "after a restart", next(t, c, 10), "b@2late")
}

func TestAReplayTakesALetterBack(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.log.append(t, ins("a", "b")...)
	c := r.put(definition(func(d *deliver.Definition) { d.MaxAttempts = 1 }))
	got := next(t, c, 10)
	nack(t, c, deliver.NackOptions{Reason: "no"}, got[0])
	ack(t, c, got[1])
	eventually(t, "it is parked", func() bool { return c.Stats().Parked == 1 })
	if n, err := c.ReplayDead(t.Context(), time.Now().Add(time.Hour)); n != 0 || err != nil {
		t.Errorf("letters of the future: %d, %v", n, err)
	}
	if n, err := c.ReplayDead(t.Context(), time.Now().Add(-time.Hour)); n != 1 || err != nil {
		t.Errorf("letters since an hour: %d, %v", n, err)
	}
	want(t, "the parked one", next(t, c, 10), "a@1")
}

func TestARangeIsReplayedInOrder(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.log.append(t, ins("a", "b", "a")...)
	r.log.append(t, row{table: "other", key: "x"}, row{key: "b"}, row{key: "a"})
	c := r.put(definition(func(d *deliver.Definition) { d.Tables = []string{"public.orders"} }))
	got := next(t, c, 10)
	ack(t, c, got[:4]...) // the last one is open
	if n, err := c.ReplayRange(t.Context(), 2, 100); n != 3 || err != nil {
		t.Fatalf("replayed %d, %v", n, err)
	}
	ack(t, c, got[4:]...)
	want(t, "the range", await(t, c, 10), "b@2late a@3late b@5late")
	if n, err := c.ReplayRange(t.Context(), 50, 60); n != 0 || err != nil {
		t.Errorf("behind the end: %d, %v", n, err)
	}
}

func TestWhatCannotBeReplayedIsTold(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.log.append(t, ins("a", "b", "c")...)
	r.log.append(t, row{table: "other", key: "x"}, row{key: "d"})
	d := definition(func(d *deliver.Definition) { d.Tables = []string{"public.orders"} })
	c := r.put(d)
	got := next(t, c, 2)
	ack(t, c, got[0])
	for seq, kind := range map[uint64]error{2: lockstep.ErrConflict, 3: lockstep.ErrConflict, 4: lockstep.ErrInvalid, 9: lockstep.ErrNotFound} {
		if err := c.Replay(t.Context(), seq); !errors.Is(err, kind) {
			t.Errorf("seq %d: %v, want %v", seq, err, kind)
		}
	}
	if n := c.Stats().Dead; n != 0 {
		t.Errorf("%d letters were written", n)
	}
	ack(t, c, got[1])
	r.log.retain(4)
	c = r.restart(d)
	var gone *lockstep.RetentionError
	if err := c.Replay(t.Context(), 1); !errors.As(err, &gone) {
		t.Errorf("what retention took: %v", err)
	}
}
