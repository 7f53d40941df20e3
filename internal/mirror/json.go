package mirror

import (
	"bytes"
	"unicode/utf16"
	"unicode/utf8"
)

// deepest is how deep a record may be nested: Postgres' own limit depends on its
// stack, and lies around 6,000 at the default of 2 MB.
const deepest = 1000

// kind is what a JSON value is, by its first byte.
type kind byte

const (
	kindNull   kind = 'n'
	kindBool   kind = 't'
	kindNumber kind = '0'
	kindString kind = '"'
	kindObject kind = '{'
	kindArray  kind = '['
)

func kindOf(value []byte) kind {
	switch c := value[0]; c {
	case 'n', '"', '{', '[', 't':
		return kind(c)
	case 'f':
		return kindBool
	}
	return kindNumber
}

func skipSpace(b []byte, i int) int {
	for i < len(b) && (b[i] == ' ' || b[i] == '\n' || b[i] == '\t' || b[i] == '\r') {
		i++
	}
	return i
}

// skipValue returns the end of the JSON value that begins at i; -1 when there is
// none. It is as strict as Postgres.
func skipValue(b []byte, i, depth int) int {
	if i >= len(b) || depth > deepest {
		return -1
	}
	switch b[i] {
	case '"':
		return skipString(b, i)
	case '{':
		return skipObject(b, i, depth)
	case '[':
		return skipArray(b, i, depth)
	case 't':
		return skipWord(b, i, "true")
	case 'f':
		return skipWord(b, i, "false")
	case 'n':
		return skipWord(b, i, "null")
	}
	return skipNumber(b, i)
}

func skipWord(b []byte, i int, word string) int {
	if !bytes.HasPrefix(b[i:], []byte(word)) {
		return -1
	}
	return i + len(word)
}

func skipString(b []byte, i int) int {
	for i++; i < len(b); i++ {
		c := b[i]
		if c >= 0x20 && c != '"' && c != '\\' {
			continue
		}
		switch {
		case c == '"':
			return i + 1
		case c < 0x20:
			return -1
		default:
			if i++; i >= len(b) {
				return -1
			}
			if b[i] == 'u' {
				if _, ok := hex4(b, i+1); !ok {
					return -1
				}
				i += 4
			} else if bytes.IndexByte([]byte(`"\/bfnrt`), b[i]) < 0 {
				return -1
			}
		}
	}
	return -1
}

func hex4(b []byte, i int) (r rune, ok bool) {
	if i+4 > len(b) {
		return 0, false
	}
	for _, c := range b[i : i+4] {
		switch {
		case c >= '0' && c <= '9':
			r = r<<4 | rune(c-'0')
		case c >= 'a' && c <= 'f':
			r = r<<4 | rune(c-'a'+10)
		case c >= 'A' && c <= 'F':
			r = r<<4 | rune(c-'A'+10)
		default:
			return 0, false
		}
	}
	return r, true
}

func skipDigits(b []byte, i int) int {
	for i < len(b) && b[i] >= '0' && b[i] <= '9' {
		i++
	}
	return i
}

func skipNumber(b []byte, i int) int {
	if i < len(b) && b[i] == '-' {
		i++
	}
	from := i
	if i = skipDigits(b, i); i == from || b[from] == '0' && i > from+1 {
		return -1
	}
	if i < len(b) && b[i] == '.' {
		from = i + 1
		if i = skipDigits(b, from); i == from {
			return -1
		}
	}
	if i < len(b) && (b[i] == 'e' || b[i] == 'E') {
		if i++; i < len(b) && (b[i] == '+' || b[i] == '-') {
			i++
		}
		from = i
		if i = skipDigits(b, from); i == from {
			return -1
		}
	}
	return i
}

func skipArray(b []byte, i, depth int) int {
	if i = skipSpace(b, i+1); i < len(b) && b[i] == ']' {
		return i + 1
	}
	for {
		if i = skipValue(b, i, depth+1); i < 0 {
			return -1
		}
		if i = skipSpace(b, i); i >= len(b) {
			return -1
		}
		switch b[i] {
		case ']':
			return i + 1
		case ',':
			i = skipSpace(b, i+1)
		default:
			return -1
		}
	}
}

// member is one key and value of an object. The key is decoded, the value raw.
type member struct{ key, value []byte }

func skipObject(b []byte, i, depth int) int {
	return eachMember(b, i, depth, func(member) {})
}

// eachMember calls f for the members of the object at i, and returns its end; -1
// when it is none.
func eachMember(b []byte, i, depth int, f func(member)) int {
	if i >= len(b) || b[i] != '{' {
		return -1
	}
	if i = skipSpace(b, i+1); i < len(b) && b[i] == '}' {
		return i + 1
	}
	for {
		if i >= len(b) || b[i] != '"' {
			return -1
		}
		end := skipString(b, i)
		if end < 0 {
			return -1
		}
		key := unquote(b[i:end])
		if i = skipSpace(b, end); i >= len(b) || b[i] != ':' {
			return -1
		}
		i = skipSpace(b, i+1)
		if end = skipValue(b, i, depth+1); end < 0 {
			return -1
		}
		f(member{key, b[i:end:end]})
		if i = skipSpace(b, end); i >= len(b) {
			return -1
		}
		switch b[i] {
		case '}':
			return i + 1
		case ',':
			i = skipSpace(b, i+1)
		default:
			return -1
		}
	}
}

// eachElement calls f for the elements of a valid array until it returns false.
func eachElement(b []byte, f func(value []byte) bool) {
	for i := skipSpace(b, 1); i < len(b) && b[i] != ']'; {
		end := skipValue(b, i, 0)
		if end < 0 || !f(b[i:end:end]) {
			return
		}
		if i = skipSpace(b, end); i < len(b) && b[i] == ',' {
			i = skipSpace(b, i+1)
		}
	}
}

// unquote returns what a valid JSON string says, in valid UTF-8 that Postgres can
// hold: see [appendUnquoted]. Without escapes it is a part of s.
func unquote(s []byte) []byte {
	inner := s[1 : len(s)-1 : len(s)-1]
	if bytes.IndexByte(inner, '\\') < 0 && utf8.Valid(inner) {
		return inner
	}
	return appendUnquoted(nil, inner)
}

// appendUnquoted decodes the inside of a valid JSON string. NUL, lone surrogates
// and bytes that are not UTF-8 become U+FFFD, which Postgres can hold.
func appendUnquoted(dst, s []byte) []byte {
	for i := 0; i < len(s); {
		from := i
		for i < len(s) && s[i] != '\\' && s[i] < utf8.RuneSelf {
			i++
		}
		if dst = append(dst, s[from:i]...); i == len(s) {
			break
		}
		if s[i] != '\\' {
			r, n := utf8.DecodeRune(s[i:])
			dst = utf8.AppendRune(dst, r)
			i += n
			continue
		}
		if s[i+1] == 'u' {
			r, n := escaped(s, i)
			dst = utf8.AppendRune(dst, r)
			i += n
			continue
		}
		c := s[i+1]
		if at := bytes.IndexByte([]byte("bfnrt"), c); at >= 0 {
			c = "\b\f\n\r\t"[at]
		}
		dst = append(dst, c)
		i += 2
	}
	return dst
}

// escaped returns the rune of the \u escape at i, and how long it is. What Postgres
// cannot hold is U+FFFD.
func escaped(s []byte, i int) (r rune, n int) {
	r, _ = hex4(s, i+2)
	if !utf16.IsSurrogate(r) {
		if r == 0 {
			r = utf8.RuneError
		}
		return r, 6
	}
	if i+12 <= len(s) && s[i+6] == '\\' && s[i+7] == 'u' {
		low, _ := hex4(s, i+8)
		if whole := utf16.DecodeRune(r, low); whole != utf8.RuneError {
			return whole, 12
		}
	}
	return utf8.RuneError, 6
}
