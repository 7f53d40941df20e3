package deliver

import (
	"math"
	"time"
)

// NackMode says what a nack does with the attempt.
type NackMode uint8

// The modes of a nack.
const (
	Retry   NackMode = iota // the attempt counts; the change comes again after the backoff
	Release                 // the attempt does not count; the change comes again at once
)

// NackOptions says how changes are given back.
type NackOptions struct {
	Mode   NackMode
	Delay  *time.Duration // overrides the backoff, and a release's "at once"
	Reason string         // is shown with the dead letter and with a blocked key
}

// nack gives back the change that the token names, and with it every later one of
// its key that is out. Tokens of one call are given in ascending seq: those that an
// earlier one of the call has given back count as covered.
func (w *window) nack(t token, o NackOptions, covered map[uint64]uint64) verdict {
	s, v := w.find(t)
	if s == none {
		return v
	}
	e := &w.entries[s]
	if e.delivery != t.delivery || t.epoch != w.epoch {
		return stale
	}
	switch e.phase {
	case leased:
	case acked:
		return pending
	case waiting:
		if covered[t.key] == t.delivery {
			return applied
		}
		if e.flags&nacked != 0 {
			// The same call again: its answer got lost.
			covered[t.key] = t.delivery
			return pending
		}
		return stale
	case parking, blocked:
		if e.flags&nacked != 0 {
			return pending
		}
		return stale
	default:
		return stale
	}
	covered[t.key] = t.delivery
	w.totals.Nacked++
	e.flags |= nacked
	if o.Mode == Release {
		w.giveBack(s)
		e.at = w.notBefore(o.Delay)
		w.place(e.key)
		return applied
	}
	w.giveBack(s)
	w.failed(s, o.Reason, o.Delay)
	return applied
}

// notBefore is when a change with that delay may go out.
func (w *window) notBefore(delay *time.Duration) int64 {
	if delay == nil || *delay <= 0 {
		return 0
	}
	return w.now + int64(*delay)
}

// giveBack takes back a leased change and every later leased one of its key:
// otherwise two workers could hold one key. Those acked stay acked. Nothing is
// counted. The caller places the key.
func (w *window) giveBack(s int32) {
	for x := s; x != none; {
		next := w.entries[x].kNext
		if w.entries[x].phase == leased {
			w.unlease(x)
		}
		x = next
	}
}

// failed counts an attempt of a change that was given back, and decides when, or
// whether, it goes out again.
func (w *window) failed(s int32, reason string, delay *time.Duration) {
	e := &w.entries[s]
	e.attempts++
	w.touch(s)
	if reason != "" {
		w.reasons[e.seq] = reason
	}
	switch {
	case w.policy.maxAttempts > 0 && int(e.attempts) >= w.policy.maxAttempts:
		w.exhaust(s, reason)
	case delay != nil:
		e.at = w.notBefore(delay)
	default:
		e.at = w.now + int64(w.backoff(e.attempts))
	}
	w.place(e.key)
}

// backoff is how long a change waits after its nth attempt.
func (w *window) backoff(n uint32) time.Duration {
	b := w.policy.backoff
	d := float64(b.First) * math.Pow(2, float64(min(n, 64)-1))
	d = min(d, float64(b.Max))
	d *= 1 + b.Jitter*(2*w.random()-1)
	return time.Duration(d)
}
