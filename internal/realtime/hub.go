package realtime

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"lockstep"
	"lockstep/internal/realtime/match"
)

// hub brings together the channels of one topic: for broadcasts and presence.
type hub struct {
	prefix string        // of presence refs: they differ after a restart
	count  atomic.Uint64 // of presence refs

	mu     sync.Mutex // before the locks of topics
	topics map[topicKey]*topic
}

// topicKey tells topics apart: those of other databases, and private ones, are others.
type topicKey struct {
	database, name string
	private        bool
}

type topic struct {
	key   topicKey
	users int // guarded by the hub's mu: members, and those about to be

	mu      sync.Mutex // before the locks of outboxes
	members map[*member]struct{}
}

// member is a channel in its topic.
type member struct {
	channel *channel
	topic   *topic
	key     string // of presence

	// Guarded by the topic's mu.
	watches bool   // wants presence
	ref     string // of its presence; empty: it has none
	meta    []byte // of its presence: members of an object, each led by a comma
	place   uint64 // when it was first tracked, so that lists keep their order
}

func newHub(prefix string) *hub {
	return &hub{prefix: prefix, topics: map[topicKey]*topic{}}
}

// enter makes the channel a member of its topic, and shows it who is present.
func (h *hub) enter(c *channel) *member {
	key := topicKey{c.socket.database, c.name, c.join.private}
	h.mu.Lock()
	t := h.topics[key]
	if t == nil {
		t = &topic{key: key, members: map[*member]struct{}{}}
		h.topics[key] = t
	}
	t.users++
	h.mu.Unlock()
	m := &member{channel: c, topic: t, key: c.join.key, watches: c.join.presence}
	if m.key == "" {
		m.key = h.newRef()
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.members[m] = struct{}{}
	if m.watches {
		c.push("presence_state", t.state())
	}
	return m
}

// leave ends the membership, and tells the others.
func (h *hub) leave(m *member) {
	t := m.topic
	t.mu.Lock()
	delete(t.members, m)
	t.untrack(m)
	t.mu.Unlock()
	h.mu.Lock()
	defer h.mu.Unlock()
	t.users--
	if t.users == 0 {
		delete(h.topics, t.key)
	}
}

func (h *hub) newRef() string { return fmt.Sprintf("%s%d", h.prefix, h.count.Add(1)) }

// envelope is a broadcast, made once for each way in which it is sent.
type envelope struct {
	push *push           // nil: it came as text
	text json.RawMessage // the payload then
	made [wire2 + 1]*message
}

// message returns the broadcast for a version of the protocol; false when that cannot
// say it.
func (e *envelope) message(w wire, topic string) (message, bool) {
	if m := e.made[w]; m != nil {
		return *m, len(m.head) > 0
	}
	m := &message{}
	if e.push != nil {
		m.head, m.binary, _ = w.appendBroadcast(nil, topic, e.push)
	} else {
		m.head = w.appendFrame(nil, nil, nil, topic, "broadcast", e.text)
	}
	e.made[w] = m
	return *m, len(m.head) > 0
}

// send hands a broadcast to the members of a topic; not to its sender unless it wants
// that.
func (t *topic) send(e *envelope, from *member) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for m := range t.members {
		if m == from && !m.channel.join.self {
			continue
		}
		s := m.channel.socket
		if message, ok := e.message(s.wire, m.channel.topic); ok {
			s.send(message)
		}
	}
}

// publish sends a broadcast that comes from outside, if anybody listens.
func (h *hub) publish(key topicKey, e *envelope) {
	h.mu.Lock()
	t := h.topics[key]
	h.mu.Unlock()
	if t != nil {
		t.send(e, nil)
	}
}

// track makes the member present, or changes what is told of it: meta comes from
// metaOf.
func (h *hub) track(m *member, meta []byte) {
	t := m.topic
	t.mu.Lock()
	defer t.mu.Unlock()
	if _, ok := t.members[m]; !ok {
		return // it has left meanwhile
	}
	before := m.appendMeta(nil)
	old := m.ref
	if old == "" {
		m.place = h.count.Add(1)
	}
	m.ref = h.newRef()
	m.meta = meta
	if old != "" {
		m.meta = append([]byte(`,"phx_ref_prev":`+string(lockstep.AppendJSONString(nil, old))), meta...)
	}
	if !m.watches {
		// Being tracked is a wish to see the others; it has seen none so far.
		m.watches = true
		m.channel.push("presence_state", t.state())
	}
	t.diff(entryOf(m.key, m.appendMeta(nil)), entryOf(m.key, before))
	m.meta = meta
}

// untrack ends the presence of a member.
func (h *hub) untrack(m *member) {
	m.topic.mu.Lock()
	defer m.topic.mu.Unlock()
	m.topic.untrack(m)
}

// untrack ends the presence of a member. The caller holds the topic's mu.
func (t *topic) untrack(m *member) {
	if m.ref == "" {
		return
	}
	left := entryOf(m.key, m.appendMeta(nil))
	m.ref, m.meta = "", nil
	t.diff("", left)
}

// metaOf returns the members of an object, each led by a comma, without those that the
// protocol has for itself.
func metaOf(payload json.RawMessage, most int) ([]byte, error) {
	if len(payload) > most {
		return nil, errPresenceSize
	}
	if len(payload) == 0 || string(payload) == "null" {
		return nil, nil
	}
	var row match.Row
	if !row.Reset(payload) {
		return nil, errPresenceShape
	}
	var dst []byte
	for _, v := range row.Members() {
		if name := string(v.Name); name == "phx_ref" || name == "phx_ref_prev" {
			continue
		}
		dst = lockstep.AppendJSONString(append(dst, ','), v.Name)
		dst = append(append(dst, ':'), v.Value...)
	}
	return dst, nil
}

// appendMeta appends the member's presence as an object; nothing when it has none.
func (m *member) appendMeta(dst []byte) []byte {
	if m.ref == "" {
		return dst
	}
	dst = lockstep.AppendJSONString(append(dst, `{"phx_ref":`...), m.ref)
	return append(append(dst, m.meta...), '}')
}

// entryOf returns a member of joins or leaves; nothing when there is no meta.
func entryOf(key string, meta []byte) string {
	if len(meta) == 0 {
		return ""
	}
	return string(lockstep.AppendJSONString(nil, key)) + `:{"metas":[` + string(meta) + `]}`
}

// diff tells those who watch who came and who left. The caller holds the topic's mu.
func (t *topic) diff(joins, leaves string) {
	payload := []byte(`{"joins":{` + joins + `},"leaves":{` + leaves + `}}`)
	var made [wire2 + 1][]byte
	for m := range t.members {
		if !m.watches {
			continue
		}
		s := m.channel.socket
		if made[s.wire] == nil {
			made[s.wire] = s.wire.appendFrame(nil, nil, nil, m.channel.topic, "presence_diff", payload)
		}
		s.send(message{head: made[s.wire]})
	}
}

// state returns who is present, by key. The caller holds the topic's mu.
func (t *topic) state() []byte {
	var present []*member
	for m := range t.members {
		if m.ref != "" {
			present = append(present, m)
		}
	}
	slices.SortFunc(present, func(a, b *member) int {
		if n := strings.Compare(a.key, b.key); n != 0 {
			return n
		}
		return int(a.place) - int(b.place)
	})
	dst := []byte{'{'}
	for i, m := range present {
		same := i > 0 && present[i-1].key == m.key
		switch {
		case same:
			dst = append(dst[:len(dst)-2], ',')
		case i > 0:
			dst = append(dst, ',')
		}
		if !same {
			dst = append(lockstep.AppendJSONString(dst, m.key), `:{"metas":[`...)
		}
		dst = append(m.appendMeta(dst), "]}"...)
	}
	return append(dst, '}')
}
