// Package demo runs the whole of Lockstep against a load, without configuration:
// a private Postgres under pgbench, three workers, and at the end a comparison of
// what the workers made of the changes with the tables themselves. Beside that it
// shows two mirrored accounts, which live: the way of a change from the API over the
// row in Postgres to a worker, and at the end a comparison of the API with the mirror.
//
//  1. Everything lies in one directory that is removed at the end.
//  2. The comparison of the tables counts nothing that Lockstep says of itself: it
//     applies the changes that arrived, by HTTP, and reads the tables by SQL.
//  3. A difference, an inversion or a change that never came makes Run fail.
//  4. The times of an edit are those of this process, which makes it and takes it, and
//     of the commit in Postgres; an API's clock has no part in them.
package demo

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"golang.org/x/sync/errgroup"

	"lockstep/client"
	"lockstep/internal/pgdb"
)

// Consumer is the name of the consumer that the demo's workers share.
const Consumer = "demo"

// Tables are the tables that this consumer gets.
func Tables() []string { return []string{"public.pgbench_*"} }

// Target is a running node to show.
type Target struct {
	Server      string // address of the HTTP API
	Database    string // URL of the private Postgres
	Publication string
	Stripe      Account       // that the sync "stripe" mirrors
	GitHub      Account       // that the sync "github" mirrors
	BinDir      string        // where pgbench may be
	For         time.Duration // how long the load runs; 0: until ctx ends
	Out         io.Writer
	Style       Style
}

// Style says who reads the output.
type Style int

// The styles of output: a line that is redrawn, or a line every two seconds.
const (
	Plain Style = iota
	Live
)

// ErrDiffers says that the workers' view is not what the tables hold.
var ErrDiffers = errors.New("the workers' view differs from the tables")

// Run shows the target. It ends For after the load began, or earlier when ctx
// does; the comparison is made in either case.
func Run(ctx context.Context, t Target) error {
	db, err := pgdb.Open(ctx, t.Database, "lockstep demo")
	if err != nil {
		return err
	}
	defer db.Close()
	api, err := client.New(client.Config{Server: t.Server})
	if err != nil {
		return err
	}
	defer api.Close()
	// Before capture has its slot, what is written is older than the stream.
	if err := poll(ctx, 20*time.Millisecond, func() (bool, error) { return api.Ready(ctx) == nil, nil }); err != nil {
		return err
	}
	if err := createTables(ctx, db); err != nil {
		return err
	}
	if err := published(ctx, db, t.Publication); err != nil {
		return err
	}
	// Ctrl-C ends the load; what was committed is still delivered and compared.
	rest := context.WithoutCancel(ctx)
	crew := &crew{api: api, view: newView()}
	screen := newScreen(t.Out, t.Style, crew)
	mirrors := newMirrors(api, t, screen)
	defer mirrors.close()
	working, stop := context.WithCancel(rest)
	defer stop()
	var workers errgroup.Group
	crew.start(working, &workers)
	mirrors.start(working, &workers)
	loadErr := runLoad(ctx, db, t, screen, mirrors)
	drainErr := errors.Join(crew.drain(rest, db), mirrors.rest(rest))
	stop()
	if err := errors.Join(loadErr, workers.Wait(), drainErr); err != nil {
		return err
	}
	return errors.Join(t.verdict(rest, db, crew), mirrors.verdict(rest, t.Out))
}

// runLoad runs the load and the accounts' owners with the live line beside them.
func runLoad(ctx context.Context, db *pgxpool.Pool, t Target, screen *screen, mirrors *mirrors) error {
	if t.For > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, t.For)
		defer cancel()
	}
	group, ctx := errgroup.WithContext(ctx)
	showing, hide := context.WithCancel(ctx)
	defer hide()
	group.Go(func() error {
		defer hide()
		if err := fillTables(ctx, db); err != nil {
			return ignoreEnd(ctx, err)
		}
		return ignoreEnd(ctx, load(ctx, db, t.BinDir))
	})
	group.Go(func() error { return screen.run(showing) })
	group.Go(func() error { return mirrors.live(showing) })
	return group.Wait()
}

func ignoreEnd(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return nil
	}
	return err
}

// published waits until every table of the load is in a publication: from then on
// no change is missed.
func published(ctx context.Context, db *pgxpool.Pool, publication string) error {
	const query = `SELECT count(*) FROM pg_publication_tables WHERE pubname IN ($1::text, $1::text || '_inserts') AND tablename LIKE 'pgbench\_%'`
	ctx, cancel := context.WithTimeoutCause(ctx, 30*time.Second, errors.New("the new tables were not published within 30 s"))
	defer cancel()
	return poll(ctx, 50*time.Millisecond, func() (bool, error) {
		var n int
		err := db.QueryRow(ctx, query, publication).Scan(&n)
		return n == 4, err
	})
}

// poll calls done at intervals until it says so, fails, or ctx ends.
func poll(ctx context.Context, every time.Duration, done func() (bool, error)) error {
	tick := time.NewTicker(every)
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

// verdict compares, says what came out, and fails when it is not as it must be.
func (t Target) verdict(ctx context.Context, db *pgxpool.Pool, crew *crew) error {
	rows, err := crew.view.compare(ctx, db)
	if err != nil {
		return err
	}
	n := crew.numbers()
	fmt.Fprintf(t.Out, "\nprocessed %d changes; handed out again after a refusal or a lost lease: %d; dead letters: %d\n", n.processed, n.redelivered, n.dead)
	fmt.Fprintf(t.Out, "commit to worker: p50 %s, p99 %s\n", round(n.p50), round(n.p99))
	if faults := crew.view.faults; len(faults) > 0 {
		for _, f := range faults {
			fmt.Fprintln(t.Out, "  "+f)
		}
		return fmt.Errorf("%w: %d differences (see above)", ErrDiffers, len(faults))
	}
	fmt.Fprintf(t.Out, "the workers' view equals the tables: %d rows compared, no change lost, none out of order\n", rows)
	return nil
}

func round(d time.Duration) time.Duration {
	if d < 10*time.Millisecond {
		return d.Round(10 * time.Microsecond)
	}
	return d.Round(time.Millisecond)
}
