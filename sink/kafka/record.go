package kafka

import (
	"bytes"
	"context"
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

// attributes is how many headers a record has at most.
const attributes = 9

// shelf is where the records of a call are made, in memory that they share: copies,
// since the client may hold them longer than the call takes. What neighbours have in
// common is made once.
type shelf struct {
	k       *Kafka
	records []kgo.Record
	headers []kgo.RecordHeader
	bytes   []byte

	at     place // of the last message
	topic  string
	limit  int // of the topic
	source []byte
	kind   []byte

	time time.Time // of the last message
	when []byte    // the same as text

	json, version []byte
}

// newShelf makes room for the records of messages.
func newShelf(k *Kafka, messages []sink.Message, list []int) *shelf {
	room := 0
	for _, i := range list {
		m := &messages[i]
		room += len(m.Body) + 2*len(m.PKs) + len(m.IdempotencyKey) + 80
	}
	return &shelf{
		k: k, records: make([]kgo.Record, 0, len(list)), headers: make([]kgo.RecordHeader, 0, attributes*len(list)), bytes: make([]byte, 0, room),
		json: []byte("application/json"), version: []byte("1.0"),
	}
}

// turn finds out what depends on the message's place, unless the last one had the same.
func (s *shelf) turn(ctx context.Context, m *sink.Message) error {
	at := place{m.Database, m.Schema, m.Table, m.Action, m.Provider, m.Collection}
	if s.limit > 0 && s.k.config.TopicFor == nil && at == s.at {
		return nil
	}
	s.limit = 0
	topic, err := s.k.topic(m)
	if err == nil {
		err = s.k.ready(ctx, topic)
	}
	if err != nil {
		return err
	}
	s.at, s.topic, s.limit = at, topic, s.k.limit(topic)
	s.source, s.kind = []byte("/databases/"+url.PathEscape(m.Database)), []byte(kindOf(m))
	return nil
}

// record makes the record of a message, for the topic of the last turn.
func (s *shelf) record(m *sink.Message) *kgo.Record {
	subject := s.subject(m.PKs)
	s.records = append(s.records, kgo.Record{Topic: s.topic, Key: s.key(m, subject), Timestamp: m.CommitTime, Headers: s.attributes(m, subject.text)})
	r := &s.records[len(s.records)-1] // there is room for all: none of them moves
	if !s.k.config.Tombstones || m.Action != lockstep.Delete {
		r.Value = s.put(m.Body)
	}
	return r
}

// put copies bytes to the shelf.
func (s *shelf) put(text []byte) []byte { return s.take(append(s.bytes, text...)) }

// take takes over what was appended to the shelf's bytes, and returns it.
func (s *shelf) take(longer []byte) []byte {
	from := len(s.bytes)
	s.bytes = longer
	return longer[from:len(longer):len(longer)]
}

// key returns the key of a message's record.
func (s *shelf) key(m *sink.Message, is subject) []byte {
	switch {
	case s.k.config.Key == KeyOrder || is.parts == 0:
		return s.take(strconv.AppendUint(s.bytes, m.Key, 10))
	case is.parts == 1:
		return is.text // nobody changes either
	}
	return s.put(m.PKs)
}

// subject is a row's key: its text, and of how many columns it is.
type subject struct {
	text  []byte
	parts int
}

// subject decodes a key. The text of several columns has each escaped as in a path, with
// slashes between.
func (s *shelf) subject(pks json.RawMessage) subject {
	if n := len(pks); n > 4 && bytes.HasPrefix(pks, []byte(`["`)) && bytes.HasSuffix(pks, []byte(`"]`)) && bytes.IndexByte(pks[2:n-2], '"') < 0 && bytes.IndexByte(pks, '\\') < 0 {
		return subject{s.put(pks[2 : n-2]), 1}
	}
	var list []string
	_ = json.Unmarshal(pks, &list) // what is no list has no parts
	if len(list) == 1 {
		return subject{s.take(append(s.bytes, list[0]...)), 1}
	}
	for i, p := range list {
		list[i] = url.PathEscape(p)
	}
	return subject{s.take(append(s.bytes, strings.Join(list, "/")...)), len(list)}
}

// kindOf is the CloudEvents type of a message.
func kindOf(m *sink.Message) string {
	kind := "lockstep."
	for _, part := range []string{m.Schema, m.Table} {
		if part != "" {
			kind += part + "." //nolint:modernize // two at most
		}
	}
	return kind + m.Action.String()
}

// attributes are those of CloudEvents 1.0 in binary mode, as headers.
func (s *shelf) attributes(m *sink.Message, subject []byte) []kgo.RecordHeader {
	from := len(s.headers)
	add := func(key string, value []byte) {
		s.headers = append(s.headers, kgo.RecordHeader{Key: key, Value: value})
	}
	add("content-type", s.json)
	add("ce_specversion", s.version)
	add("ce_id", s.take(append(s.bytes, m.IdempotencyKey...)))
	add("ce_source", s.source)
	add("ce_type", s.kind)
	add("ce_sequence", s.take(appendSequence(s.bytes, m.Seq)))
	add("ce_partitionkey", s.take(strconv.AppendUint(s.bytes, m.Key, 10)))
	if !m.CommitTime.IsZero() {
		if m.CommitTime != s.time {
			s.time, s.when = m.CommitTime, s.take(m.CommitTime.UTC().AppendFormat(s.bytes, time.RFC3339Nano))
		}
		add("ce_time", s.when)
	}
	if len(subject) > 0 {
		add("ce_subject", subject)
	}
	return s.headers[from:len(s.headers):len(s.headers)]
}

// appendSequence appends a seq with leading zeros, so that texts sort as numbers do.
func appendSequence(dst []byte, seq uint64) []byte {
	const zeros = "00000000000000000000"
	var digits [len(zeros)]byte
	text := strconv.AppendUint(digits[:0], seq, 10)
	return append(append(dst, zeros[len(text):]...), text...)
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
