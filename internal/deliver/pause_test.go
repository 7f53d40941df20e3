package deliver

import (
	"testing"
	"time"
)

func TestALargeStateLeavesTheDiskToOthers(t *testing.T) {
	t.Parallel()
	for size, want := range map[int]time.Duration{0: 0, freeState: 0, freeState + stateRate/4: time.Second / 4, freeState + stateRate: time.Second} {
		if got := pauseAfter(size); got != want {
			t.Errorf("after a save of %d bytes: %s, want %s", size, got, want)
		}
	}
}
