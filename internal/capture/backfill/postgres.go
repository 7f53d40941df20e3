package backfill

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"

	"lockstep"
)

// Postgres is the [Store] in the control plane: tables lockstep.backfill and
// lockstep.backfill_table.
type Postgres struct{ Pool *pgxpool.Pool }

var _ Store = Postgres{}

const (
	storeTimeout = 10 * time.Second // of one call
	keptEnded    = 100              // ended jobs per consumer that are kept beside the definition's
	listed       = 1000
)

const jobColumns = `
SELECT id::text, n, database, coalesce(consumer_id::text, ''), consumer, gap, origin, condition, state, reason,
  rows, total, overridden, deletes, seq, revision, created_at, started_at, ended_at
FROM lockstep.backfill`

// Active implements [Store].
func (p Postgres) Active(ctx context.Context) ([]Record, error) {
	return p.read(ctx, "read the backfills that go on", jobColumns+`
WHERE state IN ('running', 'waiting', 'paused')
ORDER BY created_at, id`)
}

// List implements [Store].
func (p Postgres) List(ctx context.Context, f Filter) ([]Record, error) {
	return p.read(ctx, "list the backfills", jobColumns+`
WHERE ($1::text = '' OR consumer_id::text = $1::text OR consumer = $1::text)
  AND ($2::text = '' OR database = $2::text)
  AND (NOT $3::boolean OR gap)
  AND (NOT $4::boolean OR state IN ('running', 'waiting', 'paused'))
ORDER BY created_at DESC, id DESC
LIMIT $5::int`, f.Consumer, f.Database, f.Gap, f.Active, listed)
}

// Find implements [Store].
func (p Postgres) Find(ctx context.Context, id string) (Record, error) {
	return p.one(ctx, "find backfill "+id, jobColumns+`
WHERE id::text = lower($1::text)`, id)
}

// Number implements [Store].
func (p Postgres) Number(ctx context.Context, consumerID string, n int) (Record, error) {
	return p.one(ctx, fmt.Sprintf("find backfill %d of consumer %s", n, consumerID), jobColumns+`
WHERE consumer_id::text = lower($1::text) AND n = $2::int`, consumerID, n)
}

// Defined implements [Store].
func (p Postgres) Defined(ctx context.Context, consumerID string) (there bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, storeTimeout)
	defer cancel()
	const query = `
SELECT EXISTS (
  SELECT
  FROM lockstep.backfill
  WHERE consumer_id::text = lower($1::text) AND origin = 'definition'
)`
	if err := p.Pool.QueryRow(ctx, query, consumerID).Scan(&there); err != nil {
		return false, storeError("look for the first backfill of consumer "+consumerID, err)
	}
	return there, nil
}

// Create implements [Store].
func (p Postgres) Create(ctx context.Context, r Record) (Record, error) {
	const insert = `
INSERT INTO lockstep.backfill (id, n, database, consumer_id, consumer, gap, origin, condition, state, reason, total, seq, created_at, started_at, ended_at)
SELECT $1::uuid, coalesce(max(b.n), 0) + 1, $2::text, nullif($3::text, '')::uuid, $4::text, $5::boolean, $6::text, $7::text, $8::text, $9::text,
  $10::bigint, $11::bigint, $12::timestamptz, $13::timestamptz, $14::timestamptz
FROM lockstep.backfill b
WHERE CASE WHEN $5::boolean THEN b.gap AND b.database = $2::text ELSE b.consumer_id = nullif($3::text, '')::uuid END
RETURNING n`
	const prune = `
DELETE FROM lockstep.backfill
WHERE id IN (
  SELECT id
  FROM lockstep.backfill
  WHERE CASE WHEN $1::boolean THEN gap AND database = $2::text ELSE consumer_id = nullif($3::text, '')::uuid END
    AND ended_at IS NOT NULL AND origin <> 'definition'
  ORDER BY n DESC
  OFFSET $4::int
)`
	ctx, cancel := context.WithTimeout(ctx, storeTimeout)
	defer cancel()
	r.Revision = 1
	err := pgx.BeginFunc(ctx, p.Pool, func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, prune, r.Gap, r.Database, r.ConsumerID, keptEnded); err != nil {
			return err
		}
		err := tx.QueryRow(ctx, insert, r.ID, r.Database, r.ConsumerID, r.Consumer, r.Gap, r.Origin, r.Where, string(r.State), r.Reason,
			int64(r.Total), int64(r.Seq), r.CreatedAt, moment(r.StartedAt), moment(r.EndedAt)).Scan(&r.N)
		if err != nil {
			return err
		}
		all := make([]int, len(r.Tables))
		for i := range all {
			all[i] = i
		}
		return saveTables(ctx, tx, &r, all)
	})
	if err != nil {
		return r, storeError("create a backfill", err)
	}
	return r, nil
}

// Save implements [Store].
func (p Postgres) Save(ctx context.Context, r Record, tables []int) error {
	const update = `
UPDATE lockstep.backfill
SET consumer = $3::text, state = $4::text, reason = $5::text, rows = $6::bigint, total = $7::bigint, overridden = $8::bigint, deletes = $9::bigint,
  seq = $10::bigint, started_at = $11::timestamptz, ended_at = $12::timestamptz, revision = $2::bigint + 1, writer = $13::text, updated_at = now()
WHERE id = $1::uuid AND (revision = $2::bigint OR revision = $2::bigint + 1 AND writer = $13::text)`
	ctx, cancel := context.WithTimeout(ctx, storeTimeout)
	defer cancel()
	err := pgx.BeginFunc(ctx, p.Pool, func(tx pgx.Tx) error {
		tag, err := tx.Exec(ctx, update, r.ID, r.Revision, r.Consumer, string(r.State), r.Reason, int64(r.Rows), int64(r.Total), int64(r.Overridden), int64(r.Deletes),
			int64(r.Seq), moment(r.StartedAt), moment(r.EndedAt), r.Writer)
		if err != nil {
			return err
		}
		if tag.RowsAffected() == 0 {
			return fmt.Errorf("another node has changed it, or it was deleted by hand: %w", lockstep.ErrFenced)
		}
		return saveTables(ctx, tx, &r, tables)
	})
	if err != nil {
		return storeError("save backfill "+r.ID, err)
	}
	return nil
}

func saveTables(ctx context.Context, tx pgx.Tx, r *Record, tables []int) error {
	const upsert = `
INSERT INTO lockstep.backfill_table (backfill_id, place, oid, schema, name, state, reason, rows, total, position)
VALUES ($1::uuid, $2::int, $3::oid, $4::text, $5::text, $6::text, $7::text, $8::bigint, $9::bigint, $10::jsonb)
ON CONFLICT (backfill_id, place) DO UPDATE
SET oid = excluded.oid, schema = excluded.schema, name = excluded.name, state = excluded.state, reason = excluded.reason,
  rows = excluded.rows, total = excluded.total, position = excluded.position`
	batch := &pgx.Batch{}
	for _, i := range tables {
		t, at := &r.Tables[i], &r.Places[i]
		position, err := json.Marshal(at.Position)
		if err != nil {
			return err
		}
		batch.Queue(upsert, r.ID, i, at.OID, at.Schema, at.Name, string(t.State), t.Reason, int64(t.Rows), int64(t.Total), position)
	}
	return tx.SendBatch(ctx, batch).Close()
}

func (p Postgres) one(ctx context.Context, doing, query string, args ...any) (Record, error) {
	found, err := p.read(ctx, doing, query, args...)
	if err != nil {
		return Record{}, err
	}
	if len(found) == 0 {
		return Record{}, fmt.Errorf("%s: %w", doing, lockstep.ErrNotFound)
	}
	return found[0], nil
}

// read returns jobs with their tables, as they are at one moment.
func (p Postgres) read(ctx context.Context, doing, query string, args ...any) ([]Record, error) {
	ctx, cancel := context.WithTimeout(ctx, storeTimeout)
	defer cancel()
	var found []Record
	options := pgx.TxOptions{IsoLevel: pgx.RepeatableRead, AccessMode: pgx.ReadOnly}
	err := pgx.BeginTxFunc(ctx, p.Pool, options, func(tx pgx.Tx) error {
		rows, err := tx.Query(ctx, query, args...)
		if err != nil {
			return err
		}
		if found, err = pgx.CollectRows(rows, scanJob); err != nil {
			return err
		}
		return readTables(ctx, tx, found)
	})
	if err != nil {
		return nil, storeError(doing, err)
	}
	return found, nil
}

func scanJob(row pgx.CollectableRow) (r Record, err error) {
	var rows, total, overridden, deletes, seq int64
	var started, ended *time.Time
	err = row.Scan(&r.ID, &r.N, &r.Database, &r.ConsumerID, &r.Consumer, &r.Gap, &r.Origin, &r.Where, &r.State, &r.Reason,
		&rows, &total, &overridden, &deletes, &seq, &r.Revision, &r.CreatedAt, &started, &ended)
	r.Rows, r.Total, r.Overridden, r.Deletes, r.Seq = uint64(rows), uint64(total), uint64(overridden), uint64(deletes), uint64(seq)
	if started != nil {
		r.StartedAt = *started
	}
	if ended != nil {
		r.EndedAt = *ended
	}
	return r, err
}

func readTables(ctx context.Context, tx pgx.Tx, found []Record) error {
	const query = `
SELECT backfill_id::text, oid, schema, name, state, reason, rows, total, position
FROM lockstep.backfill_table
WHERE backfill_id = ANY($1::uuid[])
ORDER BY backfill_id, place`
	ids, byID := make([]string, len(found)), make(map[string]*Record, len(found))
	for i := range found {
		ids[i], byID[found[i].ID] = found[i].ID, &found[i]
	}
	rows, err := tx.Query(ctx, query, ids)
	if err != nil {
		return err
	}
	var (
		id          string
		at          Place
		t           TableProgress
		sent, total int64
		position    []byte
	)
	_, err = pgx.ForEachRow(rows, []any{&id, &at.OID, &at.Schema, &at.Name, &t.State, &t.Reason, &sent, &total, &position}, func() error {
		at.Position = Position{}
		if err := json.Unmarshal(position, &at.Position); err != nil {
			return fmt.Errorf("the position in table %s.%s of backfill %s: %w", at.Schema, at.Name, id, err)
		}
		t.Name, t.Rows, t.Total = at.Schema+"."+at.Name, uint64(sent), uint64(total)
		r := byID[id]
		r.Tables, r.Places = append(r.Tables, t), append(r.Places, at)
		return nil
	})
	return err
}

// moment is a time that may be missing.
func moment(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	return &t
}

// storeError says of an error whether it may pass: everything that Postgres did not
// refuse by itself does.
func storeError(doing string, err error) error {
	if errors.Is(err, lockstep.ErrFenced) {
		return fmt.Errorf("%s: %w", doing, err)
	}
	if refused, ok := errors.AsType[*pgconn.PgError](err); ok && !passes(refused.Code) {
		return fmt.Errorf("%s in the control plane: %w", doing, err)
	}
	return fmt.Errorf("%s: the control plane does not answer: %w: %w", doing, err, lockstep.ErrUnavailable)
}
