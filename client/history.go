package client

import (
	"context"
	"net/http"
	"net/url"
	"strconv"
)

// History is how the node was, made for charts. Every list of values has one for each
// of At; nil: there was no sample, as before the node's start.
type History struct {
	At        []int64                    `json:"at"`        // Unix seconds, ten apart, the oldest first
	Node      *NodeHistory               `json:"node"`      // nil when one series was asked for
	Databases map[string]DatabaseHistory `json:"databases"` // by name
	Consumers map[string]ConsumerHistory `json:"consumers"` // by name
}

// NodeHistory is the process.
type NodeHistory struct {
	RSS        []*float64 `json:"rss_bytes"`
	Goroutines []*float64 `json:"goroutines"`
}

// DatabaseHistory is one database.
type DatabaseHistory struct {
	Changes []*float64 `json:"changes"`   // captured per second
	Lag     []*float64 `json:"lag_bytes"` // of WAL that the stream does not hold yet
}

// ConsumerHistory is one consumer.
type ConsumerHistory struct {
	ID            string     `json:"id"`
	Database      string     `json:"database"`
	Pending       []*float64 `json:"pending"`
	InFlight      []*float64 `json:"in_flight"`
	Delivered     []*float64 `json:"delivered"`        // per second
	Settled       []*float64 `json:"settled"`          // acked per second
	Redelivered   []*float64 `json:"redelivered"`      // since the sample before
	OldestUnacked []*float64 `json:"oldest_unacked_s"` // age in seconds; 0: nothing is unacked
}

// HistoryQuery says which part of the history is wanted. The zero value is everything
// of the last hour.
type HistoryQuery struct {
	Minutes  int    // 1 to 60; 0: 60
	Database string // only this database's series
	Consumer string // only this consumer's series, by id or name
	// Consumers are more of them, up to 1,000 in all. Of several, those that have no
	// history are left out.
	Consumers []string
}

// History returns how the node was in the last hour, at most since its start.
func (c *Client) History(ctx context.Context, q HistoryQuery) (History, error) {
	query := url.Values{}
	for name, value := range map[string]string{"database": q.Database, "consumer": q.Consumer} {
		if value != "" {
			query.Set(name, value)
		}
	}
	for _, consumer := range q.Consumers {
		query.Add("consumer", consumer)
	}
	if q.Minutes != 0 {
		query.Set("minutes", strconv.Itoa(q.Minutes))
	}
	var out History
	err := c.do(ctx, call{method: http.MethodGet, path: []string{"v1", "history"}, query: query, retry: repeatable}, &out)
	return out, err
}
