package wal

import (
	"context"
	"errors"
	"fmt"
	"time"

	"lockstep"
	"lockstep/internal/obs"
)

// Interleave puts rows of the table with that oid between the changes, so that no
// row comes after a newer change of its key. It
//
//  1. writes a low watermark into the WAL, and waits until capture has met it and has
//     on disk what lies before it, and until those transactions are visible;
//  2. calls read with the seq of the last change before it. The snapshot that read
//     returns must have been taken within the call. Its context also ends with the
//     connection of capture;
//  3. writes a high watermark, and at its place in the stream writes those rows of
//     the page whose key has no change since the low one that the snapshot did not
//     see: all into one batch, with the identities of the watermark's transaction.
//     It returns when they are on disk.
//
// TRUNCATE, or a gap of the table, that the snapshot did not see overrides all rows.
// Calls take turns. Call it from any goroutine.
//
// An error that wraps [lockstep.ErrUnavailable] says to try again: capture does not
// stream, its connection broke (then the page is in the log as a whole or not at all;
// its Progress tells), or the page could not be placed and nothing of it was written.
// An error of read is returned as it is, with nothing written, unless the connection
// has ended. A page that makes no sense is [lockstep.ErrInvalid].
func (c *Capture) Interleave(ctx context.Context, oid uint32, read func(ctx context.Context, low uint64) (Page, error)) (Interleaved, error) {
	var result Interleaved
	var unread error
	asked := false
	err := c.interleave(ctx, newWindow(oid, c.tune.notes, 1), pageRun{
		read: func(ctx context.Context, low uint64) (page Page, err error) {
			if asked {
				return Page{}, ErrNoPage
			}
			asked = true
			page, unread = read(ctx, low)
			return page, unread
		},
		placed: func(r Interleaved) error { result = r; return nil },
	})
	if err == nil {
		err = unread // as it may be that there is no page
	}
	if err != nil {
		return Interleaved{}, err
	}
	return result, nil
}

// InterleaveEach does what [Capture.Interleave] does for page after page of the table,
// until read returns [ErrNoPage]: a page is read while those before it are on their way.
// There are at most three of them at a time, with the one that is being read, and they
// lie in the log in the order in which they were read. placed is told what became of
// each page, in that order, when it is on disk. Calls of read and placed do not overlap.
//
// Only the first page may be without a Snapshot. The seq that read is called with is
// that of the last change before the first page. Others who want a place in the stream
// wait until InterleaveEach returns.
//
// When read returns another error, the pages before are waited for and the error is
// returned as it is; one of placed ends everything at once. After any error, pages
// that placed was not told of may be in the log, also behind one that is not.
func (c *Capture) InterleaveEach(ctx context.Context, oid uint32, read func(ctx context.Context, low uint64) (Page, error), placed func(Interleaved) error) error {
	return c.interleave(ctx, newWindow(oid, c.tune.notes, 2), pageRun{read: read, placed: placed})
}

// ownError is what the caller's functions returned. Where the connection ended, that
// is the error instead: whatever failed, failed because of it.
type ownError struct{ error }

func (c *Capture) interleave(ctx context.Context, w *window, p pageRun) error {
	err := c.atWindow(ctx, w, func(ctx context.Context, s *session) error {
		low, err := s.awaitLow(ctx, w)
		if err != nil {
			return err
		}
		if err := c.awaitVisible(ctx, s, low); err != nil {
			return err
		}
		p.capture, p.session, p.window = c, s, w
		own, err := p.run(ctx, low.seq)
		if own != nil {
			return ownError{own}
		}
		return err
	})
	if own, ok := errors.AsType[ownError](err); ok {
		return own.error
	}
	if err != nil {
		return fmt.Errorf("interleave pages of the table with oid %d of database %q: %w", w.oid, c.config.Database, err)
	}
	return nil
}

func (c *Capture) checkPage(page *Page, oid uint32) error {
	if err := page.check(oid); err != nil {
		return fmt.Errorf("%w: %w", err, lockstep.ErrInvalid)
	}
	if !c.patterns.Match(page.Table.Schema, page.Table.Name) {
		return fmt.Errorf("table %s.%s is not captured: %w", page.Table.Schema, page.Table.Name, lockstep.ErrInvalid)
	}
	return nil
}

// errNotStreaming is for whoever needs a place in the stream.
var errNotStreaming = fmt.Errorf("capture is not streaming: %w", lockstep.ErrUnavailable)

// atWindow waits for its turn and calls work with the session that streams, which
// the context of work ends with.
func (c *Capture) atWindow(ctx context.Context, w *window, work func(ctx context.Context, s *session) error) error {
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case c.turn <- struct{}{}:
	}
	defer func() { <-c.turn }()
	s := c.streaming()
	if s == nil {
		return errNotStreaming
	}
	s.decoder.windows.Store(w)
	defer func() {
		s.decoder.windows.Store(nil)
		w.left.Store(true)
	}()
	working, stop := context.WithCancelCause(ctx)
	watched := make(chan struct{})
	go func() {
		defer close(watched)
		select {
		case <-s.over:
			stop(fmt.Errorf("the connection of capture ended: %w", lockstep.ErrUnavailable))
		case <-working.Done():
		}
	}()
	err := work(working, s)
	if err != nil && ctx.Err() == nil && working.Err() != nil {
		// Whatever failed, failed because of it.
		err = context.Cause(working)
	}
	stop(nil)
	<-watched
	return err
}

func (c *Capture) streaming() *session {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.live
}

// emit writes a watermark into the WAL. The commit does not wait for a synchronous
// standby: nothing but capture depends on the message.
func (s *session) emit(ctx context.Context, w *window, side string) error {
	const message = "SELECT pg_catalog.set_config('synchronous_commit', 'local', true), pg_catalog.pg_logical_emit_message(true, $1::text, $2::text)"
	if _, err := s.pool.Exec(ctx, message, s.decoder.pagePrefix, w.id+" "+side); err != nil {
		return fmt.Errorf("%w: %w", explain("write a watermark", err), lockstep.ErrUnavailable)
	}
	return nil
}

func (s *session) awaitLow(ctx context.Context, w *window) (lowMark, error) {
	if err := s.emit(ctx, w, markLow); err != nil {
		return lowMark{}, err
	}
	select {
	case <-ctx.Done():
		return lowMark{}, context.Cause(ctx)
	case low := <-w.low:
		return low, nil
	}
}

// awaitHigh writes what is to be written at a high watermark of its own.
func (s *session) awaitHigh(ctx context.Context, w *window, write windowWrite) (Interleaved, error) {
	w.writes <- write
	if err := s.emit(ctx, w, markHigh); err != nil {
		return Interleaved{}, err
	}
	select {
	case <-ctx.Done():
		return Interleaved{}, context.Cause(ctx)
	case out := <-w.high:
		return out.result, out.err
	}
}

// awaitVisible waits until everybody sees the transactions before the low watermark:
// a snapshot taken earlier would lack changes that the log already has.
func (c *Capture) awaitVisible(ctx context.Context, s *session, low lowMark) error {
	deadline := time.Now().Add(c.tune.visible)
	for wait := time.Millisecond; ; wait = min(2*wait, 100*time.Millisecond) {
		now, err := s.snapshot(ctx)
		if err != nil {
			return err
		}
		c.settling.seen(now)
		hidden := uint32(0)
		for _, xid := range low.unsettled {
			if !now.Sees(xid) {
				hidden = xid
				break
			}
		}
		if !low.settled {
			return fmt.Errorf("too many transactions have committed since the last look at the server: read the page again: %w", lockstep.ErrUnavailable)
		}
		if hidden == 0 {
			return nil
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("transaction %d has committed and is not visible yet: it waits for a synchronous standby (SHOW synchronous_standby_names; SELECT * FROM pg_stat_replication): %w", hidden, lockstep.ErrUnavailable)
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(wait):
		}
	}
}

func (s *session) snapshot(ctx context.Context) (Snapshot, error) {
	var text string
	if err := s.pool.QueryRow(ctx, "SELECT pg_catalog.pg_current_snapshot()::text").Scan(&text); err != nil {
		return Snapshot{}, fmt.Errorf("%w: %w", explain("ask which transactions run", err), lockstep.ErrUnavailable)
	}
	return ParseSnapshot(text)
}

// readWaiting finds the transactions that have committed and wait for a synchronous
// standby, or may do so as far as this role can see.
const readWaiting = `
SELECT backend_xid::text
FROM pg_catalog.pg_stat_activity
WHERE backend_xid IS NOT NULL
  AND (wait_event = 'SyncRep' OR state IS NULL AND current_setting('synchronous_standby_names') <> '')`

// rememberWaiting notes which transactions an earlier process may have put into the
// log although nobody sees them yet. Once per Capture: later ones are met.
func (c *Capture) rememberWaiting(ctx context.Context) error {
	if c.remembered {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, queryTimeout)
	defer cancel()
	rows, err := c.pool.Query(ctx, readWaiting)
	if err != nil {
		return explain("ask which transactions wait for a standby", err)
	}
	xids, err := collectXIDs(rows)
	if err != nil {
		return explain("ask which transactions wait for a standby", err)
	}
	for _, xid := range xids {
		c.settling.met(xid)
	}
	c.remembered = true
	if len(xids) > 0 {
		c.log.DebugContext(ctx, "transactions wait for a synchronous standby", obs.KeyCount, len(xids))
	}
	return nil
}

// EndGap writes that the repair of a gap has ended: one change of action gap for
// each of its tables, or one for everything. It is durable when EndGap returns the
// last one's seq. Errors are those of [Capture.Interleave]; written twice it does no
// harm.
func (c *Capture) EndGap(ctx context.Context, end GapEnd) (seq uint64, err error) {
	if end.Reason == "" {
		return 0, fmt.Errorf("end a gap of database %q without a reason: %w", c.config.Database, lockstep.ErrInvalid)
	}
	w := newWindow(0, 0, 1)
	var result Interleaved
	err = c.atWindow(ctx, w, func(ctx context.Context, s *session) error {
		result, err = s.awaitHigh(ctx, w, writeGapEnd(end))
		return err
	})
	if err != nil {
		return 0, fmt.Errorf("end the gap of database %q (%s): %w", c.config.Database, end.Reason, err)
	}
	return result.Seq, nil
}

func writeGapEnd(end GapEnd) windowWrite {
	extra := appendGapEnd(nil, end)
	return func(_ context.Context, d *decoder, _ *span) (Interleaved, error) {
		for _, r := range d.gapRelations(end.Tables) {
			d.emitWhole(r, lockstep.Gap, extra)
		}
		return Interleaved{}, nil
	}
}
