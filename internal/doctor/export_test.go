package doctor

import "time"

// What tests set otherwise, to provoke in a moment what takes a minute or a gigabyte.

// Quick measures the disk for a moment only.
func (o Options) Quick() Options {
	o.limits = defaultLimits()
	o.limits.measure = 2 * time.Millisecond
	return o
}

// Transactions sets the age from which an open transaction is told.
func (o Options) Transactions(age time.Duration) Options { o.limits.transaction = age; return o }

// Retained sets how much a slot may keep.
func (o Options) Retained(bytes int64) Options { o.limits.retained = bytes; return o }

// Shifted sets this machine's clock off.
func (o Options) Shifted(by time.Duration) Options {
	o.limits.now = func() time.Time { return time.Now().Add(by) }
	return o
}

// SlowSync sets what counts as a slow fsync.
func (o Options) SlowSync(d time.Duration) Options { o.limits.slowSync = d; return o }

// Monitor sets the monitoring port of NATS servers.
func (o Options) Monitor(port string) Options { o.limits.monitor = port; return o }

// CheckTime sets how long one check may take.
func (o Options) CheckTime(d time.Duration) Options {
	o.limits.check, o.limits.grace = d, 100*time.Millisecond
	return o
}
