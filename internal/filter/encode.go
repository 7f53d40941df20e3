package filter

import (
	"encoding/json"
	"errors"
	"fmt"
	"strconv"

	"lockstep"
)

var (
	errResultSize  = errors.New("the result is too large: it may be 1 MB larger than the change")
	errResultDepth = errors.New("the result nests too deeply")
)

// encoder writes values as JSON, up to limit bytes.
type encoder struct {
	buf   []byte
	limit int
}

func (w *encoder) value(v any, depth int) error {
	if depth == 0 {
		return errResultDepth
	}
	switch v := v.(type) {
	case nil:
		w.buf = append(w.buf, "null"...)
	case bool:
		w.buf = strconv.AppendBool(w.buf, v)
	case string:
		w.buf = lockstep.AppendJSONString(w.buf, v)
	case int:
		w.buf = strconv.AppendInt(w.buf, int64(v), 10)
	case json.Number:
		w.buf = appendNumber(w.buf, v)
	case object:
		return w.object(v, depth)
	case array:
		w.buf = append(w.buf, v.raw...)
	case []any:
		return w.list(v, depth)
	case []int:
		return w.list(widen(v), depth)
	default:
		return fmt.Errorf("the result holds %s, which JSON has no form for", typeName(v))
	}
	return w.check()
}

func (w *encoder) object(o object, depth int) error {
	if o.raw != nil {
		w.buf = append(w.buf, o.raw...)
		return w.check()
	}
	w.buf = append(w.buf, '{')
	for i := range o.members {
		if i > 0 {
			w.buf = append(w.buf, ',')
		}
		m := &o.members[i]
		w.buf = lockstep.AppendJSONString(w.buf, m.key)
		w.buf = append(w.buf, ':')
		if m.raw != nil {
			w.buf = append(w.buf, m.raw...)
		} else if err := w.value(m.value, depth-1); err != nil {
			return err
		}
		if err := w.check(); err != nil {
			return err
		}
	}
	w.buf = append(w.buf, '}')
	return w.check()
}

func (w *encoder) list(items []any, depth int) error {
	w.buf = append(w.buf, '[')
	for i, v := range items {
		if i > 0 {
			w.buf = append(w.buf, ',')
		}
		if err := w.value(v, depth-1); err != nil {
			return err
		}
	}
	w.buf = append(w.buf, ']')
	return w.check()
}

func (w *encoder) check() error {
	if len(w.buf) > w.limit {
		return errResultSize
	}
	return nil
}

// appendNumber writes a number's own text; NaN and the infinities as messages
// write them.
func appendNumber(dst []byte, n json.Number) []byte {
	if c := n[len(n)-1]; c < '0' || c > '9' {
		return lockstep.AppendJSONString(dst, n)
	}
	return append(dst, n...)
}

func widen(ints []int) []any {
	items := make([]any, len(ints))
	for i, n := range ints {
		items[i] = n
	}
	return items
}

// typeName says what a value is, for errors and for type(x).
func typeName(v any) string {
	switch v.(type) {
	case nil:
		return "null"
	case bool:
		return "bool"
	case string:
		return "string"
	case int, json.Number:
		return "number"
	case object:
		return "object"
	case array, []any, []int:
		return "array"
	}
	return "something"
}
