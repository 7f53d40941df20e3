package stage_test

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"lockstep/internal/stage"
)

// until returns a Run that drains for a while after its context ended.
func until(log chan<- string, name string, drain time.Duration) func(context.Context) error {
	return func(ctx context.Context) error {
		<-ctx.Done()
		log <- name + " stops"
		<-time.After(drain)
		log <- name + " is gone"
		return nil
	}
}

func TestStagesStopInFlowOrder(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		log := make(chan string, 10)
		ctx, cancel := context.WithCancel(t.Context())
		time.AfterFunc(time.Minute, cancel)
		began := time.Now()
		err := stage.Run(ctx,
			stage.Stage{Name: "capture", Run: until(log, "capture", 3*time.Second)},
			stage.Stage{Name: "stream", Run: until(log, "stream", 2*time.Second)},
			stage.Stage{Name: "deliver", Run: until(log, "deliver", time.Second)},
		)
		if err != nil {
			t.Errorf("the end of the context is no error, got %v", err)
		}
		if took := time.Since(began); took != time.Minute+6*time.Second {
			t.Errorf("took %s, want 1m6s: one after the other", took)
		}
		close(log)
		want := []string{"capture stops", "capture is gone", "stream stops", "stream is gone", "deliver stops", "deliver is gone"}
		if got := slices.Collect(values(log)); !slices.Equal(got, want) {
			t.Errorf("got %v, want %v", got, want)
		}
	})
}

func values(log <-chan string) func(func(string) bool) {
	return func(yield func(string) bool) {
		for s := range log {
			if !yield(s) {
				return
			}
		}
	}
}

func TestAnErrorStopsAllAndIsTheirCause(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		broken := errors.New("broken pipe")
		var cause error
		err := stage.Run(t.Context(),
			stage.Stage{Name: "capture", Run: func(ctx context.Context) error {
				<-ctx.Done()
				cause = context.Cause(ctx)
				return ctx.Err()
			}},
			stage.Stage{Name: "stream", Run: func(context.Context) error {
				<-time.After(time.Second)
				return broken
			}},
			stage.Stage{Name: "deliver", Run: func(ctx context.Context) error {
				<-ctx.Done()
				return errors.New("acks not flushed")
			}},
		)
		if !errors.Is(err, broken) || !errors.Is(cause, broken) {
			t.Errorf("got error %v and cause %v, want both to be %v", err, cause, broken)
		}
		if want := "stream: broken pipe\ndeliver: acks not flushed"; err.Error() != want {
			t.Errorf("got %q, want %q", err, want)
		}
	})
}

func TestAStageThatEndsByItselfLeavesTheOthers(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		began := time.Now()
		err := stage.Run(t.Context(),
			stage.Stage{Name: "once", Run: func(context.Context) error { return nil }},
			stage.Stage{Name: "for a minute", Run: func(ctx context.Context) error {
				select {
				case <-ctx.Done():
					return errors.New("stopped early")
				case <-time.After(time.Minute):
					return nil
				}
			}},
		)
		if err != nil || time.Since(began) != time.Minute {
			t.Errorf("got %v after %s, want nil after 1m", err, time.Since(began))
		}
	})
}

func TestAStuckStageIsNamedAndTheOthersStop(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		release := make(chan struct{})
		defer close(release)
		log := make(chan string, 10)
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		began := time.Now()
		err := stage.Run(ctx,
			stage.Stage{Name: "stuck", Grace: 5 * time.Second, Run: func(context.Context) error { <-release; return nil }},
			stage.Stage{Name: "deliver", Run: until(log, "deliver", time.Second)},
		)
		if !errors.Is(err, stage.ErrStuck) || !strings.HasPrefix(err.Error(), "stuck: ") {
			t.Errorf("got %v, want ErrStuck naming the stage", err)
		}
		if took := time.Since(began); took != 6*time.Second {
			t.Errorf("took %s, want 6s", took)
		}
		if len(log) != 2 {
			t.Error("the stage after the stuck one was not stopped")
		}
	})
}

func TestNoStages(t *testing.T) {
	t.Parallel()
	if err := stage.Run(t.Context()); err != nil {
		t.Error(err)
	}
}
