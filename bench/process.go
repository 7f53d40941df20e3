package bench

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"lockstep"
)

// ticks is the unit in which /proc/PID/stat tells CPU time: a hundredth of a second on
// every architecture that Go runs on.
const ticks = time.Second / 100

// ownCPU is the CPU time of this process.
func ownCPU() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// processCPU is the CPU time of another process: to the nanosecond where the kernel
// counts it so, else in ticks. A process whose threads end, as those of Go do not, is
// shown too little of.
func processCPU(pid int) (time.Duration, error) {
	files, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/schedstat", pid))
	if err != nil {
		return 0, err
	}
	var sum time.Duration
	for _, path := range files {
		text, _, _ := strings.Cut(firstLine(path), " ")
		if n, err := strconv.ParseInt(text, 10, 64); err == nil {
			sum += time.Duration(n)
		}
	}
	if sum > 0 {
		return sum, nil
	}
	return coarseCPU(pid)
}

func coarseCPU(pid int) (time.Duration, error) {
	path := fmt.Sprintf("/proc/%d/stat", pid)
	data, err := os.ReadFile(path)
	if err != nil {
		return 0, fmt.Errorf("read the CPU time of a process (it needs Linux' /proc): %w: %w", err, lockstep.ErrEnvironment)
	}
	// The name stands in parentheses and may hold anything; numbers follow it.
	rest := string(data[strings.LastIndexByte(string(data), ')')+1:])
	fields := strings.Fields(rest)
	if len(fields) < 13 {
		return 0, fmt.Errorf("%s: unexpected form", path)
	}
	user, err := strconv.ParseInt(fields[11], 10, 64)
	if err != nil {
		return 0, fmt.Errorf("%s: %w", path, err)
	}
	system, err := strconv.ParseInt(fields[12], 10, 64)
	if err != nil {
		return 0, fmt.Errorf("%s: %w", path, err)
	}
	return time.Duration(user+system) * ticks, nil
}

// memory is what a process holds, in megabytes (2^20).
type memory struct {
	resident float64 // everything, the program's own file included
	own      float64 // without pages that come from files and can be dropped
	peak     float64 // the most that resident has been since the process began
}

func memoryOf(pid int) (memory, error) {
	path := fmt.Sprintf("/proc/%d/status", pid)
	if _, err := os.Stat(path); err != nil {
		return memory{}, fmt.Errorf("read the memory of a process (it needs Linux' /proc): %w: %w", err, lockstep.ErrEnvironment)
	}
	of := func(name string) float64 { return float64(kilobytes(field(path, name))) / 1024 }
	return memory{resident: of("VmRSS"), own: of("RssAnon"), peak: of("VmHWM")}, nil
}

// watch samples the memory of a process until ctx ends, and returns the highest
// values.
func watch(ctx context.Context, pid int) (memory, error) {
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	var most memory
	for {
		m, err := memoryOf(pid)
		if err != nil {
			return most, err
		}
		most = memory{max(most.resident, m.resident), max(most.own, m.own), max(most.peak, m.peak)}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return most, nil
		}
	}
}
