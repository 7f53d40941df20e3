package wal

import (
	"context"
	"errors"
	"fmt"

	"lockstep"
)

// Witness keeps one Witnessed, away from the log: an empty log alone does not tell
// whether it is new or was lost. Calls come one at a time.
type Witness interface {
	// Load returns what was saved last; nothing, or an error that wraps
	// [lockstep.ErrNotFound], when nothing was. Other errors end the attempt to
	// connect, and it is made again.
	Load(ctx context.Context) (Witnessed, error)
	// Save is durable when it returns. It is called once, and not before Load.
	Save(ctx context.Context, w Witnessed) error
}

// Witnessed is the slot that a log was bound to first.
type Witnessed struct {
	SystemID uint64
	Timeline uint32
	Slot     string
	// CreatedLSN is where the slot stood before anything was read from it; 0: something
	// may have been read by then.
	CreatedLSN lockstep.LSN
}

// lost says what is missing when the log is empty: it may have held all that was ever
// confirmed. Nothing, while the slot stands where it did at the beginning: from there
// everything comes again.
func (known Witnessed) lost(s *slot, w *wire, name string) Gap {
	nobody := known == Witnessed{}
	switch {
	case nobody && (s == nil || !s.decoded):
		return Gap{}
	case nobody:
		return Gap{Reason: gapStreamLost}
	case known.SystemID != w.systemID:
		return Gap{Reason: gapStreamLost} // positions are a cluster's own
	case s != nil && s.walStatus != walLost && s.confirmed == known.CreatedLSN && known.Timeline == w.timeline && known.Slot == name:
		return Gap{}
	}
	return Gap{Reason: gapStreamLost, From: known.CreatedLSN}
}

// firstOf returns the position of the gap's end when it is the log's beginning, with
// nothing lost before it.
func firstOf(mark lockstep.Mark, g Gap) lockstep.LSN {
	if mark.SystemID != 0 || g.Reason != gapNone {
		return 0
	}
	return g.To
}

func (c *Capture) loadWitness(ctx context.Context) (Witnessed, error) {
	if c.config.Witness == nil {
		return Witnessed{}, nil
	}
	known, err := c.config.Witness.Load(ctx)
	if errors.Is(err, lockstep.ErrNotFound) {
		return Witnessed{}, nil
	}
	if err != nil {
		return known, fmt.Errorf("find out whether the stream was in use: %w", err)
	}
	return known, nil
}

// saveWitness notes what is so now, unless there is a note.
func (c *Capture) saveWitness(ctx context.Context, known, now Witnessed) error {
	if c.config.Witness == nil || known != (Witnessed{}) {
		return nil
	}
	if err := c.config.Witness.Save(ctx, now); err != nil {
		return fmt.Errorf("note that the stream is in use: %w", err)
	}
	return nil
}
