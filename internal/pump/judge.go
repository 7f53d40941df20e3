package pump

import (
	"errors"
	"time"

	"lockstep/sink"
)

// errUnknown is what became of messages that a sink said nothing of.
var errUnknown = errors.New("the destination did not get to it")

// errShort is a sink that breaks its contract.
var errShort = errors.New("the sink delivered less than it was given, without an error")

// judge spreads what Write returned over its messages: nil is delivered.
func judge(count, n int, err error) []error {
	list := make([]error, count)
	if partial, ok := errors.AsType[*sink.PartialError](err); ok {
		for _, f := range partial.Failed {
			if f.Index < 0 || f.Index >= count {
				continue
			}
			if list[f.Index] = f.Err; f.Err == nil {
				list[f.Index] = errShort
			}
		}
		return list
	}
	n = min(max(n, 0), count)
	if n == count {
		return list // whatever the error says, all of them are delivered
	}
	if list[n] = err; err == nil {
		list[n] = errShort
	}
	for i := n + 1; i < count; i++ {
		list[i] = errUnknown
	}
	return list
}

// kindOf returns an error's kind and the pause that it asks for.
func kindOf(err error) (sink.Kind, time.Duration) {
	if e, ok := errors.AsType[*sink.Error](err); ok && e.Kind != "" {
		return e.Kind, max(e.After, 0)
	}
	return sink.Retry, 0
}

// statusOf returns the HTTP status of an error; 0: there is none.
func statusOf(err error) int {
	if e, ok := errors.AsType[*sink.Error](err); ok {
		return e.Status
	}
	return 0
}

// written is a write that is over.
type written struct {
	batch    *batch
	n        int
	err      error
	began    time.Time
	took     time.Duration
	requests []Request
	stopped  bool // because the pump stops
}
