package bench

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"golang.org/x/sync/errgroup"

	"lockstep/client"
	"lockstep/engine"
	"lockstep/internal/config"
	"lockstep/internal/pgdb"
)

// Deliver measures pulling over HTTP: from a filled stream, while capture is live,
// and the time from commit to worker.
func Deliver(ctx context.Context, o Options) error {
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
	cfg := config.Default()
	cfg.DataDir, cfg.Listen, cfg.PGBin = filepath.Join(dir, "data"), "127.0.0.1:0", o.PGBin
	ready := make(chan engine.Node, 1)
	node := engine.New(cfg, engine.Options{Logger: slog.New(slog.DiscardHandler), Ready: func(n engine.Node) { ready <- n }})
	running, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	var group errgroup.Group
	group.Go(func() error { defer stop(nil); return node.Run(running) })
	group.Go(func() error {
		defer stop(nil)
		select {
		case n := <-ready:
			return deliverAll(ctx, o, n, cfg)
		case <-running.Done():
			return nil
		}
	})
	return group.Wait()
}

// pull is a node with a table of changes, and a client.
type pull struct {
	Options
	api *client.Client
	db  *pgxpool.Pool
}

func deliverAll(ctx context.Context, o Options, n engine.Node, cfg *config.Config) error {
	db, err := pgdb.Open(ctx, n.Databases[cfg.Database], "lockstep bench")
	if err != nil {
		return err
	}
	defer db.Close()
	api, err := client.New(client.Config{Server: n.Server})
	if err != nil {
		return err
	}
	defer api.Close()
	p := pull{Options: o, api: api, db: db}
	if err := p.prepare(ctx); err != nil {
		return err
	}
	fmt.Fprintf(o.Out, "deliver: next and ack over HTTP on loopback, client, server and Postgres on this machine, acks fsynced; %d changes of about 200 B\n\n", o.Rows)
	fmt.Fprintf(o.Out, "%-58s %12s\n", "", "changes/s")
	if err := p.filled(ctx); err != nil {
		return err
	}
	if err := p.live(ctx); err != nil {
		return err
	}
	return p.latency(ctx)
}

func (p pull) prepare(ctx context.Context) error {
	if err := p.until(ctx, func() (bool, error) { return p.api.Ready(ctx) == nil, nil }); err != nil {
		return err
	}
	if _, err := p.db.Exec(ctx, benchTable); err != nil {
		return err
	}
	const published = `SELECT count(*) = 1 FROM pg_publication_tables WHERE tablename = 'bench'`
	return p.until(ctx, func() (bool, error) {
		var ok bool
		err := p.db.QueryRow(ctx, published).Scan(&ok)
		return ok, err
	})
}

func (p pull) until(ctx context.Context, done func() (bool, error)) error {
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		if ok, err := done(); ok || err != nil {
			return err
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// insert commits rows first to last, 100 per transaction.
func (p pull) insert(ctx context.Context, first, last int) error {
	const rows = `INSERT INTO bench SELECT i, mod(i, 100), 'user' || i || '@example.com', mod(i, 100000) / 100.0,
		jsonb_build_object('n', i, 'pad', repeat('x', 60)), 'note ' || i, now() FROM generate_series($1::bigint, $2::bigint) i`
	for ; first <= last; first += 100 {
		if _, err := p.db.Exec(ctx, rows, first, min(first+99, last)); err != nil {
			return err
		}
	}
	return nil
}

// consumer makes a consumer from the beginning of the stream.
func (p pull) consumer(ctx context.Context, name, start string) error {
	_, err := p.api.CreateConsumer(ctx, client.Definition{Name: name, Tables: []string{"public.bench"}, Start: start, MaxInFlight: 20_000})
	return err
}

// drain has workers take and ack until that many changes are acked, each once.
func (p pull) drain(ctx context.Context, name string, workers, batch, changes int) (time.Duration, error) {
	var acked atomic.Int64
	var seen sync.Map
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var group errgroup.Group
	start := time.Now()
	for range workers {
		group.Go(func() error {
			for acked.Load() < int64(changes) && ctx.Err() == nil {
				got, err := p.api.Next(ctx, name, batch, 500*time.Millisecond)
				if err != nil {
					return ignoreDone(ctx, err)
				}
				tokens := make([]string, len(got.Deliveries))
				for i, d := range got.Deliveries {
					tokens[i] = d.Token
					if _, twice := seen.LoadOrStore(d.Metadata.Seq, true); twice {
						return fmt.Errorf("change %d came twice", d.Metadata.Seq)
					}
				}
				if len(tokens) == 0 {
					continue
				}
				if err := p.api.Ack(ctx, name, tokens...); err != nil {
					return ignoreDone(ctx, err)
				}
				if acked.Add(int64(len(tokens))) >= int64(changes) {
					cancel()
				}
			}
			return nil
		})
	}
	err := group.Wait()
	return time.Since(start), err
}

func ignoreDone(ctx context.Context, err error) error {
	if errors.Is(err, context.Canceled) && ctx.Err() != nil {
		return nil
	}
	return err
}

func (p pull) filled(ctx context.Context) error {
	if err := p.insert(ctx, 1, p.Rows); err != nil {
		return err
	}
	for _, c := range []struct {
		workers, batch, changes int
	}{{4, 500, p.Rows}, {4, 100, p.Rows}, {4, 1, min(p.Rows, 20_000)}, {16, 1, min(p.Rows, 20_000)}} {
		var rates []float64
		for round := range max(p.Rounds/2, 1) {
			name := fmt.Sprintf("filled-%d-%d-%d", c.workers, c.batch, round)
			if err := p.consumer(ctx, name, "beginning"); err != nil {
				return err
			}
			took, err := p.drain(ctx, name, c.workers, c.batch, c.changes)
			if err != nil {
				return err
			}
			rates = append(rates, float64(c.changes)/took.Seconds())
			if err := p.api.DeleteConsumer(ctx, name); err != nil {
				return err
			}
		}
		fmt.Fprintf(p.Out, "%-58s %12.0f\n", fmt.Sprintf("from a filled stream, %d workers, batches of %d", c.workers, c.batch), median(rates))
	}
	return nil
}

func (p pull) live(ctx context.Context) error {
	if err := p.consumer(ctx, "live", "now"); err != nil {
		return err
	}
	var group errgroup.Group
	var inserted time.Duration
	group.Go(func() error {
		start := time.Now()
		err := p.insert(ctx, p.Rows+1, 2*p.Rows)
		inserted = time.Since(start)
		return err
	})
	took, err := p.drain(ctx, "live", 4, 500, p.Rows)
	if err := errors.Join(err, group.Wait()); err != nil {
		return err
	}
	fmt.Fprintf(p.Out, "%-58s %12.0f   (one writer committed %.0f rows/s)\n", "while one writer inserts, 4 workers, batches of 500",
		float64(p.Rows)/took.Seconds(), float64(p.Rows)/inserted.Seconds())
	return nil
}

// latency commits at a fixed rate and measures from Postgres' commit time to the
// worker. The schedule does not wait for anything, so that a stall is counted.
func (p pull) latency(ctx context.Context) error {
	for _, rate := range []int{100, 1000} {
		name := fmt.Sprintf("latency-%d", rate)
		if err := p.consumer(ctx, name, "now"); err != nil {
			return err
		}
		took, missed, err := p.measure(ctx, name, rate)
		if err != nil {
			return err
		}
		slices.Sort(took)
		at := func(q float64) time.Duration {
			return took[min(int(q*float64(len(took))), len(took)-1)].Round(10 * time.Microsecond)
		}
		fmt.Fprintf(p.Out, "%-58s p50 %s  p95 %s  p99 %s  max %s%s\n", fmt.Sprintf("commit to worker at %d transactions/s", rate), at(.5), at(.95), at(.99), at(1), missed)
	}
	return nil
}

const latencyFor = 10 * time.Second

func (p pull) measure(ctx context.Context, name string, rate int) ([]time.Duration, string, error) {
	want := rate * int(latencyFor.Seconds())
	base := int(time.Now().UnixNano() / 1000)
	var took []time.Duration
	var group errgroup.Group
	group.Go(func() error {
		for len(took) < want {
			got, err := p.api.Next(ctx, name, 500, 5*time.Second)
			if err != nil || len(got.Deliveries) == 0 {
				return err
			}
			now := time.Now()
			tokens := make([]string, len(got.Deliveries))
			for i, d := range got.Deliveries {
				tokens[i] = d.Token
				took = append(took, now.Sub(d.Metadata.CommitTime()))
			}
			if err := p.api.Ack(ctx, name, tokens...); err != nil {
				return err
			}
		}
		return nil
	})
	err := p.writeAt(ctx, rate, want, base)
	err = errors.Join(err, group.Wait())
	missed := ""
	if len(took) != want {
		missed = fmt.Sprintf("  (%d of %d arrived)", len(took), want)
	}
	if len(took) == 0 {
		err = errors.Join(err, errors.New("no change arrived"))
	}
	return took, missed, err
}

// writeAt commits one row per transaction at the rate, over four connections.
func (p pull) writeAt(ctx context.Context, rate, count, base int) error {
	var group errgroup.Group
	start := time.Now()
	const writers = 4
	for w := range writers {
		group.Go(func() error {
			conn, err := p.db.Acquire(ctx)
			if err != nil {
				return err
			}
			defer conn.Release()
			timer := time.NewTimer(0)
			defer timer.Stop()
			for i := w; i < count; i += writers {
				timer.Reset(time.Until(start.Add(time.Duration(i) * time.Second / time.Duration(rate))))
				<-timer.C
				_, err := conn.Exec(ctx, `INSERT INTO bench VALUES ($1, 1, 'a@example.com', 1.50, '{"a":1}', 'note', now())`, pgx.QueryExecModeCacheStatement, base+i)
				if err != nil {
					return err
				}
			}
			return nil
		})
	}
	return group.Wait()
}
