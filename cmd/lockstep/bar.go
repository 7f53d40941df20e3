package main

import (
	"io"
	"sync/atomic"
	"time"

	"github.com/vbauerster/mpb/v8"
	"github.com/vbauerster/mpb/v8/decor"

	"lockstep/client"
)

const (
	barRefresh = 120 * time.Millisecond
	barWidth   = 30
)

// bar shows a backfill as a bar on a terminal, with the server's own figures beside it.
type bar struct {
	pool    *mpb.Progress
	bar     *mpb.Bar
	now     atomic.Pointer[client.Backfill]
	missing atomic.Bool // the node does not answer
	room    int         // columns for the text behind the bar
}

// newBar begins to draw. The caller must close it.
func newBar(out io.Writer, b client.Backfill, columns int) *bar {
	shown := &bar{room: barRoom(columns, refOf(b))}
	shown.now.Store(&b)
	shown.pool = mpb.New(mpb.WithOutput(out), mpb.WithWidth(barWidth), mpb.WithRefreshRate(barRefresh))
	shown.bar = shown.pool.New(0, mpb.BarStyle().Lbound("[").Filler("=").Tip(">").Padding(" ").Rbound("]"),
		mpb.BarFillerTrim(), // no spaces of its own around the bar
		mpb.PrependDecorators(decor.Name(printable(refOf(b))+" ")),
		mpb.AppendDecorators(decor.Any(func(decor.Statistics) string { return shown.text() })),
	)
	return shown
}

// barRoom is what the name and the bar leave of a line.
func barRoom(columns int, name string) int {
	return max(columns-barWidth-width(printable(name))-2, 20)
}

// text is what stands behind the bar.
func (r *bar) text() string {
	b := *r.now.Load()
	text := b.State + "  " + progressText(b) + reasonText(b)
	switch {
	case r.missing.Load():
		text = "the node does not answer; waiting for it"
	case b.State == client.BackfillRunning:
		text = progressText(b)
	}
	return truncate(" "+text, r.room)
}

func (r *bar) update(b client.Backfill) error {
	r.missing.Store(false)
	r.now.Store(&b)
	if b.Total > 0 {
		done := b.Rows + b.Overridden
		// The estimate may be too low; only the end is the end.
		r.bar.SetTotal(int64(max(b.Total, done+1)), false)
		r.bar.SetCurrent(int64(done))
	}
	return nil
}

func (r *bar) lost(error) { r.missing.Store(true) }

// close ends drawing and returns when the last line is on the terminal.
func (r *bar) close(b client.Backfill) {
	r.now.Store(&b)
	if b.State == client.BackfillCompleted {
		r.bar.SetTotal(max(r.bar.Current(), 1), false)
		r.bar.SetCurrent(max(r.bar.Current(), 1))
		r.bar.SetTotal(-1, true)
	} else {
		r.bar.Abort(false)
	}
	r.pool.Wait()
}
