package value

import (
	"bytes"
	"unicode/utf8"
)

// maxDepth is how deep json may nest before it becomes a string: encoding/json
// and most other readers refuse more than 10,000 levels in a whole message.
const maxDepth = 9000

// appendJSON appends the text of a json or jsonb value as it is.
//
// Postgres has checked it already. It is checked again because one bad text
// would make the whole message unreadable, and every one of its batch.
func appendJSON(dst, text []byte) ([]byte, Note, bool) {
	end := jsonSpace(text, jsonValue(text, jsonSpace(text, 0), maxDepth))
	if end != len(text) {
		return dst, 0, false
	}
	var note Note
	if len(text) < 16 && string(bytes.TrimSpace(text)) == "null" {
		note = NoteJSONNull
	}
	if utf8.Valid(text) {
		return append(dst, text...), note, true
	}
	for len(text) > 0 {
		r, size := utf8.DecodeRune(text)
		dst = utf8.AppendRune(dst, r)
		text = text[size:]
	}
	return dst, note | NoteInvalidUTF8, true
}

// The functions below return the index after what they read, or -1 when it is
// not JSON, or when at is -1 already.

func jsonValue(s []byte, at, depth int) int {
	if at < 0 || at >= len(s) || depth == 0 {
		return -1
	}
	switch s[at] {
	case '"':
		return jsonString(s, at)
	case '{':
		return jsonObject(s, at, depth)
	case '[':
		return jsonArray(s, at, depth)
	case 't':
		return jsonWord(s, at, "true")
	case 'f':
		return jsonWord(s, at, "false")
	case 'n':
		return jsonWord(s, at, "null")
	}
	return numberEnd(s, at)
}

func jsonObject(s []byte, at, depth int) int {
	at = jsonSpace(s, at+1)
	if at < len(s) && s[at] == '}' {
		return at + 1
	}
	for at < len(s) && s[at] == '"' {
		at = jsonSpace(s, jsonString(s, at))
		if at < 0 || at == len(s) || s[at] != ':' {
			return -1
		}
		at = jsonSpace(s, jsonValue(s, jsonSpace(s, at+1), depth-1))
		if at < 0 || at == len(s) {
			return -1
		}
		if s[at] == '}' {
			return at + 1
		}
		if s[at] != ',' {
			return -1
		}
		at = jsonSpace(s, at+1)
	}
	return -1
}

func jsonArray(s []byte, at, depth int) int {
	at = jsonSpace(s, at+1)
	if at < len(s) && s[at] == ']' {
		return at + 1
	}
	for {
		at = jsonSpace(s, jsonValue(s, at, depth-1))
		if at < 0 || at == len(s) {
			return -1
		}
		if s[at] == ']' {
			return at + 1
		}
		if s[at] != ',' {
			return -1
		}
		at = jsonSpace(s, at+1)
	}
}

func jsonString(s []byte, at int) int {
	for at++; ; {
		at += special(s[at:], 0)
		if at == len(s) {
			return -1
		}
		if s[at] == '"' {
			return at + 1
		}
		if s[at] != '\\' || at+1 == len(s) {
			return -1
		}
		switch s[at+1] {
		case '"', '\\', '/', 'b', 'f', 'n', 'r', 't':
			at += 2
		case 'u':
			if at+6 > len(s) || !isHex(s[at+2:at+6]) {
				return -1
			}
			at += 6
		default:
			return -1
		}
	}
}

func jsonWord(s []byte, at int, word string) int {
	if len(s)-at < len(word) || string(s[at:at+len(word)]) != word {
		return -1
	}
	return at + len(word)
}

func jsonSpace(s []byte, at int) int {
	if at < 0 {
		return -1
	}
	for at < len(s) && (s[at] == ' ' || s[at] == '\n' || s[at] == '\t' || s[at] == '\r') {
		at++
	}
	return at
}

func isHex(s []byte) bool {
	for _, c := range s {
		if (c < '0' || c > '9') && (c < 'a' || c > 'f') && (c < 'A' || c > 'F') {
			return false
		}
	}
	return true
}
