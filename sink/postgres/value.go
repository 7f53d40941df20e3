package postgres

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"errors"
)

// form says how a JSON value becomes the text of a type. It is the inverse of what
// capture does.
type form uint8

const (
	plain    form = iota // the text of a string, a number or true
	document             // json, jsonb: the JSON itself
	octets               // bytea: base64
	array                // nested arrays
	store                // hstore: an object
	vector               // of pgvector: an array that is its own text
)

// kind is a type.
type kind struct {
	form  form
	delim byte  // between an array's elements
	elem  *kind // of an array; itself one for a domain that is an array
}

var (
	errZero   = errors.New("it holds a zero byte, which Postgres' texts cannot")
	errBase64 = errors.New("it is not base64")
)

// append appends a JSON value, which is not null, as the type's text.
func (k kind) append(dst, value []byte) ([]byte, error) {
	begin := len(dst)
	dst, err := k.text(dst, value)
	if err == nil && bytes.IndexByte(dst[begin:], 0) >= 0 {
		err = errZero
	}
	return dst, err
}

func (k kind) text(dst, value []byte) ([]byte, error) {
	if k.form == document || value[0] != '"' {
		switch {
		case k.form == array && value[0] == '[':
			return k.array(dst, value)
		case k.form == store && value[0] == '{':
			return appendStore(dst, value)
		}
		return append(dst, value...), nil
	}
	text, err := unquote(value)
	if err != nil {
		return dst, err
	}
	if k.form == octets {
		return appendBinary(dst, text)
	}
	return append(dst, text...), nil
}

// appendBinary takes what is not base64 but bytea's own text as it is.
func appendBinary(dst, text []byte) ([]byte, error) {
	if bytes.HasPrefix(text, []byte(`\x`)) {
		return append(dst, text...), nil
	}
	raw, err := base64.StdEncoding.AppendDecode(nil, text)
	if err != nil {
		return dst, errBase64
	}
	return hex.AppendEncode(append(dst, `\x`...), raw), nil
}

// array appends {"a","b"}: every element in quotes, so that none can be taken for NULL
// or a bracket. An array within is a dimension, unless the elements are arrays themselves.
func (k kind) array(dst, value []byte) ([]byte, error) {
	dst = append(dst, '{')
	first := true
	err := items(value, func(v []byte) (err error) {
		if !first {
			dst = append(dst, k.delim)
		}
		first = false
		switch {
		case isNull(v):
			dst = append(dst, "NULL"...)
		case v[0] == '[' && k.elem.form != document && k.elem.form != vector && k.elem.form != array:
			dst, err = k.array(dst, v)
		default:
			var text []byte
			if text, err = k.elem.text(nil, v); err == nil {
				dst = appendQuoted(dst, text)
			}
		}
		return err
	})
	return append(dst, '}'), err
}

// appendStore appends "k"=>"v", "n"=>NULL.
func appendStore(dst, value []byte) ([]byte, error) {
	first := true
	err := members(value, func(name, v []byte) error {
		if !first {
			dst = append(dst, ',')
		}
		first = false
		key, err := unquote(name)
		if err != nil {
			return err
		}
		dst = append(appendQuoted(dst, key), "=>"...)
		if isNull(v) {
			dst = append(dst, "NULL"...)
			return nil
		}
		text, err := (kind{}).text(nil, v)
		dst = appendQuoted(dst, text)
		return err
	})
	return dst, err
}

func appendQuoted(dst, text []byte) []byte {
	dst = append(dst, '"')
	for _, c := range text {
		if c == '"' || c == '\\' {
			dst = append(dst, '\\')
		}
		dst = append(dst, c)
	}
	return append(dst, '"')
}
