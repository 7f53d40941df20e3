package bench

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"lockstep"
	"lockstep/internal/capture/wal"
	"lockstep/internal/pgdb"
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
func Capture(ctx context.Context, o Options) (Report, error) {
	return o.run(ctx, plan{
		name:  "capture",
		about: "the backlog of a slot into the fsynced stream, beside pg_recvlogical draining a twin of the slot",
		conditions: func(o Options) []string {
			return []string{
				fmt.Sprintf("%d rows (a quarter for single-row transactions, half for updates and 1 KB rows), %d rounds of A B A'", o.Rows, o.Rounds),
				"A: pg_recvlogical, pgoutput with the same options, Unix socket, to /dev/null; B: lockstep, its connecting included, read back at the tail of the stream",
				"ratio: rows/s of B by those of A and A'; floor: A by A'; Postgres and stream with fsync",
			}
		},
		measure: func(ctx context.Context, o Options) ([]Figure, error) { return o.inLab(ctx, captureAll) },
	})
}

func captureAll(ctx context.Context, l *lab) (figures []Figure, err error) {
	for i, w := range workloads() {
		l.say("capture: %s", w.name)
		more, err := l.captureWorkload(ctx, w, fmt.Sprintf("bench%d", i))
		if err != nil {
			return nil, fmt.Errorf("%s: %w", w.name, err)
		}
		figures = append(figures, more...)
	}
	return figures, nil
}

func (l *lab) captureWorkload(ctx context.Context, w workload, name string) ([]Figure, error) {
	if err := l.pg.CreateDatabase(ctx, name); err != nil {
		return nil, err
	}
	db, err := pgdb.Open(ctx, l.pg.URL(name), "lockstep bench")
	if err != nil {
		return nil, err
	}
	defer db.Close()
	rows := l.Rows / w.share
	end, err := writeBacklog(ctx, db, w, rows)
	if err != nil {
		return nil, err
	}
	d := drain{lab: l, db: db, url: l.pg.URL(name), end: end, rows: rows}
	var peer, ours, floor, ratio, cpu []float64
	for range l.Rounds {
		a, err := d.peer(ctx)
		if err != nil {
			return nil, err
		}
		b, c, err := d.ours(ctx)
		if err != nil {
			return nil, err
		}
		a2, err := d.peer(ctx)
		if err != nil {
			return nil, err
		}
		n := float64(rows)
		peer, ours = append(peer, n/a.Seconds(), n/a2.Seconds()), append(ours, n/b.Seconds())
		floor = append(floor, a2.Seconds()/a.Seconds())
		ratio = append(ratio, (a.Seconds()+a2.Seconds())/2/b.Seconds())
		cpu = append(cpu, float64(c.Microseconds())/n)
	}
	figures := []Figure{
		figure(w.name, "pg_recvlogical", "rows/s", peer), figure(w.name, "lockstep", "rows/s", ours),
		figure(w.name, "lockstep by pg_recvlogical", "", ratio).beside(floor).atLeast(0.8, "at least 0.80, better 0.95"),
		figure(w.name, "lockstep, CPU", "µs/change", cpu),
	}
	_, err = db.Exec(ctx, `SELECT pg_drop_replication_slot('base')`)
	return figures, err
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

// drain is the backlog of one slot, of which twins are drained.
type drain struct {
	*lab
	db   *pgxpool.Pool
	url  string
	end  lockstep.LSN
	rows int
}

// twin copies the slot and returns what drops the copy.
func (d drain) twin(ctx context.Context, name string) (drop func() error, err error) {
	if _, err := d.db.Exec(ctx, `SELECT pg_copy_logical_replication_slot('base', $1)`, name); err != nil {
		return nil, fmt.Errorf("copy the slot: %w", err)
	}
	return func() error {
		_, err := d.db.Exec(ctx, `SELECT pg_drop_replication_slot($1)`, name)
		return err
	}, nil
}

func (d drain) peer(ctx context.Context) (time.Duration, error) {
	drop, err := d.twin(ctx, "peer")
	if err != nil {
		return 0, err
	}
	cmd := exec.CommandContext(ctx, filepath.Join(d.PGBin, "pg_recvlogical"), "--dbname="+d.url, "--slot=peer", "--start", "--no-loop", "--file=/dev/null",
		"--endpos="+d.end.String(), "--fsync-interval=0", "--option=proto_version=1", "--option=publication_names=bench,bench_inserts", "--option=messages=true")
	start := time.Now()
	if out, err := cmd.CombinedOutput(); err != nil {
		return 0, fmt.Errorf("pg_recvlogical: %w: %s", err, out)
	}
	return time.Since(start), drop()
}

func (d drain) ours(ctx context.Context) (took, cpu time.Duration, err error) {
	drop, err := d.twin(ctx, "ours")
	if err != nil {
		return 0, 0, err
	}
	dir := filepath.Join(d.dir, "stream")
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
	capture, err := wal.New(wal.Config{Database: "bench", URL: d.url, Slot: "ours", Publication: "bench", Log: log, Logger: quiet})
	if err != nil {
		return 0, 0, err
	}
	done := make(chan error, 1)
	before, start := ownCPU(), time.Now()
	go func() {
		defer cancel() // nobody waits for changes of a capture that has ended
		done <- capture.Run(run)
	}()
	err = countChanges(run, log, d.rows)
	took, cpu = time.Since(start), ownCPU()-before
	cancel()
	if err := errors.Join(err, <-done); err != nil {
		return 0, 0, err
	}
	return took, cpu, drop()
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
