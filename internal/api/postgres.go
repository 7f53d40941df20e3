package api

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"

	"lockstep"
	"lockstep/internal/auth"
	"lockstep/internal/deliver"
)

// Postgres keeps definitions of consumers in lockstep.consumer and the audit in
// lockstep.audit.
type Postgres struct {
	Pool *pgxpool.Pool
	// Sealer keeps the secrets of settings; nil: settings are stored without them.
	Sealer Sealer
}

var (
	_ Definitions = Postgres{}
	_ Auditor     = Postgres{}
)

const uniqueViolation = "23505"

const insertConsumer = `
INSERT INTO lockstep.consumer (id, name, kind, database, definition, paused, managed_by, created_at, updated_at)
VALUES ($1::uuid, $2::text, $3::text, $4::text, $5::jsonb, $6::boolean, $7::text, $8::timestamptz, $9::timestamptz)`

// Insert implements [Definitions].
func (p Postgres) Insert(ctx context.Context, d deliver.Definition) error {
	definition, err := p.encode(d)
	if err != nil {
		return err
	}
	_, err = p.Pool.Exec(ctx, insertConsumer, d.ID, d.Name, d.Kind, d.Database, definition, d.Paused, d.ManagedBy, d.CreatedAt, d.UpdatedAt)
	return nameTaken(err, d.Name)
}

const updateConsumer = `
UPDATE lockstep.consumer
SET name = $2::text, definition = $3::jsonb, paused = $4::boolean, updated_at = $5::timestamptz, managed_by = $6::text
WHERE id = $1::uuid`

// Update implements [Definitions].
func (p Postgres) Update(ctx context.Context, d deliver.Definition) error {
	definition, err := p.encode(d)
	if err != nil {
		return err
	}
	tag, err := p.Pool.Exec(ctx, updateConsumer, d.ID, d.Name, definition, d.Paused, d.UpdatedAt, d.ManagedBy)
	if err == nil && tag.RowsAffected() == 0 {
		return fmt.Errorf("consumer %s: %w", d.ID, lockstep.ErrNotFound)
	}
	return nameTaken(err, d.Name)
}

// nameTaken tells a name in use and a database that is down from other errors.
func nameTaken(err error, name string) error {
	var pg *pgconn.PgError
	if errors.As(err, &pg) && pg.Code == uniqueViolation {
		return fmt.Errorf("there is a consumer %q already: %w", name, lockstep.ErrConflict)
	}
	return auth.Down(err)
}

const deleteConsumer = `
DELETE FROM lockstep.consumer
WHERE id = $1::uuid`

// Delete implements [Definitions]. A definition that is not there is no error.
func (p Postgres) Delete(ctx context.Context, id string) error {
	_, err := p.Pool.Exec(ctx, deleteConsumer, id)
	return auth.Down(err)
}

const switchConsumer = `
INSERT INTO lockstep.consumer (id, name, kind, database, definition, paused, managed_by, created_at, updated_at)
VALUES ($1::uuid, $2::text, $3::text, $4::text, $5::jsonb, $6::boolean, $7::text, $8::timestamptz, now())
ON CONFLICT (id) DO UPDATE
SET paused = excluded.paused, updated_at = now()`

// Switched implements [Definitions]. Consumers of the configuration get a row, too.
func (p Postgres) Switched(ctx context.Context, d deliver.Definition) error {
	definition, err := p.encode(d)
	if err != nil {
		return err
	}
	_, err = p.Pool.Exec(ctx, switchConsumer, d.ID, d.Name, d.Kind, d.Database, definition, d.Paused, d.ManagedBy, d.CreatedAt)
	return nameTaken(err, d.Name)
}

const loadConsumers = `
SELECT id::text, name, kind, database, definition, paused, managed_by, created_at, updated_at
FROM lockstep.consumer
ORDER BY created_at, id`

// Load returns every definition that is stored, oldest first. Those managed by file
// are there for whether they are paused: the configuration defines them.
func (p Postgres) Load(ctx context.Context) ([]deliver.Definition, error) {
	rows, err := p.Pool.Query(ctx, loadConsumers)
	if err != nil {
		return nil, fmt.Errorf("read the definitions of consumers: %w", auth.Down(err))
	}
	out, err := pgx.CollectRows(rows, p.scanDefinition)
	if err != nil {
		return nil, fmt.Errorf("read the definitions of consumers: %w", auth.Down(err))
	}
	return out, nil
}

func (p Postgres) scanDefinition(row pgx.CollectableRow) (deliver.Definition, error) {
	var d deliver.Definition
	var definition []byte
	var paused bool
	var name, kind, database, by string
	if err := row.Scan(&d.ID, &name, &kind, &database, &definition, &paused, &by, &d.CreatedAt, &d.UpdatedAt); err != nil {
		return d, err
	}
	var body stored
	if err := json.Unmarshal(definition, &body); err != nil {
		return d, fmt.Errorf("consumer %s: its definition is not readable: %w", name, err)
	}
	var f faults
	body.apply(&d, &f)
	if err := f.problem(); err != nil {
		return d, fmt.Errorf("consumer %s: its definition is not usable: %w", name, err)
	}
	d.Name, d.Kind, d.Database, d.Paused, d.ManagedBy, d.AppliedFrom = name, kind, database, paused, by, body.AppliedFrom
	p.unseal(&d, body)
	d.CreatedAt, d.UpdatedAt = d.CreatedAt.UTC(), d.UpdatedAt.UTC()
	d.Defaults()
	return d, nil
}

const insertAudit = `
INSERT INTO lockstep.audit (at, actor, action, target, before, after, remote)
VALUES ($1::timestamptz, $2::text, $3::text, $4::text, $5::jsonb, $6::jsonb, $7::text)`

// Record implements [Auditor].
func (p Postgres) Record(ctx context.Context, e Entry) error {
	_, err := p.Pool.Exec(ctx, insertAudit, e.At, e.Actor, e.Action, e.Target, nullable(e.Before), nullable(e.After), e.Remote)
	if err != nil {
		return fmt.Errorf("store an entry of the audit: %w", err)
	}
	return nil
}

// nullable makes no JSON an SQL NULL.
func nullable(raw json.RawMessage) any {
	if raw == nil {
		return nil
	}
	return []byte(raw)
}

// bodyOf is the definition in the words of the configuration, as it is stored.
func bodyOf(d deliver.Definition) ConsumerBody {
	actions := []string{}
	for _, a := range d.Actions {
		actions = append(actions, a.String())
	}
	tables := append([]string{}, d.Tables...)
	span := func(text string) *Span { return &Span{text: text} }
	b := ConsumerBody{
		Name: &d.Name, Kind: &d.Kind, Database: &d.Database, Tables: &tables, Actions: &actions, Filter: &d.Filter, Transform: &d.Transform,
		Start: &d.Start, Backfill: &d.Backfill, OrderBy: &OrderBy{d.OrderBy}, AckWait: span(spanText(d.AckWait)), MaxInFlight: &d.MaxInFlight, MaxAttempts: &d.MaxAttempts,
		OnExhausted: &d.OnExhausted, Backoff: &BackoffBody{First: span(spanText(d.Backoff.First)), Max: span(spanText(d.Backoff.Max)), Jitter: &d.Backoff.Jitter},
	}
	if len(d.Collections) > 0 {
		b.Collections, b.Sync = &d.Collections, &d.Sync
	}
	if d.Batch != (deliver.Batch{Size: 1}) && d.Batch != (deliver.Batch{}) {
		b.Batch = &BatchBody{Size: &d.Batch.Size, Wait: span(spanText(d.Batch.Wait))}
	}
	b.show(d.Kind, d.Shown)
	if len(d.Metadata) > 0 {
		b.Metadata = &Anything{d.Metadata}
	}
	return b
}

const (
	publishConsumer = `
INSERT INTO lockstep.consumer (id, name, kind, database, definition, paused, managed_by, created_at, updated_at)
VALUES ($1::uuid, $2::text, $3::text, $4::text, $5::jsonb, $6::boolean, 'file', $7::timestamptz, $7::timestamptz)
ON CONFLICT (id) DO UPDATE
SET definition = excluded.definition, kind = excluded.kind, database = excluded.database, managed_by = 'file',
    updated_at = CASE WHEN consumer.definition = excluded.definition THEN consumer.updated_at ELSE excluded.updated_at END`
	retireConsumers = `
DELETE FROM lockstep.consumer
WHERE managed_by = 'file' AND id <> ALL ($1::uuid[])`
)

// Publish makes the table show the consumers that the configuration defines, and no
// others that it defined before. A name that a consumer made by API has is
// [lockstep.ErrConflict].
func (p Postgres) Publish(ctx context.Context, file []deliver.Definition) error {
	var batch pgx.Batch
	ids := make([]string, len(file))
	for i, d := range file {
		ids[i] = d.ID
	}
	batch.Queue(retireConsumers, ids)
	for _, d := range file {
		definition, err := p.encode(d)
		if err != nil {
			return err
		}
		batch.Queue(publishConsumer, d.ID, d.Name, d.Kind, d.Database, definition, d.Paused, d.CreatedAt)
	}
	if err := p.Pool.SendBatch(ctx, &batch).Close(); err != nil {
		return fmt.Errorf("show the consumers of the configuration in lockstep.consumer: %w", nameTaken(err, "of the configuration"))
	}
	return nil
}
