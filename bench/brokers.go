package bench

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
)

// natsBroker is a NATS server in this process.
type natsBroker struct {
	*lab
	server *server.Server
	conn   *nats.Conn
	js     jetstream.JetStream
	kept   []*nats.Msg // of the sink's, which the library alone publishes in turns
}

// natsWindow is how many messages wait for their ack: the sink's default.
const natsWindow = 256

const brokerStream = "bench"

func newNATSBroker(l *lab) (*natsBroker, error) {
	b := &natsBroker{lab: l}
	var err error
	b.server, err = server.NewServer(&server.Options{
		Host: "127.0.0.1", Port: server.RANDOM_PORT, JetStream: true, StoreDir: filepath.Join(l.dir, "broker"), NoSigs: true, NoLog: true,
	})
	if err != nil {
		return nil, err
	}
	b.server.Start()
	if !b.server.ReadyForConnections(time.Minute) {
		_ = b.close() // it cannot fail
		return nil, errors.New("the NATS server did not start")
	}
	if b.conn, err = nats.Connect(b.server.ClientURL()); err == nil {
		b.js, err = jetstream.New(b.conn, jetstream.WithPublishAsyncMaxPending(natsWindow))
	}
	if err != nil {
		_ = b.close() // it cannot fail
		return nil, err
	}
	return b, nil
}

func (b *natsBroker) close() error {
	if b.conn != nil {
		b.conn.Close()
	}
	b.server.Shutdown()
	b.server.WaitForShutdown()
	return nil
}

func (b *natsBroker) cpu(context.Context) (time.Duration, error) { return 0, nil }

func (b *natsBroker) empty(ctx context.Context) (map[string]any, error) {
	if err := b.keep(ctx); err != nil {
		return nil, err
	}
	if err := b.js.DeleteStream(ctx, brokerStream); err != nil && !errors.Is(err, jetstream.ErrStreamNotFound) {
		return nil, err
	}
	_, err := b.js.CreateStream(ctx, jetstream.StreamConfig{Name: brokerStream, Subjects: []string{"lockstep.>"}})
	return map[string]any{"url": b.server.ClientURL(), "stream": brokerStream, "create": "never"}, err
}

// keep takes messages of the sink's first run.
func (b *natsBroker) keep(ctx context.Context) error {
	if len(b.kept) > 0 {
		return nil
	}
	from, err := b.js.Stream(ctx, brokerStream)
	if errors.Is(err, jetstream.ErrStreamNotFound) {
		return nil // before the first run
	}
	if err != nil {
		return err
	}
	for seq := range uint64(min(bodiesKept, b.Rows)) {
		m, err := from.GetMsg(ctx, seq+1)
		if err != nil {
			return err
		}
		b.kept = append(b.kept, &nats.Msg{Subject: m.Subject, Header: m.Header, Data: m.Data})
	}
	return nil
}

func (b *natsBroker) count(ctx context.Context) (int, error) {
	from, err := b.js.Stream(ctx, brokerStream)
	if err != nil {
		return 0, err
	}
	return int(from.CachedInfo().State.Msgs), nil
}

func (b *natsBroker) bare(ctx context.Context, how peer) error {
	for i := range b.Rows {
		from := b.kept[i%len(b.kept)]
		data, err := how.message(i, from.Data)
		if err != nil {
			return err
		}
		m := &nats.Msg{Subject: from.Subject, Header: maps.Clone(from.Header), Data: data}
		m.Header.Set(nats.MsgIdHdr, strconv.Itoa(i))
		for name := range m.Header {
			if strings.HasPrefix(name, "Nats-Expected-") {
				m.Header.Del(name)
			}
		}
		if _, err := b.js.PublishMsgAsync(m, jetstream.WithStallWait(time.Minute)); err != nil {
			return err
		}
	}
	select {
	case <-b.js.PublishAsyncComplete():
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// kafkaBroker is franz-go's broker in this process: it keeps everything in memory, so
// that it is a limit of neither.
type kafkaBroker struct {
	*lab
	cluster *kfake.Cluster
	made    int
	kept    []*kgo.Record // of the sink's, which the library alone produces in turns
}

const kafkaPartitions = 4

func newKafkaBroker(l *lab) (*kafkaBroker, error) {
	cluster, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.DefaultNumPartitions(kafkaPartitions), kfake.AllowAutoTopicCreation())
	return &kafkaBroker{lab: l, cluster: cluster}, err
}

func (b *kafkaBroker) close() error {
	b.cluster.Close()
	return nil
}

func (b *kafkaBroker) cpu(context.Context) (time.Duration, error) { return 0, nil }

func (b *kafkaBroker) topic() string { return fmt.Sprintf("bench-%d", b.made) }

func (b *kafkaBroker) empty(ctx context.Context) (map[string]any, error) {
	if b.made == 1 {
		if err := b.keep(ctx); err != nil {
			return nil, err
		}
	}
	b.made++
	return map[string]any{"brokers": b.cluster.ListenAddrs(), "topic": b.topic()}, nil
}

// keep takes records of the sink's first run.
func (b *kafkaBroker) keep(ctx context.Context) error {
	reader, err := kgo.NewClient(kgo.SeedBrokers(b.cluster.ListenAddrs()...), kgo.ConsumeTopics(b.topic()), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()))
	if err != nil {
		return err
	}
	defer reader.Close()
	for len(b.kept) < min(bodiesKept, b.Rows) {
		got := reader.PollRecords(ctx, bodiesKept)
		if err := got.Err(); err != nil {
			return err
		}
		b.kept = append(b.kept, got.Records()...)
	}
	return nil
}

func (b *kafkaBroker) count(context.Context) (int, error) {
	n := 0
	for _, p := range b.cluster.PartitionInfos(b.topic()) {
		n += int(p.HighWatermark - p.LogStartOffset)
	}
	return n, nil
}

// bare produces with what the library has by default, and the sink too: acks of all, gzip.
func (b *kafkaBroker) bare(ctx context.Context, how peer) error {
	client, err := kgo.NewClient(kgo.SeedBrokers(b.cluster.ListenAddrs()...), kgo.AllowAutoTopicCreation(), kgo.ProducerBatchCompression(kgo.GzipCompression()))
	if err != nil {
		return err
	}
	defer client.Close()
	failed := kgo.AbortingFirstErrPromise(client)
	for i := range b.Rows {
		from := b.kept[i%len(b.kept)]
		value, err := how.message(i, from.Value)
		if err != nil {
			return err
		}
		client.Produce(ctx, &kgo.Record{Topic: b.topic(), Key: strconv.AppendInt(nil, int64(i), 10), Value: value, Headers: from.Headers, Timestamp: from.Timestamp}, failed.Promise())
	}
	return errors.Join(client.Flush(ctx), failed.Err())
}
