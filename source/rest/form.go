package rest

import (
	"bytes"
	"encoding/json"
	"net/url"
	"strconv"
	"strings"
)

// formOf writes an object as a form with brackets: a[b]=1&c[0]=x. null clears: it is
// written as nothing.
func formOf(data json.RawMessage) string {
	var b strings.Builder
	walk(data, func(key, v []byte) bool {
		formValue(&b, url.QueryEscape(textOf(append(append([]byte{'"'}, key...), '"'))), v)
		return true
	})
	return b.String()
}

func formValue(b *strings.Builder, name string, v []byte) {
	v = bytes.TrimSpace(v)
	switch v[0] {
	case '{':
		walk(v, func(key, inner []byte) bool {
			formValue(b, name+"["+url.QueryEscape(textOf(append(append([]byte{'"'}, key...), '"')))+"]", inner)
			return true
		})
	case '[':
		i := 0
		walk(v, func(_, inner []byte) bool {
			formValue(b, name+"["+strconv.Itoa(i)+"]", inner)
			i++
			return true
		})
	default:
		if b.Len() > 0 {
			b.WriteByte('&')
		}
		b.WriteString(name + "=" + url.QueryEscape(textOf(v)))
	}
}
