package verify

import "time"

// Shown is how many differences of each kind a [Result] lists.
const Shown = 1000

// Result is what a comparison found.
type Result struct {
	Checked                  uint64       // records that were compared
	Missing                  []Difference // in the API and not in Postgres; at most [Shown]
	Stale                    []Difference // different in Postgres; at most [Shown]
	Extra                    []Difference // in Postgres and not in the API; at most [Shown]
	MissingN, StaleN, ExtraN uint64       // all of them
	Repaired                 uint64       // records that a repair put right
	Unchecked                []Unchecked  // collections that could not be compared
	StartedAt, EndedAt       time.Time
}

// Difference is one record that differs.
type Difference struct {
	Collection string `json:"collection"` // with the provider: stripe:customer
	ID         string `json:"id"`         // the API's
	Hint       string `json:"hint,omitempty"`
}

// Unchecked is a collection that could not be compared, and why.
type Unchecked struct {
	Collection string `json:"collection"`
	Reason     string `json:"reason"`
}
