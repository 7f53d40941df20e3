package wal

import (
	"context"
	"fmt"
)

// Reach returns when everything that was committed before the call is in the log, on
// disk, and the seq of the last change then. It takes turns with [Capture.Interleave].
// An error that wraps [lockstep.ErrUnavailable] says to try again: capture does not
// stream, or its connection broke.
func (c *Capture) Reach(ctx context.Context) (seq uint64, err error) {
	const everything = 0 // no table has this oid
	w := newWindow(everything, c.tune.notes, 1)
	err = c.atWindow(ctx, w, func(ctx context.Context, s *session) error {
		low, err := s.awaitLow(ctx, w)
		seq = low.seq
		return err
	})
	if err != nil {
		return 0, fmt.Errorf("wait until database %q is captured up to now: %w", c.config.Database, err)
	}
	return seq, nil
}
