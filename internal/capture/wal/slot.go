package wal

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"lockstep"
	"lockstep/internal/obs"
	"lockstep/internal/pgdb"
)

// slot is a replication slot as the server describes it.
type slot struct {
	plugin, database, walStatus string
	confirmed                   lockstep.LSN // 0 for a slot that is lost
	pid                         int32        // of the walsender that reads it; 0: nobody
	reader                      string       // that walsender's application_name
	decoded                     bool         // somebody has read changes from it; false also when the server has forgotten
}

const readSlot = `
SELECT COALESCE(s.plugin::text, ''), COALESCE(s.database::text, ''), COALESCE(s.wal_status, ''),
       COALESCE(s.confirmed_flush_lsn, '0/0')::text, COALESCE(s.active_pid, 0), COALESCE(a.application_name, ''),
       COALESCE(d.total_txns > 0, false)
FROM pg_catalog.pg_replication_slots s
LEFT JOIN pg_catalog.pg_stat_replication_slots d ON d.slot_name = s.slot_name
LEFT JOIN pg_catalog.pg_stat_activity a ON a.pid = s.active_pid
WHERE s.slot_name = $1::text`

// findSlot returns nil when there is no slot of that name.
func (c *Capture) findSlot(ctx context.Context) (*slot, error) {
	var s slot
	var confirmed string
	err := c.pool.QueryRow(ctx, readSlot, c.config.Slot).Scan(&s.plugin, &s.database, &s.walStatus, &confirmed, &s.pid, &s.reader, &s.decoded)
	if errors.Is(err, pgx.ErrNoRows) {
		return nil, nil
	}
	if err != nil {
		return nil, explain("look for the replication slot "+c.config.Slot, err)
	}
	s.confirmed, err = lockstep.ParseLSN(confirmed)
	return &s, err
}

// freeSlot returns the slot when nobody reads it. A walsender left over by an
// earlier connection of this very Lockstep is ended; any other is waited for.
func (c *Capture) freeSlot(ctx context.Context) (*slot, error) {
	ctx, cancel := context.WithTimeout(ctx, queryTimeout)
	defer cancel()
	s, err := c.findSlot(ctx)
	if err != nil || s == nil {
		return s, err
	}
	if err := c.checkSlot(ctx, s); err != nil {
		return nil, err
	}
	if s.pid == 0 {
		return s, nil
	}
	if s.reader == c.applicationName() {
		// Same role, so no privilege is missing; one that just went is no error.
		if _, err := c.pool.Exec(ctx, "SELECT pg_catalog.pg_terminate_backend($1::int)", s.pid); err != nil {
			return nil, explain(fmt.Sprintf("end our own walsender with pid %d, left over by a cut connection", s.pid), err)
		}
		return nil, fmt.Errorf("slot %s is held by our own walsender with pid %d, left over by a cut connection: %w", c.config.Slot, s.pid, errSlotBusy)
	}
	return nil, fmt.Errorf("slot %s is read by pid %d (application_name %q): stop that process, or give this Lockstep a slot of its own: %w", c.config.Slot, s.pid, s.reader, errSlotBusy)
}

var errSlotBusy = errors.New("waiting until the slot is free")

func (c *Capture) checkSlot(ctx context.Context, s *slot) error {
	var database string
	if err := c.pool.QueryRow(ctx, "SELECT current_database()").Scan(&database); err != nil {
		return explain("ask for the database's name", err)
	}
	if s.plugin != "pgoutput" {
		return fmt.Errorf("slot %s exists with plugin %q, not pgoutput: drop it (SELECT pg_drop_replication_slot(%s)) or configure another name",
			c.config.Slot, s.plugin, pgdb.QuoteLiteral(c.config.Slot))
	}
	if s.database != database {
		return fmt.Errorf("slot %s belongs to database %q, not to %q: configure another name", c.config.Slot, s.database, database)
	}
	return nil
}

// createSlot makes the slot and returns the position from which it decodes. It
// waits until every transaction that was running has ended.
func (c *Capture) createSlot(ctx context.Context, w *wire) (lockstep.LSN, error) {
	c.enter(ctx, "creating slot")
	watching, stop := context.WithCancel(ctx)
	watched := make(chan struct{})
	go func() {
		defer close(watched)
		c.reportBlockers(watching, w.pid)
	}()
	row, err := w.row(ctx, "CREATE_REPLICATION_SLOT "+pgdb.QuoteIdent(c.config.Slot)+" LOGICAL pgoutput NOEXPORT_SNAPSHOT")
	stop()
	<-watched
	if err != nil {
		c.endBackend(ctx, w.pid)
		return 0, explain("create the replication slot "+c.config.Slot, err)
	}
	if len(row) < 2 {
		return 0, fmt.Errorf("create the replication slot %s: the answer has %d columns", c.config.Slot, len(row))
	}
	c.log.InfoContext(ctx, "replication slot created", obs.KeySlot, c.config.Slot, obs.KeyLSN, row[1])
	return lockstep.ParseLSN(row[1])
}

// endBackend ends a walsender that may still wait for old transactions though
// nobody listens to it any more: it would make a slot that nobody reads.
func (c *Capture) endBackend(ctx context.Context, pid uint32) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 2*time.Second) // also when ctx is over
	defer cancel()
	if _, err := c.pool.Exec(ctx, "SELECT pg_catalog.pg_terminate_backend($1::int)", int32(pid)); err != nil {
		c.log.DebugContext(ctx, "end the walsender", obs.KeyError, err)
	}
}

const readBlockers = `
SELECT a.pid, COALESCE(a.usename::text, ''), COALESCE(a.state, ''), COALESCE(extract(epoch FROM clock_timestamp() - a.xact_start), 0)::float8
FROM pg_catalog.pg_stat_activity a
WHERE a.pid = ANY(pg_catalog.pg_blocking_pids($1::int))`

// reportBlockers says every few seconds which transactions the new slot waits for.
func (c *Capture) reportBlockers(ctx context.Context, pid uint32) {
	tick := time.NewTicker(c.tune.blockers)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		rows, err := c.pool.Query(ctx, readBlockers, int32(pid))
		if err != nil {
			continue
		}
		var blocker int32
		var user, state string
		var age float64
		_, err = pgx.ForEachRow(rows, []any{&blocker, &user, &state, &age}, func() error {
			problem := fmt.Sprintf("the new replication slot waits for the transaction of pid %d (user %s, %s) that runs since %s: end it, or SELECT pg_terminate_backend(%d)",
				blocker, user, state, time.Duration(age*float64(time.Second)).Round(time.Second), blocker)
			c.setProblem(problem)
			c.log.WarnContext(ctx, problem, "pid", blocker, "age_seconds", int(age))
			return nil
		})
		if err != nil && ctx.Err() == nil {
			c.log.DebugContext(ctx, "read what the new slot waits for", obs.KeyError, err)
		}
	}
}

func (c *Capture) dropSlot(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, queryTimeout)
	defer cancel()
	if _, err := c.pool.Exec(ctx, "SELECT pg_catalog.pg_drop_replication_slot($1::text)", c.config.Slot); err != nil {
		return explain("drop the lost replication slot "+c.config.Slot, err)
	}
	c.log.WarnContext(ctx, "replication slot dropped", obs.KeySlot, c.config.Slot)
	return nil
}
