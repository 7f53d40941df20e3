package mirror

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"lockstep"
)

// States returns the cursors that are saved, by their names as in [State].
func (m *Mirror) States(ctx context.Context) (map[string]json.RawMessage, error) {
	rows, err := m.pool.Query(ctx, statesQuery, m.id)
	if err != nil {
		return nil, fmt.Errorf("read the cursors of sync %q: %w", m.config.Name, passing(err))
	}
	return m.scanStates(rows)
}

const statesQuery = `
	SELECT c.key || ':' || s.collection, c.value::text
	FROM lockstep.sync_state s, jsonb_each(s.cursors) c
	WHERE s.sync_id = $1::uuid`

func (m *Mirror) scanStates(rows pgx.Rows) (map[string]json.RawMessage, error) {
	states := map[string]json.RawMessage{}
	var name, cursor string
	_, err := pgx.ForEachRow(rows, []any{&name, &cursor}, func() error {
		states[name] = json.RawMessage(cursor)
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("read the cursors of sync %q: %w", m.config.Name, passing(err))
	}
	return states, nil
}

// load reads what this process must know of what is stored; from then on nobody else
// writes it.
func (m *Mirror) load(ctx context.Context) error {
	const parked = "SELECT EXISTS (SELECT FROM lockstep.sync_parked WHERE sync_id = $1::uuid)"
	const tombs = `
		SELECT s.collection
		FROM lockstep.sync_state s
		WHERE s.sync_id = $1::uuid
		  AND EXISTS (SELECT FROM lockstep.tombstone t WHERE t.sync_id = s.sync_id AND t.collection = s.collection)`
	conn := m.writer.conn
	if err := m.loadStates(ctx); err != nil {
		return err
	}
	if err := conn.QueryRow(ctx, parked, m.id).Scan(&m.parked); err != nil {
		return fmt.Errorf("look for parked records of sync %q: %w", m.config.Name, passing(err))
	}
	rows, err := conn.Query(ctx, tombs, m.id)
	if err != nil {
		return fmt.Errorf("look for tombstones of sync %q: %w", m.config.Name, passing(err))
	}
	m.tombs = map[string]bool{}
	var collection string
	_, err = pgx.ForEachRow(rows, []any{&collection}, func() error { m.tombs[collection] = true; return nil })
	return err
}

func (m *Mirror) loadStates(ctx context.Context) error {
	rows, err := m.writer.conn.Query(ctx, statesQuery, m.id)
	if err != nil {
		return fmt.Errorf("read the cursors of sync %q: %w", m.config.Name, passing(err))
	}
	states, err := m.scanStates(rows)
	m.states = map[string]string{}
	for name, cursor := range states {
		m.states[name] = string(cursor)
	}
	return err
}

// splitState returns the kind and the collection of a state's name.
func splitState(name string) (kind, collection string, err error) {
	kind, collection, ok := strings.Cut(name, ":")
	if !ok || kind == "" || collection == "" {
		return "", "", fmt.Errorf("the state %q is not named kind:collection: %w", name, lockstep.ErrInvalid)
	}
	return kind, collection, nil
}

const saveState = `
	INSERT INTO lockstep.sync_state AS s (sync_id, collection, cursors)
	VALUES ($1::uuid, $3::text, jsonb_build_object($2::text, $4::jsonb))
	ON CONFLICT (sync_id, collection) DO UPDATE
	SET cursors = s.cursors || excluded.cursors, updated_at = now()`

const dropState = `
	UPDATE lockstep.sync_state
	SET cursors = cursors - $2::text, updated_at = now()
	WHERE sync_id = $1::uuid AND collection = $3::text AND cursors ? $2::text`

// saveStates queues the cursors that differ from what is stored. When the batch has
// committed, the caller notes what it returns in m.states.
func (m *Mirror) saveStates(batch *pgx.Batch, states []State) (saved map[string]string, err error) {
	saved = map[string]string{}
	for _, s := range states {
		kind, collection, err := splitState(s.Name)
		if err != nil {
			return nil, err
		}
		stored, known := m.states[s.Name]
		if len(s.Cursor) == 0 {
			if saved[s.Name] = ""; known {
				batch.Queue(dropState, m.id, kind, collection)
			}
			continue
		}
		if end := skipValue(s.Cursor, skipSpace(s.Cursor, 0), 0); end < 0 || skipSpace(s.Cursor, end) != len(s.Cursor) {
			return nil, fmt.Errorf("the cursor of %s is not JSON: %w", s.Name, lockstep.ErrInvalid)
		}
		cursor, _ := clean(s.Cursor)
		if saved[s.Name] = string(cursor); stored == string(cursor) {
			continue
		}
		batch.Queue(saveState, m.id, kind, collection, string(cursor))
	}
	return saved, nil
}

func (m *Mirror) noteStates(saved map[string]string) {
	for name, cursor := range saved {
		if m.states[name] = cursor; cursor == "" {
			delete(m.states, name)
		}
	}
}

const logEntry = `
	INSERT INTO lockstep.sync_log (sync_id, kind, collection, outcome, message, payload)
	VALUES ($1::uuid, $2::text, $3::text, $4::text, $5::text, $6::jsonb)`

func (m *Mirror) queueEntries(batch *pgx.Batch, entries []Entry) {
	for _, e := range entries {
		payload := "{}"
		if len(e.Payload) > 0 && json.Valid(e.Payload) {
			cleaned, _ := clean(e.Payload)
			payload = string(cleaned)
		}
		batch.Queue(logEntry, m.id, e.Kind, e.Collection, e.Outcome, postgresText(e.Message), payload)
	}
}

// postgresText is a text without what Postgres' text cannot hold.
func postgresText(s string) string {
	return strings.ToValidUTF8(strings.ReplaceAll(s, "\x00", "\uFFFD"), "\uFFFD")
}

// Log writes a line of lockstep.sync_log, outside of any page. It needs no lock: an
// engine that waits for it has something to say too.
func (m *Mirror) Log(ctx context.Context, entry Entry) error {
	batch := &pgx.Batch{}
	m.queueEntries(batch, []Entry{entry})
	if err := m.pool.SendBatch(ctx, batch).Close(); err != nil {
		return fmt.Errorf("write the log of sync %q: %w", m.config.Name, passing(err))
	}
	return nil
}

// Status is what lockstep.sync_state says of a collection or feed.
type Status struct {
	Collection string
	Table      string          // schema.name; empty for feeds
	State      string          // what goes on, in the caller's words
	Progress   json.RawMessage // of the backfill, in the caller's words; nil leaves what is there
	LastError  string
	Quota      json.RawMessage // what is left of the API's limits, in the caller's words; nil leaves what is there
	Parked     int             // records that the table refused; not written by Report
	UpdatedAt  time.Time       // not written by Report
}

// Status returns what was reported of the collections, by their names in order, with
// the records that are parked.
func (m *Mirror) Status(ctx context.Context) ([]Status, error) {
	const query = `
		SELECT s.collection, s.table_name, s.state, s.progress::text, s.last_error, s.quota::text, s.updated_at,
		       (SELECT count(*) FROM lockstep.sync_parked p WHERE p.sync_id = s.sync_id AND p.collection = s.collection)
		FROM lockstep.sync_state s
		WHERE s.sync_id = $1::uuid
		ORDER BY s.collection`
	rows, err := m.pool.Query(ctx, query, m.id)
	if err != nil {
		return nil, fmt.Errorf("read the status of sync %q: %w", m.config.Name, passing(err))
	}
	all, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (s Status, err error) {
		var progress, quota string
		err = row.Scan(&s.Collection, &s.Table, &s.State, &progress, &s.LastError, &quota, &s.UpdatedAt, &s.Parked)
		s.Progress, s.Quota = json.RawMessage(progress), json.RawMessage(quota)
		if s.Table != "" {
			s.Table = m.config.Schema + "." + s.Table
		}
		return s, err
	})
	if err != nil {
		return nil, fmt.Errorf("read the status of sync %q: %w", m.config.Name, passing(err))
	}
	return all, nil
}

// Report writes what goes on in a collection or feed, for people with psql. What is
// equal is not written. It needs no lock.
func (m *Mirror) Report(ctx context.Context, s Status) error {
	const report = `
		INSERT INTO lockstep.sync_state AS s (sync_id, collection, state, progress, last_error, quota)
		VALUES ($1::uuid, $2::text, $3::text, coalesce($4::jsonb, '{}'), $5::text, coalesce($6::jsonb, '{}'))
		ON CONFLICT (sync_id, collection) DO UPDATE
		SET state = excluded.state, progress = coalesce($4::jsonb, s.progress), last_error = excluded.last_error,
		    quota = coalesce($6::jsonb, s.quota), updated_at = now()
		WHERE (s.state, s.progress, s.last_error, s.quota)
		      IS DISTINCT FROM (excluded.state, coalesce($4::jsonb, s.progress), excluded.last_error, coalesce($6::jsonb, s.quota))`
	text := func(raw json.RawMessage) *string {
		if raw == nil {
			return nil
		}
		cleaned, _ := clean(raw)
		s := string(cleaned)
		return &s
	}
	_, err := m.pool.Exec(ctx, report, m.id, s.Collection, postgresText(s.State), text(s.Progress), postgresText(s.LastError), text(s.Quota))
	if err != nil {
		return fmt.Errorf("report on %s of sync %q: %w", s.Collection, m.config.Name, passing(err))
	}
	return nil
}
