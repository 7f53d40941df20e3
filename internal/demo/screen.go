package demo

import (
	"context"
	"fmt"
	"io"
	"time"
)

// screen shows how the crew is doing.
type screen struct {
	out   io.Writer
	style Style
	crew  *crew
}

// run draws until ctx ends.
func (s screen) run(ctx context.Context) error {
	every := 2 * time.Second
	if s.style == Live {
		every = 250 * time.Millisecond
	}
	tick := time.NewTicker(every)
	defer tick.Stop()
	began := time.Now()
	last, at := uint64(0), began
	for {
		select {
		case <-ctx.Done():
			if s.style == Live {
				fmt.Fprintln(s.out)
			}
			return nil
		case now := <-tick.C:
			n := s.crew.numbers()
			rate := float64(n.processed-last) / now.Sub(at).Seconds()
			last, at = n.processed, now
			s.draw(fmt.Sprintf("%4.0fs  %7.0f changes/s  lag %-8s  commit to worker p50 %-8s p99 %-8s  processed %d  redelivered %d  dead %d",
				now.Sub(began).Seconds(), rate, lag(n, now), round(n.p50), round(n.p99), n.processed, n.redelivered, n.dead))
		}
	}
}

// lag is the age of the newest change that was processed.
func lag(n numbers, now time.Time) time.Duration {
	if n.newest.IsZero() {
		return 0
	}
	return max(0, now.Sub(n.newest)).Round(time.Millisecond)
}

func (s screen) draw(line string) {
	if s.style == Live {
		fmt.Fprintf(s.out, "\r\x1b[K%s", line)
		return
	}
	fmt.Fprintln(s.out, line)
}
