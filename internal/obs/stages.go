package obs

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

type captureVecs struct {
	captured, capturedTx, capturedBytes, reconnects *prometheus.CounterVec
	connected, lagBytes, lagSeconds, slotRetained   *prometheus.GaugeVec
}

func (d *declarer) captureVecs() captureVecs {
	return captureVecs{
		captured:      d.counter("lockstep_captured_changes_total", "Changes decoded from a database's write-ahead log.", "database"),
		capturedTx:    d.counter("lockstep_captured_transactions_total", "Transactions with at least one wanted change.", "database"),
		capturedBytes: d.counter("lockstep_captured_bytes_total", "Bytes received from the replication slot.", "database"),
		reconnects:    d.counter("lockstep_capture_reconnects_total", "Times that capture had to connect again.", "database"),
		connected:     d.gauge("lockstep_capture_connected", "1 while capture receives from the database, 0 otherwise.", "database"),
		lagBytes:      d.gauge("lockstep_lag_bytes", "Write-ahead log that the database has written and the stream does not hold durably.", "database"),
		lagSeconds:    d.gauge("lockstep_lag_seconds", "Age of the newest commit that the stream holds while the database is ahead of it; 0 when level.", "database"),
		slotRetained:  d.gauge("lockstep_slot_retained_bytes", "Write-ahead log that the replication slot makes the database keep.", "database"),
	}
}

// Capture is what a database's capture reports.
type Capture struct {
	changes, transactions, bytes, reconnects prometheus.Counter
	connected, lagBytes, lagSeconds, slot    prometheus.Gauge
}

// Capture returns the view of the capture of a database.
func (m *Metrics) Capture(database string) *Capture {
	return &Capture{
		changes:      m.captured.WithLabelValues(database),
		transactions: m.capturedTx.WithLabelValues(database),
		bytes:        m.capturedBytes.WithLabelValues(database),
		reconnects:   m.reconnects.WithLabelValues(database),
		connected:    m.connected.WithLabelValues(database),
		lagBytes:     m.lagBytes.WithLabelValues(database),
		lagSeconds:   m.lagSeconds.WithLabelValues(database),
		slot:         m.slotRetained.WithLabelValues(database),
	}
}

// Captured adds what one batch took from the slot: changes, the transactions that
// ended in it, and the bytes received for it.
func (c *Capture) Captured(changes, transactions, bytes int) {
	c.changes.Add(float64(changes))
	c.transactions.Add(float64(transactions))
	c.bytes.Add(float64(bytes))
}

// Connected and Disconnected say whether capture receives.
func (c *Capture) Connected() { c.connected.Set(1) }

// Disconnected is the end of what Connected began.
func (c *Capture) Disconnected() { c.connected.Set(0) }

// Reconnecting counts an attempt to connect after the first.
func (c *Capture) Reconnecting() { c.reconnects.Inc() }

// SetLag sets how far the stream is behind the database.
func (c *Capture) SetLag(bytes int64, age time.Duration) {
	c.lagBytes.Set(float64(bytes))
	c.lagSeconds.Set(age.Seconds())
}

// SetSlotRetained sets how much log the slot makes the database keep.
func (c *Capture) SetSlotRetained(bytes int64) { c.slot.Set(float64(bytes)) }

type streamVecs struct {
	appended, appendedBytes, batches *prometheus.CounterVec
	firstSeq, lastSeq                *prometheus.GaugeVec
}

func (d *declarer) streamVecs() streamVecs {
	return streamVecs{
		appended:      d.counter("lockstep_stream_appended_changes_total", "Changes that are durable in the stream.", "database"),
		appendedBytes: d.counter("lockstep_stream_appended_bytes_total", "Bytes of batches that are durable in the stream.", "database"),
		batches:       d.counter("lockstep_stream_appended_batches_total", "Batches that are durable in the stream.", "database"),
		firstSeq:      d.gauge("lockstep_stream_first_seq", "Oldest seq that retention has left in the stream.", "database"),
		lastSeq:       d.gauge("lockstep_stream_last_seq", "Newest seq in the stream.", "database"),
	}
}

// Stream is what the log of a database reports.
type Stream struct {
	changes, bytes, batches prometheus.Counter
	first, last             prometheus.Gauge
}

// Stream returns the view of the log of a database.
func (m *Metrics) Stream(database string) *Stream {
	return &Stream{
		changes: m.appended.WithLabelValues(database),
		bytes:   m.appendedBytes.WithLabelValues(database),
		batches: m.batches.WithLabelValues(database),
		first:   m.firstSeq.WithLabelValues(database),
		last:    m.lastSeq.WithLabelValues(database),
	}
}

// Appended adds one batch that is on disk.
func (s *Stream) Appended(changes, bytes int) {
	s.changes.Add(float64(changes))
	s.bytes.Add(float64(bytes))
	s.batches.Inc()
}

// SetRange sets the oldest and the newest seq of the log.
func (s *Stream) SetRange(first, last uint64) {
	s.first.Set(float64(first))
	s.last.Set(float64(last))
}

// ForgetDatabase removes the series of a database that was deleted. Its capture and its
// log must not report any more: they have nothing to report to.
func (m *Metrics) ForgetDatabase(database string) {
	for _, v := range []*prometheus.CounterVec{m.captured, m.capturedTx, m.capturedBytes, m.reconnects, m.appended, m.appendedBytes, m.batches} {
		v.DeleteLabelValues(database)
	}
	for _, v := range []*prometheus.GaugeVec{m.connected, m.lagBytes, m.lagSeconds, m.slotRetained, m.firstSeq, m.lastSeq} {
		v.DeleteLabelValues(database)
	}
}
