package wal

import (
	"context"
	"errors"
	"fmt"

	"lockstep"
)

// pageRun is pages of one table on their way. The watermark at which a page is written
// begins the span of the page after the next one: so the next one is read while it is
// still being written into the WAL, and transactions before it have had the time of a
// page to become visible.
type pageRun struct {
	read   func(ctx context.Context, low uint64) (Page, error)
	placed func(Interleaved) error

	capture *Capture
	session *session
	window  *window
	first   bool       // there was a page
	flying  int        // pages whose outcome is not known
	emitted chan error // of the last watermark; nil: there is none to be heard of
}

// ErrNoPage is what the reader of pages returns when there is no further one.
var ErrNoPage = errors.New("there is no further page")

// run reads and places pages. own is what the caller's functions returned.
func (p *pageRun) run(ctx context.Context, low uint64) (own, err error) {
	defer p.leave()
	for {
		page, err := p.read(ctx, low)
		if err != nil {
			return p.end(ctx, err)
		}
		if err := p.check(&page); err != nil {
			return nil, err
		}
		if own, err := p.place(ctx, page); own != nil || err != nil {
			return own, err
		}
	}
}

// leave waits for what still runs. Its context has ended, or it is about to end.
func (p *pageRun) leave() {
	if p.emitted == nil {
		return
	}
	if <-p.emitted != nil {
		return // it has been told already, or the run ends for another reason
	}
}

// end waits for the pages on their way.
func (p *pageRun) end(ctx context.Context, read error) (own, err error) {
	own, err = p.settle(ctx, 0)
	if errors.Is(read, ErrNoPage) {
		return own, err
	}
	return read, nil
}

func (p *pageRun) check(page *Page) error {
	if err := p.capture.checkPage(page, p.window.oid); err != nil {
		return err
	}
	if page.Snapshot.Max == 0 {
		if p.first {
			return fmt.Errorf("a page without a snapshot behind another: %w", lockstep.ErrInvalid)
		}
	} else {
		p.capture.settling.seen(page.Snapshot)
	}
	p.first = true
	return nil
}

// place sends a page on its way.
func (p *pageRun) place(ctx context.Context, page Page) (own, err error) {
	if err := p.heard(ctx); err != nil {
		return nil, err
	}
	if own, err := p.settle(ctx, maxFlying-1); own != nil || err != nil {
		return own, err
	}
	p.window.writes <- writePage(page)
	p.flying++
	emitted := make(chan error, 1)
	go func() { emitted <- p.session.emit(ctx, p.window, markHigh) }()
	p.emitted = emitted
	return nil, nil
}

// heard waits until the last watermark is in the WAL.
func (p *pageRun) heard(ctx context.Context) error {
	if p.emitted == nil {
		return nil
	}
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case err := <-p.emitted:
		p.emitted = nil
		return err
	}
}

// settle waits until at most that many pages are on their way, and tells of all that
// have landed.
func (p *pageRun) settle(ctx context.Context, most int) (own, err error) {
	for p.flying > 0 {
		if p.flying <= most && len(p.window.high) == 0 {
			break
		}
		select {
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		case err := <-p.emitted: // nil where there is none
			p.emitted = nil
			if err != nil {
				return nil, err
			}
		case out := <-p.window.high:
			p.flying--
			if out.err != nil {
				return nil, out.err
			}
			if own := p.placed(out.result); own != nil {
				return own, nil
			}
		}
	}
	return nil, nil
}
