package pgdb

import (
	"context"

	"github.com/jackc/pgx/v5/pgxpool"
)

// Lazy returns a pool as [Open] does, but connects only when it is used, so that a
// database that is away can be waited for. Only a URL that does not parse is an
// error, of kind [lockstep.ErrInvalid].
func Lazy(ctx context.Context, url, applicationName string) (*pgxpool.Pool, error) {
	config, err := poolConfig(url, applicationName)
	if err != nil {
		return nil, err
	}
	pool, err := pgxpool.NewWithConfig(ctx, config)
	if err != nil {
		return nil, explain(url, err)
	}
	return pool, nil
}
