package deliver

import "time"

const leaseExpired = "lease expired"

// expire takes back what was not settled in time and lets keys go whose wait is
// over. A lease that ran out counts as an attempt of the first unsettled change of
// its key only: nobody tried those behind it. They come again at once: the lease
// was the wait.
func (w *window) expire(now int64) {
	w.now = now
	for {
		first, ok := w.leases.min()
		if !ok || first.at > now {
			break
		}
		w.expireKey(w.entries[first.slot].key)
	}
	for {
		first, ok := w.delayed.min()
		if !ok || first.at > now {
			break
		}
		w.place(first.slot)
	}
}

// expireKey takes back the first change of the key whose lease ran out, and with it
// the later ones.
func (w *window) expireKey(k int32) {
	s := w.keys[k].head
	for w.entries[s].phase != leased || w.entries[s].at > w.now {
		s = w.entries[s].kNext
	}
	w.totals.Expired++
	w.giveBack(s)
	if w.keys[k].head == s {
		w.failed(s, leaseExpired, new(time.Duration))
		return
	}
	w.place(k)
}

// extend moves the end of a lease to at least by from now, up to twelve hours after
// the change was handed out.
func (w *window) extend(t token, by time.Duration) verdict {
	s, v := w.find(t)
	if s == none {
		if v == settled {
			return stale
		}
		return v
	}
	e := &w.entries[s]
	if e.phase != leased || e.delivery != t.delivery || t.epoch != w.epoch {
		return stale
	}
	until := min(w.now+int64(by), e.since+int64(extendLimit))
	if until > e.at {
		w.leases.remove(e.heap)
		e.at = until
		w.leases.push(until, s)
	}
	return applied
}

// wake returns the next time at which something changes by itself, or 0.
func (w *window) wake() int64 {
	next := int64(0)
	if l, ok := w.leases.min(); ok {
		next = l.at
	}
	if d, ok := w.delayed.min(); ok && (next == 0 || d.at < next) {
		next = d.at
	}
	return next
}
