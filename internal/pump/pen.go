package pump

import (
	"context"
	"fmt"
	"time"

	"lockstep/sink"
)

// pen is what one write after the other is made with: with one change per write, making
// it anew would cost as much as everything else here.
type pen struct {
	ctx      context.Context
	drop     context.CancelFunc
	notes    *notes
	timeout  time.Duration
	late     *time.Timer // ends ctx
	messages []sink.Message
	spoilt   bool // its context has ended, or somebody may still use it
}

func newPen(writes context.Context, timeout time.Duration) *pen {
	ctx, cancel := context.WithCancelCause(writes)
	p := &pen{timeout: timeout, late: time.AfterFunc(timeout, func() { cancel(context.DeadlineExceeded) })}
	p.late.Stop()
	p.drop = func() {
		p.late.Stop()
		cancel(nil)
	}
	p.ctx, p.notes = withNotes(ctx)
	return p
}

// write writes a batch.
func (p *pen) write(s sink.Sink, b *batch) written {
	for _, it := range b.items {
		p.messages = append(p.messages, it.message)
	}
	w := written{batch: b, began: time.Now()}
	p.late.Reset(p.timeout)
	p.spoilt = true
	w.n, w.err = p.call(s)
	p.spoilt = !p.late.Stop() || p.spoilt
	w.took, w.requests = time.Since(w.began), p.notes.taken()
	clear(p.messages)
	p.messages = p.messages[:0]
	return w
}

// call calls the sink once. A sink that panics has failed, and may have left something
// running that uses the messages.
func (p *pen) call(s sink.Sink) (n int, err error) {
	defer func() {
		if v := recover(); v != nil {
			p.messages = nil
			n, err = 0, fmt.Errorf("the sink panicked: %v", v)
		}
	}()
	n, err = s.Write(p.ctx, p.messages)
	p.spoilt = false
	return n, err
}
