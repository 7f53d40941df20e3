package match

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"maps"
	"slices"

	"lockstep"
)

var errJSON = errors.New("not a JSON value")

// canonicalJSON writes a JSON value so that documents that are equal as jsonb have
// equal bytes.
func canonicalJSON(text []byte) ([]byte, error) {
	d := json.NewDecoder(bytes.NewReader(text))
	d.UseNumber()
	var v any
	if err := d.Decode(&v); err != nil {
		return nil, errJSON
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return nil, errJSON
	}
	return appendCanonical(nil, v)
}

func appendCanonical(dst []byte, v any) ([]byte, error) {
	var err error
	switch v := v.(type) {
	case nil:
		return append(dst, "null"...), nil
	case bool:
		if v {
			return append(dst, "true"...), nil
		}
		return append(dst, "false"...), nil
	case string:
		return lockstep.AppendJSONString(dst, v), nil
	case json.Number:
		d, err := parseDecimal(v.String())
		return d.appendKey(dst), err
	case []any:
		dst = append(dst, '[')
		for _, e := range v {
			if dst, err = appendCanonical(dst, e); err != nil {
				return nil, err
			}
			dst = append(dst, ',')
		}
		return append(dst, ']'), nil
	case map[string]any:
		dst = append(dst, '{')
		for _, name := range slices.Sorted(maps.Keys(v)) {
			dst = append(lockstep.AppendJSONString(dst, name), ':')
			if dst, err = appendCanonical(dst, v[name]); err != nil {
				return nil, err
			}
			dst = append(dst, ',')
		}
		return append(dst, '}'), nil
	}
	return nil, errJSON
}
