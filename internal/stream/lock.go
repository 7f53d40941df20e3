package stream

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"lockstep"
)

// lockDir takes the directory for this process; closing the file gives it back.
// The kernel releases it when the process dies, so no stale lock can remain.
func lockDir(dir string) (*os.File, error) {
	f, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("lock stream directory %s: %w", dir, err)
	}
	err = syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
	if errors.Is(err, syscall.EWOULDBLOCK) {
		holder := readHolder(f)
		_ = f.Close()
		return nil, fmt.Errorf("stream directory %s is in use by %s; stop it or choose another data_dir: %w", dir, holder, lockstep.ErrConflict)
	}
	if err != nil {
		_ = f.Close()
		return nil, fmt.Errorf("lock stream directory %s: %w", dir, err)
	}
	// The pid is only for the message above: not being able to write it must not
	// stop a server whose disk is full from starting.
	if f.Truncate(0) == nil {
		_, _ = f.WriteAt(fmt.Appendf(nil, "%d\n", os.Getpid()), 0)
	}
	return f, nil
}

func readHolder(f *os.File) string {
	var b [32]byte
	n, _ := f.ReadAt(b[:], 0)
	if pid := strings.TrimSpace(string(b[:n])); pid != "" {
		return "process " + pid
	}
	return "another process"
}

// freeBytes returns how much of dir's file system is free for us, and its size.
func freeBytes(dir string) (free, total uint64, err error) {
	var s syscall.Statfs_t
	if err := syscall.Statfs(dir, &s); err != nil {
		return 0, 0, fmt.Errorf("free space of %s: %w", dir, err)
	}
	return s.Bavail * uint64(s.Bsize), s.Blocks * uint64(s.Bsize), nil
}
