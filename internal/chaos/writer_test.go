package chaos_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/jackc/pgx/v5"
)

// Two tables: deletes of the one carry the key alone, of the other the whole row.
const tablesSQL = `
	CREATE SCHEMA ledger;
	CREATE TABLE ledger.plain (id int PRIMARY KEY, version int NOT NULL, write bigint NOT NULL, body text NOT NULL);
	CREATE TABLE ledger.complete (id int PRIMARY KEY, version int NOT NULL, write bigint NOT NULL, body text NOT NULL);
	ALTER TABLE ledger.complete REPLICA IDENTITY FULL;
	CREATE SCHEMA marks;
	CREATE TABLE marks.mark (writer int PRIMARY KEY, at bigint NOT NULL)`

func tables() []string { return []string{"plain", "complete"} }

// writer changes rows that no other writer changes, so that it knows their history.
type writer struct {
	number int
	rows   int // per table
	url    string
	random *rand.Rand
	ledger *ledger
	// may blocks while there is enough to do for the workers, and returns false when
	// writing is over.
	may   func(ctx context.Context) bool
	keeps string // a table whose rows are never deleted; empty: none
	conn  *pgx.Conn

	marks   int
	writes  uint64
	version map[string]int
	alive   map[string]bool
}

func newWriter(number, rows int, url string, seed uint64, l *ledger, may func(context.Context) bool) *writer {
	return &writer{
		number: number, rows: rows, url: url, ledger: l, may: may, random: rand.New(rand.NewPCG(seed, uint64(1000+number))),
		version: map[string]int{}, alive: map[string]bool{},
	}
}

// run commits transactions through whatever happens to Postgres, until may says no.
func (w *writer) run(ctx context.Context) error {
	defer func() {
		if w.conn != nil {
			w.conn.Close(context.WithoutCancel(ctx))
		}
	}()
	for w.may(ctx) && ctx.Err() == nil {
		if err := w.connect(ctx); err != nil {
			return err
		}
		p := w.plan()
		sent, err := w.write(ctx, p)
		if err != nil && !w.conn.IsClosed() {
			return fmt.Errorf("writer %d: %w", w.number, err)
		}
		if err != nil && sent == nothing || err == nil && p.abandoned {
			continue // the connection broke before the commit was sent: it did not happen
		}
		if err != nil {
			happened, err := w.lookUp(ctx)
			if err != nil {
				return err
			}
			w.ledger.doubt(happened)
			if happened == aborted {
				continue
			}
		}
		w.take(p)
	}
	return nil
}

// connect makes the connection, as long as it takes.
func (w *writer) connect(ctx context.Context) error {
	if w.conn != nil && !w.conn.IsClosed() {
		return nil
	}
	deadline := time.Now().Add(2 * time.Minute)
	for {
		conn, err := pgx.Connect(ctx, w.url)
		if err == nil {
			w.conn = conn
			return nil
		}
		if ctx.Err() != nil || time.Now().After(deadline) {
			return fmt.Errorf("writer %d: %w", w.number, err)
		}
		wait(ctx, 20*time.Millisecond)
	}
}

// plan is a transaction to be.
type plan struct {
	rounds    []round
	abandoned bool // rolled back at its end
}

// round is one statement of each kind for a table, inside a savepoint when it will be
// undone.
type round struct {
	table   string
	upserts []entry
	deletes []entry
	ids     map[string]int
	undone  bool
}

func (w *writer) plan() plan {
	p := plan{abandoned: w.random.IntN(30) == 0}
	most := 40
	if w.random.IntN(50) == 0 {
		most = 1500 // more than one batch of the log
	}
	alive := map[string]bool{} // as the transaction will leave it
	for range 1 + w.random.IntN(3) {
		r := round{table: tables()[w.random.IntN(2)], undone: w.random.IntN(12) == 0, ids: map[string]int{}}
		for range 1 + w.random.IntN(most) {
			id := w.number*1_000_000 + w.random.IntN(w.rows)
			key := rowKey(r.table, id)
			if _, twice := r.ids[key]; twice {
				continue
			}
			r.ids[key] = id
			w.writes++
			lives, known := alive[key]
			if !known {
				lives = w.alive[key]
			}
			if lives && r.table != w.keeps && w.random.IntN(8) == 0 {
				r.deletes = append(r.deletes, entry{key, deleted})
			} else {
				r.upserts = append(r.upserts, entry{key, uint64(w.number+1)<<40 | w.writes})
			}
			if !r.undone {
				alive[key] = len(r.deletes) == 0 || r.deletes[len(r.deletes)-1].key != key
			}
		}
		p.rounds = append(p.rounds, r)
	}
	return p
}

// sending says whether a commit was sent.
type sending string

const (
	nothing sending = "nothing"
	commit  sending = "commit"
)

// write runs the plan, and leaves a mark that tells whether it happened. Postgres' own
// answer to that does not do: after a crash it gives the id of a transaction that left
// no trace to another one.
func (w *writer) write(ctx context.Context, p plan) (sending, error) {
	w.marks++
	tx, err := w.conn.Begin(ctx)
	if err != nil {
		return nothing, err
	}
	defer func() { _ = tx.Rollback(context.WithoutCancel(ctx)) }() // after a commit it does nothing
	const mark = `INSERT INTO marks.mark VALUES ($1, $2) ON CONFLICT (writer) DO UPDATE SET at = excluded.at`
	if _, err := tx.Exec(ctx, mark, w.number, w.marks); err != nil {
		return nothing, err
	}
	version := map[string]int{}
	for _, r := range p.rounds {
		if err := w.round(ctx, tx, r, version); err != nil {
			return nothing, err
		}
	}
	if p.abandoned {
		return nothing, tx.Rollback(ctx)
	}
	return commit, tx.Commit(ctx)
}

// round runs one round; version holds how many versions this transaction adds.
func (w *writer) round(ctx context.Context, tx pgx.Tx, r round, version map[string]int) error {
	if r.undone {
		nested, err := tx.Begin(ctx)
		if err != nil {
			return err
		}
		defer func() { _ = nested.Rollback(context.WithoutCancel(ctx)) }()
		tx = nested
	}
	var ids, versions, gone []int
	var writes []uint64
	var bodies []string
	for _, e := range r.upserts {
		ids, writes, bodies = append(ids, r.ids[e.key]), append(writes, e.write), append(bodies, bodyOf(e.write))
		versions = append(versions, w.version[e.key]+version[e.key]+1)
	}
	for _, e := range r.deletes {
		gone = append(gone, r.ids[e.key])
	}
	if !r.undone {
		for key := range r.ids {
			version[key]++
		}
	}
	if len(ids) > 0 {
		sql := `INSERT INTO ledger.` + r.table + ` SELECT * FROM unnest($1::int[], $2::int[], $3::bigint[], $4::text[])
			ON CONFLICT (id) DO UPDATE SET version = excluded.version, write = excluded.write, body = excluded.body`
		if _, err := tx.Exec(ctx, sql, ids, versions, writes, bodies); err != nil {
			return err
		}
	}
	if len(gone) == 0 {
		return nil
	}
	tag, err := tx.Exec(ctx, `DELETE FROM ledger.`+r.table+` WHERE id = ANY($1::int[])`, gone)
	if err == nil && tag.RowsAffected() != int64(len(gone)) {
		return fmt.Errorf("deleted %d of %d rows of %s", tag.RowsAffected(), len(gone), r.table)
	}
	return err
}

// lookUp finds out what became of the last transaction, whose commit was not answered.
func (w *writer) lookUp(ctx context.Context) (fate, error) {
	for {
		if err := w.connect(ctx); err != nil {
			return "", err
		}
		var at int
		err := w.conn.QueryRow(ctx, "SELECT at FROM marks.mark WHERE writer = $1", w.number).Scan(&at)
		switch {
		case err == nil && at == w.marks:
			return committed, nil
		case err == nil || errors.Is(err, pgx.ErrNoRows):
			return aborted, nil
		case ctx.Err() != nil || !w.conn.IsClosed():
			return "", fmt.Errorf("writer %d: look up a commit: %w", w.number, err)
		}
	}
}

// take writes a committed plan down.
func (w *writer) take(p plan) {
	var all []entry
	for _, r := range p.rounds {
		if r.undone {
			continue
		}
		for _, e := range append(r.upserts, r.deletes...) {
			w.version[e.key]++
			w.alive[e.key] = e.write != deleted
			all = append(all, e)
		}
	}
	w.ledger.commit(all)
}

// wait waits that long, or until ctx ends.
func wait(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}
