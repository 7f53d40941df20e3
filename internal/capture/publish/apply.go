package publish

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"lockstep/internal/obs"
	"lockstep/internal/pgdb"
)

// The SQLSTATEs that are told apart; see
// postgresql.org/docs/current/errcodes-appendix.html.
const (
	stateLocked    = "55P03"
	stateDeadlock  = "40P01"
	stateDenied    = "42501"
	stateDuplicate = "42710"

	stateUndefinedTable  = "42P01"
	stateUndefinedSchema = "3F000"
)

// leastPatience is the shortest lock timeout of a round.
const leastPatience = 20 * time.Millisecond

// atOnce is how many tables are added by one statement. Each takes a place in the
// server's lock table until the end, which the application needs too.
const atOnce = 500

// execer begins transactions: a connection or a pool.
type execer interface {
	Begin(ctx context.Context) (pgx.Tx, error)
}

// together executes statements in one transaction.
func together(ctx context.Context, db execer, statements []string) error {
	return pgx.BeginFunc(ctx, db, func(tx pgx.Tx) error { return execAll(ctx, tx, statements) })
}

func execAll(ctx context.Context, tx pgx.Tx, statements []string) error {
	for _, s := range statements {
		if _, err := tx.Exec(ctx, s); err != nil {
			return err
		}
	}
	return nil
}

// alter executes statements in one transaction under the round's lock timeout.
func (rd *round) alter(ctx context.Context, statements ...string) error {
	err := together(ctx, rd.conn, append([]string{lockTimeout(rd.patience)}, statements...))
	if sqlState(err) == stateLocked {
		rd.patience = max(rd.patience/2, leastPatience)
	}
	return err
}

func lockTimeout(d time.Duration) string {
	return fmt.Sprintf("SET LOCAL lock_timeout = %d", max(d.Milliseconds(), 1))
}

func (p *publication) adds(targets ...string) string {
	return "ALTER PUBLICATION " + pgdb.QuoteIdent(p.name) + " ADD TABLE " + strings.Join(targets, ", ")
}

func (p *publication) drops(target string) string {
	return "ALTER PUBLICATION " + pgdb.QuoteIdent(p.name) + " DROP TABLE " + target
}

// demote moves tables out of the first publication whose updates it makes fail, or
// would: also those that somebody else has put there.
func (rd *round) demote(ctx context.Context) {
	every, only := &rd.pubs[everything], &rd.pubs[inserts]
	if !every.managed() {
		return
	}
	listed := make(map[*relation]*TableState, len(rd.tables))
	for i := range rd.tables {
		listed[rd.tables[i].relation] = &rd.tables[i].state
	}
	for _, r := range rd.all {
		if !r.member[everything] {
			continue
		}
		state := listed[r]
		if state == nil {
			state = new(rd.srv.classify(r))
		}
		if state.Class != InsertOnly {
			continue
		}
		statements := []string{every.drops(r.target())}
		moved := only.managed() && r.owned && !only.covers(r)
		if moved {
			statements = append(statements, only.adds(r.target()))
		}
		if rd.attempt(ctx, r, state, statements...) {
			r.member[everything] = false
			r.member[inserts] = r.member[inserts] || moved
			rd.config.Logger.WarnContext(ctx, "a table is published for inserts only from now on, because its updates would fail",
				obs.KeyTable, r.String(), obs.KeyReason, state.Reason, obs.KeyRemedy, state.Remedy)
		}
	}
}

// attempt executes statements about one table and puts a failure into its state.
func (rd *round) attempt(ctx context.Context, r *relation, state *TableState, statements ...string) bool {
	if err := rd.alter(ctx, statements...); err != nil {
		rd.failed(r, state, err)
		return false
	}
	rd.changed++
	return true
}

func (rd *round) failed(r *relation, state *TableState, err error) {
	rd.outstanding = true
	state.add(rd.findingOf(r, err))
}

// promote moves tables back whose identity became usable, and takes those out of
// the publication for inserts that are in both.
func (rd *round) promote(ctx context.Context) {
	every, only := &rd.pubs[everything], &rd.pubs[inserts]
	if !only.managed() {
		return
	}
	for i := range rd.tables {
		t := &rd.tables[i]
		r := t.relation
		if t.state.Class != Full || !r.member[inserts] {
			continue
		}
		statements := []string{only.drops(r.target())}
		if !every.covers(r) {
			if !every.managed() || rd.refusedOwner(t) {
				continue
			}
			statements = append(statements, every.adds(r.target()))
		}
		if rd.attempt(ctx, r, &t.state, statements...) {
			r.member = [2]bool{everything: every.managed() || r.member[everything]}
			rd.config.Logger.InfoContext(ctx, "a table is published for every operation from now on", obs.KeyTable, r.String())
		}
	}
}

// takeIn adds tables that are in neither publication.
func (rd *round) takeIn(ctx context.Context) {
	var fresh [2][]*listed
	for i := range rd.tables {
		t := &rd.tables[i]
		if t.state.Class == None || rd.published(t.relation) != None {
			continue
		}
		p := rd.home(t)
		if !p.managed() || rd.refusedOwner(t) {
			continue
		}
		fresh[p.which] = append(fresh[p.which], t)
	}
	for which, tables := range fresh {
		if rd.mode == joining {
			rd.joinAll(ctx, &rd.pubs[which], tables)
			continue
		}
		for len(tables) > 0 {
			n := min(len(tables), atOnce)
			rd.addAll(ctx, &rd.pubs[which], tables[:n])
			tables = tables[n:]
		}
	}
}

// home is the publication that a table belongs in.
func (rd *round) home(t *listed) *publication {
	if t.state.Class == Full {
		return &rd.pubs[everything]
	}
	return &rd.pubs[inserts]
}

// refusedOwner says in the state that only an owner can publish the table.
func (rd *round) refusedOwner(t *listed) bool {
	if t.relation.owned {
		return false
	}
	role, owner := pgdb.QuoteIdent(rd.srv.role), pgdb.QuoteIdent(t.relation.owner)
	t.state.add(finding{"it belongs to " + t.relation.owner + ", and only an owner can publish a table",
		"GRANT " + owner + " TO " + role + "; -- or ALTER TABLE " + t.relation.quoted() + " OWNER TO " + role + ";" + accessExclusive})
	return true
}

// addAll adds tables by one statement, and one by one when that fails.
func (rd *round) addAll(ctx context.Context, p *publication, tables []*listed) {
	targets := make([]string, len(tables))
	for i, t := range tables {
		targets[i] = t.relation.target()
	}
	if rd.alter(ctx, p.adds(targets...)) == nil {
		rd.changed += len(tables)
		for _, t := range tables {
			t.relation.member[p.which] = true
		}
		return
	}
	for i, t := range tables {
		if ctx.Err() != nil {
			return
		}
		if rd.attempt(ctx, t.relation, &t.state, p.adds(targets[i])) {
			t.relation.member[p.which] = true
		}
	}
}

// takeOut removes partitions whose table is listed, as they would arrive under two
// names; and once, what the patterns do not match from publications made here.
// What somebody added later stays: capture leaves it aside by the patterns.
func (rd *round) takeOut(ctx context.Context) {
	matched := make(map[*relation]bool, len(rd.tables))
	for i := range rd.tables {
		matched[rd.tables[i].relation] = true
	}
	for i := range rd.pubs {
		p := &rd.pubs[i]
		if !p.managed() {
			continue
		}
		for _, r := range rd.all {
			if !r.member[i] || matched[r] || !r.covered && (rd.pruned || !p.ours) {
				continue
			}
			if r.covered && !rd.throughRoot(r) {
				continue // better under its own name than not at all
			}
			if rd.attempt(ctx, r, new(TableState), p.drops(r.target())) {
				r.member[i] = false
				rd.config.Logger.InfoContext(ctx, "a table is not published any more: the patterns do not match it, or its partitioned table stands for it",
					obs.KeyTable, r.String())
			}
		}
	}
	rd.pruned = ctx.Err() == nil
}

// throughRoot reports whether a table above the partition is published.
func (rd *round) throughRoot(r *relation) bool {
	for r = r.above; r != nil; r = r.above {
		if r.member[everything] || r.member[inserts] {
			return true
		}
	}
	return false
}

// findingOf says what an error about one table means, and what to do.
func (rd *round) findingOf(r *relation, err error) finding {
	switch sqlState(err) {
	case stateLocked, stateDeadlock:
		return finding{"another session holds a lock on it; tried again every round",
			"SELECT a.pid, a.state, a.query FROM pg_stat_activity a JOIN pg_locks l USING (pid) WHERE l.relation = " +
				pgdb.QuoteLiteral(r.quoted()) + "::regclass; -- and wait for that session, or end it"}
	case stateDenied:
		return finding{"publishing it is refused: " + reasonOf(err),
			"GRANT " + pgdb.QuoteIdent(r.owner) + " TO " + pgdb.QuoteIdent(rd.srv.role) + ";"}
	}
	return finding{"publishing it did not work: " + reasonOf(err), ""}
}

// reasonOf is what the server says, without the driver's words.
func reasonOf(err error) string {
	var refused *pgconn.PgError
	if !errors.As(err, &refused) {
		return err.Error()
	}
	if refused.Detail != "" {
		return refused.Message + " (" + refused.Detail + ")"
	}
	return refused.Message
}

func sqlState(err error) string {
	if refused, ok := errors.AsType[*pgconn.PgError](err); ok {
		return refused.Code
	}
	return ""
}
