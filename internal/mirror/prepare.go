package mirror

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"lockstep"
	"lockstep/internal/obs"
	"lockstep/internal/pgdb"
	"lockstep/source"
)

const (
	// lockWait is how long a change of a table waits for its lock, and so how long
	// at most others wait behind it.
	lockWait = 200 * time.Millisecond
	// prepareTries is how often Prepare tries for a lock, a second apart, before it
	// goes on without the new columns; they come when the lock is free.
	prepareTries = 5
)

// Prepare makes the collections' tables, and adds the columns that they lack. It
// never drops, renames or alters what is there. Where a table cannot be locked soon,
// its new columns come later and are filled then. What does not concern an error's
// table has been done.
//
// Errors: [lockstep.ErrFenced] without the lock; [lockstep.ErrConflict] when there is
// a table of that name that is no mirror; [lockstep.ErrInvalid] when the role may
// not make the schema or its tables.
func (m *Mirror) Prepare(ctx context.Context, collections []source.Collection) error {
	var failed []error
	for _, c := range collections {
		if err := m.prepare(ctx, c); err != nil {
			failed = append(failed, err)
		}
		if ctx.Err() != nil {
			break
		}
	}
	return errors.Join(failed...)
}

func (m *Mirror) prepare(ctx context.Context, c source.Collection) error {
	for tries := 1; ; tries++ {
		err := m.prepareOnce(ctx, c, declared(c))
		if !isLockTimeout(err) || tries == prepareTries {
			if isLockTimeout(err) {
				return m.later(ctx, c, err)
			}
			return err
		}
		m.log.InfoContext(ctx, "a table's new columns wait for its lock", obs.KeySync, m.config.Name, obs.KeyCollection, c.Name, obs.KeyAttempt, tries)
		select {
		case <-time.After(time.Second):
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// later lets a table that is there go on with the columns that it has.
func (m *Mirror) later(ctx context.Context, c source.Collection, err error) error {
	if err := m.enter(ctx); err != nil {
		return err
	}
	defer m.leave()
	t, ok := m.table(c.Name)
	if !ok {
		return m.shapeError(c, err)
	}
	t.await(declared(c))
	return nil
}

// await notes fields whose columns come later.
func (t *table) await(fields []field) {
	for _, f := range fields {
		if !slices.ContainsFunc(t.pending, func(p field) bool { return p.key == f.key && p.typ == f.typ }) {
			t.pending = append(t.pending, f)
		}
	}
}

func (m *Mirror) table(collection string) (*table, bool) {
	t, ok := m.tables.Load(collection)
	if !ok {
		return nil, false
	}
	return t.(*table), true
}

func (m *Mirror) prepareOnce(ctx context.Context, c source.Collection, fields []field) error {
	if err := m.enter(ctx); err != nil {
		return err
	}
	defer m.leave()
	conn, err := m.session(ctx)
	if err != nil {
		return err
	}
	if err := m.shape(ctx, conn, c, fields); err != nil {
		return m.shapeError(c, err)
	}
	return nil
}

func (m *Mirror) shapeError(c source.Collection, err error) error {
	if refused, ok := errors.AsType[*pgconn.PgError](err); ok && refused.Code == "42501" {
		return fmt.Errorf("prepare %s of sync %q: %s: as an administrator run CREATE SCHEMA IF NOT EXISTS %s, and ALTER SCHEMA and ALTER TABLE … OWNER TO the role of this sync: %w",
			c.Name, m.config.Name, refused.Message, pgdb.QuoteIdent(m.config.Schema), lockstep.ErrInvalid)
	}
	return fmt.Errorf("prepare %s of sync %q: %w", c.Name, m.config.Name, passing(err))
}

// shape brings a collection's table to the fields, in one transaction.
func (m *Mirror) shape(ctx context.Context, conn *pgx.Conn, c source.Collection, fields []field) error {
	t := &table{collection: c}
	if old, ok := m.table(c.Name); ok {
		t.pending = old.pending
		fields = append(slices.Clip(fields), old.pending...)
	}
	t.plan.Store(newPathSet(c.Volatile))
	err := m.within(ctx, conn, func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, fmt.Sprintf("SET LOCAL lock_timeout = '%dms'", lockWait.Milliseconds())); err != nil {
			return err
		}
		return m.shapeIn(ctx, tx, t, fields)
	})
	if err != nil {
		if ok := isLockTimeout(err); ok {
			m.keepShape(ctx, conn, t)
		}
		return err
	}
	t.pending = nil
	t.arrange(m.config.Schema)
	m.tables.Store(c.Name, t)
	return nil
}

// keepShape takes the table as it is, so that pages can go on while it is locked.
func (m *Mirror) keepShape(ctx context.Context, conn *pgx.Conn, t *table) {
	rel, err := m.inspect(ctx, conn, t)
	if err != nil || !rel.exists {
		return
	}
	p := planColumns(rel, t.columns, nil)
	if len(p.add) > 0 { // without those that it lacks
		p.columns = slices.DeleteFunc(p.columns, func(c column) bool {
			return slices.ContainsFunc(p.add, func(a column) bool { return a.name == c.name })
		})
	}
	t.columns, t.idType = p.columns, rel.idType
	t.arrange(m.config.Schema)
	m.tables.Store(t.collection.Name, t)
}

// inspect reads what is known of a table: its name, its columns by our notes, and
// what Postgres has.
func (m *Mirror) inspect(ctx context.Context, q querier, t *table) (relation, error) {
	var err error
	if t.name, err = m.tableName(ctx, q, t.collection.Name); err != nil {
		return relation{}, err
	}
	if t.columns, err = m.knownColumns(ctx, q, t.collection.Name); err != nil {
		return relation{}, err
	}
	return inspectRelation(ctx, q, m.config.Schema, t.name)
}

func (m *Mirror) shapeIn(ctx context.Context, tx pgx.Tx, t *table, fields []field) error {
	rel, err := m.inspect(ctx, tx, t)
	if err != nil {
		return err
	}
	if rel.exists && rel.columns["_raw"].typ == "" && rel.columns["_fingerprint"].typ == "" {
		return fmt.Errorf("there is a table %s.%s that is no mirror: rename it, or give the sync another schema: %w", m.config.Schema, t.name, lockstep.ErrConflict)
	}
	if m.config.Named != nil {
		if err := m.config.Named(ctx, t.collection.Name, t.name); err != nil {
			return err
		}
	}
	known := t.columns
	p := planColumns(rel, known, fields)
	t.columns, t.idType = p.columns, cmp.Or(rel.idType, idTypeOf(t.collection))
	if rel.exists {
		err = m.widen(ctx, tx, t, rel, p.add)
	} else {
		err = m.create(ctx, tx, t, known)
	}
	if err != nil {
		return err
	}
	return m.noteShape(ctx, tx, t, p)
}

func (m *Mirror) create(ctx context.Context, tx pgx.Tx, t *table, known []column) error {
	if err := m.createSchema(ctx, tx); err != nil {
		return err
	}
	names, types := t.cellNames(), t.cellTypes()
	lines := make([]string, len(names))
	for i := range names {
		lines[i] = pgdb.QuoteIdent(names[i]) + " " + types[i]
		switch {
		case i == 0 && types[0] == "text": // in the order of its bytes, whatever the database's is
			lines[0] += ` COLLATE "C" PRIMARY KEY`
		case i == 0:
			lines[0] += " PRIMARY KEY"
		}
	}
	relation := pgdb.QuoteIdent(m.config.Schema, t.name)
	// Of a deleted record consumers get all that it was, and of a changed one the old values.
	sql := fmt.Sprintf("CREATE TABLE %s (%s); ALTER TABLE %[1]s REPLICA IDENTITY FULL; COMMENT ON TABLE %[1]s IS %[3]s",
		relation, strings.Join(lines, ", "), pgdb.QuoteLiteral(fmt.Sprintf("%s:%s, mirrored by Lockstep. Columns, indexes and views of your own are left alone.", m.config.Provider, t.collection.Name)))
	if _, err := tx.Conn().PgConn().Exec(ctx, sql+m.comments(t, t.columns)).ReadAll(); err != nil {
		return err
	}
	const note = `
		INSERT INTO lockstep.sync_state AS s (sync_id, collection, table_name)
		VALUES ($1::uuid, $2::text, $3::text)
		ON CONFLICT (sync_id, collection) DO UPDATE
		SET table_name = excluded.table_name, cursors = s.cursors - 'backfill', updated_at = now()`
	if _, err := tx.Exec(ctx, note, m.id, t.collection.Name, t.name); err != nil {
		return err
	}
	delete(m.states, "backfill:"+t.collection.Name) // what was there is gone with the table
	if len(known) > 0 {
		return m.logSchema(ctx, tx, t, "table_made_again", "the table was dropped, and is made again: it must be filled from its beginning")
	}
	return nil
}

func (m *Mirror) createSchema(ctx context.Context, tx pgx.Tx) error {
	var there bool
	err := tx.QueryRow(ctx, "SELECT EXISTS (SELECT FROM pg_namespace WHERE nspname = $1::text)", m.config.Schema).Scan(&there)
	if err != nil || there {
		return err
	}
	_, err = tx.Exec(ctx, "CREATE SCHEMA IF NOT EXISTS "+pgdb.QuoteIdent(m.config.Schema))
	return err
}

// widen adds the columns that a table lacks. Without defaults that takes a moment,
// however many rows there are.
func (m *Mirror) widen(ctx context.Context, tx pgx.Tx, t *table, rel relation, add []column) error {
	var parts []string
	for _, c := range add {
		parts = append(parts, "ADD COLUMN "+pgdb.QuoteIdent(c.name)+" "+sqlType(c.typ))
	}
	for _, c := range systemColumns() {
		if _, there := rel.columns[c[0]]; !there {
			parts = append(parts, "ADD COLUMN "+pgdb.QuoteIdent(c[0])+" "+c[1])
		}
	}
	const note = `
		INSERT INTO lockstep.sync_state (sync_id, collection, table_name)
		VALUES ($1::uuid, $2::text, $3::text)
		ON CONFLICT (sync_id, collection) DO UPDATE
		SET table_name = excluded.table_name
		WHERE sync_state.table_name <> excluded.table_name`
	if _, err := tx.Exec(ctx, note, m.id, t.collection.Name, t.name); err != nil || len(parts) == 0 {
		return err
	}
	sql := "ALTER TABLE " + pgdb.QuoteIdent(m.config.Schema, t.name) + " " + strings.Join(parts, ", ")
	_, err := tx.Conn().PgConn().Exec(ctx, sql+m.comments(t, add)).ReadAll()
	return err
}

func (m *Mirror) comments(t *table, columns []column) string {
	var sql strings.Builder
	for _, c := range columns {
		if c.name != "" {
			fmt.Fprintf(&sql, "; COMMENT ON COLUMN %s IS %s", pgdb.QuoteIdent(m.config.Schema, t.name, c.name), pgdb.QuoteLiteral(postgresText(c.comment())))
		}
	}
	return sql.String()
}

// isLockTimeout says whether a statement waited for a lock for too long.
func isLockTimeout(err error) bool {
	refused, ok := errors.AsType[*pgconn.PgError](err)
	return ok && refused.Code == "55P03"
}
