package mirror

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"

	"lockstep/internal/pgdb"
	"lockstep/source"
)

// Remind tells a source what is mirrored of those records, if it is one that needs it
// to fetch them: see [source.Learner]. It needs no lock.
func (m *Mirror) Remind(ctx context.Context, from source.Source, collection string, ids []string) error {
	learner, ok := from.(source.Learner)
	if !ok || len(ids) == 0 {
		return nil
	}
	t, ok := m.table(collection)
	if !ok {
		return m.unprepared(collection)
	}
	rows, err := m.pool.Query(ctx, fmt.Sprintf("SELECT id::text, _raw FROM %s WHERE id = ANY ($1::text[]::%s[]) AND _raw IS NOT NULL",
		pgdb.QuoteIdent(m.config.Schema, t.name), t.idType), ids)
	if err != nil {
		return fmt.Errorf("read records of %s of sync %q: %w", collection, m.config.Name, passing(err))
	}
	records, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (r source.Record, err error) {
		r.Collection = collection
		err = row.Scan(&r.ID, &r.Data)
		return r, err
	})
	if err != nil {
		return fmt.Errorf("read records of %s of sync %q: %w", collection, m.config.Name, passing(err))
	}
	learner.Learn(records)
	return nil
}
