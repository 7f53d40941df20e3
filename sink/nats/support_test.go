package nats

import (
	"encoding/json"
	"errors"
	"fmt"
	"hash/fnv"
	"net/url"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	natsgo "github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"go.uber.org/goleak"

	"lockstep"
	"lockstep/sink"
)

func TestMain(m *testing.M) {
	// The server's own writer of its state outlives its shutdown by moments.
	goleak.VerifyTestMain(m, goleak.IgnoreTopFunction("github.com/nats-io/nats-server/v2/server.(*fileStore).flushStreamStateLoop"))
}

// broker is a real NATS with JetStream that listens on a port.
type broker struct {
	*server.Server
	options *server.Options
	host    string // with the port
}

func newBroker(t testing.TB, change func(*server.Options)) *broker {
	t.Helper()
	b := &broker{options: &server.Options{Host: "127.0.0.1", Port: -1, JetStream: true, StoreDir: t.TempDir(), NoSigs: true, NoLog: true}}
	if change != nil {
		change(b.options)
	}
	b.start(t)
	t.Cleanup(b.stop)
	return b
}

func (b *broker) start(t testing.TB) {
	t.Helper()
	s, err := server.NewServer(b.options)
	if err != nil {
		t.Fatal(err)
	}
	b.Server = s
	b.Start()
	if !b.ReadyForConnections(20 * time.Second) {
		t.Fatal("NATS does not start")
	}
	at, err := url.Parse(b.ClientURL())
	if err != nil {
		t.Fatal(err)
	}
	b.host = at.Host
	b.options.Port, _ = strconv.Atoi(at.Port())
}

func (b *broker) stop() {
	b.Shutdown()
	b.WaitForShutdown()
}

// js is a client of one's own.
func (b *broker) js(t testing.TB, options ...natsgo.Option) jetstream.JetStream {
	t.Helper()
	nc, err := natsgo.Connect(b.host, options...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(nc.Close)
	js, err := jetstream.New(nc)
	if err != nil {
		t.Fatal(err)
	}
	return js
}

// stored reads a stream from its beginning.
func stored(t testing.TB, js jetstream.JetStream, stream string) []*jetstream.RawStreamMsg {
	t.Helper()
	s, err := js.Stream(t.Context(), stream)
	if errors.Is(err, jetstream.ErrStreamNotFound) {
		return nil
	}
	if err != nil {
		t.Fatal(err)
	}
	info, err := s.Info(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var list []*jetstream.RawStreamMsg
	for seq := info.State.FirstSeq; info.State.Msgs > 0 && seq <= info.State.LastSeq; seq++ {
		m, err := s.GetMsg(t.Context(), seq)
		if err != nil {
			t.Fatal(err)
		}
		list = append(list, m)
	}
	return list
}

func open(t testing.TB, c Config) *NATS {
	t.Helper()
	n, err := New(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := n.Close(t.Context()); err != nil && t.Context().Err() == nil {
			t.Error(err)
		}
	})
	return n
}

// change makes a message of public.orders.
func change(seq uint64, pk string) sink.Message {
	h := fnv.New64a()
	_, _ = h.Write([]byte(pk))
	m := sink.Message{
		Seq: seq, Key: h.Sum64(), Action: lockstep.Update, Database: "app", Schema: "public", Table: "orders",
		PKs: append(lockstep.AppendJSONString([]byte{'['}, pk), ']'), IdempotencyKey: fmt.Sprintf("sys-1-%d-0", seq),
		CommitTime: time.Date(2026, 11, 21, 10, 0, 0, 123456000, time.UTC), Attempt: 1,
	}
	m.Record = fmt.Appendf(nil, `{"id":%s}`, lockstep.AppendJSONString(nil, pk))
	m.Body = fmt.Appendf(nil, `{"record":%s,"action":"update","metadata":{"seq":%d,"record_pks":%s}}`, m.Record, seq, m.PKs)
	return m
}

func write(t testing.TB, n *NATS, messages ...sink.Message) {
	t.Helper()
	if done, err := n.Write(t.Context(), messages); err != nil || done != len(messages) {
		t.Fatalf("delivered %d of %d: %v", done, len(messages), err)
	}
}

// refused returns the error of a message that is not delivered.
func refused(t testing.TB, n *NATS, kind sink.Kind, m sink.Message) string {
	t.Helper()
	done, err := n.Write(t.Context(), []sink.Message{m})
	var e *sink.Error
	if done != 0 || !errors.As(err, &e) || e.Kind != kind {
		t.Fatalf("got %d and %v, want an error of kind %s", done, err, kind)
	}
	return err.Error()
}

func contains(t testing.TB, text, part string) {
	t.Helper()
	if !strings.Contains(text, part) {
		t.Errorf("got %q, want %q in it", text, part)
	}
}

// metadata is what tests look at in a body.
func metadata(t testing.TB, body []byte) (seq uint64, key string) {
	t.Helper()
	var m struct {
		Metadata struct {
			Seq uint64   `json:"seq"`
			PKs []string `json:"record_pks"`
		} `json:"metadata"`
	}
	if err := json.Unmarshal(body, &m); err != nil {
		t.Fatal(err)
	}
	if len(m.Metadata.PKs) == 1 {
		key = m.Metadata.PKs[0]
	}
	return m.Metadata.Seq, key
}
