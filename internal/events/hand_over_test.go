package events_test

import (
	"fmt"
	"math/rand/v2"
	"runtime"
	"slices"
	"sync"
	"testing"

	"lockstep/internal/events"
)

// ledger is what was written, in the order of the log.
type ledger struct {
	mu  sync.Mutex
	ids map[string][]string // by subscriber
}

func (l *ledger) behind(subscriber, id string) []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	all := l.ids[subscriber]
	return slices.Clone(all[slices.Index(all, id)+1:])
}

// write appends batches of events in a random order of ids, as transactions that
// overlap do, between changes of other tables.
func (l *ledger) write(log *memLog, subscribers, n int) {
	ids := make([]int, n)
	for i := range ids {
		ids[i] = i + 1
	}
	for at := 0; at < n; {
		size := min(1+rand.IntN(20), n-at)
		window := ids[at:min(at+size+10, n)]
		rand.Shuffle(len(window), func(i, k int) { window[i], window[k] = window[k], window[i] })
		var batch []change
		l.mu.Lock()
		for _, id := range ids[at : at+size] {
			subscriber := fmt.Sprint("s", rand.IntN(subscribers))
			batch = append(batch, event(id, subscriber))
			if rand.IntN(3) == 0 {
				batch = append(batch, other())
			}
			l.ids[subscriber] = append(l.ids[subscriber], fmt.Sprint(id))
		}
		log.add(batch...)
		l.mu.Unlock()
		at += size
		runtime.Gosched()
	}
}

// consume follows a subscriber over many connections until the writing has ended and it
// has everything: each time it takes some events, at its own pace, and goes away.
func (l *ledger) consume(t *testing.T, s *events.Server, subscriber string, ended <-chan struct{}) []string {
	var got []string
	lastID := "0"
	for {
		over := false
		select {
		case <-ended:
			over = true
		default:
		}
		left := len(l.behind(subscriber, "")) - len(got)
		if over && left == 0 {
			return got
		}
		f := follow(t, s, subscriber, lastID, 0)
		for range min(left, 1+rand.IntN(200)) {
			e := f.next()
			if e.name != "made" {
				t.Errorf("%s got %+v", subscriber, e)
				return got
			}
			got = append(got, e.id)
			lastID = e.id
			for range rand.IntN(3) {
				runtime.Gosched()
			}
		}
		f.session.Close()
	}
}

// Replayed and live events meet without a gap and without a repetition, however slow a
// client is, wherever it was cut off, and in whatever order ids were committed.
func TestReplayAndLiveMeetExactly(t *testing.T) {
	t.Parallel()
	for _, limits := range []events.Limits{
		{QueueBytes: 300, Readers: 1, Stretch: 4, Stretches: 8, Stride: 16},
		{QueueBytes: 2000, Readers: 2, Stretch: 64},
		{},
	} {
		t.Run(fmt.Sprint(limits.QueueBytes), func(t *testing.T) {
			t.Parallel()
			log := newLog()
			s := newServer(t, log, limits)
			l := &ledger{ids: map[string][]string{}}
			const subscribers, n = 5, 2000
			ended := make(chan struct{})
			var all sync.WaitGroup
			all.Go(func() { l.write(log, subscribers, n); close(ended) })
			for i := range 4 * subscribers {
				subscriber := fmt.Sprint("s", i%subscribers)
				all.Go(func() {
					if i >= 3*subscribers {
						<-ended // a replay of everything
					}
					got := l.consume(t, s, subscriber, ended)
					if want := l.behind(subscriber, ""); !slices.Equal(got, want) {
						t.Errorf("%s got %d events, want %d, or in another order", subscriber, len(got), len(want))
					}
				})
			}
			all.Wait()
			if _, most, _ := log.readers(); limits.Readers > 0 && most > limits.Readers+4 {
				t.Errorf("%d readers were open at a time, want %d, the live one, and few that are about to close", most, limits.Readers)
			}
		})
	}
}

// Sessions that go on at about the same place share the reading.
func TestManySessionsThatResumeReadTheLogOnce(t *testing.T) {
	t.Parallel()
	log := newLog()
	s := newServer(t, log, events.Limits{})
	l := &ledger{ids: map[string][]string{}}
	const subscribers, n = 100, 5000
	l.write(log, subscribers, n)
	_, _, before := log.readers()
	var all sync.WaitGroup
	for i := range subscribers {
		subscriber := fmt.Sprint("s", i)
		all.Go(func() {
			lastID := l.ids[subscriber][0]
			want := l.behind(subscriber, lastID)
			f := follow(t, s, subscriber, lastID, 0)
			for _, id := range want {
				if e := f.next(); e.id != id {
					t.Errorf("%s got %+v, want %s", subscriber, e, id)
					return
				}
			}
		})
	}
	all.Wait()
	_, _, after := log.readers()
	log.mu.Lock()
	batches := len(log.batches)
	log.mu.Unlock()
	if read := after - before; read > batches*subscribers/4 {
		t.Errorf("%d batches were read for %d sessions over %d batches: the reading is not shared", read, subscribers, batches)
	}
	t.Logf("%d batches were read for %d sessions over %d batches", after-before, subscribers, batches)
}
