package cluster

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"syscall"

	"lockstep"
)

// dirLock is a file lock that goes away with the process that holds it. The file
// stays: removing it would let two processes lock two files of one name.
type dirLock struct{ file *os.File }

// lockDir takes the lock, or fails with ErrConflict naming the holder.
func lockDir(path string) (*dirLock, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("lock the private Postgres' directory: %w: choose a data_dir that this user may write to: %w", err, lockstep.ErrEnvironment)
	}
	err = syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
	if errors.Is(err, syscall.EWOULDBLOCK) {
		holder, _ := os.ReadFile(path) // only for the message
		_ = f.Close()
		return nil, fmt.Errorf("the private Postgres' directory of %s is in use by process %s: stop that process, or choose another data_dir: %w",
			path, orUnknown(strings.TrimSpace(string(holder))), lockstep.ErrConflict)
	}
	if err == nil {
		err = writePID(f)
	}
	if err != nil {
		_ = f.Close()
		return nil, fmt.Errorf("lock the private Postgres' directory: %s: %w: %w", path, err, lockstep.ErrEnvironment)
	}
	return &dirLock{file: f}, nil
}

func writePID(f *os.File) error {
	if err := f.Truncate(0); err != nil {
		return err
	}
	_, err := fmt.Fprintf(f, "%d\n", os.Getpid())
	return err
}

func orUnknown(pid string) string {
	if pid == "" {
		return "(unknown)"
	}
	return pid
}

// release gives the lock up; a closed file holds none.
func (l *dirLock) release() { _ = l.file.Close() }
