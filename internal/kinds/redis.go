package kinds

import (
	"context"

	"lockstep/internal/pump"
	"lockstep/sink/redis"
)

// redisSettings are the keys of redis; package sink/redis explains them.
type redisSettings struct {
	URL         text  `json:"url" secret:"url"`
	Cluster     truth `json:"cluster"`
	Master      text  `json:"master"`
	Mode        text  `json:"mode"`
	Stream      text  `json:"stream"`
	Key         text  `json:"key"`
	MaxLen      count `json:"maxlen"`
	Value       text  `json:"value"`
	TTL         span  `json:"ttl"`
	Guard       text  `json:"guard"`
	Window      span  `json:"window"`
	Timeout     span  `json:"timeout"`
	Connections count `json:"connections"`
}

// redisBatch is how many changes go into one pipeline where nobody says.
const redisBatch = 500

func openRedis(_ Target, settings any) (pump.Opened, error) {
	s := settings.(*redisSettings)
	if s.URL == "" {
		return pump.Opened{}, wrong("url", "say which server: redis://host:6379/0")
	}
	r, err := redis.New(context.Background(), redis.Config{
		URL: string(s.URL), Cluster: bool(s.Cluster), Master: string(s.Master), Mode: redis.Mode(s.Mode), Stream: string(s.Stream), Key: string(s.Key),
		MaxLen: int64(s.MaxLen), Value: redis.Value(s.Value), TTL: s.TTL.duration(), Guard: redis.Guard(s.Guard), Window: s.Window.duration(),
		Timeout: s.Timeout.duration(), Connections: int(s.Connections),
	})
	if err != nil {
		return pump.Opened{}, err
	}
	concurrency := int(s.Connections)
	if concurrency == 0 {
		concurrency = 4
	}
	return pump.Opened{Sink: r, Concurrency: concurrency, Batch: redisBatch}, nil
}
