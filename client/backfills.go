package client

import (
	"context"
	"encoding/json"
	"net/http"
	"net/url"
	"strconv"
	"time"
)

// Backfill is a reading of existing rows: to one consumer, or to everybody behind a
// gap.
type Backfill struct {
	ID            string          `json:"id"`
	N             int             `json:"n"`        // per consumer from 1; those of gaps per database
	Consumer      *Named          `json:"consumer"` // nil: the repair of a gap
	Database      string          `json:"database"`
	Gap           bool            `json:"gap"`
	Where         string          `json:"where"`
	Origin        string          `json:"origin"` // api, or definition: the consumer has backfill: true
	State         string          `json:"state"`  // one of the states below
	Reason        string          `json:"reason"` // why it waits or failed, and what to do
	Tables        []BackfillTable `json:"tables"`
	Rows          uint64          `json:"rows"`       // sent
	Total         uint64          `json:"total"`      // to send, by the database's statistics; 0: unknown
	Overridden    uint64          `json:"overridden"` // left out, because a newer change of the row was sent before
	Deletes       uint64          `json:"deletes"`    // repair of a gap: keys that are gone
	RowsPerSecond float64         `json:"rows_per_second"`
	SecondsLeft   *int64          `json:"seconds_left"` // nil: unknown
	CreatedAt     time.Time       `json:"created_at"`
	StartedAt     *time.Time      `json:"started_at"`
	EndedAt       *time.Time      `json:"ended_at"`

	// Raw is the answer's own text, for what this client does not know.
	Raw json.RawMessage `json:"-"`
}

// Named names a resource.
type Named struct {
	ID   string `json:"id"`
	Name string `json:"name"`
}

// BackfillTable is how far a backfill is with one table.
type BackfillTable struct {
	Name   string `json:"name"`
	State  string `json:"state"`
	Reason string `json:"reason"`
	Rows   uint64 `json:"rows"`
	Total  uint64 `json:"total"` // an estimate; 0: unknown
}

// The states of a backfill.
const (
	BackfillRunning   = "running"
	BackfillWaiting   = "waiting" // for what the reason says
	BackfillPaused    = "paused"
	BackfillCompleted = "completed"
	BackfillFailed    = "failed"
	BackfillCancelled = "cancelled"
)

// Ended reports whether the backfill will do nothing more.
func (b *Backfill) Ended() bool {
	return b.State == BackfillCompleted || b.State == BackfillFailed || b.State == BackfillCancelled
}

// UnmarshalJSON keeps the text beside the fields.
func (b *Backfill) UnmarshalJSON(data []byte) error {
	type plain Backfill
	if err := json.Unmarshal(data, (*plain)(b)); err != nil {
		return err
	}
	b.Raw = append(json.RawMessage(nil), data...)
	return nil
}

// BackfillRequest says which rows a consumer is to get.
type BackfillRequest struct {
	Tables []string `json:"tables,omitempty"` // schema.table; none: every table that the consumer selects
	Where  string   `json:"where,omitempty"`  // a condition in SQL; empty: every row
}

// StartBackfill has existing rows sent to a consumer, as action read. It returns when
// that has begun. Errors wrap lockstep.ErrInvalid (with the reason: a view, no usable
// key, a bad condition), lockstep.ErrConflict while another one reads such a table to
// the same consumer, and lockstep.ErrNotFound.
func (c *Client) StartBackfill(ctx context.Context, consumer string, r BackfillRequest) (Backfill, error) {
	return c.backfill(ctx, call{method: http.MethodPost, path: consumerPath(consumer, "backfills"), body: r})
}

// RepairGaps reads what the open gaps of a database may have cost, deletes included,
// to every consumer. lockstep.ErrConflict: no gap is open.
func (c *Client) RepairGaps(ctx context.Context, database string) (Backfill, error) {
	return c.backfill(ctx, call{method: http.MethodPost, path: []string{"v1", "databases", database, "gaps", "backfill"}})
}

// BackfillFilter selects backfills. The zero value selects all, those of gaps too.
type BackfillFilter struct {
	Consumer string // name or id
	Database string
	Active   bool // those that have not ended
}

// Backfills returns the backfills that the filter selects, newest first.
func (c *Client) Backfills(ctx context.Context, f BackfillFilter) ([]Backfill, error) {
	query := url.Values{}
	if f.Consumer != "" {
		query.Set("consumer", f.Consumer)
	}
	if f.Database != "" {
		query.Set("database", f.Database)
	}
	if f.Active {
		query.Set("active", "true")
	}
	return allOf[Backfill](ctx, c, query, "v1", "backfills")
}

// Backfill returns the backfill with that id.
func (c *Client) Backfill(ctx context.Context, id string) (Backfill, error) {
	return c.backfill(ctx, call{method: http.MethodGet, path: []string{"v1", "backfills", id}, retry: repeatable})
}

// ConsumerBackfill returns the n-th backfill of a consumer, from 1.
func (c *Client) ConsumerBackfill(ctx context.Context, consumer string, n int) (Backfill, error) {
	return c.backfill(ctx, call{method: http.MethodGet, path: consumerPath(consumer, "backfills", strconv.Itoa(n)), retry: repeatable})
}

// PauseBackfill stops reading until ResumeBackfill; what was sent stays sent.
func (c *Client) PauseBackfill(ctx context.Context, id string) (Backfill, error) {
	return c.steer(ctx, id, BackfillPaused)
}

// ResumeBackfill goes on where PauseBackfill stopped.
func (c *Client) ResumeBackfill(ctx context.Context, id string) (Backfill, error) {
	return c.steer(ctx, id, BackfillRunning)
}

// CancelBackfill ends the backfill for good; what was sent stays sent.
func (c *Client) CancelBackfill(ctx context.Context, id string) (Backfill, error) {
	return c.steer(ctx, id, BackfillCancelled)
}

func (c *Client) steer(ctx context.Context, id, state string) (Backfill, error) {
	body := map[string]string{"state": state}
	return c.backfill(ctx, call{method: http.MethodPatch, path: []string{"v1", "backfills", id}, body: body, retry: repeatable})
}

func (c *Client) backfill(ctx context.Context, k call) (Backfill, error) {
	var out Backfill
	err := c.do(ctx, k, &out)
	return out, err
}
