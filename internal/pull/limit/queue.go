package limit

import (
	"net/http"
	"slices"
	"time"

	"lockstep/source"
)

// waiter is one request, from when it comes to its answer.
type waiter struct {
	priority int
	cost     float64
	buckets  []*bucket
	since    time.Time
	slots    []*slot // where it is counted, by bucket; nil until it may leave
	number   uint64  // in the order of leaving
	granted  chan struct{}
}

func (w *waiter) writes() bool { return w.priority == int(source.Writing) }

func (l *Limiter) enqueue(w *waiter, names []string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := time.Now()
	w.since = now
	if l.own != nil {
		w.buckets = append(w.buckets, l.own)
	}
	for _, name := range names {
		if b := l.bucket(name, now); b != nil && !slices.Contains(w.buckets, b) {
			w.buckets = append(w.buckets, b)
		}
	}
	for _, b := range w.buckets {
		b.users++
	}
	l.queues[w.priority] = append(l.queues[w.priority], w)
	l.dispatch()
}

// leave takes a waiter out whose caller has gone. What it has got meanwhile is given
// back: its request will not leave.
func (l *Limiter) leave(w *waiter) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for i, b := range w.buckets {
		b.users--
		if w.slots != nil {
			b.undo(w, w.slots[i])
		}
	}
	if w.slots == nil {
		q := &l.queues[w.priority]
		*q = slices.DeleteFunc(*q, func(o *waiter) bool { return o == w })
	}
	l.dispatch()
}

// release ends a request.
func (l *Limiter) release(w *waiter, answer *http.Response) {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := time.Now()
	for i, b := range w.buckets {
		b.users--
		b.release(now, w, w.slots[i])
		if answer != nil && b != l.own {
			b.learn(now, answer.Header, w.number)
		}
	}
	l.dispatch()
}

// pass is one look at all who wait.
type pass struct {
	now    time.Time
	number uint64
	next   time.Time // when the next one is worth while; zero: not because of the time
}

func (p *pass) note(at time.Time) {
	if at.After(p.now) && (p.next.IsZero() || at.Before(p.next)) {
		p.next = at
	}
}

// dispatch lets go who may, and sees to it that it is called when the next may.
func (l *Limiter) dispatch() {
	l.passes++
	p := &pass{now: time.Now(), number: l.passes}
	for q := priorities - 1; q >= 0; q-- {
		if l.turns[q] >= 1 {
			l.serveOne(p, q)
		}
	}
	for q := range l.queues {
		l.serve(p, q)
	}
	if p.next.IsZero() {
		if l.timer != nil {
			l.timer.Stop()
		}
		return
	}
	if l.timer == nil {
		l.timer = time.AfterFunc(p.next.Sub(p.now), l.wake)
		return
	}
	l.timer.Reset(p.next.Sub(p.now))
}

func (l *Limiter) wake() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.dispatch()
}

// serve goes through the queue of a priority.
func (l *Limiter) serve(p *pass, q int) {
	queue := l.queues[q]
	kept := queue[:0]
	for _, w := range queue {
		o := p.look(w)
		if o.open {
			l.grant(p.now, w)
			continue
		}
		p.claim(w, o)
		kept = append(kept, w)
	}
	clear(queue[len(kept):])
	l.queues[q] = kept
}

const (
	// soon is how far ahead a turn is kept for the one whose it is.
	soon = time.Second
	// patience is how long who needs several buckets waits for a moment when all of
	// them are open by themselves. Keeping them open leaves some of them unused.
	patience = time.Second
)

// serveOne gives a low priority its turn: the first who may leave does, or is first
// as soon as it may.
func (l *Limiter) serveOne(p *pass, q int) {
	for i, w := range l.queues[q] {
		o := p.look(w)
		if o.open {
			l.queues[q] = slices.Delete(l.queues[q], i, i+1)
			l.turns[q]--
			l.grant(p.now, w)
			return
		}
		if o.full || o.at.Sub(p.now) <= soon {
			p.claim(w, o)
			return
		}
	}
}

// outlook is whether a request may leave, and when.
type outlook struct {
	open bool
	at   time.Time // not before
	full bool      // somebody must come back first
	lack []bool    // by bucket: not yet
}

func (p *pass) look(w *waiter) outlook {
	o := outlook{open: true, at: p.now}
	for i, b := range w.buckets {
		b.refresh(p.now)
		at, full := b.opens(p.now, w)
		if lacking := full || at.After(p.now); lacking {
			if o.lack == nil {
				o.lack = make([]bool, len(w.buckets))
			}
			o.lack[i], o.full, o.open = true, o.full || full, false
			o.at = later(o.at, at)
		}
		o.open = o.open && b.claimed != p.number
	}
	return o
}

// claim keeps what a request waits for from those behind it; after a while also what it
// does not lack, unless that is there again when the rest is.
func (p *pass) claim(w *waiter, o outlook) {
	p.note(o.at)
	if o.lack == nil {
		return
	}
	near := !o.full && p.now.Sub(w.since) >= patience
	for i, b := range w.buckets {
		if o.lack[i] || near && b.regain(p.now, w) > o.at.Sub(p.now) {
			b.claimed = p.number
		}
	}
}

// grant lets a request leave.
func (l *Limiter) grant(now time.Time, w *waiter) {
	l.grants++
	w.number, w.slots = l.grants, make([]*slot, len(w.buckets))
	for i, b := range w.buckets {
		w.slots[i] = b.take(now, w)
	}
	for q := w.priority + 1; q < priorities; q++ {
		if len(l.queues[q]) > 0 {
			l.turns[q] = min(l.turns[q]+turn, 1)
		}
	}
	close(w.granted)
}

func later(a, b time.Time) time.Time {
	if b.After(a) {
		return b
	}
	return a
}
