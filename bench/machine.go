package bench

import (
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"time"
)

// Machine is where a benchmark ran. What the system does not tell is left empty.
type Machine struct {
	CPU      string  `json:"cpu"`
	Cores    int     `json:"cores"`
	MemoryMB int     `json:"memory_mb"`
	Load     string  `json:"load"` // the system's load averages when it began
	Kernel   string  `json:"kernel"`
	Platform string  `json:"platform"`
	Go       string  `json:"go"`
	Postgres string  `json:"postgres"`
	Version  string  `json:"lockstep"`
	FsyncUS  float64 `json:"fsync_us"` // to append 4 KiB to a file and fsync it, median of 200
}

func (o Options) machine() Machine {
	m := Machine{
		Cores: runtime.NumCPU(), Platform: runtime.GOOS + "/" + runtime.GOARCH, Go: runtime.Version(), Version: o.Version,
		CPU: field("/proc/cpuinfo", "model name"), Kernel: firstLine("/proc/sys/kernel/osrelease"),
	}
	if load := strings.Fields(firstLine("/proc/loadavg")); len(load) > 3 {
		m.Load = strings.Join(load[:3], " ")
	}
	m.MemoryMB = kilobytes(field("/proc/meminfo", "MemTotal")) / 1024
	if out, err := exec.Command(filepath.Join(o.PGBin, "postgres"), "--version").Output(); err == nil { // without it the machine has no version, and the run soon no Postgres
		m.Postgres = strings.TrimPrefix(strings.TrimSpace(string(out)), "postgres (PostgreSQL) ")
	}
	m.FsyncUS = fsyncTime(o.Dir)
	return m
}

// field returns what stands behind a name and a colon in a file of the system.
func field(path, name string) string {
	data, err := os.ReadFile(path)
	if err != nil {
		return ""
	}
	for line := range strings.Lines(string(data)) {
		key, value, ok := strings.Cut(line, ":")
		if ok && strings.TrimSpace(key) == name {
			return strings.TrimSpace(value)
		}
	}
	return ""
}

func firstLine(path string) string {
	data, err := os.ReadFile(path)
	if err != nil {
		return ""
	}
	line, _, _ := strings.Cut(string(data), "\n")
	return line
}

// kilobytes reads "123 kB".
func kilobytes(text string) int {
	n, err := strconv.Atoi(strings.TrimSuffix(text, " kB"))
	if err != nil {
		return 0
	}
	return n
}

// fsyncTime returns the median time in µs of an append of 4 KiB that is on the disk.
// It tells a disk from a file system in memory, and is the limit of small acks.
func fsyncTime(dir string) float64 {
	f, err := os.CreateTemp(dir, "lockstep-fsync-")
	if err != nil {
		return 0
	}
	defer func() { _ = os.Remove(f.Name()) }()
	defer f.Close()
	var took []float64
	for page := make([]byte, 4096); len(took) < 200; {
		start := time.Now()
		if _, err := f.Write(page); err != nil {
			return 0
		}
		if err := f.Sync(); err != nil {
			return 0
		}
		took = append(took, float64(time.Since(start).Nanoseconds())/1000)
	}
	return spread(took).Median
}
