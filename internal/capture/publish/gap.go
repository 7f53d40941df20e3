package publish

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"

	"github.com/jackc/pgx/v5"

	"lockstep/internal/obs"
)

// The reasons of gaps that this package finds.
const (
	GapRewritten = "table_rewritten"     // rows have other values than their changes said, or came or went with a partition
	GapTruncated = "leaf_truncated"      // a partition lost all its rows
	GapRebuilt   = "publication_rebuilt" // a publication, or a table's place in it, was missing for a while
)

// GapMessage says that rows changed without events, in a transactional logical
// message with prefix GapPrefix + secret. What it tells of was done before that place
// of the log. The same may be told more than once.
type GapMessage struct {
	Reason string     `json:"reason"`
	Tables []GapTable `json:"tables,omitempty"` // none: every table
}

// GapTable is a captured table of a gap: of a partition, the table that stands for it.
type GapTable struct {
	OID    uint32 `json:"oid"`
	Schema string `json:"schema"`
	Name   string `json:"name"`
	Detail string `json:"detail,omitempty"` // what happened, for people
	// TruncatedBy are the transactions (without epoch) that emptied its partitions.
	// TRUNCATE of the partitioned table does that too, and is in the log: when every
	// one of them has truncated the table there, nothing is missing. The catalog alone
	// cannot tell it from TRUNCATE of each partition.
	TruncatedBy []uint32 `json:"truncated_by,omitempty"`
}

// gap is what was found about one table.
type gap struct {
	table  *relation
	reason string
	detail string
	xids   []uint32 // as GapTable.TruncatedBy
}

// add notes that the table has a gap. Of several reasons the one stays that no
// TRUNCATE in the log excuses.
func (c *comparison) add(found gap) {
	had := c.gaps[found.table.oid]
	switch {
	case had == nil:
		c.gaps[found.table.oid] = &found
	case had.reason != GapTruncated:
	case found.reason != GapTruncated:
		*had = found
	case !slices.Contains(had.xids, found.xids[0]):
		had.xids = append(had.xids, found.xids[0])
	}
}

// tablesPerMessage keeps messages far from what a batch of the stream may hold.
const tablesPerMessage = 1000

// announce writes what was found into the log, in one transaction.
func (c *comparison) announce(ctx context.Context) error {
	if len(c.gaps) == 0 {
		return nil
	}
	sorted := slices.SortedFunc(maps.Values(c.gaps), func(a, b *gap) int {
		return cmp.Or(cmp.Compare(a.reason, b.reason), cmp.Compare(a.table.oid, b.table.oid))
	})
	c.tell(ctx, sorted)
	return pgx.BeginFunc(ctx, c.conn, func(tx pgx.Tx) error { return c.emitGaps(ctx, tx, sorted) })
}

// emitGaps writes gaps, ordered by reason, into the transaction.
func (rd *round) emitGaps(ctx context.Context, tx pgx.Tx, sorted []*gap) error {
	if rd.config.JoinSecret == "" {
		return nil
	}
	messages := [][]GapTable{}
	reasons := []string{}
	for _, g := range sorted {
		last := len(messages) - 1
		if last < 0 || reasons[last] != g.reason || len(messages[last]) == tablesPerMessage {
			messages, reasons, last = append(messages, nil), append(reasons, g.reason), last+1
		}
		messages[last] = append(messages[last], GapTable{g.table.oid, g.table.schema, g.table.name, g.detail, g.xids})
	}
	// What is remembered next must not outlive the message.
	if _, err := tx.Exec(ctx, "SET LOCAL synchronous_commit = local"); err != nil {
		return err
	}
	for i, tables := range messages {
		content, err := json.Marshal(GapMessage{reasons[i], tables})
		if err != nil {
			return fmt.Errorf("describe a gap: %w", err)
		}
		const emit = `SELECT pg_catalog.pg_logical_emit_message(true, $1::text, $2::text)`
		if _, err := tx.Exec(ctx, emit, GapPrefix+rd.config.JoinSecret, string(content)); err != nil {
			return err
		}
	}
	return nil
}

func (rd *round) tell(ctx context.Context, gaps []*gap) {
	for i, g := range gaps {
		if i == mostLines {
			rd.config.Logger.WarnContext(ctx, "rows of more tables changed without events", obs.KeyCount, len(gaps)-i, obs.KeyRemedy, rd.backfill())
			return
		}
		if len(g.xids) > 0 { // capture knows whether the log has it
			rd.config.Logger.InfoContext(ctx, "partitions were truncated", obs.KeyTable, g.table.String(), "detail", g.detail)
			continue
		}
		rd.config.Logger.WarnContext(ctx, "rows of a table changed without events", obs.KeyTable, g.table.String(),
			obs.KeyReason, g.reason, "detail", g.detail, obs.KeyRemedy, rd.backfill())
	}
}

// backfill is the remedy for rows that are not in the log.
func (r *Reconciler) backfill() string {
	return "lockstep backfill --gap --database " + r.config.Database
}
