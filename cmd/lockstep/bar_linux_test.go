package main

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"unsafe"

	"lockstep/client"
)

// openTerminal returns the two ends of a pseudo-terminal of 100 columns.
func openTerminal(t *testing.T) (outside, inside *os.File) {
	t.Helper()
	outside, err := os.OpenFile("/dev/ptmx", os.O_RDWR|syscall.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = outside.Close() })
	var number, locked int32
	size := [4]uint16{40, 100}
	for request, arg := range map[uintptr]unsafe.Pointer{syscall.TIOCGPTN: unsafe.Pointer(&number), syscall.TIOCSPTLCK: unsafe.Pointer(&locked), syscall.TIOCSWINSZ: unsafe.Pointer(&size)} {
		if _, _, errno := syscall.Syscall(syscall.SYS_IOCTL, outside.Fd(), request, uintptr(arg)); errno != 0 {
			t.Fatal(errno)
		}
	}
	inside, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", number), os.O_RDWR|syscall.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	return outside, inside
}

// onTerminal runs a command with a terminal as its output, and returns what that was
// sent, the exit code and standard error.
func onTerminal(t *testing.T, terminal string, args ...string) (shown string, code int, stderr string) {
	t.Helper()
	outside, inside := openTerminal(t)
	read := make(chan string)
	go func() {
		text, _ := io.ReadAll(outside) // it ends with an error, as terminals do
		read <- string(text)
	}()
	var errors bytes.Buffer
	s := streams{in: strings.NewReader(""), out: inside, err: &errors, lookup: func(name string) (string, bool) { return terminal, name == "TERM" }}
	code = run(t.Context(), args, s)
	if err := inside.Close(); err != nil {
		t.Error(err)
	}
	return <-read, code, errors.String()
}

// A person at a terminal sees a bar that moves; nobody else does.
func TestABarIsDrawnOnATerminalOnly(t *testing.T) {
	t.Parallel()
	n := newNode()
	t.Cleanup(n.close)
	shown, code, stderr := onTerminal(t, "xterm", "--server", n.address(), "backfill", "start", "orders", "--watch")
	for _, want := range []string{`orders/1 \[=+>? *\] 400 of about 1,000 rows \(40%\)  400 rows/s  1s left`, `orders/1 \[=+\] completed  1,000 of about 1,000 rows \(100%\)`, `orders/1  completed  1,000 rows, 7 left out`} {
		if !regexp.MustCompile(want).MatchString(shown) {
			t.Errorf("it lacks %s: %q", want, shown)
		}
	}
	if code != 0 || stderr != "" {
		t.Errorf("exit code %d, standard error %q", code, stderr)
	}
	shown, code, stderr = onTerminal(t, "xterm", "--server", n.address(), "backfill", "start", "orders", "--where", "fail", "--watch")
	if code != exitFailed || !strings.Contains(shown, "failed  800 of about 1,000 rows (80%)  public.orders was") || !strings.Contains(stderr, "failed after 800 rows") {
		t.Errorf("a failure: exit code %d, %q, %q", code, shown, stderr)
	}
	for _, c := range []struct {
		terminal string
		more     []string
	}{{"dumb", nil}, {"xterm", []string{"-o", "json"}}, {"xterm", []string{"-q"}}} {
		shown, code, _ := onTerminal(t, c.terminal, append([]string{"--server", n.address(), "backfill", "watch", "orders/1"}, c.more...)...)
		if strings.Contains(shown, "[=") || strings.Contains(shown, "\x1b") || code != 0 {
			t.Errorf("%+v: exit code %d, %q", c, code, shown)
		}
	}
}

// Whatever the figures are, the line fits the terminal: one that wraps cannot be
// written over.
func TestTheBarsLineFitsTheTerminal(t *testing.T) {
	t.Parallel()
	left := int64(1 << 40)
	for _, columns := range []int{60, 80, 100, 0} {
		for _, b := range []client.Backfill{
			{Consumer: &client.Named{Name: "orders"}, N: 12, State: client.BackfillRunning, Rows: 1 << 60, Total: 1 << 61, RowsPerSecond: 1e9, SecondsLeft: &left},
			{Consumer: &client.Named{Name: "李小龍"}, N: 1, State: client.BackfillWaiting, Reason: strings.Repeat("its workers are not there ", 10)},
		} {
			room := barRoom(columns, refOf(b))
			shown := &bar{room: room}
			shown.now.Store(&b)
			if line := width(refOf(b)) + 1 + barWidth + width(shown.text()); columns > 0 && line > columns {
				t.Errorf("%d columns: the line has %d: %s", columns, line, shown.text())
			}
		}
	}
}
