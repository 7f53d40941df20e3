package api

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"time"
)

// place names a place of a log.
type place struct {
	seq       uint64    // the change with that seq
	at        time.Time // the first change committed at or after that time
	beginning bool
	// Nothing set: now, behind the newest change.
}

// parsePlace reads now (also for no text), beginning, seq:42, a time of RFC 3339, or
// a length of time before now such as 1h.
func parsePlace(text string, now time.Time) (place, error) {
	switch text {
	case "", "now", "new":
		return place{}, nil
	case "beginning", "all":
		return place{beginning: true}, nil
	}
	if number, ok := strings.CutPrefix(text, "seq:"); ok {
		seq, err := strconv.ParseUint(number, 10, 63)
		if err != nil || seq == 0 {
			return place{}, fmt.Errorf("%q is not a seq: they are whole numbers from 1", text)
		}
		return place{seq: seq}, nil
	}
	if at, err := time.Parse(time.RFC3339, text); err == nil {
		return place{at: at}, nil
	}
	if ago, err := time.ParseDuration(text); err == nil && ago >= 0 {
		return place{at: now.Add(-ago)}, nil
	}
	return place{}, fmt.Errorf("%q is not a place: use now, beginning, seq:42, a time such as 2026-11-01T00:00:00Z, or 1h for an hour ago", text)
}

// resolve returns the seq of the first change behind the place.
func (p place) resolve(ctx context.Context, log Log) (uint64, error) {
	switch {
	case p.seq > 0:
		return p.seq, nil
	case p.beginning:
		return log.First(), nil
	case !p.at.IsZero():
		return log.SeqAt(ctx, p.at)
	}
	return log.Last().Seq + 1, nil
}
