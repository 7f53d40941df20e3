package kafka

import (
	"fmt"
	"strings"
	"sync"
	"testing"

	"github.com/twmb/franz-go/pkg/kgo"

	"lockstep/sink"
)

// BenchmarkWrite produces records of about 500 B to kfake, gzipped, each of another key.
// Beside it the client library alone with the same options, which is the limit.
func BenchmarkWrite(b *testing.B) {
	body := []byte(`{"record":{"note":"` + strings.Repeat("0123456789", 40) + `"},"action":"update","metadata":{"seq":1}}`)
	const size = 1000
	b.Run("sink", func(b *testing.B) {
		k := open(b, Config{Brokers: newCluster(b).ListenAddrs()})
		messages := make([]sink.Message, size)
		seq := uint64(0)
		for b.Loop() {
			for i := range messages {
				seq++
				messages[i] = change(seq, fmt.Sprint(seq))
				messages[i].Body = body
			}
			write(b, k, messages...)
		}
		report(b, size)
	})
	b.Run("franz-go", func(b *testing.B) {
		k := &Kafka{config: Config{Brokers: newCluster(b).ListenAddrs()}, topics: map[string]int{}}
		options, err := k.configure()
		if err != nil {
			b.Fatal(err)
		}
		client, err := kgo.NewClient(append(options, kgo.AllowAutoTopicCreation())...)
		if err != nil {
			b.Fatal(err)
		}
		b.Cleanup(client.Close)
		k.client = client
		if err := k.create(b.Context(), "app.public.orders"); err != nil {
			b.Fatal(err)
		}
		seq := uint64(0)
		for b.Loop() {
			var all sync.WaitGroup
			all.Add(size)
			for range size {
				seq++
				m := change(seq, fmt.Sprint(seq))
				client.Produce(b.Context(), &kgo.Record{Topic: "app.public.orders", Key: fmt.Append(nil, seq), Value: body, Headers: newShelf(k, []sink.Message{m}, []int{0}).attributes(&m, fmt.Append(nil, seq))}, func(_ *kgo.Record, err error) {
					if err != nil {
						b.Error(err)
					}
					all.Done()
				})
			}
			all.Wait()
		}
		report(b, size)
	})
}

func report(b *testing.B, size int) {
	b.ReportMetric(float64(b.N*size)/b.Elapsed().Seconds(), "changes/s")
}
