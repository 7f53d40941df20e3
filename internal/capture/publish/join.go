package publish

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"lockstep/internal/obs"
	"lockstep/internal/pgdb"
)

// TableMessage announces the rows of a joining table, in a transactional logical
// message with prefix TablePrefix + secret.
type TableMessage struct {
	OID      uint32 `json:"oid"`
	Schema   string `json:"schema"`
	Name     string `json:"name"`
	KeyKind  string `json:"key_kind"` // as lockstep.KeyKind.String
	Identity string `json:"identity"` // as TableState.Identity
	// Columns are those of each row that follows, in this order: neither dropped nor
	// generated ones, unless the publication has stored generated columns too.
	Columns    []Column `json:"columns"`
	KeyColumns []string `json:"key_columns"` // in the order of the index
	// Rows says what follows: Follow (one message per row), or Missing (no row: the
	// table joined without those it had, and Reason says why).
	Rows   string `json:"rows"`
	Reason string `json:"reason,omitempty"`
}

// Column is one column of a joining table.
type Column struct {
	Name    string `json:"name"`
	TypeOID uint32 `json:"type_oid"`
	Key     bool   `json:"key"`
}

// The prefixes of the messages, before the secret, and the values of Rows.
const (
	TablePrefix = "lockstep:table:"
	RowPrefix   = "lockstep:row:"
	GapPrefix   = "lockstep:gap:" // changes may be missing; the content is a GapMessage
	Follow      = "follow"
	Missing     = "missing"
)

// joinTry remembers a table whose lock was not had.
type joinTry struct {
	attempts int
	next     time.Time
}

// joinedRow is what became of the rows of a table that joined.
type joinedRow struct {
	joined  Joined
	finding finding
}

const (
	joinBudget      = 2 * time.Second  // of a round for joining tables; the others come in the next one
	joinStatement   = 10 * time.Second // a joining table is locked for at most that
	joinLongestWait = 10 * time.Second // between attempts at one table's lock
	joinPartitions  = 500              // a table with more is not locked: each costs a place in the lock table
)

// joinAll takes in tables that were found after capture began.
func (rd *round) joinAll(ctx context.Context, p *publication, tables []*listed) {
	rd.forget(tables)
	began := time.Now()
	slices.SortFunc(tables, func(a, b *listed) int { return int(int64(a.relation.oid) - int64(b.relation.oid)) })
	for _, t := range tables {
		try := rd.joins[t.relation.oid]
		if try != nil && time.Now().Before(try.next) || time.Since(began) > joinBudget || ctx.Err() != nil {
			rd.outstanding = true
			t.state.add(finding{"waits to be taken in with its rows", ""})
			continue
		}
		rd.joinOne(ctx, p, t)
	}
}

// forget drops what is known of tables that are gone or were taken in otherwise.
func (rd *round) forget(tables []*listed) {
	there := make(map[uint32]bool, len(rd.all))
	for _, r := range rd.all {
		there[r.oid] = true
	}
	for oid := range rd.joins {
		if !there[oid] {
			delete(rd.joins, oid)
		}
	}
	for oid := range rd.rows {
		if !there[oid] {
			delete(rd.rows, oid)
		}
	}
	for _, t := range tables { // it was taken out since: what came of its rows then is over
		delete(rd.rows, t.relation.oid)
	}
}

func (rd *round) joinOne(ctx context.Context, p *publication, t *listed) {
	j := &joinTable{round: rd, pub: p, relation: t.relation, state: &t.state}
	join := j.join
	if rd.known(t.relation) {
		join = j.comeBack
	}
	if try := rd.joins[t.relation.oid]; try != nil && try.attempts >= rd.config.JoinAttempts {
		j.missing = fmt.Sprintf("writers never left it alone for the lock (%d attempts)", try.attempts)
	}
	// Read committed: what is read after the lock must see what was written before it.
	options := pgx.TxOptions{IsoLevel: pgx.ReadCommitted, AccessMode: pgx.ReadWrite}
	if err := pgx.BeginTxFunc(ctx, rd.conn, options, func(tx pgx.Tx) error { return join(ctx, tx) }); err != nil {
		rd.joinFailed(t, err)
		return
	}
	delete(rd.joins, t.relation.oid)
	t.relation.member[p.which] = true
	rd.joined[t.relation.oid] = j.place
	rd.changed++
	rd.joinDone(ctx, j)
}

func (rd *round) joinFailed(t *listed, err error) {
	rd.failed(t.relation, &t.state, err)
	if state := sqlState(err); state != stateLocked && state != stateDeadlock {
		return
	}
	try := rd.joins[t.relation.oid]
	if try == nil {
		try = new(joinTry)
		rd.joins[t.relation.oid] = try
	}
	wait := min(rd.config.Interval<<min(try.attempts, 10), joinLongestWait)
	try.attempts++
	try.next = time.Now().Add(wait)
}

func (rd *round) joinDone(ctx context.Context, j *joinTable) {
	key := []any{obs.KeyTable, j.relation.String(), obs.KeyCount, j.count}
	switch {
	case j.back != nil:
		rd.tell(ctx, []*gap{j.back})
		return
	case j.missing != "":
		rd.rows[j.relation.oid] = joinedRow{RowsMissing, finding{
			"it was taken in without the rows it had: " + j.missing, rd.backfill()}}
		rd.config.Logger.WarnContext(ctx, "a table is captured from now on, without the rows it had", append(key, obs.KeyReason, j.missing)...)
		return
	case j.count > 0:
		rd.rows[j.relation.oid] = joinedRow{joined: RowsSent}
	}
	rd.config.Logger.InfoContext(ctx, "a table is captured from now on", key...)
}

// joinTable is one table being taken in, in one transaction.
type joinTable struct {
	*round
	pub      *publication
	relation *relation
	state    *TableState
	columns  []Column
	place    place
	back     *gap   // of a table that was captured before
	count    int    // rows sent
	missing  string // why rows are missing; empty: none are
}

// place says where a table joined.
type place int

const (
	besideWriters place = iota + 1 // some may have written to it and not ended
	behindWriters
)

// errMoved: the name means another table than when the catalog was read.
var errMoved = errors.New("it was renamed in between")

// join adds the table, with its rows where that is possible.
func (j *joinTable) join(ctx context.Context, tx pgx.Tx) error {
	if err := j.begin(ctx, tx); err != nil {
		return err
	}
	if j.missing == "" {
		if err := j.measureOnDisk(ctx, tx); err != nil {
			return err
		}
	}
	if j.missing != "" {
		return j.addWithout(ctx, tx)
	}
	return j.addWithRows(ctx, tx)
}

func (j *joinTable) begin(ctx context.Context, tx pgx.Tx) error {
	if n := len(j.relation.leaves()); n > joinPartitions {
		j.missing = fmt.Sprintf("it has %d partitions; up to %d are locked together", n, joinPartitions)
	}
	return execAll(ctx, tx, append(pinned(), lockTimeout(j.config.JoinLockTimeout),
		fmt.Sprintf("SET LOCAL statement_timeout = %d", joinStatement.Milliseconds())))
}

// comeBack adds a table that was captured before. Its rows are in the log, as far as
// they were written until then; what is missing comes with the repair of the gap,
// which begins with the table's first change.
func (j *joinTable) comeBack(ctx context.Context, tx pgx.Tx) error {
	if err := j.begin(ctx, tx); err != nil {
		return err
	}
	if err := j.add(ctx, tx); err != nil {
		return err
	}
	j.back = j.outsideGap(j.relation)
	return j.emitGaps(ctx, tx, []*gap{j.back})
}

// add puts the table into the publication: behind everybody who writes to it, as long
// as nothing is missing. The lock is one up from SHARE, which ALTER PUBLICATION would
// have to strengthen, and two that do this at once would then wait for each other.
// Else the lock is one that writers do not notice, so it may be waited for longer.
func (j *joinTable) add(ctx context.Context, tx pgx.Tx) error {
	add := j.pub.adds(j.relation.target())
	if j.missing != "" {
		j.place = besideWriters
		return execAll(ctx, tx, []string{lockTimeout(j.patience), add})
	}
	j.place = behindWriters
	return execAll(ctx, tx, []string{"LOCK TABLE " + j.source() + " IN SHARE ROW EXCLUSIVE MODE", add})
}

// measureOnDisk tells tables by their size that would take too long to read. It
// takes an AccessShareLock on them.
func (j *joinTable) measureOnDisk(ctx context.Context, tx pgx.Tx) error {
	const sizeOfTable = `
SELECT coalesce(pg_catalog.pg_table_size($1::oid), 0)`
	const sizeOfPartitions = `
SELECT coalesce(sum(pg_catalog.pg_table_size(relid)), 0)::bigint
FROM pg_catalog.pg_partition_tree($1::oid::regclass)
WHERE isleaf`
	query := sizeOfTable
	if j.relation.kind == 'p' {
		query = sizeOfPartitions
	}
	var size int64
	if err := tx.QueryRow(ctx, query, j.relation.oid).Scan(&size); err != nil {
		return err
	}
	// A table may be bloated, or its values compressed: only what is far beyond the
	// limit is told by its size alone.
	if limit := int64(j.config.JoinBytes) * 4; size > limit {
		j.missing = fmt.Sprintf("it has %d MB on disk", size>>20)
	}
	return nil
}

// addWithRows adds the table and writes its rows into the log, while nobody can
// write to it.
func (j *joinTable) addWithRows(ctx context.Context, tx pgx.Tx) error {
	if err := j.add(ctx, tx); err != nil {
		return err
	}
	if err := j.readColumns(ctx, tx); err != nil {
		return err
	}
	// In a savepoint: rows that cannot be read (row security, a privilege taken from
	// the owner, a type's output function that fails) do not keep the table out.
	err := pgx.BeginFunc(ctx, tx, func(inner pgx.Tx) error { return j.sendRows(ctx, inner) })
	switch {
	case err == nil && j.missing == "":
		return nil
	case err != nil && ctx.Err() != nil:
		return err
	case err != nil:
		j.count, j.missing = 0, "they cannot be read: "+reasonOf(err)
	}
	return j.announce(ctx, tx, Missing)
}

// source is what the rows are read from: of a partitioned table, every partition.
func (j *joinTable) source() string {
	if j.relation.kind == 'p' {
		return j.relation.quoted()
	}
	return j.relation.target()
}

// addWithout adds the table, and says in the log that its rows are missing.
func (j *joinTable) addWithout(ctx context.Context, tx pgx.Tx) error {
	if err := j.add(ctx, tx); err != nil {
		return err
	}
	if err := j.readColumns(ctx, tx); err != nil {
		return err
	}
	return j.announce(ctx, tx, Missing)
}

// pinned are the settings under which the walsender of capture writes values.
func pinned() []string {
	return []string{
		"SET LOCAL DateStyle = 'ISO'",
		"SET LOCAL IntervalStyle = 'postgres'",
		"SET LOCAL TimeZone = 'UTC'",
		"SET LOCAL extra_float_digits = 3",
		"SET LOCAL bytea_output = 'hex'",
		"SET LOCAL search_path = pg_catalog",
		// An error is better than the rows that a policy happens to show.
		"SET LOCAL row_security = off",
	}
}

func (j *joinTable) readColumns(ctx context.Context, tx pgx.Tx) error {
	const query = `
SELECT a.attname::text, a.atttypid
FROM pg_catalog.pg_attribute a
WHERE a.attrelid = $1::oid
  AND a.attnum > 0
  AND NOT a.attisdropped
  AND (a.attgenerated = '' OR a.attgenerated = 's' AND $2::boolean)
ORDER BY a.attnum`
	const same = `SELECT $1::text::regclass::oid = $2::oid`
	var unmoved bool
	if err := tx.QueryRow(ctx, same, j.relation.quoted(), j.relation.oid).Scan(&unmoved); err != nil {
		return err
	}
	if !unmoved {
		return errMoved
	}
	rows, err := tx.Query(ctx, query, j.relation.oid, j.pub.generated)
	if err != nil {
		return err
	}
	j.columns, err = pgx.CollectRows(rows, func(row pgx.CollectableRow) (c Column, err error) {
		err = row.Scan(&c.Name, &c.TypeOID)
		c.Key = slices.Contains(j.state.KeyColumns, c.Name)
		return c, err
	})
	return err
}

// sendRows announces the table and sends its rows, when they are not too many.
func (j *joinTable) sendRows(ctx context.Context, tx pgx.Tx) error {
	fields := make([]string, len(j.columns))
	for i, c := range j.columns {
		fields[i] = "t." + pgdb.QuoteIdent(c.Name)
	}
	row := "ROW(" + strings.Join(fields, ", ") + ")::text"
	from := j.source() + " AS t"
	measure := "SELECT count(*), coalesce(sum(octet_length(r)), 0)::bigint FROM (SELECT " + row + " AS r FROM " + from + " LIMIT $1::bigint) AS limited"
	var count, size int64
	if err := tx.QueryRow(ctx, measure, pgx.QueryExecModeExec, j.config.JoinRows+1).Scan(&count, &size); err != nil {
		return err
	}
	switch {
	case count == 0:
		return nil
	case count > int64(j.config.JoinRows):
		j.missing = fmt.Sprintf("it has more than %d", j.config.JoinRows)
		return nil
	case size > int64(j.config.JoinBytes):
		j.missing = fmt.Sprintf("they have %d MB", size>>20)
		return nil
	case j.config.JoinSecret == "":
		j.missing = "there is no join secret in the configuration"
		return nil
	}
	if err := j.announce(ctx, tx, Follow); err != nil {
		return err
	}
	send := "SELECT count(pg_catalog.pg_logical_emit_message(true, $1::text, " + row + ")) FROM " + from
	return tx.QueryRow(ctx, send, pgx.QueryExecModeExec, RowPrefix+j.config.JoinSecret).Scan(&j.count)
}

func (j *joinTable) announce(ctx context.Context, tx pgx.Tx, rows string) error {
	if j.config.JoinSecret == "" {
		return nil
	}
	content, err := json.Marshal(TableMessage{
		OID: j.relation.oid, Schema: j.relation.schema, Name: j.relation.name,
		KeyKind: j.state.Key.String(), Identity: j.state.Identity,
		Columns: orEmpty(j.columns), KeyColumns: orEmpty(j.state.KeyColumns),
		Rows: rows, Reason: j.missing,
	})
	if err != nil {
		return fmt.Errorf("announce %s: %w", j.relation, err)
	}
	_, err = tx.Exec(ctx, `SELECT pg_catalog.pg_logical_emit_message(true, $1::text, $2::text)`, TablePrefix+j.config.JoinSecret, string(content))
	return err
}

// orEmpty makes a list that JSON shows as [].
func orEmpty[T any](list []T) []T { return append([]T{}, list...) }
