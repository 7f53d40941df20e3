package tail

import (
	"strconv"

	"lockstep"
)

// appendEvent appends a change as an event.
func appendEvent(dst []byte, r lockstep.Record, database string) []byte {
	dst = appendHead(dst, r.Seq(), r.Action().String())
	start := len(dst)
	dst = lockstep.AppendMessage(dst, r, lockstep.MessageOptions{Database: database})
	// A line break can only lie between tokens, where a space means the same.
	lockstep.FoldLines(dst[start:])
	return append(dst, "\n\n"...)
}

// appendError appends an event that tells that the filter failed on a change: the client
// may fetch it by its seq. Leaving it out in silence would be a gap.
func appendError(dst []byte, r lockstep.Record, err error) []byte {
	dst = appendHead(dst, r.Seq(), "error")
	dst = append(dst, `{"seq":`...)
	dst = strconv.AppendUint(dst, r.Seq(), 10)
	dst = append(dst, `,"reason":`...)
	dst = lockstep.AppendJSONString(dst, err.Error())
	return append(dst, "}\n\n"...)
}

// gap is a place that is not there.
type gap struct {
	reason       string
	asked, first uint64 // first: the seq that the session goes on with
}

// appendGap appends an event that tells that changes from asked up to first are not
// there any more. Its id lets a client that comes back go on with first.
func appendGap(dst []byte, database string, g gap) []byte {
	dst = appendHead(dst, g.first-min(g.first, 1), lockstep.Gap.String())
	dst = append(dst, `{"record":null,"changes":null,"action":"gap","metadata":{"database":`...)
	dst = lockstep.AppendJSONString(dst, database)
	dst = append(dst, `,"gap":{"state":"end","reason":"`...)
	dst = append(dst, g.reason...)
	dst = append(dst, `","from_seq":`...)
	dst = strconv.AppendUint(dst, g.asked, 10)
	dst = append(dst, `,"first_seq":`...)
	dst = strconv.AppendUint(dst, g.first, 10)
	dst = append(dst, `,"from_lsn":null,"to_lsn":null,"missed":`...)
	if g.first >= g.asked {
		dst = strconv.AppendUint(dst, g.first-g.asked, 10)
	} else {
		dst = append(dst, "null"...)
	}
	return append(dst, "}}}\n\n"...)
}

func appendHead(dst []byte, seq uint64, event string) []byte {
	dst = append(dst, "id: "...)
	dst = strconv.AppendUint(dst, seq, 10)
	dst = append(dst, "\nevent: "...)
	dst = append(dst, event...)
	return append(dst, "\ndata: "...)
}
