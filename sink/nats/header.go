package nats

import (
	"bytes"
	"encoding/json"
	"net/url"
	"strconv"
	"strings"
	"time"

	natsgo "github.com/nats-io/nats.go"

	"lockstep"
	"lockstep/sink"
)

// label makes the headers of one message after the other in the same memory: the library
// copies what it publishes before it returns.
type label struct {
	header natsgo.Header
	names  [most]string
	values [most]string
	text   []byte

	// Of the last message, and what neighbours have in common.
	database, schema, table string
	action                  lockstep.Action
}

// Places of the headers in a label. Those from inTime on may be missing.
const (
	inID = iota
	inStream
	inContent
	inVersion
	inEvent
	inSource
	inType
	inKey
	inSequence
	inTime
	inSubject
	most
)

// labels are what JetStream knows a message by, and the attributes of CloudEvents 1.0 in
// binary mode.
func labels() [most]string {
	return [...]string{
		inID: "Nats-Msg-Id", inStream: "Nats-Expected-Stream", inContent: "content-type", inVersion: "ce-specversion", inEvent: "ce-id", inSource: "ce-source",
		inType: "ce-type", inKey: "ce-partitionkey", inSequence: "ce-sequence", inTime: "ce-time", inSubject: "ce-subject",
	}
}

func newLabel() *label {
	l := &label{header: make(natsgo.Header, most), names: labels()}
	for i := range most {
		l.put(i, "")
	}
	l.values[inContent], l.values[inVersion] = "application/json", "1.0"
	return l
}

func (l *label) put(i int, value string) {
	l.values[i] = value
	l.header[l.names[i]] = l.values[i : i+1 : i+1]
}

// of returns the headers of a message, until it is called again.
func (l *label) of(stream string, m *sink.Message) natsgo.Header {
	if l.values[inSource] == "" || l.action != m.Action || l.table != m.Table || l.schema != m.Schema || l.database != m.Database {
		l.database, l.schema, l.table, l.action = m.Database, m.Schema, m.Table, m.Action
		l.values[inSource], l.values[inType] = "/databases/"+url.PathEscape(m.Database), escape(typeOf(m))
	}
	l.values[inID], l.values[inStream], l.values[inEvent] = m.IdempotencyKey, stream, escape(m.IdempotencyKey)
	l.text = strconv.AppendUint(l.text[:0], m.Key, 10)
	key := len(l.text)
	l.text = appendSequence(l.text, m.Seq)
	sequence := len(l.text)
	if !m.CommitTime.IsZero() {
		l.text = m.CommitTime.UTC().AppendFormat(l.text, time.RFC3339Nano)
	}
	text := string(l.text)
	l.values[inKey], l.values[inSequence] = text[:key], text[key:sequence]
	l.optional(inTime, text[sequence:])
	l.optional(inSubject, escape(keyText(m.PKs)))
	return l.header
}

// optional puts a value, or removes the header when it is empty.
func (l *label) optional(i int, value string) {
	switch {
	case value == "":
		delete(l.header, l.names[i])
	case l.values[i] == "":
		l.put(i, value)
	}
	l.values[i] = value
}

// appendSequence appends a seq with leading zeros, so that texts sort as numbers do.
func appendSequence(dst []byte, seq uint64) []byte {
	const zeros = "00000000000000000000"
	var digits [len(zeros)]byte
	text := strconv.AppendUint(digits[:0], seq, 10)
	return append(append(dst, zeros[len(text):]...), text...)
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
	if !strings.ContainsFunc(s, reserved) {
		return s
	}
	var b strings.Builder
	for i := range len(s) {
		c := s[i]
		if !reserved(rune(c)) {
			b.WriteByte(c)
			continue
		}
		b.Write([]byte{'%', hex[c>>4], hex[c&15]})
	}
	return b.String()
}

func reserved(c rune) bool { return c <= ' ' || c >= 0x7f || c == '"' || c == '%' }
