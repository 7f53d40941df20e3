package obs

import (
	"net/http"
	"runtime"
	"strconv"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// Metrics is the set of metrics of one engine. It is safe for concurrent use.
// Stages are handed typed views of it: [Metrics.Capture], [Metrics.Stream],
// [Metrics.Consumer]; a view's methods cost an atomic addition.
type Metrics struct {
	captureVecs
	streamVecs
	consumerVecs
	destinationVecs
	memory   *prometheus.GaugeVec
	requests *prometheus.CounterVec
	seconds  *prometheus.HistogramVec
	sessions *prometheus.GaugeVec

	mu      sync.Mutex
	refresh []func() // guarded by mu
}

// NewMetrics declares the metrics on reg, which must not have them yet. version
// goes into lockstep_build_info.
func NewMetrics(reg prometheus.Registerer, version string) (*Metrics, error) {
	d := declarer{reg: reg}
	m := &Metrics{
		captureVecs:     d.captureVecs(),
		streamVecs:      d.streamVecs(),
		consumerVecs:    d.consumerVecs(),
		destinationVecs: d.destinationVecs(),
		memory:          d.gauge("lockstep_memory_bytes", "Bytes held by a stage's buffers and caches, within its budget.", "stage"),
		requests:        d.counter("lockstep_http_requests_total", "HTTP requests answered, by route pattern and status code.", "method", "route", "code"),
		seconds:         d.histogram("lockstep_http_request_duration_seconds", "Time from request to end of answer; long polls and streams excluded.", "method", "route"),
		sessions:        d.gauge("lockstep_http_streams", "Open event streams (SSE), by database.", "database"),
	}
	d.gauge("lockstep_build_info", "Always 1; the version is in the labels.", "version", "go_version").
		WithLabelValues(version, runtime.Version()).Set(1)
	return m, d.err
}

// BeforeScrape has f called before each answer of [Metrics.Handler], to set gauges
// that are cheaper to read than to keep. f must not block for long.
func (m *Metrics) BeforeScrape(f func()) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.refresh = append(m.refresh, f)
}

// Handler answers scrapes with what g gathers.
func (m *Metrics) Handler(g prometheus.Gatherer) http.Handler {
	inner := promhttp.HandlerFor(g, promhttp.HandlerOpts{})
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		m.mu.Lock()
		hooks := m.refresh
		m.mu.Unlock()
		for _, f := range hooks {
			f()
		}
		inner.ServeHTTP(w, r)
	})
}

// SetMemory sets how many bytes a stage's buffers hold. Stages are few and fixed:
// stream_cache and deliver_window.
func (m *Metrics) SetMemory(stage string, bytes int64) {
	m.memory.WithLabelValues(stage).Set(float64(bytes))
}

// Answered counts one HTTP answer. route is a pattern of the route table.
func (m *Metrics) Answered(method, route string, code int) {
	m.requests.WithLabelValues(method, route, strconv.Itoa(code)).Inc()
}

// Took records how long a request took that does not wait on purpose.
func (m *Metrics) Took(method, route string, d time.Duration) {
	m.seconds.WithLabelValues(method, route).Observe(d.Seconds())
}

// StreamOpened and StreamClosed count the open event streams of a database.
func (m *Metrics) StreamOpened(database string) { m.sessions.WithLabelValues(database).Inc() }

// StreamClosed is the end of what StreamOpened began.
func (m *Metrics) StreamClosed(database string) { m.sessions.WithLabelValues(database).Dec() }

// declarer registers metrics and keeps the first error.
type declarer struct {
	reg prometheus.Registerer
	err error
}

func (d *declarer) register(c prometheus.Collector) {
	if err := d.reg.Register(c); err != nil && d.err == nil {
		d.err = err
	}
}

func (d *declarer) counter(name, help string, labels ...string) *prometheus.CounterVec {
	v := prometheus.NewCounterVec(prometheus.CounterOpts{Name: name, Help: help}, labels)
	d.register(v)
	return v
}

func (d *declarer) gauge(name, help string, labels ...string) *prometheus.GaugeVec {
	v := prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: name, Help: help}, labels)
	d.register(v)
	return v
}

func (d *declarer) histogram(name, help string, labels ...string) *prometheus.HistogramVec {
	// From a cached read to a group commit on a slow disk.
	buckets := []float64{.0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5}
	v := prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: name, Help: help, Buckets: buckets}, labels)
	d.register(v)
	return v
}
