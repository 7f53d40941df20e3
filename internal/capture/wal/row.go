package wal

import (
	"fmt"
	"math"
	"slices"

	"lockstep"
	"lockstep/internal/capture/value"
)

// maxRecord is the largest change, in bytes, that a batch can carry.
const maxRecord = math.MaxInt32

// scratch is memory that is reused from row to row.
type scratch struct {
	row, old                                 []column
	unchanged, jsonNull, badUTF8, badlyTyped []int
	fields                                   []value.Field
	text                                     []byte
}

// rowChange is one change of one row.
type rowChange struct {
	action   lockstep.Action
	row      []column // what the record shows
	old      []column // the row before an update; nil: not known
	oldKnown bool
}

func (d *decoder) insert(r *relation, b []byte) error {
	if len(b) == 0 || b[0] != 'N' {
		return errDamaged
	}
	row, rest, err := parseTuple(b[1:], d.scratch.row, len(r.columns))
	d.scratch.row = row
	if err != nil {
		return err
	}
	if len(rest) > 0 {
		return errDamaged
	}
	d.emit(r, rowChange{action: lockstep.Insert, row: row, oldKnown: true})
	return nil
}

func (d *decoder) delete(r *relation, b []byte) error {
	if len(b) == 0 || b[0] != 'K' && b[0] != 'O' {
		return errDamaged
	}
	old, rest, err := parseTuple(b[1:], d.scratch.old, len(r.columns))
	d.scratch.old = old
	if err != nil {
		return err
	}
	if len(rest) > 0 {
		return errDamaged
	}
	full := b[0] == 'O' && !r.oldIsKey
	if !full {
		r.keepKey(old)
	}
	d.emit(r, rowChange{action: lockstep.Delete, row: old, oldKnown: full})
	return nil
}

func (d *decoder) update(r *relation, b []byte) error {
	if len(b) == 0 {
		return errDamaged
	}
	var err error
	before := b[0]
	if before == 'K' || before == 'O' {
		if d.scratch.old, b, err = parseTuple(b[1:], d.scratch.old, len(r.columns)); err != nil {
			return fmt.Errorf("old row: %w", err)
		}
	}
	if len(b) == 0 || b[0] != 'N' {
		return errDamaged
	}
	if d.scratch.row, b, err = parseTuple(b[1:], d.scratch.row, len(r.columns)); err != nil {
		return fmt.Errorf("new row: %w", err)
	}
	if len(b) > 0 {
		return errDamaged
	}
	row, old := d.scratch.row, d.scratch.old
	switch {
	case before == 'O' && !r.oldIsKey:
		d.updateFull(r, row, old)
	case before == 'N':
		d.emit(r, rowChange{action: lockstep.Update, row: row})
	default:
		d.updateKeyed(r, row, old)
	}
	return nil
}

// updateFull handles an update whose old row is known.
func (d *decoder) updateFull(r *relation, row, old []column) {
	fillUnchanged(row, old)
	if r.sameKey(row, old) {
		d.emit(r, rowChange{action: lockstep.Update, row: row, old: old, oldKnown: true})
		return
	}
	d.emit(r, rowChange{action: lockstep.Delete, row: old, oldKnown: true})
	d.emit(r, rowChange{action: lockstep.Insert, row: row, oldKnown: true})
}

// updateKeyed handles an update that came with the old key. The key may be the
// same: Postgres also sends it when a column of it is stored out of line
// (ExtractReplicaIdentity in heapam.c).
func (d *decoder) updateKeyed(r *relation, row, old []column) {
	r.fillKey(row, old)
	if r.sameKey(row, old) {
		d.emit(r, rowChange{action: lockstep.Update, row: row})
		return
	}
	r.keepKey(old)
	d.emit(r, rowChange{action: lockstep.Delete, row: old})
	d.emit(r, rowChange{action: lockstep.Insert, row: row, oldKnown: true})
}

// emit writes one change into the batch.
func (d *decoder) emit(r *relation, c rowChange) { d.emitWith(r, c, "") }

// emitWith writes one change with a further fragment of metadata.
func (d *decoder) emitWith(r *relation, c rowChange, extra string) {
	s := &d.scratch
	s.unchanged, s.jsonNull, s.badUTF8, s.badlyTyped = s.unchanged[:0], s.jsonNull[:0], s.badUTF8[:0], s.badlyTyped[:0]
	// JSON is about as long as what it is made of: a large row grows the buffer once.
	buf := slices.Grow(d.out.open(), d.size)
	start := len(buf)
	buf = d.appendRecord(buf, r, c.row)
	record := len(buf)
	if c.old != nil {
		buf = appendChanges(buf, r, c.row, c.old)
	}
	changes := len(buf)
	if changes-start > maxRecord {
		buf = append(fmt.Appendf(buf[:start], `,"oversized":%d`, changes-start), extra...)
		d.close(r, buf, lockstep.RecordHead{Action: c.action, KeyHash: r.keyHash(c.row), ExtraLen: len(buf) - start})
		return
	}
	buf = r.appendPKs(buf, c.row)
	pks := len(buf)
	buf = appendNames(buf, r, `,"unchanged":[`, s.unchanged)
	buf = appendNames(buf, r, `,"json_null":[`, s.jsonNull)
	buf = appendNames(buf, r, `,"invalid_utf8":[`, s.badUTF8)
	buf = appendNames(buf, r, `,"malformed":[`, s.badlyTyped)
	buf = append(buf, extra...)
	d.close(r, buf, lockstep.RecordHead{
		Action:     c.action,
		OldKnown:   c.oldKnown,
		KeyHash:    r.keyHash(c.row),
		RecordLen:  record - start,
		ChangesLen: changes - record,
		PKsLen:     pks - changes,
		ExtraLen:   len(buf) - pks,
	})
}

// emitWhole writes one change of a whole table; with oid 0, of all tables.
func (d *decoder) emitWhole(r *relation, action lockstep.Action, extra []byte) {
	buf := append(append(d.out.open(), "[]"...), extra...)
	d.close(r, buf, lockstep.RecordHead{Action: action, KeyHash: r.hash, PKsLen: 2, ExtraLen: len(extra)})
}

// close finishes a change: it gets the next index of its transaction.
func (d *decoder) close(r *relation, buf []byte, head lockstep.RecordHead) {
	if d.window != nil {
		d.noted(r, head)
	}
	if r.batch != d.out.number {
		r.batch, r.number = d.out.number, d.out.table(r.table)
	}
	head.Table = r.number
	head.CommitIdx = d.tx.next
	d.tx.next++
	d.out.close(buf, head, d.tx.ordinal)
}

// appendRecord appends the row as a JSON object, and notes which columns need to
// be named in the metadata.
func (d *decoder) appendRecord(buf []byte, r *relation, row []column) []byte {
	s := &d.scratch
	buf = append(buf, '{')
	first := len(buf)
	for i := range row {
		c, t := &row[i], &r.columns[i]
		switch c.kind {
		case columnText:
			buf = appendLabel(buf, t.label, first)
			var note value.Note
			if buf, note = t.encoder.Append(buf, c.text); note != 0 {
				s.note(i, note)
			}
		case columnNull:
			buf = append(appendLabel(buf, t.label, first), "null"...)
		case columnToast:
			s.unchanged = append(s.unchanged, i)
		}
	}
	return append(buf, '}')
}

func appendLabel(buf, label []byte, first int) []byte {
	if len(buf) > first {
		buf = append(buf, ',')
	}
	return append(buf, label...)
}

func (s *scratch) note(i int, n value.Note) {
	if n&value.NoteJSONNull != 0 {
		s.jsonNull = append(s.jsonNull, i)
	}
	if n&value.NoteInvalidUTF8 != 0 {
		s.badUTF8 = append(s.badUTF8, i)
	}
	if n&value.NoteMalformed != 0 {
		s.badlyTyped = append(s.badlyTyped, i)
	}
}

// appendChanges appends the old values of the columns whose text differs.
func appendChanges(buf []byte, r *relation, row, old []column) []byte {
	buf = append(buf, '{')
	first := len(buf)
	for i := range row {
		c, o, t := &row[i], &old[i], &r.columns[i]
		if c.kind == columnToast || c.equal(*o) {
			continue
		}
		switch o.kind {
		case columnText:
			buf, _ = t.encoder.Append(appendLabel(buf, t.label, first), o.text)
		case columnNull:
			buf = append(appendLabel(buf, t.label, first), "null"...)
		}
	}
	return append(buf, '}')
}

func appendNames(buf []byte, r *relation, lead string, columns []int) []byte {
	if len(columns) == 0 {
		return buf
	}
	buf = append(buf, lead...)
	for n, i := range columns {
		if n > 0 {
			buf = append(buf, ',')
		}
		label := r.columns[i].label
		buf = append(buf, label[:len(label)-1]...)
	}
	return append(buf, ']')
}
