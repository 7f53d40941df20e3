// Package sink is the contract between Lockstep and a destination that changes are
// sent to. A destination implements [Sink]; package locksteptest has the suite that
// holds it to what is promised here.
//
// # What the one who calls promises
//
//  1. Changes of one Key come in the order of their Seq, and a later one only after
//     the earlier ones were delivered or given up. Calls run concurrently for
//     different keys, never for one.
//  2. What was not delivered comes again, with the same IdempotencyKey and body.
//  3. A message is not changed while Write runs, and not used by the sink afterwards.
//
// # What a Sink promises
//
//  1. What Write says is delivered is as durable as the destination makes it.
//  2. A message that is delivered twice has the effect of one, where the destination
//     can tell by its key, its id or its seq; the sink's documentation says whether.
//  3. Write returns soon after its context ends, and leaves nothing running.
//  4. An error says which destination refused what, and holds no secret and no data
//     of records.
package sink

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"lockstep"
)

// Message is one change on its way to a destination.
type Message struct {
	Seq            uint64
	Key            uint64 // hash of what orders it; 0 is a key like any other
	Action         lockstep.Action
	Database       string
	Schema, Table  string          // empty for changes of everything
	PKs            json.RawMessage // array of texts in key order; [] when there is no key
	IdempotencyKey string          // equal on each redelivery
	CommitTime     time.Time
	Attempt        int // 1 for the first
	// Of mirrored records in the API's view, whose: the sync's name, the provider, and the
	// collection such as stripe:customer. Empty: it is a row.
	Sync, Provider, Collection string
	// Record is the row after the change (for a delete: as it was), the API's view or the
	// transform's result; null for whole-table changes.
	Record json.RawMessage
	// Body is the whole message of the wire contract: record, changes, action, metadata.
	Body json.RawMessage
}

// Sink is a destination.
type Sink interface {
	// Write delivers messages. The first n are delivered when it returns; n is less than
	// their number only with an error. An error of type [*PartialError] names those that
	// failed, and all others are delivered; any other error is about the message n, and
	// what became of those behind it is not known. The error's kind says what comes next:
	// see [Error].
	Write(ctx context.Context, messages []Message) (n int, err error)
	// Close ends what the sink holds open. Further calls do nothing.
	Close(ctx context.Context) error
}

// Kind says what to do about an error. Errors that are no [*Error] are of kind [Retry].
type Kind string

// The kinds of errors.
const (
	Retry     Kind = "retry"     // the same again, after a pause: the destination is away or busy
	Throttled Kind = "throttled" // the same again, not before After; nothing is wrong with the message
	Rejected  Kind = "rejected"  // this message is refused for what it is; others may pass
	Refused   Kind = "refused"   // the destination refuses everything: a person must act
	Gone      Kind = "gone"      // the destination wants no more: nothing is sent until a person says so
)

// Error is a destination's refusal.
type Error struct {
	Kind    Kind
	After   time.Duration // for Throttled and Retry: at least so long; 0: not said
	Status  int           // of HTTP; 0: there is none
	Message string
	Err     error
}

// Error implements error.
func (e *Error) Error() string { return e.Message }

// Unwrap returns the cause, if there is one.
func (e *Error) Unwrap() error { return e.Err }

// Retryable reports whether the same may succeed later; see lockstep.Retryable.
func (e *Error) Retryable() bool { return e.Kind == Retry || e.Kind == Throttled }

// PartialError names the messages of a batch that were not delivered.
type PartialError struct {
	Failed []Failure // ascending by Index
}

// Failure is one message that was not delivered.
type Failure struct {
	Index int // in the batch
	Err   error
}

// Error implements error.
func (e *PartialError) Error() string {
	if len(e.Failed) == 0 {
		return "no message failed"
	}
	return fmt.Sprintf("%d messages were not delivered, the first: %v", len(e.Failed), e.Failed[0].Err)
}

// Unwrap returns the errors of the messages.
func (e *PartialError) Unwrap() []error {
	list := make([]error, len(e.Failed))
	for i, f := range e.Failed {
		list[i] = f.Err
	}
	return list
}
