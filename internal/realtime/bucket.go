package realtime

import (
	"sync"
	"time"
)

// bucket allows so many things a second, and twice that at once.
type bucket struct {
	rate float64

	mu   sync.Mutex
	left float64   // guarded by mu
	at   time.Time // guarded by mu: when left was right
}

func newBucket(rate float64) *bucket { return &bucket{rate: rate, left: 2 * rate} }

// take reports whether n things are allowed now, and counts them if so.
func (b *bucket) take(now time.Time, n float64) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if !b.at.IsZero() {
		b.left = min(2*b.rate, b.left+b.rate*now.Sub(b.at).Seconds())
	}
	b.at = now
	if b.left < n {
		return false
	}
	b.left -= n
	return true
}

// window allows so many calls within a time that begins with the first one.
type window struct {
	most  int
	wide  time.Duration
	calls int
	until time.Time
}

// take reports whether one more call is allowed. It is used by one goroutine.
func (w *window) take(now time.Time) bool {
	if now.After(w.until) {
		w.calls, w.until = 0, now.Add(w.wide)
	}
	w.calls++
	return w.calls <= w.most
}
