package nats

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/nats-io/nats-server/v2/server"
	natsgo "github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"lockstep"
	"lockstep/locksteptest"
	"lockstep/sink"
)

// TestConformance holds the sink to the contract, against a real server over TCP.
func TestConformance(t *testing.T) {
	t.Parallel()
	const password = "hunter2"
	b := newBroker(t, func(o *server.Options) { o.Username, o.Password, o.MaxPayload = "u", password, 2<<20 })
	js := b.js(t, natsgo.UserInfo("u", password))
	change := func(t testing.TB, f func(*jetstream.StreamConfig)) {
		s, err := js.Stream(t.Context(), "lockstep-app")
		if err != nil {
			t.Fatal(err)
		}
		c := s.CachedInfo().Config
		f(&c)
		if _, err := js.UpdateStream(t.Context(), c); err != nil {
			t.Fatal(err)
		}
	}
	locksteptest.TestSink(t, locksteptest.Target{
		Address: b.host,
		New: func(t testing.TB, address string) sink.Sink {
			n, err := New(t.Context(), Config{URL: "nats://u:" + password + "@" + address})
			if err != nil {
				t.Fatal(err)
			}
			return n
		},
		Arrived: func(t testing.TB) []locksteptest.Arrival {
			var list []locksteptest.Arrival
			for _, m := range stored(t, js, "lockstep-app") {
				seq, key := metadata(t, m.Data)
				list = append(list, locksteptest.Arrival{Seq: seq, Key: key, Body: m.Data})
			}
			return list
		},
		Idempotent: true,
		Secrets:    []string{password},
		Poison:     func(m *sink.Message) { m.Body = append(m.Body, bytes.Repeat([]byte(" "), 2<<20)...) },
		Trouble: map[sink.Kind]func(testing.TB) func(){
			sink.Retry: func(t testing.TB) func() { // full
				change(t, func(c *jetstream.StreamConfig) { c.Discard, c.MaxMsgs = jetstream.DiscardNew, 1 })
				return func() {
					change(t, func(c *jetstream.StreamConfig) { c.Discard, c.MaxMsgs = jetstream.DiscardOld, -1 })
				}
			},
			sink.Rejected: func(t testing.TB) func() {
				change(t, func(c *jetstream.StreamConfig) { c.MaxMsgSize = 10 })
				return func() { change(t, func(c *jetstream.StreamConfig) { c.MaxMsgSize = -1 }) }
			},
			sink.Refused: func(t testing.TB) func() {
				change(t, func(c *jetstream.StreamConfig) { c.Sealed = false; c.Subjects = []string{"elsewhere"} })
				if _, err := js.CreateStream(t.Context(), jetstream.StreamConfig{Name: "other", Subjects: []string{"lockstep.app.>"}}); err != nil {
					t.Fatal(err)
				}
				return func() {
					if err := js.DeleteStream(t.Context(), "other"); err != nil {
						t.Fatal(err)
					}
					change(t, func(c *jetstream.StreamConfig) { c.Subjects = []string{"lockstep.app.>"} })
				}
			},
		},
	})
}

func TestSubjectsAndHeaders(t *testing.T) {
	t.Parallel()
	b := newBroker(t, nil)
	n := open(t, Config{URL: b.host})
	odd := change(2, `Grüße "x"`)
	odd.Schema, odd.Table, odd.Action = "a.b", "wild*", lockstep.Delete
	whole := change(3, "")
	whole.Action, whole.PKs, whole.Record = lockstep.Truncate, []byte(`[]`), []byte(`null`)
	object := change(4, "1")
	object.Sync, object.Provider, object.Collection = "acme", "stripe", "stripe:customer"
	gone := object
	gone.Seq, gone.Action, gone.IdempotencyKey = 5, lockstep.Delete, "sys-1-5-0"
	write(t, n, change(1, "7"), odd, whole, object, gone)
	var subjects []string
	messages := stored(t, b.js(t), "lockstep-app")
	for _, m := range messages {
		subjects = append(subjects, m.Subject)
	}
	want := []string{
		"lockstep.app.public.orders.update", "lockstep.app.a=2Eb.wild=2A.delete", "lockstep.app.public.orders.truncate",
	}
	slices.Sort(subjects) // they have different keys
	slices.Sort(want)
	if d := cmp.Diff(want, subjects); d != "" {
		t.Error(d)
	}
	var mirrored []string
	for _, m := range stored(t, b.js(t), "lockstep-acme") {
		mirrored = append(mirrored, m.Subject)
	}
	if d := cmp.Diff([]string{"lockstep.acme.stripe.customer.upserted", "lockstep.acme.stripe.customer.deleted"}, mirrored); d != "" {
		t.Error("of a mirrored collection: " + d)
	}
	i := slices.IndexFunc(messages, func(m *jetstream.RawStreamMsg) bool { return m.Sequence > 0 && m.Header.Get("ce-id") == "sys-1-2-0" })
	got := map[string]string{}
	for name := range messages[i].Header {
		got[name] = messages[i].Header.Get(name)
	}
	for _, name := range []string{"ce-partitionkey", "Nats-Sequence", "Nats-Stream", "Nats-Subject", "Nats-Time-Stamp"} {
		delete(got, name) // a hash, and what a direct get adds
	}
	if d := cmp.Diff(map[string]string{
		"Nats-Msg-Id": "sys-1-2-0", "Nats-Expected-Stream": "lockstep-app", "content-type": "application/json", "ce-specversion": "1.0", "ce-id": "sys-1-2-0",
		"ce-source": "/databases/app", "ce-type": "lockstep.a.b.wild*.delete", "ce-sequence": "00000000000000000002",
		"ce-subject": "Gr%C3%BC%C3%9Fe%20%22x%22", "ce-time": "2026-11-21T10:00:00.123456Z",
	}, got); d != "" {
		t.Error(d)
	}
}

// TestAnyClientCanConsume is what the contract promises to the nats CLI: a pull
// consumer with a filter.
func TestAnyClientCanConsume(t *testing.T) {
	t.Parallel()
	b := newBroker(t, nil)
	n := open(t, Config{URL: b.host, Name: "acme-stripe"})
	other := change(2, "8")
	other.Table = "customers"
	write(t, n, change(1, "7"), other)
	c, err := b.js(t).CreateConsumer(t.Context(), "lockstep-acme-stripe", jetstream.ConsumerConfig{FilterSubject: "lockstep.acme-stripe.public.customers.*"})
	if err != nil {
		t.Fatal(err)
	}
	batch, err := c.Fetch(1)
	if err != nil {
		t.Fatal(err)
	}
	for m := range batch.Messages() {
		if seq, _ := metadata(t, m.Data()); seq != 2 {
			t.Errorf("got seq %d, want 2", seq)
		}
	}
}

func TestStreamsOfOthers(t *testing.T) {
	t.Parallel()
	b := newBroker(t, nil)
	js := b.js(t)
	if _, err := js.CreateStream(t.Context(), jetstream.StreamConfig{Name: "mine", Subjects: []string{"mine.>"}, MaxMsgs: 7}); err != nil {
		t.Fatal(err)
	}
	n := open(t, Config{URL: b.host, Stream: "mine", Subject: "mine.{table}"})
	write(t, n, change(1, "7"))
	s, err := js.Stream(t.Context(), "mine")
	if err != nil || s.CachedInfo().Config.MaxMsgs != 7 {
		t.Errorf("got %v, want the stream as it was", err)
	}
	contains(t, refused(t, open(t, Config{URL: b.host, Subject: "mine.{table}"}), sink.Refused, change(2, "7")), "another stream has its subjects")
	contains(t, refused(t, open(t, Config{URL: b.host, Stream: "never", Create: Never}), sink.Retry, change(3, "7")), "no stream takes the subject")
	byFunc := open(t, Config{URL: b.host, Stream: "hooked", Subjects: []string{"hooked.>"}, SubjectFor: func(m sink.Message) (string, error) {
		if m.Seq == 5 {
			return "", errors.New("secret")
		}
		return "hooked." + m.Table, nil
	}})
	write(t, byFunc, change(4, "7"))
	if text := refused(t, byFunc, sink.Rejected, change(5, "7")); strings.Contains(text, "secret") {
		t.Error(text)
	}
	// A stream that is deleted under the sink comes back.
	if err := js.DeleteStream(t.Context(), "mine"); err != nil {
		t.Fatal(err)
	}
	refused(t, n, sink.Retry, change(6, "7"))
	write(t, n, change(6, "7"))
}

// TestNothingOvertakes: what the server refuses is not overtaken by a later change of
// its key, and holds no other.
func TestNothingOvertakes(t *testing.T) {
	t.Parallel()
	b := newBroker(t, nil)
	js := b.js(t)
	if _, err := js.CreateStream(t.Context(), jetstream.StreamConfig{Name: "lockstep-app", Subjects: []string{"lockstep.app.>"}, MaxMsgSize: 1000}); err != nil {
		t.Fatal(err)
	}
	large := change(2, "a")
	large.Body = append(large.Body, bytes.Repeat([]byte(" "), 1000)...)
	n, err := open(t, Config{URL: b.host}).Write(t.Context(), []sink.Message{change(1, "a"), large, change(3, "a"), change(4, "b"), change(5, "a")})
	var partial *sink.PartialError
	if n != 1 || !errors.As(err, &partial) || len(partial.Failed) != 3 {
		t.Fatalf("got %d, %v", n, err)
	}
	contains(t, partial.Failed[0].Err.Error(), "larger than the stream takes")
	contains(t, partial.Failed[1].Err.Error(), "an earlier change of its key")
	if list := stored(t, js, "lockstep-app"); len(list) != 2 {
		t.Errorf("%d messages are stored, want the first of each key", len(list))
	}
}

func TestAServerThatIsAway(t *testing.T) {
	t.Parallel()
	b := newBroker(t, nil)
	n := open(t, Config{URL: b.host, AckTimeout: time.Second})
	var messages []sink.Message
	for i := range 300 {
		messages = append(messages, change(uint64(i+1), fmt.Sprint(i%3)))
	}
	write(t, n, messages[:150]...)
	b.stop()
	contains(t, refused(t, n, sink.Retry, messages[150]), "connection")
	b.start(t)
	write(t, n, messages[100:]...) // some of it again
	last := map[string]uint64{}
	list := stored(t, b.js(t), "lockstep-app")
	for _, m := range list {
		seq, key := metadata(t, m.Data)
		if seq <= last[key] {
			t.Fatalf("seq %d of key %s came after %d", seq, key, last[key])
		}
		last[key] = seq
	}
	if len(list) != len(messages) {
		t.Errorf("%d are stored, want %d", len(list), len(messages))
	}
}

func TestWhoMayNot(t *testing.T) {
	t.Parallel()
	b := newBroker(t, func(o *server.Options) {
		o.Users = []*server.User{
			{Username: "admin", Password: "p"},
			{Username: "reader", Password: "p", Permissions: &server.Permissions{Publish: &server.SubjectPermission{Allow: []string{"$JS.API.>", "_INBOX.>"}}}},
		}
	})
	write(t, open(t, Config{URL: b.host, User: "admin", Password: "p"}), change(1, "7"))
	contains(t, refused(t, open(t, Config{URL: b.host, User: "reader", Password: "p"}), sink.Refused, change(2, "7")), "permissions")
	text := refused(t, open(t, Config{URL: "nats://admin:wrong@" + b.host}), sink.Refused, change(2, "7"))
	contains(t, text, "does not let us in")
	if strings.Contains(text, "wrong") {
		t.Error(text)
	}
	contains(t, refused(t, open(t, Config{URL: b.host, Credentials: "/nowhere.creds"}), sink.Refused, change(2, "7")), "credentials")
}

func TestAnEmbeddedServer(t *testing.T) {
	t.Parallel()
	b := newBroker(t, func(o *server.Options) { o.DontListen = true })
	n := open(t, Config{Server: b})
	write(t, n, change(1, "7"), change(2, "7"))
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := n.Write(ctx, []sink.Message{change(3, "7")}); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
}

func TestConfigurationsThatAreWrong(t *testing.T) {
	t.Parallel()
	for want, c := range map[string]Config{
		"url: say where":         {},
		"url: cannot be read":    {URL: "nats://user:hunter2@"},
		"create: \"x\"":          {URL: "h", Create: "x"},
		"storage: \"x\"":         {URL: "h", Storage: "x"},
		"must not be negative":   {URL: "h", Window: -1},
		"without spaces and wil": {URL: "h", Subject: "a.*"},
		"one needs the other":    {URL: "h", User: "u"},
		"subjects: name those":   {URL: "h", SubjectFor: func(sink.Message) (string, error) { return "", nil }},
	} {
		_, err := New(t.Context(), c)
		if !errors.Is(err, lockstep.ErrInvalid) || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("got %v, want %q", err, want)
		}
	}
}
