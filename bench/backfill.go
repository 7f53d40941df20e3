package bench

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strconv"
	"time"

	"lockstep/client"
)

// Backfill measures how fast the rows of a table reach the worker of a consumer as
// changes of action read, beside COPY … TO STDOUT of the same table.
func Backfill(ctx context.Context, o Options) (Report, error) {
	return o.run(ctx, plan{
		name:  "backfill",
		about: "a backfill of a table through the stream to a consumer that drains, beside COPY … TO STDOUT of the table",
		conditions: func(o Options) []string {
			return []string{
				fmt.Sprintf("%d rows of about 200 B, in the cache of Postgres or the system; nobody else writes; %d rounds of A B A'", o.Backlog, o.Rounds),
				"A: COPY to nowhere by one connection over the Unix socket; B: from the request of the backfill to the last ack, 4 workers over HTTP, batches of 500, acks and stream with fsync",
				"ratio: rows/s of B by those of A and A'; floor: A by A'; every id is counted at the worker, once",
			}
		},
		measure: func(ctx context.Context, o Options) ([]Figure, error) { return o.inLab(ctx, backfillAll) },
	})
}

func backfillAll(ctx context.Context, l *lab) (figures []Figure, err error) {
	n, err := l.node(ctx)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, n.stop()) }()
	if err := n.tables(ctx, 1); err != nil {
		return nil, err
	}
	n.say("backfill: filling the table")
	if err := errors.Join(n.insert(ctx, 1, 1, n.Backlog), n.captured(ctx, uint64(n.Backlog))); err != nil {
		return nil, err
	}
	if _, err := n.db.Exec(ctx, `VACUUM ANALYZE bench_0`); err != nil {
		return nil, err
	}
	if _, err := n.copyOut(ctx); err != nil { // warms the caches
		return nil, err
	}
	var copied, ours, written, ratio, floor, cpu []float64
	rows := float64(n.Backlog)
	for round := range n.Rounds {
		n.say("backfill: round %d", round+1)
		a, err := n.copyOut(ctx)
		if err != nil {
			return nil, err
		}
		b, err := n.backfill(ctx, fmt.Sprintf("backfill-%d", round))
		if err != nil {
			return nil, err
		}
		a2, err := n.copyOut(ctx)
		if err != nil {
			return nil, err
		}
		copied = append(copied, rows/a.Seconds(), rows/a2.Seconds())
		ours, written = append(ours, rows/b.acked.Seconds()), append(written, rows/b.completed.Seconds())
		ratio = append(ratio, (a.Seconds()+a2.Seconds())/2/b.acked.Seconds())
		floor = append(floor, a2.Seconds()/a.Seconds())
		cpu = append(cpu, float64(b.cpu.Microseconds())/rows)
	}
	const of = "backfill of one table, one consumer with 4 workers"
	return []Figure{
		figure(of, "COPY … TO STDOUT", "rows/s", copied), figure(of, "to the last ack", "rows/s", ours), figure(of, "to its state completed", "rows/s", written),
		figure(of, "to the last ack, by COPY", "", ratio).beside(floor), figure(of, "node, CPU", "µs/row", cpu),
	}, nil
}

func (n *node) copyOut(ctx context.Context) (time.Duration, error) {
	conn, err := n.db.Acquire(ctx)
	if err != nil {
		return 0, err
	}
	defer conn.Release()
	start := time.Now()
	tag, err := conn.Conn().PgConn().CopyTo(ctx, io.Discard, `COPY bench_0 TO STDOUT`)
	if err == nil && tag.RowsAffected() != int64(n.Backlog) {
		err = fmt.Errorf("COPY gave %d rows, expected %d", tag.RowsAffected(), n.Backlog)
	}
	return time.Since(start), err
}

// backfilled is what one backfill took.
type backfilled struct {
	acked, completed, cpu time.Duration
}

func (n *node) backfill(ctx context.Context, name string) (b backfilled, err error) {
	if err := n.consumer(ctx, name, "now", "public.bench_0"); err != nil {
		return b, err
	}
	last, err := n.last(ctx)
	if err != nil {
		return b, err
	}
	used, err := n.cpu()
	if err != nil {
		return b, err
	}
	start := time.Now()
	job, err := n.api.StartBackfill(ctx, name, client.BackfillRequest{Tables: []string{"public.bench_0"}})
	if err != nil {
		return b, fmt.Errorf("start the backfill: %w", err)
	}
	c := crew{consumer: name, workers: 4, batch: 500, tally: newTally(last, n.Backlog)}
	c.tally.judge = eachIDOnce()
	done := make(chan error, 1)
	watching, cancel := context.WithCancel(ctx)
	defer cancel()
	go func() {
		err := n.completed(watching, job.ID)
		b.completed = time.Since(start)
		if err != nil {
			cancel() // there is nothing to wait for
		}
		done <- err
	}()
	took, err := n.work(watching, c)
	if err != nil {
		cancel()
	}
	if err := errors.Join(<-done, err); err != nil {
		return b, err
	}
	now, err := n.cpu()
	b.acked, b.cpu = took, now-used
	return b, errors.Join(err, n.api.DeleteConsumer(ctx, name))
}

// eachIDOnce refuses what is not the reading of a row, and a row that was read before.
// Calls must not overlap.
func eachIDOnce() func(*client.Delivery) error {
	var ids bitmap
	return func(d *client.Delivery) error {
		if d.Action != "read" {
			return fmt.Errorf("change %d has the action %s, expected read", d.Metadata.Seq, d.Action)
		}
		if len(d.Metadata.RecordPKs) != 1 {
			return fmt.Errorf("change %d has no key of one column", d.Metadata.Seq)
		}
		id, err := strconv.ParseUint(d.Metadata.RecordPKs[0], 10, 64)
		if err != nil {
			return fmt.Errorf("change %d: %w", d.Metadata.Seq, err)
		}
		if ids.add(id) {
			return fmt.Errorf("the row %d was read twice", id)
		}
		return nil
	}
}

// completed waits until the backfill with that id is.
func (n *node) completed(ctx context.Context, id string) error {
	return n.until(ctx, time.Hour, "the backfill was not completed", func() (bool, error) {
		job, err := n.api.Backfill(ctx, id)
		if err != nil {
			return false, err
		}
		if job.Ended() && job.State != client.BackfillCompleted {
			return false, fmt.Errorf("the backfill is %s: %s", job.State, job.Reason)
		}
		return job.Ended(), nil
	})
}
