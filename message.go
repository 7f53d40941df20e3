package lockstep

import (
	"strconv"
	"time"
	"unicode/utf8"
)

// MessageOptions is what a message tells beyond the change itself.
type MessageOptions struct {
	Database string
	// ConsumerID and ConsumerName fill metadata.consumer; empty: it is left out.
	ConsumerID, ConsumerName string
	Late                     bool   // metadata.late: later changes of the key went by
	Row                      []byte // replaces the row (a transform's result); changes is then null
}

// AppendMessage appends the change as the JSON object of the wire contract,
// section 4, without surrounding space. Row and changes are copied byte for byte.
func AppendMessage(dst []byte, r Record, o MessageOptions) []byte {
	dst = append(dst, '{')
	dst = AppendMessageMembers(dst, r, o)
	return append(dst, '}')
}

// AppendMessageMembers appends the members of [AppendMessage]'s object without the
// braces, for callers that put members of their own beside them.
func AppendMessageMembers(dst []byte, r Record, o MessageOptions) []byte {
	row, changes := r.Row(), r.Changes()
	if o.Row != nil {
		row, changes = o.Row, nil
	}
	dst = appendOrNull(append(dst, `"record":`...), row)
	dst = appendOrNull(append(dst, `,"changes":`...), changes)
	return AppendMessageEnd(append(dst, ','), r, o)
}

// AppendMessageEnd appends the members of a message that follow record and changes,
// for callers that show the row in a form of their own: action and metadata.
func AppendMessageEnd(dst []byte, r Record, o MessageOptions) []byte {
	dst = append(dst, `"action":"`...)
	dst = append(dst, r.Action().String()...)
	dst = append(dst, `","metadata":`...)
	return appendMetadata(dst, r, o)
}

func appendMetadata(dst []byte, r Record, o MessageOptions) []byte {
	t, tx := r.Table(), r.Tx()
	dst = append(dst, `{"database":`...)
	dst = AppendJSONString(dst, o.Database)
	dst = append(dst, `,"table_schema":`...)
	dst = AppendJSONString(dst, t.Schema)
	dst = append(dst, `,"table_name":`...)
	dst = AppendJSONString(dst, t.Name)
	dst = append(dst, `,"seq":`...)
	dst = strconv.AppendUint(dst, r.Seq(), 10)
	dst = append(dst, `,"commit_lsn":`...)
	dst = strconv.AppendUint(dst, uint64(tx.CommitLSN), 10)
	dst = append(dst, `,"commit_idx":`...)
	dst = strconv.AppendUint(dst, uint64(r.CommitIdx()), 10)
	dst = append(dst, `,"commit_timestamp":"`...)
	dst = time.UnixMicro(tx.CommitTime).UTC().AppendFormat(dst, "2006-01-02T15:04:05.000000Z")
	dst = append(dst, `","xid":`...)
	dst = strconv.AppendUint(dst, uint64(tx.XID), 10)
	dst = append(dst, `,"record_pks":`...)
	if pks := r.PKs(); len(pks) > 0 {
		dst = append(dst, pks...)
	} else {
		dst = append(dst, `[]`...)
	}
	dst = append(dst, `,"key_kind":"`...)
	dst = append(dst, t.Key.String()...)
	dst = append(dst, `","idempotency_key":"`...)
	dst = AppendIdempotencyKey(dst, r)
	dst = append(dst, `","origin":"`...)
	dst = append(dst, tx.Origin.String()...)
	dst = append(dst, `","old_known":`...)
	dst = strconv.AppendBool(dst, r.OldKnown())
	dst = append(dst, `,"transaction_annotations":`...)
	dst = appendOrNull(dst, tx.Annotations)
	dst = append(dst, r.Extra()...)
	if o.Late {
		dst = append(dst, `,"late":true`...)
	}
	if o.ConsumerID != "" {
		dst = append(dst, `,"consumer":{"id":`...)
		dst = AppendJSONString(dst, o.ConsumerID)
		dst = append(dst, `,"name":`...)
		dst = AppendJSONString(dst, o.ConsumerName)
		dst = append(dst, '}')
	}
	return append(dst, '}')
}

// AppendIdempotencyKey appends the change's identity: system identifier, timeline,
// commit LSN and index. It is equal on every redelivery, of letters, digits and
// dashes only.
func AppendIdempotencyKey(dst []byte, r Record) []byte {
	dst = strconv.AppendUint(dst, r.b.Mark.SystemID, 36)
	dst = append(dst, '-')
	dst = strconv.AppendUint(dst, uint64(r.b.Mark.Timeline), 36)
	dst = append(dst, '-')
	dst = strconv.AppendUint(dst, uint64(r.Tx().CommitLSN), 36)
	dst = append(dst, '-')
	return strconv.AppendUint(dst, uint64(r.CommitIdx()), 36)
}

func appendOrNull(dst, json []byte) []byte {
	if len(json) == 0 {
		return append(dst, "null"...)
	}
	return append(dst, json...)
}

// AppendJSONString appends s as a JSON string. Bytes that are not UTF-8 become
// U+FFFD; nothing else is changed, and only what JSON requires is escaped.
func AppendJSONString[T ~string | ~[]byte](dst []byte, s T) []byte {
	const hex = "0123456789abcdef"
	dst = append(dst, '"')
	start := 0
	for i := 0; i < len(s); {
		c := s[i]
		if c >= 0x20 && c != '"' && c != '\\' && c < utf8.RuneSelf {
			i++
			continue
		}
		if c >= utf8.RuneSelf {
			size := runeLen(s, i)
			if size > 0 {
				i += size
				continue
			}
			dst = append(append(dst, s[start:i]...), "\uFFFD"...)
			i++
			start = i
			continue
		}
		dst = append(dst, s[start:i]...)
		switch c {
		case '"', '\\':
			dst = append(dst, '\\', c)
		case '\n':
			dst = append(dst, '\\', 'n')
		case '\r':
			dst = append(dst, '\\', 'r')
		case '\t':
			dst = append(dst, '\\', 't')
		default:
			dst = append(dst, '\\', 'u', '0', '0', hex[c>>4], hex[c&15])
		}
		i++
		start = i
	}
	return append(append(dst, s[start:]...), '"')
}

// runeLen returns the length of the UTF-8 sequence at s[i], or 0 if it is none.
func runeLen[T ~string | ~[]byte](s T, i int) int {
	end := min(i+utf8.UTFMax, len(s))
	var b [utf8.UTFMax]byte
	n := copy(b[:], s[i:end])
	r, size := utf8.DecodeRune(b[:n])
	if r == utf8.RuneError && size <= 1 {
		return 0
	}
	return size
}

// FoldLines turns raw line breaks into spaces, in place, and returns b. JSON has
// them between tokens only (json values are kept byte for byte), so no value
// changes; line-based outputs need it.
func FoldLines(b []byte) []byte {
	for i, c := range b {
		if c == '\n' || c == '\r' {
			b[i] = ' '
		}
	}
	return b
}
