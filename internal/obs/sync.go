package obs

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// SyncNow is how a sync stands when it is scraped.
type SyncNow struct {
	Name        string
	Up          bool // it reads its API, or would if there were something to read
	Collections []SyncCollection
	Quotas      []SyncQuota
}

// SyncCollection is how a collection stands. Totals are since the sync was opened.
type SyncCollection struct {
	Name             string
	Polled           time.Time // zero: not yet
	Changed, Deleted uint64
	Parked           int
}

// SyncQuota is how a limit of an API stands. Totals are since the sync was opened.
type SyncQuota struct {
	Bucket             string
	Requests, Refusals uint64
	Remaining          float64 // negative: not known
}

// RegisterSyncs shows the syncs that list returns, which is asked at each scrape.
func RegisterSyncs(reg prometheus.Registerer, list func() []SyncNow) error {
	describe := func(name, help string, labels ...string) *prometheus.Desc {
		return prometheus.NewDesc(name, help, append([]string{"sync"}, labels...), nil)
	}
	return reg.Register(&syncCollector{
		list:      list,
		up:        describe("lockstep_sync_up", "1 while the sync reads its API, 0 while it is paused, waits, fails or needs a person."),
		age:       describe("lockstep_sync_age_seconds", "How long ago the API was last asked with everything that it told in Postgres.", "collection"),
		changed:   describe("lockstep_sync_changed_total", "Rows of the mirror that were written.", "collection"),
		deleted:   describe("lockstep_sync_deleted_total", "Rows of the mirror that were deleted.", "collection"),
		parked:    describe("lockstep_sync_parked", "Records that the mirror's table has refused.", "collection"),
		requests:  describe("lockstep_sync_requests_total", "Requests to the API.", "bucket"),
		refusals:  describe("lockstep_sync_refusals_total", "Answers of the API that said: too often.", "bucket"),
		remaining: describe("lockstep_sync_quota_remaining", "What the API said is left of a limit.", "bucket"),
	})
}

type syncCollector struct {
	list                                                             func() []SyncNow
	up, age, changed, deleted, parked, requests, refusals, remaining *prometheus.Desc
}

// Describe implements [prometheus.Collector].
func (c *syncCollector) Describe(out chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{c.up, c.age, c.changed, c.deleted, c.parked, c.requests, c.refusals, c.remaining} {
		out <- d
	}
}

// Collect implements [prometheus.Collector].
func (c *syncCollector) Collect(out chan<- prometheus.Metric) {
	send := func(d *prometheus.Desc, kind prometheus.ValueType, value float64, labels ...string) {
		out <- prometheus.MustNewConstMetric(d, kind, value, labels...)
	}
	for _, s := range c.list() {
		up := 0.0
		if s.Up {
			up = 1
		}
		send(c.up, prometheus.GaugeValue, up, s.Name)
		for _, l := range s.Collections {
			if !l.Polled.IsZero() {
				send(c.age, prometheus.GaugeValue, max(time.Since(l.Polled), 0).Seconds(), s.Name, l.Name)
			}
			send(c.changed, prometheus.CounterValue, float64(l.Changed), s.Name, l.Name)
			send(c.deleted, prometheus.CounterValue, float64(l.Deleted), s.Name, l.Name)
			send(c.parked, prometheus.GaugeValue, float64(l.Parked), s.Name, l.Name)
		}
		for _, q := range s.Quotas {
			send(c.requests, prometheus.CounterValue, float64(q.Requests), s.Name, q.Bucket)
			send(c.refusals, prometheus.CounterValue, float64(q.Refusals), s.Name, q.Bucket)
			if q.Remaining >= 0 {
				send(c.remaining, prometheus.GaugeValue, q.Remaining, s.Name, q.Bucket)
			}
		}
	}
}
