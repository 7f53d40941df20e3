package mirror

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"lockstep"
	"lockstep/internal/pgdb"
	"lockstep/source"
)

// Row is what the mirror holds of a record, for sweeps and verify.
type Row struct {
	ID          string
	Version     time.Time // by the API's clock; zero: it does not say
	SyncedAt    time.Time // when the API was asked for what the row holds
	Fingerprint Print     // see [Fingerprint]
}

// Rows returns up to limit rows with ids after afterID (all for ""), in the order of
// the id column: of its bytes for text, by value for bigint. Fewer than limit: the
// end. It needs no lock.
func (m *Mirror) Rows(ctx context.Context, collection, afterID string, limit int) ([]Row, error) {
	t, ok := m.table(collection)
	if !ok {
		return nil, m.unprepared(collection)
	}
	condition, parameters := "", []any{limit}
	if afterID != "" {
		condition, parameters = "WHERE id > $2::text::"+t.idType, append(parameters, afterID)
	}
	rows, err := m.pool.Query(ctx, fmt.Sprintf(`
		SELECT id::text, _updated_at, _synced_at, _fingerprint
		FROM %s %s
		ORDER BY %s.id
		LIMIT $1::int`, pgdb.QuoteIdent(m.config.Schema, t.name), condition, pgdb.QuoteIdent(t.name)), parameters...)
	if err != nil {
		return nil, fmt.Errorf("read the rows of %s of sync %q: %w", collection, m.config.Name, passing(err))
	}
	all, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (r Row, err error) {
		var version, synced *time.Time
		var print []byte
		err = row.Scan(&r.ID, &version, &synced, &print)
		r.Version, r.SyncedAt = value(version).UTC(), value(synced).UTC()
		copy(r.Fingerprint[:], print)
		return r, err
	})
	if err != nil {
		return nil, fmt.Errorf("read the rows of %s of sync %q: %w", collection, m.config.Name, passing(err))
	}
	return all, nil
}

// Fingerprint returns what the fingerprint of a record's row is once it is applied.
func (m *Mirror) Fingerprint(r source.Record) (Print, error) {
	t, ok := m.table(r.Collection)
	if !ok {
		return Print{}, m.unprepared(r.Collection)
	}
	p, err := fingerprint(r.Data, t.plan.Load())
	if err != nil {
		return Print{}, fmt.Errorf("%s of %s: %w: %w", r.Collection, m.config.Name, err, lockstep.ErrInvalid)
	}
	return p, nil
}
