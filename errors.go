package lockstep

import "errors"

// The kinds of errors that callers branch on. Wrap them with %w and say what was
// being done, for which database, table or consumer, and what to do about it.
var (
	ErrNotFound    = errors.New("not found")
	ErrConflict    = errors.New("conflict")
	ErrInvalid     = errors.New("invalid")
	ErrUnavailable = errors.New("unavailable")   // try again later; nothing was changed
	ErrFenced      = errors.New("fenced")        // somebody else writes here now
	ErrEnvironment = errors.New("environment")   // the machine lacks something: exit code 3
	ErrCorrupt     = errors.New("corrupt batch") // stored bytes are not what was written
)

// RetentionError says that a reader asked for changes that retention has removed.
type RetentionError struct {
	Asked uint64 // the seq that was asked for
	First uint64 // the oldest seq that is still there
}

// Error implements error.
func (e *RetentionError) Error() string {
	return "changes before seq " + utoa(e.First) + " were removed by retention; asked for seq " + utoa(e.Asked)
}

// Missed returns how many changes lie between what was asked for and what is there.
func (e *RetentionError) Missed() uint64 { return e.First - e.Asked }

// Retryable reports whether doing the same thing again may succeed without
// anybody changing anything. It is the only place where that is decided. An error that
// knows has a method Retryable; what the standard library calls temporary is not asked,
// as a broken connection is not to it.
func Retryable(err error) bool {
	if err == nil {
		return false
	}
	var told interface{ Retryable() bool }
	if errors.As(err, &told) {
		return told.Retryable()
	}
	for _, final := range []error{ErrNotFound, ErrConflict, ErrInvalid, ErrFenced, ErrEnvironment, ErrCorrupt} {
		if errors.Is(err, final) {
			return false
		}
	}
	return true
}

func utoa(n uint64) string {
	var b [20]byte
	i := len(b)
	for {
		i--
		b[i] = byte('0' + n%10)
		if n /= 10; n == 0 {
			return string(b[i:])
		}
	}
}
