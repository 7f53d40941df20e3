package deliver

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"lockstep"
)

// The bounds of one call that looks at many dead letters, or works on many.
const (
	MaxLetters  = 10_000           // that are retried or dropped
	lettersTime = 20 * time.Second // for that
	lettersLook = 10_000           // that are looked at for a page
	MaxLook     = time.Second      // for that
	lookTime    = MaxLook          // for counting how many are left
	lookBytes   = 16 << 20         // a page that has so many bytes of letters is full
	lettersStep = 32               // that are in memory at a time, but for the page
	workStep    = 256              // that are retried or dropped with one save
)

// LetterOrder is the order of a list of dead letters.
type LetterOrder int

// The orders, by seq.
const (
	OldestFirst LetterOrder = iota
	NewestFirst
)

// LetterQuery says which dead letters are listed.
type LetterQuery struct {
	Cursor uint64 // Next of the page before; 0: the first page
	Limit  int    // 1 to MaxBatch
	Order  LetterOrder
	Key    string // is part of the key's values, joined by ", "; empty: every key
	Reason string // is part of the reason, whatever its case; empty: every reason
	// Look is how long letters are looked at, up to MaxLook; 0: that long. The first few
	// are looked at however long that takes.
	Look time.Duration
}

// LetterPage is a part of a list.
type LetterPage struct {
	Letters []Letter
	Next    uint64 // the cursor of the next page; 0: there is none
	Looked  int    // letters that were looked at
	Stopped bool   // it ended before it was full: it looked at as many as a page may, or they are large
}

// Letters lists dead letters. A page may have fewer letters than Limit, even none, and a
// Next all the same.
func (c *Consumer) Letters(ctx context.Context, q LetterQuery) (LetterPage, error) {
	if q.Limit < 1 || q.Limit > MaxBatch {
		return LetterPage{}, fmt.Errorf("list of %d dead letters: use 1 to %d: %w", q.Limit, MaxBatch, lockstep.ErrInvalid)
	}
	if q.Look < 0 || q.Look > MaxLook {
		return LetterPage{}, fmt.Errorf("look at dead letters for %s: use up to %s: %w", q.Look, MaxLook, lockstep.ErrInvalid)
	}
	list := c.b.cfg.Dead.List
	if q.Order == NewestFirst {
		list = c.b.cfg.Dead.ListBefore
	}
	var p LetterPage
	ends, size := time.Now().Add(cmp.Or(q.Look, MaxLook)), 0
	for at := q.Cursor; ; {
		found, next, err := list(ctx, c.id, at, min(lettersStep, q.Limit))
		if err != nil {
			return p, fmt.Errorf("list dead letters of consumer %s: %w", c.name(), err)
		}
		for i, l := range found {
			if p.Looked++; !q.matches(l) {
				continue
			}
			p.Letters = append(p.Letters, l)
			size += len(l.Message) + len(l.Batch)
			full := len(p.Letters) == q.Limit
			if last := i == len(found)-1; (full || size > lookBytes) && (!last || next != 0) {
				p.Next, p.Stopped = l.Seq, !full
				return p, nil
			}
		}
		if next == 0 {
			return p, nil
		}
		if at = next; p.Looked >= lettersLook || time.Now().After(ends) {
			p.Next, p.Stopped = next, true
			return p, nil
		}
	}
}

func (q LetterQuery) matches(l Letter) bool {
	return hasReason(l, q.Reason) && (q.Key == "" || strings.Contains(keyText(l.PKs), q.Key))
}

func hasReason(l Letter, part string) bool {
	return part == "" || strings.Contains(strings.ToLower(l.Reason), strings.ToLower(part))
}

// keyText returns the values of a key as people read them.
func keyText(pks json.RawMessage) string {
	var values []string
	if json.Unmarshal(pks, &values) != nil {
		return string(pks)
	}
	return strings.Join(values, ", ")
}

// LetterWork says which dead letters are retried or dropped: Seqs, or all that wait for a
// person and match the rest.
type LetterWork struct {
	Seqs   []uint64  // at most MaxLetters; nil: all
	Reason string    // is part of the reason, whatever its case
	Before time.Time // the letter was written before; zero: whenever
	Cursor uint64    // Next of the call before; 0: from the first
}

// LetterProgress is how far a call has come.
type LetterProgress struct {
	Done    int    // retried or dropped
	Skipped int    // could not be: see Why
	Why     string // the first one's reason
	Left    uint64 // not looked at; with a filter that many or fewer are to be done
	Next    uint64 // where to go on; 0: the end was reached, or the call had Seqs
}

// RetryLetters retries letters in the order of their seqs, at most MaxLetters and for 20 s,
// or until ctx ends. Letters that are on their way already count as nothing, so that two
// calls at the same time do together what one would. What Done says is on disk, also
// with an error.
func (c *Consumer) RetryLetters(ctx context.Context, w LetterWork) (LetterProgress, error) {
	return c.workLetters(ctx, w, c.retryStep)
}

// DropLetters drops letters the way that RetryLetters retries them. With Seqs also those
// that are on their way, unless a worker has them.
func (c *Consumer) DropLetters(ctx context.Context, w LetterWork) (LetterProgress, error) {
	return c.workLetters(ctx, w, c.dropStep)
}

// letterStep works on a few letters and counts what became of them.
type letterStep func(ctx context.Context, p *LetterProgress, letters []Letter) error

func (c *Consumer) workLetters(ctx context.Context, w LetterWork, step letterStep) (p LetterProgress, err error) {
	if len(w.Seqs) > MaxLetters {
		return p, fmt.Errorf("%d dead letters of consumer %s: name at most %d: %w", len(w.Seqs), c.name(), MaxLetters, lockstep.ErrInvalid)
	}
	rest := slices.Clone(w.Seqs)
	slices.Sort(rest)
	rest = slices.Compact(rest)
	ends, named := time.Now().Add(lettersTime), w.Seqs != nil
	for at, more := w.Cursor, true; more; {
		if p.Done >= MaxLetters || time.Now().After(ends) || ctx.Err() != nil {
			return c.workLeft(ctx, p, rest, at, named)
		}
		err := func() error {
			end, err := c.begin()
			if err != nil {
				return err
			}
			defer end()
			var found []Letter
			size := min(workStep, MaxLetters-p.Done)
			if named {
				size = min(size, len(rest))
				found, size, err = c.lettersAt(ctx, rest[:size])
				rest = rest[size:]
				more = len(rest) > 0
			} else {
				var next uint64
				found, next, err = c.b.cfg.Dead.List(ctx, c.id, at, size)
				at, more = max(at, next), next != 0
				found = slices.DeleteFunc(found, func(l Letter) bool { return !w.matches(l) || !c.waits(l) })
			}
			if err != nil {
				return err
			}
			return step(ctx, &p, found)
		}()
		if err != nil {
			return p, fmt.Errorf("dead letters of consumer %s: %w", c.name(), err)
		}
	}
	return p, nil
}

// workLeft completes the progress of a call that ends early.
func (c *Consumer) workLeft(ctx context.Context, p LetterProgress, rest []uint64, at uint64, named bool) (LetterProgress, error) {
	if p.Left = uint64(len(rest)); named {
		return p, nil
	}
	// The caller may be gone; how far it came is still to be told.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), lookTime)
	defer cancel()
	left, err := c.b.cfg.Dead.Behind(ctx, c.id, at)
	if err != nil {
		return p, fmt.Errorf("count dead letters of consumer %s: %w", c.name(), err)
	}
	p.Left, p.Next = left, at
	return p, nil
}

func (w LetterWork) matches(l Letter) bool {
	return hasReason(l, w.Reason) && (w.Before.IsZero() || l.At.Before(w.Before))
}

// lettersAt returns the letters with these seqs that there are, and how many seqs it has
// looked at: not all when they are large.
func (c *Consumer) lettersAt(ctx context.Context, seqs []uint64) (found []Letter, looked int, err error) {
	size := 0
	for i, seq := range seqs {
		if size > lookBytes {
			return found, i, nil
		}
		l, err := c.b.cfg.Dead.Get(ctx, c.id, seq)
		if errors.Is(err, lockstep.ErrNotFound) {
			continue // somebody was faster
		}
		if err != nil {
			return nil, 0, err
		}
		size += len(l.Message) + len(l.Batch)
		found = append(found, l)
	}
	return found, len(seqs), nil
}

// skip counts a letter that cannot be worked on; other errors it returns.
func (p *LetterProgress) skip(err error) error {
	if !errors.Is(err, lockstep.ErrConflict) && !errors.Is(err, lockstep.ErrNotFound) && !errors.Is(err, lockstep.ErrCorrupt) {
		return err
	}
	if p.Skipped++; p.Why == "" {
		p.Why = err.Error()
	}
	return nil
}

// retryStep writes its letters together, and waits for one save for all of them.
func (c *Consumer) retryStep(ctx context.Context, p *LetterProgress, letters []Letter) error {
	var plan retryPlan
	var failed error
	for _, l := range letters {
		if !c.waits(l) {
			continue
		}
		ch, err := c.changeOf(l)
		if err == nil {
			err = c.planRetry(ctx, &plan, l, ch)
		}
		if err != nil {
			if failed = p.skip(err); failed != nil {
				break
			}
		}
	}
	if len(plan.letters) == 0 {
		return failed
	}
	ctx = context.WithoutCancel(ctx) // what was begun ends by itself
	g, err := c.retryPlanned(ctx, plan)
	if err == nil {
		err = g.await(ctx)
	}
	if err != nil {
		return errors.Join(failed, err)
	}
	p.Done += len(plan.letters)
	return failed
}

// dropStep waits for one save for all of its letters, and then removes them.
func (c *Consumer) dropStep(ctx context.Context, p *LetterProgress, letters []Letter) error {
	var seqs []uint64
	var saves []*saveGroup
	var failed error
	for _, l := range letters {
		ch, err := c.changeOf(l)
		var g *saveGroup
		if err == nil {
			g, err = c.dropBegin(ctx, l.Seq, ch)
		}
		if err != nil {
			if failed = p.skip(err); failed != nil {
				break
			}
			continue
		}
		seqs, saves = append(seqs, l.Seq), append(saves, g)
	}
	if len(seqs) == 0 {
		return failed
	}
	ctx = context.WithoutCancel(ctx) // what was begun ends by itself
	for _, g := range saves {
		if err := g.await(ctx); err != nil {
			return errors.Join(failed, err)
		}
	}
	// Settled: the letters go now, or with a later save.
	if err := c.dropEnd(ctx, seqs...); err != nil {
		return errors.Join(failed, err)
	}
	p.Done += len(seqs)
	return failed
}
