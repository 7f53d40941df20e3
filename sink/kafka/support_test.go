package kafka

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"hash/fnv"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"go.uber.org/goleak"

	"lockstep"
	"lockstep/sink"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// newCluster is one broker of kfake, which speaks the real protocol over TCP.
func newCluster(t testing.TB, options ...kfake.Opt) *kfake.Cluster {
	t.Helper()
	c, err := kfake.NewCluster(append([]kfake.Opt{kfake.NumBrokers(1), kfake.DefaultNumPartitions(4)}, options...)...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

// via dials an address whatever the brokers call themselves.
func via(address string) func(context.Context, string, string) (net.Conn, error) {
	return func(ctx context.Context, network, _ string) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, network, address)
	}
}

// reader is a consumer of everything that is in a cluster.
type reader struct {
	cluster *kfake.Cluster
	client  *kgo.Client
	topics  []string

	mu   sync.Mutex
	list []*kgo.Record
	next map[string]int64 // by topic and partition
}

func newReader(t testing.TB, c *kfake.Cluster, topics ...string) *reader {
	t.Helper()
	client, err := kgo.NewClient(kgo.SeedBrokers(c.ListenAddrs()...), kgo.ConsumeTopics(topics...), kgo.FetchMaxWait(50*time.Millisecond),
		kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()), kgo.MetadataMinAge(10*time.Millisecond), kgo.MetadataMaxAge(100*time.Millisecond))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(client.Close)
	return &reader{cluster: c, client: client, topics: topics, next: map[string]int64{}}
}

// all returns everything that is stored, in order within each partition.
func (r *reader) all(t testing.TB) []*kgo.Record {
	t.Helper()
	r.mu.Lock()
	defer r.mu.Unlock()
	for r.behind() {
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		fetches := r.client.PollFetches(ctx)
		cancel()
		for _, f := range fetches.Errors() {
			if !errors.Is(f.Err, context.DeadlineExceeded) {
				t.Fatal(f.Err)
			}
		}
		fetches.EachRecord(func(one *kgo.Record) {
			r.list = append(r.list, one)
			r.next[fmt.Sprint(one.Topic, one.Partition)] = one.Offset + 1
		})
	}
	return append([]*kgo.Record(nil), r.list...)
}

func (r *reader) behind() bool {
	for _, topic := range r.topics {
		for _, p := range r.cluster.PartitionInfos(topic) {
			if r.next[fmt.Sprint(topic, p.Partition)] < p.HighWatermark {
				return true
			}
		}
	}
	return false
}

func open(t testing.TB, c Config) *Kafka {
	t.Helper()
	k, err := New(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := k.Close(context.Background()); err != nil {
			t.Error(err)
		}
	})
	return k
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

func write(t testing.TB, k *Kafka, messages ...sink.Message) {
	t.Helper()
	if done, err := k.Write(t.Context(), messages); err != nil || done != len(messages) {
		t.Fatalf("delivered %d of %d: %v", done, len(messages), err)
	}
}

// refused returns the error of a message that is not delivered.
func refused(t testing.TB, k *Kafka, kind sink.Kind, m sink.Message) string {
	t.Helper()
	done, err := k.Write(t.Context(), []sink.Message{m})
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

func seqOf(t testing.TB, r *kgo.Record) uint64 {
	t.Helper()
	var m struct {
		Metadata struct {
			Seq uint64 `json:"seq"`
		} `json:"metadata"`
	}
	if err := json.Unmarshal(r.Value, &m); err != nil {
		t.Fatal(err)
	}
	return m.Metadata.Seq
}
