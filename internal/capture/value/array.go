package value

// maxDimensions is more than Postgres' own limit of 6 (MAXDIM, c.h).
const maxDimensions = 16

// appendArray appends {1,NULL,"a b"} as nested JSON arrays.
func (s *shape) appendArray(dst, text []byte) ([]byte, Note, bool) {
	if len(text) == 0 {
		return dst, 0, false
	}
	// [0:2]={1,2,3}: the lower bound would be lost in a JSON array.
	if text[0] == '[' {
		dst, note := appendString(dst, text)
		return dst, note, true
	}
	if text[0] != '{' {
		return dst, 0, false
	}
	dst, next, note := s.appendDimension(dst, text, 0, maxDimensions)
	// An element's null is the array's content, not the column's.
	return dst, note &^ NoteJSONNull, next == len(text)
}

// appendDimension appends the elements between the brace at text[at] and its
// partner, and returns the index after that, or -1 when the text is malformed.
func (s *shape) appendDimension(dst, text []byte, at, depth int) (out []byte, next int, note Note) {
	dst = append(dst, '[')
	at++
	if at < len(text) && text[at] == '}' {
		return append(dst, ']'), at + 1, 0
	}
	for at < len(text) {
		var n Note
		switch {
		case text[at] == '"':
			dst, at, n = s.elem.appendQuoted(dst, text, at)
		case text[at] != '{':
			dst, at, n = s.appendBare(dst, text, at)
		case depth > 1:
			dst, at, n = s.appendDimension(dst, text, at, depth-1)
		default:
			at = -1
		}
		note |= n
		if at < 0 || at == len(text) {
			return dst, -1, note
		}
		if text[at] == '}' {
			return append(dst, ']'), at + 1, note
		}
		if text[at] != s.delim {
			return dst, -1, note
		}
		dst = append(dst, ',')
		at++
	}
	return dst, -1, note
}

// appendBare appends the element at text[at], which stands without quotes.
func (s *shape) appendBare(dst, text []byte, at int) (out []byte, next int, note Note) {
	end := at
	for end < len(text) && text[end] != s.delim && text[end] != '}' {
		// Postgres quotes whatever holds one of these.
		if c := text[end]; c == '"' || c == '\\' || c == '{' {
			return dst, -1, 0
		}
		end++
	}
	if end == at {
		return dst, -1, 0
	}
	if string(text[at:end]) == "NULL" {
		return append(dst, "null"...), end, 0
	}
	dst, note = s.elem.append(dst, text[at:end])
	return dst, end, note
}
