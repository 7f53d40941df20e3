package kafka

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"lockstep"
	"lockstep/locksteptest"
	"lockstep/sink"
)

// TestConformance holds the sink to the contract, against kfake over TCP.
func TestConformance(t *testing.T) {
	t.Parallel()
	const password = "hunter2"
	c := newCluster(t, kfake.EnableSASL(), kfake.User("PLAIN", "u", password))
	all := reading(t, c, password)
	trouble := func(code *kerr.Error) func(testing.TB) func() {
		return func(testing.TB) func() {
			return c.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Produce}, Err: code, Count: -1}).Remove
		}
	}
	locksteptest.TestSink(t, locksteptest.Target{
		Address: c.ListenAddrs()[0],
		New: func(t testing.TB, address string) sink.Sink {
			k, err := New(t.Context(), Config{
				Brokers: []string{address}, Dial: via(address), Mechanism: "plain", User: "u", Password: password, Timeout: 2 * time.Second,
			})
			if err != nil {
				t.Fatal(err)
			}
			return k
		},
		Arrived: all,
		Secrets: []string{password},
		Poison:  func(m *sink.Message) { m.Body = append(m.Body, bytes.Repeat([]byte(" "), 2<<20)...) },
		Trouble: map[sink.Kind]func(testing.TB) func(){
			sink.Retry:    trouble(kerr.KafkaStorageError),
			sink.Rejected: trouble(kerr.MessageTooLarge),
			sink.Refused:  trouble(kerr.TopicAuthorizationFailed),
		},
	})
}

func reading(t *testing.T, c *kfake.Cluster, password string) func(testing.TB) []locksteptest.Arrival {
	k := &Kafka{config: Config{User: "u", Password: password}}
	mechanism, err := k.config.sasl()
	if err != nil {
		t.Fatal(err)
	}
	r := newReader(t, c, "app.public.conformance")
	r.client.Close()
	if r.client, err = kgo.NewClient(kgo.SeedBrokers(c.ListenAddrs()...), kgo.ConsumeTopics(r.topics...), kgo.FetchMaxWait(50*time.Millisecond), kgo.SASL(mechanism),
		kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()), kgo.MetadataMinAge(10*time.Millisecond), kgo.MetadataMaxAge(100*time.Millisecond)); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(r.client.Close)
	return func(t testing.TB) []locksteptest.Arrival {
		var list []locksteptest.Arrival
		for _, one := range r.all(t) {
			list = append(list, locksteptest.Arrival{Seq: seqOf(t, one), Body: one.Value})
		}
		return list
	}
}

func TestTopicsKeysAndHeaders(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	k := open(t, Config{Brokers: c.ListenAddrs(), Tombstones: true, Partitions: 3})
	odd := change(2, "")
	odd.Schema, odd.Table, odd.PKs = "a.b", "ö", json.RawMessage(`["x y","2"]`)
	whole := change(3, "")
	whole.Action, whole.PKs, whole.Record, whole.Key = lockstep.Truncate, json.RawMessage(`[]`), json.RawMessage(`null`), 77
	object := change(4, "1")
	object.Sync, object.Provider, object.Collection = "acme", "stripe", "stripe:customer"
	gone := change(5, "7")
	gone.Action = lockstep.Delete
	write(t, k, change(1, "7"), odd, whole, object)
	write(t, k, gone)
	got := map[string]string{}
	for _, r := range newReader(t, c, "app.public.orders", "app.a_2Eb._C3_B6", "app.stripe.customer").all(t) {
		name := r.Topic + " " + string(r.Key)
		got[name] += fmt.Sprint(len(r.Value) > 0)
		if strings.HasPrefix(r.Topic, "app.a") {
			for _, h := range r.Headers {
				got[h.Key] = string(h.Value)
			}
		}
	}
	delete(got, "ce_partitionkey")
	if d := cmp.Diff(map[string]string{
		"app.public.orders 7": "truefalse", "app.public.orders 77": "true", `app.a_2Eb._C3_B6 ["x y","2"]`: "true", "app.stripe.customer 1": "true",
		"content-type": "application/json", "ce_specversion": "1.0", "ce_id": "sys-1-2-0", "ce_source": "/databases/app", "ce_type": "lockstep.a.b.ö.update",
		"ce_subject": "x%20y/2", "ce_time": "2026-11-21T10:00:00.123456Z", "ce_sequence": "00000000000000000002",
	}, got); d != "" {
		t.Error(d)
	}
	if n := len(c.PartitionInfos("app.public.orders")); n != 3 {
		t.Errorf("the topic has %d partitions, want 3", n)
	}
}

func TestTheOrderKeyDecidesThePartition(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	k := open(t, Config{Brokers: c.ListenAddrs(), Key: KeyOrder})
	for i := range 20 {
		m := change(uint64(i+1), fmt.Sprint(i))
		m.Key = 4711
		write(t, k, m)
	}
	for _, r := range newReader(t, c, "app.public.orders").all(t) {
		if string(r.Key) != "4711" {
			t.Errorf("got the key %s, want that of the order", r.Key)
		}
	}
}

func TestEveryCompressionIsRead(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	for i, z := range []Compression{Gzip, None, Snappy, LZ4, Zstd} {
		write(t, open(t, Config{Brokers: c.ListenAddrs(), Compression: z}), change(uint64(i+1), "7"))
	}
	if list := newReader(t, c, "app.public.orders").all(t); len(list) != 5 {
		t.Errorf("%d arrived, want 5", len(list))
	}
}

// TestBrokersThatAreAway: the same changes are written again until the brokers are back,
// as the pump does, while others are written too.
func TestBrokersThatAreAway(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	proxy := locksteptest.NewProxy(t, c.ListenAddrs()[0])
	k := open(t, Config{Brokers: []string{proxy.Address()}, Dial: via(proxy.Address()), Timeout: 300 * time.Millisecond})
	seq := uint64(0)
	next := func(key string) (list []sink.Message) {
		for range 20 {
			seq++
			list = append(list, change(seq, key))
		}
		return list
	}
	write(t, k, next("a")...)
	proxy.Away()
	away, other := next("a"), next("b")
	deadline := time.Now().Add(1500 * time.Millisecond)
	for tries := 0; time.Now().Before(deadline) || tries < 3; tries++ {
		for _, list := range [][]sink.Message{away, other} {
			n, err := k.Write(t.Context(), list)
			var e *sink.Error
			if n != 0 || !errors.As(err, &e) || e.Kind != sink.Retry {
				t.Fatalf("got %d, %v", n, err)
			}
		}
	}
	proxy.Heal()
	for _, list := range [][]sink.Message{away, other, next("a")} {
		for len(list) > 0 {
			n, _ := k.Write(t.Context(), list)
			list = list[n:]
		}
	}
	inOrder(t, newReader(t, c, "app.public.orders").all(t), int(seq))
}

// inOrder: everything is there, and of each key no new one is behind a later one.
func inOrder(t *testing.T, list []*kgo.Record, want int) {
	t.Helper()
	highest, seen := map[string]uint64{}, map[uint64]bool{}
	for _, r := range list {
		seq := seqOf(t, r)
		if !seen[seq] && seq < highest[string(r.Key)] {
			t.Errorf("seq %d of key %s is behind %d", seq, r.Key, highest[string(r.Key)])
		}
		seen[seq] = true
		highest[string(r.Key)] = max(seq, highest[string(r.Key)])
	}
	if len(seen) != want {
		t.Errorf("%d changes arrived, want %d", len(seen), want)
	}
}

// TestALostAnswerIsNoSecondRecord: the producer is idempotent within its life.
func TestALostAnswerIsNoSecondRecord(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	proxy := locksteptest.NewProxy(t, c.ListenAddrs()[0])
	k := open(t, Config{Brokers: []string{proxy.Address()}, Dial: via(proxy.Address())})
	write(t, k, change(1, "7"))
	requests := c.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Produce}, Observe: true, Count: -1})
	proxy.Cut(locksteptest.Down, 0, locksteptest.Reset)
	write(t, k, change(2, "7"), change(3, "7"))
	if requests.Hits() < 2 {
		t.Fatal("nothing was sent again: the test tests nothing")
	}
	if list := newReader(t, c, "app.public.orders").all(t); len(list) != 3 {
		t.Errorf("%d records are stored, want 3", len(list))
	}
}

// TestACallIsOneBatchForEachPartition: its records leave together, however fast the
// first of them could go.
func TestACallIsOneBatchForEachPartition(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	k := open(t, Config{Brokers: c.ListenAddrs()})
	write(t, k, change(1, "0")) // the topic is known then
	requests := c.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Produce}, Observe: true, Count: -1})
	const calls, size = 20, 500
	for call := range calls {
		messages := make([]sink.Message, size)
		for i := range messages {
			messages[i] = change(uint64(call*size+i+2), fmt.Sprint(i))
		}
		write(t, k, messages...)
	}
	// A machine that stops for a moment may part a call.
	if n := requests.Hits(); n < calls || n > calls+calls/2 {
		t.Errorf("%d calls became %d requests", calls, n)
	}
	if list := newReader(t, c, "app.public.orders").all(t); len(list) != calls*size+1 {
		t.Errorf("%d records are stored, want %d", len(list), calls*size+1)
	}
}

func TestWhatIsRefused(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	if err := c.CreateTopic("app.public.small", 1, map[string]string{"max.message.bytes": "2000"}); err != nil {
		t.Fatal(err)
	}
	k := open(t, Config{Brokers: c.ListenAddrs()})
	large, behind := change(1, "7"), change(2, "7")
	large.Table, behind.Table = "small", "small"
	large.Body = append(large.Body, bytes.Repeat([]byte(" "), 2000)...)
	n, err := k.Write(t.Context(), []sink.Message{change(3, "8"), large, behind})
	var partial *sink.PartialError
	if n != 1 || !errors.As(err, &partial) || len(partial.Failed) != 2 {
		t.Fatalf("got %d, %v", n, err)
	}
	contains(t, partial.Failed[0].Err.Error(), "larger than the topic app.public.small takes (2000 bytes)")
	contains(t, partial.Failed[1].Err.Error(), "an earlier change of its key")
	contains(t, refused(t, open(t, Config{Brokers: c.ListenAddrs(), Create: Never, Topic: "nope"}), sink.Refused, change(4, "7")), "does not exist")
	contains(t, refused(t, open(t, Config{Brokers: c.ListenAddrs(), Topic: "a b"}), sink.Rejected, change(5, "7")), "no valid topic")
	byFunc := open(t, Config{Brokers: c.ListenAddrs(), TopicFor: func(m sink.Message) (string, error) {
		if m.Seq == 6 {
			return "", errors.New("secret")
		}
		return "chosen", nil
	}})
	if text := refused(t, byFunc, sink.Rejected, change(6, "7")); strings.Contains(text, "secret") {
		t.Error(text)
	}
	write(t, byFunc, change(7, "7"))
	guarded := newCluster(t, kfake.EnableSASL(), kfake.User("SCRAM-SHA-256", "u", "p"))
	write(t, open(t, Config{Brokers: guarded.ListenAddrs(), Mechanism: "SCRAM-SHA-256", User: "u", Password: "p"}), change(1, "7"))
	guarded = newCluster(t, kfake.EnableSASL(), kfake.User("PLAIN", "u", "p"))
	// kfake hangs up on a wrong password; Kafka says so.
	guarded.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.SASLAuthenticate}, Err: kerr.SaslAuthenticationFailed, TopLevel: true, Count: -1})
	intruder := open(t, Config{Brokers: guarded.ListenAddrs(), Mechanism: "plain", User: "u", Password: "wrong", Timeout: time.Second})
	contains(t, refused(t, intruder, sink.Refused, change(8, "7")), "do not let us in")
	nobody := open(t, Config{Brokers: []string{"127.0.0.1:1"}, Timeout: 300 * time.Millisecond})
	refused(t, nobody, sink.Retry, change(9, "7"))
}

func TestACallEndsWithItsContext(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	proxy := locksteptest.NewProxy(t, c.ListenAddrs()[0])
	k := open(t, Config{Brokers: []string{proxy.Address()}, Dial: via(proxy.Address())})
	write(t, k, change(1, "7"))
	proxy.Stall()
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	if _, err := k.Write(ctx, []sink.Message{change(2, "7")}); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v", err)
	}
	proxy.Heal()
	write(t, k, change(2, "7"), change(3, "7"))
	inOrder(t, newReader(t, c, "app.public.orders").all(t), 3)
}

func TestConfigurationsThatAreWrong(t *testing.T) {
	t.Parallel()
	ok := []string{"h:9092"}
	for want, c := range map[string]Config{
		"brokers: say where":        {},
		"expected host:port":        {Brokers: []string{"h"}},
		"key: \"x\"":                {Brokers: ok, Key: "x"},
		"create: \"x\"":             {Brokers: ok, Create: "x"},
		"must not be negative":      {Brokers: ok, Partitions: -1},
		"compression: \"x\"":        {Brokers: ok, Compression: "x"},
		"mechanism: \"x\"":          {Brokers: ok, Mechanism: "x", User: "u", Password: "hunter2"},
		"user and password: one ne": {Brokers: ok, User: "u"},
	} {
		_, err := New(t.Context(), c)
		if !errors.Is(err, lockstep.ErrInvalid) || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("got %v, want %q", err, want)
		}
	}
}
