package pump_test

import (
	"context"
	"fmt"
	"testing"

	"lockstep/internal/deliver"
	"lockstep/internal/pump"
	"lockstep/sink"
)

type nowhere struct{}

func (nowhere) Write(_ context.Context, m []sink.Message) (int, error) { return len(m), nil }
func (nowhere) Close(context.Context) error                            { return nil }

// BenchmarkPump sends a filled log to a destination that costs nothing: what is left is
// the pump, delivery and the acks on disk.
func BenchmarkPump(b *testing.B) {
	const n = 50_000
	for _, size := range []int{1, 100} {
		b.Run(fmt.Sprintf("batch=%d", size), func(b *testing.B) {
			r := newRig(b)
			r.fill(n, 5000)
			for b.Loop() {
				c := r.consumer(func(d *deliver.Definition) { d.Batch.Size, d.MaxInFlight = size, 10_000 })
				_, stop := pumping(b, c, nowhere{}, func(c *pump.Config) { c.Concurrency = 16 })
				eventually(b, "all are settled", settled(c, n))
				stop()
			}
			b.ReportMetric(float64(n*b.N)/b.Elapsed().Seconds(), "changes/s")
		})
	}
}
