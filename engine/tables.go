package engine

import (
	"context"
	"fmt"
	"slices"
	"sync"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"lockstep"
	"lockstep/internal/api"
	"lockstep/internal/capture/wal"
)

// captured tells the API of a database's tables.
type captured struct{ *database }

// Tables implements [api.Captured].
func (c captured) Tables() []api.CapturedTable {
	states := c.reconciler.States()
	list := make([]api.CapturedTable, len(states))
	for i, t := range states {
		list[i] = api.CapturedTable{
			OID: t.OID, Schema: t.Schema, Name: t.Name, Kind: t.Kind, KeyColumns: t.KeyColumns, KeyKind: keyName(t.Key),
			ReplicaIdentity: identityName(t.Identity), Published: publishedName(t.Published), Reason: t.Reason, Remedy: t.Remedy, Note: t.Note,
		}
	}
	return list
}

func keyName(k lockstep.KeyKind) string {
	switch k {
	case lockstep.KeyPrimary:
		return "primary_key"
	case lockstep.KeyIdentity:
		return "replica_identity"
	case lockstep.KeyRow:
	}
	return "row"
}

func identityName(letter string) string {
	switch letter {
	case "d":
		return "default"
	case "i":
		return "index"
	case "f":
		return "full"
	}
	return "nothing"
}

// Measure implements [api.Captured].
func (c captured) Measure(ctx context.Context, oids []uint32) (map[uint32]api.TableSize, error) {
	return measure(ctx, c.pool, oids)
}

// Changes implements [api.Captured].
func (c captured) Changes() []api.SchemaChange { return c.alterations.newest() }

const (
	// The functions that know the true size take a lock for a moment, and wait for
	// whoever alters a table. relpages is what VACUUM and ANALYZE saw last.
	exactly = "pg_catalog.pg_total_relation_size(p.oid)"
	roughly = `current_setting('block_size')::bigint * (p.relpages::bigint
    + coalesce((SELECT k.relpages FROM pg_catalog.pg_class k WHERE k.oid = p.reltoastrelid), 0)
    + coalesce((SELECT sum(k.relpages) FROM pg_catalog.pg_index x JOIN pg_catalog.pg_class k ON k.oid = x.indexrelid WHERE x.indrelid = p.oid), 0))`

	// What the statistics count is told late, and twice around an ANALYZE: it is for
	// tables that nobody has looked at yet. pg_partition_tree would wait for whoever locks a partition.
	measureTables = `
WITH RECURSIVE tree AS (
  SELECT c.oid AS root, c.oid, c.relkind
  FROM pg_catalog.pg_class c
  WHERE c.oid = ANY($1::oid[])
  UNION ALL
  SELECT t.root, c.oid, c.relkind
  FROM tree t
  JOIN pg_catalog.pg_inherits i ON i.inhparent = t.oid AND t.relkind = 'p'
  JOIN pg_catalog.pg_class c ON c.oid = i.inhrelid
)
SELECT t.root, coalesce(sum(%s), 0)::bigint,
  coalesce(sum(CASE WHEN p.reltuples > 0 THEN p.reltuples::bigint ELSE pg_catalog.pg_stat_get_live_tuples(p.oid) END), 0)::bigint
FROM tree t
LEFT JOIN pg_catalog.pg_class p ON p.oid = t.oid AND p.relkind IN ('r', 'm')
GROUP BY t.root
HAVING bool_or(t.root = t.oid AND t.relkind IN ('r', 'p', 'm'))`
)

// measure returns the sizes of tables. While one of them is locked, all are estimates.
func measure(ctx context.Context, pool *pgxpool.Pool, oids []uint32) (map[uint32]api.TableSize, error) {
	sizes, err := measureBy(ctx, pool, exactly, oids)
	if err != nil && ctx.Err() == nil {
		sizes, err = measureBy(ctx, pool, roughly, oids)
	}
	if err != nil {
		return nil, fmt.Errorf("ask the database for the sizes of its tables: %w", err)
	}
	return sizes, nil
}

func measureBy(ctx context.Context, pool *pgxpool.Pool, way string, oids []uint32) (map[uint32]api.TableSize, error) {
	sizes := make(map[uint32]api.TableSize, len(oids))
	err := pgx.BeginTxFunc(ctx, pool, pgx.TxOptions{AccessMode: pgx.ReadOnly}, func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, "SET LOCAL statement_timeout = '1s'"); err != nil {
			return err
		}
		if _, err := tx.Exec(ctx, "SET LOCAL lock_timeout = '200ms'"); err != nil {
			return err
		}
		rows, err := tx.Query(ctx, fmt.Sprintf(measureTables, way), oids)
		if err != nil {
			return err
		}
		var oid uint32
		var size api.TableSize
		_, err = pgx.ForEachRow(rows, []any{&oid, &size.Bytes, &size.Rows}, func() error {
			sizes[oid] = size
			return nil
		})
		return err
	})
	return sizes, err
}

// keptAlterations is how many schema changes a database remembers.
const keptAlterations = 100

// alterations are the schema changes that capture saw last.
type alterations struct {
	mu   sync.Mutex
	last []api.SchemaChange // guarded by mu; the newest at the end
}

func (a *alterations) take(one wal.Alteration) {
	c := api.SchemaChange{Table: one.Schema + "." + one.Name, At: one.At.UTC(), More: one.More, Columns: make([]api.ColumnChange, len(one.Columns))}
	for i, column := range one.Columns {
		c.Columns[i] = api.ColumnChange(column)
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.last = append(a.last, c)
	if n := len(a.last) - keptAlterations; n > 0 {
		a.last = slices.Delete(a.last, 0, n)
	}
}

func (a *alterations) newest() []api.SchemaChange {
	a.mu.Lock()
	defer a.mu.Unlock()
	list := slices.Clone(a.last)
	slices.Reverse(list)
	return list
}
