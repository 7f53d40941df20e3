package client

import (
	"context"
	"encoding/json"
	"net/http"
	"net/url"
	"strconv"
	"time"
)

// Attempt is one try to deliver changes to the destination of a consumer.
type Attempt struct {
	ID         string    `json:"id"` // ascending within a consumer, as a number
	At         time.Time `json:"at"`
	DurationMS float64   `json:"duration_ms"`
	Outcome    string    `json:"outcome"` // delivered, partly, or the kind of the error
	Attempt    int       `json:"attempt"` // of the first change, from 1
	Changes    int       `json:"changes"`
	Seqs       []uint64  `json:"seqs"` // the first 100
	Method     string    `json:"method"`
	URL        string    `json:"url"`     // without what is secret in it
	Request    string    `json:"request"` // the beginning of the body
	Status     int       `json:"status"`  // 0: there was no answer
	Answer     string    `json:"answer"`  // the beginning of the answer's body
	Error      string    `json:"error"`

	// Raw is the answer's own text, for what this client does not know.
	Raw json.RawMessage `json:"-"`
}

// UnmarshalJSON keeps the text beside the fields.
func (a *Attempt) UnmarshalJSON(data []byte) error {
	type plain Attempt
	if err := json.Unmarshal(data, (*plain)(a)); err != nil {
		return err
	}
	a.Raw = append(json.RawMessage(nil), data...)
	return nil
}

// AttemptQuery says which attempts are listed.
type AttemptQuery struct {
	Failed bool   // only those that failed
	Limit  int    // at most so many; 0: 50
	Cursor string // of the page before; empty: the newest
}

// Attempts returns the last attempts to deliver to a consumer, the newest first, and the
// cursor of the page after it (empty: none).
func (c *Client) Attempts(ctx context.Context, consumer string, q AttemptQuery) ([]Attempt, string, error) {
	query := url.Values{}
	if q.Failed {
		query.Set("failed", "true")
	}
	if q.Limit > 0 {
		query.Set("limit", strconv.Itoa(q.Limit))
	}
	if q.Cursor != "" {
		query.Set("cursor", q.Cursor)
	}
	var p page[Attempt]
	err := c.do(ctx, call{method: http.MethodGet, path: consumerPath(consumer, "attempts"), query: query, retry: repeatable}, &p)
	return p.Data, p.Next, err
}

// Replay says which changes are delivered again: Seq alone, From with or without To, or
// FailedSince alone.
type Replay struct {
	Seq         uint64 `json:"seq,omitempty"`
	From        string `json:"from,omitempty"`         // a seq, a time, or 1h for an hour ago
	To          string `json:"to,omitempty"`           // the same; empty: now
	FailedSince string `json:"failed_since,omitempty"` // dead letters since then: a time, or 1h
}

// Replay delivers changes again and returns how many. They are safe when it returns, and
// come when it is their key's turn.
func (c *Client) Replay(ctx context.Context, consumer string, r Replay) (int, error) {
	var out struct{ Replayed int }
	err := c.do(ctx, call{method: http.MethodPost, path: consumerPath(consumer, "replay"), body: r}, &out)
	return out.Replayed, err
}

// TestResult is what became of a test event.
type TestResult struct {
	Delivered  bool    `json:"delivered"`
	Error      string  `json:"error"` // what the destination said
	DurationMS float64 `json:"duration_ms"`
}

// TestConsumer sends a test event to the consumer's destination. That the destination
// refuses it is no error of the call.
func (c *Client) TestConsumer(ctx context.Context, consumer string) (TestResult, error) {
	var out TestResult
	err := c.do(ctx, call{method: http.MethodPost, path: consumerPath(consumer, "test"), wait: time.Minute}, &out)
	return out, err
}
