package syncs

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"lockstep"
	"lockstep/internal/mirror"
)

// store keeps the definitions of the syncs whose mirrors lie in one database, in its
// table lockstep.sync.
type store struct {
	target Target
	sealer Sealer
	ready  chan struct{} // closed when what is stored has been loaded

	// Guarded by the set's mu; nil: nobody attends to it.
	stop context.CancelFunc
	done chan struct{} // closed when nobody does any more
}

// stored is a definition as it was found.
type stored struct {
	definition Definition
	err        error // why it cannot be used
}

// startWait is how long a call waits for what is stored to be loaded. A node answers
// before it has reached its databases.
const startWait = 5 * time.Second

// await waits a little until what is stored has been loaded.
func (st *store) await(ctx context.Context, name string) error {
	late := time.NewTimer(startWait)
	defer late.Stop()
	select {
	case <-st.ready:
		return nil
	case <-late.C:
	case <-ctx.Done():
	}
	return fmt.Errorf("sync %q: the database %s cannot be reached now, try again: %w", name, st.target.Name, lockstep.ErrUnavailable)
}

// loaded reports whether await would return at once.
func (st *store) loaded() bool {
	select {
	case <-st.ready:
		return true
	default:
		return false
	}
}

// load returns everything that is stored.
func (st *store) load(ctx context.Context) ([]stored, error) { return st.read(ctx, nil) }

// one returns what is stored of one sync; false: nothing.
func (st *store) one(ctx context.Context, id string) (stored, bool, error) {
	list, err := st.read(ctx, &id)
	if err != nil || len(list) == 0 {
		return stored{}, false, err
	}
	return list[0], true, nil
}

func (st *store) read(ctx context.Context, id *string) ([]stored, error) {
	const query = `
		SELECT id::text, name, provider, schema, definition, credential, paused, managed_by, created_at, updated_at
		FROM lockstep.sync
		WHERE $1::uuid IS NULL OR id = $1::uuid
		ORDER BY name`
	rows, err := st.target.Pool.Query(ctx, query, id)
	if err != nil {
		return nil, fmt.Errorf("read the syncs of database %s: %w", st.target.Name, err)
	}
	list, err := pgx.CollectRows(rows, st.scan)
	if err != nil {
		return nil, fmt.Errorf("read the syncs of database %s: %w", st.target.Name, err)
	}
	return list, nil
}

// revision is what a change of a stored definition changes.
type revision struct {
	at        time.Time
	managedBy string
}

// revisions returns those of all that is stored, by id.
func (st *store) revisions(ctx context.Context) (map[string]revision, error) {
	rows, err := st.target.Pool.Query(ctx, "SELECT id::text, updated_at, managed_by FROM lockstep.sync")
	if err != nil {
		return nil, fmt.Errorf("look for changed syncs of database %s: %w", st.target.Name, err)
	}
	all := map[string]revision{}
	var id string
	var one revision
	_, err = pgx.ForEachRow(rows, []any{&id, &one.at, &one.managedBy}, func() error {
		all[id] = one
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("look for changed syncs of database %s: %w", st.target.Name, err)
	}
	return all, nil
}

// tables returns which tables the syncs of the database have.
func (st *store) tables(ctx context.Context) ([]Table, error) {
	const query = `
		SELECT s.id::text, s.name, s.provider, s.schema, c.table_name, s.provider || ':' || c.collection
		FROM lockstep.sync s
		JOIN lockstep.sync_state c ON c.sync_id = s.id
		WHERE c.table_name <> ''`
	rows, err := st.target.Pool.Query(ctx, query)
	if err != nil {
		return nil, fmt.Errorf("read which tables of database %s are mirrors: %w", st.target.Name, err)
	}
	list, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (Table, error) {
		t := Table{Database: st.target.Name}
		err := row.Scan(&t.SyncID, &t.Sync, &t.Provider, &t.Schema, &t.Name, &t.Collection)
		return t, err
	})
	if err != nil {
		return nil, fmt.Errorf("read which tables of database %s are mirrors: %w", st.target.Name, err)
	}
	return list, nil
}

func (st *store) scan(row pgx.CollectableRow) (stored, error) {
	var (
		s                  stored
		definition, sealed []byte
	)
	d := &s.definition
	var id, name, provider, schema, managedBy string
	var paused bool
	var created, updated time.Time
	if err := row.Scan(&id, &name, &provider, &schema, &definition, &sealed, &paused, &managedBy, &created, &updated); err != nil {
		return s, err
	}
	if err := json.Unmarshal(definition, d); err != nil {
		s.err = fmt.Errorf("the stored definition of sync %q cannot be read: %w: %w", name, err, lockstep.ErrCorrupt)
	}
	d.ID, d.Name, d.Schema, d.Paused, d.ManagedBy, d.CreatedAt, d.UpdatedAt = id, name, schema, paused, managedBy, created, updated
	if d.Provider == "" {
		d.Provider = provider
	}
	d.Database = st.target.Name
	if sealed == nil || s.err != nil {
		return s, nil
	}
	plain, err := st.sealer.Open(sealed, credentialOf(id))
	if err == nil {
		err = json.Unmarshal(plain, &d.Credential)
	}
	if err != nil {
		s.err = fmt.Errorf("the credential of sync %q cannot be opened: %w; give it anew by PATCH, or start with the LOCKSTEP_KEY that it was sealed with: %w", name, err, lockstep.ErrInvalid)
	}
	return s, nil
}

func credentialOf(id string) string { return "credential of sync " + id }

// stamps are when a definition was stored first, and changed last.
type stamps struct{ created, updated time.Time }

// put stores a definition, new or changed, and returns when that was done.
// Whether it is paused is only stored of a new one. In the table the provider is the
// prefix of its collections: of provider rest the API's own name.
func (st *store) put(ctx context.Context, d Definition, prefix string) (at stamps, err error) {
	const upsert = `
		WITH put AS (
			INSERT INTO lockstep.sync AS s (id, name, provider, schema, definition, credential, paused, managed_by)
			VALUES ($1::uuid, $2, $3, $4, $5, $6, $7, $8)
			ON CONFLICT (id) DO UPDATE
			SET name = excluded.name, provider = excluded.provider, schema = excluded.schema, definition = excluded.definition,
			    credential = excluded.credential, managed_by = excluded.managed_by, updated_at = clock_timestamp()
			WHERE (s.name, s.provider, s.schema, s.definition, s.managed_by) IS DISTINCT FROM
			      (excluded.name, excluded.provider, excluded.schema, excluded.definition, excluded.managed_by)
			   OR (s.credential IS NULL) <> (excluded.credential IS NULL) OR $9
			RETURNING created_at, updated_at
		)
		SELECT created_at, updated_at FROM put
		UNION ALL
		SELECT created_at, updated_at FROM lockstep.sync WHERE id = $1::uuid AND NOT EXISTS (SELECT FROM put)`
	body := d // without what has a column of its own
	body.ID, body.Name, body.Schema, body.Database, body.ManagedBy, body.Paused = "", "", "", "", "", false
	body.CreatedAt, body.UpdatedAt = time.Time{}, time.Time{}
	definition, err := json.Marshal(body)
	if err != nil {
		return at, fmt.Errorf("sync %q: %w", d.Name, err)
	}
	var sealed []byte
	if d.ManagedBy != managedByFile {
		if sealed, err = st.seal(d); err != nil {
			return at, err
		}
	}
	err = st.target.Pool.QueryRow(ctx, upsert, d.ID, d.Name, prefix, d.Schema, definition, sealed, d.Paused, d.ManagedBy, sealed != nil).Scan(&at.created, &at.updated)
	return at, st.refused(d, err)
}

func (st *store) seal(d Definition) ([]byte, error) {
	plain, err := json.Marshal(d.Credential)
	if err != nil {
		return nil, fmt.Errorf("sync %q: %w", d.Name, err)
	}
	return st.sealer.Seal(plain, credentialOf(d.ID)), nil
}

func (st *store) refused(d Definition, err error) error {
	if err == nil {
		return nil
	}
	refused, ok := errors.AsType[*pgconn.PgError](err)
	switch {
	case ok && refused.ConstraintName == "sync_schema_key":
		return fmt.Errorf("sync %q: the schema %s of database %s belongs to another sync: give this one a schema of its own, or delete the other: %w", d.Name, d.Schema, st.target.Name, lockstep.ErrConflict)
	case ok && refused.ConstraintName == "sync_name_key":
		return fmt.Errorf("there is another sync called %q in database %s: %w", d.Name, st.target.Name, lockstep.ErrConflict)
	}
	return fmt.Errorf("store sync %q: %w", d.Name, err)
}

// switched stores whether a sync is paused, and returns when that was.
func (st *store) switched(ctx context.Context, d Definition) (changed time.Time, err error) {
	const update = `
		UPDATE lockstep.sync
		SET paused = $2, updated_at = clock_timestamp()
		WHERE id = $1::uuid
		RETURNING updated_at`
	err = st.target.Pool.QueryRow(ctx, update, d.ID, d.Paused).Scan(&changed)
	if errors.Is(err, pgx.ErrNoRows) {
		return changed, fmt.Errorf("sync %q: %w", d.Name, lockstep.ErrNotFound)
	}
	if err != nil {
		return changed, fmt.Errorf("store whether sync %q is paused: %w", d.Name, errors.Join(err, lockstep.ErrUnavailable))
	}
	return changed, nil
}

// releaseWait is how long another engine gets to let go of a sync.
const releaseWait = 2 * time.Second

// release lets go of a sync that an earlier configuration had, unless an engine
// works on it.
func (st *store) release(ctx context.Context, d Definition) error {
	m, err := mirror.Open(ctx, mirror.Config{Pool: st.target.Pool, Sync: d.ID, Name: d.Name, Provider: d.Provider, Schema: d.Schema})
	if err != nil {
		return err
	}
	waiting, cancel := context.WithTimeout(ctx, releaseWait)
	defer cancel()
	unlock, err := m.Lock(waiting)
	if err != nil {
		return fmt.Errorf("another engine works on sync %q: %w", d.Name, errors.Join(lockstep.ErrConflict, err))
	}
	unlock() // its session has the replication origin, which Forget removes
	return mirror.Forget(ctx, st.target.Pool, d.ID)
}

// log returns what a sync did, newest first: up to limit lines with ids below before;
// 0 for before: the newest.
func (st *store) log(ctx context.Context, id string, before int64, limit int) ([]Entry, error) {
	const query = `
		SELECT id, at, kind, collection, outcome, message, payload
		FROM lockstep.sync_log
		WHERE sync_id = $1::uuid AND ($2::bigint = 0 OR id < $2)
		ORDER BY id DESC
		LIMIT $3`
	rows, err := st.target.Pool.Query(ctx, query, id, before, limit)
	if err != nil {
		return nil, fmt.Errorf("read the log of sync %s: %w", id, err)
	}
	entries, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (e Entry, err error) {
		err = row.Scan(&e.ID, &e.At, &e.Kind, &e.Collection, &e.Outcome, &e.Message, &e.Payload)
		return e, err
	})
	if err != nil {
		return nil, fmt.Errorf("read the log of sync %s: %w", id, err)
	}
	return entries, nil
}

// tokens keeps what an API has given a sync.
type tokens struct {
	store *store
	sync  Definition
}

func tokensOf(id string) string { return "tokens of sync " + id }

// Load implements [Tokens].
func (t tokens) Load(ctx context.Context) ([]byte, error) {
	var sealed []byte
	err := t.store.target.Pool.QueryRow(ctx, "SELECT tokens FROM lockstep.sync WHERE id = $1::uuid", t.sync.ID).Scan(&sealed)
	if err != nil {
		return nil, fmt.Errorf("read the tokens of sync %q: %w", t.sync.Name, err)
	}
	if sealed == nil {
		return nil, nil
	}
	return t.store.sealer.Open(sealed, tokensOf(t.sync.ID))
}

// Save implements [Tokens].
func (t tokens) Save(ctx context.Context, token []byte) error {
	sealed := t.store.sealer.Seal(token, tokensOf(t.sync.ID))
	tag, err := t.store.target.Pool.Exec(ctx, "UPDATE lockstep.sync SET tokens = $2 WHERE id = $1::uuid", t.sync.ID, sealed)
	if err == nil && tag.RowsAffected() == 0 {
		err = lockstep.ErrNotFound
	}
	if err != nil {
		return fmt.Errorf("save the tokens of sync %q: %w", t.sync.Name, err)
	}
	return nil
}
