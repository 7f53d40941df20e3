package console

import (
	"context"
	"errors"
	"slices"
	"strconv"
	"sync"
	"time"

	"lockstep"
	"lockstep/client"
)

const (
	lookWindow = 200                    // changes that are read at first; four times as many each further time
	lookMost   = 20_000                 // changes that a page looks at
	lookTime   = 700 * time.Millisecond // for looking
	lookSilent = 60 * time.Millisecond  // after it, whether more comes is asked for
)

// looking reads a part of the stream that is over: the newest changes before a place, or
// the oldest behind one, of those that are selected.
type looking struct {
	api      *client.Client
	selected choice
	first    uint64 // the oldest change that there is
	newest   uint64
	most     int
}

// lookedAt is what was found, the newest first.
type lookedAt struct {
	Rows   []changeRow
	Looked uint64 // changes that were looked at
	Low    uint64 // the first of them
	High   uint64 // the last of them
	Late   bool   // there was no time for more
}

// back looks from before a seq to older ones.
func (l looking) back(ctx context.Context, before uint64) (lookedAt, error) {
	before = max(min(before, l.newest+1), l.first)
	out := lookedAt{Low: before, High: before - 1}
	ctx, cancel := context.WithTimeout(ctx, lookTime)
	defer cancel()
	for size := uint64(lookWindow); out.Low > l.first && out.Looked < lookMost; size *= 4 {
		low := max(l.first, out.Low-min(out.Low-1, size, lookMost-out.Looked))
		found, _, silent, err := l.window(ctx, low, out.Low-1, 0)
		if err != nil {
			out.Late = ctx.Err() != nil
			return out, unlessLate(ctx, err)
		}
		slices.Reverse(found)
		if silent && len(found) == 0 {
			size *= 4 // a backfill's rows are many, and cost time each time that they are come upon
		}
		out.Rows = append(out.Rows, found...)
		out.Looked += out.Low - low
		out.Low = low
		if len(out.Rows) >= l.most {
			return out.cut(l.most), nil
		}
	}
	return out, nil
}

// cut leaves the newest, and what is before them to the next page.
func (a lookedAt) cut(most int) lookedAt {
	if len(a.Rows) > most && most > 0 {
		a.Low = a.Rows[most-1].Seq
	}
	a.Rows = a.Rows[:min(most, len(a.Rows))]
	return a
}

// forward looks from behind a seq to newer ones.
func (l looking) forward(ctx context.Context, after uint64) (lookedAt, error) {
	after = max(min(after, l.newest), l.first-1)
	out := lookedAt{Low: after + 1, High: after}
	ctx, cancel := context.WithTimeout(ctx, lookTime)
	defer cancel()
	last := min(l.newest, after+lookMost)
	if last == after {
		return out, nil
	}
	found, reached, _, err := l.window(ctx, after+1, last, l.most)
	slices.Reverse(found)
	out.Rows, out.High = found, reached
	out.Looked = out.High - after
	out.Late = ctx.Err() != nil
	return out, unlessLate(ctx, err)
}

func unlessLate(ctx context.Context, err error) error {
	if errors.Is(ctx.Err(), context.DeadlineExceeded) {
		return nil
	}
	return err
}

// window reads the changes from low to high that are selected, oldest first, at most so
// many (0: all of them), and returns how far it came. A tail waits at its end for what
// comes: so that it tells of this end, the change at high comes in any case. Only where
// that is a row that a backfill reads for one consumer, of which no tail tells, is the
// end a silence.
func (l looking) window(ctx context.Context, low, high uint64, most int) (found []changeRow, reached uint64, silent bool, err error) {
	ctx, cancel := context.WithCancel(ctx)
	heard, over := make(chan struct{}, 1), false
	var listening sync.WaitGroup
	listening.Go(func() {
		if over = l.silent(ctx, heard, high); over {
			cancel()
		}
	})
	found, reached, err = l.read(ctx, low, high, most, heard)
	cancel()
	listening.Wait()
	if over {
		return found, high, true, nil
	}
	return found, reached, false, err
}

// silent waits until a tail has told nothing for a while, and reports whether that is
// since there is nothing: the change at high is one that it does not tell of.
func (l looking) silent(ctx context.Context, heard <-chan struct{}, high uint64) bool {
	quiet := time.NewTimer(lookSilent)
	defer quiet.Stop()
	for {
		select {
		case <-ctx.Done():
			return false
		case <-heard:
			quiet.Reset(lookSilent)
			continue
		case <-quiet.C:
		}
		at, err := l.api.ChangeAt(ctx, l.selected.Database, high)
		if err != nil || at.Action != lockstep.Read.String() {
			return false // it comes
		}
		select {
		case <-heard:
			quiet.Reset(lookSilent)
		default:
			return ctx.Err() == nil
		}
	}
}

// read is the part of a window that follows the tail. It says so on heard when the tail
// tells of a change.
func (l looking) read(ctx context.Context, low, high uint64, most int, heard chan<- struct{}) (found []changeRow, reached uint64, err error) {
	o := client.TailOptions{LastID: strconv.FormatUint(low-1, 10), Filter: l.until(high)}
	reached = low - 1
	for e, err := range l.api.Tail(ctx, l.selected.Database, o) {
		if err != nil {
			return found, reached, err
		}
		select {
		case heard <- struct{}{}:
		default: // it has been said, and not yet been listened to
		}
		row := rowOf(e, l.selected.Database)
		if row.Seq > high {
			return found, high, nil
		}
		reached = max(reached, row.Seq)
		if l.wants(row, high) {
			found = append(found, row)
		}
		if row.Seq == high || most > 0 && len(found) == most {
			break
		}
	}
	return found, reached, nil
}

// until makes the filter of a window: from its last change on what does not match is an
// error, of which a tail tells as it tells of a match.
func (l looking) until(high uint64) string {
	e := l.selected.expression()
	if a := l.selected.Action; a != "" && e == "" {
		e = "action == " + quoted(a)
	} else if a != "" {
		e = "action == " + quoted(a) + " && (" + e + "\n)"
	}
	if e == "" {
		return ""
	}
	return "metadata.seq < " + strconv.FormatUint(high, 10) + " ? (" + e + "\n) : ((" + e + "\n) ? true : 1 / (metadata.seq - metadata.seq) == 1)"
}

// wants applies what a window's filter leaves: tables, and actions that no filter is
// asked about.
func (l looking) wants(row changeRow, high uint64) bool {
	switch s := l.selected; {
	case row.Action == failedFilter:
		return row.Seq != high
	case row.Table == "": // a gap of no single table
		return s.Action == "" || s.Action == row.Action
	case len(s.tables()) > 0 && !s.patterns.Match(row.Schema, row.Name):
		return false
	default:
		return s.Action == "" || s.Action == row.Action
	}
}
