package kinds

import (
	"cmp"
	"context"
	"slices"
	"strings"
	"time"

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

// natsBatch is how many changes are published at a time where nobody says: several
// windows, since at the end of each call the last one runs empty.
const natsBatch = 1000

// What a stream of the node's own server keeps where nobody says: it is on the disk that
// the node itself needs.
const (
	ownAge   = 7 * 24 * time.Hour
	ownBytes = 10_000_000_000
)

func openNATS(t Target, settings any) (pump.Opened, error) {
	s := settings.(*natsSettings)
	c := nats.Config{
		URL: string(s.URL), User: string(s.User), Password: string(s.Password), Token: string(s.Token), Credentials: string(s.Credentials),
		Name: string(s.Name), Stream: string(s.Stream), Subject: string(s.Subject), Create: nats.Create(s.Create), Subjects: texts(s.Subjects),
		Age: s.Age.duration(), Bytes: int64(s.Bytes), Replicas: int(s.Replicas), Storage: nats.Storage(s.Storage), Duplicates: s.Duplicates.duration(),
		Window: int(s.Window), AckTimeout: s.AckTimeout.duration(), ConnectTimeout: s.ConnectTimeout.duration(),
	}
	if s.URL == "" {
		if err := own(t, &c); err != nil {
			return pump.Opened{}, err
		}
	}
	n, err := nats.New(context.Background(), c)
	if err != nil {
		return pump.Opened{}, err
	}
	return pump.Opened{Sink: n, Concurrency: 1, Batch: natsBatch}, nil
}

// own aims at the node's own server. Its clients may read what is below lockstep only.
func own(t Target, c *nats.Config) error {
	switch {
	case t.NATS == nil:
		return wrong("url", "say which server: nats://host:4222; or open this node's own: lockstep serve --nats-listen 127.0.0.1:7422, or stream.listen in the configuration")
	case c.User != "" || c.Password != "" || c.Token != "" || c.Credentials != "":
		return wrong("url", "missing, while there is something to sign in with; without a url the node's own server is meant")
	case c.Stream != "" && !strings.HasPrefix(c.Stream, "lockstep-"):
		return wrong("stream", "of the node's own server must begin with lockstep-")
	case c.Subject != "" && !strings.HasPrefix(c.Subject, "lockstep."), slices.ContainsFunc(c.Subjects, func(s string) bool { return !strings.HasPrefix(s, "lockstep.") }):
		return wrong("subject", "of the node's own server must begin with lockstep. (a dot behind)")
	case c.Replicas > 1:
		return wrong("replicas", "the node's own server is one: leave it out")
	}
	c.Server, c.Token = t.NATS, t.NATS.Token
	c.Age, c.Bytes = cmp.Or(c.Age, ownAge), cmp.Or(c.Bytes, ownBytes)
	return nil
}
