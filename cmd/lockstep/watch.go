package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	"lockstep"
	"lockstep/client"
)

const (
	watchEvery = 500 * time.Millisecond // how often a backfill is asked for
	lineEvery  = 5 * time.Second        // how often a line says that nothing but the rows has changed
)

// progress shows how far a backfill is.
type progress interface {
	update(b client.Backfill) error
	// lost tells that the node does not answer for now.
	lost(err error)
	// close is called once, with how it was last.
	close(b client.Backfill)
}

// watch follows a backfill to its end. Interrupted, it says that the backfill goes on.
func watch(ctx context.Context, remote *client.Client, b client.Backfill, s streams, p printer) error {
	show := p.progress(b, s)
	last, err := follow(ctx, remote, b, show)
	show.close(last)
	if ctx.Err() != nil {
		p.note("the backfill goes on; lockstep backfill watch %s shows it again, lockstep backfill cancel %s ends it", refOf(b), refOf(b))
		return context.Canceled
	}
	if err != nil {
		return fmt.Errorf("watch backfill %s: %w", refOf(b), err)
	}
	return p.ended(last)
}

// follow shows each state of a backfill until it has ended, and returns the last one.
func follow(ctx context.Context, remote *client.Client, b client.Backfill, show progress) (client.Backfill, error) {
	tick := time.NewTicker(watchEvery)
	defer tick.Stop()
	for {
		if err := show.update(b); err != nil || b.Ended() {
			return b, err
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return b, ctx.Err()
		}
		next, err := remote.Backfill(ctx, b.ID)
		switch {
		case err == nil:
			b = next
		case errors.Is(err, lockstep.ErrUnavailable):
			show.lost(err) // a node that is started anew goes on with its backfills
		default:
			return b, err
		}
	}
}

// ended tells how a backfill ended; an error unless it is complete.
func (p printer) ended(b client.Backfill) error {
	for _, t := range b.Tables {
		if t.Reason != "" && t.State == client.BackfillFailed {
			p.note("%s: %s", printable(t.Name), printable(t.Reason))
		}
	}
	switch b.State {
	case client.BackfillCompleted:
	case client.BackfillCancelled:
		return fmt.Errorf("backfill %s was cancelled after %s rows", refOf(b), grouped(b.Rows))
	default:
		return fmt.Errorf("backfill %s failed after %s rows: %s", refOf(b), grouped(b.Rows), printable(b.Reason))
	}
	if p.format != "table" {
		return nil
	}
	_, err := fmt.Fprintln(p.out, summaryOf(b))
	return err
}

// summaryOf tells what a completed backfill did.
func summaryOf(b client.Backfill) string {
	text := refOf(b) + "  completed  " + grouped(b.Rows) + " rows"
	if b.Deletes > 0 {
		text += ", " + grouped(b.Deletes) + " deletes"
	}
	if b.Overridden > 0 {
		text += ", " + grouped(b.Overridden) + " left out for newer changes"
	}
	if b.StartedAt == nil || b.EndedAt == nil {
		return text
	}
	took := b.EndedAt.Sub(*b.StartedAt)
	text += " in " + took.Round(time.Millisecond*100).String()
	if took >= time.Second {
		text += fmt.Sprintf(" (%s rows/s)", grouped(uint64(float64(b.Rows)/took.Seconds())))
	}
	if b.Reason != "" {
		text += "; " + printable(b.Reason)
	}
	return text
}

// progress returns what fits the output: lines of JSON or YAML for programs, a bar on a
// terminal, plain lines otherwise.
func (p printer) progress(b client.Backfill, s streams) progress {
	switch {
	case p.format != "table":
		return &rawLines{p: p}
	case p.quiet:
		return silence{}
	case s.animates(p.out):
		return newBar(p.out, b, columns(p.out))
	}
	return &plainLines{p: p}
}

// animates reports whether lines of w may be written over: a terminal that can.
func (s streams) animates(w io.Writer) bool {
	v, _ := s.lookup("TERM")
	return v != "dumb" && isTerminal(w)
}

// silence shows nothing but the end.
type silence struct{}

func (silence) update(client.Backfill) error { return nil }
func (silence) lost(error)                   {}
func (silence) close(client.Backfill)        {}

// rawLines writes each state as the server tells it: one line of JSON, or one document
// of YAML.
type rawLines struct {
	p    printer
	last []byte
	gone bool
}

func (l *rawLines) update(b client.Backfill) error {
	l.gone = false
	if bytes.Equal(l.last, b.Raw) {
		return nil
	}
	l.last = b.Raw
	if l.p.format == "json" {
		return writeLine(l.p.out, bytes.Clone(b.Raw))
	}
	text, err := toYAML(b.Raw)
	if err != nil {
		return err
	}
	_, err = l.p.out.Write(append([]byte("---\n"), text...))
	return err
}

func (l *rawLines) lost(err error) {
	if !l.gone {
		l.p.note("lockstep: %s; going on when it is back", reason(err))
	}
	l.gone = true
}

func (*rawLines) close(client.Backfill) {}

// plainLines writes a line whenever something else than the number of rows changes,
// and now and then for that.
type plainLines struct {
	p    printer
	last client.Backfill
	at   time.Time
	gone bool
}

func (l *plainLines) update(b client.Backfill) error {
	l.gone = false
	same := b.State == l.last.State && b.Reason == l.last.Reason
	if b.Ended() || same && (b.Rows == l.last.Rows || time.Since(l.at) < lineEvery) {
		return nil // the end has a line of its own
	}
	l.last, l.at = b, time.Now()
	_, err := fmt.Fprintln(l.p.out, refOf(b)+"  "+b.State+"  "+progressText(b)+reasonText(b))
	return err
}

func (l *plainLines) lost(err error) {
	if !l.gone {
		l.p.note("lockstep: %s; going on when it is back", reason(err))
	}
	l.gone = true
}

func (*plainLines) close(client.Backfill) {}

// progressText tells rows, rate and time left in a line.
func progressText(b client.Backfill) string {
	parts := []string{grouped(b.Rows) + " rows"}
	if b.Total > 0 {
		parts = []string{fmt.Sprintf("%s of about %s rows (%d%%)", grouped(b.Rows), grouped(max(b.Total, b.Rows)), percentOf(b))}
	}
	if b.RowsPerSecond > 0 && b.State == client.BackfillRunning {
		parts = append(parts, grouped(uint64(b.RowsPerSecond))+" rows/s")
	}
	if left := leftOf(b); left != "" && b.State == client.BackfillRunning {
		parts = append(parts, left+" left")
	}
	return strings.Join(parts, "  ")
}

func reasonText(b client.Backfill) string {
	if b.Reason == "" {
		return ""
	}
	return "  " + printable(b.Reason)
}

// percentOf is how much of the estimate is done. The estimate may be too low: only the
// end is 100.
func percentOf(b client.Backfill) uint64 {
	if b.State == client.BackfillCompleted {
		return 100
	}
	if b.Total == 0 {
		return 0
	}
	return min(uint64(float64(b.Rows+b.Overridden)/float64(b.Total)*100), 99)
}

// grouped writes a number with commas between the thousands.
func grouped(n uint64) string {
	text := strconv.FormatUint(n, 10)
	for at := len(text) - 3; at > 0; at -= 3 {
		text = text[:at] + "," + text[at:]
	}
	return text
}
