package redis

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"hash/fnv"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/alicebob/miniredis/v2"
	goredis "github.com/redis/go-redis/v9"
	"go.uber.org/goleak"

	"lockstep"
	"lockstep/sink"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const password = "hunter2"

// server is a Redis for a test: the one that LOCKSTEP_REDIS names, host:port, of which a
// database is emptied; else the machine's redis-server, one for each test; else, and when
// LOCKSTEP_REDIS is fake, miniredis.
type server struct {
	address string
	user    string               // of its URL
	fake    *miniredis.Miniredis // nil: a real one
	own     bool                 // a real one of this test alone
	client  *goredis.Client
}

func newServer(t testing.TB, database int) *server {
	t.Helper()
	s := &server{address: os.Getenv("LOCKSTEP_REDIS")}
	options := &goredis.Options{DB: database, Protocol: 2}
	switch s.address {
	case "":
		s.address, s.own = startServer(t)
	case "fake":
		s.address = ""
	}
	if s.address == "" {
		s.fake = miniredis.RunT(t)
		s.fake.RequireAuth(password)
		s.address = s.fake.Addr()
	}
	if s.own || s.fake != nil {
		s.user, options.Password = ":"+password+"@", password
	}
	options.Addr = s.address
	s.client = goredis.NewClient(options)
	t.Cleanup(func() { _ = s.client.Close() })
	if err := s.client.FlushDB(t.Context()).Err(); err != nil {
		t.Fatal(err)
	}
	return s
}

// url is the server's, at an address.
func (s *server) url(address string) string {
	return fmt.Sprintf("redis://%s%s/%d", s.user, address, s.client.Options().DB)
}

func (s *server) open(t testing.TB, c Config) *Redis {
	t.Helper()
	c.URL = s.url(s.address)
	return open(t, c)
}

func open(t testing.TB, c Config) *Redis {
	t.Helper()
	r, err := New(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := r.Close(context.Background()); err != nil {
			t.Error(err)
		}
	})
	return r
}

// entries are the messages of a stream.
func (s *server) entries(t testing.TB, stream string) []json.RawMessage {
	t.Helper()
	got, err := s.client.XRange(t.Context(), stream, "-", "+").Result()
	if err != nil {
		t.Fatal(err)
	}
	list := make([]json.RawMessage, len(got))
	for i, e := range got {
		list[i] = json.RawMessage(e.Values["message"].(string))
	}
	return list
}

func (s *server) get(t testing.TB, key string) string {
	t.Helper()
	text, err := s.client.Get(t.Context(), key).Result()
	if err != nil && !errors.Is(err, goredis.Nil) {
		t.Fatal(err)
	}
	return text
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
	m.Record = fmt.Appendf(nil, `{"id":%s,"n":%d}`, lockstep.AppendJSONString(nil, pk), seq)
	m.Body = fmt.Appendf(nil, `{"record":%s,"action":"update","metadata":{"seq":%d,"record_pks":%s}}`, m.Record, seq, m.PKs)
	return m
}

func remove(seq uint64, pk string) sink.Message {
	m := change(seq, pk)
	m.Action = lockstep.Delete
	return m
}

func write(t testing.TB, r *Redis, messages ...sink.Message) {
	t.Helper()
	if done, err := r.Write(t.Context(), messages); err != nil || done != len(messages) {
		t.Fatalf("delivered %d of %d: %v", done, len(messages), err)
	}
}

// refused returns the error of a message that is not delivered.
func refused(t testing.TB, r *Redis, kind sink.Kind, m sink.Message) string {
	t.Helper()
	done, err := r.Write(t.Context(), []sink.Message{m})
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

func same(t testing.TB, got, want string) {
	t.Helper()
	if got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}
