package bench

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"lockstep/internal/config"
	"lockstep/internal/pgdb"
	"lockstep/internal/pgdb/cluster"
)

// lab is a private Postgres with fsync on, in a temporary directory, beside which
// nodes run. One goroutine makes and closes it.
type lab struct {
	Options
	dir string
	pg  *cluster.Cluster
	url string // of the database, over the Unix socket
	db  *pgxpool.Pool
	// capture is how nodes take changes from the database; empty: as they do by default.
	capture config.Capture
}

// database is what the lab's database is called, in Postgres and by the nodes.
const database = "app"

// inLab opens a lab, measures in it and closes it.
func (o Options) inLab(ctx context.Context, measure func(context.Context, *lab) ([]Figure, error)) ([]Figure, error) {
	l, err := o.open(ctx)
	if err != nil {
		return nil, err
	}
	figures, err := measure(ctx, l)
	return figures, errors.Join(err, l.close(ctx))
}

func (o Options) open(ctx context.Context) (*lab, error) {
	dir, err := os.MkdirTemp(o.Dir, "lockstep-bench-")
	if err != nil {
		return nil, err
	}
	l := &lab{Options: o, dir: dir}
	if err := l.start(ctx); err != nil {
		return nil, errors.Join(err, l.close(ctx))
	}
	return l, nil
}

func (l *lab) start(ctx context.Context) error {
	// Postgres runs as another user below it.
	if err := os.Chmod(l.dir, 0o755); err != nil {
		return err
	}
	var err error
	l.pg, err = cluster.Start(ctx, cluster.Config{Dir: filepath.Join(l.dir, "postgres"), Bin: l.PGBin, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		return err
	}
	if err := l.pg.CreateDatabase(ctx, database); err != nil {
		return err
	}
	l.url = l.pg.URL(database)
	l.db, err = pgdb.Open(ctx, l.url, "lockstep bench")
	return err
}

// close stops Postgres and removes the directory, whatever of it was reached.
func (l *lab) close(ctx context.Context) error {
	if l.db != nil {
		l.db.Close()
	}
	var err error
	if l.pg != nil {
		err = l.pg.Stop(context.WithoutCancel(ctx))
	}
	return errors.Join(err, os.RemoveAll(l.dir))
}

const benchColumns = `(id bigint PRIMARY KEY, tenant int, email text, amount numeric(12,2), payload jsonb, note text, created_at timestamptz)`

// rowsOf is a SELECT of rows of about 200 bytes whose ids run from first to last,
// which are SQL expressions.
func rowsOf(first, last string) string {
	return `SELECT i, mod(i, 100), 'user' || i || '@example.com', mod(i, 100000) / 100.0,
		jsonb_build_object('n', i, 'pad', repeat('x', 60)), 'note ' || i, '2026-01-01T00:00:00Z'::timestamptz FROM generate_series(` + first + `, ` + last + `) i`
}

// tables makes the tables bench_0, bench_1 and so on, and waits until a node
// captures all of them.
func (l *lab) tables(ctx context.Context, count int) error {
	var sql strings.Builder
	for t := range count {
		fmt.Fprintf(&sql, "CREATE TABLE bench_%d %s;", t, benchColumns)
	}
	if _, err := l.db.Exec(ctx, sql.String()); err != nil {
		return err
	}
	return l.until(ctx, time.Minute, "the tables were not published", func() (bool, error) {
		var published int
		err := l.db.QueryRow(ctx, `SELECT count(DISTINCT tablename) FROM pg_publication_tables WHERE tablename LIKE 'bench\_%'`).Scan(&published)
		return published == count, err
	})
}

// insert commits rows with the ids from first on, 100 per transaction, the
// transactions over that many tables in turns.
func (l *lab) insert(ctx context.Context, tables, first, rows int) error {
	sql := fmt.Sprintf(`DO $do$ BEGIN FOR t IN 0..%d LOOP
		EXECUTE format($q$INSERT INTO %%I %s$q$, 'bench_' || mod(t, %d), %d + t * 100, %d + t * 100);
		COMMIT; END LOOP; END $do$`, rows/100-1, rowsOf("%s::bigint", "%s::bigint"), tables, first, first+99)
	if _, err := l.db.Exec(ctx, sql); err != nil {
		return fmt.Errorf("insert: %w", err)
	}
	return nil
}

// until asks again and again until done, or fails after the time with what.
func (l *lab) until(ctx context.Context, within time.Duration, what string, done func() (bool, error)) error {
	return l.untilEach(ctx, 20*time.Millisecond, within, what, done)
}

// untilEach is until with a pause, for what would disturb by being asked often.
func (l *lab) untilEach(ctx context.Context, each, within time.Duration, what string, done func() (bool, error)) error {
	deadline := time.NewTimer(within)
	defer deadline.Stop()
	tick := time.NewTicker(each)
	defer tick.Stop()
	for {
		if ok, err := done(); ok || err != nil {
			return err
		}
		select {
		case <-tick.C:
		case <-deadline.C:
			return fmt.Errorf("%s within %s", what, within)
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}
