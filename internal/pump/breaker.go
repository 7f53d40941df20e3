package pump

import (
	"math"
	"time"
)

// State says how sending to a destination goes.
type State string

// The states of a destination.
const (
	OK        State = "ok"
	Retrying  State = "retrying"  // the last write failed; others are tried as ever, or slowly when every change is rejected
	Open      State = "open"      // everything failed: one change at a time is tried, after growing pauses
	Throttled State = "throttled" // the destination asked for a pause
	Refused   State = "refused"   // the destination refuses everything: a person must act. Tried now and then
	Gone      State = "gone"      // the destination wants no more: nothing is sent until the consumer is resumed
	Paused    State = "paused"    // somebody paused the consumer
)

// States returns every state of a destination.
func States() []string {
	return []string{string(OK), string(Retrying), string(Open), string(Throttled), string(Refused), string(Gone), string(Paused)}
}

// mode is what a breaker lets through.
type mode int

const (
	shut  mode = iota // nothing
	probe             // one change
	free              // everything
)

// breaker decides whether a destination is tried. It is pure: time comes as an
// argument, and one goroutine uses it.
type breaker struct {
	tolerance  int           // how many different keys may fail in a row
	first, max time.Duration // pauses
	random     func() float64

	state  State
	reason string
	since  time.Time
	next   time.Time // before it nothing is sent; Open, Throttled, Refused
	trips  int       // pauses since the last success
	failed map[uint64]struct{}

	width, widest int // writes at a time
	calm          int // successes at this width

	sour int       // changes that were rejected since one was delivered
	rest time.Time // nothing is written before it, since all are rejected
}

// A destination that rejects every change is sent to slowly: each of them is tried,
// counted and saved, on cores and a disk that others use too, and most likely it is the
// destination that is wrong. The first one that it takes ends that.
const (
	sourLimit = 100                   // changes in a row
	sourPace  = 10 * time.Millisecond // for each change
)

func newBreaker(c Config) *breaker {
	return &breaker{
		tolerance: c.Tolerance, first: c.FirstPause, max: c.LongestPause, random: c.random,
		state: OK, failed: map[uint64]struct{}{}, width: c.Concurrency, widest: c.Concurrency,
	}
}

// mode says what may be sent now.
func (b *breaker) mode(now time.Time) mode {
	switch b.state {
	case Gone, Paused:
		return shut
	case Open, Refused:
		if now.Before(b.next) {
			return shut
		}
		return probe
	case Throttled:
		if now.Before(b.next) {
			return shut
		}
	case OK, Retrying:
	}
	return free
}

// delivered says that the destination took a change.
func (b *breaker) delivered() { b.sour, b.rest = 0, time.Time{} }

// rejected says that a write brought nothing but rejected changes, so many.
func (b *breaker) rejected(now time.Time, n int, reason string) {
	if b.sour = min(b.sour+n, sourLimit); b.sour < sourLimit || b.state != OK {
		return
	}
	b.set(now, Retrying, reason+" (it rejects every change: they are sent slowly)")
	b.rest = now.Add(time.Duration(n) * sourPace)
}

// most is how many writes may run.
func (b *breaker) most() int {
	if b.sour >= sourLimit {
		return 1
	}
	return b.width
}

// wake is when the mode changes by itself; zero: it does not.
func (b *breaker) wake(now time.Time) time.Time {
	if b.next.After(now) && (b.state == Open || b.state == Throttled || b.state == Refused) {
		return b.next
	}
	return time.Time{}
}

func (b *breaker) set(now time.Time, s State, reason string) {
	if b.state != s {
		b.state, b.since = s, now
	}
	b.reason = reason
}

// succeeded says that the destination took something, or refused one change for what
// it is.
func (b *breaker) succeeded(now time.Time) {
	if b.state == Gone || b.state == Paused {
		return
	}
	if b.state == Throttled && now.Before(b.next) {
		return // begun before it asked for the pause
	}
	b.trips = 0
	clear(b.failed)
	b.set(now, OK, "")
	b.next = time.Time{}
	if b.calm++; b.calm >= b.width && b.width < b.widest {
		b.width, b.calm = b.width+1, 0
	}
}

// failedAt says that a change of the key failed. It reports whether the attempt counts:
// not while the destination is known to be away.
func (b *breaker) failedAt(now time.Time, key uint64, reason string) bool {
	switch b.state {
	case Gone, Paused:
		return false
	case Open, Refused:
		if now.Before(b.next) {
			return false // begun before it opened
		}
		b.trip(now, b.state, reason, 0)
		return false
	case Throttled:
		if now.Before(b.next) {
			return true
		}
	case OK, Retrying:
	}
	b.set(now, Retrying, reason)
	// One key that fails again and again says nothing about the destination.
	if len(b.failed) < b.tolerance {
		b.failed[key] = struct{}{}
	}
	if len(b.failed) >= b.tolerance {
		b.trip(now, Open, reason, 0)
	}
	return true
}

// trip begins a pause, longer than the last one.
func (b *breaker) trip(now time.Time, s State, reason string, atLeast time.Duration) {
	b.trips++
	pause := b.pause(b.trips)
	if s == Refused {
		pause = min(5*pause, 5*b.max)
	}
	b.set(now, s, reason)
	b.next = now.Add(max(pause, atLeast))
	clear(b.failed)
}

// throttle begins the pause that the destination asked for.
func (b *breaker) throttle(now time.Time, after time.Duration, reason string) {
	if b.state == Gone || b.state == Paused || b.state == Refused {
		return
	}
	if b.state == Throttled && now.Before(b.next) {
		// Of several that were under way the longest counts.
		if until := now.Add(after); until.After(b.next) {
			b.next = until
		}
		return
	}
	b.width, b.calm = max(b.width/2, 1), 0
	if after > 0 {
		b.trips = 0
	}
	b.trip(now, Throttled, reason, after)
	if after > 0 {
		b.next = now.Add(after)
	}
}

// pause is how long the nth pause is.
func (b *breaker) pause(n int) time.Duration {
	d := min(float64(b.first)*math.Pow(2, float64(min(n, 40)-1)), float64(b.max))
	return time.Duration(d * (1 + 0.2*(2*b.random()-1)))
}

// stop ends sending until resume.
func (b *breaker) stop(now time.Time, s State, reason string) {
	b.set(now, s, reason)
	b.next = time.Time{}
}

// resume begins anew.
func (b *breaker) resume(now time.Time) {
	b.trips, b.next = 0, time.Time{}
	clear(b.failed)
	b.delivered()
	b.set(now, OK, "")
}
