// Package limit spaces the requests of one account of an API, so that none of them is
// refused for being one too many, and what may be asked is asked.
//
// # Guarantees
//
//  1. No more than a bucket's Rate leaves through it within any stretch of Per, in
//     whatever order requests come, and no more than Concurrency are under way.
//     What an API counts is when requests arrive: a request counts from when it may
//     leave until Per after its answer, or for Per and a slack if the answer takes
//     longer. The slack keeps requests apart that the network pushes together: 3 %
//     of Per, at most [longestSlack], and more for answers that are unusually late.
//     Altogether it costs no more than 5 % of what is allowed.
//  2. Of requests that wait for one bucket the highest priority leaves first, within
//     a priority the one that came first. A request takes all its buckets at once,
//     and holds nothing while it waits.
//  3. Each lower priority that waits gets about one turn in twenty.
//  4. The reserve of a bucket is for [source.Writing] only.
//  5. What answers say of a limit corrects the bucket. Where they say when it is whole
//     again, what is left is spread until then.
//  6. A refusal stops its bucket and no other. After the pause the bucket starts at half
//     of its pace or less, and is back at all of it after half a minute or more.
//  7. When everything is idle, nothing runs: no goroutine, no timer.
package limit

import (
	"cmp"
	"context"
	"maps"
	"net/http"
	"slices"
	"sync"
	"time"

	"lockstep/source"
)

// Bucket is one limit of an account.
type Bucket struct {
	Rate        float64       // cost per Per; 0: no limit
	Per         time.Duration // default 1 s
	Burst       float64       // how much may leave at once after a pause; default 1: evenly spaced
	Concurrency int           // requests under way; 0: any number
	Penalty     time.Duration // pause after a refusal that says no time; default 1 s
	Reserve     float64       // share that is left to writes and to others, 0 to 1
	// Headers of answers that say what is left. ResetFormat is seconds or epoch.
	LimitHeader, RemainingHeader, ResetHeader, ResetFormat string
}

// Narrow is what a person wants besides: less than the API allows.
type Narrow struct {
	RequestsPerSecond float64 // 0: as the buckets say
	MaxConcurrent     int     // 0: as the buckets say
	Reserve           float64 // share left to writes and to others in every bucket that reserves less
}

// Config is the limits of one account.
type Config struct {
	Buckets map[string]Bucket
	// Bucket returns the limits of names that are not in Buckets: one bucket for each
	// such name. nil, or false: without limit.
	Bucket func(name string) (Bucket, bool)
	Narrow Narrow
}

// Quota is where a bucket stands.
type Quota struct {
	Bucket    string
	Limit     float64 // cost per Per of the bucket, as the API says it or else as declared; 0: not known
	Remaining float64 // as the API says; -1: not known
	ResetAt   time.Time
	PausedTo  time.Time // after a refusal; zero: not paused
	Refusals  uint64    // answers that said "too often"
	Requests  uint64
	Waiting   int // requests for changes that wait, for this bucket or one besides
}

// Limiter spaces the requests of one account. All methods may be called concurrently.
type Limiter struct {
	resolve func(name string) (Bucket, bool)
	reserve float64
	own     *bucket // of Narrow; nil: none

	mu      sync.Mutex
	buckets map[string]*bucket // guarded by mu, as everything below
	named   map[string]bool    // those of Config.Buckets, which stay
	rest    map[Bucket]*bucket // for names beyond mostBuckets
	queues  [priorities][]*waiter
	// turns is how much of a turn each priority has saved up while higher ones went.
	turns  [priorities]float64
	passes uint64
	grants uint64
	timer  *time.Timer // of the next dispatch; nil: nobody waits for a time
}

var _ source.Limiter = (*Limiter)(nil)

const (
	priorities = int(source.Sweeping) + 1
	// turn is what a waiting priority saves up when a higher one goes.
	turn = 0.05
	// mostBuckets is for how many names there is a bucket of its own.
	mostBuckets = 1000
	// ownName is how [Limiter.Quotas] calls what Narrow says: as the configuration does.
	ownName = "rate_limit"
)

// New returns the limiter of an account. It needs no closing.
func New(config Config) *Limiter {
	l := &Limiter{
		resolve: config.Bucket, reserve: config.Narrow.Reserve,
		buckets: map[string]*bucket{}, named: map[string]bool{}, rest: map[Bucket]*bucket{},
	}
	if l.resolve == nil {
		l.resolve = func(string) (Bucket, bool) { return Bucket{}, false }
	}
	now := time.Now()
	for name, spec := range config.Buckets {
		l.buckets[name], l.named[name] = l.newBucket(name, spec, now), true
	}
	if n := config.Narrow; n.RequestsPerSecond > 0 || n.MaxConcurrent > 0 {
		const stretch = 60 // seconds, so that half a request per second is thirty
		l.own = l.newBucket(ownName, Bucket{Rate: n.RequestsPerSecond * stretch, Per: stretch * time.Second, Concurrency: n.MaxConcurrent}, now)
	}
	return l
}

func (l *Limiter) newBucket(name string, spec Bucket, now time.Time) *bucket {
	spec.Reserve = max(spec.Reserve, l.reserve)
	return newBucket(name, spec, now)
}

// Wait implements [source.Limiter]. Names without a bucket have no limit. The error
// is the context's; then nothing has been taken, and release is nil.
func (l *Limiter) Wait(ctx context.Context, buckets []string, p source.Priority, cost float64) (release func(answer *http.Response), err error) {
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	w := &waiter{cost: max(cost, 0), priority: min(int(p), priorities-1), granted: make(chan struct{})}
	l.enqueue(w, buckets)
	select {
	case <-w.granted:
	case <-ctx.Done():
		l.leave(w)
		return nil, context.Cause(ctx)
	}
	var once sync.Once
	return func(answer *http.Response) { once.Do(func() { l.release(w, answer) }) }, nil
}

// Penalize implements [source.Limiter]. A pause of 0 is as long as the bucket says.
func (l *Limiter) Penalize(name string, pause time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := time.Now()
	b := l.bucket(name, now)
	if b == nil {
		return
	}
	if pause <= 0 {
		pause = cmp.Or(b.spec.Penalty, time.Second)
	}
	b.penalize(now, pause)
	l.dispatch()
}

// Quotas returns where the buckets stand, by name: those of the configuration, and of
// the others those that were refused.
func (l *Limiter) Quotas() []Quota {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := time.Now()
	var list []Quota
	for _, name := range slices.Sorted(maps.Keys(l.buckets)) {
		if b := l.buckets[name]; l.named[name] || b.refusals > 0 {
			list = append(list, l.quota(b, now))
		}
	}
	if l.own != nil {
		list = append(list, l.quota(l.own, now))
	}
	return list
}

func (l *Limiter) quota(b *bucket, now time.Time) Quota {
	q := b.quota(now)
	for _, queue := range l.queues[source.Changing : source.Hydrating+1] {
		for _, w := range queue {
			if slices.Contains(w.buckets, b) {
				q.Waiting++
			}
		}
	}
	return q
}

// bucket returns the bucket of a name; nil: without limit.
func (l *Limiter) bucket(name string, now time.Time) *bucket {
	if b := l.buckets[name]; b != nil {
		return b
	}
	spec, ok := l.resolve(name)
	if !ok {
		return nil
	}
	if len(l.buckets) >= mostBuckets {
		maps.DeleteFunc(l.buckets, func(name string, b *bucket) bool { return !l.named[name] && b.idle(now) })
	}
	if len(l.buckets) < mostBuckets {
		b := l.newBucket(name, spec, now)
		l.buckets[name] = b
		return b
	}
	// Nobody has so many endpoints. What is beyond shares, which is slower, and safe.
	b := l.rest[spec]
	if b == nil {
		b = l.newBucket(name, spec, now)
		l.rest[spec] = b
	}
	return b
}
