package wal

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"

	"lockstep"
)

const (
	slotInUse     = "55006" // object_in_use
	slotMissing   = "42704" // undefined_object
	dropSlotAgain = 100 * time.Millisecond
)

// DropSlot drops a replication slot whose capture has ended. The server may need a
// moment to see that: until ctx ends it is tried again. false: there was no slot.
func DropSlot(ctx context.Context, pool *pgxpool.Pool, name string) (bool, error) {
	tick := time.NewTicker(dropSlotAgain)
	defer tick.Stop()
	for {
		_, err := pool.Exec(ctx, "SELECT pg_catalog.pg_drop_replication_slot($1::text)", name)
		refused, _ := errors.AsType[*pgconn.PgError](err)
		switch {
		case err == nil:
			return true, nil
		case refused != nil && refused.Code == slotMissing:
			return false, nil
		case refused == nil || refused.Code != slotInUse:
			return false, fmt.Errorf("drop the replication slot %s: %w: %w", name, err, lockstep.ErrUnavailable)
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return false, fmt.Errorf("drop the replication slot %s, which is still read: %w: %w", name, err, lockstep.ErrConflict)
		}
	}
}
