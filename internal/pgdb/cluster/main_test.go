package cluster

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"go.uber.org/goleak"
)

// childVariable makes the test binary a process that holds the cluster of the
// directory it names until its standard input ends: one that tests can kill.
const childVariable = "LOCKSTEP_CLUSTER_TEST_CHILD"

func TestMain(m *testing.M) {
	if dir := os.Getenv(childVariable); dir != "" {
		if err := child(dir); err != nil {
			fmt.Fprintln(os.Stdout, "error:", err)
			os.Exit(1)
		}
		return
	}
	goleak.VerifyTestMain(m)
}

func child(dir string) error {
	c, err := Start(context.Background(), Config{Dir: dir})
	if err != nil {
		return err
	}
	fmt.Fprintln(os.Stdout, "ready", c.proc.cmd.Process.Pid)
	_, _ = io.Copy(io.Discard, os.Stdin)
	return c.Stop(context.Background())
}

// holder is a child process with a running cluster.
type holder struct {
	cmd        *exec.Cmd
	stdin      io.Closer
	postmaster int
}

// hold starts a child on the directory, as uid if that is not our own, and waits
// until its cluster runs.
func hold(t *testing.T, dir, binary string, uid int) (holder, error) {
	t.Helper()
	cmd := exec.Command(binary)
	cmd.Dir = "/"
	cmd.Env = append(os.Environ(), childVariable+"="+dir)
	if uid != os.Geteuid() {
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uint32(uid), Gid: uint32(uid)}}
	}
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill() // it may be gone
		_ = cmd.Wait()
	})
	lines := bufio.NewScanner(stdout)
	var text strings.Builder
	for lines.Scan() {
		if rest, ok := strings.CutPrefix(lines.Text(), "ready "); ok {
			pid, err := strconv.Atoi(rest)
			return holder{cmd: cmd, stdin: stdin, postmaster: pid}, err
		}
		text.WriteString(lines.Text() + "\n")
	}
	return holder{}, errors.New(text.String())
}

// self returns the path of the test binary.
func self(t *testing.T) string {
	t.Helper()
	path, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	return path
}

// start starts a cluster for the test and stops it at its end.
func start(t *testing.T, cfg Config) *Cluster {
	t.Helper()
	c, err := Start(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { stop(t, c) })
	return c
}

func stop(t *testing.T, c *Cluster) {
	t.Helper()
	if err := c.Stop(context.Background()); err != nil {
		t.Error(err)
	}
}

// quick is a configuration without fsync, for tests that do not cut the power.
func quick(dir string) Config {
	return Config{Dir: dir, Settings: map[string]string{"fsync": "off", "shared_buffers": "16MB"}}
}

// query runs one statement and returns the first column of its first row.
func query(t *testing.T, url, sql string) string {
	t.Helper()
	got, err := tryQuery(t.Context(), url, sql)
	if err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
	return got
}

func tryQuery(ctx context.Context, url, sql string) (string, error) {
	conn, err := pgx.Connect(ctx, url)
	if err != nil {
		return "", err
	}
	defer conn.Close(ctx)
	result, err := conn.PgConn().Exec(ctx, sql).ReadAll()
	if err != nil {
		return "", err
	}
	if len(result) == 0 || len(result[0].Rows) == 0 {
		return "", nil
	}
	return string(result[0].Rows[0][0]), nil
}

// eventually waits until cond holds. (pgtest is built on this package.)
func eventually(t *testing.T, within time.Duration, what string, cond func() bool) {
	t.Helper()
	deadline := time.NewTimer(within)
	defer deadline.Stop()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for !cond() {
		select {
		case <-deadline.C:
			t.Fatalf("not within %s: %s", within, what)
		case <-tick.C:
		}
	}
}

// gone says whether a process has ended; a zombie has.
func gone(pid int) bool {
	stat, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "stat"))
	if err != nil {
		return errors.Is(syscall.Kill(pid, 0), syscall.ESRCH)
	}
	_, rest, _ := strings.Cut(string(stat), ") ")
	return strings.HasPrefix(rest, "Z")
}

// needRoot skips tests of what only root meets: the change of user. Everybody else
// runs Postgres as himself, which every other test covers.
func needRoot(t *testing.T) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root: it is about the change of user that only root makes")
	}
}
