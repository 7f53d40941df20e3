package api

import (
	"context"
	"time"

	"lockstep/internal/deliver"
	"lockstep/internal/obs"
)

// Deliver makes a [Broker] of a *deliver.Broker.
func Deliver(b *deliver.Broker) Broker { return delivery{b} }

type delivery struct{ b *deliver.Broker }

func (d delivery) Find(idOrName string) (Consumer, bool) {
	c, err := d.b.Find(idOrName)
	if err != nil {
		return nil, false
	}
	return delivered{c}, true
}

func (d delivery) List() []Consumer {
	all := d.b.List()
	out := make([]Consumer, len(all))
	for i, c := range all {
		out[i] = delivered{c}
	}
	return out
}

func (d delivery) Put(ctx context.Context, def deliver.Definition) (Consumer, error) {
	c, err := d.b.Put(ctx, def)
	if err != nil {
		return nil, err
	}
	return delivered{c}, nil
}

func (d delivery) Remove(ctx context.Context, id string) error { return d.b.Remove(ctx, id) }

// delivered is a *deliver.Consumer in the words of this package.
type delivered struct{ *deliver.Consumer }

func (c delivered) Next(ctx context.Context, n int, wait time.Duration, holder string) (Handout, error) {
	result, err := c.Consumer.Next(ctx, deliver.NextRequest{Batch: n, Wait: wait, Holder: holder})
	if err != nil {
		return Handout{}, err
	}
	return Handout{
		N: len(result.Deliveries), Pending: uint64(max(result.Pending, 0)), AckPending: uint64(max(result.AckPending, 0)),
		Append: func(dst []byte, i int) []byte { return c.AppendDelivery(dst, result.Deliveries[i]) },
	}, nil
}

func (c delivered) Peek(ctx context.Context, limit int, each func(message []byte) error) error {
	found, err := c.Consumer.Peek(ctx, limit)
	if err != nil {
		return err
	}
	var buf []byte
	for _, d := range found {
		buf = c.AppendDelivery(buf[:0], d)
		if err := each(buf); err != nil {
			return err
		}
	}
	return nil
}

func (c delivered) Standing() Standing {
	s := c.Stats()
	out := Standing{
		Pending: s.Pending, InFlight: s.InFlight, Dead: s.Dead, Blocked: s.BlockedKeys, FloorSeq: s.Floor, LastSeq: s.Last, Paused: s.Paused,
		Delivered: s.Delivered, Redelivered: s.Redelivered, Acked: s.Acked, Nacked: s.Nacked, Expired: s.Expired, Parked: s.Parked,
	}
	if s.OldestUnacked > 0 {
		out.OldestUnacked = time.Now().Add(-s.OldestUnacked)
	}
	if s.Err != nil {
		out.Reason = obs.Scrub(s.Err.Error())
	}
	for _, b := range s.Blocked {
		out.Stuck = append(out.Stuck, StuckKey{
			Seq: b.Seq, State: b.State, Attempts: b.Attempts, ForMS: b.Since.Milliseconds(), Until: b.Until,
			Reason: b.Reason, Holder: b.Holder, Behind: b.Behind,
		})
	}
	return out
}

func (c delivered) Where(ctx context.Context, seq uint64) (Whereabouts, error) {
	at, err := c.Consumer.Where(ctx, seq)
	if err != nil {
		return Whereabouts{}, err
	}
	out := Whereabouts{State: at.State, Attempts: at.Attempts, Reason: at.Reason, Holder: at.Holder, Match: at.Match, Fault: at.Fault}
	if at.Until != nil {
		out.Until = *at.Until
	}
	if at.Letter != nil {
		l := letterOf(*at.Letter)
		out.Letter = &l
	}
	return out, nil
}

func (c delivered) Letters(ctx context.Context, q deliver.LetterQuery) (LetterPage, error) {
	p, err := c.Consumer.Letters(ctx, q)
	if err != nil {
		return LetterPage{}, err
	}
	out := LetterPage{Letters: make([]Letter, len(p.Letters)), Next: p.Next, Looked: p.Looked, Stopped: p.Stopped}
	for i, l := range p.Letters {
		out.Letters[i] = letterOf(l)
	}
	return out, nil
}

func (c delivered) Letter(ctx context.Context, seq uint64) (Letter, error) {
	l, err := c.DeadLetter(ctx, seq)
	return letterOf(l), err
}

func (c delivered) RetryLetter(ctx context.Context, seq uint64) error { return c.Retry(ctx, seq) }

func (c delivered) DropLetter(ctx context.Context, seq uint64) error { return c.Drop(ctx, seq) }

func letterOf(l deliver.Letter) Letter {
	return Letter{
		Seq: l.Seq, State: l.State, Reason: l.Reason, Attempts: l.Attempts, At: l.At, Table: l.Table, PKs: l.PKs, Message: l.Message,
	}
}
