package kinds

import (
	"context"

	"lockstep/internal/pump"
	"lockstep/sink/nats"
)

// natsSettings are the keys of nats; package sink/nats explains them.
type natsSettings struct {
	URL            text   `json:"url" secret:"url"`
	User           text   `json:"user"`
	Password       text   `json:"password" secret:"yes"`
	Token          text   `json:"token" secret:"yes"`
	Credentials    text   `json:"credentials"`
	Name           text   `json:"name"`
	Stream         text   `json:"stream"`
	Subject        text   `json:"subject"`
	Create         text   `json:"create"`
	Subjects       []text `json:"subjects"`
	Age            span   `json:"age"`
	Bytes          count  `json:"bytes"`
	Replicas       count  `json:"replicas"`
	Storage        text   `json:"storage"`
	Duplicates     span   `json:"duplicates"`
	Window         count  `json:"window"`
	AckTimeout     span   `json:"ack_timeout"`
	ConnectTimeout span   `json:"connect_timeout"`
}

// natsBatch is how many changes are published at a time where nobody says.
const natsBatch = 256

func openNATS(_ Target, settings any) (pump.Opened, error) {
	s := settings.(*natsSettings)
	if s.URL == "" {
		return pump.Opened{}, wrong("url", "say which server: nats://host:4222")
	}
	n, err := nats.New(context.Background(), nats.Config{
		URL: string(s.URL), User: string(s.User), Password: string(s.Password), Token: string(s.Token), Credentials: string(s.Credentials),
		Name: string(s.Name), Stream: string(s.Stream), Subject: string(s.Subject), Create: nats.Create(s.Create), Subjects: texts(s.Subjects),
		Age: s.Age.duration(), Bytes: int64(s.Bytes), Replicas: int(s.Replicas), Storage: nats.Storage(s.Storage), Duplicates: s.Duplicates.duration(),
		Window: int(s.Window), AckTimeout: s.AckTimeout.duration(), ConnectTimeout: s.ConnectTimeout.duration(),
	})
	if err != nil {
		return pump.Opened{}, err
	}
	return pump.Opened{Sink: n, Concurrency: 1, Batch: natsBatch}, nil
}
