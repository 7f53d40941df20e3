package nats

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/url"
	"strconv"
	"strings"
	"time"

	natsgo "github.com/nats-io/nats.go"

	"lockstep/sink"
)

// headers are the attributes of CloudEvents 1.0 in binary mode, and what JetStream
// knows a message by.
func headers(stream string, m *sink.Message) natsgo.Header {
	const most = 11
	h, values := make(natsgo.Header, most), make([]string, 0, most)
	add := func(name, value string) {
		values = append(values, value)
		h[name] = values[len(values)-1 : len(values) : len(values)]
	}
	add("Nats-Msg-Id", m.IdempotencyKey)
	add("Nats-Expected-Stream", stream)
	add("content-type", "application/json")
	add("ce-specversion", "1.0")
	add("ce-id", escape(m.IdempotencyKey))
	add("ce-source", "/databases/"+url.PathEscape(m.Database))
	add("ce-type", escape(typeOf(m)))
	add("ce-partitionkey", strconv.FormatUint(m.Key, 10))
	add("ce-sequence", fmt.Sprintf("%020d", m.Seq))
	if !m.CommitTime.IsZero() {
		add("ce-time", m.CommitTime.UTC().Format(time.RFC3339Nano))
	}
	if s := keyText(m.PKs); s != "" {
		add("ce-subject", escape(s))
	}
	return h
}

func typeOf(m *sink.Message) string {
	parts := []string{"lockstep"}
	for _, p := range []string{m.Schema, m.Table} {
		if p != "" {
			parts = append(parts, p)
		}
	}
	return strings.Join(append(parts, m.Action.String()), ".")
}

// keyText is the key's text; of several columns, each escaped as in a path, with
// slashes between.
func keyText(pks json.RawMessage) string {
	if n := len(pks); n > 4 && bytes.HasPrefix(pks, []byte(`["`)) && bytes.HasSuffix(pks, []byte(`"]`)) && bytes.IndexByte(pks[2:n-2], '"') < 0 && bytes.IndexByte(pks, '\\') < 0 {
		return string(pks[2 : n-2])
	}
	var list []string
	if json.Unmarshal(pks, &list) != nil {
		return ""
	}
	if len(list) == 1 {
		return list[0]
	}
	for i, p := range list {
		list[i] = url.PathEscape(p)
	}
	return strings.Join(list, "/")
}

// escape encodes an attribute as in headers of HTTP: space, quote, percent and all that
// is not printable ASCII.
func escape(s string) string {
	const hex = "0123456789ABCDEF"
	var b strings.Builder
	for i := range len(s) {
		c := s[i]
		if c > ' ' && c < 0x7f && c != '"' && c != '%' {
			b.WriteByte(c)
			continue
		}
		b.Write([]byte{'%', hex[c>>4], hex[c&15]})
	}
	return b.String()
}
