package events

import (
	"strconv"

	"lockstep"
)

// appendEvent appends a row as an event. Its id and type cannot break out of their
// lines; an id that an SSE client could not keep is left out.
func appendEvent(dst []byte, r *row) []byte {
	dst = appendID(dst, r.id)
	if kind := textOf(r.kind); len(kind) > 0 {
		dst = append(dst, "event: "...)
		start := len(dst)
		dst = append(dst, kind...)
		for i := start; i < len(dst); i++ {
			if dst[i] == '\n' || dst[i] == '\r' || dst[i] == 0 {
				dst[i] = ' '
			}
		}
		dst = append(dst, '\n')
	}
	dst = append(dst, "data: "...)
	start := len(dst)
	dst = append(dst, r.payload...)
	// A line break can only lie between tokens.
	lockstep.FoldLines(dst[start:])
	return append(dst, "\n\n"...)
}

func appendID(dst, id []byte) []byte {
	if !tellable(id) {
		return dst
	}
	dst = append(dst, "id: "...)
	dst = append(dst, id...)
	return append(dst, '\n')
}

// tellable reports whether clients keep an id, and give it back as it is.
func tellable(id []byte) bool {
	for _, c := range id {
		if c < ' ' || c == 0x7f {
			return false
		}
	}
	return len(id) > 0 && len(id) <= maxID && id[0] != ' ' && id[len(id)-1] != ' '
}

// maxID bounds the length of ids: they come back in a header.
const maxID = 1024

// gap tells that events may be missing.
type gap struct {
	reason string
	asked  []byte // the id that the client came with; nil: it came without
	seq    uint64 // from here on there is something; 0: not told
}

// What a gap's reason may be besides those of capture.
const (
	reasonUnknown   = "unknown_id" // the log holds no such row; nothing was removed from it
	reasonRetention = "retention"  // the place is not there any more
	reasonDamage    = "damage"     // changes cannot be read
)

// appendGap appends an event that tells a gap; first is the id of the first event that
// is there, of whomever it is, or nil when there is none.
//
// It has no id of its own: a client that is cut off before the next event comes back
// with the id that it had, and is told again.
func appendGap(dst []byte, g gap, first []byte) []byte {
	dst = append(dst, "event: gap\ndata: {\"reason\":"...)
	dst = lockstep.AppendJSONString(dst, g.reason)
	dst = append(dst, `,"last_event_id":`...)
	dst = appendText(dst, g.asked)
	dst = append(dst, `,"first_id":`...)
	dst = appendText(dst, first)
	if g.seq > 0 {
		dst = append(dst, `,"first_seq":`...)
		dst = strconv.AppendUint(dst, g.seq, 10)
	}
	return append(dst, "}\n\n"...)
}

func appendText(dst, text []byte) []byte {
	if text == nil {
		return append(dst, "null"...)
	}
	return lockstep.AppendJSONString(dst, text)
}

// appendMark appends an event for a gap that capture found: rows may be missing from
// the log itself.
func appendMark(dst, mark []byte) []byte {
	dst = append(dst, "event: gap\ndata: "...)
	start := len(dst)
	dst = append(dst, mark...)
	lockstep.FoldLines(dst[start:])
	return append(dst, "\n\n"...)
}

// appendFault appends an event that says why rows of the table are no events.
func appendFault(dst []byte, t Table, lacks string) []byte {
	dst = append(dst, "event: error\ndata: {\"reason\":"...)
	dst = lockstep.AppendJSONString(dst, "rows of "+t.String()+" are no events: the table has no column "+lacks)
	return append(dst, "}\n\n"...)
}
