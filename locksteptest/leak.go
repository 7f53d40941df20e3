package locksteptest

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"runtime/pprof"
	"strings"
	"time"
)

// watch knows the goroutines that a piece of code started, and those that these
// started: they inherit its profiler label. Unlike a comparison of all goroutines
// before and after, it is not disturbed by tests that run at the same time.
type watch struct{ label string }

func newWatch() *watch { return &watch{label: fmt.Sprintf("watch-%x", rand.Uint64())} }

// do calls f under the label.
func (w *watch) do(ctx context.Context, f func(context.Context)) {
	pprof.Do(ctx, pprof.Labels("locksteptest", w.label), f)
}

// left waits until no goroutine has the label, at most so long, and returns the
// stacks of those that have it.
func (w *watch) left(patience time.Duration) string {
	deadline := time.Now().Add(patience)
	for {
		stacks := w.stacks()
		if stacks == "" || time.Now().After(deadline) {
			return stacks
		}
		<-time.After(10 * time.Millisecond)
	}
}

func (w *watch) stacks() string {
	var all bytes.Buffer
	if err := pprof.Lookup("goroutine").WriteTo(&all, 1); err != nil {
		return err.Error()
	}
	var mine []string
	for stack := range strings.SplitSeq(all.String(), "\n\n") {
		if strings.Contains(stack, w.label) {
			mine = append(mine, stack)
		}
	}
	return strings.Join(mine, "\n\n")
}
