package sandbox

import (
	"maps"
	"sync"
	"time"
)

// Window is how a limit counts.
type Window string

// The windows. Bucket refills steadily and holds Burst; Sliding counts exactly what
// lies within the last Per; Fixed counts from the first request on, for Per.
const (
	Bucket  Window = "bucket"
	Sliding Window = "sliding"
	Fixed   Window = "fixed"
)

// Limit is one rule of an API: so much per time, or so many at once, for each key
// that is charged to it.
type Limit struct {
	Name string `json:"name"`
	// Rate is how much cost is allowed per Per; 0: without limit.
	Rate   float64  `json:"rate,omitempty"`
	Per    Duration `json:"per,omitempty"`
	Window Window   `json:"window,omitempty"` // default bucket
	Burst  float64  `json:"burst,omitempty"`  // of a bucket; default Rate
	// Concurrent is how many requests may be under way at once; 0: any number.
	Concurrent int `json:"concurrent,omitempty"`
	// Penalty is how long everything is refused after a refusal; requests within it
	// are refused too, and do not prolong it.
	Penalty Duration `json:"penalty,omitempty"`
}

// Charge says what a request costs under which limit, and for which key (an account,
// an endpoint). Cost 0 is 1.
type Charge struct {
	Limit, Key string
	Cost       float64
}

// Refusal says which limit stood against a request, and when to try again.
type Refusal struct {
	Limit Limit
	Key   string
	After time.Duration
}

// Standing is where a key is with a limit, as vendors tell it in headers.
type Standing struct {
	Limit, Used, Remaining float64
	Reset                  time.Time // when all of it is there again
}

// Limiter refuses requests by limits. Time is handed in, so that it may be the real
// one or the world's; it must not go back.
type Limiter struct {
	mu     sync.Mutex
	off    bool
	limits map[string]Limit
	counts map[charged]*count
}

type charged struct{ limit, key string }

type count struct {
	tokens  float64 // bucket: what is left
	at      time.Time
	hits    []hit     // sliding: what lies in the window, oldest first
	used    float64   // sliding and fixed
	until   time.Time // fixed: end of the window
	running int
	penalty time.Time
}

type hit struct {
	at   time.Time
	cost float64
}

// NewLimiter returns a limiter of these limits. A charge to a limit that it does not
// have is free.
func NewLimiter(limits ...Limit) *Limiter {
	l := &Limiter{limits: map[string]Limit{}, counts: map[charged]*count{}}
	l.Set(limits...)
	return l
}

// Set adds limits or changes those of the same name; what was counted stays.
func (l *Limiter) Set(limits ...Limit) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, limit := range limits {
		if limit.Window == "" {
			limit.Window = Bucket
		}
		if limit.Burst == 0 {
			limit.Burst = limit.Rate
		}
		if limit.Per == 0 {
			limit.Per = Duration(time.Second)
		}
		l.limits[limit.Name] = limit
	}
}

// Off lets everything pass until On.
func (l *Limiter) Off() { l.turn(true) }

// On enforces the limits, as a new limiter does.
func (l *Limiter) On() { l.turn(false) }

func (l *Limiter) turn(off bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.off = off
}

// Limits returns the limits by name, and whether they are enforced.
func (l *Limiter) Limits() (limits map[string]Limit, enforced bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return maps.Clone(l.limits), !l.off
}

// Enter admits a request under all the charges or refuses it under the first that
// does not allow it; a refused request costs nothing. leave is never nil and must be
// called when the request has been answered.
func (l *Limiter) Enter(now time.Time, charges ...Charge) (leave func(), refused *Refusal) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.off {
		return func() {}, nil
	}
	for _, c := range charges {
		limit, ok := l.limits[c.Limit]
		if !ok {
			continue
		}
		n := l.count(c, limit, now)
		if wait, ok := n.allows(limit, cost(c), now); !ok {
			if limit.Penalty > 0 && !n.penalty.After(now) {
				n.penalty = now.Add(time.Duration(limit.Penalty))
				wait = time.Duration(limit.Penalty)
			}
			return func() {}, &Refusal{Limit: limit, Key: c.Key, After: wait}
		}
	}
	var entered []*count
	for _, c := range charges {
		if limit, ok := l.limits[c.Limit]; ok {
			n := l.count(c, limit, now)
			n.take(limit, cost(c), now)
			entered = append(entered, n)
		}
	}
	return sync.OnceFunc(func() { l.leave(entered) }), nil
}

func (l *Limiter) leave(entered []*count) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, n := range entered {
		n.running--
	}
}

// Standing returns where a charge's key is. It costs nothing.
func (l *Limiter) Standing(now time.Time, c Charge) Standing {
	l.mu.Lock()
	defer l.mu.Unlock()
	limit, ok := l.limits[c.Limit]
	if !ok {
		return Standing{}
	}
	n := l.count(c, limit, now)
	s := Standing{Limit: limit.Rate, Used: n.used, Reset: n.until}
	switch limit.Window {
	case Bucket:
		s.Limit, s.Used = limit.Burst, limit.Burst-n.tokens
		s.Reset = now.Add(per(limit, s.Used))
	case Sliding:
		s.Reset = now
		if len(n.hits) > 0 {
			s.Reset = n.hits[len(n.hits)-1].at.Add(time.Duration(limit.Per))
		}
	}
	s.Remaining = max(s.Limit-s.Used, 0)
	return s
}

// count returns the charge's count, brought up to now.
func (l *Limiter) count(c Charge, limit Limit, now time.Time) *count {
	key := charged{c.Limit, c.Key}
	n := l.counts[key]
	if n == nil {
		n = &count{tokens: limit.Burst, at: now, until: now.Add(time.Duration(limit.Per))}
		l.counts[key] = n
	}
	n.refresh(limit, now)
	return n
}

func (n *count) refresh(limit Limit, now time.Time) {
	if passed := now.Sub(n.at); passed > 0 && limit.Window == Bucket {
		n.tokens = min(limit.Burst, n.tokens+limit.Rate*passed.Seconds()/time.Duration(limit.Per).Seconds())
		n.at = now
	}
	for limit.Window == Sliding && len(n.hits) > 0 && !n.hits[0].at.Add(time.Duration(limit.Per)).After(now) {
		n.used -= n.hits[0].cost
		n.hits = n.hits[1:]
	}
	if limit.Window == Fixed && !n.until.After(now) {
		n.used, n.until = 0, now.Add(time.Duration(limit.Per))
	}
}

// allows says whether the cost fits in, and else when it will.
func (n *count) allows(limit Limit, cost float64, now time.Time) (wait time.Duration, ok bool) {
	if n.penalty.After(now) {
		return n.penalty.Sub(now), false
	}
	if limit.Concurrent > 0 && n.running >= limit.Concurrent {
		return 0, false
	}
	if limit.Rate <= 0 {
		return 0, true
	}
	switch {
	case limit.Window == Bucket:
		// A little less than a whole token is one: floating point adds up to 0.999….
		return per(limit, cost-n.tokens), n.tokens+1e-9 >= cost
	case n.used+cost <= limit.Rate:
		return 0, true
	case limit.Window == Sliding && len(n.hits) > 0:
		return n.hits[0].at.Add(time.Duration(limit.Per)).Sub(now), false
	default:
		return n.until.Sub(now), false
	}
}

func (n *count) take(limit Limit, cost float64, now time.Time) {
	n.running++
	switch {
	case limit.Rate <= 0:
	case limit.Window == Bucket:
		n.tokens -= cost
	case limit.Window == Sliding:
		n.used += cost
		n.hits = append(n.hits, hit{now, cost})
	default:
		n.used += cost
	}
}

// per returns how long a bucket takes to regain a cost.
func per(limit Limit, cost float64) time.Duration {
	if limit.Rate <= 0 || cost <= 0 {
		return 0
	}
	return time.Duration(cost / limit.Rate * float64(limit.Per))
}

func cost(c Charge) float64 {
	if c.Cost == 0 {
		return 1
	}
	return c.Cost
}
