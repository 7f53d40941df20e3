package sandbox

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"unicode/utf8"
)

// WriteJSON answers with v as JSON.
func WriteJSON(w http.ResponseWriter, status int, v any) {
	WriteBody(w, status, "application/json", Encode(v))
}

// WriteBody answers with a body in one piece.
func WriteBody(w http.ResponseWriter, status int, contentType string, body []byte) {
	w.Header().Set("Content-Type", contentType)
	w.Header().Set("Content-Length", strconv.Itoa(len(body)))
	w.WriteHeader(status)
	_, _ = w.Write(body)
}

// Encode returns v as JSON, keys of objects in order, <, > and & as they are. v must
// consist of what JSON has; anything else is a fault of the program and panics.
func Encode(v any) []byte { return appendValue(nil, v) }

// appendValue knows the values that records are made of, since they are most of what a
// simulator writes; the rest is for encoding/json.
func appendValue(dst []byte, v any) []byte {
	switch v := v.(type) {
	case nil:
		return append(dst, "null"...)
	case string:
		return AppendString(dst, v)
	case bool:
		return strconv.AppendBool(dst, v)
	case int64:
		return strconv.AppendInt(dst, v, 10)
	case map[string]any:
		return appendObject(dst, v)
	case []any:
		dst = append(dst, '[')
		for i, element := range v {
			if i > 0 {
				dst = append(dst, ',')
			}
			dst = appendValue(dst, element)
		}
		return append(dst, ']')
	}
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil {
		panic(fmt.Sprintf("sandbox: encode %T: %v", v, err))
	}
	return append(dst, bytes.TrimRight(b.Bytes(), "\n")...)
}

func appendObject(dst []byte, v map[string]any) []byte {
	keys := make([]string, 0, 64)
	for key := range v {
		keys = append(keys, key)
	}
	slices.Sort(keys)
	dst = append(dst, '{')
	for i, key := range keys {
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = append(AppendString(dst, key), ':')
		dst = appendValue(dst, v[key])
	}
	return append(dst, '}')
}

// Clone returns a deep copy of what Decode returned.
func Clone(v any) any {
	switch v := v.(type) {
	case map[string]any:
		c := make(map[string]any, len(v))
		for key, element := range v {
			c[key] = Clone(element)
		}
		return c
	case []any:
		c := make([]any, len(v))
		for i, element := range v {
			c[i] = Clone(element)
		}
		return c
	}
	return v
}

// AppendString appends s as a JSON string.
func AppendString(dst []byte, s string) []byte {
	for i := range len(s) {
		if c := s[i]; c < ' ' || c == '"' || c == '\\' || c >= 0x80 && !utf8.ValidString(s) {
			var b bytes.Buffer
			e := json.NewEncoder(&b)
			e.SetEscapeHTML(false)
			_ = e.Encode(s) // of a string it cannot fail
			return append(dst, bytes.TrimRight(b.Bytes(), "\n")...)
		}
	}
	dst = append(dst, '"')
	dst = append(dst, s...)
	return append(dst, '"')
}

// Template writes records that differ only in some values: a document in which
// strings of the form "{{name}}" stand for those. It is what lets a world of millions
// of records be listed as fast as they can be sent.
type Template struct {
	pieces [][]byte // len(slots)+1
	slots  []string
}

// NewTemplate makes a template of a document, as Encode writes it.
func NewTemplate(document any) *Template {
	t := &Template{}
	rest := Encode(document)
	for {
		before, after, found := bytes.Cut(rest, []byte(`"{{`))
		if !found {
			break
		}
		name, behind, _ := bytes.Cut(after, []byte(`}}"`))
		t.pieces, t.slots = append(t.pieces, before), append(t.slots, string(name))
		rest = behind
	}
	t.pieces = append(t.pieces, rest)
	return t
}

// Append appends a record; value appends the JSON of a slot.
func (t *Template) Append(dst []byte, value func(dst []byte, slot string) []byte) []byte {
	for i, slot := range t.slots {
		dst = append(dst, t.pieces[i]...)
		dst = value(dst, slot)
	}
	return append(dst, t.pieces[len(t.slots)]...)
}
