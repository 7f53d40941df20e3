// Package source is the contract between Lockstep and an API that it mirrors. A
// connector implements [Source], and [Writer] and [Receiver] where the API allows;
// package rest does so for any API that a declarative spec describes.
//
// # Guarantees that every Source gives
//
//  1. A page is whole or an error: a body that was cut off, an HTML page with status
//     200 or an answer for another account is never taken for records.
//  2. Cursors are plain JSON without secrets. The same cursor may be used again, after
//     any crash; it gives the same records or newer versions of them.
//  3. Start is called before the first Backfill. Changes from its cursor on and the
//     whole backfill together miss no record, however late the API shows it within
//     the collection's trailing period.
//  4. Lost access is an error of kind [Forbidden], never a deletion.
//  5. Every request goes through the [Limiter] before it leaves, and its answer's
//     headers go back to it.
//  6. Record data is the API's JSON, byte for byte but for what is invalid in
//     Postgres' jsonb.
package source

import (
	"context"
	"encoding/json"
	"net/http"
	"time"
)

// Cursor is a place in a list, in the source's own words. Empty: its beginning.
type Cursor = json.RawMessage

// Record is one object of an API as one request showed it.
type Record struct {
	Collection string
	ID         string    // the API's id as text, exact
	Version    time.Time // when the API says that it changed last; zero: it does not say
	Created    time.Time // zero: not known
	Rank       Rank
	Deleted    bool            // the API says that it is gone; Data may be nil
	Reason     string          // why it is taken for deleted: event, flag, feed, not_found
	Data       json.RawMessage // nil: only the id is known (a hint, or a sweep)
}

// Rank orders two records of one version by how much they can be trusted.
type Rank uint8

// The ranks, worst first: a search index, an event's payload, the list, the object itself.
const (
	RankSearch Rank = iota
	RankEvent
	RankList
	RankObject
)

// Page is what one call brought.
type Page struct {
	Records []Record
	Next    Cursor    // where to go on; nil: the end was reached
	At      time.Time // the API's clock when it answered
	// More says, for Changes, that Next should be asked at once: the end was not reached.
	More bool
}

// Collection is one list of records.
type Collection struct {
	Name   string  // as behind the provider's name in stripe:customer
	Fields []Field // typed columns; nil: discovered from the records
	// Feed is what Changes is asked for; several collections may share one feed.
	// Empty: changes are found by Backfill and sweeps only.
	Feed string
	// Also are further feeds that tell what Feed does not, such as creations.
	Also     []string
	Volatile []string // dotted paths that change without meaning; left out of the fingerprint
	// Every is the pause between polls of the feed, Settle how long the API may show
	// changes out of order, Trailing how late it may show them at all, SweepEvery
	// how often all ids are listed to find deletions; 0: never.
	Every, Settle, Trailing, SweepEvery time.Duration
	Get                                 bool // records can be fetched by id
	IDs                                 bool // ids can be listed for a sweep
	Virtual                             bool // computed by the API; has no deletions and no version
}

// Type is the kind of a column.
type Type string

// The types of columns. A value that does not fit is NULL there, and noted.
const (
	Text      Type = "text"
	Boolean   Type = "boolean"
	Integer   Type = "bigint"
	Numeric   Type = "numeric"
	Double    Type = "double precision"
	Timestamp Type = "timestamptz" // from RFC 3339
	Unix      Type = "unix"        // timestamptz from seconds since 1970
	UnixMilli Type = "unix_ms"     // timestamptz from milliseconds since 1970
	Date      Type = "date"
	JSON      Type = "jsonb"
	TextArray Type = "text[]"
)

// Field is one typed column.
type Field struct {
	Name string // the column's, in snake_case
	Path string // in the record's data, dotted; default Name
	Key  string // the API's own id of the field, which survives a rename; default Path
	Type Type
}

// Source reads an API. All methods may be called concurrently, for other collections.
type Source interface {
	// Check asks the API whether the credential works, and returns who it is.
	Check(ctx context.Context) (account string, err error)
	Collections(ctx context.Context) ([]Collection, error)
	// Start returns where Changes of a feed goes on after a backfill that begins now.
	Start(ctx context.Context, feed string) (Cursor, error)
	// Backfill returns the page at a cursor of everything that the API lists.
	Backfill(ctx context.Context, collection string, at Cursor) (Page, error)
	// Changes returns what changed in a feed since the cursor, oldest first, but
	// nothing younger than settle. A cursor that is too old gives an error of kind Restart.
	Changes(ctx context.Context, feed string, at Cursor, settle time.Duration) (Page, error)
	// IDs returns a page of ids (and versions where the list shows them), for a sweep.
	IDs(ctx context.Context, collection string, at Cursor) (Page, error)
	// Get fetches records by id. One that does not exist comes back Deleted.
	Get(ctx context.Context, collection string, ids []string) (Page, error)
}

// Learner is a source that cannot fetch every record by its id alone: it has to know
// more of it, such as the repository of an issue.
type Learner interface {
	// Learn tells it what is mirrored of records, before they are fetched. It asks
	// nothing of the API and may forget.
	Learn(records []Record)
}

// Write is one write to an API.
type Write struct {
	Collection string
	Action     string // create, update, upsert, delete
	ID         string
	Data       json.RawMessage
	Key        string // identity of this write, for idempotency; at most 64 characters
}

// Writer writes to an API.
type Writer interface {
	// Write performs the write and returns the record as the API has it then. Repeated
	// with the same Key it has no second effect where the API knows such keys; where
	// it does not, an error in doubt has kind Unknown.
	Write(ctx context.Context, w Write) (Record, error)
}

// Receiver takes an API's webhooks.
type Receiver interface {
	// Receive checks the signature over the raw body and returns what the call is
	// about, as records without data: a hint to fetch them, no truth by itself.
	Receive(ctx context.Context, header http.Header, body []byte) ([]Record, error)
}

// Priority orders requests that wait for one limit.
type Priority uint8

// The priorities, first served first.
const (
	Writing Priority = iota
	Changing
	Hydrating
	Trailing
	Backfilling
	Sweeping
)

// Limiter spaces the requests of one account.
type Limiter interface {
	// Wait blocks until a request of that cost may leave through the buckets. release
	// must be called when its answer has been read; answer is nil if there was none.
	Wait(ctx context.Context, buckets []string, p Priority, cost float64) (release func(answer *http.Response), err error)
	// Penalize stops a bucket for a while: the API said that it was asked too often.
	Penalize(bucket string, pause time.Duration)
}

// WithPriority and PriorityOf carry a call's priority to the requests it makes.
func WithPriority(ctx context.Context, p Priority) context.Context {
	return context.WithValue(ctx, priorityKey{}, p)
}

// PriorityOf returns the priority of a call; Backfilling when none was set.
func PriorityOf(ctx context.Context) Priority {
	if p, ok := ctx.Value(priorityKey{}).(Priority); ok {
		return p
	}
	return Backfilling
}

type priorityKey struct{}

// Kind says what to do about an error.
type Kind string

// The kinds of errors.
const (
	Retry        Kind = "retry"        // the same again, after a pause
	RateLimited  Kind = "rate_limited" // the same again, not before After
	Restart      Kind = "restart"      // the cursor is of no use any more: backfill again, delete nothing for it
	Gone         Kind = "gone"         // the object does not exist any more
	Forbidden    Kind = "forbidden"    // no access: not a deletion
	Unauthorized Kind = "unauthorized" // the credential is refused: a person must act
	Invalid      Kind = "invalid"      // the API refuses the request itself
	Unknown      Kind = "unknown"      // a write may have happened or not
	Failed       Kind = "failed"       // anything else; not retried at once
)

// Error is an API's refusal.
type Error struct {
	Kind   Kind
	Status int           // of HTTP; 0: there was no answer
	After  time.Duration // for RateLimited and Retry: at least so long; 0: not said
	Bucket string        // for RateLimited: which one
	// Message says what was asked of which API, what it answered, and what to do. It
	// holds no credential.
	Message string
	Err     error
}

// Error implements error.
func (e *Error) Error() string { return e.Message }

// Unwrap returns the cause, if there is one.
func (e *Error) Unwrap() error { return e.Err }

// Retryable reports whether the same request may succeed later; see lockstep.Retryable.
func (e *Error) Retryable() bool { return e.Kind == Retry || e.Kind == RateLimited }
