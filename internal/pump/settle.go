package pump

import (
	"context"
	"math"
	"time"

	"lockstep/internal/deliver"
	"lockstep/internal/obs"
	"lockstep/sink"
)

// settle draws the conclusions from a write that is over.
func (l *loop) settle(ctx context.Context, w written) {
	now := time.Now()
	items := w.batch.items
	errs := judge(len(items), w.n, w.err)
	acks := l.acks[:0]
	var firsts map[uint64]int // of each key that failed, the first
	for i, err := range errs {
		key := items[i].message.Key
		if _, after := firsts[key]; after {
			continue // given back with the first
		}
		if err == nil {
			acks = append(acks, items[i].claim)
			continue
		}
		if firsts == nil {
			firsts = map[uint64]int{}
		}
		firsts[key] = i
	}
	l.acks = acks
	if w.stopped {
		l.stopped(items, firsts)
	} else {
		l.conclude(ctx, now, w, errs, firsts, len(acks) > 0)
	}
	l.desk.ack(acks)
	l.queue.done(w.batch, firsts)
	l.count(now, w, errs, len(acks))
}

// stopped releases what a write had not delivered when the pump stopped.
func (l *loop) stopped(items []*item, firsts map[uint64]int) {
	for _, i := range firsts {
		l.desk.nack(give{mode: deliver.Release, delay: -1}, items[i].claim)
	}
}

func (l *loop) count(now time.Time, w written, errs []error, delivered int) {
	l.p.show(func(s *Status) {
		s.Writes++
		s.Delivered += uint64(delivered)
		for _, err := range errs {
			if err != nil && !isUnknown(err) {
				s.Failed++
			}
		}
		if delivered > 0 {
			s.LastOK = now
		}
		if delivered < len(errs) && !w.stopped {
			s.LastError = now
		}
	})
	if w.stopped && delivered < len(errs) {
		return
	}
	for _, a := range entries(w, errs) {
		l.p.note(a)
	}
}

func isUnknown(err error) bool { return err == errUnknown } //nolint:errorlint // it is never wrapped

// conclude tells the breaker, and gives back what failed as its kind asks for.
func (l *loop) conclude(ctx context.Context, now time.Time, w written, errs []error, firsts map[uint64]int, any bool) {
	b, was := l.breaker, l.breaker.state
	rejects, why := 0, ""
	for _, i := range firsts {
		if kind, _ := kindOf(errs[i]); kind == sink.Rejected {
			rejects, why = rejects+1, errs[i].Error()
		}
	}
	alive := any || rejects > 0 // it looked at a change
	if alive {
		b.succeeded(now)
	}
	if any {
		b.delivered()
	} else if rejects > 0 {
		b.rejected(now, rejects, why)
	}
	for key, i := range firsts {
		it, err := w.batch.items[i], errs[i]
		if isUnknown(err) {
			l.desk.nack(give{mode: deliver.Release, delay: -1}, it.claim)
			continue
		}
		l.desk.nack(l.verdict(ctx, now, key, it, err, alive), it.claim)
	}
	if b.state != was && b.mode(now) == shut {
		l.p.log.WarnContext(ctx, "sending to a destination stops", "state", string(b.state), obs.KeyReason, b.reason)
		l.giveBack()
	} else if b.state == OK && (was == Open || was == Refused || was == Throttled) {
		l.p.log.InfoContext(ctx, "sending to a destination goes on")
	}
}

// verdict says how a change that failed is given back, and tells the breaker.
func (l *loop) verdict(ctx context.Context, now time.Time, key uint64, it *item, err error, alive bool) give {
	b, reason := l.breaker, err.Error()
	release := give{mode: deliver.Release, delay: -1}
	kind, after := kindOf(err)
	switch kind {
	case sink.Gone:
		if b.state != Gone {
			b.stop(now, Gone, reason)
			l.keep(ctx, reason)
			_ = l.p.consumer.Pause(ctx) // it fails when the consumer is gone too
		}
		return release
	case sink.Refused:
		if b.state != Gone && (b.state != Refused || !now.Before(b.next)) {
			b.trip(now, Refused, reason, after)
		}
		return release
	case sink.Throttled:
		b.throttle(now, after, reason)
		return release
	case sink.Rejected:
		return give{mode: deliver.Retry, delay: -1, reason: reason}
	case sink.Retry:
	}
	counts := true
	if !alive {
		counts = b.failedAt(now, key, reason)
	}
	if !counts {
		return release // behind the other keys: one that is the cause is not tried again next
	}
	g := give{mode: deliver.Retry, delay: -1, reason: reason}
	if after > 0 {
		g.delay = max(after, l.backoff(it.message.Attempt))
	}
	return g
}

// backoff is the consumer's own, for an attempt.
func (l *loop) backoff(attempt int) time.Duration {
	c := l.p.consumer.Definition().Backoff
	d := min(float64(c.First)*math.Pow(2, float64(min(attempt, 64)-1)), float64(c.Max))
	return time.Duration(d * (1 + c.Jitter*(2*l.p.random()-1)))
}

// keep remembers why the destination is gone.
func (l *loop) keep(ctx context.Context, reason string) {
	if l.p.Keep == nil {
		return
	}
	if err := l.p.Keep.Save(ctx, l.p.consumer.ID(), reason); err != nil {
		l.p.log.WarnContext(ctx, "whether a destination is gone could not be saved", obs.KeyError, err)
	}
}

// recall finds out whether the destination was gone when the node stopped.
func (l *loop) recall(ctx context.Context) {
	if l.p.Keep == nil {
		return
	}
	reason, err := l.p.Keep.Load(ctx, l.p.consumer.ID())
	if err != nil {
		l.p.log.WarnContext(ctx, "whether a destination is gone could not be read", obs.KeyError, err)
	}
	if reason == "" {
		return
	}
	l.breaker.stop(time.Now(), Gone, reason)
	_ = l.p.consumer.Pause(ctx) // it fails when the consumer is gone too
}
