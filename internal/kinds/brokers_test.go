package kinds_test

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"

	"lockstep"
	"lockstep/internal/kinds"
	"lockstep/sink"
)

// What a consumer has in one order is in one partition: the record's key is what orders.
func TestTheKeyOfKafkaIsWhatOrders(t *testing.T) {
	t.Parallel()
	cluster, err := kfake.NewCluster(kfake.NumBrokers(1))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(cluster.Close)
	for i, c := range []struct {
		ordered  bool
		settings string
		want     string
	}{{false, "", "7"}, {true, "", "4711"}, {true, `, "key": "primary"`, "7"}, {false, `, "key": "order"`, "4711"}} {
		topic := fmt.Sprintf("t%d", i)
		opened, err := kinds.Open("kafka", kinds.Target{Consumer: "a", Database: "app", Ordered: c.ordered}, fmt.Appendf(nil, `{"brokers": [%q], "topic": %q%s}`, cluster.ListenAddrs()[0], topic, c.settings))
		if err != nil {
			t.Fatal(err)
		}
		m := sink.Message{Seq: 1, Key: 4711, Action: lockstep.Insert, Database: "app", Schema: "public", Table: "orders", PKs: json.RawMessage(`["7"]`), IdempotencyKey: "k", CommitTime: time.Unix(1, 0), Attempt: 1, Record: json.RawMessage(`{}`), Body: json.RawMessage(`{}`)}
		if n, err := opened.Sink.Write(t.Context(), []sink.Message{m}); n != 1 || err != nil {
			t.Fatal(n, err)
		}
		if err := opened.Sink.Close(t.Context()); err != nil {
			t.Error(err)
		}
		reader, err := kgo.NewClient(kgo.SeedBrokers(cluster.ListenAddrs()...), kgo.ConsumeTopics(topic))
		if err != nil {
			t.Fatal(err)
		}
		got := reader.PollFetches(t.Context()).Records()
		reader.Close()
		if len(got) != 1 || string(got[0].Key) != c.want {
			t.Errorf("ordered %t, settings %q: got %v, want the key %s", c.ordered, c.settings, got, c.want)
		}
	}
}

func TestSettingsOfTheNodesOwnNATSServer(t *testing.T) {
	t.Parallel()
	for settings, want := range map[string]string{
		"": "", `{}`: "", `{"age": "1h", "bytes": "1000000", "subject": "lockstep.x.{action}", "stream": "lockstep-x"}`: "",
		`{"token": "a"}`: "url", `{"user": "a", "password": "b"}`: "url", `{"credentials": "/a"}`: "url",
		`{"stream": "orders"}`: "stream", `{"subject": "orders.{action}"}`: "subject", `{"subjects": ["lockstep.>", "orders.>"]}`: "subject", `{"replicas": 3}`: "replicas",
		`{"url": "nats://a.test", "stream": "orders", "subject": "orders.{action}", "replicas": 3}`: "",
	} {
		var fields []string
		for _, p := range kinds.Check("nats", json.RawMessage(settings)) {
			fields = append(fields, p.Field)
		}
		if want == "" && fields != nil || want != "" && !slices.Equal(fields, []string{want}) {
			t.Errorf("%s: faults at %v, want %q", settings, fields, want)
		}
	}
	_, err := kinds.Open("nats", kinds.Target{Consumer: "a", Database: "app"}, nil)
	if err == nil || !strings.Contains(err.Error(), "--nats-listen") {
		t.Errorf("without a server of the node: %v", err)
	}
}
