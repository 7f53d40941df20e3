package client

import (
	"context"
	"encoding/json"
	"net/http"
	"net/url"
	"time"
)

// DeadLetter is a change that was given up on, or whose key waits for a person.
type DeadLetter struct {
	Seq      uint64          `json:"seq"`
	Reason   string          `json:"reason"`
	State    string          `json:"state"` // parked, blocked or retrying
	Attempts int             `json:"attempts"`
	At       time.Time       `json:"at"`
	Table    string          `json:"table"`
	PKs      json.RawMessage `json:"record_pks"`
	Message  json.RawMessage `json:"message"` // the change as it was delivered

	// Raw is the answer's own text, for what this client does not know.
	Raw json.RawMessage `json:"-"`
}

// UnmarshalJSON keeps the text beside the fields.
func (d *DeadLetter) UnmarshalJSON(data []byte) error {
	type plain DeadLetter
	if err := json.Unmarshal(data, (*plain)(d)); err != nil {
		return err
	}
	d.Raw = append(json.RawMessage(nil), data...)
	return nil
}

// DeadLetters returns the page of a consumer's dead letters that follows cursor
// (empty: the first), and the cursor of the page after it (empty: none).
func (c *Client) DeadLetters(ctx context.Context, consumer, cursor string) ([]DeadLetter, string, error) {
	query := url.Values{}
	if cursor != "" {
		query.Set("cursor", cursor)
	}
	var p page[DeadLetter]
	err := c.do(ctx, call{method: http.MethodGet, path: consumerPath(consumer, "dead"), query: query, retry: repeatable}, &p)
	return p.Data, p.Next, err
}

// DeadLetter returns one dead letter.
func (c *Client) DeadLetter(ctx context.Context, consumer string, seq uint64) (DeadLetter, error) {
	var out DeadLetter
	err := c.do(ctx, call{method: http.MethodGet, path: consumerPath(consumer, "dead", seqText(seq)), retry: repeatable}, &out)
	return out, err
}

// RetryDead hands the change out again.
func (c *Client) RetryDead(ctx context.Context, consumer string, seq uint64) error {
	return c.do(ctx, call{method: http.MethodPost, path: consumerPath(consumer, "dead", seqText(seq), "retry")}, nil)
}

// DropDead gives the change up for good.
func (c *Client) DropDead(ctx context.Context, consumer string, seq uint64) error {
	return c.do(ctx, call{method: http.MethodDelete, path: consumerPath(consumer, "dead", seqText(seq))}, nil)
}
