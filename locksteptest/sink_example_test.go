package locksteptest

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"sync"
	"testing"
	"time"

	"lockstep/sink"
)

// ledger is a destination in memory: it takes lines of JSON over TCP and answers each
// with ok, bad or busy.
type ledger struct {
	listener net.Listener
	running  sync.WaitGroup

	mu    sync.Mutex
	lines []line
	seen  map[string]bool
	busy  bool
	conns []net.Conn
}

// line is one message on the wire.
type line struct {
	Seq  uint64          `json:"seq"`
	Key  json.RawMessage `json:"key"`
	ID   string          `json:"id"`
	Bad  bool            `json:"bad"`
	Body json.RawMessage `json:"body"`
}

func newLedger(t testing.TB) *ledger {
	t.Helper()
	var config net.ListenConfig
	listener, err := config.Listen(context.WithoutCancel(t.Context()), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	d := &ledger{listener: listener, seen: map[string]bool{}}
	d.running.Go(d.serve)
	t.Cleanup(func() {
		listener.Close()
		d.mu.Lock()
		for _, c := range d.conns {
			c.Close()
		}
		d.mu.Unlock()
		d.running.Wait()
	})
	return d
}

func (d *ledger) serve() {
	for {
		c, err := d.listener.Accept()
		if err != nil {
			return
		}
		d.mu.Lock()
		d.conns = append(d.conns, c)
		d.mu.Unlock()
		d.running.Go(func() {
			defer c.Close()
			in := json.NewDecoder(c)
			for {
				var l line
				if in.Decode(&l) != nil {
					return
				}
				if _, err := fmt.Fprintln(c, d.take(l)); err != nil {
					return
				}
			}
		})
	}
}

func (d *ledger) take(l line) string {
	d.mu.Lock()
	defer d.mu.Unlock()
	switch {
	case d.busy:
		return "busy"
	case l.Bad:
		return "bad"
	case !d.seen[l.ID]:
		d.seen[l.ID] = true
		d.lines = append(d.lines, l)
	}
	return "ok"
}

func (d *ledger) arrived(testing.TB) []Arrival {
	d.mu.Lock()
	defer d.mu.Unlock()
	list := make([]Arrival, len(d.lines))
	for i, l := range d.lines {
		var key []string
		_ = json.Unmarshal(l.Key, &key)
		list[i] = Arrival{Seq: l.Seq, Body: l.Body}
		if len(key) == 1 {
			list[i].Key = key[0]
		}
	}
	return list
}

// target is the ledger with a sink that may be broken.
func (d *ledger) target(b fault) Target {
	return Target{
		New:     func(_ testing.TB, address string) sink.Sink { return &lineSink{address: address, broken: b} },
		Address: d.listener.Addr().String(),
		Arrived: d.arrived, Idempotent: true,
		Trouble: map[sink.Kind]func(testing.TB) func(){
			sink.Throttled: func(testing.TB) func() { d.setBusy(true); return func() { d.setBusy(false) } },
		},
		Poison:  func(m *sink.Message) { m.Database = "bad" },
		Secrets: []string{"hunter2"},
	}
}

func (d *ledger) setBusy(busy bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.busy = busy
}

// lineSink is the smallest sink that keeps the contract: a connection, one call at a
// time, one line and one answer for each message. Its faults are asked for by name.
type lineSink struct {
	address string
	broken  fault

	mu     sync.Mutex
	conn   net.Conn
	in     *bufio.Reader
	closed bool
	kept   []sink.Message
}

func (s *lineSink) Write(ctx context.Context, messages []sink.Message) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.broken != "" {
		if n, err, done := s.misbehave(ctx, messages); done {
			return n, err
		}
	}
	if s.closed {
		return 0, &sink.Error{Kind: sink.Retry, Message: "the sink is closed"}
	}
	failed := map[uint64]bool{}
	var partial sink.PartialError
	for i, m := range messages {
		var err error
		if failed[m.Key] {
			err = &sink.Error{Kind: sink.Retry, Message: "an earlier change of the key failed"}
		} else {
			err = s.send(ctx, m)
		}
		var refused *sink.Error
		if errors.As(err, &refused) && (refused.Kind == sink.Rejected || failed[m.Key]) {
			failed[m.Key] = true
			partial.Failed = append(partial.Failed, sink.Failure{Index: i, Err: err})
			continue
		}
		if err != nil && len(partial.Failed) == 0 {
			return i, err
		}
		if err != nil {
			for ; i < len(messages); i++ {
				partial.Failed = append(partial.Failed, sink.Failure{Index: i, Err: err})
			}
			break
		}
	}
	if len(partial.Failed) > 0 {
		return partial.Failed[0].Index, &partial
	}
	return len(messages), nil
}

func (s *lineSink) send(ctx context.Context, m sink.Message) error {
	if err := s.connect(ctx); err != nil {
		return s.lost("connect", err)
	}
	conn := s.conn
	stop := context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	l, err := json.Marshal(line{Seq: m.Seq, Key: m.PKs, ID: m.IdempotencyKey, Bad: m.Database == "bad", Body: m.Body})
	if err != nil {
		return err
	}
	if _, err := s.conn.Write(append(l, '\n')); err != nil {
		return s.lost("write", err)
	}
	answer, err := s.in.ReadString('\n')
	switch {
	case err != nil:
		return s.lost("read", err)
	case answer == "bad\n":
		return &sink.Error{Kind: sink.Rejected, Message: "the ledger rejects the change"}
	case answer == "busy\n":
		return &sink.Error{Kind: sink.Throttled, After: time.Millisecond, Message: "the ledger is busy"}
	}
	return nil
}

func (s *lineSink) connect(ctx context.Context) error {
	if s.conn != nil {
		return nil
	}
	var d net.Dialer
	conn, err := d.DialContext(ctx, "tcp", s.address)
	if err != nil {
		return err
	}
	s.conn, s.in = conn, bufio.NewReader(conn)
	return nil
}

func (s *lineSink) lost(what string, err error) error {
	if s.conn != nil {
		s.conn.Close()
		s.conn = nil
	}
	return &sink.Error{Kind: sink.Retry, Message: what + " to the ledger: " + err.Error(), Err: err}
}

func (s *lineSink) Close(context.Context) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.broken == closesOnce && s.closed {
		return errors.New("close of a closed sink")
	}
	s.closed = true
	if s.conn != nil {
		s.conn.Close()
		s.conn = nil
	}
	return nil
}

func TestASoundSinkPasses(t *testing.T) {
	t.Parallel()
	TestSink(t, newLedger(t).target(""))
}
