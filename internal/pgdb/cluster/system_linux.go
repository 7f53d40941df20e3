package cluster

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
)

// canPassDirectory says whether a directory can be handed to a child process as an
// open file and reached by it through /proc.
const canPassDirectory = true

// endWithParent asks for a fast shutdown when the thread that starts the child ends.
func endWithParent(attr *syscall.SysProcAttr) { attr.Pdeathsig = sigFast }

// processesIn lists the processes of Postgres in the data directory.
func processesIn(data string) (pids []int) {
	entries, _ := os.ReadDir("/proc") // without it there is nothing to be found
	for _, e := range entries {
		if pid, err := strconv.Atoi(e.Name()); err == nil && runsIn(pid, data) == yes {
			pids = append(pids, pid)
		}
	}
	return pids
}

// runsIn says whether the process is of a Postgres in the data directory, which is
// then its working directory. A zombie has none.
func runsIn(pid int, data string) answer {
	proc := filepath.Join("/proc", strconv.Itoa(pid))
	cwd, err := os.Stat(filepath.Join(proc, "cwd"))
	if errors.Is(err, fs.ErrNotExist) {
		return no
	}
	if err != nil {
		// Another user's process: it is none of ours, since ours has our user.
		return no
	}
	dir, err := os.Stat(data)
	if err != nil || !os.SameFile(cwd, dir) {
		return no
	}
	name, err := os.ReadFile(filepath.Join(proc, "comm"))
	if err != nil || !strings.HasPrefix(string(name), "post") {
		return no
	}
	return yes
}
