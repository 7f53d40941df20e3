package pull

import (
	"context"
	"time"

	"lockstep/source"
)

const (
	// lookAtOnce is how many records are asked for by id in one call.
	lookAtOnce = 50
	// enough is how many records in a row may be refused before the rest is not asked for.
	enough = 10
)

// looked is what came of asking for records by id.
type looked struct {
	records []source.Record
	at      time.Time // of the oldest look
	refused []string  // ids that the API would not show
	reason  error     // of the last one
	row     int       // refusals in a row
}

// look asks for records by id. What the API refuses to show is found by halves and
// told, not an error; whatever may pass is one.
func (w *work) look(ctx context.Context, c *collection, p source.Priority, ids []string) (*looked, error) {
	l := &looked{}
	for len(ids) > 0 {
		n := min(len(ids), lookAtOnce)
		if err := l.some(ctx, w, c, p, ids[:n]); err != nil {
			return nil, err
		}
		ids = ids[n:]
	}
	return l, nil
}

func (l *looked) some(ctx context.Context, w *work, c *collection, p source.Priority, ids []string) error {
	if l.row >= enough {
		l.refused = append(l.refused, ids...)
		return nil
	}
	var page source.Page
	began := time.Now()
	call := func(ctx context.Context) (err error) {
		if err := w.s.config.Mirror.Remind(ctx, w.s.config.Source, c.Name, ids); err != nil {
			return err
		}
		page, err = w.s.config.Source.Get(ctx, c.Name, ids)
		return err
	}
	var err error
	if p == source.Sweeping {
		err = w.worker(ctx, p, call)
	} else {
		err = w.ask(ctx, p, call)
	}
	switch kindOf(err) {
	case source.Forbidden, source.Invalid, source.Failed, source.Gone, source.Unknown, source.Unauthorized:
	default:
		if err == nil {
			l.take(page, began, c)
		}
		return err
	}
	if len(ids) == 1 {
		l.refused, l.reason = append(l.refused, ids...), err
		l.row++
		return nil
	}
	if err := l.some(ctx, w, c, p, ids[:len(ids)/2]); err != nil {
		return err
	}
	return l.some(ctx, w, c, p, ids[len(ids)/2:])
}

func (l *looked) take(page source.Page, began time.Time, c *collection) {
	l.row = 0
	for _, r := range page.Records {
		if r.Collection == "" {
			r.Collection = c.Name
		}
		if r.Data != nil || r.Deleted {
			l.records = append(l.records, r)
		}
	}
	l.at = earliest(l.at, when(page, began))
}

// when is when the API was asked for a page, by its clock if it tells.
func when(page source.Page, began time.Time) time.Time {
	if page.At.IsZero() {
		return began
	}
	return page.At
}

// earliest is the earlier of two times, of which the first may not be known yet.
func earliest(a, b time.Time) time.Time {
	if a.IsZero() || b.Before(a) {
		return b
	}
	return a
}
