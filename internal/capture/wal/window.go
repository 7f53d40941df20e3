package wal

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"

	"github.com/google/uuid"

	"lockstep"
)

// pagePrefix begins the prefix of the watermarks, which a secret ends. Their
// content is the id of a window, a space, and which of the two it is.
const (
	pagePrefix = "lockstep:page:"
	markLow    = "low"
	markHigh   = "high"
)

// maxNotes bounds the memory of a span: some 20 MB. Nobody changes that many rows
// while a page is read, unless one statement changes them all.
const maxNotes = 1 << 18

// maxFlying is how many pages may be on their way while the next one is read.
const maxFlying = 2

// window is a stretch of the stream that somebody is at work in: it begins at a low
// watermark, and at each high one a page of rows, or the end of a gap, is written.
type window struct {
	id    string
	oid   uint32 // of the table; 0: nothing is noted
	limit int    // see maxNotes
	ahead int    // pages that are read before the high watermark of the first; at least 1
	left  atomic.Bool
	// writes are what is written at the high watermarks, in their order: each is put in
	// before its watermark is emitted.
	writes chan windowWrite
	low    chan lowMark       // what is met at the low watermark, once it is on disk
	high   chan windowOutcome // the same of the high ones, in their order; a refusal at once

	// Of the goroutine that decodes: those that changes are noted in, of the pages that
	// come next, in their order.
	open []*span
}

func newWindow(oid uint32, limit, ahead int) *window {
	return &window{
		id: uuid.NewString(), oid: oid, limit: limit, ahead: ahead,
		writes: make(chan windowWrite, maxFlying+1), low: make(chan lowMark, 1), high: make(chan windowOutcome, maxFlying+1),
	}
}

// span is what is known of the changes from the watermark before a page was read to
// the one where it is written.
type span struct {
	lowMark
	limit     int
	notes     map[uint64]*note // by key hash, the latest
	count     int
	relations []*relation // as which the table's changes came
	whole     []wholeNote
	overflown bool
}

// windowWrite puts what the window is for into the batch; the span is nil where
// nothing is noted. A refusal is for whoever waits; any other error ends the session.
type windowWrite func(ctx context.Context, d *decoder, noted *span) (Interleaved, error)

// lowMark is what is known at a watermark of the changes before it.
type lowMark struct {
	seq       uint64   // of the last change before it
	unsettled []uint32 // transactions before it that may not be visible yet
	settled   bool     // false: it is not known which
}

type windowOutcome struct {
	result Interleaved
	err    error
}

// note is a change of a key by one transaction, the transaction's last.
type note struct {
	xid     uint32
	partial bool  // the log does not carry the row as a whole
	before  *note // by an earlier transaction in the window
}

// wholeNote is a change of the whole table.
type wholeNote struct {
	xid    uint32
	action lockstep.Action
}

// refusal is an error for whoever waits for a window; the session goes on.
type refusal struct{ error }

func (r refusal) Unwrap() error { return r.error }

// mark handles a watermark. One that the log has passed already, and one of a window
// that is not waited for (any more), mean nothing.
func (d *decoder) mark(ctx context.Context, content []byte) error {
	w := d.windows.Load()
	if w == nil || d.tx.ordinal <= d.tx.skipTo {
		return nil
	}
	id, side, _ := strings.Cut(string(content), " ")
	switch {
	case id != w.id:
		return nil
	case side == markLow:
		return d.openWindow(ctx, w)
	case side == markHigh:
		return d.closeWindow(ctx, w)
	}
	return nil
}

// openWindow is called at the low watermark.
func (d *decoder) openWindow(ctx context.Context, w *window) error {
	w.open = nil
	for range w.ahead {
		d.openSpan(w)
	}
	if err := d.out.handOver(ctx); err != nil {
		return err
	}
	mark := d.lowMark()
	mark.seq = d.out.mark.Seq
	d.out.flight.whenLanded(func() { w.low <- mark })
	return nil
}

func (d *decoder) lowMark() (mark lowMark) {
	mark.unsettled, mark.settled = d.settling.list()
	return mark
}

// openSpan begins to note changes for one page more.
func (d *decoder) openSpan(w *window) {
	if w.oid != 0 {
		w.open = append(w.open, &span{lowMark: d.lowMark(), limit: w.limit, notes: map[uint64]*note{}})
		d.window = w
	}
}

// closeWindow is called at a high watermark. It ends the first span, and begins the
// one of the page that is read next.
func (d *decoder) closeWindow(ctx context.Context, w *window) error {
	d.window = nil // what is written is no change
	var noted *span
	if len(w.open) > 0 {
		noted, w.open = w.open[0], w.open[1:]
	}
	var write windowWrite
	select {
	case write = <-w.writes:
	default:
		return nil
	}
	result, err := write(ctx, d, noted)
	if w.ahead > 1 {
		d.openSpan(w)
	}
	if refused, ok := errors.AsType[refusal](err); ok {
		w.high <- windowOutcome{err: refused.error}
		return nil
	}
	if err != nil {
		return err
	}
	d.written = func(ctx context.Context) error {
		if err := d.out.handOver(ctx); err != nil {
			return err
		}
		result.Seq = d.out.mark.Seq
		d.out.flight.whenLanded(func() { w.high <- windowOutcome{result: result} })
		return nil
	}
	return nil
}

// noted is called for every change while a window is open.
func (d *decoder) noted(r *relation, head lockstep.RecordHead) {
	w := d.window
	if w.left.Load() {
		d.window, w.open = nil, nil
		return
	}
	if r.table.OID != w.oid && r.table.OID != 0 {
		return
	}
	for _, s := range w.open {
		s.take(r, head, d.tx.tx.XID, len(d.scratch.unchanged) > 0)
	}
}

// take notes one change.
func (s *span) take(r *relation, head lockstep.RecordHead, xid uint32, partial bool) {
	if s.count >= s.limit {
		s.overflown, s.notes = true, nil
		return
	}
	if head.Action.Whole() {
		s.count++
		s.whole = append(s.whole, wholeNote{xid, head.Action})
		return
	}
	s.note(r, head.Action, head.KeyHash, xid, partial)
}

func (s *span) note(r *relation, action lockstep.Action, hash uint64, xid uint32, partial bool) {
	if n := len(s.relations); n == 0 || s.relations[n-1] != r {
		s.relations = append(s.relations, r)
	}
	last := s.notes[hash]
	switch action {
	case lockstep.Delete:
		partial = false
	case lockstep.Update:
		// What came before in the window was whole: the log has all of the row.
		partial = partial && (last == nil || last.partial)
	}
	if last != nil && last.xid == xid {
		last.partial = partial
		return
	}
	s.count++
	s.notes[hash] = &note{xid: xid, partial: partial, before: last}
}

// overrides reports whether the log has a change of the key that the snapshot did
// not see, and whether it lacks a part of the row even so.
func (s *span) overrides(hash uint64, seen Snapshot) (over, partial bool) {
	latest := s.notes[hash]
	for n := latest; n != nil; n = n.before {
		if !seen.Sees(n.xid) {
			return true, latest.partial
		}
	}
	return false, false
}

// overridesAll is the same for a change of the whole table.
func (s *span) overridesAll(seen Snapshot) (over, partial bool) {
	for _, n := range s.whole {
		if !seen.Sees(n.xid) {
			over, partial = true, n.action == lockstep.Gap
		}
	}
	return over, partial
}

// writePage writes the rows of a page that nothing newer overrides.
func writePage(page Page) windowWrite {
	return func(ctx context.Context, d *decoder, noted *span) (Interleaved, error) {
		r, err := d.announced(ctx, &page.Table)
		if err != nil {
			return Interleaved{}, err
		}
		r.table.Consumer, r.table.Progress = page.Consumer, page.Progress
		if err := noted.usable(&page, r); err != nil {
			return Interleaved{}, refusal{fmt.Errorf("%w: read the page again: %w", err, lockstep.ErrUnavailable)}
		}
		return d.writeRows(r, &page, noted), nil
	}
}

// usable says why the page's rows cannot be told older from newer than the changes.
func (s *span) usable(page *Page, r *relation) error {
	if s.overflown {
		return fmt.Errorf("more than %d rows of %s changed while it was read", s.limit, r.table)
	}
	if page.Snapshot.Max != 0 {
		if !s.settled {
			return errors.New("too many transactions have committed since the last look at the server")
		}
		// Before the low watermark the log has a change that the rows may lack.
		for _, xid := range s.unsettled {
			if !page.Snapshot.Sees(xid) {
				return fmt.Errorf("transaction %d is in the log already and was not visible when %s was read", xid, r.table)
			}
		}
	}
	for _, other := range s.relations {
		if !r.sameIdentity(other) {
			return fmt.Errorf("%s was altered while it was read: its name or key is another", r.table)
		}
	}
	return nil
}

// sameIdentity reports whether equal rows have equal key hashes in both.
func (r *relation) sameIdentity(o *relation) bool {
	return r.table.Schema == o.table.Schema && r.table.Name == o.table.Name && r.table.Key == o.table.Key &&
		slices.Equal(r.keyNames(), o.keyNames()) && (len(r.keys) > 0 || r.identity == o.identity)
}

func (r *relation) keyNames() []string {
	names := make([]string, 0, len(r.keys))
	for _, i := range r.keys {
		names = append(names, r.columns[i].name)
	}
	return names
}

func (d *decoder) writeRows(r *relation, page *Page, noted *span) Interleaved {
	var result Interleaved
	all, again := noted.overridesAll(page.Snapshot)
	// Rows that share one key are overridden by each other's changes.
	shared := len(r.keys) == 0 && r.identity == identityFull
	n := len(r.columns)
	for i := range page.rows() {
		row := d.scratch.row[:0]
		for _, text := range page.Values[i*n : (i+1)*n] {
			row = append(row, pageColumn(text))
		}
		d.scratch.row = row
		d.size = 0 // the batch has grown at the first row
		if result.Written == 0 {
			d.size = page.size(r)
		}
		over, partial := noted.overrides(r.keyHash(row), page.Snapshot)
		if over || all {
			result.Overridden++
			if over && (partial || shared) || !over && again {
				result.Again = append(result.Again, i)
			}
			continue
		}
		d.emitWith(r, rowChange{action: page.Action, row: row, oldKnown: page.Action == lockstep.Read}, page.Extra)
		result.Written++
	}
	return result
}

// rowOverhead is what a row takes in a batch beside its values, their names and what
// every row of the page has.
const rowOverhead = 80

// size is about how many bytes the page's rows take in a batch.
func (p *Page) size(r *relation) int {
	row := rowOverhead + len(p.Extra)
	for i := range r.columns {
		row += len(r.columns[i].label) + 3
	}
	size := row * p.rows()
	for _, text := range p.Values {
		size += len(text)
	}
	return size + size/16
}

func pageColumn(text []byte) column {
	if text == nil {
		return column{kind: columnNull}
	}
	return column{columnText, text}
}
