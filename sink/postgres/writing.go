package postgres

import (
	"context"
	"errors"
	"strconv"
	"time"

	"lockstep"
	"lockstep/sink"
)

// One transaction holds at most so many changes and bytes of bodies.
const (
	mostRows  = 5000
	mostBytes = 16 << 20
)

// writing is one call of Write.
type writing struct {
	p        *Postgres
	messages []sink.Message
	errs     []error        // nil and not done: not delivered yet
	settled  []bool         // delivered, or failed for good
	failed   map[uint64]int // keys of which a change failed, and the first such
	conn     *conn          // nil: not taken yet
	again    bool           // the connection was replaced already
	reloaded bool           // the targets were looked up again already
	stopped  error
}

func (w *writing) release(ctx context.Context) {
	if w.conn != nil {
		w.p.pool.give(ctx, w.conn)
	}
}

// run writes part by part until something concerns all the rest.
func (w *writing) run(ctx context.Context) {
	w.settled = make([]bool, len(w.messages))
	for begin := 0; begin < len(w.messages) && w.stopped == nil; {
		end := w.part(begin)
		list := make([]int, 0, end-begin)
		for i := begin; i < end; i++ {
			list = append(list, i)
		}
		w.stopped = w.write(ctx, list)
		begin = end
	}
	if w.stopped == nil {
		w.p.prune(ctx, w.conn)
	}
}

// part returns where the part that begins there ends. Changes of a whole table stand
// alone.
func (w *writing) part(begin int) int {
	bytes := 0
	for i := begin; i < len(w.messages); i++ {
		m := &w.messages[i]
		bytes += len(m.Body)
		switch {
		case i == begin && m.Action.Whole():
			return i + 1
		case i > begin && (m.Action.Whole() || i-begin >= mostRows || bytes > mostBytes):
			return i
		}
	}
	return len(w.messages)
}

// write writes messages in one transaction, or in several when some of them must be
// rejected. An error concerns all that is not settled.
func (w *writing) write(ctx context.Context, list []int) error {
	err := w.attempt(ctx, list)
	var refused *sink.Error
	switch {
	case err == nil:
		return nil
	case !errors.As(err, &refused):
		return err
	case errors.Is(err, errStale) && !w.reloaded:
		w.reloaded = true
		w.p.targets.forget(w.p.targets.all())
		return w.write(ctx, list)
	case w.broken(ctx):
		return w.write(ctx, list)
	case refused.Kind != sink.Rejected:
		return err
	case len(list) == 1:
		w.fail(list[0], err)
		return nil
	}
	half := len(list) / 2
	if err := w.write(ctx, list[:half]); err != nil {
		return err
	}
	return w.write(ctx, list[half:])
}

// broken reports whether all that failed is a connection that had been idle, and gives
// it up: what comes twice has the effect of one.
func (w *writing) broken(ctx context.Context) bool {
	if w.conn == nil || !w.conn.IsClosed() || w.conn.fresh || w.again || ctx.Err() != nil {
		return false
	}
	w.again = true
	w.p.pool.dropIdle(ctx)
	w.p.pool.give(ctx, w.conn)
	w.conn = nil
	return true
}

// attempt writes messages in one transaction.
func (w *writing) attempt(ctx context.Context, list []int) error {
	if w.conn == nil {
		c, err := w.p.pool.take(ctx)
		if err != nil {
			return err
		}
		w.conn = c
	}
	if m := &w.messages[list[0]]; m.Action.Whole() {
		return w.whole(ctx, list[0], m)
	}
	rows := make([]row, 0, len(list))
	e := encoder{p: w.p}
	for _, i := range list {
		m := &w.messages[i]
		if w.settled[i] || w.held(i) {
			continue
		}
		r, err := w.row(ctx, &e, i, m)
		var refused *sink.Error
		if errors.As(err, &refused) && refused.Kind == sink.Rejected && !errors.Is(err, errStale) {
			w.fail(i, err)
			continue
		}
		if err != nil {
			return err
		}
		rows = append(rows, r)
	}
	if len(rows) == 0 {
		return nil
	}
	kept, merged := collapse(rows)
	if err := w.p.commit(ctx, w.conn, steps(kept)); err != nil {
		w.demoted(ctx, err)
		return err
	}
	w.p.merged.Add(uint64(merged))
	for _, r := range rows {
		w.settled[r.index] = true
	}
	return nil
}

// row makes the row of a message, if need be in a target that is looked up again.
func (w *writing) row(ctx context.Context, e *encoder, i int, m *sink.Message) (row, error) {
	t, err := w.p.targets.of(ctx, w.conn, m)
	if err != nil {
		return row{}, err
	}
	r, err := e.row(t, i, m)
	if !errors.Is(err, errUnknown) {
		return r, err
	}
	if t, err = w.p.targets.renew(ctx, w.conn, m, t); err != nil {
		return row{}, err
	}
	if r, err = e.row(t, i, m); errors.Is(err, errUnknown) {
		err = w.p.pool.refusal(sink.Retry, "table "+t.name.String()+" is being changed", nil)
	}
	return r, err
}

// demoted gives up the connections to a server that is no primary any more.
func (w *writing) demoted(ctx context.Context, err error) {
	if errors.Is(err, errElsewhere) && !w.conn.IsClosed() {
		w.p.pool.drop(ctx, w.conn)
		w.p.pool.dropIdle(ctx)
		w.conn.fresh = true // nothing is to be tried again in this call
	}
}

// whole applies a change of a whole table.
func (w *writing) whole(ctx context.Context, i int, m *sink.Message) error {
	if w.held(i) {
		return nil
	}
	if m.Action == lockstep.Truncate && w.p.config.Truncate {
		t, err := w.p.targets.of(ctx, w.conn, m)
		switch {
		case errors.Is(err, errAbsent) && w.p.config.Create: // there is nothing to be emptied
		case err != nil:
			return err
		default:
			if err := w.p.commit(ctx, w.conn, t.truncating(m)); err != nil {
				return err
			}
			w.settled[i] = true
			return nil
		}
	}
	w.p.ignored.Add(1)
	w.settled[i] = true
	return nil
}

func (w *writing) fail(i int, err error) {
	w.errs[i] = err
	w.settled[i] = true
	key := w.messages[i].Key
	if first, ok := w.failed[key]; !ok || i < first {
		w.failed[key] = i
	}
}

// held reports whether an earlier change of the message's key failed in this call: with
// columns that it does not carry, the order of changes counts.
func (w *writing) held(i int) bool {
	if first, ok := w.failed[w.messages[i].Key]; !ok || i < first {
		return false
	}
	w.errs[i] = w.p.pool.refusal(sink.Retry, "an earlier change of its key was not delivered", nil)
	w.settled[i] = true
	return true
}

// result is what Write returns.
func (w *writing) result() (int, error) {
	first, partial := -1, &sink.PartialError{}
	mixed := false
	for i := range w.messages {
		err := w.errs[i]
		if !w.settled[i] {
			err = w.stopped
		}
		if err == nil {
			mixed = mixed || first >= 0
			continue
		}
		if first < 0 {
			first = i
		}
		mixed = mixed || w.settled[i]
		partial.Failed = append(partial.Failed, sink.Failure{Index: i, Err: err})
	}
	switch {
	case first < 0:
		return len(w.messages), nil
	case mixed:
		return first, partial
	}
	return first, w.stopped
}

const (
	pruned     = 10_000 // rows of the side table at a time
	pruneEvery = time.Hour
)

// prune forgets rows that were deleted long ago, now and then. That it fails is no harm.
func (p *Postgres) prune(ctx context.Context, c *conn) {
	if p.config.KeepDeleted < 0 || c == nil {
		return
	}
	now := time.Now()
	for _, t := range p.targets.all() {
		if t.generic || !t.pruning.due(now) {
			continue
		}
		age := strconv.FormatInt(int64(p.config.KeepDeleted/time.Second), 10) + " s"
		result := c.ExecParams(ctx, t.prune(), [][]byte{[]byte(age)}, nil, nil, nil).Read()
		if result.Err != nil {
			return
		}
		if result.CommandTag.RowsAffected() < pruned {
			t.pruning.done(now)
		}
	}
}
