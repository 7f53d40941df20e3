package stream

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"lockstep"
)

// The server itself ends the process when a state bucket cannot be compacted while it
// is opened; found by killing a node on a full disk.
func TestStartOnAFullDiskWaitsForRoom(t *testing.T) {
	t.Parallel()
	dir := smallDisk(t)
	s := openServer(t, Config{Dir: dir})
	l := openLog(t, s)
	if err := tryAppend(t.Context(), l, batchOf(100, 200, time.Unix(1_790_000_000, 0)), markAt(1)); err != nil {
		t.Fatal(err)
	}
	closeServer(t, s)
	free := fill(t, dir)
	if err := os.WriteFile(filepath.Join(dir, "room-left-by-a-kill"), nil, 0o600); err != nil {
		t.Fatal(err)
	}

	short, cancel := context.WithTimeout(t.Context(), 400*time.Millisecond)
	defer cancel()
	if s, err := Open(short, Config{Dir: dir}); err == nil {
		closeServer(t, s)
		t.Fatal("the server started on a full disk")
	}
	opened := make(chan error, 1)
	go func() {
		s, err := Open(t.Context(), Config{Dir: dir})
		if err == nil {
			var l *Log
			if l, err = s.Log(t.Context(), "app"); err == nil && l.Last().Seq != 100 {
				err = errors.New("the log does not hold what it held")
			}
			err = errors.Join(err, s.Close())
		}
		opened <- err
	}()
	free()
	if err := <-opened; err != nil {
		t.Fatal(err)
	}
	if left, _ := filepath.Glob(filepath.Join(dir, "room-*")); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
}

func TestADiskWithoutRoomIsToldWithWhatIsNeeded(t *testing.T) {
	t.Parallel()
	dir := smallDisk(t)
	fill(t, dir)
	if err := room(dir); !errors.Is(err, lockstep.ErrUnavailable) {
		t.Errorf("got %v", err)
	}
}
