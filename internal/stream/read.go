package stream

import (
	"context"
	"errors"
	"fmt"

	"lockstep"
)

// Reader gives the batches of a log in order. It is used by one goroutine. Readers
// at the end of the log share the writer's own batches and wait without polling;
// one that is behind reads from the store by itself until it has caught up.
type Reader struct {
	log    *Log
	next   uint64 // the seq to give next; 0: the oldest one present
	pos    uint64 // the message to read next; 0: unknown
	epoch  uint64 // of the log when pos was set
	window *window
	parts  assembly
	closed bool
}

// Reader returns a reader that begins with the batch holding seq from; 0 means the
// oldest change present, and a seq behind the end waits until it is there. Close
// it after use.
func (l *Log) Reader(from uint64) *Reader { return &Reader{log: l, next: from} }

// Seek makes the reader go on with the batch holding seq from.
func (r *Reader) Seek(from uint64) {
	r.forget()
	r.next = from
}

// Close gives back what the reader holds. A closed reader gives errors.
func (r *Reader) Close() {
	r.forget()
	r.closed = true
}

// Next returns the next batch that has changes, and waits for one at the end of the
// log. The first batch after Reader or Seek may begin before the seq asked for.
// The batch is shared: it must not be changed.
//
// A *lockstep.RetentionError says that changes are gone: go on with Seek(First). A
// *CorruptError says that changes are damaged: go on with Seek(Last+1). Both come
// again until then. Other errors are those of ctx or wrap lockstep.ErrUnavailable;
// Next may be called again.
func (r *Reader) Next(ctx context.Context) (*lockstep.Batch, error) {
	for {
		v := r.log.view()
		if r.closed || v.closed {
			return nil, fmt.Errorf("read log of database %q: %w", r.log.database, errClosed)
		}
		if r.next == 0 {
			r.next = v.first
		}
		if r.epoch != v.epoch {
			r.forget()
			r.epoch = v.epoch
		}
		if r.next < v.first {
			return nil, &lockstep.RetentionError{Asked: r.next, First: v.first}
		}
		if r.next > v.end.mark.Seq {
			r.stopReading()
			select {
			case <-v.grown:
				continue
			case <-ctx.Done():
				return nil, context.Cause(ctx)
			}
		}
		if e, ok := r.log.cached(r.next); ok {
			r.stopReading()
			return r.took(e), nil
		}
		e, err := r.read(ctx, v)
		if err != nil {
			return nil, fmt.Errorf("read log of database %q at seq %d: %w", r.log.database, r.next, err)
		}
		if e != nil {
			return r.took(*e), nil
		}
	}
}

func (r *Reader) took(e entry) *lockstep.Batch {
	r.next, r.pos = e.batch.Mark.Seq+1, e.end+1
	r.parts = assembly{}
	return e.batch
}

// read gets the batch holding next from the store.
func (r *Reader) read(ctx context.Context, v view) (*entry, error) {
	if r.pos == 0 {
		e, err := r.log.locate(ctx, r.next)
		if err == nil {
			r.log.index.add(place{e.batch.First, e.start})
		}
		return e, err
	}
	for {
		if r.pos > v.end.last {
			// The log says that next is there, the store has nothing: it was lost at the end.
			return nil, r.log.hole(ctx, r.next, v.end.mark.Seq+1)
		}
		m, err := r.message(ctx)
		if errors.Is(err, errMissing) {
			gone, err := r.gone(ctx)
			if gone || err != nil {
				return nil, err
			}
			r.pos++
			continue
		}
		if err != nil {
			return nil, err
		}
		e, err := r.parts.add(r.log.database, m)
		if err != nil {
			// The next call must meet the same batch again.
			r.stopReading()
			r.pos = m.start()
			return nil, err
		}
		r.pos = m.seq + 1
		if e == nil || e.batch.Len() == 0 || e.batch.Mark.Seq < r.next {
			continue
		}
		if e.batch.First > r.next {
			r.stopReading()
			r.pos = e.start
			return nil, r.log.hole(ctx, r.next, e.batch.First)
		}
		r.log.index.add(place{e.batch.First, e.start})
		return e, nil
	}
}

// message returns the message at pos, or a later one when nothing of interest lies
// between.
func (r *Reader) message(ctx context.Context) (*stored, error) {
	if r.window != nil && r.window.next != r.pos {
		r.stopReading()
	}
	if r.window == nil {
		w, err := r.log.srv.openWindow(r.log.stream, r.pos)
		if err != nil {
			return nil, err
		}
		r.window = w
	}
	m, err := r.window.read(ctx)
	if err == nil && (m.seq == r.pos || (m.ours && m.part == 1 && m.first <= r.next)) {
		return m, nil
	}
	r.stopReading()
	if err != nil && !errors.Is(err, errMissing) {
		return nil, err
	}
	return r.log.load(ctx, r.pos)
}

// gone says, after a message was missing, whether retention took it; the log then
// knows its new beginning. If not, JetStream holds the message for damaged.
func (r *Reader) gone(ctx context.Context) (bool, error) {
	state, err := r.log.state(ctx)
	if err != nil {
		return false, err
	}
	if r.pos >= state.FirstSeq && state.Msgs > 0 {
		return false, nil
	}
	r.forget()
	return true, r.log.refreshFirst(ctx)
}

// forget makes the reader look for its place anew.
func (r *Reader) forget() {
	r.stopReading()
	r.pos, r.parts = 0, assembly{}
}

// stopReading gives the window back. What was assembled stays: pos goes on with it.
func (r *Reader) stopReading() {
	if r.window != nil {
		r.window.close()
		r.window = nil
	}
}

// cached returns the batch holding seq when it is in memory.
func (l *Log) cached(seq uint64) (entry, bool) {
	if e, ok := l.srv.cache.get(l, seq); ok {
		return e, true
	}
	p, _, ok, _ := l.index.around(seq)
	if !ok {
		return entry{}, false
	}
	e, ok := l.srv.cache.get(l, p.first)
	if !ok || e.batch.Mark.Seq < seq {
		return entry{}, false
	}
	return e, true
}
