package wal

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"

	"lockstep"
	"lockstep/internal/obs"
)

// budget tells a slot that catches up from one that is stuck.
type budget struct {
	at     progress  // the furthest ever seen
	since  time.Time // nothing has moved since
	warned string    // what the log was told about the slot last
}

// progress is how far things are.
type progress struct {
	confirmed lockstep.LSN // the slot
	position  lockstep.LSN // Postgres in its WAL: begins before confirmed
	marks     uint64       // batches on disk
	busy      bool         // Postgres works and waits for nobody: a huge transaction moves nothing for long
}

var errBudget = errors.New("the slot keeps more WAL than its budget and makes no progress: it is given up")

// stuck takes a look at how far things are, and returns for how long nothing moved.
func (b *budget) stuck(now time.Time, at progress) time.Duration {
	if b.since.IsZero() || at.busy || at.confirmed > b.at.confirmed || at.position > b.at.position || at.marks > b.at.marks {
		b.since = now
	}
	// The furthest: a connection that begins anew reads the same again.
	b.at = progress{confirmed: max(b.at.confirmed, at.confirmed), position: max(b.at.position, at.position), marks: max(b.at.marks, at.marks)}
	return now.Sub(b.since)
}

// considerBudget takes a look at the slot and returns errBudget when the slot is to
// be given up. Under mu.
func (c *Capture) considerBudget(now Slot, at progress) error {
	at.marks = c.counts.progress()
	if c.live != nil {
		at.position = lockstep.LSN(c.live.position.Load())
	}
	// Every connection is busy at first, also one that a full disk ends at once.
	at.busy = at.busy && c.live != nil && time.Since(c.status.Since) >= settled
	stuck := c.budget.stuck(time.Now(), at)
	limit := c.config.RetainWAL
	if limit > 0 && now.RetainedBytes > limit && now.WALStatus != walLost && stuck >= c.tune.stuck {
		return errBudget
	}
	return nil
}

// watched does work while the slot is watched, which may end it: what it waits for
// may be what lets the slot keep more and more WAL.
func (c *Capture) watched(ctx context.Context, work func(context.Context) error) error {
	ctx, fail := context.WithCancelCause(ctx)
	var watching sync.WaitGroup
	watching.Go(func() {
		tick := time.NewTicker(c.tune.poll)
		defer tick.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
			}
			if err := c.lookAtSlot(ctx); errors.Is(err, errBudget) {
				fail(err)
				return
			}
		}
	})
	err := work(ctx)
	if err != nil && ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	fail(nil)
	watching.Wait()
	return err
}

// giveUpSlot drops the slot when it is beyond its budget and stuck. The gap is
// written when there is a new one.
func (c *Capture) giveUpSlot(ctx context.Context) error {
	if c.config.RetainWAL <= 0 || !errors.Is(c.lookAtSlot(ctx), errBudget) {
		return nil
	}
	s, err := c.freeSlot(ctx)
	if err != nil || s == nil {
		return err
	}
	slot := c.Status().Slot
	if err := c.dropSlot(ctx); err != nil {
		return err
	}
	c.owed = gapBudget
	c.mu.Lock()
	c.budget = budget{warned: c.budget.warned}
	c.mu.Unlock()
	c.log.ErrorContext(ctx, "the replication slot was given up, so that the WAL that it keeps does not fill the server's disk: changes are missing in the stream from here on",
		obs.KeySlot, c.config.Slot, obs.KeyBytes, slot.RetainedBytes, "budget_bytes", c.config.RetainWAL)
	return nil
}

// walWarning says what threatens the slot, and what to do. The kind tells warnings
// apart whose figures change all the time.
func (c *Capture) walWarning(s Slot) (kind, text string) {
	limit := c.config.RetainWAL
	keeps := fmt.Sprintf("replication slot %s keeps %s of WAL", c.config.Slot, megabytes(s.RetainedBytes))
	const why = "find out what holds capture up (a full disk of the stream, an old transaction, a lost connection)"
	switch {
	case s.WALStatus == walLost:
		return walLost, "replication slot " + c.config.Slot + " has lost WAL that was not read: a new one is made, and a gap written"
	case s.WALStatus == "unreserved":
		return s.WALStatus, keeps + ", and may lose it at the next checkpoint: raise max_slot_wal_keep_size, or " + why
	case limit > 0 && s.RetainedBytes > limit:
		return "budget", fmt.Sprintf("%s, more than its budget of %s: it is given up when it makes no progress for %s; %s, or raise the budget", keeps, megabytes(limit), c.tune.stuck, why)
	case limit > 0 && s.RetainedBytes > limit/2:
		return "half", fmt.Sprintf("%s, more than half of its budget of %s: %s, or raise the budget", keeps, megabytes(limit), why)
	case s.SafeBytes >= 0 && s.SafeBytes < (s.SafeBytes+s.RetainedBytes)/4:
		return "safe", fmt.Sprintf("%s; after %s more the server may remove it: raise max_slot_wal_keep_size, or %s", keeps, megabytes(s.SafeBytes), why)
	case s.WALStatus == "extended":
		return s.WALStatus, keeps + ", more than max_wal_size: " + why
	}
	return "", ""
}

func megabytes(n int64) string { return fmt.Sprintf("%d MB", (n+1<<19)>>20) }

// OldestTransaction is the oldest transaction of the cluster that has written, when
// it is older than a minute: the slot keeps the WAL since it began, and a new slot
// cannot be made before it ends.
type OldestTransaction struct {
	PID         int32 // of the session; 0 for a prepared transaction
	XID         string
	Age         time.Duration
	State, User string // State: as in pg_stat_activity, or prepared
	GID         string // of a prepared transaction
}

func (o *OldestTransaction) warning() string {
	if o.GID != "" {
		return fmt.Sprintf("transaction %s is prepared since %s (user %s) and keeps WAL from being removed: COMMIT PREPARED or ROLLBACK PREPARED '%s'",
			o.XID, o.Age.Round(time.Second), o.User, strings.ReplaceAll(o.GID, "'", "''"))
	}
	return fmt.Sprintf("transaction %s of pid %d (user %s, %s) runs since %s and keeps WAL from being removed: end it, or SELECT pg_terminate_backend(%d)",
		o.XID, o.PID, o.User, o.State, o.Age.Round(time.Second), o.PID)
}

// Sessions of others show when they began to superusers and pg_monitor only.
const readOldest = `
SELECT pid, xid, extract(epoch FROM clock_timestamp() - began)::float8, state, "user", gid
FROM (
  SELECT pid, backend_xid::text AS xid, xact_start AS began, COALESCE(state, '') AS state, COALESCE(usename::text, '') AS "user", '' AS gid
  FROM pg_catalog.pg_stat_activity
  WHERE backend_xid IS NOT NULL
  UNION ALL
  SELECT 0, transaction::text, prepared, 'prepared', owner::text, gid
  FROM pg_catalog.pg_prepared_xacts
) AS running
WHERE began < clock_timestamp() - make_interval(secs => $1::float8)
ORDER BY began
LIMIT 1`

// oldest returns nil when there is none that is old.
func (c *Capture) oldest(ctx context.Context) (*OldestTransaction, error) {
	var o OldestTransaction
	var age float64
	err := c.pool.QueryRow(ctx, readOldest, c.tune.old.Seconds()).Scan(&o.PID, &o.XID, &age, &o.State, &o.User, &o.GID)
	if errors.Is(err, pgx.ErrNoRows) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("look for old transactions: %w", err)
	}
	o.Age = time.Duration(age * float64(time.Second))
	return &o, nil
}

// warn makes Status.Warning of what there is. The log hears of each kind once. Under
// mu.
func (c *Capture) warn(ctx context.Context) {
	kind, text := c.walWarning(c.status.Slot)
	kinds, texts := []string{kind}, []string{text}
	if o := c.status.OldestTransaction; o != nil {
		kinds, texts = append(kinds, o.XID), append(texts, o.warning())
	}
	c.status.Warning = strings.Join(slices.DeleteFunc(texts, func(s string) bool { return s == "" }), "; ")
	now := strings.Join(kinds, " ")
	if now != c.budget.warned && c.status.Warning != "" {
		c.log.WarnContext(ctx, c.status.Warning, obs.KeySlot, c.config.Slot, "wal_status", c.status.Slot.WALStatus, obs.KeyBytes, c.status.Slot.RetainedBytes)
	}
	c.budget.warned = now
}

// collectXIDs reads rows of one transaction number each, as text.
func collectXIDs(rows pgx.Rows) ([]uint32, error) {
	return pgx.CollectRows(rows, func(row pgx.CollectableRow) (xid uint32, err error) {
		var text string
		if err := row.Scan(&text); err != nil {
			return 0, err
		}
		_, err = fmt.Sscan(text, &xid)
		return xid, err
	})
}
