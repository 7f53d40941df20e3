package doctor

import (
	"context"
	"fmt"
	"strings"
	"time"

	"lockstep/internal/pgdb"
)

// serverChecks are those of the whole Postgres server and of its settings.
func (db *database) serverChecks() []check {
	return []check{
		{id: "primary", run: db.primary,
			why: "Lockstep makes publications and writes marks into the write-ahead log, which only a primary can take"},
		{id: "wal_level", run: db.walLevel,
			why: "below logical the write-ahead log does not hold what changes are decoded from"},
		{id: "free_slots", run: db.freeSlots,
			why: "capture needs one replication slot: the server's memory of what has not been read yet"},
		{id: "free_senders", run: db.freeSenders,
			why: "changes are sent by one walsender process per captured database"},
		{id: "free_connections", run: db.freeConnections,
			why: "a node opens up to twenty connections besides the one that sends changes"},
		{id: "wal_keep", run: db.walKeep,
			why: "a slot that nobody reads keeps write-ahead log for ever: without a limit the server's disk fills up and the server stops; with a low one, changes are lost"},
		{id: "idle_slots", run: db.idleSlots,
			why: "the server invalidates a slot that nobody reads for so long, and changes are lost"},
		{id: "timeouts", run: db.timeouts,
			why: "surveys of the catalog and the pages of a backfill take longer than a short time limit lets them"},
		{id: "sender_timeout", run: db.senderTimeout,
			why: "it is how the server notices that a reader is gone, and lets the next one have the slot"},
		{id: "clock", run: db.clock,
			why: "delays are shown, and positions by time are found, by comparing the two clocks; the order of changes does not depend on them"},
	}
}

// setting is ALTER SYSTEM for one setting that takes a restart.
func setting(name, value, hosted string) string {
	s := fmt.Sprintf("ALTER SYSTEM SET %s = %s;\n-- then restart Postgres", name, value)
	if hosted != "" {
		s += "; on a managed service set it in its console: " + hosted
	}
	return s
}

func reloaded(name, value string) string {
	return fmt.Sprintf("ALTER SYSTEM SET %s = %s;\nSELECT pg_reload_conf();", name, value)
}

func (db *database) primary(ctx context.Context) ([]verdict, error) {
	var readOnly bool
	var feedback string
	const query = `SELECT current_setting('transaction_read_only')::bool, current_setting('hot_standby_feedback')`
	if err := db.pool.QueryRow(ctx, query).Scan(&readOnly, &feedback); err != nil {
		return nil, err
	}
	switch {
	case db.who.standby:
		return one(fail("# give the URL of the primary, or several hosts and\ntarget_session_attrs=read-write",
			"this server is a standby (hot_standby_feedback is %s)", feedback))
	case readOnly:
		return one(fail("ALTER ROLE "+db.who.quoted()+" SET default_transaction_read_only = off;\n-- or the same for the database",
			"transactions of %s are read-only", db.who.role))
	}
	return one(pass("this server is a primary"))
}

func (db *database) walLevel(ctx context.Context) ([]verdict, error) {
	var level string
	if err := db.pool.QueryRow(ctx, `SELECT current_setting('wal_level')`).Scan(&level); err != nil {
		return nil, err
	}
	if level != "logical" {
		return one(fail(setting("wal_level", "logical", "rds.logical_replication = 1 (RDS), cloudsql.logical_decoding = on (Cloud SQL), wal_level (Azure)"),
			"wal_level is %s, not logical", level))
	}
	return one(pass("wal_level is logical"))
}

func (db *database) freeSlots(ctx context.Context) ([]verdict, error) {
	const query = `
SELECT current_setting('max_replication_slots')::int, count(*), coalesce(bool_or(slot_name = $1::text), false), count(*) FILTER (WHERE NOT active)
FROM pg_catalog.pg_replication_slots`
	var most, used, idle int
	var ours bool
	if err := db.pool.QueryRow(ctx, query, db.Slot).Scan(&most, &used, &ours, &idle); err != nil {
		return nil, err
	}
	switch {
	case ours:
		return one(pass("the slot %s is there; %d of %d slots are in use", db.Slot, used, most))
	case used >= most:
		return one(fail(setting("max_replication_slots", fmt.Sprint(most+10), "")+
			"\n-- or drop one that nobody needs, after a look at\nSELECT slot_name, database, active, wal_status FROM pg_replication_slots;",
			"all %d replication slots are in use (%d of them by nobody)", most, idle))
	case used == most-1:
		return one(warn(setting("max_replication_slots", fmt.Sprint(most+10), ""),
			"one of %d replication slots is free: it will be Lockstep's, and none is left for a backup or a standby", most))
	}
	return one(pass("%d of %d replication slots are free", most-used, most))
}

func (db *database) freeSenders(ctx context.Context) ([]verdict, error) {
	const query = `
SELECT current_setting('max_wal_senders')::int, (SELECT count(*) FROM pg_catalog.pg_stat_replication),
  EXISTS (SELECT FROM pg_catalog.pg_replication_slots WHERE slot_name = $1::text AND active)`
	var most, used int
	var ours bool
	if err := db.pool.QueryRow(ctx, query, db.Slot).Scan(&most, &used, &ours); err != nil {
		return nil, err
	}
	if !ours && used >= most {
		return one(fail(setting("max_wal_senders", fmt.Sprint(max(most+10, 10)), "")+
			"\n-- or end one that nobody needs, after a look at\nSELECT pid, application_name, state FROM pg_stat_replication;",
			"all %d walsenders are in use", most))
	}
	return one(pass("%d of %d walsenders are in use", used, most))
}

// wanted is how many connections a node may open to one database: capture, the
// publications, the control plane, the API.
const wanted = 20

func (db *database) freeConnections(ctx context.Context) ([]verdict, error) {
	const query = `
SELECT current_setting('max_connections')::int - current_setting('superuser_reserved_connections')::int - coalesce(current_setting('reserved_connections', true), '0')::int,
  (SELECT coalesce(sum(numbackends), 0) FROM pg_catalog.pg_stat_database)::int,
  (SELECT rolconnlimit FROM pg_catalog.pg_roles WHERE rolname = current_user),
  (SELECT datconnlimit FROM pg_catalog.pg_database WHERE datname = current_database())`
	var most, used, role, base int
	if err := db.pool.QueryRow(ctx, query).Scan(&most, &used, &role, &base); err != nil {
		return nil, err
	}
	switch {
	case role >= 0 && role < wanted && !db.who.super:
		return one(warn(fmt.Sprintf("ALTER ROLE %s CONNECTION LIMIT %d;", db.who.quoted(), 2*wanted), "the role %s may have %d connections only", db.who.role, role))
	case base >= 0 && base < wanted && !db.who.super:
		return one(warn(fmt.Sprintf("ALTER DATABASE %s CONNECTION LIMIT -1;", pgdb.QuoteIdent(db.who.database)), "the database %s takes %d connections only", db.who.database, base))
	case most-used < wanted && !db.nodeRuns:
		return one(warn(setting("max_connections", fmt.Sprint(most+100), "")+"\n-- or fewer for Lockstep, in the URL: pool_max_conns=4",
			"%d of %d connections are free", max(most-used, 0), most))
	}
	return one(pass("%d of %d connections are in use", used, most))
}

func (db *database) walKeep(ctx context.Context) ([]verdict, error) {
	var bytes int64
	const query = `SELECT setting::bigint * (CASE WHEN setting::bigint < 0 THEN 1 ELSE 1024 * 1024 END) FROM pg_catalog.pg_settings WHERE name = 'max_slot_wal_keep_size'`
	if err := db.pool.QueryRow(ctx, query).Scan(&bytes); err != nil {
		return nil, err
	}
	remedy := reloaded("max_slot_wal_keep_size", "'50GB'") + "\n-- less than the disk that holds pg_wal has left, and more than is written while Lockstep may be away"
	switch {
	case bytes < 0 && db.URL == "":
		return one(pass("max_slot_wal_keep_size is -1; this private Postgres has no other task than Lockstep's"))
	case bytes < 0:
		return one(warn(remedy, "max_slot_wal_keep_size is -1: a slot may fill the server's disk"))
	case bytes < 1<<30:
		return one(warn(remedy, "max_slot_wal_keep_size is %s: the slot is lost when more than that is written while Lockstep is away", size(bytes)))
	}
	return one(pass("max_slot_wal_keep_size is %s", size(bytes)))
}

func (db *database) idleSlots(ctx context.Context) ([]verdict, error) {
	var seconds *int64
	const query = `SELECT (SELECT setting::bigint * CASE unit WHEN 'min' THEN 60 ELSE 1 END FROM pg_catalog.pg_settings WHERE name = 'idle_replication_slot_timeout')`
	if err := db.pool.QueryRow(ctx, query).Scan(&seconds); err != nil {
		return nil, err
	}
	return one(judgeIdle(seconds))
}

// judgeIdle judges idle_replication_slot_timeout, which is there since 18.
func judgeIdle(seconds *int64) verdict {
	switch {
	case seconds == nil:
		return pass("this server has no time limit for idle slots")
	case *seconds == 0:
		return pass("idle_replication_slot_timeout is 0: idle slots are kept")
	}
	limit := time.Duration(*seconds) * time.Second
	remedy := reloaded("idle_replication_slot_timeout", "0") + "\n-- and bound what slots keep by max_slot_wal_keep_size instead"
	return warn(remedy, "idle_replication_slot_timeout is %s: the slot is lost when Lockstep is away for longer", limit)
}

func (db *database) timeouts(ctx context.Context) ([]verdict, error) {
	const query = `SELECT name, setting::bigint FROM pg_catalog.pg_settings WHERE name IN ('statement_timeout', 'transaction_timeout', 'idle_in_transaction_session_timeout') ORDER BY name`
	rows, err := db.pool.Query(ctx, query)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var out []verdict
	for rows.Next() {
		var name string
		var ms int64
		if err := rows.Scan(&name, &ms); err != nil {
			return nil, err
		}
		limit := time.Duration(ms) * time.Millisecond
		if limit > 0 && limit < 30*time.Second {
			out = append(out, warn(fmt.Sprintf("ALTER ROLE %s IN DATABASE %s SET %s = 0;", db.who.quoted(), pgdb.QuoteIdent(db.who.database), name),
				"%s is %s for %s", name, limit, db.who.role))
		}
	}
	if len(out) == 0 {
		out = append(out, pass("no time limit of %s is shorter than 30 s", db.who.role))
	}
	return out, rows.Err()
}

func (db *database) senderTimeout(ctx context.Context) ([]verdict, error) {
	var ms int64
	const query = `SELECT setting::bigint FROM pg_catalog.pg_settings WHERE name = 'wal_sender_timeout'`
	if err := db.pool.QueryRow(ctx, query).Scan(&ms); err != nil {
		return nil, err
	}
	limit := time.Duration(ms) * time.Millisecond
	remedy := reloaded("wal_sender_timeout", "'1min'")
	switch {
	case ms == 0:
		return one(warn(remedy, "wal_sender_timeout is 0: after a cut network the server holds the slot for a dead reader, for hours"))
	case limit < 5*time.Second:
		return one(warn(remedy, "wal_sender_timeout is %s: a short pause of this machine or of the network breaks the connection", limit))
	}
	return one(pass("wal_sender_timeout is %s", limit))
}

func (db *database) clock(ctx context.Context) ([]verdict, error) {
	var theirs time.Time
	before := db.now()
	if err := db.pool.QueryRow(ctx, `SELECT clock_timestamp()`).Scan(&theirs); err != nil {
		return nil, err
	}
	after := db.now()
	// The server's reading lies somewhere between the two of ours.
	skew := time.Duration(0)
	direction := "ahead of"
	switch {
	case theirs.Before(before):
		skew, direction = before.Sub(theirs), "behind"
	case theirs.After(after):
		skew = theirs.Sub(after)
	}
	if skew > db.skew {
		return one(warn("# on both machines:\ntimedatectl set-ntp true", "the server's clock is %s %s this machine's", skew.Round(100*time.Millisecond), direction))
	}
	return one(pass("the clocks agree within %s", max(after.Sub(before)+skew, time.Millisecond).Round(time.Millisecond)))
}

// size writes bytes in the units of Postgres.
func size(bytes int64) string {
	units := []string{"B", "kB", "MB", "GB", "TB"}
	v, i := float64(bytes), 0
	for v >= 1024 && i < len(units)-1 {
		v, i = v/1024, i+1
	}
	return strings.TrimSuffix(fmt.Sprintf("%.1f", v), ".0") + " " + units[i]
}

// few names at most three of a list, and says how many more there are.
func few(names []string) string {
	if len(names) <= 3 {
		return strings.Join(names, ", ")
	}
	return fmt.Sprintf("%s and %d more", strings.Join(names[:3], ", "), len(names)-3)
}
