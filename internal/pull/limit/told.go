package limit

import (
	"math"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// told is what answers have said of a limit.
type told struct {
	known   bool
	left    float64 // less what has left since
	resetAt time.Time
	number  uint64 // of the request whose answer said so
}

// roll begins a new window when the API's is over: until an answer says more, all of
// it is there.
func (t *told) roll(now time.Time, b *bucket) {
	if !t.known || now.Before(t.resetAt) {
		return
	}
	t.left = b.limit - b.flight
	t.resetAt = t.resetAt.Add(now.Sub(t.resetAt)/b.spec.Per*b.spec.Per + b.spec.Per)
}

// learn corrects the bucket by an answer's headers. An answer to a request that left
// before one that has told already says nothing new.
func (b *bucket) learn(now time.Time, h http.Header, number uint64) {
	if number < b.told.number {
		return
	}
	if limit, ok := figure(h, b.spec.LimitHeader); ok && limit > 0 {
		b.limit = limit
	}
	left, ok := figure(h, b.spec.RemainingHeader)
	if !ok || b.limit <= 0 {
		return
	}
	b.told.number = number
	reset, ok := b.resetOf(now, h)
	if !ok {
		b.others(now, b.limit-left)
		return
	}
	if !reset.After(now) {
		return // it tells of a window that is over
	}
	// What is under way may have been counted by the API, or not yet.
	left -= b.flight
	if back := left - b.told.left; b.told.known && back > 0 {
		// It did not count all: an answer that nothing has changed, for example.
		for _, g := range b.all() {
			g.tokens = min(g.tokens+back, b.burst(g))
		}
	}
	b.told.known, b.told.left, b.told.resetAt = true, left, reset
}

// others counts what the API has counted and this limiter has not.
func (b *bucket) others(now time.Time, used float64) {
	more := used - b.whole.used
	if more <= 0 {
		return
	}
	s := b.slot(now)
	s.requests += 2 // no request of ours: no answer shortens its time
	s.whole += more
	s.reads += more
	b.whole.used += more
	b.reads.used += more
}

// resetOf is when the limit is whole again. A time of day is the API's, and taken as
// seconds from the answer's Date.
func (b *bucket) resetOf(now time.Time, h http.Header) (time.Time, bool) {
	seconds, ok := figure(h, b.spec.ResetHeader)
	if !ok || seconds > math.MaxInt32*100 {
		return time.Time{}, false
	}
	if b.spec.ResetFormat != "epoch" {
		return now.Add(time.Duration(seconds * float64(time.Second))), true
	}
	at := time.Unix(int64(seconds), 0)
	if date, err := http.ParseTime(h.Get("Date")); err == nil {
		return now.Add(at.Sub(date)), true
	}
	return at, true
}

// figure returns a header's number.
func figure(h http.Header, name string) (float64, bool) {
	if name == "" {
		return 0, false
	}
	n, err := strconv.ParseFloat(strings.TrimSpace(h.Get(name)), 64)
	return n, err == nil && n >= 0 && !math.IsInf(n, 0)
}
