package cluster

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"lockstep"
)

func TestPostgresEndsWithAKilledParent(t *testing.T) {
	t.Parallel()
	if runtime.GOOS != "linux" {
		t.Skip("only Linux has a death signal; elsewhere the next start stops the leftover")
	}
	dir := t.TempDir()
	h, err := hold(t, dir, self(t), os.Geteuid())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Start(t.Context(), quick(dir)); !errors.Is(err, lockstep.ErrConflict) || !strings.Contains(err.Error(), fmt.Sprintf("process %d", h.cmd.Process.Pid)) {
		t.Fatalf("a start beside another process gave %v, want ErrConflict with its pid", err)
	}
	if err := h.cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	eventually(t, 20*time.Second, "Postgres has ended", func() bool { return gone(h.postmaster) })
	stop(t, start(t, quick(dir))) // removes the socket's directory, which a killed process cannot
}

func TestStartRightAfterAKilledParentFindsWhatWasCommitted(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	for round := range 3 {
		h, err := hold(t, dir, self(t), os.Geteuid())
		if err != nil {
			t.Fatal(err)
		}
		lay, err := newLayout(dir)
		if err != nil {
			t.Fatal(err)
		}
		a, err := accountFor(lay.data())
		if err != nil {
			t.Fatal(err)
		}
		if err := lay.chooseSocketDir(a); err != nil {
			t.Fatal(err)
		}
		seen := &Cluster{lay: lay, port: lay.keptPort()}
		query(t, seen.URL("postgres"), fmt.Sprintf("CREATE TABLE round_%d ()", round))
		if err := h.cmd.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		_ = h.cmd.Wait() // killed: the error is the point
	}
	c := start(t, Config{Dir: dir})
	if got := query(t, c.URL("postgres"), "SELECT count(*) FROM pg_tables WHERE tablename LIKE 'round%'"); got != "3" {
		t.Errorf("%s of 3 tables are there", got)
	}
}

// TestStalePIDFileOfALivingProcess is what a container meets: after a crash the
// postmaster's number belongs to another process of the same user.
func TestStalePIDFileOfALivingProcess(t *testing.T) {
	t.Parallel()
	cfg := quick(t.TempDir())
	c := start(t, cfg)
	stop(t, c)

	other := exec.Command("cat")
	stdin, err := other.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	other.Stdout = io.Discard
	c.confine(other, held{})
	p := run(other)
	if !p.alive() {
		t.Fatal(p.err)
	}
	defer func() { _ = stdin.Close(); <-p.done }()
	stale := fmt.Sprintf("%d\n%s\n1\n%d\n%s\n\n  1 1\nready\n", other.Process.Pid, c.lay.data(), c.port, c.lay.socketDir)
	if err := os.WriteFile(c.lay.pidFile(), []byte(stale), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := c.account.give(c.lay.pidFile()); err != nil {
		t.Fatal(err)
	}
	c = start(t, cfg)
	query(t, c.URL("postgres"), "SELECT 1")
	if !p.alive() {
		t.Error("the innocent process was stopped")
	}
}

func TestAnInterruptedInitdbIsRepeated(t *testing.T) {
	t.Parallel()
	cfg := quick(t.TempDir())
	half := filepath.Join(cfg.Dir, "data.new")
	if err := os.MkdirAll(filepath.Join(half, "base"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(half, "PG_VERSION"), []byte("15\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	c := start(t, cfg)
	query(t, c.URL("postgres"), "SELECT 1")
	if _, err := os.Stat(half); !os.IsNotExist(err) {
		t.Errorf("%s is still there", half)
	}
}

func TestStartErrorsSayWhatToDo(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name  string
		spoil func(t *testing.T, cfg *Config)
		kind  error
		says  []string
	}{
		{"no directory named", func(_ *testing.T, cfg *Config) { cfg.Dir = "" }, lockstep.ErrInvalid, []string{"needs a directory"}},
		{"not writable", func(_ *testing.T, cfg *Config) { cfg.Dir = "/dev/null/x" }, lockstep.ErrEnvironment, []string{"/dev/null", "choose a data_dir"}},
		{"no binaries", func(_ *testing.T, cfg *Config) { cfg.Bin = "/nonexistent" }, lockstep.ErrEnvironment, []string{"/nonexistent"}},
		{"another version", func(t *testing.T, cfg *Config) {
			stop(t, start(t, *cfg))
			write(t, filepath.Join(cfg.Dir, "data/PG_VERSION"), "9\n")
		}, lockstep.ErrEnvironment, []string{"PostgreSQL 9", "install PostgreSQL 9", BinVariable}},
		{"a damaged version", func(t *testing.T, cfg *Config) {
			mkdir(t, filepath.Join(cfg.Dir, "data"))
			write(t, filepath.Join(cfg.Dir, "data/PG_VERSION"), "banana")
		}, lockstep.ErrInvalid, []string{"banana", "restore it"}},
		{"somebody else's directory", func(t *testing.T, cfg *Config) {
			mkdir(t, filepath.Join(cfg.Dir, "data"))
			write(t, filepath.Join(cfg.Dir, "data/thesis.txt"), "…")
		}, lockstep.ErrInvalid, []string{"not empty", "choose another data_dir"}},
		{"a bad setting", func(_ *testing.T, cfg *Config) { cfg.Settings["shared_buffers"] = "banana" }, nil, []string{`invalid value for parameter "shared_buffers": "banana"`, "postgres.log"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			cfg := quick(t.TempDir())
			tc.spoil(t, &cfg)
			c, err := Start(t.Context(), cfg)
			if err == nil {
				stop(t, c)
				t.Fatal("it started")
			}
			if tc.kind != nil && !errors.Is(err, tc.kind) {
				t.Errorf("got %v, want a %v", err, tc.kind)
			}
			for _, s := range tc.says {
				if !strings.Contains(err.Error(), s) {
					t.Errorf("the error does not say %q: %v", s, err)
				}
			}
		})
	}
}

// TestAFailedStartReleasesTheDirectory: the next start, with the cause removed, works.
func TestAFailedStartReleasesTheDirectory(t *testing.T) {
	t.Parallel()
	cfg := quick(t.TempDir())
	bad := cfg
	bad.Settings = map[string]string{"max_connections": "banana"}
	if _, err := Start(t.Context(), bad); err == nil {
		t.Fatal("it started")
	}
	c := start(t, cfg)
	query(t, c.URL("postgres"), "SELECT 1")
}

func TestRootHandsACopiedDirectoryToPostgresUser(t *testing.T) {
	t.Parallel()
	needRoot(t)
	cfg := quick(t.TempDir())
	c := start(t, cfg)
	stop(t, c)
	if err := (account{other: true}).giveTree(c.lay.data()); err != nil { // to root
		t.Fatal(err)
	}
	c = start(t, cfg)
	query(t, c.URL("postgres"), "SELECT 1")
}

// TestOpenDirectoryUnderRoot: the temporary directories of the other tests have a
// parent that is closed to Postgres' user. Here Postgres gets there on foot.
func TestOpenDirectoryUnderRoot(t *testing.T) {
	t.Parallel()
	needRoot(t)
	dir := openDir(t)
	c := start(t, quick(dir))
	if got := query(t, c.URL("postgres"), "SHOW data_directory"); got != c.lay.data() {
		t.Errorf("the data directory is %s, want %s", got, c.lay.data())
	}
	if c.SocketDir() != filepath.Join(dir, "run") {
		t.Errorf("the socket is in %s, want it in %s", c.SocketDir(), dir)
	}
}

// openDir returns a temporary directory that every user may pass through.
func openDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "lockstep-cluster-test-") //nolint:usetesting // the parent of t.TempDir is closed to others
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) }) // the next boot clears what is left
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	return dir
}

func TestWithoutRoot(t *testing.T) {
	t.Parallel()
	needRoot(t) // to become somebody else
	open := openDir(t)
	binary := filepath.Join(open, "cluster.test") // where go puts it is closed to others
	text, err := os.ReadFile(self(t))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(binary, text, 0o755); err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(open, "theirs")
	mkdir(t, dir)
	if err := os.Chown(dir, nobody, nobody); err != nil {
		t.Fatal(err)
	}

	h, err := hold(t, dir, binary, nobody)
	if err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(fmt.Sprintf("/proc/%d", h.postmaster)); err != nil || info.Sys().(*syscall.Stat_t).Uid != nobody {
		t.Errorf("Postgres does not run as the user of its parent (%v)", err)
	}
	if err := h.stdin.Close(); err != nil {
		t.Fatal(err)
	}
	if err := h.cmd.Wait(); err != nil {
		t.Fatal("stop:", err)
	}

	t.Run("a directory of another user is refused", func(t *testing.T) {
		if err := os.Chown(filepath.Join(dir, "data"), 1, 1); err != nil {
			t.Fatal(err)
		}
		_, err := hold(t, dir, binary, nobody)
		if err == nil || !strings.Contains(err.Error(), "belongs to user") {
			t.Errorf("got %v, want the owner named", err)
		}
	})
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func mkdir(t *testing.T, path string) {
	t.Helper()
	if err := os.MkdirAll(path, 0o700); err != nil {
		t.Fatal(err)
	}
}
