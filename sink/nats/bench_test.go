package nats

import (
	"fmt"
	"strings"
	"testing"
	"time"

	natsgo "github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"lockstep/sink"
)

// BenchmarkWrite publishes messages of about 500 B, each of another key. Beside it the
// library's own asynchronous publishing with the same window, which is the limit.
func BenchmarkWrite(b *testing.B) {
	body := []byte(`{"record":{"note":"` + strings.Repeat("0123456789", 40) + `"},"action":"update","metadata":{"seq":1}}`)
	const size = 1000
	b.Run("sink", func(b *testing.B) {
		n := open(b, Config{URL: newBroker(b, nil).host})
		messages := make([]sink.Message, size)
		seq := uint64(0)
		for b.Loop() {
			for i := range messages {
				seq++
				messages[i] = change(seq, fmt.Sprint(seq))
				messages[i].Body = body
			}
			write(b, n, messages...)
		}
		report(b, size)
	})
	b.Run("nats.go", func(b *testing.B) {
		broker := newBroker(b, nil)
		nc, err := natsgo.Connect(broker.host)
		if err != nil {
			b.Fatal(err)
		}
		b.Cleanup(nc.Close)
		js, err := jetstream.New(nc, jetstream.WithPublishAsyncMaxPending(DefaultWindow))
		if err != nil {
			b.Fatal(err)
		}
		if _, err := js.CreateStream(b.Context(), jetstream.StreamConfig{Name: "s", Subjects: []string{"lockstep.>"}}); err != nil {
			b.Fatal(err)
		}
		seq := uint64(0)
		for b.Loop() {
			for range size {
				seq++
				m := change(seq, fmt.Sprint(seq))
				if _, err := js.PublishMsgAsync(&natsgo.Msg{Subject: "lockstep.app.public.orders.update", Header: newLabel().of("s", &m), Data: body}, jetstream.WithStallWait(time.Minute)); err != nil {
					b.Fatal(err)
				}
			}
			<-js.PublishAsyncComplete()
		}
		report(b, size)
	})
}

func report(b *testing.B, size int) {
	b.ReportMetric(float64(b.N*size)/b.Elapsed().Seconds(), "changes/s")
}
