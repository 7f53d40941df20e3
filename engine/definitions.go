package engine

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"lockstep"
	"lockstep/internal/auth"
	"lockstep/internal/config"
	"lockstep/internal/secret"
)

// definitions keeps databases made by API in lockstep.database_definition.
type definitions struct {
	pool *pgxpool.Pool
	key  *secret.Key
}

// definition is a database made by API.
type definition struct {
	config.Database
	foundSlot bool  // the slot was there before
	removed   bool  // it was deleted, and its changes may still be in the stream
	broken    error // why its URL is not known
}

// storedDatabase is a definition as it lies in the table.
type storedDatabase struct {
	Capture      config.Capture `json:"capture"`
	Slot         string         `json:"slot"`
	Publication  string         `json:"publication"`
	Tables       []string       `json:"tables,omitempty"`
	Int8AsString bool           `json:"int8_as_string,omitempty"`
	RetainWAL    int64          `json:"retain_wal"`
	FoundSlot    bool           `json:"found_slot,omitempty"`
}

// sealedFor is what the seal of a database's URL is bound to.
func sealedFor(name string) string { return "url of database " + name }

func (s definitions) encode(d definition) ([]byte, error) {
	return json.Marshal(storedDatabase{d.Capture, d.Slot, d.Publication, d.Tables, d.Int8AsString, d.RetainWAL, d.foundSlot})
}

const loadDatabases = `
SELECT name, definition, url, removed_at IS NOT NULL
FROM lockstep.database_definition
ORDER BY created_at, name`

// load returns all that is stored, oldest first.
func (s definitions) load(ctx context.Context) ([]definition, error) {
	rows, err := s.pool.Query(ctx, loadDatabases)
	if err != nil {
		return nil, fmt.Errorf("read the databases made by API: %w", auth.Down(err))
	}
	list, err := pgx.CollectRows(rows, s.scan)
	if err != nil {
		return nil, fmt.Errorf("read the databases made by API: %w", auth.Down(err))
	}
	return list, nil
}

func (s definitions) scan(row pgx.CollectableRow) (definition, error) {
	var d definition
	var text, sealed []byte
	if err := row.Scan(&d.Name, &text, &sealed, &d.removed); err != nil {
		return d, err
	}
	var stored storedDatabase
	if err := json.Unmarshal(text, &stored); err != nil {
		return d, fmt.Errorf("database %s: its definition is not readable: %w", d.Name, err)
	}
	d.Capture, d.Slot, d.Publication, d.Tables = stored.Capture, stored.Slot, stored.Publication, stored.Tables
	d.Int8AsString, d.RetainWAL, d.foundSlot = stored.Int8AsString, stored.RetainWAL, stored.FoundSlot
	if d.removed {
		return d, nil
	}
	plain, err := s.key.Open(sealed, sealedFor(d.Name))
	d.URL, d.broken = config.URL(plain), err
	return d, nil
}

// One that was deleted leaves its name to the next.
const insertDatabase = `
INSERT INTO lockstep.database_definition AS d (name, definition, url)
VALUES ($1::text, $2::jsonb, $3::bytea)
ON CONFLICT (name) DO UPDATE
SET definition = excluded.definition, url = excluded.url, removed_at = NULL, created_at = now(), updated_at = now()
WHERE d.removed_at IS NOT NULL`

// insert fails with [lockstep.ErrConflict] when the name is taken.
func (s definitions) insert(ctx context.Context, d definition) error {
	text, err := s.encode(d)
	if err != nil {
		return err
	}
	tag, err := s.pool.Exec(ctx, insertDatabase, d.Name, text, s.key.Seal([]byte(d.URL.Reveal()), sealedFor(d.Name)))
	if err != nil {
		return fmt.Errorf("store database %s: %w", d.Name, auth.Down(err))
	}
	if tag.RowsAffected() == 0 {
		return fmt.Errorf("there is a database %q already, made by another node: %w", d.Name, lockstep.ErrConflict)
	}
	return nil
}

// update replaces a definition, but not its URL.
func (s definitions) update(ctx context.Context, d definition) error {
	text, err := s.encode(d)
	if err != nil {
		return err
	}
	const query = `
UPDATE lockstep.database_definition
SET definition = $2::jsonb, updated_at = now()
WHERE name = $1::text AND removed_at IS NULL`
	tag, err := s.pool.Exec(ctx, query, d.Name, text)
	if err != nil {
		return fmt.Errorf("store database %s: %w", d.Name, auth.Down(err))
	}
	if tag.RowsAffected() == 0 {
		return fmt.Errorf("database %q was deleted by another node: %w", d.Name, lockstep.ErrNotFound)
	}
	return nil
}

// remove marks a database as deleted once end has done its part: both, or neither.
func (s definitions) remove(ctx context.Context, name string, end func() error) error {
	var ended error
	err := pgx.BeginFunc(ctx, s.pool, func(tx pgx.Tx) error {
		const query = `
UPDATE lockstep.database_definition
SET removed_at = now(), updated_at = now(), url = ''
WHERE name = $1::text`
		if _, err := tx.Exec(ctx, query, name); err != nil {
			return err
		}
		if _, err := tx.Exec(ctx, pruneDatabaseStatus, name); err != nil {
			return err
		}
		ended = end()
		return ended
	})
	if err == nil || ended != nil {
		return ended
	}
	return fmt.Errorf("delete the definition of database %s: %w", name, auth.Down(err))
}

// forget removes the row of a database that was deleted or could not be made.
func (s definitions) forget(ctx context.Context, name string) error {
	if _, err := s.pool.Exec(ctx, `DELETE FROM lockstep.database_definition WHERE name = $1::text`, name); err != nil {
		return fmt.Errorf("remove the definition of database %s: %w", name, auth.Down(err))
	}
	return nil
}

// storeWithin bounds a change of the table, also when the caller is gone.
const storeWithin = 10 * time.Second
