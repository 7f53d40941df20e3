package backfill

import (
	"fmt"
	"os"
	"strconv"
	"testing"
	"time"

	"lockstep/internal/pgdb/pgtest"
)

// BenchmarkRows is how fast the rows of a table reach the log, with an fsync for
// every page and nobody who takes them. LOCKSTEP_BENCH_ROWS says how many there are.
func BenchmarkRows(b *testing.B) {
	rows := 200_000
	if n, err := strconv.Atoi(os.Getenv("LOCKSTEP_BENCH_ROWS")); err == nil {
		rows = n
	}
	c := pgtest.Cluster(b, map[string]string{"fsync": "on", "full_page_writes": "on", "shared_buffers": "256MB"})
	if err := c.CreateDatabase(b.Context(), "app"); err != nil {
		b.Fatal(err)
	}
	w := newWorldAt(b, c.URL("app"), "CREATE TABLE a (id bigint PRIMARY KEY, customer int, status text, amount numeric, note text, at timestamptz)",
		fmt.Sprintf("INSERT INTO a SELECT i, i %% 1000, 'paid', i * 0.01, repeat('n', 120), '2026-01-01'::timestamptz + i * interval '1 s' FROM generate_series(1, %d) i", rows),
		"VACUUM ANALYZE a").capturing("a")
	r, stop := w.running()
	defer stop()
	b.ResetTimer()
	began := time.Now()
	for range b.N {
		awaits(b, r, start(b, r, Request{Tables: []string{"public.a"}}).ID, Completed)
	}
	b.ReportMetric(float64(rows*b.N)/time.Since(began).Seconds(), "rows/s")
}
