package obs

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

type destinationVecs struct {
	attempts *prometheus.CounterVec
	took     *prometheus.HistogramVec
	state    *prometheus.GaugeVec
}

func (d *declarer) destinationVecs() destinationVecs {
	labels := []string{"database", "consumer"}
	return destinationVecs{
		attempts: d.counter("lockstep_delivery_attempts_total", "Tries to deliver to a destination, of one change or a batch, by outcome: delivered, partly, or the kind of the error.", append(labels, "outcome")...),
		took:     d.histogram("lockstep_delivery_seconds", "Time that a try to deliver to a destination took.", labels...),
		state:    d.gauge("lockstep_delivery_state", "1 for the state that sending to a destination is in, 0 for the others.", append(labels, "state")...),
	}
}

// Destination is what sending to a consumer's destination is reported by. Its methods may
// be called concurrently; State by one at a time.
type Destination struct {
	attempts map[string]prometheus.Counter
	took     prometheus.Observer
	states   map[string]prometheus.Gauge
}

// Destination returns the view of a consumer's destination, which knows those outcomes
// and states and no others. After [Metrics.Forget] what it is told is not shown any more.
func (m *Metrics) Destination(database, consumer string, outcomes, states []string) *Destination {
	d := &Destination{attempts: map[string]prometheus.Counter{}, states: map[string]prometheus.Gauge{}, took: m.took.WithLabelValues(database, consumer)}
	for _, o := range outcomes {
		d.attempts[o] = m.attempts.WithLabelValues(database, consumer, o)
	}
	for _, s := range states {
		d.states[s] = m.state.WithLabelValues(database, consumer, s)
	}
	return d
}

// Attempt counts one try.
func (d *Destination) Attempt(outcome string, took time.Duration) {
	if c := d.attempts[outcome]; c != nil {
		c.Inc()
	}
	d.took.Observe(took.Seconds())
}

// State sets the state that sending is in.
func (d *Destination) State(now string) {
	for state, gauge := range d.states {
		if state == now {
			gauge.Set(1)
		} else {
			gauge.Set(0)
		}
	}
}
