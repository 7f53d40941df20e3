package client

import (
	"context"
	"encoding/json"
	"net/http"
	"net/url"
	"strconv"
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

// DeadQuery says which dead letters are listed.
type DeadQuery struct {
	Limit     int    // at most so many, 1 to 1000; 0: 100
	Cursor    string // Next of the page before; empty: the first page
	Order     string // by seq: oldest or newest first; empty: oldest
	Key       string // is part of the key's values, joined by comma and space
	Reason    string // is part of the reason, whatever its case
	NoMessage bool   // leaves Message nil
	// Look is how long letters are looked at for Key and Reason, 10 ms to 1 s; 0: a second.
	Look time.Duration
}

// DeadPage is a part of a list of dead letters.
type DeadPage struct {
	Data []DeadLetter `json:"data"`
	Next string       `json:"next_cursor"` // empty: it is the last one
	// Stopped says that the page ended before it was full: it looked at as many letters as
	// a page may, or they are large. There may be more all the same.
	Stopped bool `json:"stopped_early"`
	Looked  int  `json:"looked_at"` // letters, when it stopped or was asked for a Key or Reason
}

// FindDead returns a page of a consumer's dead letters.
func (c *Client) FindDead(ctx context.Context, consumer string, q DeadQuery) (DeadPage, error) {
	query := url.Values{}
	for name, text := range map[string]string{"cursor": q.Cursor, "order": q.Order, "key": q.Key, "reason": q.Reason} {
		if text != "" {
			query.Set(name, text)
		}
	}
	if q.Limit > 0 {
		query.Set("limit", strconv.Itoa(q.Limit))
	}
	if q.NoMessage {
		query.Set("messages", "false")
	}
	if q.Look > 0 {
		query.Set("look_ms", strconv.FormatInt(q.Look.Milliseconds(), 10))
	}
	var out DeadPage
	err := c.do(ctx, call{method: http.MethodGet, path: consumerPath(consumer, "dead"), query: query, retry: repeatable}, &out)
	return out, err
}

// DeadWork says which dead letters are retried or dropped: Seqs, or All that wait for a
// person and match the rest.
type DeadWork struct {
	Seqs   []uint64 `json:"seqs,omitempty"` // at most 1000
	All    bool     `json:"all,omitempty"`
	Reason string   `json:"reason,omitempty"` // is part of the reason, whatever its case
	Before string   `json:"before,omitempty"` // they were written before a time, or 1h for an hour ago
	Cursor string   `json:"cursor,omitempty"` // Next of the call before
}

// DeadProgress is how far a call came: with All it ends after 10,000 letters or 20 s.
type DeadProgress struct {
	Retried int    `json:"retried"` // by RetryDeadMany
	Dropped int    `json:"dropped"` // by DropDeadMany
	Skipped int    `json:"skipped"` // letters that it cannot be done to now
	Why     string `json:"why"`     // the reason of the first one
	Left    uint64 `json:"left"`    // letters that were not looked at: call again
	Next    string `json:"next_cursor"`
	Stopped string `json:"stopped"` // what went wrong after some were done; empty: nothing
}

// RetryDeadMany hands many changes out again, as far as one call goes.
func (c *Client) RetryDeadMany(ctx context.Context, consumer string, w DeadWork) (DeadProgress, error) {
	var out DeadProgress
	err := c.do(ctx, call{method: http.MethodPost, path: consumerPath(consumer, "dead", "retry"), body: w, wait: time.Minute}, &out)
	return out, err
}

// DropDeadMany gives many changes up for good, as far as one call goes.
func (c *Client) DropDeadMany(ctx context.Context, consumer string, w DeadWork) (DeadProgress, error) {
	var out DeadProgress
	err := c.do(ctx, call{method: http.MethodPost, path: consumerPath(consumer, "dead", "drop"), body: w, wait: time.Minute}, &out)
	return out, err
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
