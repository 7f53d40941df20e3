package value

import (
	"encoding/binary"
	"math/bits"
	"unicode/utf8"

	"lockstep"
)

// appendString appends text as a JSON string, as [lockstep.AppendJSONString]
// does, eight bytes at a time, and notes what was not UTF-8.
func appendString(dst, text []byte) ([]byte, Note) {
	n := special(text, nonASCII)
	if n == len(text) {
		dst = append(dst, '"')
		dst = append(dst, text...)
		return append(dst, '"'), 0
	}
	if !utf8.Valid(text[n:]) {
		return lockstep.AppendJSONString(dst, text), NoteInvalidUTF8
	}
	dst = append(dst, '"')
	for {
		n = special(text, 0)
		dst = append(dst, text[:n]...)
		if n == len(text) {
			return append(dst, '"'), 0
		}
		dst = appendEscaped(dst, text[n])
		text = text[n+1:]
	}
}

func appendEscaped(dst []byte, c byte) []byte {
	const hex = "0123456789abcdef"
	switch c {
	case '"', '\\':
		return append(dst, '\\', c)
	case '\n':
		return append(dst, '\\', 'n')
	case '\r':
		return append(dst, '\\', 'r')
	case '\t':
		return append(dst, '\\', 't')
	}
	return append(dst, '\\', 'u', '0', '0', hex[c>>4], hex[c&15])
}

// nonASCII makes [special] stop at bytes from 0x80 on as well.
const nonASCII = 0x8080808080808080

// special returns the index of the first byte that a JSON string cannot hold as
// it is (quote, backslash, control character), or len(s). extra is 0 or nonASCII.
func special(s []byte, extra uint64) int {
	const (
		ones  = 0x0101010101010101
		highs = 0x8080808080808080
	)
	i := 0
	for ; i+8 <= len(s); i += 8 {
		w := binary.LittleEndian.Uint64(s[i:])
		quote, backslash := w^(ones*'"'), w^(ones*'\\')
		// A borrow can mark a byte wrongly, yet only above one marked rightly:
		// the lowest mark is exact.
		marks := ((w-ones*0x20)&^w | (quote-ones)&^quote | (backslash-ones)&^backslash) & highs
		if marks |= w & extra; marks != 0 {
			return i + bits.TrailingZeros64(marks)/8
		}
	}
	for ; i < len(s); i++ {
		if c := s[i]; c < 0x20 || c == '"' || c == '\\' || c >= 0x80 && extra != 0 {
			return i
		}
	}
	return i
}

// quotedEnd returns where the string ends that a double quote at s[at] opens:
// the index of the closing quote, or -1, and whether it holds backslashes, each
// of which makes the byte after it literal.
func quotedEnd(s []byte, at int) (end int, escaped bool) {
	for i := at + 1; i < len(s); i++ {
		switch s[i] {
		case '"':
			return i, escaped
		case '\\':
			escaped = true
			i++
		}
	}
	return -1, escaped
}

// appendQuoted appends the value whose text stands in quotes at text[at], and
// returns the index after the closing quote, or -1 when it is not closed.
func (s *shape) appendQuoted(dst, text []byte, at int) (out []byte, next int, note Note) {
	end, escaped := quotedEnd(text, at)
	if end < 0 {
		return dst, -1, 0
	}
	inner := text[at+1 : end]
	if !escaped {
		dst, note = s.append(dst, inner)
		return dst, end + 1, note
	}
	// The plain text is laid into dst for a moment, and the value moved over it:
	// no second buffer is needed, at any depth.
	start := len(dst)
	for i := 0; i < len(inner); i++ {
		if inner[i] == '\\' {
			i++
		}
		dst = append(dst, inner[i])
	}
	plain := len(dst)
	dst, note = s.append(dst, dst[start:plain:plain])
	n := copy(dst[start:], dst[plain:])
	return dst[:start+n], end + 1, note
}
