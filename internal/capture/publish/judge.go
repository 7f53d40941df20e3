package publish

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// change is a leaf of a captured table that is not as it was; a plain table is its
// own leaf.
type change struct {
	root, leaf *relation
	was, now   sight
	detail     detail
	seen       bool // it was a leaf of this table before; else was says nothing
}

func (ch change) gap(reason, what string) *gap {
	if ch.leaf != ch.root {
		what += " (partition " + ch.leaf.String() + ")"
	}
	return &gap{table: ch.root, reason: reason, detail: what}
}

// judge decides whether rows changed without events. Rows are looked at only where
// the catalog leaves it open. Not answered: they could not be looked at now.
func (c *comparison) judge(ctx context.Context, ch change) (found *gap, answered bool) {
	if ch.now.flags&unlogged != 0 {
		return nil, true // its writes have no events; the state says so
	}
	rewritten := ch.now.file != ch.was.file
	values := ""
	switch {
	case !ch.seen && ch.leaf == ch.root || !ch.seen && c.bornBelow(ch):
		return nil, true
	case !ch.seen:
		values = "a partition was attached with rows"
	case ch.now.links != ch.was.links:
		return ch.gap(GapRewritten, "a partition was detached and attached again"), true
	case ch.was.flags&unlogged != 0:
		values = "a partition was unlogged for a while"
	default:
		values = changedValues(ch)
	}
	if values != "" {
		switch c.hasRows(ctx, ch.leaf) {
		case later:
			return nil, false
		case yes:
			return ch.gap(GapRewritten, values), true
		case no:
		}
	}
	if !ch.seen || !rewritten {
		return nil, true
	}
	return c.judgeFile(ctx, ch)
}

// judgeFile decides about rows that lie in another file than before, in columns that
// look the same: emptied, written anew with other values (ALTER COLUMN … USING), or
// only moved (VACUUM FULL, CLUSTER, SET TABLESPACE), which leaves them their xmin.
func (c *comparison) judgeFile(ctx context.Context, ch change) (found *gap, answered bool) {
	altered := ch.now.version != ch.was.version
	decoded := ch.leaf == ch.root && c.truncates(ch.root)
	if decoded && !altered {
		return nil, true
	}
	switch c.hasRowsFromBefore(ctx, ch.leaf) {
	case later:
		return nil, false
	case yes:
		return nil, true
	case no:
	}
	if altered {
		switch c.hasRows(ctx, ch.leaf) {
		case later:
			return nil, false
		case yes:
			return ch.gap(GapRewritten, "its rows were written anew"), true
		case no:
		}
	}
	if decoded {
		return nil, true
	}
	found = ch.gap(GapTruncated, "it was truncated")
	if ch.leaf != ch.root {
		found.xids = []uint32{ch.detail.xmin}
	}
	return found, true
}

// truncates reports whether TRUNCATE of the table is in the log.
func (c *comparison) truncates(r *relation) bool {
	return slices.ContainsFunc(c.pubs[:], func(p publication) bool { return p.truncate && p.covers(r) })
}

// bornBelow reports whether every row that the new leaf ever had was written to it as
// a part of the table.
func (c *comparison) bornBelow(ch change) bool {
	for r := ch.leaf; r != nil && r != ch.root; r = r.above {
		if !c.details[r.oid].born {
			return false
		}
	}
	return true
}

// The types between which a column can go without a new value.
const (
	typeText    = 25
	typeVarchar = 1043
)

// changedValues says what gave rows values that no event had.
func changedValues(ch change) string {
	before := typesOf(ch.was.types)
	rewritten := ch.now.file != ch.was.file
	for i, now := range typesOf(ch.now.types) {
		number := int16(i + 1)
		switch {
		case now == 0: // dropped, or not published
		case i >= len(before):
			if rewritten || slices.Contains(ch.detail.missing, number) {
				return fmt.Sprintf("column %d was added with a value for every row", number)
			}
		case before[i] == 0:
			return fmt.Sprintf("column %d is published since, with the values that it had", number)
		case before[i] != now:
			texts := isText(before[i]) && isText(now)
			if rewritten || !texts {
				return fmt.Sprintf("column %d has another type", number)
			}
		}
	}
	return ""
}

func isText(oid uint32) bool { return oid == typeText || oid == typeVarchar }

// answer is what looking at rows came to.
type answer int

const (
	no answer = iota
	yes
	later // locked, renamed, or no time left in this round
)

const (
	lookAtRows = time.Second            // one look takes no longer
	lookLocked = 100 * time.Millisecond // nor waits longer for its lock
)

// hasRows looks for any row: yes when it cannot be known.
func (c *comparison) hasRows(ctx context.Context, leaf *relation) answer {
	return c.look(ctx, leaf, "", yes)
}

// hasRowsFromBefore looks for a row that was written before the last survey: no when
// it cannot be known. Such rows were in the former file, and neither TRUNCATE nor a
// rewrite by ALTER TABLE leaves them as they are.
func (c *comparison) hasRowsFromBefore(ctx context.Context, leaf *relation) answer {
	if c.whole {
		return no
	}
	before := fmt.Sprintf(" WHERE pg_catalog.age(t.xmin) > (SELECT pg_catalog.age('%d'::xid))", uint32(c.memory.horizon))
	return c.look(ctx, leaf, before, no)
}

func (c *comparison) look(ctx context.Context, leaf *relation, where string, unknown answer) answer {
	if time.Now().After(c.until) || ctx.Err() != nil {
		return later
	}
	query := "SELECT EXISTS (SELECT FROM ONLY " + leaf.quoted() + " AS t" + where + "), $1::text::regclass::oid = '" + fmt.Sprint(leaf.oid) + "'::oid"
	var there, same bool
	err := pgx.BeginTxFunc(ctx, c.conn, pgx.TxOptions{AccessMode: pgx.ReadOnly}, func(tx pgx.Tx) error {
		if err := execAll(ctx, tx, []string{
			lockTimeout(min(lookLocked, c.patience)),
			fmt.Sprintf("SET LOCAL statement_timeout = %d", lookAtRows.Milliseconds()),
			"SET LOCAL jit = off",
			"SET LOCAL max_parallel_workers_per_gather = 0",
			"SET LOCAL row_security = off", // an error is better than the rows that a policy happens to show
		}); err != nil {
			return err
		}
		return tx.QueryRow(ctx, query, pgx.QueryExecModeExec, leaf.quoted()).Scan(&there, &same)
	})
	switch {
	case err != nil:
		return answerTo(err, unknown)
	case !same: // the name belongs to another table by now
		return later
	case there:
		return yes
	}
	return no
}

func answerTo(err error, unknown answer) answer {
	var refused *pgconn.PgError
	if !errors.As(err, &refused) {
		return later // the connection: the next round has another
	}
	switch refused.Code {
	case stateLocked, stateDeadlock, stateUndefinedTable, stateUndefinedSchema:
		return later
	}
	return unknown
}
