package value

import (
	"errors"
	"fmt"
)

// Field is one field of a composite value.
type Field struct {
	Text []byte // the field's Postgres text, without quotes; empty when Null
	Null bool   // the field is NULL
}

var errNotComposite = errors.New("not the text of a composite value")

// AppendFields splits the text of a composite value, such as (a,"b ""c",), into
// its fields and appends them to dst. The text is rewritten in place, and the
// fields are slices of it: they are valid as long as text is not written to.
// Nothing is allocated when dst has room.
//
// A row without columns reads as () like a row of one NULL: it gives one field.
func AppendFields(dst []Field, text []byte) ([]Field, error) {
	if len(text) < 2 || text[0] != '(' {
		return dst, fmt.Errorf("no opening parenthesis: %w", errNotComposite)
	}
	for at := 1; ; at++ {
		field, end, err := cutField(text, at)
		if err != nil {
			return dst, err
		}
		dst = append(dst, field)
		at = end
		if text[at] == ',' {
			continue
		}
		if at != len(text)-1 {
			return dst, fmt.Errorf("%d bytes after the closing parenthesis: %w", len(text)-1-at, errNotComposite)
		}
		return dst, nil
	}
}

// cutField reads the field at text[at] and returns the index of the comma or the
// parenthesis that ends it.
func cutField(text []byte, at int) (Field, int, error) {
	if at < len(text) && (text[at] == ',' || text[at] == ')') {
		return Field{Null: true}, at, nil
	}
	start, out, quoted := at, at, false
	for ; at < len(text); at++ {
		c := text[at]
		switch {
		case !quoted && (c == ',' || c == ')'):
			return Field{Text: text[start:out:out]}, at, nil
		case c == '\\' || quoted && c == '"' && at+1 < len(text) && text[at+1] == '"':
			if at++; at == len(text) {
				return Field{}, 0, fmt.Errorf("ends in a backslash: %w", errNotComposite)
			}
			text[out] = text[at]
			out++
		case c == '"':
			quoted = !quoted
		default:
			text[out] = c
			out++
		}
	}
	return Field{}, 0, fmt.Errorf("a field is cut off: %w", errNotComposite)
}
