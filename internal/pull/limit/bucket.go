package limit

import (
	"math"
	"slices"
	"time"
)

const (
	// slackPart and longestSlack say how much the network may push requests together.
	slackPart    = 30
	longestSlack = time.Second
	// gracePart bounds what is given besides to requests that were late by more: that
	// part of Per for each request, saved up to one Per.
	gracePart = 100
	// finest is into how many parts a window is divided at most, which bounds its
	// memory. What leaves within one part leaves the window together.
	finest = 1000
	// weakest and recovery are how slowly a bucket starts after refusals, and how long
	// it takes to come from nothing to its whole pace.
	weakest  = 1.0 / 16
	recovery = time.Minute
	// epsilon is what sums of floating point numbers may lack.
	epsilon = 1e-9
)

// bucket is the state of one limit. The limiter's lock guards it.
type bucket struct {
	name  string
	spec  Bucket
	limit float64 // cost per Per; 0: none

	whole, reads gauge
	at           time.Time // up to when it has been refreshed
	window       []*slot   // oldest first
	flight       float64   // cost of what is under way
	told         told
	usual        time.Duration // from leaving to the answer
	grace        time.Duration // how much later than the slack says requests may still leave the window

	vigour   float64 // share of the pace after refusals
	pausedTo time.Time
	refusals uint64
	requests uint64

	claimed uint64 // the last pass in which somebody waited for it
	users   int    // who waits or is under way
}

// gauge counts all requests, or all but writes, against their share of the limit.
type gauge struct {
	share   float64
	tokens  float64 // what may leave at once
	used    float64 // in the window
	running int
}

// slot is what left at one time, or nearly so, and when it leaves the window.
type slot struct {
	began, until time.Time
	whole, reads float64
	requests     int
}

func newBucket(name string, spec Bucket, now time.Time) *bucket {
	if spec.Per <= 0 {
		spec.Per = time.Second
	}
	if spec.Rate > 0 && spec.Rate < 1 {
		// Half a request per second is one in two.
		spec.Per, spec.Rate = time.Duration(float64(spec.Per)/spec.Rate), 1
	}
	spec.Burst = max(spec.Burst, 1)
	spec.Reserve = min(max(spec.Reserve, 0), 1)
	b := &bucket{name: name, spec: spec, limit: spec.Rate, vigour: 1, at: now, grace: spec.Per}
	b.whole.share, b.reads.share = 1, 1-spec.Reserve
	for _, g := range b.all() {
		g.tokens = b.burst(g)
	}
	return b
}

func (b *bucket) all() [2]*gauge { return [2]*gauge{&b.whole, &b.reads} }

// gauges are those that a request counts in.
func (b *bucket) gauges(w *waiter) []*gauge {
	if w.writes() {
		return []*gauge{&b.whole}
	}
	return []*gauge{&b.whole, &b.reads}
}

func (b *bucket) burst(g *gauge) float64 { return max(b.spec.Burst*g.share*b.vigour, 1) }

// pace is the cost per second that a gauge regains.
func (b *bucket) pace(g *gauge, now time.Time) float64 {
	pace := b.limit * g.share / b.spec.Per.Seconds()
	if b.told.known {
		// What is left is for the time that is left. In a hurry towards its end it
		// would be of no use to go much faster.
		left := b.told.left - b.limit*(1-g.share)
		pace = min(max(left, 0)/max(b.told.resetAt.Sub(now).Seconds(), 1e-3), 10*pace)
	}
	return pace * b.vigour
}

// refresh brings everything up to now.
func (b *bucket) refresh(now time.Time) {
	if !now.After(b.at) {
		return
	}
	b.told.roll(now, b)
	for len(b.window) > 0 && !b.window[0].until.After(now) {
		b.whole.used -= b.window[0].whole
		b.reads.used -= b.window[0].reads
		b.window[0] = nil
		b.window = b.window[1:]
	}
	if len(b.window) == 0 {
		b.window, b.whole.used, b.reads.used = nil, 0, 0
	}
	if from := later(b.at, b.pausedTo); now.After(from) {
		passed := now.Sub(from).Seconds()
		b.vigour = min(b.vigour+passed/recovery.Seconds(), 1)
		for _, g := range b.all() {
			g.tokens = min(g.tokens+passed*b.pace(g, now), b.burst(g))
		}
	}
	b.at = now
}

// opens says when a request may leave, as far as this bucket goes: not before at, and
// not while it is full. The bucket has been refreshed.
func (b *bucket) opens(now time.Time, w *waiter) (at time.Time, full bool) {
	at = later(now, b.pausedTo)
	for _, g := range b.gauges(w) {
		if n := b.spec.Concurrency; n > 0 && g.running >= max(int(float64(n)*g.share+epsilon), 1) {
			full = true
		}
		if b.limit > 0 {
			at = later(at, b.tokensAt(now, g, w.cost))
			at = later(at, b.roomAt(now, g, w.cost))
		}
	}
	return at, full
}

// tokensAt is when the spacing allows a cost. More than a burst needs a whole one, and
// leaves a debt.
func (b *bucket) tokensAt(now time.Time, g *gauge, cost float64) time.Time {
	lack := min(cost, b.burst(g)) - g.tokens - epsilon
	if lack <= 0 {
		return now
	}
	return later(now, b.pausedTo).Add(b.wait(lack, g, now))
}

func (b *bucket) wait(cost float64, g *gauge, now time.Time) time.Duration {
	pace := b.pace(g, now)
	if pace <= 0 {
		return max(b.told.resetAt.Sub(now), time.Millisecond)
	}
	return time.Duration(min(cost/pace*float64(time.Second), math.MaxInt64/4)) + time.Microsecond
}

// roomAt is when a cost fits into the window. More than the whole limit fits into an
// empty one.
func (b *bucket) roomAt(now time.Time, g *gauge, cost float64) time.Time {
	if b.told.known {
		if b.told.left >= b.limit || b.told.left-cost+epsilon >= b.limit*(1-g.share) {
			return now
		}
		return b.told.resetAt
	}
	used := g.used
	at := now
	for i := 0; i < len(b.window) && used > epsilon && used+cost > b.room(g)+epsilon; i++ {
		used -= b.window[i].of(b, g)
		at = later(at, b.window[i].until)
	}
	return at
}

// room is what fits into a window. Part of a request more than the share is one more:
// on the whole the spacing keeps to the share.
func (b *bucket) room(g *gauge) float64 { return min(math.Ceil(b.limit*g.share-epsilon), b.limit) }

func (s *slot) of(b *bucket, g *gauge) float64 {
	if g == &b.whole {
		return s.whole
	}
	return s.reads
}

// regain is how long the bucket needs until what a request takes is there again.
func (b *bucket) regain(now time.Time, w *waiter) (longest time.Duration) {
	if b.limit <= 0 {
		return 0
	}
	for _, g := range b.gauges(w) {
		longest = max(longest, b.wait(w.cost, g, now))
	}
	return longest
}

// take counts a request that leaves now.
func (b *bucket) take(now time.Time, w *waiter) *slot {
	b.requests++
	b.flight += w.cost
	b.told.left -= w.cost
	s := b.slot(now)
	s.requests++
	s.whole += w.cost
	if !w.writes() {
		s.reads += w.cost
	}
	for _, g := range b.gauges(w) {
		g.running++
		g.used += w.cost
		if g.tokens -= w.cost; b.told.known {
			g.tokens = max(g.tokens, 0) // what is left is less, and with it the pace: no debt besides
		}
	}
	return s
}

// slot returns where what leaves now is counted.
func (b *bucket) slot(now time.Time) *slot {
	until := now.Add(b.spec.Per + b.slack())
	if n := len(b.window); n > 0 && b.limit > finest && now.Sub(b.window[n-1].began) < b.spec.Per/finest {
		b.window[n-1].until = until
		return b.window[n-1]
	}
	s := &slot{began: now, until: until}
	b.window = append(b.window, s)
	return s
}

func (b *bucket) slack() time.Duration { return min(b.spec.Per/slackPart, longestSlack) }

// undo takes back a request that has not left.
func (b *bucket) undo(w *waiter, s *slot) {
	b.flight -= w.cost
	b.requests--
	b.told.left += w.cost
	in := slices.Contains(b.window, s)
	for _, g := range b.gauges(w) {
		g.running--
		g.tokens += w.cost
		if in {
			g.used -= w.cost
		}
	}
	s.requests--
	s.whole -= w.cost
	if !w.writes() {
		s.reads -= w.cost
	}
}

// release ends a request. Its answer shows that the API has counted it by now. One
// that took much longer than usual may have been held up on its way there, together
// with others: by a new connection, or a machine that was busy.
func (b *bucket) release(now time.Time, w *waiter, s *slot) {
	b.flight -= w.cost
	for _, g := range b.gauges(w) {
		g.running--
	}
	took := now.Sub(s.began)
	late := took - b.usual - b.slack()
	b.usual += (took - b.usual) / 32
	b.grace = min(b.grace+b.spec.Per/gracePart, b.spec.Per)
	switch until := now.Add(b.spec.Per); {
	case s.requests > 1: // some of them may still be under way
	case until.Before(s.until):
		s.until = until
	case late > 0:
		late = min(late, b.grace)
		b.grace -= late
		s.until = s.until.Add(late)
	}
}

// penalize stops the bucket. Several refusals of one moment are one reason to go slower.
func (b *bucket) penalize(now time.Time, pause time.Duration) {
	b.refresh(now)
	b.refusals++
	if !b.pausedTo.After(now) {
		b.vigour = max(b.vigour/2, weakest)
	}
	b.pausedTo = later(b.pausedTo, now.Add(pause))
	for _, g := range b.all() {
		g.tokens = min(g.tokens, 0)
	}
}

// idle says whether the bucket is as a new one would be.
func (b *bucket) idle(now time.Time) bool {
	b.refresh(now)
	return b.users == 0 && len(b.window) == 0 && !b.told.known && b.vigour == 1 && !b.pausedTo.After(now) &&
		(b.limit <= 0 || b.reads.tokens >= b.burst(&b.reads) && b.whole.tokens >= b.burst(&b.whole))
}

func (b *bucket) quota(now time.Time) Quota {
	b.refresh(now)
	q := Quota{Bucket: b.name, Limit: b.limit, Remaining: -1, Refusals: b.refusals, Requests: b.requests}
	if b.told.known {
		q.Remaining, q.ResetAt = max(b.told.left, 0), b.told.resetAt
	}
	if b.pausedTo.After(now) {
		q.PausedTo = b.pausedTo
	}
	return q
}
