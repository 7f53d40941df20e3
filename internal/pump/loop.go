package pump

import (
	"context"
	"errors"
	"sync"
	"time"

	"lockstep"
	"lockstep/internal/deliver"
	"lockstep/internal/obs"
	"lockstep/sink"
)

// loop is a pump that runs: one goroutine owns everything here.
type loop struct {
	p       *Pump
	sink    sink.Sink
	breaker *breaker
	queue   *queue
	desk    *desk

	events  chan any       // fetched, written, lost
	wants   chan want      // to the fetcher
	jobs    chan *batch    // to the writers; holds as many as there can be
	writers int            // that run
	workers sync.WaitGroup // fetcher, desk, writers, extenders

	acks     []deliver.Claim // used again by each settle
	batch    deliver.Batch
	room     int                // how many changes may be held
	most     int                // the same, with those that are not settled on the disk yet
	fetching context.CancelFunc // nil: no fetch is under way
	fetched  int                // bytes of a change, on average
	extended bool               // an extension runs
	over     bool               // the consumer is gone
}

// want is an order to the fetcher.
type want struct {
	ctx    context.Context
	cancel context.CancelFunc
	n      int
}

// lost are claims to deliveries that others have now.
type lost []deliver.Claim

const (
	lookEvery   = 250 * time.Millisecond // at whether somebody paused the consumer
	extendEvery = lease / 3
	maxBatch    = 8 << 20 // bytes of one write, about
)

func newLoop(p *Pump, o Opened) *loop {
	d := p.consumer.Definition()
	c := p.Config
	c.Concurrency = o.Concurrency
	l := &loop{
		p: p, sink: o.Sink, breaker: newBreaker(c), queue: newQueue(), desk: newDesk(p.consumer, d.MaxInFlight/4),
		events: make(chan any, o.Concurrency), wants: make(chan want), jobs: make(chan *batch, o.Concurrency), batch: d.Batch, fetched: 1024,
	}
	l.batch.Size = min(max(l.batch.Size, o.Batch, 1), deliver.MaxBatch)
	l.most = max(d.MaxInFlight, 1)
	l.room = min(max(4*o.Concurrency*l.batch.Size, 256), l.most)
	return l
}

// run is [Pump.Run] for an open sink.
func (l *loop) run(ctx context.Context) {
	settling := context.WithoutCancel(ctx)
	writes, kill := context.WithCancel(settling)
	defer kill()
	var settled sync.WaitGroup
	settled.Go(func() { l.desk.run(settling) })
	l.workers.Go(func() { l.fetcher(ctx) })
	l.recall(ctx)
	l.serve(ctx, writes)
	l.drain(settling, kill)
	close(l.wants)
	close(l.jobs)
	l.workers.Wait()
	l.desk.close()
	settled.Wait()
}

// serve works until ctx ends or the consumer is gone. Writes have a context of their own,
// so that they outlive ctx.
func (l *loop) serve(ctx, writes context.Context) {
	look := time.NewTicker(lookEvery)
	defer look.Stop()
	extend := time.NewTicker(extendEvery)
	defer extend.Stop()
	timer := time.NewTimer(0)
	defer timer.Stop()
	for ctx.Err() == nil && !l.over {
		l.obey(ctx)
		wake := l.dispatch(writes)
		l.ask(ctx)
		l.report(time.Now())
		timer.Stop()
		if !wake.IsZero() {
			timer.Reset(max(time.Until(wake), 0))
		}
		select {
		case <-ctx.Done():
		case e := <-l.events:
			l.handle(ctx, e)
			// What came meanwhile: one look at everything serves all of them.
			for range len(l.events) {
				l.handle(ctx, <-l.events)
			}
			if l.queue.held == 0 {
				l.desk.hurry()
			}
		case <-timer.C:
		case <-l.desk.settled:
		case <-look.C:
		case <-extend.C:
			l.extend(ctx)
		}
	}
}

// obey looks at whether a person paused or resumed the consumer.
func (l *loop) obey(ctx context.Context) {
	paused := l.p.consumer.Paused()
	now := time.Now()
	switch state := l.breaker.state; {
	case paused && state != Gone && state != Paused:
		l.breaker.stop(now, Paused, "")
		l.giveBack()
	case !paused && state == Paused:
		l.breaker.resume(now)
	case !paused && state == Gone:
		l.breaker.resume(now)
		l.keep(ctx, "")
		l.p.log.InfoContext(ctx, "the destination is tried again: the consumer was resumed")
	}
}

// giveBack releases what waits.
func (l *loop) giveBack() {
	l.desk.nack(give{mode: deliver.Release, delay: -1}, l.queue.clear()...)
	if l.fetching != nil {
		l.fetching()
	}
}

// dispatch begins the writes that may begin, and returns when to look again; zero:
// when something happens.
func (l *loop) dispatch(writes context.Context) time.Time {
	for {
		now := time.Now()
		size, width := l.batch.Size, l.breaker.most()
		switch l.breaker.mode(now) {
		case shut:
			return l.breaker.wake(now)
		case probe:
			size, width = 1, 1
		case free:
			if l.breaker.rest.After(now) {
				return l.breaker.rest
			}
		}
		if len(l.queue.writing) >= width || l.queue.avail == 0 {
			return time.Time{}
		}
		if due := l.queue.oldest().Add(l.batch.Wait); l.queue.avail < size && due.After(now) {
			return due
		}
		l.start(writes, l.queue.take(size, maxBatch))
	}
}

// start has a batch written.
func (l *loop) start(writes context.Context, b *batch) {
	if l.writers < len(l.queue.writing) {
		l.writers++
		l.workers.Go(func() { l.writer(writes) })
	}
	l.jobs <- b
}

// writer writes batches until there are no more. It stays for the next one: a new
// goroutine would grow its stack each time.
func (l *loop) writer(writes context.Context) {
	p := newPen(writes, l.p.WriteTimeout)
	defer func() { p.drop() }()
	for b := range l.jobs {
		w := p.write(l.sink, b)
		w.stopped = writes.Err() != nil
		if p.spoilt {
			p.drop()
			p = newPen(writes, l.p.WriteTimeout)
		}
		l.events <- w
	}
}

// ask wants more changes when there is room for them.
func (l *loop) ask(ctx context.Context) {
	if l.fetching != nil || l.over {
		return
	}
	n := min(l.room, l.most-int(l.desk.open.Load())) - l.queue.held
	switch l.breaker.mode(time.Now()) {
	case shut:
		return
	case probe:
		if l.queue.held > 0 {
			return
		}
		n = 1
	case free:
		n = min(n, (l.p.Bytes-l.queue.bytes)/max(l.fetched, 1))
		if n < l.room/4 && l.queue.avail > 0 {
			return // soon more at once
		}
	}
	if n <= 0 {
		return
	}
	fetching, cancel := context.WithCancel(ctx)
	l.fetching = cancel
	l.wants <- want{ctx: fetching, cancel: cancel, n: n}
}

func (l *loop) handle(ctx context.Context, e any) {
	switch e := e.(type) {
	case fetched:
		l.fetching = nil
		l.take(ctx, e)
	case written:
		l.settle(ctx, e)
	case lost:
		l.extended = false
		stale := make(map[deliver.Claim]bool, len(e))
		for _, claim := range e {
			stale[claim] = true
		}
		if len(stale) > 0 {
			l.queue.without(stale)
		}
	}
}

// take takes over what was fetched, unless the state has changed meanwhile.
func (l *loop) take(ctx context.Context, f fetched) {
	if ended(f.err) {
		l.over = true
		if errors.Is(f.err, lockstep.ErrFenced) {
			l.p.log.ErrorContext(ctx, "nothing more is sent", obs.KeyError, f.err)
		}
		return
	}
	if f.err != nil && ctx.Err() == nil && !errors.Is(f.err, context.Canceled) {
		l.p.log.WarnContext(ctx, "changes could not be taken", obs.KeyError, f.err)
	}
	if len(f.items) == 0 {
		return
	}
	mode := l.breaker.mode(time.Now())
	if mode == shut || mode == probe && len(f.items) > 1 || f.err != nil {
		keep := 0
		if mode == probe && f.err == nil {
			keep = 1
		}
		l.desk.nack(give{mode: deliver.Release, delay: -1}, claimsOf(f.items[keep:])...)
		f.items = f.items[:keep]
	}
	size := 0
	for _, it := range f.items {
		size += it.size
	}
	if len(f.items) > 0 {
		l.fetched = (3*l.fetched + size/len(f.items)) / 4
	}
	l.queue.put(f.items)
}

// extend keeps what is held from running out, and finds what was lost.
func (l *loop) extend(ctx context.Context) {
	claims := l.queue.claims()
	if l.extended || len(claims) == 0 {
		return
	}
	l.extended = true
	by := max(l.p.consumer.Definition().AckWait, lease)
	l.workers.Go(func() {
		var stale lost
		for len(claims) > 0 {
			n := min(len(claims), deliver.MaxTokens)
			some, err := l.p.consumer.ExtendClaims(ctx, claims[:n], by)
			if err != nil {
				break // the next time, or the leases run out
			}
			stale, claims = append(stale, some...), claims[n:]
		}
		l.events <- stale
	})
}

// drain gives back what waits and lets what is written come to its end, in the time
// that is left to it.
func (l *loop) drain(ctx context.Context, kill context.CancelFunc) {
	l.giveBack()
	grace := time.AfterFunc(l.p.Grace, kill)
	defer grace.Stop()
	for len(l.queue.writing) > 0 || l.fetching != nil || l.extended {
		switch e := (<-l.events).(type) {
		case fetched:
			l.fetching = nil
			l.desk.nack(give{mode: deliver.Release, delay: -1}, claimsOf(e.items)...)
		case written:
			l.settle(ctx, e)
		case lost:
			l.extended = false
		}
	}
}

// report shows how it goes.
func (l *loop) report(now time.Time) {
	b := l.breaker
	l.p.show(func(s *Status) {
		s.State, s.Reason, s.Since, s.NextTry = b.state, b.reason, b.since, b.wake(now)
		s.Writing, s.Held = len(l.queue.writing), l.queue.held
	})
}
