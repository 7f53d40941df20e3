package postgres

import (
	"bytes"
	"encoding/json"
	"errors"
)

var errJSON = errors.New("it is not the JSON that was expected")

// members calls f with each member of a JSON object: its name in quotes, and its value
// byte for byte.
func members(object []byte, f func(name, value []byte) error) error {
	return elements(object, '{', func(text []byte) (int, error) {
		end := endOf(text, 0)
		colon := space(text, end)
		if text[0] != '"' || end < 0 || colon >= len(text) || text[colon] != ':' {
			return 0, errJSON
		}
		begin := space(text, colon+1)
		stop := endOf(text, begin)
		if stop < 0 {
			return 0, errJSON
		}
		return stop, f(text[:end], text[begin:stop])
	})
}

// items calls f with each element of a JSON array.
func items(array []byte, f func(value []byte) error) error {
	return elements(array, '[', func(text []byte) (int, error) {
		end := endOf(text, 0)
		if end < 0 {
			return 0, errJSON
		}
		return end, f(text[:end])
	})
}

// elements calls f with the rest of the text at each element; f returns its length.
func elements(text []byte, open byte, f func(text []byte) (int, error)) error {
	closing := open + 2 // of { and [ alike
	at := space(text, 0)
	if at >= len(text) || text[at] != open {
		return errJSON
	}
	at = space(text, at+1)
	if at < len(text) && text[at] == closing {
		return nil
	}
	for at < len(text) {
		n, err := f(text[at:])
		if err != nil {
			return err
		}
		at = space(text, at+n)
		if at >= len(text) || text[at] != ',' && text[at] != closing {
			return errJSON
		}
		if text[at] == closing {
			return nil
		}
		at = space(text, at+1)
	}
	return errJSON
}

func space(text []byte, at int) int {
	for at >= 0 && at < len(text) && (text[at] == ' ' || text[at] == '\n' || text[at] == '\t' || text[at] == '\r') {
		at++
	}
	return at
}

// endOf returns the end of the JSON value at text[at], -1 when there is none. Brackets
// and quotes are looked at and nothing else: Postgres judges the rest.
func endOf(text []byte, at int) int {
	depth := 0
	for at < len(text) {
		switch text[at] {
		case '"':
			if at = quoted(text, at); at < 0 {
				return -1
			}
		case '{', '[':
			depth++
			at++
		case '}', ']':
			depth--
			at++
		case ' ', '\n', '\t', '\r', ',', ':':
			if depth == 0 {
				return -1
			}
			at++
			continue
		default:
			if at = literalEnd(text, at); depth == 0 {
				return at
			}
			continue
		}
		if depth == 0 {
			return at
		}
		if depth < 0 {
			return -1
		}
	}
	return -1
}

// literalEnd returns the end of a number, true, false or null.
func literalEnd(text []byte, at int) int {
	for at < len(text) {
		switch text[at] {
		case ' ', '\n', '\t', '\r', ',', ':', '"', '{', '}', '[', ']':
			return at
		}
		at++
	}
	return at
}

// quoted returns the end of the JSON string that begins at text[at].
func quoted(text []byte, at int) int {
	for at++; at < len(text); at++ {
		n := bytes.IndexByte(text[at:], '"')
		if n < 0 {
			return -1
		}
		at += n
		back := at
		for text[back-1] == '\\' {
			back--
		}
		if (at-back)%2 == 0 {
			return at + 1
		}
	}
	return -1
}

// unquote returns the text of a JSON string; a part of it when there are no escapes.
func unquote(text []byte) ([]byte, error) {
	if len(text) < 2 || text[0] != '"' {
		return nil, errJSON
	}
	inner := text[1 : len(text)-1]
	if bytes.IndexByte(inner, '\\') < 0 {
		return inner, nil
	}
	var s string
	if json.Unmarshal(text, &s) != nil {
		return nil, errJSON
	}
	return []byte(s), nil
}

func isNull(value []byte) bool { return string(value) == "null" }

// find returns a member's value; nil: there is none.
func find(object []byte, name string) (found []byte) {
	_ = members(object, func(n, v []byte) error {
		if string(n[1:len(n)-1]) == name {
			found = v
		}
		return nil
	})
	return found
}
