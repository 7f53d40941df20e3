package events

import (
	"context"
	"errors"

	"lockstep"
)

// find returns the seq of the row with that id; the latest one, should there be several.
func (x *index) find(ctx context.Context, id string) (seq uint64, found bool, err error) {
	rank := rankOf([]byte(id))
	end := x.feed.log.Last().Seq + 1 // a row that a client has seen lies before
	guessed := false
	var done span
	for {
		first := max(x.feed.log.First(), 1)
		covered, list := x.candidates(rank, first, done)
		for _, s := range list {
			if seq, found, err = x.look(ctx, s.first, s.last, id); found || err != nil {
				return seq, found, err
			}
		}
		done = covered
		if covered.high >= end && covered.low <= first {
			return 0, false, nil
		}
		if covered.high >= end && !guessed && covered.low-first > 4*x.feed.server.config.Limits.Stride {
			guessed = true
			if seq, found, err = x.guess(ctx, id, first, covered.low); found || err != nil {
				return seq, found, err
			}
		}
		if err := x.extend(ctx, covered, end); err != nil {
			return 0, false, err
		}
	}
}

// before returns the id of the newest row before seq next, which is about the end of the
// log. It returns nil when that is not found out quickly.
func (x *index) before(ctx context.Context, next uint64) []byte {
	for range 3 {
		covered, id, in := x.place(next)
		switch {
		case covered.high >= next && id != nil:
			return id
		case covered.high >= next && in.first > 0:
			return x.lastIn(ctx, in.first, min(in.last, next-1))
		case covered.high >= next && covered.low <= x.feed.log.First():
			return nil
		}
		if x.extend(ctx, covered, next) != nil {
			return nil
		}
	}
	return nil
}

// lastIn returns the id of the last row of a part of the log; nil when there is none.
func (x *index) lastIn(ctx context.Context, first, last uint64) (id []byte) {
	err := x.read(ctx, span{first, last + 1}, func(_ *lockstep.Batch, rows []row, _ uint64) bool {
		for i := range rows {
			if rows[i].hasID() && rows[i].seq <= last {
				id = append(id[:0], rows[i].id...)
			}
		}
		return true
	})
	if err != nil {
		return nil
	}
	return id
}

// extend makes the index cover more: everything up to before end, or else a stride in
// front of what it covers. It does nothing when somebody else did meanwhile.
func (x *index) extend(ctx context.Context, seen span, end uint64) error {
	select {
	case x.turn <- struct{}{}:
		defer func() { <-x.turn }()
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	first := max(x.feed.log.First(), 1)
	x.prepare(first, end)
	x.mu.Lock()
	covered := x.covered
	x.mu.Unlock()
	switch {
	case covered.high < end:
		return x.forward(ctx, covered.high, end)
	case covered.low != seen.low || covered.low <= first:
		return nil
	}
	return x.backward(ctx, max(first, covered.low-min(covered.low, x.feed.server.config.Limits.Stride)), covered.low)
}

// forward reads on from the end of what is covered.
func (x *index) forward(ctx context.Context, from, end uint64) error {
	return x.read(ctx, span{from, end}, func(b *lockstep.Batch, rows []row, read uint64) bool {
		if b == nil {
			x.skip(read)
		} else {
			x.note(b, rows, read)
		}
		return true
	})
}

// backward reads what lies in front of what is covered.
func (x *index) backward(ctx context.Context, from, to uint64) error {
	x.mu.Lock()
	grain := x.grain
	x.mu.Unlock()
	var list []stretch
	var latest newest
	err := x.read(ctx, span{from, to}, func(_ *lockstep.Batch, rows []row, _ uint64) bool {
		for i := range rows {
			if rows[i].hasID() && rows[i].seq < to {
				list = appendRow(list, &rows[i], grain)
				latest.set(&rows[i])
			}
		}
		return true
	})
	if err == nil {
		x.prepend(from, list, latest)
	}
	return err
}

// look searches a part of the log for the id.
func (x *index) look(ctx context.Context, first, last uint64, id string) (seq uint64, found bool, err error) {
	err = x.read(ctx, span{first, last + 1}, func(_ *lockstep.Batch, rows []row, _ uint64) bool {
		for i := range rows {
			if rows[i].hasID() && rows[i].seq <= last && string(rows[i].id) == id {
				seq, found = rows[i].seq, true // the latest counts
			}
		}
		return true
	})
	return seq, found, err
}

// read calls each for the batches of a part of the log, with the rows in them from seq
// from on, as long as it returns true; the last batch may go on behind the part. Where
// something is gone each is called without a batch, and with the seq behind.
func (x *index) read(ctx context.Context, part span, each func(b *lockstep.Batch, rows []row, from uint64) bool) error {
	done, err := x.feed.server.turn(ctx)
	if err != nil {
		return err
	}
	defer done()
	in := x.feed.log.ReadFrom(part.low)
	defer func() { in.Close() }()
	var rows []row
	for next := part.low; next < part.high; {
		b, err := in.Next(ctx)
		if err != nil {
			further := x.feed.behind(err)
			if further <= next {
				return err
			}
			next = further
			if !each(nil, nil, next) {
				return nil
			}
			in.Close()
			in = x.feed.log.ReadFrom(next)
			continue
		}
		rows = appendRows(rows[:0], b, x.feed.table, next)
		if !each(b, rows, next) {
			return nil
		}
		next = b.Mark.Seq + 1
	}
	return nil
}

// behind returns where to read on behind what an error says is gone for good, else 0.
func (f *feed) behind(err error) uint64 {
	if gone, ok := errors.AsType[*lockstep.RetentionError](err); ok {
		return gone.First
	}
	if last, damaged := f.server.config.Damage(err); damaged {
		return last + 1
	}
	return 0
}

// guessing bounds how many batches a guess reads to find a row of the table, and how
// far from its place ids are looked for.
const guessBatches = 32

// guess searches for the id where it ought to lie if ids grew with the log, between low
// and high. That it finds nothing means nothing.
func (x *index) guess(ctx context.Context, id string, low, high uint64) (seq uint64, found bool, err error) {
	rank := rankOf([]byte(id))
	first, end, slack := low, high, x.feed.server.config.Limits.Stride/4
	for high > low && high-low > slack/2 {
		middle := low + (high-low)/2
		var met *row
		left := guessBatches
		err := x.read(ctx, span{middle, high}, func(_ *lockstep.Batch, rows []row, _ uint64) bool {
			for i := range rows {
				if rows[i].hasID() && rows[i].seq < high {
					met = &row{seq: rows[i].seq, rank: rows[i].rank}
					return false
				}
			}
			left--
			return left > 0
		})
		switch {
		case err != nil:
			return 0, false, err
		case met == nil && left == 0:
			return 0, false, nil // rows of the table are rare here
		case met == nil || met.rank > rank:
			high = middle
		default:
			low = met.seq
		}
		if met != nil && low == met.seq && low+1 >= high {
			break
		}
	}
	return x.look(ctx, max(first, low-min(low, slack)), min(end, high+slack)-1, id)
}
