package wal

import (
	"testing"
	"time"
)

// pauses returns how many of the last hundred reads were followed by a pause, when
// bursts of quick reads come at the interval.
func pauses(interval time.Duration, burst, size int) int {
	p := pacer{mean: time.Second}
	n := 0
	for i := range 1100 {
		waited := 3 * time.Microsecond
		if i%burst == 0 {
			waited = interval
		}
		if p.read(size, waited) > 0 && i >= 1000 {
			n++
		}
	}
	return n
}

func TestPauseOnlyUnderLoad(t *testing.T) {
	t.Parallel()
	equal(t, pauses(time.Second, 4, 200), 0)
	equal(t, pauses(time.Millisecond, 4, 200), 0)                // 1,000 small transactions a second
	equal(t, pauses(10*time.Microsecond, 1, 200), 100)           // a stream of rows
	equal(t, pauses(10*time.Microsecond, 1, 256<<10), 0)         // reads that are large anyway
	equal(t, pauses(100*time.Millisecond, 1000, 200) > 70, true) // a large transaction now and then
}
