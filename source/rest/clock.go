package rest

import (
	"net/http"
	"sync"
	"time"
)

// clock estimates the API's time from its answers. Their Date header has seconds
// only: the own clock is shifted no further than an answer proves it to be wrong.
type clock struct {
	mu     sync.Mutex
	offset time.Duration
	known  bool
	odd    time.Duration // by how much answers are off that are not believed yet
	odds   int           // how many of them there were in a row
}

const (
	// leap is by how much an answer's Date may be off to be believed at once: further
	// off is the clock of one server behind a balancer, or what a cache has kept.
	leap = time.Minute
	// leaps is how many answers in a row must agree that the clock was set.
	leaps = 3
)

// resolution is how far the estimate may be off.
const resolution = time.Second

// learn takes an answer's Date, and returns the API's time when the request began: a
// state that is shown is at least as new as that.
func (c *clock) learn(began time.Time, date string) time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	t, err := http.ParseTime(date)
	if err != nil {
		return began.Add(c.offset)
	}
	if c.known && c.leapt(t.Sub(time.Now().Add(c.offset))) {
		return began.Add(c.offset)
	}
	c.known, c.odds = true, 0
	if late := t.Sub(time.Now().Add(c.offset)); late > 0 {
		c.offset += late
	}
	if early := began.Add(c.offset).Sub(t.Add(resolution)); early > 0 {
		c.offset -= early
	}
	return began.Add(c.offset)
}

// leapt reports whether a Date that is off by so much is not to be believed.
func (c *clock) leapt(off time.Duration) bool {
	if off.Abs() <= leap {
		return false
	}
	if c.odds == 0 || (off-c.odd).Abs() > leap {
		c.odd, c.odds = off, 0
	}
	c.odds++
	return c.odds < leaps
}

// now is the API's time, as far as it is known.
func (c *clock) now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return time.Now().Add(c.offset)
}

// sure reports whether the API has told its time.
func (c *clock) sure() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.known
}
