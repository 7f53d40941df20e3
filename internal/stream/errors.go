package stream

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/nats-io/nats.go/jetstream"

	"lockstep"
)

// CorruptError says that stored changes are damaged. They are never served; a
// reader goes on after them with Seek(Last+1).
type CorruptError struct {
	Database    string
	First, Last uint64 // the seqs that are lost
	Err         error  // wraps lockstep.ErrCorrupt
}

// Error implements error.
func (e *CorruptError) Error() string {
	return fmt.Sprintf("changes %d to %d of database %q are damaged in the stream: %v", e.First, e.Last, e.Database, e.Err)
}

// Unwrap returns the cause, which wraps lockstep.ErrCorrupt.
func (e *CorruptError) Unwrap() error { return e.Err }

var (
	errMissing = errors.New("no such message")
	errClosed  = fmt.Errorf("the stream is closed: %w", lockstep.ErrUnavailable)
)

// unavailable marks an error of the connection or the server as one that may pass.
// What the caller's own context says stays what it is.
func unavailable(err error) error {
	if err == nil || errors.Is(err, context.Canceled) || errors.Is(err, lockstep.ErrUnavailable) {
		return err
	}
	return fmt.Errorf("%w: %w", lockstep.ErrUnavailable, err)
}

// JetStream's codes for a publish that expected another end of the stream.
const (
	codeWrongLastSequence         = 10071
	codeWrongLastSequenceConstant = 10164
)

// JetStream's codes for a deletion.
const (
	codeSequenceNotFound = 10043
	codeDeleteFailed     = 10057
)

type apiError struct {
	Code        int    `json:"code"`
	ErrCode     int    `json:"err_code"`
	Description string `json:"description"`
}

func (e *apiError) fencing() bool {
	return e.ErrCode == codeWrongLastSequence || e.ErrCode == codeWrongLastSequenceConstant
}

// missing reports whether a deletion was refused because there is no such message.
func (e *apiError) missing() bool {
	return e.ErrCode == codeSequenceNotFound || e.ErrCode == codeDeleteFailed && (strings.Contains(e.Description, "no message found") || strings.Contains(e.Description, "EOF"))
}

// asError explains a refused publish that expected the stream to end at expected.
func (e *apiError) asError(expected uint64) error {
	if !e.fencing() {
		return fmt.Errorf("the stream refused the batch: %s: %w", e.Description, lockstep.ErrUnavailable)
	}
	var actual uint64
	if _, text, ok := strings.Cut(e.Description, "wrong last sequence: "); ok {
		if _, err := fmt.Sscan(text, &actual); err == nil && actual < expected {
			// Not another writer: the server lost its end, so the log must be looked at anew.
			return fmt.Errorf("the stream ends at message %d instead of %d: %w", actual, expected, lockstep.ErrUnavailable)
		}
	}
	return fmt.Errorf("somebody else wrote to the stream (%s): %w", e.Description, lockstep.ErrFenced)
}

func isWrongLast(err error) bool {
	var api *jetstream.APIError
	if !errors.As(err, &api) {
		return false
	}
	return api.ErrorCode == codeWrongLastSequence || api.ErrorCode == codeWrongLastSequenceConstant
}
