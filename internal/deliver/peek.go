package deliver

import (
	"context"
	"errors"
	"fmt"
	"time"

	"lockstep"
)

// Peek returns up to limit unsettled changes that nobody has, by ascending seq,
// without taking them: their deliveries have no token.
func (c *Consumer) Peek(ctx context.Context, limit int) ([]Delivery, error) {
	if limit < 1 || limit > MaxBatch {
		return nil, fmt.Errorf("peek at %d changes: use 1 to %d: %w", limit, MaxBatch, lockstep.ErrInvalid)
	}
	if err := c.b.enter(); err != nil {
		return nil, err
	}
	defer c.b.leave()
	p := pull{c: c, goal: c.log.Last().Seq}
	hs, m, err := p.look(ctx, limit)
	if err != nil {
		return nil, err
	}
	ds := make([]Delivery, 0, len(hs))
	for _, h := range hs {
		d, o, err := c.deliver(ctx, m, h)
		if err != nil {
			return nil, err
		}
		if o == (outcome{}) {
			ds = append(ds, d)
		}
	}
	return ds, nil
}

// look returns what waits, after reading on until there is enough.
func (p *pull) look(ctx context.Context, limit int) ([]handout, *matcher, error) {
	c := p.c
	for {
		c.mu.Lock()
		if c.err != nil {
			defer c.mu.Unlock()
			return nil, nil, c.err
		}
		c.passTime()
		c.settleDown()
		hs := c.w.peek(limit)
		moved, scanned := c.tail.watch(), c.scanned
		switch {
		case len(hs) == limit || ctx.Err() != nil:
		case c.scanning:
			c.mu.Unlock()
			select {
			case <-scanned:
			case <-ctx.Done():
			}
			continue
		case !c.attached && c.w.wantsMore(scanAhead) && c.behindGoal(p.goal):
			if err := c.scan(ctx); err != nil {
				return nil, nil, err
			}
			continue
		case c.attached && c.behindGoal(p.goal) && c.b.serving():
			c.mu.Unlock()
			select {
			case <-moved:
			case <-ctx.Done():
			}
			continue
		}
		m := c.match
		c.mu.Unlock()
		if ctx.Err() != nil {
			return nil, nil, context.Cause(ctx)
		}
		return hs, m, nil
	}
}

// peek returns the first changes that nobody has.
func (w *window) peek(limit int) []handout {
	var hs []handout
	for s := w.first; s != none && len(hs) < limit; s = w.entries[s].aNext {
		e := &w.entries[s]
		if e.phase != waiting && e.phase != blocked {
			continue
		}
		h := handout{slot: s, seq: e.seq, key: w.keys[e.key].hash, attempt: int(e.attempts) + 1, flags: e.flags}
		if e.flags&isGap != 0 {
			h.gap = w.gaps[e.seq]
		}
		hs = append(hs, h)
	}
	return hs
}

// The states of a change at a consumer.
const (
	ChangeSettled     = "settled"
	ChangeInFlight    = "in_flight"
	ChangeWaiting     = "waiting"
	ChangeBlocked     = "blocked"
	ChangeParked      = "parked"
	ChangeNotMatching = "not_matching"
	ChangeAhead       = "ahead" // not looked at yet
)

// What a consumer's definition says of a change.
const (
	MatchYes         = "yes"
	MatchFiltered    = "filtered"     // its filter does not let it through
	MatchNotSelected = "not_selected" // of a table or an action that it does not get
	MatchFailed      = "failed"       // its filter fails on it
	MatchUnknown     = ""             // the change itself is gone
)

// Whereabouts is where a change is with a consumer.
type Whereabouts struct {
	Match  string  // by the definition as it is now
	Fault  string  // with MatchFailed: why
	Letter *Letter // its dead letter, of any state; nil: there is none

	State    string
	Attempts int        // that failed
	Until    *time.Time // in flight: the end of the lease; waiting: not before
	Reason   string     // why the last attempt failed, or why it is parked
	Holder   string     // who has it
}

// Where tells where the change with that seq is. lockstep.ErrNotFound: there is no
// such change (yet).
func (c *Consumer) Where(ctx context.Context, seq uint64) (Whereabouts, error) {
	l, err := c.b.cfg.Dead.Get(ctx, c.id, seq)
	lettered := err == nil
	if err != nil && !errors.Is(err, lockstep.ErrNotFound) {
		return Whereabouts{}, fmt.Errorf("change %d at consumer %s: %w", seq, c.name(), err)
	}
	r, err := c.logged(ctx, seq)
	if lettered && len(l.Batch) > 0 && err != nil {
		r, err = c.recordOf(l)
	}
	if err != nil {
		if lettered {
			return Whereabouts{State: ChangeParked, Attempts: l.Attempts, Reason: l.Reason, Letter: &l}, nil
		}
		return Whereabouts{}, fmt.Errorf("change %d at consumer %s: %w", seq, c.name(), err)
	}
	match, fault := c.matcher().judge(r)
	at, err := c.where(r, l, lettered, match)
	at.Match, at.Fault = match, fault
	if lettered {
		at.Letter = &l
	}
	return at, err
}

// where tells where a change is that is there, and its letter if it is lettered.
func (c *Consumer) where(r lockstep.Record, l Letter, lettered bool, match string) (Whereabouts, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.err != nil {
		return Whereabouts{}, c.err
	}
	c.syncHead()
	c.tick()
	if at, ok := c.unsettled(r); ok {
		if lettered && at.Reason == "" {
			at.Reason = l.Reason
		}
		return at, nil
	}
	if lettered {
		return Whereabouts{State: ChangeParked, Attempts: l.Attempts, Reason: l.Reason}, nil
	}
	if match == MatchFiltered || match == MatchNotSelected {
		return Whereabouts{State: ChangeNotMatching}, nil
	}
	if r.Seq() >= c.w.head {
		return Whereabouts{State: ChangeAhead}, nil
	}
	return Whereabouts{State: ChangeSettled}, nil
}

// judge tells whether the definition wants a change, and with MatchFailed why it could
// not say.
func (m *matcher) judge(r lockstep.Record) (match, fault string) {
	if !m.selects(r.Table()) || !m.takes(r.Action()) {
		return MatchNotSelected, ""
	}
	switch ok, fault := m.passes(r, m.input(r)); {
	case fault != "":
		return MatchFailed, fault
	case !ok:
		return MatchFiltered, ""
	}
	return MatchYes, ""
}

// unsettled tells about a change that the window knows. The caller holds mu.
func (c *Consumer) unsettled(r lockstep.Record) (Whereabouts, bool) {
	ch := c.match.keyOf(r)
	if ch.sort == tableBarrier {
		ch.key = ch.table ^ barrierSalt
	}
	w := c.w
	s := w.lookup(r.Seq(), ch.key)
	if s == none {
		if ch.seq < w.head && w.comes(ch) {
			return Whereabouts{State: ChangeWaiting, Reason: "an earlier change of its key or table is not settled"}, true
		}
		return Whereabouts{}, false
	}
	e := &w.entries[s]
	at := Whereabouts{Attempts: int(e.attempts), Reason: w.reasons[e.seq]}
	switch e.phase {
	case leased:
		at.State, at.Holder = ChangeInFlight, w.holders.name(e.holder)
		until := c.b.timeOf(e.at)
		at.Until = &until
	case acked:
		at.State = ChangeSettled
	case blocked:
		at.State = ChangeBlocked
	case parking:
		at.State = ChangeParked
	case waiting, free:
		at.State = ChangeWaiting
		if e.at > w.now {
			until := c.b.timeOf(e.at)
			at.Until = &until
		}
	}
	return at, true
}
