package engine

import (
	"context"
	"fmt"
	"reflect"
	"time"

	"github.com/jackc/pgx/v5"
)

// report is what the tables database_status and consumer_status are told.
type report struct {
	databases []databaseReport
	consumers []consumerReport
}

type databaseReport struct {
	name, capture       string
	connected           bool
	confirmed, received string // WAL positions; empty: none yet
	lastSeq             uint64
	lagBytes            uint64
	lastError           string
}

type consumerReport struct {
	id, name, database                                string
	paused                                            bool
	floor, last, pending, inFlight, redelivered, dead uint64
	oldestUnacked                                     *time.Time
}

const (
	upsertDatabaseStatus = `INSERT INTO lockstep.database_status (database, connected, capture, confirmed_lsn, received_lsn, last_seq, lag_bytes, last_error, updated_at)
		VALUES ($1, $2, $3, nullif($4, '')::pg_lsn, nullif($5, '')::pg_lsn, $6, $7, $8, now())
		ON CONFLICT (database) DO UPDATE SET connected = excluded.connected, capture = excluded.capture, confirmed_lsn = excluded.confirmed_lsn,
			received_lsn = excluded.received_lsn, last_seq = excluded.last_seq, lag_bytes = excluded.lag_bytes, last_error = excluded.last_error, updated_at = now()`
	upsertConsumerStatus = `INSERT INTO lockstep.consumer_status (consumer_id, name, database, paused, floor_seq, last_seq, pending, in_flight, redelivered, dead, oldest_unacked_at, updated_at)
		VALUES ($1::uuid, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, now())
		ON CONFLICT (consumer_id) DO UPDATE SET name = excluded.name, database = excluded.database, paused = excluded.paused, floor_seq = excluded.floor_seq,
			last_seq = excluded.last_seq, pending = excluded.pending, in_flight = excluded.in_flight, redelivered = excluded.redelivered, dead = excluded.dead,
			oldest_unacked_at = excluded.oldest_unacked_at, updated_at = now()`
	pruneConsumerStatus = `DELETE FROM lockstep.consumer_status WHERE consumer_id <> ALL ($1::uuid[])`
	pruneDatabaseStatus = `DELETE FROM lockstep.database_status WHERE database = $1`
	// The views take a report for current for a minute.
	repeatReport = 30 * time.Second
)

// reporter writes reports, and leaves out what would say the same again: the
// control plane may be a database that somebody wants to be quiet.
type reporter struct {
	last report
	at   time.Time
}

func (p *reporter) write(ctx context.Context, db batcher, r report) error {
	if time.Since(p.at) < repeatReport && reflect.DeepEqual(p.last, r) {
		return nil
	}
	var batch pgx.Batch
	here := map[string]bool{}
	for _, d := range r.databases {
		here[d.name] = true
		batch.Queue(upsertDatabaseStatus, d.name, d.connected, d.capture, d.confirmed, d.received, int64(d.lastSeq), int64(d.lagBytes), d.lastError)
	}
	ids := make([]string, len(r.consumers))
	for i, c := range r.consumers {
		ids[i] = c.id
		batch.Queue(upsertConsumerStatus, c.id, c.name, c.database, c.paused, int64(c.floor), int64(c.last), int64(c.pending), int64(c.inFlight), int64(c.redelivered), int64(c.dead), c.oldestUnacked)
	}
	batch.Queue(pruneConsumerStatus, ids)
	for _, d := range p.last.databases { // others may be those of another node
		if !here[d.name] {
			batch.Queue(pruneDatabaseStatus, d.name)
		}
	}
	if err := db.SendBatch(ctx, &batch).Close(); err != nil {
		return fmt.Errorf("write the status tables: %w", err)
	}
	p.last, p.at = r, time.Now()
	return nil
}

// batcher is the part of a pool that a reporter needs.
type batcher interface {
	SendBatch(ctx context.Context, b *pgx.Batch) pgx.BatchResults
}
