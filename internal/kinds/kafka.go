package kinds

import (
	"context"

	"lockstep/internal/pump"
	"lockstep/sink/kafka"
)

// kafkaSettings are the keys of kafka; package sink/kafka explains them.
type kafkaSettings struct {
	Brokers     []text `json:"brokers"`
	Topic       text   `json:"topic"`
	Key         text   `json:"key"`
	Tombstones  truth  `json:"tombstones"`
	Compression text   `json:"compression"`
	Create      text   `json:"create"`
	Partitions  count  `json:"partitions"`
	Replication count  `json:"replication"`
	Linger      span   `json:"linger"`
	Timeout     span   `json:"timeout"`
	TLS         truth  `json:"tls"`
	Mechanism   text   `json:"mechanism"`
	User        text   `json:"user"`
	Password    text   `json:"password" secret:"yes"`
}

// kafkaBatch is how many changes are produced at a time where nobody says.
const kafkaBatch = 1000

func openKafka(t Target, settings any) (pump.Opened, error) {
	s := settings.(*kafkaSettings)
	if s.Key == "" && t.Ordered {
		// What is in order here must lie in one partition there.
		s.Key = text(kafka.KeyOrder)
	}
	if len(s.Brokers) == 0 {
		return pump.Opened{}, wrong("brokers", `say which: ["host:9092"]`)
	}
	k, err := kafka.New(context.Background(), kafka.Config{
		Brokers: texts(s.Brokers), Topic: string(s.Topic), Key: kafka.Key(s.Key), Tombstones: bool(s.Tombstones), Compression: kafka.Compression(s.Compression),
		Create: kafka.Create(s.Create), Partitions: int(s.Partitions), Replication: int(s.Replication), Linger: s.Linger.duration(), Timeout: s.Timeout.duration(),
		Secure: bool(s.TLS), Mechanism: string(s.Mechanism), User: string(s.User), Password: string(s.Password),
	})
	if err != nil {
		return pump.Opened{}, err
	}
	return pump.Opened{Sink: k, Concurrency: 2, Batch: kafkaBatch}, nil
}
