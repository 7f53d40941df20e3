package history

import (
	"math"
	"time"
)

// Query says what is read. The zero value is everything of the last hour.
type Query struct {
	Now   time.Time     // the end; zero: now
	Since time.Duration // how far back; 0 or more than an hour: an hour
	// Database chooses one series, and Consumers some, by id or name. When any is given,
	// nothing of the others is returned.
	Database  string
	Consumers []string
}

// Missing is the value of a place without a sample: not a number.
func Missing(value float64) bool { return math.IsNaN(value) }

// Series is a part of the history. Each list of values has one for each of At; those
// that are [Missing] were not sampled.
type Series struct {
	At        []int64 // Unix seconds, ten apart, the oldest first
	Node      NodeSeries
	Databases map[string]DatabaseSeries // by name
	Consumers map[string]ConsumerSeries // by name; of several of the same name the last
}

// NodeSeries is the process.
type NodeSeries struct{ RSS, Goroutines []float64 }

// DatabaseSeries is one database.
type DatabaseSeries struct {
	Changes []float64 // captured per second
	Lag     []float64 // bytes
}

// ConsumerSeries is one consumer.
type ConsumerSeries struct {
	ID, Database       string
	Pending, InFlight  []float64
	Delivered, Settled []float64 // per second
	Redelivered        []float64 // since the sample before
	OldestUnacked      []float64 // seconds
}

// Read returns a copy of a part of the history.
func (h *History) Read(q Query) Series {
	if q.Now.IsZero() {
		q.Now = time.Now()
	}
	n := int64(q.Since / Every)
	if n <= 0 || n > Kept {
		n = Kept
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	// The sample of this very moment may not be taken yet: the end is the last one, while
	// there is one every ten seconds.
	last := slotOf(q.Now)
	if h.latest >= last-1 {
		last = h.latest
	}
	w := window{h: h, first: last - n + 1, last: last}
	out := Series{At: w.times(), Databases: map[string]DatabaseSeries{}, Consumers: map[string]ConsumerSeries{}}
	all := q.Database == "" && len(q.Consumers) == 0
	asked := make(map[string]bool, len(q.Consumers))
	for _, one := range q.Consumers {
		asked[one] = true
	}
	if all {
		out.Node = NodeSeries{RSS: w.cut(&h.rss), Goroutines: w.cut(&h.routines)}
	}
	for name, s := range h.databases {
		if w.has(s) && (all || name == q.Database) {
			out.Databases[name] = DatabaseSeries{Changes: w.cut(&s.values[changes]), Lag: w.cut(&s.values[lag])}
		}
	}
	newest := map[string]int64{}
	for id, s := range h.consumers {
		if !w.has(s) || !all && !asked[id] && !asked[s.name] || newest[s.name] > s.last {
			continue
		}
		newest[s.name] = s.last
		out.Consumers[s.name] = ConsumerSeries{
			ID: id, Database: s.database, Pending: w.cut(&s.values[pending]), InFlight: w.cut(&s.values[inFlight]), Delivered: w.cut(&s.values[delivered]),
			Settled: w.cut(&s.values[settled]), Redelivered: w.cut(&s.values[redelivered]), OldestUnacked: w.cut(&s.values[oldest]),
		}
	}
	return out
}

// Rate returns how many changes a consumer settles per second, over the last minute;
// false when nothing is known of it.
func (h *History) Rate(consumer string) (perSecond float64, known bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	s := h.consumers[consumer]
	if s == nil || s.last < slotOf(time.Now())-rateOver {
		return 0, false
	}
	sum, n := 0.0, 0
	for slot := s.last - rateOver + 1; slot <= s.last; slot++ {
		if place := slot % Kept; place >= 0 && h.slots[place] == slot && !Missing(s.values[settled][place]) {
			sum += s.values[settled][place]
			n++
		}
	}
	if n == 0 {
		return 0, false
	}
	return sum / float64(n), true
}

// window is the slots that are read.
type window struct {
	h           *History
	first, last int64
}

// has reports whether a sample of the series is in the window.
func (w window) has(s *series) bool { return s.last >= w.first }

func (w window) times() []int64 {
	out := make([]int64, 0, w.last-w.first+1)
	for slot := w.first; slot <= w.last; slot++ {
		out = append(out, slot*int64(Every/time.Second))
	}
	return out
}

func (w window) cut(r *ring) []float64 {
	out := make([]float64, 0, w.last-w.first+1)
	for slot := w.first; slot <= w.last; slot++ {
		value := math.NaN()
		if place := slot % Kept; place >= 0 && w.h.slots[place] == slot {
			value = r[place]
		}
		out = append(out, value)
	}
	return out
}
