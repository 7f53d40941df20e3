package events

import (
	"bytes"
	"encoding/json"
	"slices"
	"strconv"

	"lockstep"
)

// row is an inserted row of the table, or a mark of a gap, as it lies in a batch.
type row struct {
	seq        uint64
	gap        []byte // metadata.gap of a mark; nil: it is a row
	id         []byte // as text
	rank       uint64 // of id
	kind       []byte // its column type, as JSON
	subscriber []byte // as text; nil: nobody's
	payload    []byte // as JSON
	lacks      string // a column that the row does not have; empty: it is whole
}

// hasID reports whether it is a row that a client may name.
func (w *row) hasID() bool { return w.gap == nil && w.lacks != "id" && len(w.id) > 0 }

// appendRows appends what a batch holds of the table from seq on, in the order of the log.
func appendRows(dst []row, b *lockstep.Batch, t Table, from uint64) []row {
	start, parts := len(dst), 0
	for n := range b.Tables() {
		table := &b.Tables()[n]
		own := table.Name == t.Name && table.Schema == t.Schema && table.Consumer == ""
		if !own && table.OID != 0 {
			continue
		}
		parts++
		for _, i := range b.OfTable(n) {
			r := b.Record(int(i))
			switch {
			case r.Seq() < from:
			case r.Action() == lockstep.Insert && own:
				dst = append(dst, rowOf(r))
			case r.Action() == lockstep.Gap:
				dst = append(dst, row{seq: r.Seq(), gap: gapOf(r)})
			}
		}
	}
	if parts > 1 {
		slices.SortFunc(dst[start:], func(a, b row) int {
			if a.seq < b.seq {
				return -1
			}
			return 1
		})
	}
	return dst
}

func rowOf(r lockstep.Record) row {
	out := row{seq: r.Seq()}
	var id, subscriber []byte
	each(r.Row(), func(name, value []byte) bool {
		switch string(name) {
		case "id":
			id = value
		case "type":
			out.kind = value
		case "subscriber":
			subscriber = value
		case "payload":
			out.payload = value
		}
		return id == nil || out.kind == nil || subscriber == nil || out.payload == nil
	})
	switch {
	case id == nil:
		out.lacks = "id"
	case out.kind == nil:
		out.lacks = "type"
	case subscriber == nil:
		out.lacks = "subscriber"
	case out.payload == nil:
		out.lacks = "payload"
	}
	out.id, out.subscriber = textOf(id), textOf(subscriber)
	out.rank = rankOf(out.id)
	return out
}

// gapOf returns metadata.gap of a mark.
func gapOf(r lockstep.Record) []byte {
	gap := []byte("{}")
	if extra := r.Extra(); len(extra) > 1 {
		object := append(append([]byte{'{'}, extra[1:]...), '}')
		each(object, func(name, value []byte) bool {
			if string(name) == "gap" {
				gap = value
				return false
			}
			return true
		})
	}
	return gap
}

// rankOf orders ids about as they grow: whole numbers by their value, other texts by
// their beginning. Equal ids have equal ranks; different ones may.
func rankOf(id []byte) uint64 {
	if n, err := strconv.ParseInt(string(id), 10, 64); err == nil {
		return uint64(n) ^ 1<<63
	}
	var rank uint64
	for i := range 8 {
		rank <<= 8
		if i < len(id) {
			rank |= uint64(id[i])
		}
	}
	return rank
}

// textOf returns the text of a JSON value: that of a string without its quotes, that of
// anything else as it is, nil for null.
func textOf(value []byte) []byte {
	switch {
	case len(value) == 0 || string(value) == "null":
		return nil
	case value[0] != '"' || len(value) < 2:
		return value
	}
	inner := value[1 : len(value)-1]
	if bytes.IndexByte(inner, '\\') < 0 {
		return inner
	}
	var s string
	if json.Unmarshal(value, &s) != nil {
		return inner
	}
	return []byte(s)
}

// each calls f with name and value of each member of a JSON object, as long as f
// returns true and the object can be read.
func each(object []byte, f func(name, value []byte) bool) {
	at := space(object, 0)
	if at >= len(object) || object[at] != '{' {
		return
	}
	for at = space(object, at+1); at < len(object) && object[at] == '"'; {
		end := stringEnd(object, at)
		if end < 0 {
			return
		}
		name := textOf(object[at:end])
		at = space(object, end)
		if at >= len(object) || object[at] != ':' {
			return
		}
		at = space(object, at+1)
		if end = valueEnd(object, at); end < 0 || !f(name, object[at:end]) {
			return
		}
		if at = space(object, end); at < len(object) && object[at] == ',' {
			at = space(object, at+1)
		}
	}
}

func space(b []byte, at int) int {
	for at < len(b) && (b[at] == ' ' || b[at] == '\t' || b[at] == '\n' || b[at] == '\r') {
		at++
	}
	return at
}

// stringEnd returns where the string that begins at ends, or -1.
func stringEnd(b []byte, at int) int {
	for at++; at < len(b); at++ {
		switch b[at] {
		case '\\':
			at++
		case '"':
			return at + 1
		}
	}
	return -1
}

// valueEnd returns where the JSON value that begins at ends, or -1.
func valueEnd(b []byte, at int) int {
	start, depth := at, 0
	for at < len(b) {
		switch b[at] {
		case '"':
			if at = stringEnd(b, at); at < 0 {
				return -1
			}
			if depth == 0 {
				return at
			}
			continue
		case '{', '[':
			depth++
		case '}', ']':
			if depth--; depth < 0 {
				return orNothing(start, at)
			}
			if depth == 0 {
				return at + 1
			}
		case ',', ' ', '\t', '\n', '\r':
			if depth == 0 {
				return orNothing(start, at)
			}
		}
		at++
	}
	return -1
}

// orNothing returns the end of a value, or -1 when there is none.
func orNothing(start, end int) int {
	if end == start {
		return -1
	}
	return end
}
