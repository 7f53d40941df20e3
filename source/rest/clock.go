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
}

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
	c.known = true
	if late := t.Sub(time.Now().Add(c.offset)); late > 0 {
		c.offset += late
	}
	if early := began.Add(c.offset).Sub(t.Add(resolution)); early > 0 {
		c.offset -= early
	}
	return began.Add(c.offset)
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
