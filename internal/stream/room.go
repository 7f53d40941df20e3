package stream

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"lockstep"
	"lockstep/internal/obs"
)

// startRoom is what the server may write while it opens its streams: a block of each
// state bucket, compacted. On a disk that has no room for it, nats-server 2.15 ends the
// whole process: newFileStoreWithCreatedAndMode unlocks a store that it has set to nil.
const startRoom = 12 << 20

// room returns an error when the disk of the directory cannot take what a start of the
// server may write.
func room(dir string) error {
	f, err := os.CreateTemp(dir, "room-*")
	if err != nil {
		return fmt.Errorf("the stream in %s cannot be opened: %w: %w", dir, err, lockstep.ErrUnavailable)
	}
	_, err = f.Write(make([]byte, startRoom))
	if err = errors.Join(err, f.Close(), os.Remove(f.Name())); err != nil {
		return fmt.Errorf("the stream in %s needs %d MB of free disk to be opened: %w; make room: %w", dir, startRoom>>20, err, lockstep.ErrUnavailable)
	}
	return nil
}

// awaitRoom waits until the disk has room. What a killed node left of its attempts goes
// first.
func (e *embedded) awaitRoom(ctx context.Context) error {
	left, err := filepath.Glob(filepath.Join(e.dir, "room-*"))
	if err != nil {
		return fmt.Errorf("look into %s: %w", e.dir, err)
	}
	for _, name := range left {
		if err := os.Remove(name); err != nil {
			return fmt.Errorf("clear %s: %w: %w", e.dir, err, lockstep.ErrEnvironment)
		}
	}
	tick := time.NewTicker(250 * time.Millisecond)
	defer tick.Stop()
	for said := false; ; {
		err := room(e.dir)
		if err == nil {
			return nil
		}
		if errors.Is(err, os.ErrPermission) {
			return fmt.Errorf("%w: %w", err, lockstep.ErrEnvironment)
		}
		if !said {
			said = true
			e.log.ErrorContext(ctx, "waiting for room on the disk", obs.KeyError, err)
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}
