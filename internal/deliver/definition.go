package deliver

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/google/uuid"

	"lockstep"
	"lockstep/internal/filter"
	"lockstep/internal/pattern"
)

// The values of [Definition.OnExhausted].
const (
	Park    = "park"     // the change goes to the dead letters, its key goes on
	ParkKey = "park_key" // it and all later ones of its key go to the dead letters
	Block   = "block"    // its key waits for a person
)

// The limits of a definition.
const (
	MaxAckWait    = 12 * time.Hour
	MinAckWait    = 10 * time.Millisecond
	MaxInFlight   = 200_000 // what is out is saved one by one, and a saved state has its size
	MaxBatch      = 1000
	maxBackoff    = 30 * 24 * time.Hour
	maxColumns    = 32
	maxNameLength = 200
)

// Definition says what a consumer gets, and how.
type Definition struct {
	ID       string   `json:"id"` // a uuid; names the saved state, so it never changes
	Name     string   `json:"name"`
	Kind     string   `json:"kind"`
	Database string   `json:"database"`
	Tables   []string `json:"tables"` // patterns; empty: every table
	// Collections select the changes of mirror tables in the place of Tables:
	// stripe:customer, stripe:* or * for all. Their consumers see a row as the API's
	// object, in messages, filters and transforms; changes is null in this form, and
	// the order_by columns are those of the table. Sync narrows them to one sync, by
	// its id or name.
	Collections []string          `json:"collections,omitempty"`
	Sync        string            `json:"sync,omitempty"`
	Actions     []lockstep.Action `json:"actions"` // empty: insert, update, delete. Read, truncate and gap are always included
	Filter      string            `json:"filter,omitempty"`
	Transform   string            `json:"transform,omitempty"`
	// Start matters when the consumer is made: now, beginning, seq:N, a time of
	// RFC 3339, or a duration before now such as 1h.
	Start string `json:"start"`
	// Backfill asks for the rows that exist, as action read. Whoever runs backfills
	// reads them; delivery itself only keeps the wish.
	Backfill    bool          `json:"backfill,omitempty"`
	OrderBy     OrderBy       `json:"order_by"`
	AckWait     time.Duration `json:"ack_wait"`      // how long a delivery is leased
	MaxInFlight int           `json:"max_in_flight"` // changes handed out and not settled
	MaxAttempts int           `json:"max_attempts"`  // 0: for ever
	OnExhausted string        `json:"on_exhausted"`  // Park, ParkKey or Block
	Backoff     Backoff       `json:"backoff"`
	// Batch says how kinds that send put changes together.
	Batch     Batch           `json:"batch"`
	Settings  json.RawMessage `json:"-"`                  // what the kind needs; may hold secrets, never read here
	Shown     json.RawMessage `json:"settings,omitempty"` // Settings without its secrets
	Metadata  json.RawMessage `json:"metadata,omitempty"` // the user's, never read here
	Paused    bool            `json:"paused"`
	ManagedBy string          `json:"managed_by"` // api, file or apply
	// AppliedFrom names the file of one that is managed by apply.
	AppliedFrom string    `json:"applied_from,omitempty"`
	CreatedAt   time.Time `json:"created_at"`
	UpdatedAt   time.Time `json:"updated_at"`
}

// Backoff is how long a change waits after a nack: First after the first attempt,
// twice as long after each further one, at most Max, each time moved at random by
// up to the share Jitter of itself in either direction.
type Backoff struct {
	First  time.Duration `json:"first"`
	Max    time.Duration `json:"max"`
	Jitter float64       `json:"jitter"` // 0 to 1
}

// Batch is how kinds that send put changes together: at most Size, at most Wait after
// the first.
type Batch struct {
	Size int           `json:"size"`
	Wait time.Duration `json:"wait"`
}

// MaxBatchWait is how long a change may wait for others to go with.
const MaxBatchWait = time.Hour

// DefaultBackoff is the backoff of consumers that say nothing of it.
func DefaultBackoff() Backoff {
	return Backoff{First: time.Second, Max: 10 * time.Minute, Jitter: 0.15}
}

// OrderBy says which changes follow each other: those of one key (zero value),
// those with equal values of Columns, or none.
type OrderBy struct {
	None    bool
	Columns []string
}

// String returns key, none, or the columns joined by commas.
func (o OrderBy) String() string {
	switch {
	case o.None:
		return "none"
	case len(o.Columns) > 0:
		return strings.Join(o.Columns, ",")
	}
	return "key"
}

// MarshalJSON writes "key", "none" or the list of columns.
func (o OrderBy) MarshalJSON() ([]byte, error) {
	if len(o.Columns) > 0 && !o.None {
		return json.Marshal(o.Columns)
	}
	return json.Marshal(o.String())
}

// UnmarshalJSON reads what MarshalJSON writes.
func (o *OrderBy) UnmarshalJSON(data []byte) error {
	*o = OrderBy{}
	var word string
	if json.Unmarshal(data, &word) == nil {
		switch word {
		case "key", "":
			return nil
		case "none":
			o.None = true
			return nil
		}
		return fmt.Errorf("order_by %q: use key, none or a list of columns: %w", word, lockstep.ErrInvalid)
	}
	if err := json.Unmarshal(data, &o.Columns); err != nil {
		return fmt.Errorf("order_by: use key, none or a list of columns: %w", lockstep.ErrInvalid)
	}
	return nil
}

// Equal reports whether both order changes alike.
func (o OrderBy) Equal(p OrderBy) bool { return o.None == p.None && slices.Equal(o.Columns, p.Columns) }

// Defaults fills in what was left out.
func (d *Definition) Defaults() {
	setDefault(&d.Kind, "http")
	setDefault(&d.Start, "now")
	setDefault(&d.AckWait, 30*time.Second)
	setDefault(&d.MaxInFlight, 1000)
	setDefault(&d.OnExhausted, Park)
	setDefault(&d.Batch.Size, 1)
	setDefault(&d.ManagedBy, "api")
	if d.Backoff == (Backoff{}) {
		d.Backoff = DefaultBackoff()
	}
	setDefault(&d.Backoff.First, time.Second)
	setDefault(&d.Backoff.Max, max(10*time.Minute, d.Backoff.First))
}

func setDefault[T comparable](field *T, value T) {
	var zero T
	if *field == zero {
		*field = value
	}
}

// Problem is one fault of a definition.
type Problem struct {
	Field   string // as in JSON and YAML, for example backoff.max
	Message string
}

// DefinitionError holds all faults of a definition. It wraps lockstep.ErrInvalid.
type DefinitionError struct {
	Name     string // the consumer's
	Problems []Problem
}

// Error implements error.
func (e *DefinitionError) Error() string {
	var b strings.Builder
	fmt.Fprintf(&b, "consumer %s", e.Name)
	for i, p := range e.Problems {
		sep := "; "
		if i == 0 {
			sep = ": "
		}
		fmt.Fprintf(&b, "%s%s: %s", sep, p.Field, p.Message)
	}
	return b.String()
}

// Unwrap makes the error one of the kind lockstep.ErrInvalid.
func (e *DefinitionError) Unwrap() error { return lockstep.ErrInvalid }

// Validate returns all faults in one *DefinitionError, or nil.
func (d Definition) Validate() error {
	v := validation{}
	v.identity(d)
	v.selection(d)
	v.delivery(d)
	if len(v.problems) == 0 {
		return nil
	}
	name := d.Name
	if name == "" {
		name = d.ID
	}
	return &DefinitionError{Name: name, Problems: v.problems}
}

type validation struct{ problems []Problem }

func (v *validation) add(field, format string, args ...any) {
	v.problems = append(v.problems, Problem{Field: field, Message: fmt.Sprintf(format, args...)})
}

func (v *validation) identity(d Definition) {
	if _, err := uuid.Parse(d.ID); err != nil {
		v.add("id", "%q is not a uuid", d.ID)
	}
	if d.Name == "" || len(d.Name) > maxNameLength {
		v.add("name", "a name of 1 to %d bytes is needed", maxNameLength)
	} else if _, err := uuid.Parse(d.Name); err == nil && d.Name != d.ID {
		v.add("name", "a name must not look like a uuid: ids are found by the same word")
	}
	if d.Database == "" {
		v.add("database", "say which database's changes the consumer gets")
	}
	if len(d.Metadata) > 0 && !json.Valid(d.Metadata) {
		v.add("metadata", "not a JSON value")
	}
}

func (v *validation) selection(d Definition) {
	if _, err := pattern.Parse(d.Tables); err != nil {
		v.add("tables", "%v", err)
	}
	for i, text := range d.Collections {
		if _, err := parseCollection(text); err != nil {
			v.add(fmt.Sprintf("collections[%d]", i), "%v", err)
		}
	}
	if len(d.Tables) > 0 && len(d.Collections) > 0 {
		v.add("collections", "a consumer gets either tables or collections, since their records have different forms: give one of them (a change may give the other one as an empty list)")
	}
	if d.Sync != "" && len(d.Collections) == 0 {
		v.add("sync", "it says whose collections the consumer gets: give collections too, for example \"*\"")
	}
	for _, a := range d.Actions {
		if a < lockstep.Insert || a > lockstep.Gap {
			v.add("actions", "unknown action %d: use insert, update, delete", a)
		}
	}
	if err := checkExpression(filter.Filter, d.Filter); err != nil {
		v.add("filter", "%v", err)
	}
	if err := checkExpression(filter.Transform, d.Transform); err != nil {
		v.add("transform", "%v", err)
	}
	if _, err := parsePlace(d.Start); err != nil {
		v.add("start", "%v", err)
	}
	if d.OrderBy.None && len(d.OrderBy.Columns) > 0 {
		v.add("order_by", "either none or columns")
	}
	if len(d.OrderBy.Columns) > maxColumns || slices.Contains(d.OrderBy.Columns, "") {
		v.add("order_by", "at most %d columns, none of them empty", maxColumns)
	}
}

func (v *validation) delivery(d Definition) {
	if d.AckWait < MinAckWait || d.AckWait > MaxAckWait {
		v.add("ack_wait", "%s is out of range: use %s to %s", d.AckWait, MinAckWait, MaxAckWait)
	}
	if d.MaxInFlight < 1 || d.MaxInFlight > MaxInFlight {
		v.add("max_in_flight", "%d is out of range: use 1 to %d", d.MaxInFlight, MaxInFlight)
	}
	if d.MaxAttempts < 0 || d.MaxAttempts > 1_000_000 {
		v.add("max_attempts", "%d is out of range: use 0 (for ever) to 1000000", d.MaxAttempts)
	}
	if !slices.Contains([]string{Park, ParkKey, Block}, d.OnExhausted) {
		v.add("on_exhausted", "%q is unknown: use park, park_key or block", d.OnExhausted)
	}
	if d.Batch.Size < 0 || d.Batch.Size > MaxBatch {
		v.add("batch.size", "%d is out of range: use 1 to %d", d.Batch.Size, MaxBatch)
	}
	if d.Batch.Wait < 0 || d.Batch.Wait > MaxBatchWait {
		v.add("batch.wait", "%s is out of range: use 0s to %s", d.Batch.Wait, MaxBatchWait)
	}
	if d.Backoff.First < 0 || d.Backoff.First > maxBackoff {
		v.add("backoff.first", "%s is out of range: use 0s to %s", d.Backoff.First, maxBackoff)
	}
	if d.Backoff.Max < d.Backoff.First || d.Backoff.Max > maxBackoff {
		v.add("backoff.max", "%s is out of range: use backoff.first to %s", d.Backoff.Max, maxBackoff)
	}
	if !(d.Backoff.Jitter >= 0 && d.Backoff.Jitter <= 1) {
		v.add("backoff.jitter", "%v is out of range: use 0 to 1", d.Backoff.Jitter)
	}
}

func checkExpression(kind filter.Kind, source string) error {
	if source == "" {
		return nil
	}
	_, err := filter.Compile(kind, source)
	return err
}

// place is where in the stream a consumer begins, or is sent by a seek.
type place struct {
	word string // now, beginning, or empty
	seq  uint64
	time time.Time
	ago  time.Duration
}

func parsePlace(text string) (place, error) {
	switch text {
	case "now", "beginning":
		return place{word: text}, nil
	}
	if number, ok := strings.CutPrefix(text, "seq:"); ok {
		seq, err := strconv.ParseUint(number, 10, 64)
		if err != nil || seq == 0 {
			return place{}, fmt.Errorf("%q is not a place: a seq is a number from 1 on", text)
		}
		return place{seq: seq}, nil
	}
	if at, err := time.Parse(time.RFC3339, text); err == nil {
		return place{time: at}, nil
	}
	if ago, err := time.ParseDuration(text); err == nil && ago >= 0 {
		return place{ago: ago, word: "ago"}, nil
	}
	return place{}, errors.New("use now, beginning, seq:1234, a time such as 2026-11-01T00:00:00Z, or 1h for an hour ago; got " + strconv.Quote(text))
}
