package sandbox

import (
	"sync"
	"time"
)

// Clock is an API's own time. It begins as the real time and can be put elsewhere,
// run faster or slower, and be stopped (scale 0).
type Clock struct {
	mu    sync.Mutex
	real  time.Time // when the clock was last set
	world time.Time // what it showed then
	scale float64   // seconds of the world per real second
}

// NewClock returns a clock that shows the real time.
func NewClock() *Clock {
	now := time.Now()
	return &Clock{real: now, world: now, scale: 1}
}

// Now returns the world's time.
func (c *Clock) Now() time.Time { return c.At(time.Now()) }

// At returns what the clock shows at a real instant, which may not lie before the
// last time it was set.
func (c *Clock) At(instant time.Time) time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.at(instant)
}

func (c *Clock) at(instant time.Time) time.Time {
	passed := max(instant.Sub(c.real), 0)
	return c.world.Add(time.Duration(float64(passed) * c.scale))
}

// Set puts the clock to a time; it goes on from there.
func (c *Clock) Set(t time.Time) { c.change(func(time.Time) time.Time { return t }, nil) }

// Shift moves the clock forth, or back when d is negative.
func (c *Clock) Shift(d time.Duration) {
	c.change(func(now time.Time) time.Time { return now.Add(d) }, nil)
}

// Scale makes the clock run that many times as fast as the real one; 0 stops it.
func (c *Clock) Scale(factor float64) {
	c.change(func(now time.Time) time.Time { return now }, &factor)
}

func (c *Clock) change(to func(time.Time) time.Time, scale *float64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	now := time.Now()
	c.world = to(c.at(now))
	c.real = now
	if scale != nil {
		c.scale = *scale
	}
}

// Standing returns what the clock shows, how far it is from the real time, and its scale.
func (c *Clock) Standing() (now time.Time, offset time.Duration, scale float64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	instant := time.Now()
	now = c.at(instant)
	return now, now.Sub(instant), c.scale
}
