package pull

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/cenkalti/backoff/v5"

	"lockstep"
	"lockstep/internal/mirror"
	"lockstep/internal/obs"
	"lockstep/source"
)

// steps are pauses that grow from one to another, with jitter.
func steps(first, last time.Duration) *backoff.ExponentialBackOff {
	b := backoff.NewExponentialBackOff()
	b.InitialInterval, b.MaxInterval, b.Multiplier, b.RandomizationFactor = first, last, 2, 0.25
	b.Reset()
	return b
}

// hold waits for a while, until it is cut short, or until ctx has ended.
func hold(ctx context.Context, d time.Duration, kick <-chan struct{}) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-kick:
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	return nil
}

// kindOf returns the kind of an API's refusal; empty for other errors.
func kindOf(err error) source.Kind {
	if e, ok := errors.AsType[*source.Error](err); ok {
		return e.Kind
	}
	return ""
}

// oneLine is an error's text in one line: the database's driver writes several.
func oneLine(err error) string { return strings.Join(strings.Fields(err.Error()), " ") }

// course is what to do about a failure.
type course int

const (
	again   course = iota // the same, soon
	limited               // the same, when the API says so
	slowly                // the same, rarely: somebody must mend something
	shut                  // the same, rarely: somebody must give access
	over                  // nothing: the caller must do something else
)

// verdict is a failure with what to do about it.
type verdict struct {
	course course
	after  time.Duration // at least
	err    error
}

// judge says what to do about an error of the source or of the mirror.
func judge(err error) verdict {
	v := verdict{err: err}
	if errors.Is(err, errDenied) {
		v.course = over
		return v
	}
	e, ok := errors.AsType[*source.Error](err)
	if !ok {
		switch {
		case errors.Is(err, lockstep.ErrFenced):
			v.course = over
		case !lockstep.Retryable(err):
			v.course = slowly
		}
		return v
	}
	v.after = e.After
	switch e.Kind {
	case source.RateLimited:
		v.course = limited
	case source.Restart:
		v.course = over
	case source.Forbidden, source.Gone, source.Unauthorized:
		v.course = shut
	case source.Invalid, source.Failed, source.Unknown:
		v.course = slowly
	case source.Retry:
	}
	return v
}

// ask makes one call of the source, with a priority and within bounds of time.
func (s *Sync) ask(ctx context.Context, p source.Priority, call func(context.Context) error) error {
	bounded, cancel := context.WithTimeout(source.WithPriority(ctx, p), s.pace.call)
	defer cancel()
	err := call(bounded)
	if err != nil && ctx.Err() == nil && bounded.Err() != nil {
		return &source.Error{Kind: source.Retry, Message: fmt.Sprintf("%s did not answer within %s", s.config.Provider, s.pace.call), Err: err}
	}
	return err
}

// task is something that is done again and again, and how that goes. Its methods are
// called by one goroutine, what mu guards is read by others.
type task struct {
	s     *Sync
	kind  string // as in lockstep.sync_log
	name  string // of the collection or feed; empty: of the sync as a whole
	pause *backoff.ExponentialBackOff
	on    course // that pause is for

	// Guarded by s.mu.
	streak int // failures since the last success
	shut   bool
	reason string
	since  time.Time // of the streak
	told   bool      // in the log
	nextAt time.Time
}

func (s *Sync) task(kind, name string) *task { return &task{s: s, kind: kind, name: name} }

// try does something until it succeeds. It returns the error of a place that is of
// no use any more, and why ctx has ended.
func (t *task) try(ctx context.Context, do func(context.Context) error) error {
	for {
		kick := t.s.kicked()
		err := do(ctx)
		if err == nil {
			t.succeed(ctx)
			return nil
		}
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		v := judge(err)
		if v.course == over {
			return err
		}
		if v.course == limited {
			kick = nil // nobody may ask earlier
		}
		if err := hold(ctx, t.fail(ctx, v), kick); err != nil {
			return err
		}
	}
}

// fail notes a failure, and returns for how long to wait.
func (t *task) fail(ctx context.Context, v verdict) time.Duration {
	if t.pause == nil || t.on != v.course {
		t.on = v.course
		switch v.course {
		case slowly:
			t.pause = steps(t.s.pace.slow, t.s.pace.slowMax)
		case shut:
			t.pause = steps(t.s.pace.shut, t.s.pace.shutMax)
		default:
			t.pause = steps(t.s.pace.retry, t.s.pace.retryMax)
		}
	}
	pause := max(v.after, t.pause.NextBackOff())
	reason := oneLine(v.err)
	t.s.mu.Lock()
	if t.streak++; t.streak == 1 {
		t.since = time.Now()
	}
	t.shut, t.reason, t.nextAt = v.course == shut, reason, time.Now().Add(pause)
	// One failure that the next try makes good is not worth a line.
	tell := !t.told && (t.streak > 1 || v.course == slowly || v.course == shut)
	t.told = t.told || tell
	t.s.changed()
	t.s.mu.Unlock()
	if t.name == "" {
		t.s.become(Failing, reason)
	}
	if tell {
		outcome := "failed"
		if v.course == shut {
			outcome = "blocked"
		}
		t.s.log.WarnContext(ctx, "a sync's "+t.kind+" fails, and is tried again", obs.KeySync, t.s.config.Name, obs.KeyCollection, t.name, obs.KeyError, v.err, obs.KeyDuration, pause)
		t.s.note(ctx, mirror.Entry{Kind: t.kind, Collection: t.name, Outcome: outcome, Message: reason, Payload: figures("again_in_seconds", pause.Seconds())})
	}
	return pause
}

// succeed ends a streak of failures.
func (t *task) succeed(ctx context.Context) {
	t.pause = nil
	t.s.mu.Lock()
	streak, told, since := t.streak, t.told, t.since
	if t.streak, t.told, t.shut, t.reason, t.nextAt = 0, false, false, "", (time.Time{}); streak > 0 {
		t.s.changed()
	}
	t.s.mu.Unlock()
	if streak > 0 && t.name == "" {
		t.s.become(Starting, "")
	}
	if told {
		t.s.log.InfoContext(ctx, "a sync's "+t.kind+" works again", obs.KeySync, t.s.config.Name, obs.KeyCollection, t.name, obs.KeyCount, streak)
		t.s.note(ctx, mirror.Entry{Kind: t.kind, Collection: t.name, Outcome: "recovered", Message: "works again",
			Payload: figures("failures", streak, "seconds", time.Since(since).Seconds())})
	}
}

// figures makes a payload of names and values in turns.
func figures(pairs ...any) json.RawMessage {
	m := map[string]any{}
	for i := 0; i+1 < len(pairs); i += 2 {
		name, _ := pairs[i].(string)
		m[name] = pairs[i+1]
	}
	payload, _ := json.Marshal(m) // names and numbers
	return payload
}
