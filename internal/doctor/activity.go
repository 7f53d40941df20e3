package doctor

import (
	"context"
	"fmt"
	"strings"
	"time"

	"lockstep/internal/pgdb"
)

// activityChecks are those of what goes on in the server beside Lockstep.
func (db *database) activityChecks() []check {
	return []check{
		{id: "other_slots", run: db.otherSlots,
			why: "a slot that nobody reads keeps write-ahead log until the server's disk is full"},
		{id: "old_transactions", run: db.oldTransactions,
			why: "a new slot waits until every transaction that runs has ended, and the slot keeps the write-ahead log since the oldest one began"},
		{id: "prepared_transactions", run: db.preparedTransactions,
			why: "a prepared transaction lives on without a session, even over a restart: a new slot waits for it for ever"},
	}
}

func (db *database) otherSlots(ctx context.Context) ([]verdict, error) {
	const query = `
SELECT s.slot_name::text, pg_catalog.pg_wal_lsn_diff(here, s.restart_lsn)::bigint
FROM (SELECT CASE WHEN pg_catalog.pg_is_in_recovery() THEN pg_catalog.pg_last_wal_replay_lsn() ELSE pg_catalog.pg_current_wal_lsn() END AS here) AS server,
  pg_catalog.pg_replication_slots s
WHERE NOT s.active AND s.slot_name <> $1::text AND pg_catalog.pg_wal_lsn_diff(here, s.restart_lsn) > $2::bigint
ORDER BY 2 DESC`
	rows, err := db.pool.Query(ctx, query, db.Slot, db.retained)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var names, remedies []string
	var most int64
	for rows.Next() {
		var name string
		var bytes int64
		if err := rows.Scan(&name, &bytes); err != nil {
			return nil, err
		}
		most = max(most, bytes)
		names = append(names, fmt.Sprintf("%s (%s)", name, size(bytes)))
		if len(remedies) < 3 {
			remedies = append(remedies, "SELECT pg_drop_replication_slot("+strings.TrimSpace(pgdb.QuoteLiteral(name))+");")
		}
	}
	if err := rows.Err(); err != nil {
		return nil, err
	}
	if len(names) == 0 {
		return one(pass("no other slot that nobody reads keeps more than %s", size(db.retained)))
	}
	return one(warn("-- start what reads them, or drop those that nobody needs:\n"+strings.Join(remedies, "\n"),
		"slots that nobody reads keep up to %s of write-ahead log: %s", size(most), few(names)))
}

func (db *database) oldTransactions(ctx context.Context) ([]verdict, error) {
	const query = `
SELECT a.pid, coalesce(a.usename::text, '?'), coalesce(a.datname::text, '?'), coalesce(a.state, '?'),
  extract(epoch FROM clock_timestamp() - a.xact_start)::float8, a.backend_xid IS NOT NULL
FROM pg_catalog.pg_stat_activity a
WHERE a.xact_start IS NOT NULL AND a.pid <> pg_backend_pid() AND (a.backend_xid IS NOT NULL OR a.backend_xmin IS NOT NULL)
  AND coalesce(a.backend_type, '') NOT IN ('walsender', 'autovacuum worker') AND extract(epoch FROM clock_timestamp() - a.xact_start) > $1::float8
ORDER BY a.backend_xid IS NULL, a.xact_start
LIMIT 4`
	rows, err := db.pool.Query(ctx, query, db.transaction.Seconds())
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var said, remedies []string
	for rows.Next() {
		var pid int32
		var user, base, state string
		var age float64
		var writes bool
		if err := rows.Scan(&pid, &user, &base, &state, &age, &writes); err != nil {
			return nil, err
		}
		kind := "reads only"
		if writes {
			kind = "has written"
		}
		said = append(said, fmt.Sprintf("process %d (role %s, database %s, %s, %s) since %s", pid, user, base, state, kind, time.Duration(age*float64(time.Second)).Round(time.Second)))
		remedies = append(remedies, fmt.Sprintf("SELECT pg_terminate_backend(%d);", pid))
	}
	if err := rows.Err(); err != nil {
		return nil, err
	}
	if len(said) > 0 {
		return one(warn("-- commit it in its program, or end its session:\n"+strings.Join(remedies, "\n"), "transactions are open for long: %s", few(said)))
	}
	return db.noOldTransaction(ctx)
}

// noOldTransaction says how much of the server's sessions the role may see.
func (db *database) noOldTransaction(ctx context.Context) ([]verdict, error) {
	const query = `SELECT pg_catalog.pg_has_role('pg_read_all_stats', 'USAGE') OR $1::bool`
	var all bool
	if err := db.pool.QueryRow(ctx, query, db.who.super).Scan(&all); err != nil {
		return nil, err
	}
	if !all {
		return one(pass("no transaction of %s is open for longer than %s; those of others it may not see (GRANT pg_read_all_stats would let it)", db.who.role, db.transaction))
	}
	return one(pass("no transaction is open for longer than %s", db.transaction))
}

func (db *database) preparedTransactions(ctx context.Context) ([]verdict, error) {
	const query = `
SELECT gid, database::text, owner::text, extract(epoch FROM clock_timestamp() - prepared)::float8
FROM pg_catalog.pg_prepared_xacts
WHERE extract(epoch FROM clock_timestamp() - prepared) > $1::float8
ORDER BY prepared`
	rows, err := db.pool.Query(ctx, query, db.transaction.Seconds())
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var said, remedies []string
	for rows.Next() {
		var gid, base, owner string
		var age float64
		if err := rows.Scan(&gid, &base, &owner, &age); err != nil {
			return nil, err
		}
		said = append(said, fmt.Sprintf("%q of %s in database %s since %s", gid, owner, base, time.Duration(age*float64(time.Second)).Round(time.Second)))
		if len(remedies) < 3 {
			remedies = append(remedies, "ROLLBACK PREPARED "+strings.TrimSpace(pgdb.QuoteLiteral(gid))+"; -- or COMMIT PREPARED; in database "+base)
		}
	}
	if err := rows.Err(); err != nil {
		return nil, err
	}
	if len(said) == 0 {
		return one(pass("no prepared transaction is older than %s", db.transaction))
	}
	return one(warn(strings.Join(remedies, "\n"), "prepared transactions are open: %s", few(said)))
}
