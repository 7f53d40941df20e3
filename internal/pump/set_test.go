package pump_test

import (
	"context"
	"errors"
	"sync"
	"testing"

	"lockstep"
	"lockstep/internal/deliver"
	"lockstep/internal/pump"
)

// places are the destinations of a set, by the settings that they were opened with.
type places struct {
	mu     sync.Mutex
	opened map[string]*receiver
}

func (l *places) open(_ context.Context, d deliver.Definition) (pump.Opened, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if string(d.Settings) == "bad" {
		return pump.Opened{}, errors.Join(errors.New("no such place"), lockstep.ErrInvalid)
	}
	to := newReceiver()
	l.opened[string(d.Settings)] = to
	return pump.Opened{Sink: to}, nil
}

// at is how many changes arrived at a place; -1: it was never opened.
func (l *places) at(settings string) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.opened[settings] == nil {
		return -1
	}
	return l.opened[settings].distinct()
}

func (l *places) closed(settings string) bool {
	l.mu.Lock()
	to := l.opened[settings]
	l.mu.Unlock()
	to.mu.Lock()
	defer to.mu.Unlock()
	return to.closed == 1
}

func TestASetFollowsItsConsumers(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	l, keep := &places{opened: map[string]*receiver{}}, &kept{}
	set := pump.NewSet(pump.SetConfig{
		Consumers: r.broker.List, Sends: func(kind string) bool { return kind == "webhook" }, Keep: keep, Logger: quiet(), Open: l.open,
	})
	stop := start(t, set.Run)
	r.consumer(func(d *deliver.Definition) { d.Kind = "http" })
	c := r.consumer(func(d *deliver.Definition) { d.Settings = []byte("one") })
	set.Kick()
	r.fill(100, 10)
	eventually(t, "a consumer that came is sent to", func() bool { return l.at("one") == 100 })

	d := c.Definition()
	d.Settings = []byte("two")
	if _, err := r.broker.Put(t.Context(), d); err != nil {
		t.Fatal(err)
	}
	set.Kick()
	eventually(t, "the old destination is closed", func() bool { return l.closed("one") && l.at("two") == 0 })
	r.fill(100, 10)
	eventually(t, "the new one is written to", func() bool { return l.at("two") == 100 })
	p, err := set.Find(d.ID)
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, "attempts are remembered over the change", func() bool {
		list, _ := p.Book.List(0, 500, pump.All)
		return len(list) == 200
	})
	bad := r.consumer(func(d *deliver.Definition) { d.Settings = []byte("bad") })
	set.Kick()
	eventually(t, "one that cannot be opened says why", func() bool {
		p, err := set.Find(bad.ID())
		return err == nil && p.Status().State == pump.Refused && p.Test(t.Context()) != nil
	})
	if err := r.broker.Remove(t.Context(), d.ID); err != nil {
		t.Fatal(err)
	}
	set.Kick()
	eventually(t, "one that is deleted is forgotten", func() bool {
		_, err := set.Find(d.ID)
		return errors.Is(err, lockstep.ErrNotFound) && keep.reason.Load() != nil
	})
	stop()
}
