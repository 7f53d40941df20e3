package deliver

import (
	"cmp"
	"context"
	"slices"
	"time"
)

// Stats is how a consumer stands.
type Stats struct {
	Floor   uint64 // everything up to it is settled
	Head    uint64 // the next seq to look at
	Last    uint64 // the end of the log
	Pending uint64 // changes that wait; an upper bound while some were not looked at
	// InFlight are handed out, Waiting are known and wait for their turn, a time or a
	// person.
	InFlight, Waiting uint64
	Blocked           []BlockedKey  // up to 10, the longest first
	BlockedKeys       uint64        // how many keys wait for a person
	Dead              uint64        // dead letters, those that are being retried too
	OldestUnacked     time.Duration // age of the oldest change that is not settled, since its commit; 0: none is
	AckedEver         uint64        // since the consumer was made
	Totals                          // since the consumer was opened
	Paused            bool
	Attached          bool  // at the end of the log
	Err               error // why the consumer serves nobody any more, or cannot save
}

// BlockedKey is a key whose later changes wait for one that is tried again, held, or
// waits for a person.
type BlockedKey struct {
	Seq      uint64 // the change that the others wait for
	State    string // ChangeInFlight, ChangeWaiting, ChangeBlocked or ChangeParked
	Attempts int
	Since    time.Duration // how long it has been in that state; 0: unknown
	Until    *time.Time    // in flight: the end of the lease; waiting: not before
	Reason   string
	Holder   string
	Behind   uint64 // how many changes wait for it
}

const (
	shownBlocked = 10
	shownScan    = 10_000 // unsettled changes that are looked at for them
)

// statsTimeout bounds the look-ups of Stats.
const statsTimeout = 2 * time.Second

// Stats returns how the consumer stands. Where the stream does not answer in time,
// OldestUnacked is 0 and Dead is what it was.
func (c *Consumer) Stats() Stats {
	ctx, cancel := context.WithTimeout(context.Background(), statsTimeout)
	defer cancel()
	c.mu.Lock()
	if c.err == nil {
		c.tick()
	}
	c.syncHead()
	w := c.w
	s := Stats{
		Floor: w.floor(), Head: w.head, Last: c.log.Last().Seq, Pending: uint64(c.pending()), InFlight: uint64(w.counts[leased]),
		Waiting:   uint64(w.counts[waiting]+w.counts[blocked]+w.counts[parking]) + w.overflow,
		AckedEver: w.ackedBefore + w.totals.Acked, Totals: w.totals, Paused: c.def.Paused, Attached: c.attached, Err: c.err,
		Blocked: c.blockedKeys(), BlockedKeys: uint64(w.counts[blocked]),
	}
	oldest := s.Floor + 1
	if w.n == 0 && w.overflow == 0 && w.head > s.Last {
		oldest = 0
	}
	c.mu.Unlock()
	if oldest != 0 && oldest <= s.Last {
		if r, err := c.logged(ctx, oldest); err == nil {
			s.OldestUnacked = max(time.Since(time.UnixMicro(r.Tx().CommitTime)), 0)
		}
	}
	if n, err := c.b.cfg.Dead.Count(ctx, c.id); err == nil {
		c.deadCount.Store(n)
	}
	s.Dead = c.deadCount.Load()
	return s
}

// blockedKeys returns the keys that something holds up. The caller holds mu.
func (c *Consumer) blockedKeys() []BlockedKey {
	w := c.w
	var list []BlockedKey
	seen := 0
	for s := w.first; s != none && seen < shownScan; s = w.entries[s].aNext {
		seen++
		e := &w.entries[s]
		k := &w.keys[e.key]
		if k.head != s || (e.attempts == 0 && e.phase != blocked && e.phase != parking && (k.n == 1 || e.phase != leased)) {
			continue
		}
		list = append(list, c.blockedKey(e, k))
	}
	slices.SortStableFunc(list, func(a, b BlockedKey) int { return cmp.Compare(b.Since, a.Since) })
	return list[:min(len(list), shownBlocked)]
}

func (c *Consumer) blockedKey(e *entry, k *key) BlockedKey {
	w := c.w
	b := BlockedKey{Seq: e.seq, Attempts: int(e.attempts), Reason: w.reasons[e.seq], Behind: uint64(k.n-1) + k.overN}
	if e.since > 0 {
		b.Since = time.Duration(max(w.now-e.since, 0))
	}
	switch e.phase {
	case leased:
		b.State, b.Holder = ChangeInFlight, w.holders.name(e.holder)
	case blocked:
		b.State = ChangeBlocked
	case parking:
		b.State = ChangeParked
	case waiting, acked, free:
		b.State = ChangeWaiting
	}
	if (e.phase == leased || e.phase == waiting) && e.at > w.now {
		until := c.b.timeOf(e.at)
		b.Until = &until
	}
	return b
}
