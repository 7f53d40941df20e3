package wal

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"

	"lockstep"
)

// pagePrefix begins the prefix of the watermarks, which a secret ends. Their
// content is the id of a window, a space, and which of the two it is.
const (
	pagePrefix = "lockstep:page:"
	markLow    = "low"
	markHigh   = "high"
)

// maxNotes bounds the memory of a window: some 20 MB. Nobody changes that many rows
// while a page is read, unless one statement changes them all.
const maxNotes = 1 << 18

// window is a place of the stream that somebody waits for: where a page of rows, or
// the end of a gap, is written. From its low watermark to its high one the changes
// of one table are noted.
type window struct {
	id    string
	oid   uint32 // of the table; 0: nothing is noted
	limit int    // see maxNotes
	left  atomic.Bool
	// write is set before the high watermark is emitted, which is where it is called.
	write atomic.Pointer[windowWrite]
	low   chan lowMark       // what is met at the low watermark, once it is on disk
	high  chan windowOutcome // the same of the high one

	// Of the goroutine that decodes.
	notes     map[uint64]*note // by key hash, the latest
	count     int
	relations []*relation // as which the table's changes came
	whole     []wholeNote
	unsettled []uint32 // see lowMark
	overflown bool
}

// windowWrite puts what the window is for into the batch. A refusal is for whoever
// waits; any other error ends the session.
type windowWrite func(ctx context.Context, d *decoder, w *window) (Interleaved, error)

// lowMark is what is known at the low watermark.
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
	mark := lowMark{}
	mark.unsettled, mark.settled = d.settling.list()
	w.unsettled = mark.unsettled
	w.notes = map[uint64]*note{}
	if w.oid != 0 {
		d.window = w
	}
	if err := d.out.handOver(ctx); err != nil {
		return err
	}
	mark.seq = d.out.mark.Seq
	d.out.flight.whenLanded(func() { w.low <- mark })
	return nil
}

// closeWindow is called at the high watermark.
func (d *decoder) closeWindow(ctx context.Context, w *window) error {
	d.window = nil
	write := w.write.Load()
	if write == nil {
		return nil
	}
	result, err := (*write)(ctx, d, w)
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
		d.window = nil
		return
	}
	if r.table.OID != w.oid && r.table.OID != 0 {
		return
	}
	if w.count >= w.limit {
		w.overflown, w.notes = true, nil
		return
	}
	if head.Action.Whole() {
		w.count++
		w.whole = append(w.whole, wholeNote{d.tx.tx.XID, head.Action})
		return
	}
	w.note(r, head.Action, head.KeyHash, d.tx.tx.XID, len(d.scratch.unchanged) > 0)
}

func (w *window) note(r *relation, action lockstep.Action, hash uint64, xid uint32, partial bool) {
	if n := len(w.relations); n == 0 || w.relations[n-1] != r {
		w.relations = append(w.relations, r)
	}
	last := w.notes[hash]
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
	w.count++
	w.notes[hash] = &note{xid: xid, partial: partial, before: last}
}

// overrides reports whether the log has a change of the key that the snapshot did
// not see, and whether it lacks a part of the row even so.
func (w *window) overrides(hash uint64, seen Snapshot) (over, partial bool) {
	latest := w.notes[hash]
	for n := latest; n != nil; n = n.before {
		if !seen.Sees(n.xid) {
			return true, latest.partial
		}
	}
	return false, false
}

// overridesAll is the same for a change of the whole table.
func (w *window) overridesAll(seen Snapshot) (over, partial bool) {
	for _, n := range w.whole {
		if !seen.Sees(n.xid) {
			over, partial = true, n.action == lockstep.Gap
		}
	}
	return over, partial
}

// writePage writes the rows of a page that nothing newer overrides.
func writePage(page Page) windowWrite {
	return func(ctx context.Context, d *decoder, w *window) (Interleaved, error) {
		r, err := d.announced(ctx, &page.Table)
		if err != nil {
			return Interleaved{}, err
		}
		r.table.Consumer, r.table.Progress = page.Consumer, page.Progress
		if err := w.usable(&page, r); err != nil {
			return Interleaved{}, refusal{fmt.Errorf("%w: read the page again: %w", err, lockstep.ErrUnavailable)}
		}
		return d.writeRows(r, &page, w), nil
	}
}

// usable says why the page's rows cannot be told older from newer than the changes.
func (w *window) usable(page *Page, r *relation) error {
	if w.overflown {
		return fmt.Errorf("more than %d rows of %s changed while it was read", w.limit, r.table)
	}
	if page.Snapshot.Max != 0 {
		// Before the low watermark the log has a change that the rows may lack.
		for _, xid := range w.unsettled {
			if !page.Snapshot.Sees(xid) {
				return fmt.Errorf("transaction %d is in the log already and was not visible when %s was read", xid, r.table)
			}
		}
	}
	for _, other := range w.relations {
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

func (d *decoder) writeRows(r *relation, page *Page, w *window) Interleaved {
	var result Interleaved
	all, again := w.overridesAll(page.Snapshot)
	// Rows that share one key are overridden by each other's changes.
	shared := len(r.keys) == 0 && r.identity == identityFull
	n := len(r.columns)
	for i := range page.rows() {
		row := d.scratch.row[:0]
		d.size = 0
		for _, text := range page.Values[i*n : (i+1)*n] {
			d.size += len(text)
			row = append(row, pageColumn(text))
		}
		d.scratch.row = row
		over, partial := w.overrides(r.keyHash(row), page.Snapshot)
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

func pageColumn(text []byte) column {
	if text == nil {
		return column{kind: columnNull}
	}
	return column{columnText, text}
}
