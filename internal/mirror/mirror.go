package mirror

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"

	"lockstep"
	"lockstep/source"
)

// Config says whose mirror it is and where it lies.
type Config struct {
	Pool     *pgxpool.Pool // of the target database, which pgdb.Migrate has been run on; it outlives the mirror
	Sync     string        // the sync's id, a uuid
	Name     string        // the sync's name, for people
	Provider string        // the API's name: stripe
	Schema   string        // where the tables lie; default: the provider's name
	Logger   *slog.Logger  // default: none
	// Named is told which table a collection has, before there is a row in it. An error
	// of it keeps the table from being prepared. nil: nobody needs to know.
	Named func(ctx context.Context, collection, table string) error
}

// Mirror is one sync's tables. All methods may be called concurrently; those that
// write take their turns.
type Mirror struct {
	pool   *pgxpool.Pool
	id     uuid.UUID
	config Config
	log    *slog.Logger

	// turn is held by whoever uses what follows; a channel, so that waiting for it
	// ends with the context.
	turn   chan struct{}
	writer *writer           // nil without the lock
	states map[string]string // as stored: what is equal is not written
	recent recent
	parked bool            // there may be parked records
	tombs  map[string]bool // collections that may have tombstones

	tables sync.Map // collection to *table, whose own fields belong to the turn but for its plan
}

// Open returns the mirror of a sync and notes the sync in lockstep.sync. It changes
// nothing else; [Mirror.Lock] and [Mirror.Prepare] come next.
//
// Errors: [lockstep.ErrInvalid] for a configuration that cannot work,
// [lockstep.ErrConflict] when the schema or the name belongs to another sync.
func Open(ctx context.Context, config Config) (*Mirror, error) {
	id, err := uuid.Parse(config.Sync)
	if err != nil {
		return nil, fmt.Errorf("sync %q: the id %q is not a uuid: %w", config.Name, config.Sync, lockstep.ErrInvalid)
	}
	if config.Schema == "" {
		config.Schema = config.Provider
	}
	if err := checkSchema(config.Schema); err != nil {
		return nil, fmt.Errorf("sync %q: %w", config.Name, err)
	}
	if config.Logger == nil {
		config.Logger = slog.New(slog.DiscardHandler)
	}
	m := &Mirror{pool: config.Pool, id: id, config: config, log: config.Logger, turn: make(chan struct{}, 1), states: map[string]string{}}
	if err := m.register(ctx); err != nil {
		return nil, err
	}
	return m, nil
}

func (m *Mirror) register(ctx context.Context) error {
	const known = `
		SELECT name, provider, schema
		FROM lockstep.sync
		WHERE id = $1::uuid`
	const insert = `
		INSERT INTO lockstep.sync (id, name, provider, schema)
		VALUES ($1::uuid, $2::text, $3::text, $4::text)
		ON CONFLICT (id) DO UPDATE
		SET name = excluded.name, provider = excluded.provider, schema = excluded.schema, updated_at = now()`
	c := m.config
	var name, provider, schema string
	err := m.pool.QueryRow(ctx, known, m.id).Scan(&name, &provider, &schema)
	if err == nil && name == c.Name && provider == c.Provider && schema == c.Schema {
		return nil
	}
	if err != nil && !errors.Is(err, pgx.ErrNoRows) {
		return fmt.Errorf("look up sync %q: %w", c.Name, err)
	}
	if _, err = m.pool.Exec(ctx, insert, m.id, c.Name, c.Provider, c.Schema); err == nil {
		return nil
	}
	refused, ok := errors.AsType[*pgconn.PgError](err)
	switch {
	case ok && refused.ConstraintName == "sync_schema_key":
		return fmt.Errorf("sync %q: the schema %s belongs to another sync: give this one a schema of its own: %w", c.Name, c.Schema, lockstep.ErrConflict)
	case ok && refused.ConstraintName == "sync_name_key":
		return fmt.Errorf("there is another sync called %q: %w", c.Name, lockstep.ErrConflict)
	}
	return fmt.Errorf("note sync %q: %w", c.Name, err)
}

// Change is what one transaction of [Mirror.Apply] brings in.
type Change struct {
	Collection string // of the records that name none
	Records    []source.Record
	States     []State
	Entries    []Entry
	Missing    []Missing
	// At is when the records were asked for, by the API's clock: nothing newer is
	// known to be in them. As exact as can be; zero: now, by this machine's clock.
	At time.Time
	// Repair says that the records are right whatever their versions are, unless the
	// mirror has looked at the record since. For verify, and for APIs whose clocks
	// went backwards.
	Repair bool
	// Rewrite says, with Repair, that rows are written even if their fingerprint says
	// that they are equal: somebody changed them by hand.
	Rewrite bool
}

// State is a place in the API that is saved with what was read up to there.
type State struct {
	Name   string          // kind:collection, or kind:feed: "change:events", "backfill:customer", "sweep:customer"
	Cursor json.RawMessage // nil: forgotten
}

// Entry is a line of lockstep.sync_log.
type Entry struct {
	Kind       string // backfill, poll, sweep, schema, pause, …
	Collection string
	Outcome    string          // started, completed, held, failed, …
	Message    string          // for people, without data of records
	Payload    json.RawMessage // figures, by kind
}

// Missing is what a complete scan of a collection's ids, without any error, did not
// find: all of it, since the safety valve judges a sweep as a whole. When more than
// 50 ids and more than 5 % of the rows are missing, nothing is deleted for it; ask
// the API for each id then, and apply those that it does not have as Deleted records.
type Missing struct {
	Collection string
	IDs        []string
	// Started is when the scan began, by the API's clock. What changed or was read
	// since then stays.
	Started time.Time
}

// Result counts what an [Mirror.Apply] did, in records of the page.
type Result struct {
	Inserted    int // rows that were not there
	Updated     int
	Unchanged   int // equal to what is there: nothing was written
	Stale       int // older than what is there or than its deletion
	Deleted     int // rows that are gone now
	Resurrected int // rows that were deleted before and are back
	Noted       int // values that did not fit or were cleaned
	Parked      int // records that the table refused; see lockstep.sync_parked
	Held        int // ids of sweeps that the safety valve has kept
	// Doubtful are records of which one version was seen with two contents, and none
	// of them was the object itself. Fetch them once more after the settling time.
	Doubtful []source.Record
}

// enter waits for the turn; leave gives it back.
func (m *Mirror) enter(ctx context.Context) error {
	select {
	case m.turn <- struct{}{}:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

func (m *Mirror) leave() { <-m.turn }

// Forget removes everything but the tables that the schema lockstep has of a sync:
// its state, tombstones, names and log. The mirror tables stay; a new sync of the
// same schema takes them over.
func Forget(ctx context.Context, pool *pgxpool.Pool, id string) error {
	parsed, err := uuid.Parse(id)
	if err != nil {
		return fmt.Errorf("the id of the sync %q is not a uuid: %w", id, lockstep.ErrInvalid)
	}
	const remove = `
		WITH state AS (DELETE FROM lockstep.sync_state WHERE sync_id = $1::uuid),
		     col AS (DELETE FROM lockstep.sync_column WHERE sync_id = $1::uuid),
		     log AS (DELETE FROM lockstep.sync_log WHERE sync_id = $1::uuid),
		     tomb AS (DELETE FROM lockstep.tombstone WHERE sync_id = $1::uuid),
		     parked AS (DELETE FROM lockstep.sync_parked WHERE sync_id = $1::uuid)
		DELETE FROM lockstep.sync
		WHERE id = $1::uuid`
	if err := dropOrigin(ctx, pool, parsed); err != nil && !isInUse(err) {
		return fmt.Errorf("forget the replication origin of sync %s: %w", id, err)
	}
	if _, err := pool.Exec(ctx, remove, id); err != nil {
		return fmt.Errorf("forget sync %s: %w", id, err)
	}
	return nil
}
