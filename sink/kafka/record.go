package kafka

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"lockstep"
	"lockstep/sink"
)

const collectionTopic = "{database}.{provider}.{collection}"

// topic returns the topic of a message.
func (k *Kafka) topic(m *sink.Message) (string, error) {
	if k.config.TopicFor != nil {
		name, err := k.config.TopicFor(*m)
		if err != nil || name == "" || len(name) > 249 || strings.ContainsFunc(name, illegal) {
			return "", k.refusal(sink.Rejected, "the expression gives the change no topic", err)
		}
		return name, nil
	}
	template := or(k.config.Topic, DefaultTopic)
	if k.config.Topic == "" && m.Collection != "" && !m.Action.Whole() {
		template = collectionTopic
	}
	at := place{m.Database, m.Schema, m.Table, m.Action, m.Provider, m.Collection}
	k.mu.Lock()
	name, known := k.names[at]
	k.mu.Unlock()
	if !known {
		name = at.name(template)
		k.mu.Lock()
		if len(k.names) > 10_000 {
			clear(k.names)
		}
		k.names[at] = name
		k.mu.Unlock()
	}
	if len(name) > 249 || strings.ContainsFunc(name, illegal) {
		return "", k.refusal(sink.Rejected, "the change gives no valid topic", nil)
	}
	return name, nil
}

// place is what a topic depends on.
type place struct {
	database, schema, table string
	action                  lockstep.Action
	provider, collection    string
}

func (p place) name(template string) string {
	_, collection, found := strings.Cut(p.collection, ":")
	if !found {
		collection = p.collection
	}
	return strings.NewReplacer(
		"{database}", Word(p.database), "{schema}", Word(p.schema), "{table}", Word(p.table), "{action}", p.action.String(),
		"{provider}", Word(p.provider), "{collection}", Word(collection),
	).Replace(template)
}

func illegal(r rune) bool {
	return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && r != '.' && r != '_' && r != '-'
}

// Word makes a part of a topic's name of any name: bytes that Kafka does not allow, and
// dots, become _ and two hex digits; nothing at all becomes _.
func Word(name string) string {
	if name == "" {
		return "_"
	}
	var b strings.Builder
	for i := range len(name) {
		if c := name[i]; c == '.' || illegal(rune(c)) {
			fmt.Fprintf(&b, "_%02X", c)
		} else {
			b.WriteByte(c)
		}
	}
	return b.String()
}

// record makes the record of a message. Its bytes are copies: the client may hold them
// longer than the call takes.
func (k *Kafka) record(topic string, m *sink.Message) *kgo.Record {
	parts := partsOf(m.PKs)
	r := &kgo.Record{Topic: topic, Key: k.key(m, parts), Timestamp: m.CommitTime, Headers: headers(m, parts)}
	if !k.config.Tombstones || m.Action != lockstep.Delete {
		r.Value = append(make([]byte, 0, len(m.Body)), m.Body...)
	}
	return r
}

// key returns the key of a message.
func (k *Kafka) key(m *sink.Message, parts []string) []byte {
	switch {
	case k.config.Key == KeyOrder || len(parts) == 0:
		return strconv.AppendUint(nil, m.Key, 10)
	case len(parts) == 1:
		return []byte(parts[0])
	}
	return append([]byte(nil), m.PKs...)
}

// partsOf decodes a key.
func partsOf(pks json.RawMessage) []string {
	if n := len(pks); n > 4 && bytes.HasPrefix(pks, []byte(`["`)) && bytes.HasSuffix(pks, []byte(`"]`)) && bytes.IndexByte(pks[2:n-2], '"') < 0 && bytes.IndexByte(pks, '\\') < 0 {
		return []string{string(pks[2 : n-2])}
	}
	var list []string
	_ = json.Unmarshal(pks, &list) // what is no list has no parts
	return list
}

// headers are the attributes of CloudEvents 1.0 in binary mode.
func headers(m *sink.Message, parts []string) []kgo.RecordHeader {
	kind := "lockstep."
	for _, part := range []string{m.Schema, m.Table} {
		if part != "" {
			kind += part + "." //nolint:modernize // two at most
		}
	}
	list := []kgo.RecordHeader{
		{Key: "content-type", Value: []byte("application/json")},
		{Key: "ce_specversion", Value: []byte("1.0")},
		{Key: "ce_id", Value: []byte(m.IdempotencyKey)},
		{Key: "ce_source", Value: []byte("/databases/" + url.PathEscape(m.Database))},
		{Key: "ce_type", Value: []byte(kind + m.Action.String())},
		{Key: "ce_sequence", Value: fmt.Appendf(nil, "%020d", m.Seq)},
		{Key: "ce_partitionkey", Value: strconv.AppendUint(nil, m.Key, 10)},
	}
	if !m.CommitTime.IsZero() {
		list = append(list, kgo.RecordHeader{Key: "ce_time", Value: m.CommitTime.UTC().AppendFormat(nil, time.RFC3339Nano)})
	}
	if text := subject(parts); text != "" {
		list = append(list, kgo.RecordHeader{Key: "ce_subject", Value: []byte(text)})
	}
	return list
}

// subject is the key's text; of several columns, each escaped as in a path, with
// slashes between.
func subject(parts []string) string {
	if len(parts) == 1 {
		return parts[0]
	}
	list := make([]string, len(parts))
	for i, p := range parts {
		list[i] = url.PathEscape(p)
	}
	return strings.Join(list, "/")
}

// size is how many bytes a record takes at most, as the only one of a batch.
func size(r *kgo.Record) int {
	const head = 150 // of a batch and a record
	n := head + len(r.Key) + len(r.Value)
	for _, h := range r.Headers {
		n += len(h.Key) + len(h.Value) + 10
	}
	return n
}
