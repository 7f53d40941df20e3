package realtime

import (
	"context"
	"encoding/json"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"lockstep"
	"lockstep/internal/realtime/match"
)

// channel is a topic that a socket has joined, or is about to.
type channel struct {
	socket  *socket
	topic   string // as the client says it, with realtime:
	name    string // without
	joinRef json.RawMessage
	join    join
	cancel  context.CancelFunc // ends the join, or the replay behind it
	rate    *bucket            // of broadcasts
	calls   window             // of presence; used by the socket's reader

	mu      sync.Mutex // before the locks of the hub and the feed
	gone    bool       // guarded by mu: it was left, or is closed
	joined  bool       // guarded by mu: the client was told
	token   string     // guarded by mu: its own, or that of the socket
	expires time.Time  // guarded by mu
	member  *member    // guarded by mu; nil before it has joined

	feed *feed         // set when it is opened
	sub  *subscription // set when it is opened; nil: it has no bindings
	// heads are the beginnings of messages with changes, by their ids. They are used by
	// whoever sends changes: the replay, then the feed, never both.
	heads map[string]message
}

// shut ends everything that the channel gets, and takes it off its socket. It reports
// false when that was done before.
func (c *channel) shut() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.gone {
		return false
	}
	c.gone = true
	c.cancel()
	if c.feed != nil && c.sub != nil {
		c.feed.detach(c.sub)
	}
	if c.member != nil {
		c.socket.server.hub.leave(c.member)
	}
	c.socket.forget(c)
	return true
}

// fail tells the client why its channel ends, and ends it.
func (c *channel) fail(reason string) {
	if !c.shut() {
		return
	}
	c.push("system", appendSystemOf(nil, "system", "error", reason, c.name))
	c.close()
}

// close tells the client that the channel has ended.
func (c *channel) close() {
	s := c.socket
	s.send(message{head: s.wire.appendFrame(nil, c.joinRef, c.joinRef, c.topic, "phx_close", []byte("{}"))})
}

// push sends something that is no reply.
func (c *channel) push(event string, payload []byte) {
	s := c.socket
	s.send(message{head: s.wire.appendFrame(nil, nil, nil, c.topic, event, payload)})
}

// reply answers a message of the client. A message without a ref wants no answer.
func (c *channel) reply(ref json.RawMessage, status, response string) {
	c.socket.reply(c.joinRef, ref, c.topic, status, response)
}

// deliver sends a change to the bindings that it hits: one message, but one for each
// different choice of columns.
func (c *channel) deliver(change *change, hits []*binding) {
	slices.SortFunc(hits, func(a, b *binding) int { return a.order - b.order })
	for len(hits) > 0 {
		selected := hits[0].selected
		same := 1
		for i := 1; i < len(hits); i++ {
			if slices.Equal(hits[i].selected, selected) {
				hits[same], hits[i] = hits[i], hits[same]
				same++
			}
		}
		m := c.head(hits[:same])
		m.body = change.data(selected)
		c.socket.send(m)
		hits = hits[same:]
	}
}

// maxHeads bounds what is remembered for a channel: with many bindings there are more
// sets of them than are worth it.
const maxHeads = 64

// head returns the message around a change for these bindings.
func (c *channel) head(hits []*binding) message {
	var buf [64]byte
	ids := buf[:0]
	for i, b := range hits {
		if i > 0 {
			ids = append(ids, ',')
		}
		ids = strconv.AppendUint(ids, uint64(b.id), 10)
	}
	if m, ok := c.heads[string(ids)]; ok {
		return m
	}
	head, tail := c.socket.wire.appendHead(nil, nil, nil, c.topic, "postgres_changes")
	head = append(append(append(head, `{"ids":[`...), ids...), `],"data":`...)
	m := message{head: head, tail: append([]byte{'}'}, tail...)}
	if c.heads == nil || len(c.heads) >= maxHeads {
		c.heads = map[string]message{}
	}
	c.heads[string(ids)] = m
	return m
}

// tellLoss tells that changes before a seq are not there any more.
func (c *channel) tellLoss(lost string, first uint64) {
	payload := appendSystem(nil, "error", lost, c.name)
	payload = append(payload[:len(payload)-1], `,"first_sequence":`...)
	payload = strconv.AppendUint(payload, first, 10)
	c.push("system", append(payload, '}'))
}

// tellGap tells that capture may have missed changes of the tables that the channel is
// about.
func (c *channel) tellGap(r lockstep.Record) {
	if t := r.Table(); t.Consumer == "" && c.sub.selectsAny(nameOf(t)) {
		c.push("system", gapPayload(r, c.name))
	}
}

// replay sends what came from seq on, until it has caught up with the feed, which goes
// on from there.
func (c *channel) replay(ctx context.Context, from uint64) error {
	if c.attach(from) { //nolint:contextcheck // the feed outlives the channel that begins it
		return nil
	}
	own := newRouter()
	for _, b := range c.sub.bindings {
		own.add(b)
	}
	change := change{limit: c.socket.server.config.Limits.RecordBytes}
	reader := c.feed.log.Reader(from)
	defer func() { reader.Close() }()
	for {
		b, err := c.nextBatch(ctx, reader)
		if err != nil {
			next, lost := after(err)
			if lost == "" {
				return err
			}
			c.tellLoss(lost, next)
			reader.Close()
			from, reader = next, c.feed.log.Reader(next)
		} else {
			wanted := make([]bool, len(b.Tables()))
			for n := range wanted {
				wanted[n] = own.concerns(&b.Tables()[n])
			}
			known := shapesOf(ctx, c.feed.shapes, b, wanted)
			route(own, b, known, from, &change, func() { c.tellGap(change.record) })
			from = max(from, b.Mark.Seq+1)
		}
		if c.attach(from) { //nolint:contextcheck // as above
			return nil
		}
	}
}

// nextBatch reads one batch of a replay. It waits for its client first, and then for
// its turn: few replays read at a time, and none holds a turn while its client is slow.
func (c *channel) nextBatch(ctx context.Context, reader Reader) (*lockstep.Batch, error) {
	if err := c.socket.out.room(ctx); err != nil {
		return nil, err
	}
	turns := c.socket.server.replays
	select {
	case turns <- struct{}{}:
		defer func() { <-turns }()
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
	return reader.Next(ctx)
}

// attach lets the feed go on from seq. It reports false when the feed is further on.
func (c *channel) attach(from uint64) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.gone || c.feed.attach(c.sub, from)
}

// appendSystem appends the payload of a system message about changes.
func appendSystem(dst []byte, status, text, channel string) []byte {
	return appendSystemOf(dst, "postgres_changes", status, text, channel)
}

func appendSystemOf(dst []byte, extension, status, text, channel string) []byte {
	dst = lockstep.AppendJSONString(append(dst, `{"extension":`...), extension)
	dst = lockstep.AppendJSONString(append(dst, `,"status":`...), status)
	dst = lockstep.AppendJSONString(append(dst, `,"message":`...), text)
	dst = lockstep.AppendJSONString(append(dst, `,"channel":`...), channel)
	return append(dst, '}')
}

// metadataMember returns a member of a fragment of metadata such as `,"a":1,"b":{}`.
func metadataMember(fragment []byte, name string) []byte {
	text := strings.TrimPrefix(string(fragment), ",")
	var row match.Row
	row.Reset([]byte("{" + text + "}"))
	value, _ := row.Find(name)
	return value
}

// stringMember returns the text of a member of an object.
func stringMember(object []byte, name string) []byte {
	var row match.Row
	row.Reset(object)
	value, _ := row.Find(name)
	var text string
	if json.Unmarshal(value, &text) != nil {
		return nil
	}
	return []byte(text)
}
