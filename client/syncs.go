package client

import (
	"context"
	"encoding/json"
	"net/http"
	"net/url"
	"strconv"
	"time"
)

// SyncDefinition is what a sync is asked to be. What is left zero is the server's
// default.
type SyncDefinition struct {
	Name        string          `json:"name,omitempty"`
	Provider    string          `json:"provider,omitempty"` // stripe, github or rest
	Spec        string          `json:"spec,omitempty"`     // of provider rest: the YAML itself
	BaseURL     string          `json:"base_url,omitempty"` // a sandbox or a gateway instead of the API
	Credential  *SyncCredential `json:"credential,omitempty"`
	Collections []string        `json:"collections,omitempty"` // such as stripe:customer
	Database    string          `json:"database,omitempty"`
	Schema      string          `json:"schema,omitempty"`
	Every       string          `json:"every,omitempty"` // pause between two polls, such as 5s
	RateLimit   *SyncRateLimit  `json:"rate_limit,omitempty"`
	ExternalID  string          `json:"external_id,omitempty"`
	Metadata    json.RawMessage `json:"metadata,omitempty"`
}

// SyncCredential lets a sync into an account. Servers never show its values.
type SyncCredential struct {
	Kind       string            `json:"kind,omitempty"`
	Properties map[string]string `json:"properties"`
}

// SyncProperties is what the server tells of a credential: never its values.
type SyncProperties struct {
	Kind  string   `json:"kind"`
	Names []string `json:"property_names"`
}

// SyncRateLimit narrows what an API allows. What is left zero leaves it as it is.
type SyncRateLimit struct {
	RequestsPerSecond float64 `json:"requests_per_second,omitempty"`
	MaxConcurrent     int     `json:"max_concurrent,omitempty"`
	Reserve           float64 `json:"reserve,omitempty"` // share that is left to others
}

// Sync is a sync as the server knows it, and how it is.
type Sync struct {
	ID            string           `json:"id"`
	Name          string           `json:"name"`
	Provider      string           `json:"provider"`
	Spec          string           `json:"spec"`      // of provider rest: the YAML
	SpecFile      string           `json:"spec_file"` // and the file's name, in the server's configuration
	BaseURL       string           `json:"base_url"`
	Credential    SyncProperties   `json:"credential"`
	Every         string           `json:"every"`      // pause between two polls; empty: as the API's spec says
	RateLimit     *SyncRateLimit   `json:"rate_limit"` // nil: only the API's own limits
	Database      string           `json:"database"`
	Schema        string           `json:"schema"`
	CollectionIDs []string         `json:"collection_ids"`
	All           bool             `json:"all_collections"` // none were chosen: every one
	ExternalID    string           `json:"external_id"`
	Metadata      json.RawMessage  `json:"metadata"`
	Paused        bool             `json:"paused"`
	State         string           `json:"state"`  // one of the states below
	Reason        string           `json:"reason"` // why it waits, fails or is blocked, and what to do
	Health        Health           `json:"health"`
	Account       string           `json:"account"`       // whose credential it is; empty: not known yet
	BackfilledAt  *time.Time       `json:"backfilled_at"` // when every collection had been read once; nil: not yet
	Collections   []SyncCollection `json:"collections"`
	Quotas        []SyncQuota      `json:"quotas"`
	ManagedBy     string           `json:"managed_by"`          // api, file: the configuration, or apply
	AppliedFrom   string           `json:"applied_from"`        // the file that it was applied from
	CreatedAt     time.Time        `json:"created_at,omitzero"` // zero: not known until its database is reached
	UpdatedAt     time.Time        `json:"updated_at,omitzero"`

	// Raw is the answer's own text, for what this client does not know.
	Raw json.RawMessage `json:"-"`
}

// SyncCollection is how one collection is.
type SyncCollection struct {
	Name     string     `json:"name"`  // stripe:customer
	Table    string     `json:"table"` // schema.name
	State    string     `json:"state"`
	Reason   string     `json:"reason"`
	Records  uint64     `json:"records"`            // that the running or last backfill has read
	Rate     float64    `json:"records_per_second"` // of the running backfill
	PolledAt *time.Time `json:"polled_at"`          // everything that the API told then is in Postgres
	NextAt   *time.Time `json:"next_at"`
	SweptAt  *time.Time `json:"swept_at"` // when the last complete sweep began
	Changed  uint64     `json:"changed"`  // rows written since the node started
	Deleted  uint64     `json:"deleted"`
	Parked   int        `json:"parked"` // records that the table refused
}

// SyncQuota is what is left of one of the API's limits.
type SyncQuota struct {
	Bucket    string     `json:"bucket"`
	Limit     *float64   `json:"limit"`     // nil: not known
	Remaining *float64   `json:"remaining"` // nil: not known
	ResetAt   *time.Time `json:"reset_at"`
	PausedTo  *time.Time `json:"paused_to"` // after a refusal
	Refusals  uint64     `json:"refusals"`
	Requests  uint64     `json:"requests"`
}

// The states of a sync and of its collections.
const (
	SyncStarting    = "starting"
	SyncWaiting     = "waiting"     // another node works on it
	SyncBackfilling = "backfilling" // everything is read for the first time, or again
	SyncPolling     = "polling"     // the mirror follows the API
	SyncPaused      = "paused"
	SyncFailing     = "failing" // the last calls failed; they are tried again
	SyncBlocked     = "blocked" // a person must act
)

// UnmarshalJSON keeps the text beside the fields.
func (s *Sync) UnmarshalJSON(data []byte) error {
	type plain Sync
	if err := json.Unmarshal(data, (*plain)(s)); err != nil {
		return err
	}
	s.Raw = append(json.RawMessage(nil), data...)
	return nil
}

// Syncs returns all syncs, by name.
func (c *Client) Syncs(ctx context.Context) ([]Sync, error) {
	return all[Sync](ctx, c, "v1", "syncs")
}

// Sync returns the sync with that name or id.
func (c *Client) Sync(ctx context.Context, name string) (Sync, error) {
	return c.sync(ctx, call{method: http.MethodGet, path: syncPath(name), retry: repeatable})
}

// CreateSync makes a sync. The definition is a [SyncDefinition] or anything else that
// marshals to the JSON of the wire contract.
func (c *Client) CreateSync(ctx context.Context, definition any) (Sync, error) {
	return c.sync(ctx, call{method: http.MethodPost, path: []string{"v1", "syncs"}, query: c.claim.query(), body: definition})
}

// UpdateSync changes the fields that are in patch and leaves the others. To change
// where the credential is sent (base_url, spec), patch must hold it. What was applied
// from a file needs a [Claim].
func (c *Client) UpdateSync(ctx context.Context, name string, patch any) (Sync, error) {
	return c.sync(ctx, call{method: http.MethodPatch, path: syncPath(name), query: c.claim.query(), body: patch, retry: c.claim.retry()})
}

// DeleteSync ends a sync and forgets its state. Its tables stay.
func (c *Client) DeleteSync(ctx context.Context, name string) error {
	return c.do(ctx, call{method: http.MethodDelete, path: syncPath(name), query: c.claim.query()}, nil)
}

// RunSync has the API asked for everything now.
func (c *Client) RunSync(ctx context.Context, name string) (Sync, error) {
	return c.sync(ctx, call{method: http.MethodPost, path: syncPath(name, "run"), retry: repeatable})
}

// PauseSync has the API asked nothing more until ResumeSync.
func (c *Client) PauseSync(ctx context.Context, name string) (Sync, error) {
	return c.sync(ctx, call{method: http.MethodPost, path: syncPath(name, "pause"), retry: repeatable})
}

// ResumeSync goes on where PauseSync stopped.
func (c *Client) ResumeSync(ctx context.Context, name string) (Sync, error) {
	return c.sync(ctx, call{method: http.MethodPost, path: syncPath(name, "resume"), retry: repeatable})
}

// ResyncSync has collections read again from their beginning; none: all of them.
func (c *Client) ResyncSync(ctx context.Context, name string, collections ...string) (Sync, error) {
	body := map[string][]string{}
	if len(collections) > 0 {
		body["collections"] = collections
	}
	return c.sync(ctx, call{method: http.MethodPost, path: syncPath(name, "resync"), body: body})
}

// SyncWait says what WaitSync waits for.
type SyncWait struct {
	Timeout  time.Duration // at most ten minutes; 0: 30 s
	Consumer string        // also until this consumer, by name or id, has acked it
}

// WaitSync returns when everything that was in the API when it was called is in
// Postgres, with how long that took. It is not repeated: a [*Problem] of status 504
// says that the time is up.
func (c *Client) WaitSync(ctx context.Context, name string, w SyncWait) (time.Duration, error) {
	if w.Timeout == 0 {
		w.Timeout = 30 * time.Second
	}
	query := url.Values{"timeout": {strconv.FormatInt(w.Timeout.Milliseconds(), 10)}}
	if w.Consumer != "" {
		query.Set("consumer", w.Consumer)
	}
	var out struct {
		Waited int64 `json:"waited_ms"`
	}
	err := c.do(ctx, call{method: http.MethodGet, path: syncPath(name, "wait"), query: query, wait: w.Timeout}, &out)
	return time.Duration(out.Waited) * time.Millisecond, err
}

// VerifyOptions says what VerifySync compares.
type VerifyOptions struct {
	Collections []string `json:"collections,omitempty"` // none: all
	Repair      bool     `json:"repair,omitempty"`      // put right what differs
}

// Verification is what a comparison of an API with its mirror found.
type Verification struct {
	Equal     bool               `json:"equal"`   // nothing differs, or is left to differ after a repair
	Checked   uint64             `json:"checked"` // records that were compared
	Missing   []SyncRecord       `json:"missing"` // in the API and not in Postgres; the first thousand
	Stale     []SyncRecord       `json:"stale"`   // different in Postgres; the first thousand
	Extra     []SyncRecord       `json:"extra"`   // in Postgres and not in the API; the first thousand
	MissingN  uint64             `json:"missing_count"`
	StaleN    uint64             `json:"stale_count"`
	ExtraN    uint64             `json:"extra_count"`
	Repaired  uint64             `json:"repaired"`
	Unchecked []UncheckedRecords `json:"unchecked"` // collections that could not be compared
	StartedAt time.Time          `json:"started_at"`
	EndedAt   time.Time          `json:"ended_at"`

	// Raw is the answer's own text, for what this client does not know.
	Raw json.RawMessage `json:"-"`
}

// SyncRecord names a record of an API.
type SyncRecord struct {
	Collection string `json:"collection"` // stripe:customer
	ID         string `json:"id"`         // the API's
}

// UncheckedRecords says why a collection could not be compared.
type UncheckedRecords struct {
	Collection string `json:"collection"`
	Reason     string `json:"reason"`
}

// UnmarshalJSON keeps the text beside the fields.
func (v *Verification) UnmarshalJSON(data []byte) error {
	type plain Verification
	if err := json.Unmarshal(data, (*plain)(v)); err != nil {
		return err
	}
	v.Raw = append(json.RawMessage(nil), data...)
	return nil
}

// verifyTime is how long a comparison may take: all of an API, within its limits.
const verifyTime = 24 * time.Hour

// VerifySync compares the API with its mirror. It takes as long as reading all of it
// does; when ctx ends, so does the comparison.
func (c *Client) VerifySync(ctx context.Context, name string, o VerifyOptions) (Verification, error) {
	var out Verification
	err := c.do(ctx, call{method: http.MethodPost, path: syncPath(name, "verify"), body: o, wait: verifyTime}, &out)
	return out, err
}

// SyncEntry is a line of the log of what a sync did.
type SyncEntry struct {
	ID         int64           `json:"id"` // ascending
	At         time.Time       `json:"at"`
	Kind       string          `json:"kind"` // backfill, poll, sweep, schema, pause, …
	Collection string          `json:"collection"`
	Outcome    string          `json:"outcome"` // started, completed, held, failed, …
	Message    string          `json:"message"`
	Payload    json.RawMessage `json:"payload"` // figures, by kind

	// Raw is the answer's own text, for what this client does not know.
	Raw json.RawMessage `json:"-"`
}

// UnmarshalJSON keeps the text beside the fields.
func (e *SyncEntry) UnmarshalJSON(data []byte) error {
	type plain SyncEntry
	if err := json.Unmarshal(data, (*plain)(e)); err != nil {
		return err
	}
	e.Raw = append(json.RawMessage(nil), data...)
	return nil
}

// SyncLog returns up to limit (1 to 1000) lines of a sync's log with ids below before,
// newest first; 0: the newest.
func (c *Client) SyncLog(ctx context.Context, name string, before int64, limit int) ([]SyncEntry, error) {
	query := url.Values{"limit": {strconv.Itoa(limit)}}
	if before > 0 {
		query.Set("cursor", strconv.FormatInt(before, 10))
	}
	var out page[SyncEntry]
	err := c.do(ctx, call{method: http.MethodGet, path: syncPath(name, "log"), query: query, retry: repeatable}, &out)
	return out.Data, err
}

func (c *Client) sync(ctx context.Context, k call) (Sync, error) {
	var out Sync
	err := c.do(ctx, k, &out)
	return out, err
}

func syncPath(name string, more ...string) []string {
	return append([]string{"v1", "syncs", name}, more...)
}
