package wal

import (
	"syscall"
	"time"
)

// doze sleeps for about d. The runtime's timers are good to a millisecond only when
// the process is otherwise idle, which is far too long here.
func doze(d time.Duration) {
	t := syscall.NsecToTimespec(int64(d))
	_ = syscall.Nanosleep(&t, nil) // cut short by a signal: no harm
}
