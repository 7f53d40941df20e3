package wal

import (
	"context"
	"testing"

	"lockstep"
)

// sinkLog forgets what it is given, as cheaply as can be.
type sinkLog struct{ bytes int }

func (l *sinkLog) Append(_ context.Context, w *lockstep.BatchWriter, _ lockstep.Mark, done func(error)) error {
	l.bytes += w.Len()
	done(nil)
	return nil
}

func (l *sinkLog) Recover(context.Context) (lockstep.Mark, error) { return lockstep.Mark{}, nil }

func benchmarkStream(b *testing.B, statements ...string) {
	stream := record(b, []string{
		"CREATE TABLE a (id bigint PRIMARY KEY, account int, amount numeric, at timestamptz, note text)",
		"CREATE TABLE f (id bigint PRIMARY KEY, account int, amount numeric, at timestamptz, note text)", "ALTER TABLE f REPLICA IDENTITY FULL",
	}, []string{"a", "f"}, statements)
	log := &sinkLog{}
	out := newBatch(log, newFlight(0, &counters{}, func(error) {}), lockstep.Mark{}, defaultBatchBytes)
	d := newDecoder(out, &source{}, lockstep.Mark{})
	rows, size := 0, 0
	for _, f := range stream {
		size += len(f.data)
		if f.data[0] == 'I' || f.data[0] == 'U' {
			rows++
		}
	}
	b.SetBytes(int64(size))
	b.ReportAllocs()
	for b.Loop() {
		for _, f := range stream {
			if err := d.decode(b.Context(), f.data); err != nil {
				b.Fatal(err)
			}
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/float64(rows), "ns/row")
	b.ReportMetric(float64(log.bytes)/float64(b.N)/float64(rows), "B/row")
}

const someRows = "SELECT i, i % 100, i * 1.25, '2026-11-21 10:00:00.123456+00', repeat('n', 120) FROM generate_series(1, 10000) i"

func BenchmarkDecodeInsert(b *testing.B) { benchmarkStream(b, "INSERT INTO a "+someRows) }

func BenchmarkDecodeUpdateFull(b *testing.B) {
	benchmarkStream(b, "INSERT INTO f "+someRows, "UPDATE f SET amount = amount + 1")
}

// Guarantee 8: a row costs no allocation.
func TestRowCostsNoAllocation(t *testing.T) {
	stream := record(t, []string{"CREATE TABLE a (id int PRIMARY KEY, v text, j jsonb, at timestamptz)"}, []string{"a"},
		[]string{"INSERT INTO a SELECT i, 'v', '{\"a\":1}', now() FROM generate_series(1, 2000) i", "UPDATE a SET v = 'w'", "UPDATE a SET id = id + 10000"})
	out := newBatch(&sinkLog{}, newFlight(0, &counters{}, func(error) {}), lockstep.Mark{}, 1<<30)
	d := newDecoder(out, &source{}, lockstep.Mark{})
	once := func() {
		for _, f := range stream {
			if err := d.decode(t.Context(), f.data); err != nil {
				t.Fatal(err)
			}
		}
		out.reset()
	}
	once()
	if n := testing.AllocsPerRun(5, once); n > 20 {
		t.Errorf("%.0f allocations for 6,000 rows", n)
	}
}
