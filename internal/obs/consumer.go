package obs

import (
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

type consumerVecs struct {
	delivered, redelivered, acked, nacked, expired, parked *prometheus.CounterVec
	pending, inFlight, dead, oldest, paused                *prometheus.GaugeVec
}

func (d *declarer) consumerVecs() consumerVecs {
	labels := []string{"database", "consumer"}
	return consumerVecs{
		delivered:   d.counter("lockstep_consumer_delivered_total", "Changes handed out, redeliveries included.", labels...),
		redelivered: d.counter("lockstep_consumer_redelivered_total", "Changes handed out for a second time or later.", labels...),
		acked:       d.counter("lockstep_consumer_acked_total", "Changes acknowledged.", labels...),
		nacked:      d.counter("lockstep_consumer_nacked_total", "Changes given back by workers.", labels...),
		expired:     d.counter("lockstep_consumer_expired_total", "Deliveries whose lease ran out.", labels...),
		parked:      d.counter("lockstep_consumer_dead_total", "Changes that went to the dead letters.", labels...),
		pending:     d.gauge("lockstep_consumer_pending", "Changes in the stream that the consumer has not settled and that are not in flight; an upper bound with a filter.", labels...),
		inFlight:    d.gauge("lockstep_consumer_in_flight", "Changes handed out and not settled.", labels...),
		dead:        d.gauge("lockstep_consumer_dead_letters", "Dead letters that wait for a person.", labels...),
		oldest:      d.gauge("lockstep_consumer_oldest_unacked_seconds", "Age of the oldest change that is not settled; 0 when there is none.", labels...),
		paused:      d.gauge("lockstep_consumer_paused", "1 while the consumer is paused, 0 otherwise.", labels...),
	}
}

// ConsumerTotals are counts since a consumer was opened. They only grow.
type ConsumerTotals struct {
	Delivered, Redelivered, Acked, Nacked, Expired, Parked uint64
}

// ConsumerNow is how a consumer stands.
type ConsumerNow struct {
	Pending, InFlight, Dead uint64
	OldestUnacked           time.Duration
	Paused                  bool
}

// Consumer is what one consumer's counts are reported by.
type Consumer struct {
	delivered, redelivered, acked, nacked, expired, parked prometheus.Counter
	pending, inFlight, dead, oldest, paused                prometheus.Gauge

	mu   sync.Mutex
	last ConsumerTotals // guarded by mu
}

// Consumer returns the view of a consumer. Keep it as long as the consumer is open:
// it remembers the totals that it has seen.
func (m *Metrics) Consumer(database, consumer string) *Consumer {
	l := []string{database, consumer}
	return &Consumer{
		delivered:   m.delivered.WithLabelValues(l...),
		redelivered: m.redelivered.WithLabelValues(l...),
		acked:       m.acked.WithLabelValues(l...),
		nacked:      m.nacked.WithLabelValues(l...),
		expired:     m.expired.WithLabelValues(l...),
		parked:      m.parked.WithLabelValues(l...),
		pending:     m.pending.WithLabelValues(l...),
		inFlight:    m.inFlight.WithLabelValues(l...),
		dead:        m.dead.WithLabelValues(l...),
		oldest:      m.oldest.WithLabelValues(l...),
		paused:      m.paused.WithLabelValues(l...),
	}
}

// Report sets how the consumer stands and adds what its totals have gained since
// the last report. Totals that went back are those of a consumer opened anew.
func (c *Consumer) Report(t ConsumerTotals, now ConsumerNow) {
	c.mu.Lock()
	defer c.mu.Unlock()
	gain(c.delivered, c.last.Delivered, t.Delivered)
	gain(c.redelivered, c.last.Redelivered, t.Redelivered)
	gain(c.acked, c.last.Acked, t.Acked)
	gain(c.nacked, c.last.Nacked, t.Nacked)
	gain(c.expired, c.last.Expired, t.Expired)
	gain(c.parked, c.last.Parked, t.Parked)
	c.last = t
	c.pending.Set(float64(now.Pending))
	c.inFlight.Set(float64(now.InFlight))
	c.dead.Set(float64(now.Dead))
	c.oldest.Set(now.OldestUnacked.Seconds())
	c.paused.Set(0)
	if now.Paused {
		c.paused.Set(1)
	}
}

func gain(c prometheus.Counter, before, after uint64) {
	if after < before {
		before = 0
	}
	c.Add(float64(after - before))
}

// Forget removes the series of a consumer that was deleted, and those of its destination.
func (m *Metrics) Forget(database, consumer string) {
	l := prometheus.Labels{"database": database, "consumer": consumer}
	for _, v := range []*prometheus.CounterVec{m.delivered, m.redelivered, m.acked, m.nacked, m.expired, m.parked} {
		v.Delete(l)
	}
	for _, v := range []*prometheus.GaugeVec{m.pending, m.inFlight, m.dead, m.oldest, m.paused} {
		v.Delete(l)
	}
	m.attempts.DeletePartialMatch(l)
	m.took.DeletePartialMatch(l)
	m.state.DeletePartialMatch(l)
}
