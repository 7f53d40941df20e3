package bench

import (
	"context"
	"embed"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"lockstep/client"
	"lockstep/internal/config"
)

//go:embed stripe.yaml
var files embed.FS

// unlimited is the spec of Stripe without its limits.
func unlimited() (string, error) {
	text, err := files.ReadFile("stripe.yaml")
	return string(text), err
}

// Sync measures the mirror of a simulated Stripe account: how fast it is filled, how
// much of the API's limits that uses, how late changes are in Postgres, and what
// looking again at what has not changed writes.
func Sync(ctx context.Context, o Options) (Report, error) {
	return o.run(ctx, plan{
		name:       "sync",
		about:      "the mirror of a simulated Stripe account: filled beside COPY of the same rows, filled within Stripe's limits, changes on their way to Postgres, and at rest",
		conditions: syncConditions,
		measure: func(ctx context.Context, o Options) ([]Figure, error) {
			bulk, err := o.inLab(ctx, syncBulk)
			if err != nil {
				return nil, err
			}
			paced, err := o.inLab(ctx, syncPaced)
			return append(bulk, paced...), err
		},
	})
}

func syncConditions(o Options) []string {
	return []string{
		fmt.Sprintf("%d customers of about 1 KB of JSON; sandbox, node and Postgres are processes of their own on the same cores; %d rounds of A B A', of those with capture %d", o.Backlog, o.Rounds, o.fewer()),
		"filled: no limits on either side; A: COPY of the rows that the sync has written into a table of the same columns, key and identity, by one connection, no node; B: from the request of the sync to its state backfilled, each record counted by its number in the table",
		"the sandbox alone: pages asked for one after the other, as a sync does, and dropped: no sync of one collection can be faster on these cores",
		fmt.Sprintf("within limits: Stripe's own, counted in the sandbox's log from a second after the first page of the list, so without the burst that begins it, to the last; %d customers; at most %s for each way", o.withinLimits(), limitedTime),
		fmt.Sprintf("changes: %d, half of them new customers, two a second at uneven times, from before the owner's request to the notification of a trigger on the table; polled each 500 ms, within Stripe's limits", o.changes()),
		"at rest: the end of the WAL before and after a sweep of all customers, less that of the node alone for as long; without full-page images and autovacuum, which come by chance; no row of the mirror may have been written",
	}
}

// filling is a lab in which a mirror is filled again and again.
type filling struct {
	*lab
	account *account
	version string // of the API, that the sync asks for
}

const (
	acme     = "acme" // the sync
	mirrored = "stripe.customer"
	// seldom is how often a node is asked whether it is done, which costs it CPU.
	seldom = 100 * time.Millisecond
)

// syncBulk measures what is done with all the customers.
func syncBulk(ctx context.Context, l *lab) (figures []Figure, err error) {
	a, err := l.account(ctx, l.Backlog, "--unlimited")
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, a.stop()) }()
	f := &filling{lab: l, account: a}
	rest, err := f.first(ctx)
	if err != nil {
		return nil, err
	}
	for _, way := range []struct {
		capture config.Capture
		of      string
		rounds  int
	}{{config.CaptureNone, "filled, nothing is captured", l.Rounds}, {config.CaptureWAL, "filled, and captured meanwhile", l.fewer()}} {
		l.capture = way.capture
		more, err := f.rounds(ctx, way.of, way.rounds)
		if err != nil {
			return nil, err
		}
		figures = append(figures, more...)
	}
	return append(figures, rest...), nil
}

// first fills the mirror for the first time, which warms everything, looks at it at
// rest, and keeps its rows in a file.
func (f *filling) first(ctx context.Context) (figures []Figure, err error) {
	n, err := f.node(ctx)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, n.stop()) }()
	f.say("sync: filling the mirror for the first time")
	if _, err := f.fill(ctx, n); err != nil {
		return nil, err
	}
	if _, f.version, err = f.account.listed(ctx); err != nil {
		return nil, err
	}
	if err := f.export(ctx); err != nil {
		return nil, err
	}
	if figures, err = f.atRest(ctx, n); err != nil {
		return nil, err
	}
	return figures, f.clear(ctx, n)
}

// filled is what one backfill of the mirror took.
type filled struct {
	took, captured          time.Duration
	node, sandbox, postgres time.Duration // CPU
}

// rounds measures A B A', and the sandbox alone.
func (f *filling) rounds(ctx context.Context, of string, rounds int) ([]Figure, error) {
	var copied, copying, alone, ours, captured, ratio, floor, node, sandbox, postgres []float64
	rows := float64(f.Backlog)
	for round := range rounds {
		f.say("sync: %s, round %d", of, round+1)
		a, cpu, err := f.copyIn(ctx)
		if err != nil {
			return nil, err
		}
		pages := max(f.Backlog/customerPage/5, 100)
		served, err := f.account.read(ctx, pages, f.version)
		if err != nil {
			return nil, err
		}
		b, err := f.round(ctx)
		if err != nil {
			return nil, err
		}
		a2, cpu2, err := f.copyIn(ctx)
		if err != nil {
			return nil, err
		}
		copied = append(copied, rows/a.Seconds(), rows/a2.Seconds())
		alone = append(alone, float64(pages)/served.Seconds())
		ours, captured = append(ours, rows/b.took.Seconds()), append(captured, rows/b.captured.Seconds())
		ratio = append(ratio, (a.Seconds()+a2.Seconds())/2/b.took.Seconds())
		floor = append(floor, a2.Seconds()/a.Seconds())
		for _, one := range []struct {
			into *[]float64
			cpu  time.Duration
		}{{&copying, cpu}, {&copying, cpu2}, {&node, b.node}, {&sandbox, b.sandbox}, {&postgres, b.postgres}} {
			*one.into = append(*one.into, float64(one.cpu.Microseconds())/rows)
		}
	}
	figures := []Figure{
		figure(of, "COPY … FROM STDIN", "rows/s", copied), figure(of, "COPY, CPU of Postgres", "µs/row", copying), figure(of, "the sandbox alone", "pages/s", alone),
		figure(of, "rows in the mirror", "rows/s", ours),
		figure(of, "rows in the mirror, by COPY", "", ratio).beside(floor).atLeast(0.5, "at least 0.5"),
		figure(of, "node, CPU", "µs/row", node), figure(of, "sandbox, CPU", "µs/row", sandbox), figure(of, "Postgres, CPU", "µs/row", postgres),
	}
	if f.capture != config.CaptureNone {
		figures = append(figures, figure(of, "until captured too", "rows/s", captured))
	}
	return figures, nil
}

// round starts a node, has it fill the mirror, and takes everything away again.
func (f *filling) round(ctx context.Context) (b filled, err error) {
	n, err := f.node(ctx)
	if err != nil {
		return b, err
	}
	defer func() { err = errors.Join(err, n.stop()) }()
	if b, err = f.fill(ctx, n); err != nil {
		return b, err
	}
	return b, f.clear(ctx, n)
}

// fill makes the sync, and waits until the mirror has every customer.
func (f *filling) fill(ctx context.Context, n *node) (b filled, err error) {
	before, err := f.used(ctx, n)
	if err != nil {
		return b, err
	}
	if err := f.checkpoint(ctx); err != nil {
		return b, err
	}
	d := n.mirror(f.account, liveKey)
	d.Provider, d.Collections = "rest", nil
	if d.Spec, err = unlimited(); err != nil {
		return b, err
	}
	start := time.Now()
	if _, err := n.api.CreateSync(ctx, d); err != nil {
		return b, fmt.Errorf("make the sync: %w", err)
	}
	if err := n.backfilled(ctx); err != nil {
		return b, err
	}
	b.took = time.Since(start)
	if f.capture != config.CaptureNone {
		if err := n.captured(ctx, uint64(f.Backlog)); err != nil {
			return b, err
		}
	}
	b.captured = time.Since(start)
	after, err := f.used(ctx, n)
	b.node, b.sandbox, b.postgres = after.node-before.node, after.sandbox-before.sandbox, after.postgres-before.postgres
	return b, errors.Join(err, f.complete(ctx, f.Backlog))
}

// mirror is the definition of the sync.
func (n *node) mirror(a *account, key string) client.SyncDefinition {
	return client.SyncDefinition{
		Name: acme, Provider: "stripe", Collections: []string{"stripe:customer"}, BaseURL: a.url, Database: database, Schema: "stripe", Every: "500ms",
		Credential: &client.SyncCredential{Properties: map[string]string{"secret": key}},
	}
}

// backfilled waits until everything has been read.
func (n *node) backfilled(ctx context.Context) error {
	return n.untilEach(ctx, seldom, 2*time.Hour, "the mirror was not filled", func() (bool, error) { return n.isBackfilled(ctx) })
}

func (n *node) isBackfilled(ctx context.Context) (bool, error) {
	s, err := n.api.Sync(ctx, acme)
	if err != nil {
		return false, err
	}
	if s.State == client.SyncBlocked {
		return false, fmt.Errorf("the sync is blocked: %s", s.Reason)
	}
	return s.BackfilledAt != nil, nil
}

// complete reports an error when other than each customer once is in the mirror. Each
// has a number.
func (l *lab) complete(ctx context.Context, customers int) error {
	var rows, sum, least, most int64
	err := l.db.QueryRow(ctx, `SELECT count(*), sum(n), min(n), max(n) FROM (SELECT (metadata->>'number')::bigint n FROM `+mirrored+`) numbers`).Scan(&rows, &sum, &least, &most)
	if err != nil {
		return fmt.Errorf("count the mirror: %w", err)
	}
	if n := int64(customers); rows != n || sum != n*(n-1)/2 || least != 0 || most != n-1 {
		return fmt.Errorf("the mirror has %d rows with the numbers %d to %d, expected %d", rows, least, most, n)
	}
	return nil
}

func (f *filling) file() string { return filepath.Join(f.dir, "rows.copy") }

// export writes the rows of the mirror into a file, and makes the table into which
// they are copied.
func (f *filling) export(ctx context.Context) (err error) {
	out, err := os.Create(f.file())
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, out.Close()) }()
	conn, err := f.db.Acquire(ctx)
	if err != nil {
		return err
	}
	defer conn.Release()
	if _, err := conn.Conn().PgConn().CopyTo(ctx, out, `COPY `+mirrored+` TO STDOUT`); err != nil {
		return err
	}
	_, err = conn.Exec(ctx, `CREATE TABLE copied (LIKE `+mirrored+` INCLUDING ALL); ALTER TABLE copied REPLICA IDENTITY FULL`)
	return err
}

// copyIn measures COPY of the same rows, and the CPU time of Postgres for it, and
// empties the table again.
func (f *filling) copyIn(ctx context.Context) (took, cpu time.Duration, err error) {
	in, err := os.Open(f.file())
	if err != nil {
		return 0, 0, err
	}
	defer in.Close()
	conn, err := f.db.Acquire(ctx)
	if err != nil {
		return 0, 0, err
	}
	defer conn.Release()
	if _, err := io.Copy(io.Discard, in); err != nil { // warms the cache
		return 0, 0, err
	}
	if _, err := in.Seek(0, io.SeekStart); err != nil {
		return 0, 0, err
	}
	if err := f.checkpoint(ctx); err != nil {
		return 0, 0, err
	}
	before, err := f.postgresCPU(ctx)
	if err != nil {
		return 0, 0, err
	}
	start := time.Now()
	tag, err := conn.Conn().PgConn().CopyFrom(ctx, in, `COPY copied FROM STDIN`)
	took = time.Since(start)
	if err == nil && tag.RowsAffected() != int64(f.Backlog) {
		err = fmt.Errorf("COPY took %d rows, expected %d", tag.RowsAffected(), f.Backlog)
	}
	if err != nil {
		return 0, 0, err
	}
	after, err := f.postgresCPU(ctx)
	if err != nil {
		return 0, 0, err
	}
	_, err = conn.Exec(ctx, `TRUNCATE copied`)
	return took, after - before, err
}

// checkpoint has every run begin with nothing that is to be written to disk.
func (l *lab) checkpoint(ctx context.Context) error {
	_, err := l.db.Exec(ctx, `CHECKPOINT`)
	return err
}

// clear ends the sync and the node, and takes away what they have made.
func (f *filling) clear(ctx context.Context, n *node) error {
	if err := errors.Join(n.unmirror(ctx), n.stop()); err != nil {
		return err
	}
	if err := f.account.forget(ctx); err != nil {
		return err
	}
	const slots = `SELECT count(pg_drop_replication_slot(slot_name)) FROM pg_replication_slots WHERE NOT active`
	const left = `SELECT count(*) FROM pg_replication_slots`
	err := f.until(ctx, time.Minute, "the node's slot was not free", func() (bool, error) {
		var dropped, count int
		if err := f.db.QueryRow(ctx, slots).Scan(&dropped); err != nil {
			return false, err
		}
		err := f.db.QueryRow(ctx, left).Scan(&count)
		return count == 0, err
	})
	if err != nil {
		return err
	}
	const rest = `
		DO $do$ DECLARE name text; BEGIN
			FOR name IN SELECT pubname FROM pg_publication LOOP EXECUTE format('DROP PUBLICATION %I', name); END LOOP;
		END $do$;
		SELECT pg_replication_origin_drop(roname) FROM pg_replication_origin;
		DROP SCHEMA IF EXISTS lockstep CASCADE`
	if _, err := f.db.Exec(ctx, rest); err != nil {
		return fmt.Errorf("take away what the node has made: %w", err)
	}
	return os.RemoveAll(f.dataDir())
}

// unmirror ends the sync and drops its table.
func (n *node) unmirror(ctx context.Context) error {
	if err := n.api.DeleteSync(ctx, acme); err != nil {
		return fmt.Errorf("delete the sync: %w", err)
	}
	_, err := n.db.Exec(ctx, `DROP SCHEMA stripe CASCADE`)
	return err
}

// used is CPU time so far.
func (f *filling) used(ctx context.Context, n *node) (u filled, err error) {
	if u.node, err = n.cpu(); err != nil {
		return u, err
	}
	if u.sandbox, err = processCPU(f.account.pid); err != nil {
		return u, err
	}
	u.postgres, err = f.postgresCPU(ctx)
	return u, err
}

// postgresCPU is the CPU time of all of Postgres so far.
func (l *lab) postgresCPU(ctx context.Context) (time.Duration, error) {
	var backend int
	if err := l.db.QueryRow(ctx, `SELECT pg_backend_pid()`).Scan(&backend); err != nil {
		return 0, err
	}
	return familyCPU(backend)
}
