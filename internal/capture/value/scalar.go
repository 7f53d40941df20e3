package value

import (
	"encoding/base64"
	"encoding/hex"
	"slices"
)

func appendBool(dst, text []byte) ([]byte, bool) {
	switch string(text) {
	case "t", "true":
		return append(dst, "true"...), true
	case "f", "false":
		return append(dst, "false"...), true
	}
	return dst, false
}

func appendInt(dst, text []byte) ([]byte, bool) {
	digits := text
	if len(digits) > 0 && digits[0] == '-' {
		digits = digits[1:]
	}
	if len(digits) == 0 || len(digits) > 1 && digits[0] == '0' || digitsEnd(digits, 0) != len(digits) {
		return dst, false
	}
	return append(dst, text...), true
}

func appendFloat(dst, text []byte) ([]byte, bool) {
	if numberEnd(text, 0) == len(text) {
		return append(dst, text...), true
	}
	switch string(text) {
	case "NaN", "Infinity", "-Infinity":
		dst = append(dst, '"')
		dst = append(dst, text...)
		return append(dst, '"'), true
	}
	return dst, false
}

// appendVector appends pgvector's text, which is JSON already: [1,2.5,-3e-05].
func appendVector(dst, text []byte) ([]byte, bool) {
	if len(text) < 2 || text[0] != '[' {
		return dst, false
	}
	for at := 1; ; at++ {
		at = numberEnd(text, at)
		if at < 0 || at == len(text) {
			return dst, false
		}
		if text[at] == ']' {
			return append(dst, text...), at == len(text)-1
		}
		if text[at] != ',' {
			return dst, false
		}
	}
}

// appendTimestamp appends 2026-11-21 10:00:00.12+00 as an RFC 3339 time with six
// fraction digits. zone is how the text must end: "+00" for UTC, or nothing.
func appendTimestamp(dst, text []byte, zone string) ([]byte, bool) {
	const form = "dddd-dd-dd dd:dd:dd"
	if !matches(text, form) {
		if !farTime(text) {
			return dst, false
		}
		dst = append(dst, '"')
		dst = append(dst, text...)
		return append(dst, '"'), true
	}
	rest := text[len(form):]
	fraction := rest[:0]
	if len(rest) > 0 && rest[0] == '.' {
		fraction = rest[1:digitsEnd(rest, 1)]
		if len(fraction) == 0 || len(fraction) > 6 {
			return dst, false
		}
		rest = rest[1+len(fraction):]
	}
	if string(rest) != zone {
		// Before Christ: 0044-03-15 12:00:00+00 BC.
		if string(rest) != zone+" BC" {
			return dst, false
		}
		dst = append(dst, '"')
		dst = append(dst, text...)
		return append(dst, '"'), true
	}
	dst = append(dst, '"')
	dst = append(dst, text[:10]...)
	dst = append(dst, 'T')
	dst = append(dst, text[11:len(form)]...)
	dst = append(dst, '.')
	dst = append(dst, fraction...)
	dst = append(dst, "000000"[len(fraction):]...)
	if zone != "" {
		dst = append(dst, 'Z')
	}
	return append(dst, '"'), true
}

// farTime reports whether text is a time that RFC 3339 cannot say: an infinite
// one, or one in a year of five digits or more, of either era.
func farTime(text []byte) bool {
	switch string(text) {
	case "infinity", "-infinity":
		return true
	}
	year := digitsEnd(text, 0)
	if year < 5 || year > 6 || !matches(text[year:], "-dd-dd dd:dd:dd") {
		return false
	}
	for _, c := range text[year:] {
		if c < ' ' || c > '~' || c == '"' || c == '\\' {
			return false
		}
	}
	return true
}

// matches reports whether text begins in the given form, in which d is a digit.
func matches(text []byte, form string) bool {
	if len(text) < len(form) {
		return false
	}
	for i := range len(form) {
		c := text[i]
		if form[i] == 'd' {
			if c < '0' || c > '9' {
				return false
			}
		} else if c != form[i] {
			return false
		}
	}
	return true
}

// appendBytea appends \x68690a as base64.
func appendBytea(dst, text []byte) ([]byte, bool) {
	if len(text) < 2 || text[0] != '\\' || text[1] != 'x' || len(text)%2 != 0 {
		return dst, false
	}
	text = text[2:]
	dst = slices.Grow(dst, base64.StdEncoding.EncodedLen(len(text)/2)+2)
	dst = append(dst, '"')
	// A multiple of three, so that only the last piece is padded.
	var plain [192]byte
	for len(text) > 0 {
		piece := text[:min(len(text), 2*len(plain))]
		n, err := hex.Decode(plain[:], piece)
		if err != nil {
			return dst, false
		}
		dst = base64.StdEncoding.AppendEncode(dst, plain[:n])
		text = text[len(piece):]
	}
	return append(dst, '"'), true
}

// digitsEnd returns the index of the first byte from at on that is no digit.
func digitsEnd(s []byte, at int) int {
	for at < len(s) && s[at] >= '0' && s[at] <= '9' {
		at++
	}
	return at
}

// numberEnd returns where the JSON number ends that begins at s[at], or -1.
func numberEnd(s []byte, at int) int {
	if at < len(s) && s[at] == '-' {
		at++
	}
	end := digitsEnd(s, at)
	if end == at || end > at+1 && s[at] == '0' {
		return -1
	}
	if end < len(s) && s[end] == '.' {
		at = end + 1
		if end = digitsEnd(s, at); end == at {
			return -1
		}
	}
	if end < len(s) && (s[end] == 'e' || s[end] == 'E') {
		at = end + 1
		if at < len(s) && (s[at] == '+' || s[at] == '-') {
			at++
		}
		if end = digitsEnd(s, at); end == at {
			return -1
		}
	}
	return end
}
