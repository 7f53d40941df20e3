package client

import (
	"context"
	"encoding/json"
	"net/http"
	"time"
)

// ChangeAt is one change with its whole way: where it comes from, and where it is with
// each consumer of its database.
type ChangeAt struct {
	Change
	Mirror    *Mirror // nil: its table is no mirror
	Consumers []Whereabouts
	Raw       json.RawMessage // the answer's own text
}

// Mirror is where a row of a mirror table comes from. Texts are empty where the row does
// not tell.
type Mirror struct {
	SyncID      string          `json:"sync_id"`
	Sync        string          `json:"sync"` // its name
	Provider    string          `json:"provider"`
	Collection  string          `json:"collection_id"` // stripe:customer
	ID          string          `json:"id"`            // of the column _id
	UpstreamID  string          `json:"upstream_id"`   // the API's
	CreatedAt   string          `json:"upstream_created_at"`
	UpdatedAt   string          `json:"upstream_updated_at"` // by the API's clock: the version
	FetchedAt   string          `json:"fetched_at"`
	Fingerprint string          `json:"fingerprint"` // of the API's JSON, base64
	Notes       json.RawMessage `json:"notes"`       // values that did not fit their columns; null: none
	CommittedAt time.Time       `json:"committed_at"`
}

// Whereabouts is where a change is with a consumer.
type Whereabouts struct {
	ID       string     `json:"id"` // the consumer's
	Name     string     `json:"name"`
	State    string     `json:"state"`    // settled, in_flight, waiting, blocked, parked, not_matching, ahead or unknown
	Attempts int        `json:"attempts"` // that failed
	Holder   string     `json:"holder"`   // who has it
	Reason   string     `json:"reason"`   // why the last attempt failed, or why it is parked
	Until    *time.Time `json:"until"`    // when the lease or the delay ends

	Matches     string     `json:"matches"`         // yes, filtered, not_selected or failed; empty: unknown
	Fault       string     `json:"fault"`           // why its filter fails
	BeforeStart bool       `json:"before_start"`    // settled since the consumer was made to begin behind it
	NextAttempt *time.Time `json:"next_attempt_at"` // it waits, and is not tried before
	Dead        *DeadNote  `json:"dead"`            // its dead letter; nil: none
	Log         []Attempt  `json:"attempt_log"`     // of kinds that send, the newest first, at most 20
}

// DeadNote is a dead letter without what it holds.
type DeadNote struct {
	State    string    `json:"state"` // parked, blocked or retrying
	Reason   string    `json:"reason"`
	Attempts int       `json:"attempts"`
	At       time.Time `json:"at"`
}

// ChangeAt returns the change of a database with that seq. One that retention has
// removed gives an error that wraps lockstep.ErrNotFound.
func (c *Client) ChangeAt(ctx context.Context, database string, seq uint64) (ChangeAt, error) {
	k := call{method: http.MethodGet, path: []string{"v1", "databases", database, "changes", seqText(seq)}, retry: repeatable}
	body, err := c.bytes(ctx, k)
	if err != nil {
		return ChangeAt{}, err
	}
	out := ChangeAt{Raw: body}
	if err := out.parse(body); err != nil {
		return ChangeAt{}, c.unexpected(k, err)
	}
	return out, nil
}

// parse goes through the answer once: a row may be very large.
func (a *ChangeAt) parse(body []byte) error {
	var d Delivery
	s := newScanner(body)
	err := s.object(func(key string) error {
		var into any
		switch key {
		case "mirror":
			into = &a.Mirror
		case "consumers":
			into = &a.Consumers
		default:
			return s.member(&d, key)
		}
		raw, err := s.raw()
		if err != nil {
			return err
		}
		return json.Unmarshal(raw, into)
	})
	a.Change = d.Change
	return err
}
