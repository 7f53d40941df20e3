package pull

import "time"

// State is what a sync, or one of its collections, is doing.
type State string

// The states.
const (
	Starting    State = "starting"    // nothing has been asked yet
	Waiting     State = "waiting"     // another engine works on the sync
	Backfilling State = "backfilling" // everything is read for the first time, or again
	Polling     State = "polling"     // the mirror follows the API
	Paused      State = "paused"      // by a person
	Failing     State = "failing"     // the last calls failed; they are tried again
	Blocked     State = "blocked"     // a person must act: the credential, a scope, the schema
)

// Status says how a sync is.
type Status struct {
	State State
	// Reason says why, for Waiting, Failing and Blocked: what was asked, what the answer
	// was, and what to do.
	// Of Polling it says since when the mirror is behind, and why.
	Reason  string
	Account string // who the credential belongs to, as the API says; empty: not known yet
	// BackfilledAt is when every collection had been read once; zero: not yet.
	BackfilledAt time.Time
	Collections  []Collection // by name
	Quotas       []Quota      // by bucket
}

// Collection says how one collection is.
type Collection struct {
	Name     string // with the provider: stripe:customer
	Table    string // schema.name
	State    State
	Reason   string
	Records  uint64    // that the running or last backfill has read
	Rate     float64   // of the running backfill, records per second
	PolledAt time.Time // when the API was last asked, by our clock, and everything it told is in Postgres
	NextAt   time.Time // when it is asked next; zero: not planned
	SweptAt  time.Time // when the last complete sweep began; zero: never
	Changed  uint64    // rows written since the start of the engine
	Deleted  uint64
	Parked   int // records that the table refused
}

// Quota is what the API said is left of a limit.
type Quota struct {
	Bucket    string
	Limit     float64 // requests, or what the API counts; 0: not known
	Remaining float64 // -1: not known
	ResetAt   time.Time
	PausedTo  time.Time // after a refusal; zero: not paused
	Refusals  uint64    // answers that said "too often"
	Requests  uint64
	Waiting   int // requests for changes that wait now
}
