package mirror

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"

	"github.com/jackc/pgx/v5"

	"lockstep/source"
)

// querier is a connection or a transaction.
type querier interface {
	Query(ctx context.Context, sql string, args ...any) (pgx.Rows, error)
	QueryRow(ctx context.Context, sql string, args ...any) pgx.Row
}

// tableName returns the name that the collection's table has, or shall have.
func (m *Mirror) tableName(ctx context.Context, q querier, collection string) (string, error) {
	const query = `
		SELECT collection, table_name
		FROM lockstep.sync_state
		WHERE sync_id = $1::uuid AND table_name <> ''`
	rows, err := q.Query(ctx, query, m.id)
	if err != nil {
		return "", err
	}
	taken := map[string]bool{}
	name, c, n := "", "", ""
	_, err = pgx.ForEachRow(rows, []any{&c, &n}, func() error {
		if taken[n] = true; c == collection {
			name = n
		}
		return nil
	})
	if err != nil || name != "" {
		return name, err
	}
	return fit(snake(collection), collection, func(n string) bool { return taken[n] }), nil
}

// knownColumns returns the notes of a collection's columns, oldest first.
func (m *Mirror) knownColumns(ctx context.Context, q querier, collection string) ([]column, error) {
	const query = `
		SELECT key, path, type, column_name, filled, fill_after
		FROM lockstep.sync_column
		WHERE sync_id = $1::uuid AND collection = $2::text
		ORDER BY added_at, key COLLATE "C", type`
	rows, err := q.Query(ctx, query, m.id, collection)
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, func(row pgx.CollectableRow) (c column, err error) {
		var typ string
		err = row.Scan(&c.key, &c.path, &typ, &c.name, &c.filled, &c.after)
		c.typ = source.Type(typ)
		return c, err
	})
}

// inspectRelation reads a table from Postgres' catalog.
func inspectRelation(ctx context.Context, q querier, schema, name string) (relation, error) {
	const query = `
		SELECT a.attname, format_type(a.atttypid, a.atttypmod), coalesce(col_description(c.oid, a.attnum), ''), a.attisdropped
		FROM pg_class c
		JOIN pg_namespace n ON n.oid = c.relnamespace
		JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0
		WHERE n.nspname = $1::text AND c.relname = $2::text
		ORDER BY a.attnum`
	rows, err := q.Query(ctx, query, schema, name)
	if err != nil {
		return relation{}, err
	}
	rel := relation{columns: map[string]relationColumn{}}
	var column, typ, comment string
	var dropped bool
	_, err = pgx.ForEachRow(rows, []any{&column, &typ, &comment, &dropped}, func() error {
		rel.exists = true
		if rel.used++; dropped {
			return nil
		}
		if typ == "timestamp with time zone" {
			typ = "timestamptz"
		}
		rel.columns[column] = relationColumn{typ: typ, comment: comment}
		if column == idColumn {
			rel.idType = typ
		}
		return nil
	})
	return rel, err
}

// noteShape writes down which field lies in which column.
func (m *Mirror) noteShape(ctx context.Context, tx pgx.Tx, t *table, p plan) error {
	const note = `
		INSERT INTO lockstep.sync_column AS c (sync_id, collection, key, type, path, column_name, filled, fill_after, added_at)
		VALUES ($1::uuid, $2::text, $3::text, $4::text, $5::text[], $6::text, $7::boolean, '', clock_timestamp())
		ON CONFLICT (sync_id, collection, key, type) DO UPDATE
		SET path = excluded.path, column_name = excluded.column_name, filled = excluded.filled, fill_after = ''`
	batch := &pgx.Batch{}
	for _, c := range p.changed {
		batch.Queue(note, m.id, t.collection.Name, c.key, string(c.typ), c.path, c.name, c.filled || c.name == "")
	}
	if err := tx.SendBatch(ctx, batch).Close(); err != nil {
		return err
	}
	told := p.told
	if len(p.changed) > 0 && len(told) == 0 {
		told = []string{fmt.Sprintf("%d columns", len(p.changed))}
	}
	if len(told) == 0 {
		return nil
	}
	const shown = 20
	if len(told) > shown {
		told = append(told[:shown:shown], fmt.Sprintf("and %d more", len(p.told)-shown))
	}
	return m.logSchema(ctx, tx, t, "changed", strings.Join(told, "; "))
}

func (m *Mirror) logSchema(ctx context.Context, tx pgx.Tx, t *table, outcome, message string) error {
	payload, _ := json.Marshal(map[string]any{"table": m.config.Schema + "." + t.name, "columns": len(t.columns)}) // strings and a number
	batch := &pgx.Batch{}
	m.queueEntries(batch, []Entry{{Kind: "schema", Collection: t.collection.Name, Outcome: outcome, Message: message, Payload: payload}})
	return tx.SendBatch(ctx, batch).Close()
}
