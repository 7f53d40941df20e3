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
	bare(ctx context.Context, how peer) error
	// count returns how many changes it has.
	count(ctx context.Context) (int, error)
	// cpu is the CPU time of its server so far; 0: it is in this process.
	cpu(ctx context.Context) (time.Duration, error)
	close() error
}

// rival is a kind of sink, and the library that it is compared with.
type rival struct {
	part, of, peer string
	aim            float64 // 0: none
	rows           bool    // the library alone is given rows, not messages: it renders anyway
	open           func(ctx context.Context, l *lab) (destination, error)
}

func rivals() []rival {
	return []rival{
		{partPostgres, "sink postgres", "pgx", .8, true, func(_ context.Context, l *lab) (destination, error) { return &rowsInto{lab: l}, nil }},
		{partNATS, "sink nats", "nats.go", .8, false, func(_ context.Context, l *lab) (destination, error) { return newNATSBroker(l) }},
		{partKafka, "sink kafka", "franz-go", .8, false, func(_ context.Context, l *lab) (destination, error) { return newKafkaBroker(l) }},
		{partRedis, "sink redis, guard none", "go-redis", .8, false, func(ctx context.Context, l *lab) (destination, error) { return newRedisServer(ctx, l, "none") }},
		// The library alone writes no seqs and compares none: what that costs.
		{partRedis, "sink redis", "go-redis", 0, false, func(ctx context.Context, l *lab) (destination, error) { return newRedisServer(ctx, l, "seq") }},
	}
}

// sinks measures each kind of sink that has a library to be compared with.
func (s *sender) sinks(ctx context.Context) (figures []Figure, err error) {
	for _, r := range rivals() {
		if !s.wanted(r.part) {
			continue
		}
		more, err := s.rivalry(ctx, r)
		if errors.Is(err, errNoServer) {
			s.say("send: %s is left out: %v", r.of, err)
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("%s: %w", r.of, err)
		}
		figures = append(figures, more...)
	}
	return figures, nil
}

// errNoServer says that the machine has no such server.
var errNoServer = errors.New("there is none on this machine")

// rivalry opens the destination of a rival, measures and closes it.
func (s *sender) rivalry(ctx context.Context, r rival) (figures []Figure, err error) {
	to, err := r.open(ctx, s.lab)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, to.close()) }()
	return s.sink(ctx, r, to)
}

// spent is the time that a run took, and the CPU time.
type spent struct {
	took float64 // seconds
	node time.Duration
	rest time.Duration // of this process and of the destination's server
}

// sum is the CPU time of everything.
func (p spent) sum() time.Duration { return p.node + p.rest }

func (s *sender) sink(ctx context.Context, r rival, to destination) ([]Figure, error) {
	s.say("send: %s, a run that warms up and is not counted", r.of)
	name := strings.NewReplacer(" ", "-", ",", "").Replace(r.of)
	if _, err := s.sunk(ctx, r.part, name+"-warm", to); err != nil {
		return nil, err
	}
	var bare, ours, ratio, floor, node, all, alone, share, made, madeShare []float64
	for round := range s.Rounds {
		s.say("send: %s, round %d", r.of, round+1)
		a, err := s.alone(ctx, to, ready)
		if err != nil {
			return nil, err
		}
		b, err := s.sunk(ctx, r.part, fmt.Sprintf("%s-%d", name, round), to)
		if err != nil {
			return nil, err
		}
		a2, err := s.alone(ctx, to, ready)
		if err != nil {
			return nil, err
		}
		n := float64(s.Rows)
		if !r.rows {
			c, err := s.alone(ctx, to, renders)
			if err != nil {
				return nil, err
			}
			made, madeShare = append(made, float64(c.sum().Microseconds())/n), append(madeShare, float64(c.sum())/float64(b.sum()))
		}
		each := func(cpu time.Duration) float64 { return float64(cpu.Microseconds()) / n }
		bare, ours = append(bare, n/a.took, n/a2.took), append(ours, n/b.took)
		ratio, floor = append(ratio, (a.took+a2.took)/2/b.took), append(floor, a2.took/a.took)
		node, all = append(node, each(b.node)), append(all, each(b.sum()))
		alone = append(alone, each(a.sum()), each(a2.sum()))
		share = append(share, float64(a.sum()+a2.sum())/2/float64(b.sum()))
	}
	rate := figure(r.of, "lockstep by "+r.peer, "", ratio).beside(floor)
	if r.aim > 0 {
		rate = rate.atLeast(r.aim, fmt.Sprintf("at least %.2f", r.aim))
	}
	figures := []Figure{
		figure(r.of, r.peer, "changes/s", bare), figure(r.of, "lockstep", "changes/s", ours), rate,
		figure(r.of, "node and destination, CPU", "µs/change", all), figure(r.of, r.peer+" and destination, CPU", "µs/change", alone),
		figure(r.of, "CPU, "+r.peer+" by lockstep", "", share),
	}
	if len(made) > 0 {
		figures = append(figures, figure(r.of, r.peer+" that renders, and destination, CPU", "µs/change", made), figure(r.of, "CPU, "+r.peer+" that renders, by lockstep", "", madeShare))
	}
	if !s.Within {
		figures = append(figures, figure(r.of, "node, CPU", "µs/change", node))
	}
	return figures, nil
}

// alone has the library write everything.
func (s *sender) alone(ctx context.Context, to destination, how peer) (p spent, err error) {
	if _, err := to.empty(ctx); err != nil {
		return p, err
	}
	before, err := s.rest(ctx, to)
	if err != nil {
		return p, err
	}
	start := time.Now()
	err = to.bare(ctx, how)
	p.took = time.Since(start).Seconds()
	after, failed := s.rest(ctx, to)
	p.rest = after - before
	return p, errors.Join(err, failed, s.complete(ctx, to))
}

// rest is the CPU time of this process and of the destination's server.
func (s *sender) rest(ctx context.Context, to destination) (time.Duration, error) {
	server, err := to.cpu(ctx)
	return server + ownCPU(), err
}

// sunk has a new consumer write everything, until all of it is there and acked.
func (s *sender) sunk(ctx context.Context, kind, name string, to destination) (p spent, err error) {
	settings, err := to.empty(ctx)
	if err != nil {
		return p, err
	}
	raw, err := json.Marshal(client.Definition{Name: name, Kind: kind, Tables: []string{"public.bench_0"}, Start: "beginning", MaxInFlight: 20_000})
	if err != nil {
		return p, err
	}
	definition := map[string]any{}
	if err := json.Unmarshal(raw, &definition); err != nil {
		return p, err
	}
	definition[kind] = settings
	node, err := s.cpu()
	if err != nil {
		return p, err
	}
	rest, err := s.rest(ctx, to)
	if err != nil {
		return p, err
	}
	start := time.Now()
	if _, err := s.api.CreateConsumer(ctx, definition); err != nil {
		return p, fmt.Errorf("create consumer %s: %w", name, err)
	}
	// Each look costs the node something: few of them.
	err = s.untilEach(ctx, 100*time.Millisecond, patience, "the destination did not get everything", func() (bool, error) {
		c, err := s.api.Consumer(ctx, name)
		return err == nil && c.Stats.FloorSeq >= uint64(s.Rows), err
	})
	p.took = time.Since(start).Seconds()
	if err := errors.Join(err, s.complete(ctx, to)); err != nil {
		return p, err
	}
	nodeAfter, err := s.cpu()
	if err != nil {
		return p, err
	}
	restAfter, err := s.rest(ctx, to)
	if !s.Within {
		p.node = nodeAfter - node
	}
	p.rest = restAfter - rest
	return p, errors.Join(err, s.api.DeleteConsumer(ctx, name))
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
	_ = r.close() // it cannot fail
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

func (r *rowsInto) close() error {
	if r.db != nil {
		r.db.Close()
		r.db = nil
	}
	return nil
}

func (r *rowsInto) cpu(ctx context.Context) (time.Duration, error) { return r.postgresCPU(ctx) }

func (r *rowsInto) count(ctx context.Context) (n int, err error) {
	err = r.db.QueryRow(ctx, `SELECT count(*) FROM bench_0 WHERE _seq IS NOT NULL`).Scan(&n)
	return n, err
}

func (r *rowsInto) bare(ctx context.Context, _ peer) error {
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
