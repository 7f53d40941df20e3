package bench

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"golang.org/x/sync/errgroup"

	"lockstep/client"
	"lockstep/internal/pgdb"
)

// destination is what a sink writes to, and the library alone that writes the same.
type destination interface {
	// empty makes the destination anew, and returns the settings of a consumer.
	empty(ctx context.Context) (settings map[string]any, err error)
	// bare writes all changes with the library alone into an empty destination.
	bare(ctx context.Context) error
	// count returns how many changes it has.
	count(ctx context.Context) (int, error)
}

// sinks measures each kind of sink that has a library to be compared with.
func (s *sender) sinks(ctx context.Context) (figures []Figure, err error) {
	rows := &rowsInto{lab: s.lab}
	defer rows.close()
	streams, err := newNATSBroker(s.lab)
	if err != nil {
		return nil, err
	}
	defer streams.close()
	topics, err := newKafkaBroker(s.lab)
	if err != nil {
		return nil, err
	}
	defer topics.close()
	for _, k := range []struct {
		kind, peer string
		to         destination
	}{{"postgres", "pgx", rows}, {"nats", "nats.go", streams}, {"kafka", "franz-go", topics}} {
		more, err := s.sink(ctx, k.kind, k.peer, k.to)
		if err != nil {
			return nil, fmt.Errorf("sink %s: %w", k.kind, err)
		}
		figures = append(figures, more...)
	}
	return figures, nil
}

func (s *sender) sink(ctx context.Context, kind, peer string, to destination) ([]Figure, error) {
	s.say("send: %s, a run that warms up and is not counted", kind)
	if _, _, err := s.sunk(ctx, kind, kind+"-warm", to); err != nil {
		return nil, err
	}
	alone := func() (float64, error) {
		if _, err := to.empty(ctx); err != nil {
			return 0, err
		}
		start := time.Now()
		err := to.bare(ctx)
		took := time.Since(start).Seconds()
		return took, errors.Join(err, s.complete(ctx, to))
	}
	var bare, ours, ratio, floor, cpu []float64
	for round := range s.Rounds {
		s.say("send: %s, round %d", kind, round+1)
		a, err := alone()
		if err != nil {
			return nil, err
		}
		b, used, err := s.sunk(ctx, kind, fmt.Sprintf("%s-%d", kind, round), to)
		if err != nil {
			return nil, err
		}
		a2, err := alone()
		if err != nil {
			return nil, err
		}
		n := float64(s.Rows)
		bare, ours, cpu = append(bare, n/a, n/a2), append(ours, n/b), append(cpu, float64(used.Microseconds())/n)
		ratio, floor = append(ratio, (a+a2)/2/b), append(floor, a2/a)
	}
	of := "sink " + kind
	return []Figure{
		figure(of, peer, "changes/s", bare), figure(of, "lockstep", "changes/s", ours),
		figure(of, "lockstep by "+peer, "", ratio).beside(floor).atLeast(.8, "at least 0.80"),
		figure(of, "node, CPU", "µs/change", cpu),
	}, nil
}

// sunk has a new consumer write everything, and returns the seconds until all of it is
// there and acked.
func (s *sender) sunk(ctx context.Context, kind, name string, to destination) (took float64, cpu time.Duration, err error) {
	settings, err := to.empty(ctx)
	if err != nil {
		return 0, 0, err
	}
	raw, err := json.Marshal(client.Definition{Name: name, Kind: kind, Tables: []string{"public.bench_0"}, Start: "beginning", MaxInFlight: 20_000})
	if err != nil {
		return 0, 0, err
	}
	definition := map[string]any{}
	if err := json.Unmarshal(raw, &definition); err != nil {
		return 0, 0, err
	}
	definition[kind] = settings
	before, err := s.cpu()
	if err != nil {
		return 0, 0, err
	}
	start := time.Now()
	if _, err := s.api.CreateConsumer(ctx, definition); err != nil {
		return 0, 0, fmt.Errorf("create consumer %s: %w", name, err)
	}
	err = s.until(ctx, patience, "the destination did not get everything", func() (bool, error) {
		c, err := s.api.Consumer(ctx, name)
		return err == nil && c.Stats.FloorSeq >= uint64(s.Rows), err
	})
	took = time.Since(start).Seconds()
	if err := errors.Join(err, s.complete(ctx, to)); err != nil {
		return 0, 0, err
	}
	after, err := s.cpu()
	return took, after - before, errors.Join(err, s.api.DeleteConsumer(ctx, name))
}

// complete counts at the destination.
func (s *sender) complete(ctx context.Context, to destination) error {
	count, err := to.count(ctx)
	if err == nil && count != s.Rows {
		err = fmt.Errorf("the destination has %d changes, expected %d", count, s.Rows)
	}
	return err
}

// rowsInto is a table in another database of the lab's Postgres.
type rowsInto struct {
	*lab
	made int
	db   *pgxpool.Pool // of the newest one; nil: none yet
}

// What the sink writes at a time, and over how many connections, unless it is told.
const (
	sinkRows        = 500
	sinkConnections = 4
)

func (r *rowsInto) empty(ctx context.Context) (map[string]any, error) {
	r.close()
	r.made++
	name := fmt.Sprintf("sink_%d", r.made)
	if err := r.pg.CreateDatabase(ctx, name); err != nil {
		return nil, err
	}
	url := r.pg.URL(name)
	var err error
	if r.db, err = pgdb.Open(ctx, url, "lockstep bench"); err != nil {
		return nil, err
	}
	// With the sink's column, which it would add itself.
	_, err = r.db.Exec(ctx, `CREATE TABLE bench_0 `+benchColumns+`; ALTER TABLE bench_0 ADD COLUMN _seq bigint`)
	return map[string]any{"url": url, "connections": sinkConnections}, err
}

func (r *rowsInto) close() {
	if r.db != nil {
		r.db.Close()
		r.db = nil
	}
}

func (r *rowsInto) count(ctx context.Context) (n int, err error) {
	err = r.db.QueryRow(ctx, `SELECT count(*) FROM bench_0 WHERE _seq IS NOT NULL`).Scan(&n)
	return n, err
}

func (r *rowsInto) bare(ctx context.Context) error {
	const sql = `INSERT INTO bench_0 SELECT a, b, c, d::numeric, e::jsonb, f, g::timestamptz, a
		FROM unnest($1::bigint[], $2::int[], $3::text[], $4::text[], $5::text[], $6::text[], $7::text[]) AS i(a, b, c, d, e, f, g)
		ON CONFLICT (id) DO UPDATE SET tenant = excluded.tenant, email = excluded.email, amount = excluded.amount, payload = excluded.payload,
			note = excluded.note, created_at = excluded.created_at, _seq = excluded._seq WHERE bench_0._seq < excluded._seq`
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(sinkConnections)
	for first := 1; first <= r.Rows; first += sinkRows {
		group.Go(func() error {
			_, err := r.db.Exec(ctx, sql, texts(first, min(first+sinkRows, r.Rows+1))...)
			return err
		})
	}
	return group.Wait()
}

// texts are the columns of the rows that rowsOf makes, as a program has them that knows
// its rows.
func texts(first, end int) []any {
	ids, tenants := make([]int64, 0, end-first), make([]int32, 0, end-first)
	var columns [5][]string
	for i := first; i < end; i++ {
		ids, tenants = append(ids, int64(i)), append(tenants, int32(i%100))
		for c, text := range []string{
			fmt.Sprintf("user%d@example.com", i), fmt.Sprintf("%d.%02d", i%100_000/100, i%100),
			fmt.Sprintf(`{"n": %d, "pad": %q}`, i, strings.Repeat("x", 60)), fmt.Sprintf("note %d", i), "2026-01-01T00:00:00Z",
		} {
			columns[c] = append(columns[c], text)
		}
	}
	return []any{ids, tenants, columns[0], columns[1], columns[2], columns[3], columns[4]}
}
