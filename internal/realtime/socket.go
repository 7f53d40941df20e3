package realtime

import (
	"context"
	"encoding/json"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/coder/websocket"

	"lockstep/internal/obs"
)

// socket is one client's connection. One goroutine reads it, one writes it; joins run
// beside them.
type socket struct {
	server   *Server
	conn     *websocket.Conn
	wire     wire
	database string
	token    string // that it came with
	since    json.RawMessage
	remote   string
	out      *outbox
	frames   *bucket
	quiet    chan struct{} // closed when nothing is written any more

	heard   atomic.Int64 // unix nanoseconds: when the last message came
	writing atomic.Int64 // unix nanoseconds: when the write under way began; 0: none

	mu       sync.Mutex
	channels map[string]*channel // guarded by mu, by topic
	ending   bool                // guarded by mu
	finished bool                // guarded by mu: no further goroutine starts
	work     sync.WaitGroup      // joins, replays and the end; Add under mu
}

// run serves the client until it goes, or ctx ends.
func (s *socket) run(ctx context.Context) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var writer sync.WaitGroup
	writer.Go(func() {
		defer close(s.quiet)
		if err := s.write(ctx); err != nil {
			cancel()
		}
	})
	s.read(ctx)
	for _, c := range s.list() {
		c.shut()
	}
	s.mu.Lock()
	s.finished = true
	s.mu.Unlock()
	s.work.Wait()
	cancel()
	s.out.end()
	_ = s.conn.CloseNow() // a close that was answered has been done
	writer.Wait()
}

// start runs something that ends with the socket. It reports false when that has ended.
func (s *socket) start(f func()) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.finished {
		return false
	}
	s.work.Go(f)
	return true
}

// end closes the socket, with a code and why, and returns at once. The first one counts.
func (s *socket) end(code websocket.StatusCode, reason string) {
	s.mu.Lock()
	conn, first := s.conn, !s.ending
	s.ending = true
	s.mu.Unlock()
	s.out.end()
	if !first || conn == nil {
		return
	}
	s.start(func() {
		// A client that begins to read again is told; until then its last message is in the way.
		timer := time.NewTimer(s.server.config.Limits.WriteWait)
		defer timer.Stop()
		select {
		case <-s.quiet:
			_ = conn.Close(code, reason) // a client that is gone has closed, too
		case <-timer.C:
			_ = conn.CloseNow() // as above
		}
	})
}

// send puts a message into the outbox. A client that takes too little is given up.
func (s *socket) send(m message) {
	if s.out.push(m) {
		return
	}
	s.server.config.Logger.Warn("a client takes its messages too slowly: its connection is closed", obs.KeyAddress, s.remote, obs.KeyDatabase, s.database)
	s.end(websocket.StatusTryAgainLater, "too slow: too many messages wait; connect again, with since to miss nothing")
}

func (s *socket) reply(joinRef, ref json.RawMessage, topic, status, response string) {
	if len(ref) == 0 || string(ref) == "null" {
		return
	}
	payload := []byte(`{"status":"` + status + `","response":` + response + `}`)
	s.send(message{head: s.wire.appendFrame(nil, joinRef, ref, topic, "phx_reply", payload)})
}

// write hands messages to the network, in order. It returns nothing when the socket
// ends in another way: then the end may still have something to send.
func (s *socket) write(ctx context.Context) error {
	var batch []message
	var buf []byte
	for {
		select {
		case <-s.out.ready:
		case <-ctx.Done():
			return nil
		}
		if cap(batch) > 1024 {
			batch = nil // a burst must not stay in memory for a session's life
		}
		var more bool
		if batch, more = s.out.take(batch[:0]); !more {
			return nil
		}
		for i, m := range batch {
			kind := websocket.MessageText
			if m.binary {
				kind = websocket.MessageBinary
			}
			buf = append(append(append(buf[:0], m.head...), m.body...), m.tail...)
			s.writing.Store(time.Now().UnixNano())
			err := s.conn.Write(ctx, kind, buf)
			s.writing.Store(0)
			if err != nil {
				return err
			}
			if !s.out.written(m) {
				return nil
			}
			batch[i] = message{}
			if cap(buf) > 64<<10 {
				buf = nil
			}
		}
	}
}

// read handles messages until there are no more.
func (s *socket) read(ctx context.Context) {
	for {
		kind, data, err := s.conn.Read(ctx)
		if err != nil {
			return
		}
		now := time.Now()
		s.heard.Store(now.UnixNano())
		if !s.frames.take(now, 1) {
			s.end(websocket.StatusPolicyViolation, "too many messages a second")
			return
		}
		var f frame
		if kind == websocket.MessageBinary {
			f, err = s.wire.decodeBinary(data)
		} else {
			f, err = s.wire.decodeText(data)
		}
		if err != nil {
			reason := err.Error()
			s.end(websocket.StatusInvalidFramePayloadData, reason[:min(len(reason), 120)])
			return
		}
		s.handle(ctx, f)
	}
}

func (s *socket) handle(ctx context.Context, f frame) {
	switch {
	case f.topic == "phoenix":
		if f.event == "heartbeat" {
			s.reply(f.joinRef, f.ref, f.topic, "ok", "{}")
		}
		return
	case f.event == "phx_join":
		s.joinTopic(ctx, f)
		return
	}
	c := s.find(f.topic)
	switch {
	case c == nil && f.event == "phx_leave":
		s.reply(f.joinRef, f.ref, f.topic, "ok", "{}")
	case c == nil:
		s.reply(f.joinRef, f.ref, f.topic, "error", reasonOf("unmatched topic"))
	case len(f.joinRef) > 0 && string(f.joinRef) != "null" && !sameRef(f.joinRef, c.joinRef):
		// It is meant for the channel that was there before a rejoin.
	case f.event == "phx_leave":
		c.shut()
		c.reply(f.ref, "ok", "{}")
		c.close()
	case f.event == "access_token":
		c.refresh(ctx, f.payload)
	case f.event == "broadcast":
		c.broadcast(f)
	case f.event == "presence":
		c.presence(f)
	}
}

// joinTopic begins a join. A channel of the same topic is left before.
func (s *socket) joinTopic(ctx context.Context, f frame) {
	name, ok := strings.CutPrefix(f.topic, "realtime:")
	switch {
	case !ok:
		s.reply(f.ref, f.ref, f.topic, "error", reasonOf("unmatched topic"))
		return
	case name == "":
		s.reply(f.ref, f.ref, f.topic, "error", reasonOf("TopicNameRequired: You must provide a topic name"))
		return
	}
	if old := s.find(f.topic); old != nil && old.shut() {
		old.close()
	}
	if len(f.joinRef) == 0 {
		f.joinRef = f.ref
	}
	j, err := parseJoin(f.payload)
	if err == nil && s.count() >= s.server.config.Limits.Channels {
		err = errTooManyChannels
	}
	if err != nil {
		s.reply(f.joinRef, f.ref, f.topic, "error", reasonOf(err.Error()))
		return
	}
	limits := s.server.config.Limits
	ctx, cancel := context.WithCancel(ctx)
	c := &channel{
		socket: s, topic: f.topic, name: name, joinRef: f.joinRef, join: j, cancel: cancel,
		rate: newBucket(limits.Messages), calls: window{most: limits.PresenceCalls, wide: limits.PresenceWindow},
	}
	s.mu.Lock()
	s.channels[f.topic] = c
	s.mu.Unlock()
	s.start(func() { c.open(ctx, f.ref) })
}

// broadcast sends on what the client says.
func (c *channel) broadcast(f frame) {
	m := c.entered()
	if m == nil {
		return
	}
	if !c.rate.take(time.Now(), 1) {
		c.fail("Too many messages per second")
		return
	}
	e := &envelope{push: f.push, text: f.payload}
	if f.push == nil && len(f.payload) == 0 {
		e.text = json.RawMessage("{}")
	}
	m.topic.send(e, m)
	if c.join.ack {
		c.reply(f.ref, "ok", "{}")
	}
}

// presence tracks or untracks the client.
func (c *channel) presence(f frame) {
	m := c.entered()
	if m == nil {
		return
	}
	if !c.calls.take(time.Now()) {
		c.fail("Client presence rate limit exceeded")
		return
	}
	var p struct {
		Event   string          `json:"event"`
		Payload json.RawMessage `json:"payload"`
	}
	_ = json.Unmarshal(f.payload, &p) // what it is not has no event
	switch strings.ToLower(p.Event) {
	case "track":
		meta, err := metaOf(p.Payload, c.socket.server.config.Limits.PresenceBytes)
		if err != nil {
			c.reply(f.ref, "error", reasonOf(err.Error()))
			return
		}
		// The answer comes before what it causes.
		c.reply(f.ref, "ok", "{}")
		c.socket.server.hub.track(m, meta)
	case "untrack":
		c.reply(f.ref, "ok", "{}")
		c.socket.server.hub.untrack(m)
	default:
		c.reply(f.ref, "error", reasonOf("UnknownPresenceEvent: use track or untrack"))
	}
}

// entered returns the channel's membership; nil when it has not joined yet, or left.
func (c *channel) entered() *member {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.gone {
		return nil
	}
	return c.member
}

func (s *socket) find(topic string) *channel {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.channels[topic]
}

func (s *socket) count() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.channels)
}

func (s *socket) list() []*channel {
	s.mu.Lock()
	defer s.mu.Unlock()
	list := make([]*channel, 0, len(s.channels))
	for _, c := range s.channels {
		list = append(list, c)
	}
	return list
}

// forget takes the channel off the socket.
func (s *socket) forget(c *channel) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.channels[c.topic] == c {
		delete(s.channels, c.topic)
	}
}
