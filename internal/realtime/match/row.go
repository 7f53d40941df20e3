package match

import (
	"bytes"
	"encoding/json"
)

// Member is a column of a row.
type Member struct {
	Name  []byte // unescaped
	Value []byte // as JSON
}

// Row is a JSON object cut into its members. It refers to the bytes it was made of.
// The zero Row is empty. It is used by one goroutine.
type Row struct {
	members []Member
}

// Reset makes the row that of the JSON object, or empty when that is none. It reports
// whether all of it could be read.
func (r *Row) Reset(object []byte) bool {
	r.members = r.members[:0]
	at := space(object, 0)
	if at >= len(object) || object[at] != '{' {
		return false
	}
	at = space(object, at+1)
	for at < len(object) && object[at] != '}' {
		end := stringEnd(object, at)
		if end < 0 {
			return false
		}
		name := unescape(object[at:end])
		at = space(object, end)
		if at >= len(object) || object[at] != ':' {
			return false
		}
		at = space(object, at+1)
		end = valueEnd(object, at)
		if end < 0 {
			return false
		}
		r.members = append(r.members, Member{name, object[at:end]})
		at = space(object, end)
		if at < len(object) && object[at] == ',' {
			at = space(object, at+1)
		} else if at >= len(object) || object[at] != '}' {
			return false
		}
	}
	return at < len(object)
}

// Members returns the columns in the row's order. They are valid until Reset.
func (r *Row) Members() []Member { return r.members }

// Find returns the value of a column as JSON; false when the row does not hold it.
func (r *Row) Find(name string) ([]byte, bool) {
	for i := range r.members {
		if string(r.members[i].Name) == name {
			return r.members[i].Value, true
		}
	}
	return nil, false
}

func space(b []byte, at int) int {
	for at < len(b) && (b[at] == ' ' || b[at] == '\t' || b[at] == '\n' || b[at] == '\r') {
		at++
	}
	return at
}

// stringEnd returns where the string that begins at ends, or -1.
func stringEnd(b []byte, at int) int {
	if at >= len(b) || b[at] != '"' {
		return -1
	}
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
	if at >= len(b) {
		return -1
	}
	switch b[at] {
	case '"':
		return stringEnd(b, at)
	case '{', '[':
		return nestedEnd(b, at)
	}
	start := at
	for at < len(b) && b[at] != ',' && b[at] != '}' && b[at] != ']' && b[at] > ' ' {
		at++
	}
	if at == start {
		return -1
	}
	return at
}

func nestedEnd(b []byte, at int) int {
	depth := 0
	for at < len(b) {
		switch b[at] {
		case '"':
			end := stringEnd(b, at)
			if end < 0 {
				return -1
			}
			at = end
			continue
		case '{', '[':
			depth++
		case '}', ']':
			depth--
			if depth == 0 {
				return at + 1
			}
		}
		at++
	}
	return -1
}

// unescape returns the text of a JSON string; without escapes it is part of it.
func unescape(quoted []byte) []byte {
	inner := quoted[1 : len(quoted)-1]
	if bytes.IndexByte(inner, '\\') < 0 {
		return inner
	}
	var s string
	if json.Unmarshal(quoted, &s) != nil {
		return inner
	}
	return []byte(s)
}

// textOf returns the text of a value: that of a string without its quotes, that of
// anything else as it is. null tells that it is null.
func textOf(value []byte) (text []byte, null bool) {
	switch {
	case len(value) >= 2 && value[0] == '"':
		return unescape(value), false
	case string(value) == "null":
		return nil, true
	}
	return value, false
}
