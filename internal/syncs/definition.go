// Package syncs runs the syncs of a node: those of its configuration and those made
// by API.
package syncs

import (
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"lockstep"
	"lockstep/internal/pull"
)

// Definition says which account of which API is mirrored, and where.
type Definition struct {
	ID       string `json:"id,omitempty"` // a uuid; names the saved state, so it never changes
	Name     string `json:"name,omitempty"`
	Provider string `json:"provider,omitempty"` // stripe, github or rest
	Spec     string `json:"spec,omitempty"`     // of provider rest: the YAML itself
	SpecFile string `json:"spec_file,omitempty"`
	BaseURL  string `json:"base_url,omitempty"` // empty: the API itself
	// Credential is kept apart from the rest, sealed, and never shown.
	Credential  Credential      `json:"-"`
	Collections []string        `json:"collections,omitempty"` // stripe:customer; empty: all
	Database    string          `json:"database,omitempty"`
	Schema      string          `json:"schema,omitempty"`
	RateLimit   RateLimit       `json:"rate_limit"`
	Every       time.Duration   `json:"every,omitempty"` // pause between polls; 0: as the API's spec says
	ExternalID  string          `json:"external_id,omitempty"`
	Metadata    json.RawMessage `json:"metadata,omitempty"` // the user's, never read here
	Paused      bool            `json:"paused,omitzero"`
	ManagedBy   string          `json:"managed_by,omitempty"`   // file, api or apply
	AppliedFrom string          `json:"applied_from,omitempty"` // the file of one that is managed by apply
	CreatedAt   time.Time       `json:"created_at,omitzero"`
	UpdatedAt   time.Time       `json:"updated_at,omitzero"`
}

// Credential lets a sync into an account.
type Credential struct {
	Kind       string            `json:"kind,omitempty"` // stripe_key, github_token, …: for people; the properties decide
	Properties map[string]string `json:"properties"`
}

// RateLimit narrows what the API's own limits allow. A zero field leaves those.
type RateLimit struct {
	RequestsPerSecond float64 `json:"requests_per_second,omitempty"`
	MaxConcurrent     int     `json:"max_concurrent,omitempty"`
	Reserve           float64 `json:"reserve,omitempty"` // share that is left to others, 0 to 1
}

// View is a sync as it is now.
type View struct {
	Definition Definition
	Status     pull.Status
}

// Entry is a line of the log of what a sync did.
type Entry struct {
	ID         int64 // ascending
	At         time.Time
	Kind       string // backfill, poll, sweep, schema, pause, …
	Collection string
	Outcome    string // started, completed, held, failed, …
	Message    string
	Payload    json.RawMessage
}

// Problem is one fault of a definition.
type Problem struct {
	Field   string // as in JSON and YAML, for example rate_limit.reserve
	Message string // what is wrong, and what to do
}

// DefinitionError holds all faults of a definition. It wraps [lockstep.ErrInvalid].
type DefinitionError struct {
	Name     string // the sync's
	Problems []Problem
}

// Error implements error.
func (e *DefinitionError) Error() string {
	parts := make([]string, len(e.Problems))
	for i, p := range e.Problems {
		parts[i] = p.Field + ": " + p.Message
	}
	return fmt.Sprintf("sync %s: %s", e.Name, strings.Join(parts, "; "))
}

// Unwrap returns [lockstep.ErrInvalid].
func (e *DefinitionError) Unwrap() error { return lockstep.ErrInvalid }

// VerifyOptions says what is compared, and whether what differs is put right.
type VerifyOptions struct {
	Collections []string // with or without the provider; empty: all
	Repair      bool
}
