//go:build unix && !linux

package cluster

import (
	"errors"
	"syscall"
)

// canPassDirectory says whether a directory can be handed to a child process as an
// open file and reached by it through /proc.
const canPassDirectory = false

// endWithParent does nothing: there is no death signal here. A Postgres left behind
// is stopped at the next start.
func endWithParent(*syscall.SysProcAttr) {}

// processesIn finds none: nothing here tells who works where.
func processesIn(string) []int { return nil }

// runsIn cannot tell what a live process is.
func runsIn(pid int, _ string) answer {
	if errors.Is(syscall.Kill(pid, 0), syscall.ESRCH) {
		return no
	}
	return unknown
}
