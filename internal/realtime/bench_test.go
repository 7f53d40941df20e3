package realtime_test

import (
	"fmt"
	"log/slog"
	"runtime"
	"sync"
	"testing"
	"time"

	"lockstep"
	"lockstep/internal/realtime"
)

// BenchmarkSockets has 1,000 sockets, each with a filter of its own, and measures how
// many changes a second reach the one that each concerns. The clients run in the same
// process, and cost about what the server does.
func BenchmarkSockets(b *testing.B) {
	for _, filter := range []string{"customer=eq.%d", "amount=gte.%d.0,amount=lt.%d.5"} {
		b.Run(filter, func(b *testing.B) { benchmarkSockets(b, filter) })
	}
}

func benchmarkSockets(b *testing.B, filter string) {
	const sockets = 1000
	r := newRig(b, func(c *realtime.Config) { c.Logger = slog.New(slog.DiscardHandler) })
	var before, behind runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	var received sync.WaitGroup
	for n := range sockets {
		c := r.connect()
		text := fmt.Sprintf(filter, n)
		if len(filter) > 20 {
			text = fmt.Sprintf(filter, n, n)
		}
		c.follow(`{"event":"*","schema":"public","table":"orders","filter":"` + text + `"}`)
		go func() {
			for {
				if _, err := c.next(); err != nil {
					return
				}
				received.Done()
			}
		}()
	}
	runtime.GC()
	runtime.ReadMemStats(&behind)
	b.ResetTimer()
	began := time.Now()
	const batch = 100
	for done := 0; done < b.N; done += batch {
		rows := make([]row, 0, batch)
		for i := range min(batch, b.N-done) {
			n := (done + i) % sockets
			rows = append(rows, row{action: lockstep.Insert, record: fmt.Sprintf(`{"id":%d,"customer":%d,"amount":"%d.25","status":"open","body":"some text of usual length"}`, done+i, n, n)})
		}
		received.Add(len(rows))
		r.log.add(b, rows...)
		if done%(20*batch) == 0 {
			received.Wait()
		}
	}
	received.Wait()
	b.ReportMetric(float64(b.N)/time.Since(began).Seconds(), "changes/s")
	b.ReportMetric(float64(behind.HeapInuse+behind.StackInuse-before.HeapInuse-before.StackInuse)/sockets/1024, "KiB/socket+client")
}
