package mirror

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"lockstep/source"
)

// mostTrimmed is how many fields of a row that is too big have a column: with the
// values outside of the row, Postgres takes some 450.
// Of short ones, such as numbers, it takes more.
const (
	mostShort   = 900
	mostTrimmed = 400
)

// halve does deeds under a savepoint, and those that are refused in halves, until the
// guilty ones are found: these are parked. It returns those that were done.
func (b *brew) halve(ctx context.Context, g *group, deeds []deed, do func(context.Context, *group, []deed) error) (done []deed, err error) {
	err = b.try(ctx, func() error { return do(ctx, g, deeds) })
	if err == nil {
		return deeds, nil
	}
	if hurdleOf(err) != refusedData {
		return nil, err
	}
	if len(deeds) == 1 {
		return b.lastResort(ctx, g, deeds[0], do, err)
	}
	for _, half := range [][]deed{deeds[:len(deeds)/2], deeds[len(deeds)/2:]} {
		taken, err := b.halve(ctx, g, half, do)
		if err != nil {
			return nil, err
		}
		done = append(done, taken...)
	}
	return done, nil
}

// try does something under a savepoint.
func (b *brew) try(ctx context.Context, do func() error) error {
	if _, err := b.conn.PgConn().Exec(ctx, "SAVEPOINT lockstep").ReadAll(); err != nil {
		return err
	}
	after := "RELEASE lockstep"
	err := do()
	if err != nil {
		after = "ROLLBACK TO lockstep; RELEASE lockstep"
	}
	if _, failed := b.conn.PgConn().Exec(ctx, after).ReadAll(); failed != nil {
		return failed
	}
	return err
}

// lastResort tries a row that was refused with fewer of its values; else it is parked.
func (b *brew) lastResort(ctx context.Context, g *group, d deed, do func(context.Context, *group, []deed) error, refusal error) ([]deed, error) {
	refused, _ := asRefusal(refusal)
	// What a user's constraint refuses is whole and may fit later, when the row that it
	// refers to has come: it keeps its values, and waits.
	if d.now.row && (strings.HasPrefix(refused.Code, "22") || strings.HasPrefix(refused.Code, "54")) {
		whole := b.rowOf(g, &d)
		for _, most := range []int{mostShort, mostTrimmed, 0} {
			if most > 0 && refused.Code != "54000" {
				continue // only the size gets better with some of the values
			}
			d.row = g.t.trimmed(whole, most, refused.Message)
			err := b.try(ctx, func() error { return do(ctx, g, []deed{d}) })
			if err == nil {
				return []deed{d}, nil
			}
			if hurdleOf(err) != refusedData {
				return nil, err
			}
		}
	}
	reason := fmt.Sprintf("%s (SQLSTATE %s)", refused.Message, refused.Code)
	// The message may quote the record, which has no place in the log.
	message := fmt.Sprintf("a record was refused with SQLSTATE %s %s", refused.Code, refused.ConstraintName)
	return nil, b.park(ctx, g, []parking{{d.winner, reason}}, message)
}

// parking is a record that is parked, and why.
type parking struct {
	reading *reading
	reason  string
}

// parkedRecord is how lockstep.sync_parked keeps what is known of a record.
type parkedRecord struct {
	ID      string      `json:"id"`
	Version time.Time   `json:"version"`
	Created time.Time   `json:"created"`
	At      time.Time   `json:"at"`
	Rank    source.Rank `json:"rank"`
	Deleted bool        `json:"deleted"`
	Reason  string      `json:"reason"`
}

// park keeps records that the table does not take, to be tried again. An older one
// of the same id makes room for the newer.
func (b *brew) park(ctx context.Context, g *group, records []parking, message string) error {
	const keep = `
		INSERT INTO lockstep.sync_parked AS p (sync_id, collection, id, record, data, reason)
		VALUES ($1::uuid, $2::text, $3::text, $4::jsonb, $5::bytea, $6::text)
		ON CONFLICT (sync_id, collection, id) DO UPDATE
		SET record = excluded.record, data = excluded.data, reason = excluded.reason, attempts = p.attempts + 1, tried_at = now()`
	batch := &pgx.Batch{}
	for _, p := range records {
		r := p.reading
		record, err := json.Marshal(parkedRecord{r.id, r.version, r.created, r.at, r.rank, r.deleted, r.reason})
		if err != nil {
			return fmt.Errorf("note a parked record: %w", err)
		}
		batch.Queue(keep, b.m.id, g.t.collection.Name, parkedKey(r.id), string(record), []byte(r.origin.Data), postgresText(p.reason))
	}
	b.result.Parked += len(records)
	b.m.parked = true
	if b.manner != retrying {
		b.entries = append(b.entries, Entry{Kind: "parked", Collection: g.t.collection.Name, Outcome: "parked", Message: message})
	}
	return b.conn.SendBatch(ctx, batch).Close()
}

// parkedKey is a record's id, or what stands for one that no index takes.
func parkedKey(id string) string {
	if len(id) <= longestID {
		return id
	}
	sum := sha256.Sum256([]byte(id))
	return shorten(id, longestID/2) + "…" + hex.EncodeToString(sum[:])
}

// parkedBatch is how many parked records are tried again at once.
const parkedBatch = 200

// retryParked applies parked records once more whose time has come.
func (m *Mirror) retryParked(ctx context.Context) error {
	for {
		if n, err := m.retrySome(ctx); err != nil || n < parkedBatch {
			return err
		}
	}
}

// retrySome does so for those that were tried least, and returns how many.
func (m *Mirror) retrySome(ctx context.Context) (n int, err error) {
	if err := m.enter(ctx); err != nil {
		return 0, err
	}
	defer m.leave()
	if !m.parked {
		return 0, nil
	}
	conn, err := m.session(ctx)
	if err != nil {
		return 0, err
	}
	groups, err := m.readParked(ctx, conn)
	if err != nil || len(groups) == 0 {
		return 0, err
	}
	for _, readings := range groups {
		n += len(readings)
	}
	_, err = m.apply(ctx, Change{}, groups, retrying)
	return n, err
}

func (m *Mirror) readParked(ctx context.Context, conn *pgx.Conn) (map[string][]*reading, error) {
	const query = `
		SELECT collection, record, data
		FROM lockstep.sync_parked
		WHERE sync_id = $1::uuid
		  AND tried_at < now() - least(interval '5 seconds' * power(2, least(attempts, 12) - 1), interval '1 hour')
		ORDER BY attempts, parked_at
		LIMIT $2::int`
	rows, err := conn.Query(ctx, query, m.id, parkedBatch)
	if err != nil {
		return nil, err
	}
	groups, form := map[string][]*reading{}, &canon{}
	var collection string
	var record parkedRecord
	var data []byte
	_, err = pgx.ForEachRow(rows, []any{&collection, &record, &data}, func() error {
		t, ok := m.table(collection)
		if !ok {
			return nil // a collection that is no longer asked for
		}
		r := source.Record{Collection: collection, ID: record.ID, Version: record.Version, Created: record.Created, Rank: record.Rank,
			Deleted: record.Deleted, Reason: record.Reason, Data: data}
		groups[collection] = append(groups[collection], newReading(r, record.At, t.plan.Load(), form))
		return nil
	})
	return groups, err
}

// firstOf returns the first text that is not empty.
func firstOf(texts ...string) string { return cmp.Or(texts...) }

func asType[E error](err error) (E, bool) {
	return errors.AsType[E](err)
}
