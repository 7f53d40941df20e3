package events_test

import (
	"fmt"
	"sync"
	"testing"

	"lockstep/internal/events"
)

// BenchmarkFanOut brings events to 1,000 sessions, each of its own subscriber, as fast as
// they are taken. An operation is an event.
func BenchmarkFanOut(b *testing.B) {
	const sessions, batch = 1000, 500
	log := newLog()
	s := newServer(b, log, events.Limits{})
	var all sync.WaitGroup
	for i := range sessions {
		f := follow(b, s, fmt.Sprint("s", i), "", 1)
		want := b.N / sessions
		if i < b.N%sessions {
			want++
		}
		all.Go(func() {
			for got := 0; got < want; {
				parts, err := f.session.Next(b.Context(), 1<<40)
				if err != nil {
					b.Error(err)
					return
				}
				got += len(parts)
			}
		})
	}
	rows := make([]change, 0, batch)
	b.ReportAllocs()
	b.ResetTimer()
	for id := range b.N {
		rows = append(rows, event(id, fmt.Sprint("s", id%sessions)))
		if len(rows) == batch || id == b.N-1 {
			b.StopTimer()
			log.add(rows...)
			b.StartTimer()
			rows = rows[:0]
		}
	}
	all.Wait()
}

// BenchmarkUnwanted is what a change costs that nobody follows.
func BenchmarkUnwanted(b *testing.B) {
	log := newLog()
	s := newServer(b, log, events.Limits{})
	rows := make([]change, 500)
	for i := range rows {
		rows[i] = event(i, "nobody")
	}
	for range b.N / len(rows) {
		log.add(rows...)
	}
	log.add(event(1<<40, "last"))
	b.ReportAllocs()
	b.ResetTimer()
	follow(b, s, "last", "", 1).ids(1)
}
