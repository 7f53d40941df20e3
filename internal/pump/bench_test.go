package pump_test

import (
	"context"
	"fmt"
	"strings"
	"syscall"
	"testing"
	"time"

	"lockstep/internal/deliver"
	"lockstep/internal/pump"
	"lockstep/sink"
)

type nowhere struct{}

func (nowhere) Write(_ context.Context, m []sink.Message) (int, error) { return len(m), nil }
func (nowhere) Close(context.Context) error                            { return nil }

// BenchmarkPump sends a filled log to a destination that costs nothing: what is left is
// the pump, delivery and the acks on disk. CPU time counts where others use the machine.
func BenchmarkPump(b *testing.B) {
	const n = 50_000
	for _, how := range []pump.Opened{{Concurrency: 16, Batch: 1}, {Concurrency: 16, Batch: 100}, {Concurrency: 4, Batch: 500}, {Concurrency: 1, Batch: 1000}} {
		b.Run(fmt.Sprintf("batch=%d", how.Batch), func(b *testing.B) {
			r := newRig(b)
			r.note = strings.Repeat("0123456789", 15)
			r.fill(n, n)
			before := spentCPU(b)
			for b.Loop() {
				c := r.consumer(func(d *deliver.Definition) { d.MaxInFlight = 20_000 })
				_, stop := pumping(b, c, nowhere{}, func(c *pump.Config) {
					c.Open = func(context.Context) (pump.Opened, error) {
						return pump.Opened{Sink: nowhere{}, Concurrency: how.Concurrency, Batch: how.Batch}, nil
					}
				})
				seldom(b, "all are settled", settled(c, n))
				stop()
			}
			b.ReportMetric(float64(n*b.N)/b.Elapsed().Seconds(), "changes/s")
			b.ReportMetric(float64((spentCPU(b)-before).Nanoseconds())/float64(n*b.N), "cpu-ns/change")
		})
	}
}

// seldom is eventually for what costs something to ask.
func seldom(b *testing.B, what string, done func() bool) {
	b.Helper()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for range 1200 {
		if done() {
			return
		}
		<-tick.C
	}
	b.Fatalf("not in time: %s", what)
}

// spentCPU is the CPU time of this process.
func spentCPU(b *testing.B) time.Duration {
	b.Helper()
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
