package wal

import (
	"bytes"
	"encoding/binary"
	"fmt"
)

// The kinds of a column in a tuple. The protocol knows the first three.
const (
	columnNull   = 'n'
	columnToast  = 'u' // stored out of line and unchanged: not sent
	columnText   = 't'
	columnAbsent = 0 // not known; left out of the record
)

// column is a column of a tuple. The text is part of the socket's buffer.
type column struct {
	kind byte
	text []byte
}

// parseTuple cuts a tuple of want columns off b. dst is reused.
func parseTuple(b []byte, dst []column, want int) (columns []column, rest []byte, err error) {
	if len(b) < 2 {
		return dst, nil, errDamaged
	}
	if n := int(binary.BigEndian.Uint16(b)); n != want {
		return dst, nil, fmt.Errorf("%d columns where the description has %d: %w", n, want, errDamaged)
	}
	b, dst = b[2:], dst[:0]
	for range want {
		if len(b) == 0 {
			return dst, nil, errDamaged
		}
		kind := b[0]
		switch kind {
		case columnText:
			if len(b) < 5 {
				return dst, nil, errDamaged
			}
			size := uint64(binary.BigEndian.Uint32(b[1:]))
			if size > uint64(len(b)-5) {
				return dst, nil, errDamaged
			}
			dst = append(dst, column{columnText, b[5 : 5+size]})
			b = b[5+size:]
		case columnNull, columnToast:
			dst = append(dst, column{kind: kind})
			b = b[1:]
		default:
			return dst, nil, fmt.Errorf("column of kind %q, which was not asked for: %w", kind, errDamaged)
		}
	}
	return dst, b, nil
}

// fillUnchanged takes from the old row what Postgres did not send again.
func fillUnchanged(row, old []column) {
	for i := range row {
		if row[i].kind == columnToast && (old[i].kind == columnText || old[i].kind == columnNull) {
			row[i] = old[i]
		}
	}
}

func (r *relation) sameKey(a, b []column) bool {
	for _, i := range r.keys {
		if !a[i].equal(b[i]) {
			return false
		}
	}
	return true
}

func (c column) equal(d column) bool {
	return c.kind == d.kind && bytes.Equal(c.text, d.text)
}

// keepKey leaves only the key of an old row in which the other columns are not
// NULL but unknown.
func (r *relation) keepKey(old []column) {
	for i := range old {
		if !r.isKey[i] && (len(r.keys) > 0 || old[i].kind == columnNull) {
			old[i] = column{}
		}
	}
}

// fillKey takes the key's columns that the new row lacks from the old key.
func (r *relation) fillKey(row, old []column) {
	for _, i := range r.keys {
		if row[i].kind == columnToast && old[i].kind == columnText {
			row[i] = old[i]
		}
	}
}
