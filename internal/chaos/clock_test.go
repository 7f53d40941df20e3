package chaos_test

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// clockVariable names the file that holds by how many seconds a node's wall clock is
// off. Only a binary that was built for it heeds it, see clockBinary.
const clockVariable = "LOCKSTEP_CHAOS_CLOCK"

// Setting the clock of the machine would disturb everything else on it, a time
// namespace moves the monotonic clock only, and libfaketime does not reach a Go
// binary. So the node is built with one more line in the standard library: what
// time.Now says is moved, as it is when somebody sets the clock, and the monotonic
// clock goes on as it does then.
const (
	clockSource   = "	sec, nsec, mono := runtimeNow()\n"
	clockReplaced = clockSource + "	sec += ClockOffset.Load()\n"
	clockImports  = "import (\n"
	clockDeclared = "\n\n// ClockOffset moves the wall clock, in seconds.\nvar ClockOffset atomic.Int64\n"
	clockMain     = `package main

import (
	"os"
	"strconv"
	"time"
)

func init() {
	move := func() {
		text, _ := os.ReadFile(os.Getenv("` + clockVariable + `"))
		if offset, err := strconv.ParseInt(string(text), 10, 64); err == nil {
			time.ClockOffset.Store(offset)
		}
	}
	move()
	go func() {
		for range time.Tick(20 * time.Millisecond) {
			move()
		}
	}()
}
`
)

// clockBinary builds a node whose wall clock can be set while it runs. The reason says
// why there is none.
func clockBinary(t *testing.T, dir string) (binary, reason string) {
	t.Helper()
	root, err := exec.Command("go", "env", "GOROOT").Output()
	if err != nil {
		return "", fmt.Sprintf("no go to build with: %v", err)
	}
	library := filepath.Join(strings.TrimSpace(string(root)), "src", "time", "time.go")
	source, err := os.ReadFile(library)
	if err != nil {
		return "", err.Error()
	}
	text := string(source)
	if strings.Count(text, clockSource) != 1 || !strings.Contains(text, clockImports) {
		return "", "this version of Go reads the clock in another way"
	}
	text = strings.Replace(text, clockSource, clockReplaced, 1)
	text = strings.Replace(text, clockImports, clockImports+"	\"sync/atomic\"\n", 1) + clockDeclared
	module, err := filepath.Abs(filepath.Join("..", ".."))
	if err != nil {
		t.Fatal(err)
	}
	replace := map[string]string{}
	for path, content := range map[string]string{library: text, filepath.Join(module, "cmd", "lockstep", "clock_moved.go"): clockMain} {
		copied := filepath.Join(dir, filepath.Base(path))
		if err := os.WriteFile(copied, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		replace[path] = copied
	}
	overlay, err := json.Marshal(map[string]any{"Replace": replace})
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "overlay.json"), overlay, 0o600); err != nil {
		t.Fatal(err)
	}
	binary = filepath.Join(dir, "lockstep")
	build := exec.Command("go", "build", "-overlay", filepath.Join(dir, "overlay.json"), "-o", binary, "./cmd/lockstep")
	build.Dir = module
	if out, err := build.CombinedOutput(); err != nil {
		return "", fmt.Sprintf("it cannot be built with a clock of its own: %v: %.300s", err, out)
	}
	return binary, ""
}
