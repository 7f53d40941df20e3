package pull

import "time"

// Hurry makes the pauses of a sync short, for tests. It is called before Run.
func (s *Sync) Hurry() {
	s.pace.retry, s.pace.retryMax = 10*time.Millisecond, 200*time.Millisecond
	s.pace.slow, s.pace.slowMax = 50*time.Millisecond, 300*time.Millisecond
	s.pace.shut, s.pace.shutMax = 100*time.Millisecond, 300*time.Millisecond
	s.pace.denied, s.pace.denyMax = 100*time.Millisecond, 400*time.Millisecond
	s.pace.report, s.pace.watch, s.pace.owed, s.pace.doubt = 100*time.Millisecond, 200*time.Millisecond, time.Second, 200*time.Millisecond
	s.pace.waiting = 200 * time.Millisecond
}

// CallsLastAtMost bounds the calls of the source.
func (s *Sync) CallsLastAtMost(d time.Duration) { s.pace.call = d }

// OwedEvery sets how often what was missed is read again.
func (s *Sync) OwedEvery(d time.Duration) { s.pace.owed = d }

// SaysLateAfter sets how long a poll may be due before it is said that the mirror is behind.
func (s *Sync) SaysLateAfter(d time.Duration) { s.pace.late = d }
