// Package stage runs the parts of a Lockstep together and stops them in the order
// in which changes flow through them.
//
// # Guarantees
//
//  1. All stages start at once. None is started again.
//  2. When the context ends, or one stage fails, the stages are stopped in the order
//     given: each one's context ends only when the one before it has returned, or
//     has used up its grace. So what an earlier stage hands on while it drains is
//     still taken.
//  3. A stage that returns nil by itself is done; the others go on.
//  4. [Run] returns when every stage has returned or used up its grace, and its
//     error names every stage that failed or did not stop.
package stage

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// Stage is a part that runs until its context ends.
type Stage struct {
	Name string

	// Run blocks until the part and all its goroutines are gone. It returns nil when
	// the context ended. An error before that stops all stages.
	Run func(ctx context.Context) error

	// Grace is how long Run may take to return after its context ended. Default 10 s.
	Grace time.Duration
}

// ErrStuck is in the error of [Run] for a stage that did not stop in its grace. Its
// goroutine is still there: the process had better end.
var ErrStuck = errors.New("did not stop in time")

// Run starts the stages and blocks until they have ended. Stages are listed in the
// order in which they stop: upstream first. The end of ctx is no error.
//
// context.Cause of a stage's context tells why it ended: the cause of ctx, or the
// error of the stage that failed.
func Run(ctx context.Context, stages ...Stage) error {
	running := make([]*run, len(stages))
	ended := make(chan *run, len(stages)) // roomy: who ends late does not wait for a reader
	for i, s := range stages {
		running[i] = start(ctx, s, ended)
	}
	reason, failed := await(ctx, ended)
	errs := []error{failed}
	for _, r := range running {
		if err := r.stop(reason); err != nil && !errors.Is(failed, err) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// run is a started stage.
type run struct {
	Stage
	cancel context.CancelCauseFunc
	done   chan struct{} // closed by start's goroutine when Run has returned
	err    error         // set before done is closed
}

func start(ctx context.Context, s Stage, ended chan<- *run) *run {
	// Its own: the end of ctx must not reach all stages at once.
	ctx, cancel := context.WithCancelCause(context.WithoutCancel(ctx))
	r := &run{Stage: s, cancel: cancel, done: make(chan struct{})}
	go func() {
		if err := s.Run(ctx); err != nil && !harmless(ctx, err) {
			r.err = fmt.Errorf("%s: %w", s.Name, err)
		}
		close(r.done)
		ended <- r
	}()
	return r
}

// harmless says whether the error only repeats that the stage was asked to stop.
func harmless(ctx context.Context, err error) bool {
	return ctx.Err() != nil && (errors.Is(err, context.Canceled) || errors.Is(err, context.Cause(ctx)))
}

// await blocks until ctx ends, a stage fails, or all are done. It returns why the
// stages are to stop, and the error of the one that failed.
func await(ctx context.Context, ended <-chan *run) (reason, failed error) {
	for range cap(ended) {
		select {
		case <-ctx.Done():
			return context.Cause(ctx), nil
		case r := <-ended:
			if r.err != nil {
				return r.err, r.err
			}
		}
	}
	return nil, nil
}

// stop ends the stage's context and waits until it has returned.
func (r *run) stop(reason error) error {
	r.cancel(reason)
	if r.Grace <= 0 {
		r.Grace = 10 * time.Second
	}
	timer := time.NewTimer(r.Grace)
	defer timer.Stop()
	select {
	case <-r.done:
		return r.err
	case <-timer.C:
		return fmt.Errorf("%s: %w (%s)", r.Name, ErrStuck, r.Grace)
	}
}
