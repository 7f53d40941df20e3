package client

import (
	"context"
	"encoding/json"
	"net/http"
	"net/url"
	"strconv"
	"time"
)

// Definition is what a consumer is asked to be. What is left zero is the server's
// default. Durations are texts such as 30s.
type Definition struct {
	Name        string          `json:"name,omitempty"`
	Kind        string          `json:"kind,omitempty"`
	Database    string          `json:"database,omitempty"`
	Tables      []string        `json:"tables,omitempty"`
	Collections []string        `json:"collections,omitempty"` // of syncs, in the place of tables: stripe:customer, stripe:*
	Sync        string          `json:"sync,omitempty"`        // whose collections, by id or name; empty: those of every sync
	Actions     []string        `json:"actions,omitempty"`
	Filter      string          `json:"filter,omitempty"`
	Transform   string          `json:"transform,omitempty"`
	Start       string          `json:"start,omitempty"`
	Backfill    bool            `json:"backfill,omitempty"` // the rows that exist come first, as action read
	OrderBy     json.RawMessage `json:"order_by,omitempty"` // "key", "none" or a list of columns, as JSON
	AckWait     string          `json:"ack_wait,omitempty"`
	MaxInFlight int             `json:"max_in_flight,omitempty"`
	MaxAttempts int             `json:"max_attempts,omitempty"`
	OnExhausted string          `json:"on_exhausted,omitempty"`
	Backoff     *Backoff        `json:"backoff,omitempty"`
	Batch       *Batching       `json:"batch,omitempty"`   // of kinds that send
	Webhook     json.RawMessage `json:"webhook,omitempty"` // settings of kind webhook, as JSON; the server shows no secrets
	Postgres    json.RawMessage `json:"postgres,omitempty"`
	Nats        json.RawMessage `json:"nats,omitempty"`
	Kafka       json.RawMessage `json:"kafka,omitempty"`
	Redis       json.RawMessage `json:"redis,omitempty"`
	Metadata    json.RawMessage `json:"metadata,omitempty"` // the user's
}

// Batching says how kinds that send put changes together.
type Batching struct {
	Size int    `json:"size,omitempty"`
	Wait string `json:"wait,omitempty"`
}

// Backoff says how long refused changes wait.
type Backoff struct {
	First  string  `json:"first,omitempty"`
	Max    string  `json:"max,omitempty"`
	Jitter float64 `json:"jitter,omitempty"`
}

// Consumer is a consumer as the server knows it.
type Consumer struct {
	ID string `json:"id"`
	Definition
	Status string `json:"status"` // active or paused
	Health Health `json:"health"`
	Stats  Stats  `json:"stats"`
	// Destination is how sending goes; nil: nothing is sent.
	Destination *Destination `json:"destination"`
	ManagedBy   string       `json:"managed_by"`   // api, file: the configuration, or apply
	AppliedFrom string       `json:"applied_from"` // the file that it was applied from
	CreatedAt   time.Time    `json:"created_at"`
	UpdatedAt   time.Time    `json:"updated_at"`

	// Raw is the answer's own text, for what this client does not know.
	Raw json.RawMessage `json:"-"`
}

// Health says whether a person should look.
type Health struct {
	Status string `json:"status"` // ok, warn, error or paused
	Reason string `json:"reason"`
}

// Destination is how sending to a consumer goes.
type Destination struct {
	State     string     `json:"state"` // ok, retrying, open, throttled, refused, gone or paused
	Reason    string     `json:"reason"`
	Since     *time.Time `json:"since"`
	NextTry   *time.Time `json:"next_try_at"`
	Delivered uint64     `json:"delivered"` // changes
	Failed    uint64     `json:"failed"`    // attempts of changes
	LastOK    *time.Time `json:"last_delivered_at"`
	LastError *time.Time `json:"last_failed_at"`
}

// Stats is where a consumer is, and what it did since the node started.
type Stats struct {
	Pending       uint64     `json:"num_pending"`       // changes neither settled nor in flight; an upper bound with a filter
	InFlight      uint64     `json:"num_ack_pending"`   // changes handed out and not settled
	Dead          uint64     `json:"dead"`              // dead letters that wait for a person
	Blocked       uint64     `json:"blocked_keys"`      // keys that wait for a person
	FloorSeq      uint64     `json:"floor_seq"`         // everything up to it is settled
	LastSeq       uint64     `json:"last_seq"`          // the newest change of the database
	OldestUnacked *time.Time `json:"oldest_unacked_at"` // commit time of the oldest change that is not settled
	Delivered     uint64     `json:"delivered"`
	Redelivered   uint64     `json:"redelivered"`
	Acked         uint64     `json:"acked"`
	Nacked        uint64     `json:"nacked"`
	Expired       uint64     `json:"expired"`
	Parked        uint64     `json:"parked"`
	Rate          *float64   `json:"rate"` // changes settled per second, over the last minute; nil: not known yet
}

// UnmarshalJSON keeps the text beside the fields.
func (c *Consumer) UnmarshalJSON(data []byte) error {
	type plain Consumer
	if err := json.Unmarshal(data, (*plain)(c)); err != nil {
		return err
	}
	c.Raw = append(json.RawMessage(nil), data...)
	return nil
}

// Consumers returns all consumers, of every kind.
func (c *Client) Consumers(ctx context.Context) ([]Consumer, error) {
	return all[Consumer](ctx, c, "v1", "consumers")
}

// Consumer returns the consumer with that name or id.
func (c *Client) Consumer(ctx context.Context, name string) (Consumer, error) {
	var out Consumer
	err := c.do(ctx, call{method: http.MethodGet, path: consumerPath(name), retry: repeatable}, &out)
	return out, err
}

// CreateConsumer creates a consumer. The definition is a [Definition] or anything
// else that marshals to the JSON of the wire contract.
func (c *Client) CreateConsumer(ctx context.Context, definition any) (Consumer, error) {
	var out Consumer
	err := c.do(ctx, call{method: http.MethodPost, path: []string{"v1", "consumers"}, query: c.claim.query(), body: definition}, &out)
	return out, err
}

// UpdateConsumer changes the fields that are in patch and leaves the others. What was
// applied from a file needs a [Claim].
func (c *Client) UpdateConsumer(ctx context.Context, name string, patch any) (Consumer, error) {
	var out Consumer
	err := c.do(ctx, call{method: http.MethodPatch, path: consumerPath(name), query: c.claim.query(), body: patch, retry: c.claim.retry()}, &out)
	return out, err
}

// DeleteConsumer deletes the consumer with its position and its dead letters.
func (c *Client) DeleteConsumer(ctx context.Context, name string) error {
	return c.do(ctx, call{method: http.MethodDelete, path: consumerPath(name), query: c.claim.query()}, nil)
}

// PauseConsumer stops handing out changes; what is out may still be settled.
func (c *Client) PauseConsumer(ctx context.Context, name string) error {
	return c.do(ctx, call{method: http.MethodPost, path: consumerPath(name, "pause"), retry: repeatable}, nil)
}

// ResumeConsumer undoes PauseConsumer.
func (c *Client) ResumeConsumer(ctx context.Context, name string) error {
	return c.do(ctx, call{method: http.MethodPost, path: consumerPath(name, "resume"), retry: repeatable}, nil)
}

// Seek moves the consumer: to is beginning, now, seq:42 or a time of RFC 3339.
// Tokens that are out become stale.
func (c *Client) Seek(ctx context.Context, name, to string) error {
	body := map[string]string{"to": to}
	return c.do(ctx, call{method: http.MethodPost, path: consumerPath(name, "seek"), body: body, retry: repeatable}, nil)
}

// Next takes up to size changes (1 to 1000). When there is none it waits up to wait
// for the first, and returns an empty batch when none came. It is never repeated: an
// answer that is lost on its way leaves its changes handed out until their lease
// ends.
func (c *Client) Next(ctx context.Context, name string, size int, wait time.Duration) (Batch, error) {
	query := url.Values{"batch_size": {strconv.Itoa(size)}}
	if wait > 0 {
		query.Set("wait_for", strconv.FormatInt(wait.Milliseconds(), 10))
	}
	k := call{method: http.MethodPost, path: pullPath(name, "next"), query: query, wait: wait}
	body, err := c.bytes(ctx, k)
	if err != nil {
		return Batch{}, err
	}
	b, err := parseBatch(body, size)
	if err != nil {
		return Batch{}, c.unexpected(k, err)
	}
	return b, nil
}

// Ack settles deliveries for good. When it returns nil that is durable. Tokens that
// are stale give a [*Problem] of status 409 that names them; the others are acked.
func (c *Client) Ack(ctx context.Context, name string, tokens ...string) error {
	return c.do(ctx, call{method: http.MethodPost, path: pullPath(name, "ack"), body: settle{Tokens: tokens}, retry: repeatable}, nil)
}

// Nack is how deliveries are given back.
type Nack struct {
	Delay   time.Duration // 0: the consumer's backoff
	Reason  string        // shown where the change is looked at
	Release bool          // gives back without counting an attempt, as a worker that stops
}

// Nack gives deliveries back, to be handed out again. A change of a key takes with
// it every later one of the key in the same delivery.
func (c *Client) Nack(ctx context.Context, name string, n Nack, tokens ...string) error {
	body := settle{Tokens: tokens, Reason: n.Reason, Release: n.Release}
	if n.Delay > 0 {
		body.Delay = n.Delay.String()
	}
	return c.do(ctx, call{method: http.MethodPost, path: pullPath(name, "nack"), body: body}, nil)
}

// Extend gives the worker more time: the leases end by from now.
func (c *Client) Extend(ctx context.Context, name string, by time.Duration, tokens ...string) error {
	body := settle{Tokens: tokens, By: by.String()}
	return c.do(ctx, call{method: http.MethodPost, path: pullPath(name, "extend"), body: body, retry: repeatable}, nil)
}

type settle struct {
	Tokens  []string `json:"ack_tokens"`
	Delay   string   `json:"delay,omitempty"`
	Reason  string   `json:"reason,omitempty"`
	Release bool     `json:"release,omitempty"`
	By      string   `json:"by,omitempty"`
}

// Peek looks at the changes that the consumer would get next, without taking them.
func (c *Client) Peek(ctx context.Context, name string, limit int) ([]Change, error) {
	k := call{method: http.MethodGet, path: consumerPath(name, "peek"), query: url.Values{"limit": {strconv.Itoa(limit)}}, retry: repeatable}
	body, err := c.bytes(ctx, k)
	if err != nil {
		return nil, err
	}
	b, err := parseBatch(body, limit)
	if err != nil {
		return nil, c.unexpected(k, err)
	}
	out := make([]Change, len(b.Deliveries))
	for i := range b.Deliveries {
		out[i] = b.Deliveries[i].Change
	}
	return out, nil
}

func consumerPath(name string, more ...string) []string {
	return append([]string{"v1", "consumers", name}, more...)
}

func pullPath(name string, more ...string) []string {
	return append([]string{"v1", "http-consumers", name}, more...)
}
