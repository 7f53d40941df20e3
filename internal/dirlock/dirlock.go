// Package dirlock takes a directory for one process.
//
// # Guarantees
//
//  1. At most one [Lock] of a directory is held at a time, on one machine, whichever
//     processes ask.
//  2. The kernel releases the lock of a process that died: none stays behind.
//  3. After [Lock.Release] the directory can be taken at once, also while this process
//     is starting another program.
package dirlock

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"lockstep"
)

// Lock is a directory that is taken. Not safe for concurrent use.
type Lock struct{ file *os.File }

// Take locks the directory, which must exist, by its file "lock". When it is held
// already the error names the directory and the process that holds it, and wraps
// lockstep.ErrConflict.
func Take(dir string) (*Lock, error) {
	f, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("lock directory %s: %w", dir, err)
	}
	err = syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
	if errors.Is(err, syscall.EWOULDBLOCK) {
		holder := readHolder(f)
		_ = f.Close()
		return nil, fmt.Errorf("directory %s is in use by %s: %w", dir, holder, lockstep.ErrConflict)
	}
	if err != nil {
		_ = f.Close()
		return nil, fmt.Errorf("lock directory %s: %w", dir, err)
	}
	// The pid is only for the message above: not being able to write it must not
	// stop a node whose disk is full from starting.
	if f.Truncate(0) == nil {
		_, _ = f.WriteAt(fmt.Appendf(nil, "%d\n", os.Getpid()), 0)
	}
	return &Lock{f}, nil
}

// Release gives the directory back.
func (l *Lock) Release() error {
	// Closing alone is not enough: a program that is being started holds a copy of every
	// open file until it runs, and the lock with it.
	err := syscall.Flock(int(l.file.Fd()), syscall.LOCK_UN)
	return errors.Join(err, l.file.Close())
}

func readHolder(f *os.File) string {
	var b [32]byte
	n, _ := f.ReadAt(b[:], 0)
	if pid := strings.TrimSpace(string(b[:n])); pid != "" {
		return "process " + pid
	}
	return "another process"
}
