package wal

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"lockstep"
	"lockstep/internal/obs"
)

// Status is what capture is doing.
type Status struct {
	State     string    // connecting, creating slot, streaming, waiting (for the next attempt), stopped, failed
	Since     time.Time // when the state began
	Connected bool      // changes flow or would
	// LastError is why it is not connected, with the remedy; empty while it is.
	LastError string
	// Doubt is why the connection before this one ended, as long as this one is
	// younger than three seconds and has brought nothing to the stream's disk: a
	// full disk lets every connection live for a moment.
	Doubt string
	// Gap is the reason of the last gap since the start; empty: none.
	Gap string

	Received  lockstep.LSN // how far Postgres has sent
	Confirmed lockstep.LSN // how far the stream has it on disk
	ServerEnd lockstep.LSN // the end of the server's WAL at the last look
	LagBytes  uint64       // of WAL between Confirmed and ServerEnd
	// LastHeard is when Postgres last sent something: at the latest every ten
	// seconds while the connection lives.
	LastHeard time.Time

	Slot Slot
	// Warning is what threatens the slot or the server's disk, with the remedy; empty:
	// nothing does.
	Warning string
	// OldestTransaction holds back the slot's WAL and new slots; nil: none does.
	OldestTransaction *OldestTransaction

	Changes, Transactions, Bytes uint64 // brought to the stream's disk since the start
	BadAnnotations, BadJoins     uint64 // messages that were ignored since the start
}

// Slot is the replication slot at the last look.
type Slot struct {
	WALStatus     string // reserved, extended, unreserved, lost; empty: not seen yet
	RetainedBytes int64  // of WAL that the slot keeps from being removed
	SafeBytes     int64  // that can be written until the slot may be lost; -1: no limit
}

type counters struct {
	changes, transactions, bytes atomic.Uint64
	badAnnotations, badJoins     atomic.Uint64
	marks                        atomic.Uint64 // batches on disk, with or without changes
}

func (c *counters) progress() uint64 { return c.marks.Load() }

// settled is the age from which a connection is trusted without having brought
// anything.
const settled = 3 * time.Second

// Status returns a snapshot.
func (c *Capture) Status() Status {
	c.mu.Lock()
	defer c.mu.Unlock()
	s := c.status
	if c.live != nil {
		s.Received = lockstep.LSN(c.live.received.Load())
		s.Confirmed = lockstep.LSN(c.live.flight.durable.Load())
		s.LastHeard = time.Now()
		if since := c.live.waiting.Load(); since != 0 {
			s.LastHeard = time.Unix(0, since)
		}
	}
	if s.Connected && c.lost != "" && c.lostAt == c.counts.progress() && time.Since(s.Since) < settled {
		s.Doubt = c.lost
	}
	if s.ServerEnd > s.Confirmed {
		s.LagBytes = uint64(s.ServerEnd - s.Confirmed)
	}
	s.Changes, s.Transactions, s.Bytes = c.counts.changes.Load(), c.counts.transactions.Load(), c.counts.bytes.Load()
	s.BadAnnotations, s.BadJoins = c.counts.badAnnotations.Load(), c.counts.badJoins.Load()
	return s
}

// enter records a state and logs it when it is another than before.
func (c *Capture) enter(ctx context.Context, state string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.status.State == state {
		return
	}
	c.status.State, c.status.Since = state, time.Now()
	c.log.DebugContext(ctx, "capture "+state)
}

func (c *Capture) setProblem(problem string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.status.LastError = problem
}

func (c *Capture) setGap(reason string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.status.Gap = reason
}

// interrupted records why capture is not connected. The same reason again is not
// logged.
func (c *Capture) interrupted(ctx context.Context, err error) {
	c.enter(ctx, "waiting")
	c.mu.Lock()
	defer c.mu.Unlock()
	c.status.LastError = err.Error()
	again := c.lost == err.Error() && c.lostAt == c.counts.progress()
	c.lost, c.lostAt = err.Error(), c.counts.progress()
	if again {
		c.repeats++
		return
	}
	c.repeats = 0
	c.log.WarnContext(ctx, "capture is interrupted and will be tried again", obs.KeyError, err)
}

func (c *Capture) stream(ctx context.Context, s *session) {
	c.enter(ctx, "streaming")
	c.mu.Lock()
	defer c.mu.Unlock()
	c.live = s
	c.status.Connected, c.status.LastError = true, ""
	if c.repeats > 0 && c.lostAt == c.counts.progress() {
		return
	}
	c.log.InfoContext(ctx, "capture is streaming", obs.KeySlot, c.config.Slot, obs.KeyLSN, lockstep.LSN(s.flight.durable.Load()).String())
}

func (c *Capture) streamed() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.status.Received = lockstep.LSN(c.live.received.Load())
	c.status.Confirmed = lockstep.LSN(c.live.flight.durable.Load())
	c.status.LastHeard = time.Now()
	c.status.Connected, c.live = false, nil
}

const readSlotStatus = `
SELECT COALESCE(s.wal_status, ''), COALESCE(s.safe_wal_size, -1), COALESCE(pg_wal_lsn_diff(here, s.restart_lsn), 0)::bigint, here::text,
       COALESCE(s.confirmed_flush_lsn, '0/0')::text, pg_current_snapshot()::text, s.slot_name IS NOT NULL,
       a.pid IS NOT NULL AND COALESCE(a.wait_event_type, 'IO') = 'IO', COALESCE(a.wait_event, '') = 'ClientWrite'
FROM (SELECT CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn() ELSE pg_current_wal_lsn() END AS here) AS server
LEFT JOIN pg_catalog.pg_replication_slots s ON s.slot_name = $1::text
LEFT JOIN pg_catalog.pg_stat_activity a ON a.pid = s.active_pid`

// watchSlot looks at the slot every now and then until ctx ends. It also notices
// when Postgres waits for us, whose disk may be full or hang:
//
//   - The server is shutting down: a walsender holds that up until its client has
//     everything on disk.
//   - Postgres ends our walsender, which is stuck in sending its last words. The
//     checkpointer does that before it takes the slot's WAL away, and waits for the
//     walsender's end: no checkpoint comes to an end meanwhile. So do DROP DATABASE
//     and replay on a standby.
//
// wal_sender_timeout does not help there, for we go on answering.
func (c *Capture) watchSlot(ctx context.Context, s *session) error {
	tick := time.NewTicker(c.tune.poll)
	defer tick.Stop()
	var leaving <-chan time.Time
	for {
		err := c.lookAtSlot(ctx)
		if sqlState(err) == stateCannotConnect && leaving == nil {
			leaving = time.After(c.tune.leaving)
		} else if errors.Is(err, errBudget) {
			return err
		} else if err != nil && ctx.Err() == nil {
			c.log.DebugContext(ctx, "look at the slot", obs.KeyError, err)
		}
		// Not knowing counts as being waited for: the way back costs little.
		if s.heldUp() >= c.tune.leaving && (err != nil || c.unwelcome()) {
			return errHeldUp
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-leaving:
			return errLeaving
		case <-tick.C:
		}
	}
}

// unwelcome reports whether Postgres ends our connection, or is about to.
func (c *Capture) unwelcome() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.ending || c.status.Slot.WALStatus == "unreserved"
}

// slotLook is what one look at the server shows.
type slotLook struct {
	slot     Slot
	there    bool // the slot
	ending   bool // its walsender waits until we take what it says last: while it streams it waits otherwise
	end      lockstep.LSN
	at       progress
	snapshot Snapshot
	old      *OldestTransaction
}

func (c *Capture) lookAtSlot(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, queryTimeout)
	defer cancel()
	look, err := c.takeLook(ctx)
	if err != nil {
		return err
	}
	c.settling.seen(look.snapshot)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.status.Slot, c.status.ServerEnd, c.status.OldestTransaction, c.ending = look.slot, look.end, look.old, look.ending
	c.warn(ctx)
	if !look.there {
		return fmt.Errorf("slot %s is gone", c.config.Slot)
	}
	return c.considerBudget(look.slot, look.at)
}

func (c *Capture) takeLook(ctx context.Context) (l slotLook, err error) {
	var end, confirmed, visible string
	if err = c.pool.QueryRow(ctx, readSlotStatus, c.config.Slot).Scan(&l.slot.WALStatus, &l.slot.SafeBytes, &l.slot.RetainedBytes,
		&end, &confirmed, &visible, &l.there, &l.at.busy, &l.ending); err != nil {
		return l, err
	}
	if l.end, err = lockstep.ParseLSN(end); err != nil {
		return l, err
	}
	if l.at.confirmed, err = lockstep.ParseLSN(confirmed); err != nil {
		return l, err
	}
	if l.snapshot, err = ParseSnapshot(visible); err != nil {
		return l, err
	}
	l.old, err = c.oldest(ctx)
	return l, err
}
