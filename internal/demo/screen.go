package demo

import (
	"context"
	"fmt"
	"io"
	"sync"
	"time"
)

// screen shows how the crew is doing, and edits that arrived.
type screen struct {
	out   io.Writer
	style Style
	crew  *crew

	mu     sync.Mutex
	drawn  bool                 // guarded by mu: the live line stands
	headed bool                 // guarded by mu: arrivals have their heading
	shown  map[string]int       // guarded by mu: arrivals by sync
	next   map[string]time.Time // guarded by mu: when one may be shown again
}

func newScreen(out io.Writer, style Style, crew *crew) *screen {
	return &screen{out: out, style: style, crew: crew, shown: map[string]int{}, next: map[string]time.Time{}}
}

// run draws until ctx ends.
func (s *screen) run(ctx context.Context) error {
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
			s.end()
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

func (s *screen) draw(line string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.style == Live {
		fmt.Fprintf(s.out, "\r\x1b[K%s", line)
		s.drawn = true
		return
	}
	fmt.Fprintln(s.out, line)
}

// end leaves the live line as it stands.
func (s *screen) end() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.drawn {
		fmt.Fprintln(s.out)
		s.drawn = false
	}
}

// say writes a line that stays.
func (s *screen) say(line string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.write(line)
}

// write is say for callers that hold mu.
func (s *screen) write(line string) {
	if s.drawn { // the live line is drawn again below
		fmt.Fprint(s.out, "\r\x1b[K")
		s.drawn = false
	}
	fmt.Fprintln(s.out, line)
}

const (
	firstShown = 3                // arrivals of each sync, as they come
	laterShown = 10 * time.Second // after these one in such a time
)

// arrival shows an edit's way: the first ones, and then one now and then.
func (s *screen) arrival(a arrival) {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := time.Now()
	if s.shown[a.sync] >= firstShown && now.Before(s.next[a.sync]) {
		return
	}
	s.shown[a.sync]++
	s.next[a.sync] = now.Add(laterShown)
	if !s.headed {
		s.headed = true
		s.write(fmt.Sprintf("  %-68s  %-16s  %s", "changed in the API", "row in Postgres", "then at a worker"))
	}
	s.write(fmt.Sprintf("  %s  %-6s  %-46s  +%-15s  +%s", a.changed.Format("15:04:05.000"), a.sync, a.what, round(a.toRow), round(a.toWorker)))
}
