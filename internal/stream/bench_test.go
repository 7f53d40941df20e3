package stream

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"lockstep"
)

// fillBatch writes about size bytes of 200-byte changes into w.
func fillBatch(w *lockstep.BatchWriter, row string, size int) {
	w.Reset(make([]byte, 0, size+4096))
	w.Begin(lockstep.Tx{CommitLSN: 100, CommitTime: 1_790_000_000_000_000})
	for w.Len() < size {
		w.Close(append(w.Open(), row...), lockstep.RecordHead{Action: lockstep.Insert, Table: w.Table(orders), RecordLen: len(row)})
	}
}

// BenchmarkAppend shows the throughput of pipelined appends, each batch fsynced.
func BenchmarkAppend(b *testing.B) {
	row := `{"v":"` + string(make([]byte, 150)) + `"}`
	for _, size := range []int{256 << 10, 2 << 10} {
		b.Run(fmt.Sprintf("%dKB", size>>10), func(b *testing.B) {
			l := openLog(b, openServer(b, Config{}))
			b.SetBytes(int64(size))
			var w lockstep.BatchWriter
			for b.Loop() {
				fillBatch(&w, row, size)
				if err := l.Append(b.Context(), &w, lockstep.Mark{}, func(error) {}); err != nil {
					b.Fatal(err)
				}
			}
			if err := l.writer.settle(b.Context()); err != nil {
				b.Fatal(err)
			}
		})
	}
}

// BenchmarkAppendLatency shows how long one small batch takes until it is on disk,
// at 1,000 batches a second.
func BenchmarkAppendLatency(b *testing.B) {
	l := openLog(b, openServer(b, Config{}))
	row := `{"v":"` + string(make([]byte, 150)) + `"}`
	took := make([]time.Duration, 0, 1<<16)
	pace := time.NewTicker(time.Millisecond)
	defer pace.Stop()
	for b.Loop() {
		<-pace.C
		var w lockstep.BatchWriter
		fillBatch(&w, row, 512)
		started := time.Now()
		if err := l.Append(b.Context(), &w, lockstep.Mark{}, func(error) { took = append(took, time.Since(started)) }); err != nil {
			b.Fatal(err)
		}
	}
	if err := l.writer.settle(b.Context()); err != nil {
		b.Fatal(err)
	}
	slices.Sort(took)
	b.ReportMetric(float64(took[len(took)/2].Microseconds()), "µs-p50")
	b.ReportMetric(float64(took[len(took)*99/100].Microseconds()), "µs-p99")
}

// BenchmarkReader shows how fast a reader that is behind catches up.
func BenchmarkReader(b *testing.B) {
	row := `{"v":"` + string(make([]byte, 150)) + `"}`
	for _, size := range []int{256 << 10, 2 << 10} {
		b.Run(fmt.Sprintf("%dKB", size>>10), func(b *testing.B) {
			l := openLog(b, openServer(b, Config{}))
			const batches = 1000
			var w lockstep.BatchWriter
			for range batches {
				fillBatch(&w, row, size)
				if err := l.Append(b.Context(), &w, lockstep.Mark{}, func(error) {}); err != nil {
					b.Fatal(err)
				}
			}
			if err := l.writer.settle(b.Context()); err != nil {
				b.Fatal(err)
			}
			l.srv.cache.drop(l)
			b.SetBytes(int64(size))
			r := l.Reader(1)
			defer func() { r.Close() }()
			for n := 0; b.Loop(); n++ {
				if n%batches == 0 {
					r.Seek(1)
				}
				if _, err := r.Next(b.Context()); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// BenchmarkSave shows how many states a second reach the disk.
func BenchmarkSave(b *testing.B) {
	states := openStates(b, openServer(b, Config{}))
	value := make([]byte, 1000)
	b.RunParallel(func(pb *testing.PB) {
		var revision uint64
		id := fmt.Sprint(time.Now().UnixNano())
		for pb.Next() {
			var err error
			if revision, err = states.Save(b.Context(), id, value, revision); err != nil {
				b.Error(err)
				return
			}
		}
	})
}
