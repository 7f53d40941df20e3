package bench

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"lockstep"
	"lockstep/internal/capture/wal"
	"lockstep/internal/pgdb"
	"lockstep/internal/pgdb/cluster"
	"lockstep/internal/stream"
)

// workload is one shape of changes. setup makes the table, write commits rows of it.
type workload struct {
	name  string
	setup string
	write string // runs once per transaction, by Postgres' format(); %1$s first id, %2$s last id
	perTx int
	share int // rows are divided by it, to keep single-row transactions affordable
}

const benchTable = `CREATE TABLE bench (id bigint PRIMARY KEY, tenant int, email text, amount numeric(12,2), payload jsonb, note text, created_at timestamptz)`

func workloads() []workload {
	insert := func(payload int) string {
		return fmt.Sprintf(`INSERT INTO bench SELECT i, mod(i, 100), 'user' || i || '@example.com', mod(i, 100000) / 100.0,
			jsonb_build_object('n', i, 'pad', repeat('x', %d)), 'note ' || i, '2026-01-01T00:00:00Z' FROM generate_series(%%1$s::bigint, %%2$s::bigint) i`, payload)
	}
	return []workload{
		{name: "inserts of 200 B, 100 per transaction", setup: benchTable, write: insert(60), perTx: 100, share: 1},
		{name: "inserts of 200 B, 1 per transaction", setup: benchTable, write: insert(60), perTx: 1, share: 4},
		{name: "updates, full identity, 100 per transaction", setup: benchTable + `; ALTER TABLE bench REPLICA IDENTITY FULL; INSERT INTO bench SELECT i, i % 100, 'user' || i || '@example.com', 1,
			jsonb_build_object('n', i, 'pad', repeat('x', 60)), 'note ' || i, '2026-01-01T00:00:00Z' FROM generate_series(1, 100000) i`,
			write: `UPDATE bench SET amount = amount + 1, note = 'changed %1$s' WHERE id BETWEEN 1 + mod(%1$s, 99900) AND 100 + mod(%1$s, 99900)`, perTx: 100, share: 2},
		{name: "inserts of 1 KB, 100 per transaction", setup: benchTable, write: insert(880), perTx: 100, share: 2},
	}
}

// Capture measures how fast the backlog of a slot reaches the fsynced stream, as a
// ratio to pg_recvlogical draining a twin of the same slot to /dev/null.
func Capture(ctx context.Context, o Options) error {
	if err := o.defaults(); err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "lockstep-bench-")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(dir) }()
	if err := os.Chmod(dir, 0o755); err != nil {
		return err
	}
	pg, err := cluster.Start(ctx, cluster.Config{Dir: filepath.Join(dir, "postgres"), Bin: o.PGBin, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		return err
	}
	defer func() { _ = pg.Stop(context.WithoutCancel(ctx)) }()
	fmt.Fprintf(o.Out, "capture: backlog of one slot into the fsynced stream, as a ratio to pg_recvlogical (pgoutput, /dev/null, unix socket)\n")
	fmt.Fprintf(o.Out, "%d rows, %d rounds interleaved A A' B; rows/s are medians; A/A' is the noise floor\n\n", o.Rows, o.Rounds)
	fmt.Fprintf(o.Out, "%-46s %12s %12s %8s %8s %14s\n", "workload", "recvlogical", "lockstep", "ratio", "A/A'", "CPU µs/change")
	for i, w := range workloads() {
		if err := captureWorkload(ctx, o, pg, filepath.Join(dir, "stream"), w, fmt.Sprintf("bench%d", i)); err != nil {
			return fmt.Errorf("%s: %w", w.name, err)
		}
	}
	return nil
}

func captureWorkload(ctx context.Context, o Options, pg *cluster.Cluster, dir string, w workload, database string) error {
	if err := pg.CreateDatabase(ctx, database); err != nil {
		return err
	}
	db, err := pgdb.Open(ctx, pg.URL(database), "lockstep bench")
	if err != nil {
		return err
	}
	defer db.Close()
	rows := o.Rows / w.share
	end, err := writeBacklog(ctx, db, w, rows)
	if err != nil {
		return err
	}
	var peer, peer2, ours, floor, ratio, cpu []float64
	for round := range o.Rounds {
		a, err := drainPeer(ctx, db, pg.URL(database), o.PGBin, end, round*2)
		if err != nil {
			return err
		}
		b, c, err := drainOurs(ctx, db, pg.URL(database), dir, rows, round)
		if err != nil {
			return err
		}
		a2, err := drainPeer(ctx, db, pg.URL(database), o.PGBin, end, round*2+1)
		if err != nil {
			return err
		}
		n := float64(rows)
		peer, peer2, ours = append(peer, n/a.Seconds()), append(peer2, n/a2.Seconds()), append(ours, n/b.Seconds())
		floor = append(floor, a.Seconds()/a2.Seconds())
		ratio = append(ratio, (a.Seconds()+a2.Seconds())/2/b.Seconds())
		cpu = append(cpu, float64(c.Microseconds())/n)
	}
	fmt.Fprintf(o.Out, "%-46s %12.0f %12.0f %8.2f %8.2f %14.2f\n", w.name, median(append(peer, peer2...)), median(ours), median(ratio), median(floor), median(cpu))
	_, err = db.Exec(ctx, `SELECT pg_drop_replication_slot('base')`)
	return err
}

// writeBacklog makes table, publication and slot, then commits the rows. It
// returns the WAL position behind them.
func writeBacklog(ctx context.Context, db *pgxpool.Pool, w workload, rows int) (lockstep.LSN, error) {
	for _, sql := range []string{w.setup, `CREATE PUBLICATION bench FOR TABLE bench WITH (publish_via_partition_root = true)`,
		`CREATE PUBLICATION bench_inserts WITH (publish = 'insert, truncate', publish_via_partition_root = true)`,
		`SELECT pg_create_logical_replication_slot('base', 'pgoutput')`} {
		if _, err := db.Exec(ctx, sql); err != nil {
			return 0, err
		}
	}
	conn, err := db.Acquire(ctx)
	if err != nil {
		return 0, err
	}
	defer conn.Release()
	loop := fmt.Sprintf(`, t * %d + 1, t * %d + %d); COMMIT; END LOOP; END $$`, w.perTx, w.perTx, w.perTx)
	body := fmt.Sprintf(`DO $$ BEGIN FOR t IN 0..%d LOOP EXECUTE format($q$`, rows/w.perTx-1) + w.write + `$q$` + loop
	for _, sql := range []string{`SET synchronous_commit = off`, body, `CHECKPOINT`} {
		if _, err := conn.Exec(ctx, sql); err != nil {
			return 0, fmt.Errorf("write the backlog: %w", err)
		}
	}
	var text string
	if err := db.QueryRow(ctx, `SELECT pg_current_wal_insert_lsn()::text`).Scan(&text); err != nil {
		return 0, err
	}
	return lockstep.ParseLSN(text)
}

func drainPeer(ctx context.Context, db *pgxpool.Pool, url, binDir string, end lockstep.LSN, n int) (time.Duration, error) {
	slot := fmt.Sprintf("peer%d", n)
	if _, err := db.Exec(ctx, `SELECT pg_copy_logical_replication_slot('base', $1)`, slot); err != nil {
		return 0, fmt.Errorf("copy the slot: %w", err)
	}
	cmd := exec.CommandContext(ctx, filepath.Join(binDir, "pg_recvlogical"), "--dbname="+url, "--slot="+slot, "--start", "--no-loop", "--file=/dev/null",
		"--endpos="+end.String(), "--fsync-interval=0", "--option=proto_version=1", "--option=publication_names=bench,bench_inserts", "--option=messages=true")
	start := time.Now()
	if out, err := cmd.CombinedOutput(); err != nil {
		return 0, fmt.Errorf("pg_recvlogical: %w: %s", err, out)
	}
	took := time.Since(start)
	_, err := db.Exec(ctx, `SELECT pg_drop_replication_slot($1)`, slot)
	return took, err
}

func drainOurs(ctx context.Context, db *pgxpool.Pool, url, dir string, rows, n int) (took, cpu time.Duration, err error) {
	slot := fmt.Sprintf("ours%d", n)
	if _, err := db.Exec(ctx, `SELECT pg_copy_logical_replication_slot('base', $1)`, slot); err != nil {
		return 0, 0, fmt.Errorf("copy the slot: %w", err)
	}
	defer func() { _ = os.RemoveAll(dir) }()
	quiet := slog.New(slog.DiscardHandler)
	server, err := stream.Open(ctx, stream.Config{Dir: dir, Logger: quiet})
	if err != nil {
		return 0, 0, err
	}
	defer func() { _ = server.Close() }() //nolint:contextcheck // closing must not depend on the context that ended
	log, err := server.Log(ctx, "bench")
	if err != nil {
		return 0, 0, err
	}
	run, cancel := context.WithCancel(ctx)
	defer cancel()
	capture, err := wal.New(wal.Config{Database: "bench", URL: url, Slot: slot, Publication: "bench", Log: log, Logger: quiet})
	if err != nil {
		return 0, 0, err
	}
	done := make(chan error, 1)
	before, start := cpuTime(), time.Now()
	go func() { done <- capture.Run(run) }()
	if err := countChanges(run, log, rows); err != nil {
		return 0, 0, err
	}
	took, cpu = time.Since(start), cpuTime()-before
	cancel()
	if err := <-done; err != nil {
		return 0, 0, err
	}
	_, err = db.Exec(ctx, `SELECT pg_drop_replication_slot($1)`, slot)
	return took, cpu, err
}

// countChanges reads the stream as a consumer at its tail does, until it has seen
// that many changes, each seq once and in order.
func countChanges(ctx context.Context, log *stream.Log, rows int) error {
	reader := log.Reader(1)
	defer reader.Close()
	for next := uint64(1); next <= uint64(rows); {
		batch, err := reader.Next(ctx)
		if err != nil {
			return err
		}
		if batch.First != next {
			return fmt.Errorf("expected seq %d, got a batch from %d on", next, batch.First)
		}
		next = batch.Mark.Seq + 1
	}
	return nil
}

func cpuTime() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
