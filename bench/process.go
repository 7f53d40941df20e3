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
	fields, err := stat(pid)
	if err != nil {
		return 0, err
	}
	return inTicks(fields[11], fields[12])
}

// stat returns the fields of /proc/PID/stat behind the process' name.
func stat(pid int) ([]string, error) {
	path := fmt.Sprintf("/proc/%d/stat", pid)
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("read the CPU time of a process (it needs Linux' /proc): %w: %w", err, lockstep.ErrEnvironment)
	}
	// The name stands in parentheses and may hold anything; numbers follow it.
	rest := string(data[strings.LastIndexByte(string(data), ')')+1:])
	fields := strings.Fields(rest)
	if len(fields) < 15 {
		return nil, fmt.Errorf("%s: unexpected form", path)
	}
	return fields, nil
}

// inTicks adds up times as the kernel writes them.
func inTicks(times ...string) (sum time.Duration, err error) {
	for _, text := range times {
		n, err := strconv.ParseInt(text, 10, 64)
		if err != nil {
			return 0, fmt.Errorf("CPU time %q: %w", text, err)
		}
		sum += time.Duration(n) * ticks
	}
	return sum, nil
}

// familyCPU is the CPU time of the process that has started pid, and of all that it
// has started, those that have ended included.
func familyCPU(pid int) (time.Duration, error) {
	fields, err := stat(pid)
	if err != nil {
		return 0, err
	}
	parent := fields[1]
	id, err := strconv.Atoi(parent)
	if err != nil {
		return 0, fmt.Errorf("the parent %q of process %d: %w", parent, pid, err)
	}
	if fields, err = stat(id); err != nil {
		return 0, err
	}
	sum, err := inTicks(fields[11:15]...)
	if err != nil {
		return 0, err
	}
	all, err := os.ReadDir("/proc")
	if err != nil {
		return 0, err
	}
	for _, entry := range all {
		child, err := strconv.Atoi(entry.Name())
		if err != nil {
			continue // no process
		}
		fields, err := stat(child)
		if err != nil || fields[1] != parent {
			continue // it has ended meanwhile, and is counted by its parent, or is a stranger
		}
		own, err := inTicks(fields[11:13]...)
		if err != nil {
			return 0, err
		}
		sum += own
	}
	return sum, nil
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
