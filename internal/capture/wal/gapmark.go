package wal

import (
	"context"
	"encoding/json"
	"fmt"
	"strconv"

	"lockstep"
	"lockstep/internal/capture/publish"
	"lockstep/internal/obs"
)

// Gap is a place of the stream where changes may be missing.
type Gap struct {
	Reason string
	Tables []lockstep.Table // which may lack changes; none: every table
	From   lockstep.LSN     // the last position known to be before it; 0: not known
	To     lockstep.LSN     // changes flow again from here
	// Details say for people what happened to a table, by its OID. Some may lack.
	Details map[uint32]string
}

// GapEnd says how the repair of a gap went.
type GapEnd struct {
	Gap
	// Complete says that everything that was missed has been told, deletes included.
	Complete       bool
	Reads, Deletes uint64   // rows written for the repair
	Unrepaired     []string // tables that could not be repaired, with the reason
}

// appendGapStart appends the gap as a fragment of metadata. The detail may be empty.
func appendGapStart(dst []byte, g Gap, detail string) []byte {
	dst = appendGap(dst, "start", g)
	if detail != "" {
		dst = lockstep.AppendJSONString(append(dst, `,"detail":`...), detail)
	}
	return append(dst, '}')
}

// appendGapEnd appends the end of the gap as a fragment of metadata.
func appendGapEnd(dst []byte, end GapEnd) []byte {
	dst = appendGap(dst, "end", end.Gap)
	dst = strconv.AppendBool(append(dst, `,"complete":`...), end.Complete)
	dst = strconv.AppendUint(append(dst, `,"reads":`...), end.Reads, 10)
	dst = strconv.AppendUint(append(dst, `,"deletes":`...), end.Deletes, 10)
	dst = append(dst, `,"unrepaired":[`...)
	for i, u := range end.Unrepaired {
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = lockstep.AppendJSONString(dst, u)
	}
	return append(dst, "]}"...)
}

func appendGap(dst []byte, state string, g Gap) []byte {
	dst = append(dst, `,"gap":{"state":"`...)
	dst = append(dst, state...)
	dst = append(dst, `","reason":`...)
	dst = lockstep.AppendJSONString(dst, g.Reason)
	dst = append(dst, `,"from_lsn":`...)
	if g.From == 0 {
		dst = append(dst, "null"...)
	} else {
		dst = strconv.AppendUint(dst, uint64(g.From), 10)
	}
	dst = strconv.AppendUint(append(dst, `,"to_lsn":`...), uint64(g.To), 10)
	return append(dst, `,"missed":null`...)
}

// tellGap is called before a gap is written into the log, so that whoever repairs
// gaps knows of every one that the log has.
func (c *Capture) tellGap(ctx context.Context, g Gap) error {
	if c.config.Gap != nil {
		if err := c.config.Gap(ctx, g); err != nil {
			return fmt.Errorf("keep in mind that changes may be missing (%s): %w", g.Reason, err)
		}
	}
	c.setGap(g.Reason)
	more := []any{obs.KeyReason, g.Reason, "to_lsn", g.To.String(), obs.KeyRemedy, "lockstep backfill --gap --database " + c.config.Database}
	if g.From != 0 {
		more = append(more, "from_lsn", g.From.String())
	}
	for _, t := range g.Tables {
		more = append(more, obs.KeyTable, t.String())
	}
	c.log.ErrorContext(ctx, "changes may be missing in the stream", more...)
	return nil
}

// foundGap handles a gap that package publish found. Empty content stands for every
// table.
func (d *decoder) foundGap(ctx context.Context, content []byte) error {
	var m publish.GapMessage
	if json.Unmarshal(content, &m) != nil || m.Reason == "" {
		m = publish.GapMessage{Reason: gapRebuilt, Tables: m.Tables}
	}
	g := Gap{Reason: m.Reason, Details: map[uint32]string{}}
	for _, t := range m.Tables {
		if !d.relation.Wanted(t.Schema, t.Name) || d.truncations.explain(t) {
			continue
		}
		table := lockstep.Table{OID: t.OID, Schema: t.Schema, Name: t.Name, Key: lockstep.KeyRow}
		if known := d.relations[t.OID]; known != nil && known.wanted {
			table.Key = known.table.Key
		}
		g.Tables = append(g.Tables, table)
		if t.Detail != "" {
			g.Details[t.OID] = t.Detail
		}
	}
	if len(m.Tables) > 0 && len(g.Tables) == 0 {
		return nil
	}
	return d.writeGap(ctx, g)
}

// writeGap writes that changes may be missing up to this transaction: one mark per
// table, or one for everything.
func (d *decoder) writeGap(ctx context.Context, g Gap) error {
	if d.tx.ordinal <= d.tx.skipTo {
		return nil
	}
	g.To = d.tx.tx.CommitLSN
	if d.gap != nil {
		if err := d.gap(ctx, g); err != nil {
			return err
		}
	}
	for _, r := range d.gapRelations(g.Tables) {
		d.emitWhole(r, lockstep.Gap, appendGapStart(nil, g, g.Details[r.table.OID]))
	}
	return d.out.ended(ctx)
}

// gapRelations returns what the marks of a gap name: each table, or everything.
func (d *decoder) gapRelations(tables []lockstep.Table) []*relation {
	if len(tables) == 0 {
		tables = []lockstep.Table{{Key: lockstep.KeyRow}}
	}
	var all []*relation
	for _, t := range tables {
		all = append(all, &relation{table: &t, hash: lockstep.KeyHash(&t)})
	}
	return all
}
