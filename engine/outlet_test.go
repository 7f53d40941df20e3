package engine_test

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"lockstep/internal/pgdb/pgtest"
)

// A plain NATS client has every change once from the node's own server, over kills of
// the node.
func TestANATSClientConsumesFromTheNode(t *testing.T) {
	t.Parallel()
	database, address := pgtest.Database(t), freeAddress(t)
	pgtest.Exec(t, database, "CREATE TABLE orders (id bigint PRIMARY KEY, note text)")
	n := newNode(t, database, fmt.Sprintf("  - {name: out, kind: nats, start: beginning, tables: [public.orders]}\nstream: {listen: %q}\n", address))
	n.start()
	conn, err := nats.Connect("nats://"+address, nats.MaxReconnects(-1), nats.ReconnectWait(50*time.Millisecond))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	js, err := jetstream.New(conn)
	if err != nil {
		t.Fatal(err)
	}
	pgtest.Exec(t, database, "INSERT INTO orders SELECT i, 'n' FROM generate_series(1, 300) i")
	var reader jetstream.Consumer
	pgtest.Eventually(t, time.Minute, "the stream", func() bool {
		reader, err = js.CreateOrUpdateConsumer(t.Context(), "lockstep-app", jetstream.ConsumerConfig{Durable: "reader", FilterSubject: "lockstep.app.public.orders.insert", AckPolicy: jetstream.AckExplicitPolicy})
		return err == nil
	})
	ids := map[string]int{}
	read := func(want int) {
		pgtest.Eventually(t, time.Minute, strconv.Itoa(want)+" changes", func() bool {
			batch, err := reader.Fetch(100, jetstream.FetchMaxWait(200*time.Millisecond))
			if err != nil {
				return false
			}
			for m := range batch.Messages() {
				if m.DoubleAck(t.Context()) == nil {
					ids[m.Headers().Get("Nats-Msg-Id")]++
				}
			}
			return len(ids) >= want
		})
	}
	read(200)
	n.kill()
	pgtest.Exec(t, database, "INSERT INTO orders SELECT i, 'n' FROM generate_series(301, 400) i")
	n.start()
	read(400)
	info, err := js.Stream(t.Context(), "lockstep-app")
	if err != nil {
		t.Fatal(err)
	}
	if c := info.CachedInfo(); c.State.Msgs != 400 || c.Config.MaxAge != 7*24*time.Hour || c.Config.MaxBytes != 10_000_000_000 {
		t.Errorf("the stream has %d messages of %d changes, for %s and %d bytes", c.State.Msgs, len(ids), c.Config.MaxAge, c.Config.MaxBytes)
	}
	names := js.StreamNames(t.Context())
	var streams []string
	for name := range names.Name() {
		streams = append(streams, name)
	}
	if names.Err() != nil || !slices.Equal(streams, []string{"lockstep-app"}) {
		t.Errorf("a client sees the streams %v, %v: those of the node itself are not for it", streams, names.Err())
	}
	if err := n.stop(); err != nil {
		t.Errorf("the node ended: %v", err)
	}
}

func TestNATSClientsNeedATokenThatMayRead(t *testing.T) {
	t.Parallel()
	address := freeAddress(t)
	n := newNode(t, pgtest.Database(t), fmt.Sprintf(`stream: {listen: %q}
tokens:
  - {name: reads, token: read-token, scopes: [read]}
  - {name: takes, token: take-token, scopes: [consume]}
  - {name: all, token: admin-token, scopes: [admin]}
`, address))
	n.start()
	for token, may := range map[string]bool{"": false, "wrong": false, "take-token": false, "read-token": true, "admin-token": true} {
		conn, err := nats.Connect("nats://"+address, nats.UserInfo("anybody", token))
		if may != (err == nil) || !may && !errors.Is(err, nats.ErrAuthorization) {
			t.Errorf("with the token %q: %v", token, err)
		}
		if err == nil {
			conn.Close()
		}
	}
}

func TestTheNATSServerIsNotOpenedToEverybody(t *testing.T) {
	t.Parallel()
	n := newNode(t, pgtest.Database(t), "stream: {listen: \"0.0.0.0:0\"}\n")
	n.launch()
	if err := n.cmd.Wait(); err == nil || !strings.Contains(n.output.String(), "stream.listen: 0.0.0.0:0 can be reached from outside and no token is configured") {
		t.Errorf("it ended with %v", err)
	}
	n.cmd = nil
}

// Without the listener nobody could read what is published.
func TestAConsumerOfTheNodesOwnServerSaysThatThereIsNone(t *testing.T) {
	t.Parallel()
	n := newNode(t, pgtest.Database(t), "  - {name: out, kind: nats}\n")
	n.start()
	pgtest.Eventually(t, time.Minute, "the reason", func() bool {
		c, err := n.api.Consumer(t.Context(), "out")
		return err == nil && c.Destination != nil && strings.Contains(c.Destination.Reason, "--nats-listen")
	})
	answer, err := http.Get("http://" + n.server + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(answer.Body)
	if want := `lockstep_delivery_state{consumer="out",database="app",state="refused"} 1`; err != nil || !strings.Contains(string(text), want) {
		t.Errorf("the metrics do not say %s", want)
	}
}
