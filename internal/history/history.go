// Package history keeps in memory how a node was in the last hour: one sample every
// ten seconds, for charts.
//
// # Guarantees
//
//  1. A place without a sample is missing, never zero: the node was down or hung, the
//     series began later, or a rate has nothing before it to be reckoned from.
//  2. Rates are reckoned from totals at the moment of their sample. A total that went
//     back, as that of a consumer that was opened again, begins a new reckoning.
//  3. Memory is bounded: a series takes about 17 KB whatever happens in it, and there
//     are at most [Config.Most] of them. Those that ended longest ago go first; when all
//     are alive, further ones are not kept.
//  4. A series that ended is kept as long as one of its samples is.
//  5. Nothing is on disk: a restart begins anew.
package history

import (
	"math"
	"sync"
	"time"
)

const (
	// Every is the time between two samples.
	Every = 10 * time.Second
	// Kept is how many samples are kept: an hour.
	Kept = 360
	// most is the default of [Config.Most].
	most = 2000
	// rateOver is how many samples [History.Rate] looks back: a minute.
	rateOver = 6
)

// Database is what a sample says of a database.
type Database struct {
	Changes uint64 // captured since some beginning
	Lag     int64  // bytes of WAL that the stream does not hold yet
}

// Consumer is what a sample says of a consumer.
type Consumer struct {
	Name              string
	Database          string
	Pending, InFlight uint64
	// Totals since some beginning.
	Delivered, Redelivered, Settled uint64
	OldestUnacked                   time.Duration // 0: nothing is unacked
}

// Node is what a sample says of the process.
type Node struct {
	RSS        int64 // bytes
	Goroutines int
}

// Sample is how everything is at one moment. Consumers are by id, databases by name.
type Sample struct {
	At        time.Time
	Node      Node
	Databases map[string]Database
	Consumers map[string]Consumer
}

// Config bounds a History. The zero value is the default.
type Config struct {
	Most int // series of consumers and databases, each; 0: 2,000
}

// History is the last hour. It is safe for concurrent use.
type History struct {
	most int

	mu        sync.Mutex  // guards what follows
	latest    int64       // the newest slot; 0: none yet
	slots     [Kept]int64 // which slot each place holds: the time divided by Every
	rss       ring
	routines  ring
	databases map[string]*series
	consumers map[string]*series
}

// ring is a measure's values by place.
type ring [Kept]float64

// series is everything of one database or consumer.
type series struct {
	name, database string
	last           int64 // the slot of its last sample
	at             time.Time
	totals         [3]uint64 // as they were then
	values         []ring    // by measure
}

// The measures of a database and of a consumer, as indices of values.
const (
	changes = iota
	lag
	databaseMeasures
)

const (
	pending = iota
	inFlight
	delivered
	redelivered
	settled
	oldest
	consumerMeasures
)

// New returns an empty history.
func New(c Config) *History {
	if c.Most <= 0 {
		c.Most = most
	}
	return &History{most: c.Most, databases: map[string]*series{}, consumers: map[string]*series{}}
}

// slotOf is the place in time that a moment is nearest to.
func slotOf(t time.Time) int64 {
	return (t.UnixNano() + int64(Every/2)) / int64(Every)
}

// Add takes a sample. A second one of the same ten seconds is left out, and so is one
// that is older than the last, as after the clock was set back.
func (h *History) Add(s Sample) {
	slot := slotOf(s.At)
	place := int(slot % Kept)
	h.mu.Lock()
	defer h.mu.Unlock()
	if slot <= h.latest {
		return
	}
	h.slots[place], h.latest = slot, slot
	h.rss[place], h.routines[place] = float64(s.Node.RSS), float64(s.Node.Goroutines)
	blank(h.databases, place)
	blank(h.consumers, place)
	for name, d := range s.Databases {
		one := h.of(h.databases, name, databaseMeasures, slot)
		if one == nil {
			continue
		}
		rates := one.rates(s.At, slot, d.Changes)
		one.name = name
		one.values[changes][place], one.values[lag][place] = rates[0], float64(d.Lag)
	}
	for id, c := range s.Consumers {
		if one := h.of(h.consumers, id, consumerMeasures, slot); one != nil {
			one.consumer(c, s.At, slot, place)
		}
	}
}

func (s *series) consumer(c Consumer, at time.Time, slot int64, place int) {
	s.name, s.database = c.Name, c.Database
	again := math.NaN()
	if s.last == slot-1 && c.Redelivered >= s.totals[1] {
		again = float64(c.Redelivered - s.totals[1])
	}
	rates := s.rates(at, slot, c.Delivered, c.Redelivered, c.Settled)
	for measure, value := range [consumerMeasures]float64{
		pending: float64(c.Pending), inFlight: float64(c.InFlight), delivered: rates[0], redelivered: again, settled: rates[2], oldest: c.OldestUnacked.Seconds(),
	} {
		s.values[measure][place] = value
	}
}

// blank forgets what was at a place an hour ago.
func blank(all map[string]*series, place int) {
	for _, s := range all {
		for i := range s.values {
			s.values[i][place] = math.NaN()
		}
	}
}

// of finds a series or begins one; nil: there are too many that are alive.
func (h *History) of(all map[string]*series, key string, measures int, slot int64) *series {
	if s := all[key]; s != nil {
		return s
	}
	h.expire(all, slot)
	if len(all) >= h.most {
		return nil
	}
	s := &series{values: make([]ring, measures)}
	for i := range s.values {
		for place := range s.values[i] {
			s.values[i][place] = math.NaN()
		}
	}
	all[key] = s
	return s
}

// expire removes what has no sample left, and, when there are too many, what ended
// longest ago.
func (h *History) expire(all map[string]*series, slot int64) {
	first, ended := "", slot-1 // those of the last sample are alive
	for key, s := range all {
		if s.last <= slot-Kept {
			delete(all, key)
			continue
		}
		if s.last < ended {
			first, ended = key, s.last
		}
	}
	if len(all) >= h.most && first != "" {
		delete(all, first)
	}
}

// rates reckons how fast totals have grown since the sample before.
func (s *series) rates(at time.Time, slot int64, totals ...uint64) [3]float64 {
	out := [3]float64{math.NaN(), math.NaN(), math.NaN()}
	passed := at.Sub(s.at).Seconds()
	for i, total := range totals {
		if s.last == slot-1 && total >= s.totals[i] && passed > 0 {
			out[i] = float64(total-s.totals[i]) / passed
		}
		s.totals[i] = total
	}
	s.last, s.at = slot, at
	return out
}
