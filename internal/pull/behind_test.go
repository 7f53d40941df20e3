package pull_test

import (
	"context"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"lockstep/internal/pull"
)

// A mirror that is behind is not failing, but whoever looks is told since when, and why.
func TestASyncThatIsBehindSaysSinceWhenAndWhy(t *testing.T) {
	t.Parallel()
	f := newFake(thing("a"))
	f.fill("a", 3)
	var waiting atomic.Int64
	b := newBench(t, "fake", f, "a")
	b.config.Quotas = func() []pull.Quota { return []pull.Quota{{Bucket: "global", Waiting: int(waiting.Load())}} }
	b.tune = func(s *pull.Sync) { s.SaysLateAfter(200 * time.Millisecond) }
	e := b.run()
	e.wait(t)

	held, began := make(chan struct{}), time.Now().Add(-time.Second)
	f.script(func(ctx context.Context, method, _ string, _ int) error {
		if method != "changes" {
			return nil
		}
		select {
		case <-held:
		case <-ctx.Done():
		}
		return ctx.Err()
	})
	says := func(what string) func() bool {
		return func() bool {
			s := e.Status()
			return s.State == pull.Polling && strings.Contains(s.Reason, what) && strings.Contains(e.collection(t, "fake:a").Reason, what)
		}
	}
	e.eventually(t, "a poll that does not end to be told", says("answers are slow"))
	_, since, _ := strings.Cut(e.collection(t, "fake:a").Reason, "behind since ")
	since, _, _ = strings.Cut(since, ": ")
	if at, err := time.Parse(time.RFC3339, since); err != nil || at.Before(began.Truncate(time.Second)) || at.After(time.Now()) {
		t.Errorf("it is behind since %q, error %v; want a time after %s", since, err, began)
	}
	waiting.Store(7)
	e.eventually(t, "the limit to be named", says(`the account's limit "global"`))
	close(held)
	e.eventually(t, "the words to go when it has caught up", func() bool { return e.Status().Reason == "" && e.collection(t, "fake:a").Reason == "" })
	e.wait(t)
}
