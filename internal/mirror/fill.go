package mirror

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"

	"lockstep/internal/pgdb"
	"lockstep/source"
)

// fillPage is how many rows are looked through at once for a new column's values. A
// page holds the turn, so it is short.
const fillPage = 500

// Mend compares the columns of up to limit rows after an id with the API's JSON in
// _raw, and corrects those that differ: somebody changed them by hand. It returns
// the ids of the rows that it corrected, and where to go on; "" at the end.
func (m *Mirror) Mend(ctx context.Context, collection, afterID string, limit int) (mended []string, next string, err error) {
	if err := m.enter(ctx); err != nil {
		return nil, "", err
	}
	defer m.leave()
	t, ok := m.table(collection)
	if !ok {
		return nil, "", m.unprepared(collection)
	}
	conn, err := m.session(ctx)
	if err != nil {
		return nil, "", err
	}
	err = m.within(ctx, conn, func(tx pgx.Tx) error {
		mended, next, err = m.refill(ctx, tx, t, span{after: afterID, limit: limit, want: func(column) bool { return true }})
		return err
	})
	if err != nil {
		return nil, "", fmt.Errorf("mend %s of sync %q: %w", collection, m.config.Name, passing(err))
	}
	return mended, next, nil
}

// span says which rows and columns are to be filled from _raw.
type span struct {
	after string
	limit int
	want  func(column) bool
}

// refill sets the columns of a page of rows to what _raw says, where they differ.
func (m *Mirror) refill(ctx context.Context, tx pgx.Tx, t *table, s span) (changed []string, next string, err error) {
	part := t.only(s.want)
	if len(part.columns) == 0 {
		return nil, "", nil
	}
	relation := pgdb.QuoteIdent(m.config.Schema, t.name)
	condition, parameters := "", []any{part.topLevel(), s.limit}
	if s.after != "" {
		condition, parameters = "WHERE id > $3::text::"+t.idType, append(parameters, s.after)
	}
	rows, err := tx.Query(ctx, fmt.Sprintf(`
		SELECT id::text, CASE WHEN _raw ?| $1::text[] THEN _raw::text END
		FROM (SELECT id, _raw FROM %s %s ORDER BY id LIMIT $2::int) page
		ORDER BY page.id`, relation, condition), parameters...)
	if err != nil {
		return nil, "", err
	}
	columns := make([][][]byte, len(part.columns)+1)
	var raw *string
	seen := 0
	_, err = pgx.ForEachRow(rows, []any{&next, &raw}, func() error {
		if seen++; raw == nil {
			return nil
		}
		columns[0] = append(columns[0], []byte(next))
		values, _ := part.values([]byte(*raw), map[string]source.Type{})
		for i, v := range values {
			columns[i+1] = append(columns[i+1], v)
		}
		return nil
	})
	if err != nil {
		return nil, "", err
	}
	if seen < s.limit {
		next = ""
	}
	if len(columns[0]) == 0 {
		return nil, next, nil
	}
	changed, err = m.setColumns(ctx, tx, part, columns)
	return changed, next, err
}

// only is the table with some of its columns, and no others.
func (t *table) only(want func(column) bool) *table {
	part := &table{collection: t.collection, name: t.name, idType: t.idType}
	for _, c := range t.columns {
		if c.name != "" && want(c) {
			part.columns = append(part.columns, c)
		}
	}
	part.byKey = map[string][]int{}
	for i, c := range part.columns {
		part.byKey[c.path[0]] = append(part.byKey[c.path[0]], i)
	}
	return part
}

// topLevel are the keys that the columns' values lie under.
func (t *table) topLevel() (keys []string) {
	for _, c := range t.columns {
		keys = append(keys, c.path[0])
	}
	slices.Sort(keys)
	return slices.Compact(keys)
}

// setColumns writes the cells that differ. The row's notes stay: they tell of what
// the API sent, not of when it got a column.
func (m *Mirror) setColumns(ctx context.Context, tx pgx.Tx, part *table, columns [][][]byte) (changed []string, err error) {
	quoted, types := []string{"id"}, []string{part.idType}
	var mine, theirs []string
	for i, c := range part.columns {
		quoted, types = append(quoted, pgdb.QuoteIdent(c.name)), append(types, sqlType(c.typ))
		mine, theirs = append(mine, "t."+pgdb.QuoteIdent(c.name)), append(theirs, fmt.Sprintf("d.c%d::%s", i+1, sqlType(c.typ)))
	}
	condition := fmt.Sprintf("AND (ROW(%s) IS DISTINCT FROM ROW(%s)) RETURNING t.id::text", strings.Join(mine, ", "), strings.Join(theirs, ", "))
	sql := updateStatement(pgdb.QuoteIdent(m.config.Schema, part.name), quoted, types, condition)
	parameters := make([][]byte, len(columns))
	for i, c := range columns {
		parameters[i] = appendArray(nil, c)
	}
	result := tx.Conn().PgConn().ExecParams(ctx, sql, parameters, nil, nil, nil).Read()
	for _, row := range result.Rows {
		changed = append(changed, string(row[0]))
	}
	return changed, result.Err
}

// fillSome fills a page of one table's new columns, and reports whether there is
// more to do.
func (m *Mirror) fillSome(ctx context.Context) (more bool, err error) {
	if err := m.enter(ctx); err != nil {
		return false, err
	}
	defer m.leave()
	t := m.unfilled()
	if t == nil {
		return false, nil
	}
	conn, err := m.session(ctx)
	if err != nil {
		return false, err
	}
	// Columns that have come as far as the one that is behind are filled together.
	after := ""
	for i, c := range slices.DeleteFunc(slices.Clone(t.columns), filledColumn) {
		if i == 0 || c.after < after {
			after = c.after
		}
	}
	want := func(c column) bool { return !filledColumn(c) && c.after == after }
	var next string
	err = m.within(ctx, conn, func(tx pgx.Tx) error {
		if _, next, err = m.refill(ctx, tx, t, span{after: after, limit: fillPage, want: want}); err != nil {
			return err
		}
		return m.noteFilled(ctx, tx, t, want, next)
	})
	if err != nil {
		return false, fmt.Errorf("fill new columns of %s of sync %q: %w", t.collection.Name, m.config.Name, passing(err))
	}
	for i := range t.columns {
		if want(t.columns[i]) {
			t.columns[i].after, t.columns[i].filled = next, next == ""
		}
	}
	return true, nil
}

func filledColumn(c column) bool { return c.filled || c.name == "" }

func (m *Mirror) unfilled() (found *table) {
	m.tables.Range(func(_, v any) bool {
		if t := v.(*table); slices.ContainsFunc(t.columns, func(c column) bool { return !filledColumn(c) }) {
			found = t
		}
		return found == nil
	})
	return found
}

func (m *Mirror) noteFilled(ctx context.Context, tx pgx.Tx, t *table, want func(column) bool, next string) error {
	const note = `
		UPDATE lockstep.sync_column
		SET filled = $5::boolean, fill_after = $6::text
		WHERE sync_id = $1::uuid AND collection = $2::text AND key = $3::text AND type = $4::text`
	batch := &pgx.Batch{}
	for _, c := range t.columns {
		if want(c) {
			batch.Queue(note, m.id, t.collection.Name, c.key, string(c.typ), next == "", next)
		}
	}
	return tx.SendBatch(ctx, batch).Close()
}
