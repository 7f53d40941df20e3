package auth

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"lockstep"
)

// Postgres keeps tokens in the table lockstep.token.
type Postgres struct{ Pool *pgxpool.Pool }

var _ Store = Postgres{}

const loadTokens = `
SELECT id, name, hash, scopes, created_at, expires_at, last_used_at, revoked_at
FROM lockstep.token
ORDER BY created_at, id`

// Load implements [Store].
func (p Postgres) Load(ctx context.Context) ([]Token, error) {
	rows, err := p.Pool.Query(ctx, loadTokens)
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, scanToken)
}

func scanToken(row pgx.CollectableRow) (Token, error) {
	var t Token
	var hash []byte
	var scopes []string
	var expires, used, revoked *time.Time
	if err := row.Scan(&t.ID, &t.Name, &hash, &scopes, &t.CreatedAt, &expires, &used, &revoked); err != nil {
		return Token{}, err
	}
	if len(hash) != len(t.Hash) {
		return Token{}, fmt.Errorf("token %s: the stored hash has %d bytes: %w", t.ID, len(hash), lockstep.ErrCorrupt)
	}
	copy(t.Hash[:], hash)
	t.Scopes = scopes
	t.CreatedAt = t.CreatedAt.UTC()
	t.ExpiresAt, t.LastUsedAt, t.RevokedAt = utc(expires), utc(used), utc(revoked)
	return t, nil
}

// utc returns the zero time for NULL.
func utc(at *time.Time) time.Time {
	if at == nil {
		return time.Time{}
	}
	return at.UTC()
}

const insertToken = `
INSERT INTO lockstep.token (id, name, hash, scopes, created_at, expires_at)
VALUES ($1::text, $2::text, $3::bytea, $4::text[], $5::timestamptz, $6::timestamptz)`

// Insert implements [Store].
func (p Postgres) Insert(ctx context.Context, t Token) error {
	var expires *time.Time
	if !t.ExpiresAt.IsZero() {
		expires = &t.ExpiresAt
	}
	_, err := p.Pool.Exec(ctx, insertToken, t.ID, t.Name, t.Hash[:], []string(t.Scopes), t.CreatedAt, expires)
	return err
}

const revokeToken = `
UPDATE lockstep.token
SET revoked_at = coalesce(revoked_at, $2::timestamptz)
WHERE id = $1::text`

// Revoke implements [Store].
func (p Postgres) Revoke(ctx context.Context, id string, at time.Time) error {
	tag, err := p.Pool.Exec(ctx, revokeToken, id, at)
	if err != nil {
		return err
	}
	if tag.RowsAffected() == 0 {
		return fmt.Errorf("token %s: %w", id, lockstep.ErrNotFound)
	}
	return nil
}

const touchTokens = `
UPDATE lockstep.token AS t
SET last_used_at = greatest(t.last_used_at, u.at)
FROM unnest($1::text[], $2::timestamptz[]) AS u (id, at)
WHERE t.id = u.id`

// Touch implements [Store].
func (p Postgres) Touch(ctx context.Context, used map[string]time.Time) error {
	ids := make([]string, 0, len(used))
	times := make([]time.Time, 0, len(used))
	for id, at := range used {
		ids = append(ids, id)
		times = append(times, at)
	}
	_, err := p.Pool.Exec(ctx, touchTokens, ids, times)
	return err
}
