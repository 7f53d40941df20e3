package deliver_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"lockstep"
	"lockstep/internal/deliver"
)

// chaos is everything at once: a log that grows, workers that ack, nack, extend, lose
// leases and go away, a disk that fails now and then, a definition that changes, and
// truncates in between. It checks what each worker may rely on.
type chaos struct {
	t    *testing.T
	r    *rig
	c    *deliver.Consumer
	mu   sync.Mutex
	log  []row // by seq
	held map[uint64]int
	done map[uint64]bool // acks that were answered
}

const (
	chaosChanges = 3000
	chaosKeys    = 15
)

func TestEverythingAtOnce(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	d := definition(func(d *deliver.Definition) {
		d.AckWait, d.Backoff, d.MaxInFlight = 30*time.Millisecond, deliver.Backoff{First: time.Millisecond, Max: 4 * time.Millisecond}, 60
	})
	x := &chaos{t: t, r: r, c: r.put(d), held: map[uint64]int{}, done: map[uint64]bool{}}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	var work, trouble sync.WaitGroup
	stop := make(chan struct{})
	work.Go(x.write)
	for worker := range 6 {
		work.Go(func() { x.work(ctx, rand.New(rand.NewPCG(7, uint64(worker)))) })
	}
	trouble.Go(func() { x.disturb(stop, d) })
	work.Wait()
	close(stop)
	trouble.Wait()
	if len(x.done) != chaosChanges {
		t.Errorf("%d of %d acked", len(x.done), chaosChanges)
	}
	next(t, x.c, 1)
	if s := x.c.Stats(); s.Pending != 0 || s.InFlight != 0 || s.Floor != chaosChanges {
		t.Errorf("at the end: %+v", s)
	}
}

// write lets the log grow.
func (x *chaos) write() {
	random := rand.New(rand.NewPCG(7, 99))
	for n := 0; n < chaosChanges; {
		rows := make([]row, min(1+random.IntN(20), chaosChanges-n))
		for i := range rows {
			rows[i] = row{key: fmt.Sprint(random.IntN(chaosKeys)), table: []string{"orders", "items"}[random.IntN(2)]}
			switch random.IntN(300) {
			case 0:
				rows[i] = truncate("orders")
			case 1:
				rows[i] = row{table: "everything", action: lockstep.Gap, none: true}
			}
		}
		n += len(rows)
		x.mu.Lock()
		x.log = append(x.log, rows...)
		x.r.log.append(x.t, rows...)
		x.mu.Unlock()
	}
}

// disturb lets saves fail, pauses, and changes the definition.
func (x *chaos) disturb(stop chan struct{}, d deliver.Definition) {
	random := rand.New(rand.NewPCG(7, 100))
	tick := time.NewTicker(3 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-stop:
			x.r.states.failWith(nil)
			return
		case <-tick.C:
		}
		var err error
		switch random.IntN(8) {
		case 0:
			x.r.states.failWith(errDisk)
		case 1:
			err = x.c.Pause(x.t.Context())
		case 2:
			d.Filter = []string{"", "action != \"nothing\""}[random.IntN(2)]
			d.MaxInFlight = 20 + random.IntN(60)
			_, err = x.r.broker.Put(x.t.Context(), d)
		case 3:
			_, err = x.c.Peek(x.t.Context(), 20)
		default:
			x.r.states.failWith(nil)
			err = x.c.Resume(x.t.Context())
		}
		if err != nil {
			x.t.Errorf("trouble: %v", err)
		}
	}
}

func (x *chaos) work(ctx context.Context, random *rand.Rand) {
	for {
		x.mu.Lock()
		over := len(x.done) == chaosChanges
		x.mu.Unlock()
		if over || ctx.Err() != nil {
			return
		}
		call, cancel := context.WithTimeout(ctx, time.Duration(1+random.IntN(50))*time.Millisecond)
		res, err := x.c.Next(call, deliver.NextRequest{Batch: 1 + random.IntN(20), Wait: 30 * time.Millisecond})
		cancel()
		if errors.Is(err, context.DeadlineExceeded) || errors.Is(err, lockstep.ErrUnavailable) {
			continue
		}
		if err != nil {
			x.t.Errorf("next: %v", err)
			return
		}
		x.check(res.Deliveries)
		x.settle(ctx, random, res.Deliveries)
	}
}

// check looks at what was handed out: nothing that was acked, and nothing ahead of what it
// must wait for.
func (x *chaos) check(ds []deliver.Delivery) {
	x.mu.Lock()
	defer x.mu.Unlock()
	batch := map[uint64]bool{}
	for _, d := range ds {
		seq := d.Record.Seq()
		batch[seq] = true
		if x.done[seq] {
			x.t.Errorf("change %d was handed out after its ack was answered", seq)
		}
		for before := uint64(1); before < seq; before++ {
			// An ack whose answer was an error may have been saved all the same, or will be.
			if x.held[before] == 0 && !batch[before] && !x.done[before] && waitsFor(x.log[seq-1], x.log[before-1]) {
				x.t.Errorf("change %d was handed out before %d, which nobody ever had", seq, before)
			}
		}
		x.held[seq]++
	}
}

// waitsFor reports whether b must wait for the earlier a.
func waitsFor(b, a row) bool {
	if a.table == "everything" || b.table == "everything" {
		return true
	}
	return a.table == b.table && (a.none || b.none || a.key == b.key)
}

func (x *chaos) settle(ctx context.Context, random *rand.Rand, ds []deliver.Delivery) {
	for len(ds) > 0 {
		n := 1 + random.IntN(len(ds))
		part := ds[:n]
		ds = ds[n:]
		switch random.IntN(12) {
		case 0:
			_, _ = x.c.Nack(ctx, tokens(part...), deliver.NackOptions{Mode: deliver.NackMode(random.IntN(2))})
		case 1:
			_, _ = x.c.Extend(ctx, tokens(part...), 50*time.Millisecond)
		case 2:
			return // gone away
		default:
			x.ack(ctx, part)
		}
	}
}

func (x *chaos) ack(ctx context.Context, ds []deliver.Delivery) {
	for {
		stale, err := x.c.Ack(ctx, tokens(ds...))
		if errors.Is(err, lockstep.ErrUnavailable) {
			continue
		}
		if err != nil {
			x.t.Errorf("ack: %v", err)
			return
		}
		lost := map[string]bool{}
		for _, s := range stale {
			lost[s] = true
		}
		x.mu.Lock()
		for _, d := range ds {
			if !lost[d.Token] {
				x.done[d.Record.Seq()] = true
			}
		}
		x.mu.Unlock()
		return
	}
}
