package mirror

import (
	"context"
	"encoding/hex"
	"errors"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"

	"lockstep/internal/obs"
)

// adoptOrigin makes the session's transactions say that they come from a sync, by a
// replication origin that capture knows by the beginning of its name. It is one per
// sync: a session has an origin for itself, and Postgres keeps room for no more of
// them than max_replication_slots.
//
// Only a superuser, or a role that was given the functions, may do so. Without it
// changes show the origin user, which is all that is lost. It reports whether it has
// done so.
func (m *Mirror) adoptOrigin(ctx context.Context, conn *pgx.Conn) bool {
	const allowed = `
		SELECT has_function_privilege('pg_replication_origin_create(text)', 'EXECUTE')
		   AND has_function_privilege('pg_replication_origin_session_setup(text)', 'EXECUTE')
		   AND has_function_privilege('pg_replication_origin_xact_setup(pg_lsn, timestamptz)', 'EXECUTE')
		   AND has_function_privilege('pg_replication_origin_oid(text)', 'EXECUTE')`
	const adopt = `
		SELECT pg_replication_origin_session_setup($1::text)
		FROM (SELECT CASE WHEN pg_replication_origin_oid($1::text) IS NULL
		                  THEN pg_replication_origin_create($1::text) END) made`
	var may bool
	name := originOf(m.id)
	err := conn.QueryRow(ctx, allowed).Scan(&may)
	for tries := 0; err == nil && may; tries++ {
		_, err = conn.Exec(ctx, adopt, name)
		if !isInUse(err) || tries == 20 {
			break
		}
		// The session that broke has given back the lock, and gives this back next.
		if _, err = conn.Exec(ctx, "SELECT pg_sleep(0.02)"); err != nil {
			break
		}
	}
	if err != nil || !may {
		m.log.InfoContext(ctx, "changes of this sync will show the origin user: its role may not set replication origins", obs.KeySync, m.config.Name, obs.KeyError, err)
	}
	return err == nil && may
}

// isInUse reports whether another session has the origin.
func isInUse(err error) bool {
	refused, ok := errors.AsType[*pgconn.PgError](err)
	return ok && refused.Code == "55006"
}

func originOf(id uuid.UUID) string { return "lockstep_sync_" + hex.EncodeToString(id[:]) }

// dropOrigin frees the place that a sync's origin takes. A role that may not set
// origins has made none.
func dropOrigin(ctx context.Context, pool *pgxpool.Pool, id uuid.UUID) error {
	const drop = `
		SELECT CASE WHEN has_function_privilege('pg_replication_origin_drop(text)', 'EXECUTE') THEN pg_replication_origin_drop(roname) END
		FROM pg_replication_origin
		WHERE roname = $1::text`
	_, err := pool.Exec(ctx, drop, originOf(id))
	return err
}

// stampQuery gives the transaction its commit time, and is its last statement. Of a
// session with an origin Postgres expects that it says so itself: it would commit the
// first transaction with no time, and all others with that of the first.
const stampQuery = "SELECT pg_replication_origin_xact_setup('0/0', clock_timestamp())"
