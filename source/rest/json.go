package rest

import (
	"bytes"
	"encoding/json"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"
)

// Path is a dotted place in a JSON value; a number is an index of a list. Empty, or
// a dot alone: the value itself.
type Path []string

func parsePath(text string) Path {
	if text == "" || text == "." {
		return Path{} // given, unlike nil
	}
	return strings.Split(text, ".")
}

// String returns the path as it is written in a spec.
func (p Path) String() string { return strings.Join(p, ".") }

// in returns the value at the path of valid JSON; nil when it is not there.
func (p Path) in(data json.RawMessage) json.RawMessage {
	for _, step := range p {
		data = bytes.TrimLeft(data, " \t\r\n")
		switch {
		case len(data) == 0:
			return nil
		case data[0] == '{':
			data = member(data, step)
		case data[0] == '[':
			data = element(data, step)
		default:
			return nil
		}
	}
	return bytes.TrimSpace(data)
}

// text returns the value at the path as text: a string's content, else the JSON of a
// scalar; empty when there is none or null.
func (p Path) text(data json.RawMessage) string { return textOf(p.in(data)) }

func textOf(v json.RawMessage) string {
	if len(v) == 0 || v[0] == 'n' {
		return ""
	}
	if v[0] != '"' {
		return string(v)
	}
	if bytes.IndexByte(v, '\\') < 0 && utf8.Valid(v) {
		return string(v[1 : len(v)-1])
	}
	var s string
	if json.Unmarshal(v, &s) != nil {
		return ""
	}
	return s
}

// member returns the last value of a key in an object of valid JSON.
func member(data []byte, name string) (found json.RawMessage) {
	walk(data, func(key, v []byte) bool {
		if string(key) == name || bytes.IndexByte(key, '\\') >= 0 && textOf(append(append([]byte{'"'}, key...), '"')) == name {
			found = v
		}
		return true
	})
	return found
}

func element(data []byte, step string) (found json.RawMessage) {
	n, err := strconv.Atoi(step)
	if err != nil {
		return nil
	}
	i := 0
	walk(data, func(_, v []byte) bool {
		if i == n {
			found = v
		}
		i++
		return found == nil
	})
	return found
}

// walk calls yield with every key (as written, without quotes) and value of an object
// or list of valid JSON, until it returns false.
func walk(data []byte, yield func(key, v []byte) bool) {
	i := skipSpace(data, 0)
	if i >= len(data) || data[i] != '{' && data[i] != '[' {
		return
	}
	object := data[i] == '{'
	i = skipSpace(data, i+1)
	for i < len(data) && data[i] != '}' && data[i] != ']' {
		var key []byte
		if object {
			end := skipValue(data, i)
			if end-i < 2 {
				return
			}
			key = data[i+1 : end-1]
			i = skipSpace(data, end) + 1
			i = skipSpace(data, i)
		}
		end := skipValue(data, i)
		if end <= i || !yield(key, data[i:end]) {
			return
		}
		i = skipSpace(data, end)
		if i < len(data) && data[i] == ',' {
			i = skipSpace(data, i+1)
		}
	}
}

func skipSpace(data []byte, i int) int {
	for i < len(data) && (data[i] == ' ' || data[i] == '\n' || data[i] == '\t' || data[i] == '\r') {
		i++
	}
	return i
}

// skipValue returns the end of the value that begins at i.
func skipValue(data []byte, i int) int {
	depth := 0
	for i < len(data) {
		switch data[i] {
		case '"':
			i = skipString(data, i)
			if depth == 0 {
				return i
			}
			continue
		case '{', '[':
			depth++
		case '}', ']':
			if depth == 0 {
				return i
			}
			if depth--; depth == 0 {
				return i + 1
			}
		case ',', ':', ' ', '\n', '\t', '\r':
			if depth == 0 {
				return i
			}
		}
		i++
	}
	return i
}

func skipString(data []byte, i int) int {
	for i++; i < len(data); i++ {
		switch data[i] {
		case '\\':
			i++
		case '"':
			return i + 1
		}
	}
	return len(data)
}

// list returns the elements of the list at a path, in which * stands for every element
// of a list: the lists behind it become one.
func (p Path) list(data json.RawMessage) ([]json.RawMessage, bool) {
	star := slices.Index(p, "*")
	if star < 0 {
		return items(p.in(data))
	}
	outer, ok := items(p[:star].in(data))
	all := []json.RawMessage{}
	for _, one := range outer {
		inner, there := p[star+1:].list(one)
		if !there && string(p[star+1:].in(one)) != "null" && string(one) != "null" {
			return nil, false
		}
		all = append(all, inner...)
	}
	return all, ok
}

// items returns the elements of the list at a path. An object there is a list of one,
// for answers that are the record itself; false when there is neither.
func items(data json.RawMessage) ([]json.RawMessage, bool) {
	data = bytes.TrimSpace(data)
	if len(data) == 0 || data[0] != '[' && data[0] != '{' {
		return nil, false
	}
	if data[0] == '{' {
		return []json.RawMessage{data}, true
	}
	out := []json.RawMessage{}
	walk(data, func(_, v []byte) bool {
		out = append(out, slices.Clip(v))
		return true
	})
	return out, true
}

// replace returns data with the value at a path replaced; data itself when the path
// is not there.
func replace(data json.RawMessage, path Path, with json.RawMessage) json.RawMessage {
	old := path.in(data)
	if old == nil {
		return data
	}
	// old lies within data: Path.in only cuts slices.
	from := cap(data) - cap(old)
	out := make(json.RawMessage, 0, len(data)-len(old)+len(with))
	out = append(out, data[:from]...)
	out = append(out, with...)
	return append(out, data[from+len(old):]...)
}

// add returns an object with a member more, at its end.
func add(data json.RawMessage, name string, v json.RawMessage) json.RawMessage {
	end := bytes.LastIndexByte(data, '}')
	if end < 0 {
		return data
	}
	out := append(json.RawMessage{}, data[:end]...)
	if body := bytes.TrimSpace(data[:end]); len(body) > 1 {
		out = append(out, ',')
	}
	out = append(out, quote(name)...)
	out = append(out, ':')
	out = append(out, v...)
	return append(out, data[end:]...)
}

func quote(text string) json.RawMessage {
	b, err := json.Marshal(text)
	if err != nil {
		return json.RawMessage(`""`)
	}
	return b
}
