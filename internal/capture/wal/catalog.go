package wal

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"lockstep/internal/capture/value"
	"lockstep/internal/pattern"
)

// catalog answers what Relation messages leave open from the database's catalog.
// It is used by the goroutine that decodes.
type catalog struct {
	pool     *pgxpool.Pool
	types    *value.Catalog
	patterns pattern.Patterns
}

func newCatalog(pool *pgxpool.Pool, patterns pattern.Patterns, o value.Options) *catalog {
	fetch := func(ctx context.Context, asked []uint32) ([]value.Type, error) {
		return value.FetchTypes(ctx, pool, asked)
	}
	return &catalog{pool: pool, types: value.NewCatalog(fetch, o), patterns: patterns}
}

// Wanted implements relationSource.
func (c *catalog) Wanted(schema, name string) bool { return c.patterns.Match(schema, name) }

// Encoder implements relationSource.
func (c *catalog) Encoder(ctx context.Context, oid uint32) (value.Encoder, error) {
	ctx, cancel := context.WithTimeout(ctx, queryTimeout)
	defer cancel()
	return c.types.Encoder(ctx, oid)
}

// A deferrable primary key is none of the rows' under full identity: two rows may have
// it at once. The columns that an index INCLUDEs lie behind the key's. Stored
// generated columns have no place in the stream. pg_partition_tree would wait for
// whoever locks a partition.
const readKeys = `
WITH RECURSIVE tree AS (
  SELECT $1::oid AS oid
  UNION ALL
  SELECT i.inhrelid
  FROM pg_catalog.pg_inherits i
  JOIN tree ON i.inhparent = tree.oid
  JOIN pg_catalog.pg_class p ON p.oid = i.inhparent AND p.relkind = 'p'
), leaves AS (
  SELECT COALESCE(bool_or(l.relreplident = 'f'), false) AS somefull, COALESCE(bool_and(l.relreplident = 'f'), true) AS allfull
  FROM tree
  JOIN pg_catalog.pg_class l ON l.oid = tree.oid
  WHERE l.relkind <> 'p'
), columns AS (
  SELECT attnum, attname::text, (row_number() OVER (ORDER BY attnum) - 1)::int AS place
  FROM pg_catalog.pg_attribute
  WHERE attrelid = $1::oid AND attnum > 0 AND NOT attisdropped AND attgenerated = ''
)
SELECT COALESCE(i.indisprimary, false), COALESCE(k.names, '{}'), COALESCE(k.places, '{}'), (SELECT count(*) FROM columns),
       c.relreplident = 'f' AND NOT v.allfull, c.relreplident <> 'f' AND v.somefull
FROM pg_catalog.pg_class c
CROSS JOIN leaves v
LEFT JOIN pg_catalog.pg_index i ON i.indrelid = c.oid AND (i.indisprimary AND (i.indimmediate OR c.relreplident <> 'f' AND NOT v.somefull) OR i.indisreplident)
LEFT JOIN LATERAL (
  SELECT array_agg(a.attname ORDER BY u.n) AS names, array_agg(a.place ORDER BY u.n) AS places
  FROM unnest(i.indkey[0:i.indnkeyatts - 1]) WITH ORDINALITY AS u(attnum, n)
  JOIN columns a ON a.attnum = u.attnum
) k ON true
WHERE c.oid = $1::oid`

// Keys implements relationSource.
func (c *catalog) Keys(ctx context.Context, oid uint32) (tableKeys, error) {
	ctx, cancel := context.WithTimeout(ctx, queryTimeout)
	defer cancel()
	var keys tableKeys
	var primary bool
	var key tableKey
	rows, err := c.pool.Query(ctx, readKeys, oid)
	if err != nil {
		return keys, fmt.Errorf("read its keys: %w", err)
	}
	_, err = pgx.ForEachRow(rows, []any{&primary, &key.Names, &key.Places, &keys.Columns, &keys.PartlyFull, &keys.FullBelow}, func() error {
		if primary {
			keys.Primary = key
		} else {
			keys.Identity = key
		}
		key = tableKey{}
		return nil
	})
	if err != nil {
		return keys, fmt.Errorf("read its keys: %w", err)
	}
	return keys, nil
}
