package filter

import (
	"bytes"
	"encoding/json"
	"errors"
	"strconv"
)

// The values of an evaluation are nil, bool, string, int, json.Number (every
// number that is no int64, with its text), object, array and []any, and []int
// from a range. object and array are JSON that is decoded when looked into, one
// level at a time; a []any was made by the expression.

// object is a JSON object. The struct around the pointer keeps expr, which
// follows pointers, from looking inside.
type object struct{ *doc }

type doc struct {
	raw     []byte // nil when the expression made it, or changed it
	members []member
	parsed  bool
}

type member struct {
	key     []byte
	raw     []byte // of the value; nil when the expression made it
	value   any
	decoded bool
}

// array is a JSON array.
type array struct{ *list }

type list struct {
	raw    []byte
	items  []any
	parsed bool
}

var errBadJSON = errors.New("the change holds a value that is not JSON")

// decode returns the value of raw: one JSON value without space around it, or
// nothing for nil.
func decode(raw []byte) any {
	if len(raw) == 0 {
		return nil
	}
	switch raw[0] {
	case '{':
		return object{&doc{raw: raw}}
	case '[':
		return array{&list{raw: raw}}
	case '"':
		return decodeString(raw)
	case 't':
		return true
	case 'f':
		return false
	case 'n':
		return nil
	}
	return decodeNumber(string(raw))
}

func decodeNumber(text string) any {
	// -0 is kept: an int has no sign of zero.
	if n, err := strconv.ParseInt(text, 10, 64); err == nil && text != "-0" {
		return int(n)
	}
	if _, ok := parseDecimal(text); !ok {
		return text
	}
	return json.Number(text)
}

func decodeString(raw []byte) string {
	inner := bytes.TrimSuffix(raw[1:], []byte{'"'})
	if bytes.IndexByte(inner, '\\') < 0 {
		return string(inner)
	}
	var s string
	if err := json.Unmarshal(raw, &s); err != nil {
		return string(inner)
	}
	return s
}

// parse finds the members of the object.
func (d *doc) parse() error {
	if d.parsed || d.raw == nil {
		return nil
	}
	d.members = make([]member, 0, 16)
	at := skipSpace(d.raw, 1)
	for at < len(d.raw) && d.raw[at] != '}' {
		keyEnd := skipString(d.raw, at)
		colon := skipSpace(d.raw, keyEnd)
		if keyEnd < 0 || colon >= len(d.raw) || d.raw[colon] != ':' {
			return errBadJSON
		}
		start := skipSpace(d.raw, colon+1)
		end := skipValue(d.raw, start)
		if end < 0 {
			return errBadJSON
		}
		key := d.raw[at+1 : keyEnd-1]
		if bytes.IndexByte(key, '\\') >= 0 {
			key = []byte(decodeString(d.raw[at:keyEnd]))
		}
		d.members = append(d.members, member{key: key, raw: d.raw[start:end]})
		at = skipComma(d.raw, end)
	}
	if at < 0 || at >= len(d.raw) {
		return errBadJSON
	}
	d.parsed = true
	return nil
}

// get returns the value of a key, nil when there is none. Of equal keys the last
// one counts, as in jsonb.
func (d *doc) get(key string) (any, error) {
	m, err := d.find(key)
	if m == nil || err != nil {
		return nil, err
	}
	return m.get(), nil
}

func (d *doc) find(key string) (*member, error) {
	if err := d.parse(); err != nil {
		return nil, err
	}
	for i := len(d.members) - 1; i >= 0; i-- {
		if m := &d.members[i]; string(m.key) == key {
			return m, nil
		}
	}
	return nil, nil
}

func (m *member) get() any {
	if !m.decoded {
		m.value, m.decoded = decode(m.raw), true
	}
	return m.value
}

// set gives an object that is being made a member.
func (d *doc) set(m member) {
	for i := range d.members {
		if bytes.Equal(d.members[i].key, m.key) {
			d.members[i] = m
			return
		}
	}
	d.members = append(d.members, m)
}

// all returns the elements of the array.
func (l *list) all() ([]any, error) {
	if l.parsed {
		return l.items, nil
	}
	at := skipSpace(l.raw, 1)
	for at < len(l.raw) && l.raw[at] != ']' {
		end := skipValue(l.raw, at)
		if end < 0 {
			return nil, errBadJSON
		}
		l.items = append(l.items, decode(l.raw[at:end]))
		at = skipComma(l.raw, end)
	}
	if at < 0 || at >= len(l.raw) {
		return nil, errBadJSON
	}
	l.parsed = true
	return l.items, nil
}

// The functions below move over JSON that is known to be well formed. On any
// other they return -1, or stop early; they never panic.

func skipSpace(s []byte, at int) int {
	if at < 0 {
		return len(s)
	}
	for at < len(s) && (s[at] == ' ' || s[at] == '\n' || s[at] == '\t' || s[at] == '\r') {
		at++
	}
	return at
}

// skipComma returns where the next element begins, or the closing bracket lies.
func skipComma(s []byte, at int) int {
	at = skipSpace(s, at)
	if at < len(s) && s[at] == ',' {
		return skipSpace(s, at+1)
	}
	return at
}

// skipString returns the index after the string that begins at s[at], or -1.
func skipString(s []byte, at int) int {
	if at >= len(s) || s[at] != '"' {
		return -1
	}
	for from := at + 1; ; {
		n := bytes.IndexByte(s[from:], '"')
		if n < 0 {
			return -1
		}
		quote := from + n
		slashes := 0
		for s[quote-1-slashes] == '\\' {
			slashes++
		}
		if slashes%2 == 0 {
			return quote + 1
		}
		from = quote + 1
	}
}

// skipValue returns the index after the value that begins at s[at], or -1.
func skipValue(s []byte, at int) int {
	if at >= len(s) {
		return -1
	}
	switch s[at] {
	case '"':
		return skipString(s, at)
	case '{', '[':
		return skipNested(s, at)
	}
	end := at
	for end < len(s) && bytes.IndexByte([]byte(" \n\t\r,]}"), s[end]) < 0 {
		end++
	}
	if end == at {
		return -1
	}
	return end
}

func skipNested(s []byte, at int) int {
	for depth := 0; at < len(s); {
		switch s[at] {
		case '"':
			if at = skipString(s, at); at < 0 {
				return -1
			}
			continue
		case '{', '[':
			depth++
		case '}', ']':
			if depth--; depth == 0 {
				return at + 1
			}
		}
		at++
	}
	return -1
}
