package wal

import (
	"context"
	"fmt"
	"time"

	"lockstep"
)

// The reasons of gaps that capture itself finds, at a connect, and which concern every
// table; but for gapRowsMissing, which the stream brings. Package publish sends more
// (see GapPrefix there).
const (
	gapNone        = ""
	gapSlotLost    = "slot_lost"           // dropped, or invalidated by Postgres
	gapSlotMoved   = "slot_moved"          // confirmed further than we ever did: re-created or read by another
	gapFailover    = "failover"            // another timeline
	gapRebuilt     = "publication_rebuilt" // old WAL cannot be decoded with it
	gapRowsMissing = "rows_missing"        // a table joined the publication without the rows it had
	gapBudget      = "wal_budget"          // given up by choice, see Config.RetainWAL
	gapStreamLost  = "stream_lost"         // the log is empty, and was not always, see Witness
)

// walLost is pg_replication_slots.wal_status of a slot whose WAL is gone.
const walLost = "lost"

// findGap compares where the slot is with where the log ends. An empty log has no
// place to compare with: see Witnessed.lost.
func findGap(mark lockstep.Mark, s *slot, timeline uint32) string {
	switch {
	case mark.SystemID == 0:
		return gapNone
	case mark.Timeline != timeline:
		return gapFailover
	case s == nil || s.walStatus == walLost:
		return gapSlotLost
	case s.confirmed > mark.EndLSN:
		return gapSlotMoved
	}
	return gapNone
}

// prepare brings slot and log to the same place and returns the log's mark: what
// is behind it is skipped, and streaming begins at its EndLSN.
func (c *Capture) prepare(ctx context.Context, w *wire) (lockstep.Mark, error) {
	mark, err := c.recoverLog(ctx, w)
	if err != nil {
		return mark, err
	}
	witnessed, err := c.loadWitness(ctx)
	if err != nil {
		return mark, err
	}
	s, err := c.freeSlot(ctx)
	if err != nil {
		return mark, err
	}
	if mark.SystemID == 0 || findGap(mark, s, w.timeline) == gapSlotMoved {
		// Whoever read the slot until a moment ago may have gone on in the log, too.
		if mark, err = c.recoverLog(ctx, w); err != nil {
			return mark, err
		}
	}
	g := Gap{Reason: c.gapReason(mark, s, w.timeline), From: mark.EndLSN}
	if mark.SystemID == 0 {
		if lost := witnessed.lost(s, w, c.config.Slot); lost.Reason != gapNone {
			g = lost
		}
	}
	c.owed = g.Reason
	if g.To, err = c.placeSlot(ctx, w, s); err != nil {
		return mark, err
	}
	// Before the log is bound: whoever finds it empty afterwards knows that it may have
	// held something.
	if err := c.saveWitness(ctx, witnessed, Witnessed{
		SystemID: w.systemID, Timeline: w.timeline, Slot: c.config.Slot, CreatedLSN: firstOf(mark, g),
	}); err != nil {
		return mark, err
	}
	switch {
	case g.Reason != gapNone:
		return c.openGap(ctx, w, g, mark.Seq)
	case mark.SystemID == 0:
		// The first mark binds the log to this server and to the slot's position,
		// so that a slot moved by others is noticed even before the first change.
		mark = lockstep.Mark{SystemID: w.systemID, Timeline: w.timeline, EndLSN: g.To, Complete: true}
		return mark, c.appendMark(ctx, &lockstep.BatchWriter{}, mark)
	}
	return mark, nil
}

// recoverLog finds the end of the log, which must be about this server.
func (c *Capture) recoverLog(ctx context.Context, w *wire) (lockstep.Mark, error) {
	mark, err := c.config.Log.Recover(ctx)
	if err != nil {
		return mark, fmt.Errorf("find the end of the stream: %w", err)
	}
	if mark.SystemID != 0 && mark.SystemID != w.systemID {
		return mark, finalError{fmt.Errorf("the stream of database %q holds changes of another Postgres cluster (system identifier %d, this server's is %d): correct the URL, or give this server a database entry with another name, or remove the old stream: %w",
			c.config.Database, mark.SystemID, w.systemID, lockstep.ErrConflict)}
	}
	return mark, nil
}

// placeSlot returns where the slot begins to decode. It makes one where there is none
// that can.
func (c *Capture) placeSlot(ctx context.Context, w *wire, s *slot) (begin lockstep.LSN, err error) {
	if s != nil && (s.walStatus == walLost || c.rebuild) {
		if err := c.dropSlot(ctx); err != nil {
			return 0, err
		}
		s = nil
	}
	if s != nil {
		begin = s.confirmed
	} else if begin, err = c.createSlot(ctx, w); err != nil {
		return 0, err
	}
	c.rebuild = false
	return begin, nil
}

// gapReason is findGap with what the capture knows besides: an earlier attempt may
// have found the gap, and have ended after it made the new slot.
func (c *Capture) gapReason(mark lockstep.Mark, s *slot, timeline uint32) string {
	found := findGap(mark, s, timeline)
	written := s != nil && mark.CommitLSN+1 == s.confirmed // where only gaps lie
	switch {
	case mark.SystemID == 0 && c.owed != gapStreamLost:
		return gapNone
	case mark.SystemID == 0:
		return gapStreamLost
	case c.rebuild:
		return gapRebuilt
	case c.owed == gapNone, found == gapNone && written, found == gapFailover:
		return found
	}
	return c.owed
}

// openGap tells the log's readers that changes of any table may be missing after the
// change with seq.
func (c *Capture) openGap(ctx context.Context, w *wire, g Gap, seq uint64) (lockstep.Mark, error) {
	// One byte before the position: no transaction can commit there, so that the
	// gap's identity is its own and no transaction is taken for one in the log.
	at := g.To - 1
	mark := lockstep.Mark{Seq: seq + 1, SystemID: w.systemID, Timeline: w.timeline, CommitLSN: at, EndLSN: g.To, Complete: true}
	if err := c.tellGap(ctx, g); err != nil {
		return mark, err
	}
	extra := appendGapStart(nil, g, "")
	everything := &lockstep.Table{Key: lockstep.KeyRow}
	var b lockstep.BatchWriter
	b.Reset(nil)
	b.Begin(lockstep.Tx{CommitLSN: at, CommitTime: time.Now().UnixMicro()})
	b.Close(append(b.Open(), extra...), lockstep.RecordHead{
		Action: lockstep.Gap, Table: b.Table(everything), KeyHash: lockstep.KeyHash(everything), ExtraLen: len(extra),
	})
	if err := c.appendMark(ctx, &b, mark); err != nil {
		return mark, err
	}
	c.owed = gapNone
	c.truncations.forget()
	c.shapes.forget()
	c.mu.Lock()
	c.budget = budget{warned: c.budget.warned} // positions may begin lower on another timeline
	c.mu.Unlock()
	return mark, nil
}

// appendMark appends a batch and waits until it is on disk.
func (c *Capture) appendMark(ctx context.Context, b *lockstep.BatchWriter, mark lockstep.Mark) error {
	if b.Len() == 0 {
		b.Reset(nil)
	}
	landed := make(chan error, 1)
	if err := c.config.Log.Append(ctx, b, mark, func(err error) { landed <- err }); err != nil {
		return fmt.Errorf("append to the stream: %w", err)
	}
	select {
	case err := <-landed:
		if err != nil {
			return fmt.Errorf("append to the stream: %w", err)
		}
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
