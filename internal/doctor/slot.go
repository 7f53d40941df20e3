package doctor

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/jackc/pgx/v5"

	"lockstep/internal/capture/publish"
	"lockstep/internal/pgdb"
)

func (db *database) insertsName() string { return db.Publication + publish.InsertsSuffix }

// slotChecks are those of Lockstep's own replication slot.
func (db *database) slotChecks() []check {
	checks := []check{
		{id: "slot", run: db.slotThere,
			why: "the slot is the server's memory of what Lockstep has not read; without it, changes in between are missed"},
		{id: "slot_reader", run: db.slotReader,
			why: "a slot has one reader: whoever reads it moves it on, and Lockstep misses what the other one took"},
		{id: "slot_wal", run: db.slotWAL,
			why: "a slot whose write-ahead log the server has removed is dead, and the changes are gone from it"},
		{id: "slot_failover", run: db.slotFailover,
			why: "a standby that becomes primary has only those slots that were copied to it"},
		{id: "publication_age", run: db.publicationAge,
			why: "old write-ahead log is decoded with the catalog of its time: changes from before the publication cannot be read with it"},
	}
	if db.gaps != nil {
		checks = append(checks, check{id: "gaps", run: db.openGaps,
			why: "while a gap is open, changes may be missing in the stream and in what consumers made of it"})
	}
	return checks
}

// slot is a row of pg_replication_slots. Columns that came after version 14 have
// their zero value where they are missing.
type slot struct {
	plugin, database, kind string
	walStatus              string
	retained               int64
	safe                   *int64
	pid                    int32
	reader, readerRole     string
	readerKnown            bool // this role may see who reads
	conflicting            string
	invalidation           string // invalidation_reason, since 17
	failover, synced       *bool  // since 17
	temporary              bool
	moved                  bool // it has sent everything that was written until now
}

const readSlot = `
SELECT coalesce(s.plugin::text, ''), coalesce(s.database::text, ''), s.slot_type, coalesce(s.wal_status, ''),
  coalesce(pg_catalog.pg_wal_lsn_diff(here, s.restart_lsn), 0)::bigint, s.safe_wal_size, coalesce(s.active_pid, 0),
  coalesce(a.application_name, ''), coalesce(a.usename::text, ''), a.backend_start IS NOT NULL,
  coalesce(to_jsonb(s) ->> 'conflicting', 'false'), coalesce(to_jsonb(s) ->> 'invalidation_reason', ''),
  (to_jsonb(s) ->> 'failover')::bool, (to_jsonb(s) ->> 'synced')::bool, s.temporary,
  coalesce((SELECT r.state = 'streaming' AND r.sent_lsn >= here FROM pg_catalog.pg_stat_replication r WHERE r.pid = s.active_pid), false)
FROM (SELECT CASE WHEN pg_catalog.pg_is_in_recovery() THEN pg_catalog.pg_last_wal_replay_lsn() ELSE pg_catalog.pg_current_wal_lsn() END AS here) AS server,
  pg_catalog.pg_replication_slots s
LEFT JOIN pg_catalog.pg_stat_activity a ON a.pid = s.active_pid
WHERE s.slot_name = $1::text`

func (db *database) readSlot(ctx context.Context) (*slot, error) {
	var s slot
	err := db.pool.QueryRow(ctx, readSlot, db.Slot).Scan(&s.plugin, &s.database, &s.kind, &s.walStatus, &s.retained, &s.safe, &s.pid,
		&s.reader, &s.readerRole, &s.readerKnown, &s.conflicting, &s.invalidation, &s.failover, &s.synced, &s.temporary, &s.moved)
	if errors.Is(err, pgx.ErrNoRows) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	return &s, nil
}

func (db *database) dropSlot() string {
	return "SELECT pg_drop_replication_slot(" + strings.TrimSpace(pgdb.QuoteLiteral(db.Slot)) + ");"
}

func (db *database) slotThere(ctx context.Context) ([]verdict, error) {
	s, err := db.readSlot(ctx)
	if err != nil {
		return nil, err
	}
	db.slot = s
	rename := "# give Lockstep another one in the configuration: databases[].slot; or, if nobody needs it:\n" + db.dropSlot()
	switch {
	case s == nil:
		return db.slotMissing(ctx)
	case s.kind != "logical":
		return one(fail(rename, "the slot %s is %s, not logical", db.Slot, s.kind))
	case s.plugin != "pgoutput":
		return one(fail(rename, "the slot %s has the plugin %s, not pgoutput", db.Slot, s.plugin))
	case s.database != db.who.database:
		return one(fail(rename, "the slot %s belongs to the database %s, not to %s", db.Slot, s.database, db.who.database))
	case s.temporary:
		return one(fail(rename, "the slot %s is temporary: it belongs to another session and goes with it", db.Slot))
	}
	return one(pass("the slot %s is there", db.Slot))
}

// slotMissing tells a first start from a slot that somebody has dropped: Lockstep
// makes the publications and the slot together.
func (db *database) slotMissing(ctx context.Context) ([]verdict, error) {
	all, err := db.readPublished(ctx)
	if err != nil {
		return nil, err
	}
	for _, p := range all {
		if p.ours {
			return one(warn("# the next start of Lockstep makes the slot; then repair what was missed:\n"+db.repair(),
				"there is no slot %s, but there are publications that Lockstep has made: if it ran here before, the slot was dropped and changes since then are missed", db.Slot))
		}
	}
	return one(pass("the slot %s will be made at the first start", db.Slot))
}

func (db *database) slotReader(context.Context) ([]verdict, error) {
	s := db.slot
	end := ""
	if s != nil {
		end = fmt.Sprintf("# stop that process, or give Lockstep another slot in the configuration: databases[].slot; to end it once:\nSELECT pg_terminate_backend(%d);", s.pid)
	}
	switch {
	case s == nil:
		return one(skip("there is no slot yet"))
	case s.pid == 0 && db.nodeRuns:
		return one(warn("# why capture does not read tells\nlockstep doctor --server <the node> # and its log, and GET /readyz",
			"a node runs with this data directory, but nobody reads the slot"))
	case s.pid == 0:
		return one(pass("nobody reads the slot"))
	case !s.readerKnown:
		return one(warn(fmt.Sprintf("# to see who it is:\nGRANT pg_read_all_stats TO %s;", db.who.quoted()), "the slot is read by process %d, and %s may not see whose it is", s.pid, db.who.role))
	case strings.HasPrefix(s.reader, "lockstep ") && db.nodeRuns:
		return one(pass("the slot is read by a Lockstep (process %d), as it should be while the node runs", s.pid))
	case strings.HasPrefix(s.reader, "lockstep "):
		return one(warn(end, "the slot is read by a Lockstep (process %d), but not by one with this data directory: two installations share it", s.pid))
	}
	return one(fail(end, "the slot is read by another program: process %d, application_name %q, role %s", s.pid, s.reader, s.readerRole))
}

func (db *database) slotWAL(context.Context) ([]verdict, error) {
	if db.slot == nil {
		return one(skip("there is no slot yet"))
	}
	return one(db.judgeWAL(*db.slot))
}

// judgeWAL judges what the server says of the slot's write-ahead log.
func (db *database) judgeWAL(s slot) verdict {
	why := s.invalidation
	if why == "" && s.conflicting == "true" {
		why = "conflicting with recovery"
	}
	switch {
	case s.walStatus == "lost" || why != "":
		if why == "" {
			why = "its write-ahead log was removed"
		}
		return fail("# the next start of Lockstep makes a new slot; then repair what was missed:\n"+db.repair()+"\n-- and find out why nobody read it, or allow more:\n"+reloaded("max_slot_wal_keep_size", "'50GB'"),
			"the slot %s is invalidated: %s", db.Slot, why)
	case s.walStatus == "unreserved":
		return fail("# start Lockstep at once, or find out what holds it up; and allow more:\n"+reloaded("max_slot_wal_keep_size", "'50GB'"),
			"the slot %s keeps %s and will be invalidated at one of the next checkpoints", db.Slot, size(s.retained))
	case s.safe != nil && *s.safe >= 0 && *s.safe < s.retained:
		return warn("# start Lockstep, or find out what holds it up; and allow more:\n"+reloaded("max_slot_wal_keep_size", "'50GB'"),
			"the slot %s keeps %s, and is lost when %s more are written", db.Slot, size(s.retained), size(*s.safe))
	case s.retained > db.retained:
		return warn("# start Lockstep, or find out what holds it up; if it is not needed any more, the server's disk is free after:\n"+db.dropSlot(),
			"the slot %s keeps %s of write-ahead log on the server's disk", db.Slot, size(s.retained))
	}
	return pass("the slot keeps %s of write-ahead log (%s)", size(s.retained), s.walStatus)
}

func (db *database) slotFailover(ctx context.Context) ([]verdict, error) {
	if db.slot == nil {
		return one(skip("there is no slot yet"))
	}
	const query = `
SELECT count(*)
FROM pg_catalog.pg_stat_replication r
WHERE NOT EXISTS (SELECT FROM pg_catalog.pg_replication_slots s WHERE s.active_pid = r.pid AND s.slot_type = 'logical')
  AND coalesce(r.state, 'streaming') IN ('streaming', 'catchup')
  AND coalesce(r.application_name, '') NOT IN ('pg_receivewal', 'pg_recvlogical', 'lockstep doctor')`
	var standbys int
	if err := db.pool.QueryRow(ctx, query).Scan(&standbys); err != nil {
		return nil, err
	}
	return one(db.judgeFailover(*db.slot, standbys))
}

// judgeFailover judges what becomes of the slot when one of the standbys takes over.
func (db *database) judgeFailover(s slot, standbys int) verdict {
	switch {
	case s.synced != nil && *s.synced:
		return fail("# capture from the primary; after a failover this slot can be read", "the slot %s is the copy of a primary's: nobody can read it here", db.Slot)
	case standbys == 0:
		return pass("no standby is connected that a slot would have to follow")
	case s.failover != nil && *s.failover:
		return pass("the slot follows a failover, on standbys with sync_replication_slots = on")
	case s.failover == nil:
		return warn("# after a failover:\n"+db.repair(), "standbys are connected (%d), and this version cannot copy slots to them: a failover costs a gap", standbys)
	}
	return warn(fmt.Sprintf("# while Lockstep is stopped:\npsql '<the URL, with replication=database>' -c 'ALTER_REPLICATION_SLOT %s ( FAILOVER true );'\n# and on each standby: sync_replication_slots = on, hot_standby_feedback = on, and a dbname in primary_conninfo",
		pgdb.QuoteIdent(db.Slot)), "standbys are connected (%d), and the slot %s does not follow a failover: it would cost a gap", standbys, db.Slot)
}

// publicationAge compares the transaction that wrote the publication's row with the
// oldest one whose catalog the slot still needs. When the first is older, it had
// ended before the place up to which the slot is confirmed, so that everything that
// will be decoded is decoded with the publication in place. When it is not, nothing
// is known: the slot's catalog_xmin lags behind (a new slot takes over that of the
// others), and ALTER PUBLICATION writes the row anew.
func (db *database) publicationAge(ctx context.Context) ([]verdict, error) {
	if db.slot == nil {
		return one(skip("there is no slot yet: Lockstep makes the publications before it"))
	}
	all, err := db.readPublished(ctx)
	if err != nil {
		return nil, err
	}
	if len(all) == 0 {
		return one(skip("there is no publication"))
	}
	var unsure []string
	for _, p := range all {
		if p.older == nil || !*p.older {
			unsure = append(unsure, p.name)
		}
	}
	switch {
	case len(unsure) == 0:
		return one(pass("the publications are older than everything that the slot will send"))
	case db.slot.moved:
		// What it could not send, Lockstep has met: as an error, since 18 as a gap.
		return one(pass("the slot has sent everything that was written until now: nothing is left from before the publications"))
	}
	return one(warn("# if the log of Lockstep says that the publication does not exist, or tells of a gap, repair what was missed:\n"+db.repair(),
		"whether %s is older than what the slot has not sent yet cannot be known: it was made or altered lately", few(unsure)))
}

func (db *database) openGaps(ctx context.Context) ([]verdict, error) {
	gaps, err := db.gaps(ctx, db.Name)
	if err != nil {
		return one(skip("the node cannot be asked: %s", plainError(err)))
	}
	if len(gaps) == 0 {
		return one(pass("no gap is open"))
	}
	var out []verdict
	for _, g := range gaps {
		out = append(out, fail(db.repair(), "changes may be missing: %s", g))
	}
	return out, nil
}
