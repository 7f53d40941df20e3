package sandbox

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strconv"
)

// Decode reads an object that Encode or a Template wrote; whole numbers come as int64.
// It is encoding/json for text that is known to be well formed, several times as fast:
// most of what a simulated write costs is reading the record. Other text panics.
func Decode(text []byte) map[string]any {
	d := decoder{text: text}
	v, ok := d.value().(map[string]any)
	if !ok || d.at != len(text) {
		panic(fmt.Sprintf("sandbox: decode: no object that Encode wrote (at %d of %d)", d.at, len(text)))
	}
	return v
}

type decoder struct {
	text []byte
	at   int
}

func (d *decoder) value() any {
	switch c := d.text[d.at]; c {
	case '{':
		return d.object()
	case '[':
		return d.list()
	case '"':
		return d.string()
	case 't':
		d.at += len("true")
		return true
	case 'f':
		d.at += len("false")
		return false
	case 'n':
		d.at += len("null")
		return nil
	}
	return d.number()
}

func (d *decoder) object() map[string]any {
	v := map[string]any{}
	for d.at++; d.text[d.at] != '}'; {
		key := d.string()
		d.at++ // :
		v[key] = d.value()
		if d.text[d.at] == ',' {
			d.at++
		}
	}
	d.at++
	return v
}

func (d *decoder) list() []any {
	v := []any{}
	for d.at++; d.text[d.at] != ']'; {
		v = append(v, d.value())
		if d.text[d.at] == ',' {
			d.at++
		}
	}
	d.at++
	return v
}

func (d *decoder) string() string {
	begin := d.at + 1
	for i := begin; ; i++ {
		switch d.text[i] {
		case '"':
			d.at = i + 1
			return string(d.text[begin:i])
		case '\\':
			return d.escaped(begin - 1)
		}
	}
}

// escaped reads a string with escapes, which are few.
func (d *decoder) escaped(begin int) (s string) {
	for i := begin + 1; ; i++ {
		switch d.text[i] {
		case '\\':
			i++
		case '"':
			d.at = i + 1
			if err := json.Unmarshal(d.text[begin:d.at], &s); err != nil {
				panic(fmt.Sprintf("sandbox: decode: %v", err))
			}
			return s
		}
	}
}

func (d *decoder) number() any {
	end := d.at + max(bytes.IndexAny(d.text[d.at:], ",]}"), 0)
	text := string(d.text[d.at:end])
	d.at = end
	if n, err := strconv.ParseInt(text, 10, 64); err == nil {
		return n
	}
	f, err := strconv.ParseFloat(text, 64)
	if err != nil {
		panic(fmt.Sprintf("sandbox: decode the number %q: %v", text, err))
	}
	return f
}
