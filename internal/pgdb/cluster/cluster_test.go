package cluster

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"lockstep"
)

func TestDataPortAndPasswordOutliveAStop(t *testing.T) {
	t.Parallel()
	cfg := quick(t.TempDir())
	c := start(t, cfg)
	query(t, c.URL("postgres"), "CREATE TABLE kept AS SELECT 42 AS n")
	before, local := c.TCPURL("postgres"), c.URL("postgres")
	stop(t, c)

	c = start(t, cfg)
	if got := query(t, before, "SELECT n FROM kept"); got != "42" {
		t.Errorf("over TCP the row is %q, want 42", got)
	}
	if c.TCPURL("postgres") != before || c.URL("postgres") != local {
		t.Error("the URLs changed over a restart")
	}
	if got := query(t, c.URL("postgres"), "SHOW wal_level"); got != "logical" {
		t.Errorf("wal_level is %q, want logical", got)
	}
}

func TestOnlyThoseWithThePasswordGetInByTCP(t *testing.T) {
	t.Parallel()
	c := start(t, quick(t.TempDir()))
	for _, password := range []string{"", "wrong"} {
		u, err := url.Parse(c.TCPURL("postgres"))
		if err != nil {
			t.Fatal(err)
		}
		u.User = url.UserPassword("postgres", password)
		if _, err := tryQuery(t.Context(), u.String(), "SELECT 1"); err == nil {
			t.Errorf("password %q was taken", password)
		}
	}
	for path, want := range map[string]os.FileMode{c.SocketDir(): 0o700, c.lay.passwordFile(): 0o600, c.lay.data(): 0o700, c.lay.logFile(): 0o600} {
		info, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		if info.Mode().Perm() != want {
			t.Errorf("%s has mode %o, want %o", path, info.Mode().Perm(), want)
		}
	}
}

func TestALostPasswordFileIsMadeAnew(t *testing.T) {
	t.Parallel()
	cfg := quick(t.TempDir())
	c := start(t, cfg)
	before := c.TCPURL("postgres")
	stop(t, c)
	if err := os.Remove(c.lay.passwordFile()); err != nil {
		t.Fatal(err)
	}
	c = start(t, cfg)
	query(t, c.TCPURL("postgres"), "SELECT 1")
	if _, err := tryQuery(t.Context(), before, "SELECT 1"); err == nil {
		t.Error("the lost password still works")
	}
}

func TestPostgresRunsUnprivilegedInASessionOfItsOwn(t *testing.T) {
	t.Parallel()
	c := start(t, quick(t.TempDir()))
	pid := c.proc.cmd.Process.Pid
	info, err := os.Stat(filepath.Join("/proc", strconv.Itoa(pid)))
	if err != nil {
		t.Skip("no /proc here: nobody tells whose a process is")
	}
	if uid := info.Sys().(*syscall.Stat_t).Uid; uid == 0 || uid != c.account.uid {
		t.Errorf("Postgres runs as uid %d, want %d", uid, c.account.uid)
	}
	// A Ctrl-C at the terminal goes to our process group, and must not reach it.
	if group, err := syscall.Getpgid(pid); err != nil || group != pid {
		t.Errorf("Postgres is in process group %d (%v), want its own, %d", group, err, pid)
	}
}

func TestASecondClusterOnOneDirectoryIsRefused(t *testing.T) {
	t.Parallel()
	cfg := quick(t.TempDir())
	c := start(t, cfg)
	_, err := Start(t.Context(), cfg)
	if !errors.Is(err, lockstep.ErrConflict) || !strings.Contains(err.Error(), fmt.Sprintf("process %d", os.Getpid())) {
		t.Errorf("the second start gave %v, want ErrConflict with our pid", err)
	}
	query(t, c.URL("postgres"), "SELECT 1") // and did no harm to the first
}

func TestOfManyAtOnceOneWins(t *testing.T) {
	t.Parallel()
	cfg := quick(t.TempDir())
	const many = 5
	clusters, errs := make([]*Cluster, many), make([]error, many)
	var wg sync.WaitGroup
	for i := range many {
		wg.Go(func() { clusters[i], errs[i] = Start(t.Context(), cfg) })
	}
	wg.Wait()
	won := 0
	for i, c := range clusters {
		if c != nil {
			won++
			t.Cleanup(func() { stop(t, c) })
		} else if !errors.Is(errs[i], lockstep.ErrConflict) {
			t.Errorf("a loser got %v, want ErrConflict", errs[i])
		}
	}
	if won != 1 {
		t.Errorf("%d starts won, want 1", won)
	}
}

func TestKilledPostgresRestartsWithWhatWasCommitted(t *testing.T) {
	t.Parallel()
	for name, kill := range map[string]func(*Cluster) error{"Kill": (*Cluster).Kill, "KillHard": (*Cluster).KillHard} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := start(t, quick(t.TempDir()))
			query(t, c.URL("postgres"), "CREATE TABLE kept AS SELECT 42 AS n")
			busy := keepBusy(t, c)
			if err := kill(c); err != nil {
				t.Fatal(err)
			}
			if _, err := tryQuery(t.Context(), c.URL("postgres"), "SELECT 1"); err == nil {
				t.Fatal("Postgres still answers")
			}
			before := c.URL("postgres")
			if err := c.Restart(t.Context()); err != nil {
				t.Fatal(err)
			}
			if got := query(t, before, "SELECT n FROM kept"); got != "42" {
				t.Errorf("the row is %q, want 42", got)
			}
			<-busy
		})
	}
}

// keepBusy makes a backend work for minutes without ever waiting, which is how it
// outlives its postmaster. The channel closes when it has ended.
func keepBusy(t *testing.T, c *Cluster) <-chan struct{} {
	t.Helper()
	done := make(chan struct{})
	go func() {
		defer close(done)
		_, _ = tryQuery(context.Background(), c.URL("postgres"), "SELECT sum(a.i + b.i) FROM generate_series(1, 100000) a(i), generate_series(1, 100000) b(i)")
	}()
	eventually(t, 10*time.Second, "a backend is busy", func() bool {
		return query(t, c.URL("postgres"), "SELECT count(*) FROM pg_stat_activity WHERE state = 'active' AND query LIKE 'SELECT sum%'") == "1"
	})
	return done
}

func TestRunStartsAPostgresThatEndedByItself(t *testing.T) {
	t.Parallel()
	c := start(t, quick(t.TempDir()))
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- c.Run(ctx) }()
	if err := c.proc.cmd.Process.Signal(sigQuit); err != nil {
		t.Fatal(err)
	}
	eventually(t, 20*time.Second, "Postgres answers again", func() bool {
		got, err := tryQuery(ctx, c.URL("postgres"), "SELECT pg_postmaster_start_time()")
		return err == nil && got != ""
	})
	if err := c.Kill(); err != nil { // asked for: Run leaves it
		t.Fatal(err)
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
	if c.proc.alive() {
		t.Error("Run started a Postgres that was killed on purpose")
	}
}

func TestStopIsFinal(t *testing.T) {
	t.Parallel()
	c := start(t, quick(t.TempDir()))
	stop(t, c)
	stop(t, c)
	if err := c.Restart(t.Context()); !errors.Is(err, lockstep.ErrConflict) {
		t.Errorf("Restart after Stop gave %v, want ErrConflict", err)
	}
	if err := c.Kill(); !errors.Is(err, lockstep.ErrConflict) {
		t.Errorf("Kill after Stop gave %v, want ErrConflict", err)
	}
}

func TestStopDoesNotWaitForClients(t *testing.T) {
	t.Parallel()
	c := start(t, quick(t.TempDir()))
	busy := make(chan error, 1)
	go func() {
		_, err := tryQuery(context.Background(), c.URL("postgres"), "SELECT pg_sleep(3600)")
		busy <- err
	}()
	eventually(t, 10*time.Second, "the client is busy", func() bool {
		return query(t, c.URL("postgres"), "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep'") == "1"
	})
	stop(t, c)
	if err := <-busy; err == nil {
		t.Error("the client was not disconnected")
	}
}

func TestOddPathsWork(t *testing.T) {
	t.Parallel()
	for name, sub := range map[string]string{
		"long":           strings.Repeat("long/", 30) + "end",
		"blank":          "with blank's \"quotes\"",
		"comma":          "a,b=c",
		"not ASCII":      "größe/数据",
		"percent":        "100%2F;#?&",
		"through a link": "",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := filepath.Join(t.TempDir(), sub)
			if sub == "" {
				target := t.TempDir()
				dir = filepath.Join(dir, "link")
				if err := os.Symlink(target, dir); err != nil {
					t.Fatal(err)
				}
			}
			c := start(t, quick(dir))
			if got := query(t, c.URL("postgres"), "SELECT 1"); got != "1" {
				t.Errorf("got %q", got)
			}
			sockets := c.SocketDir()
			stop(t, c)
			if _, err := os.Stat(sockets); err == nil && c.lay.temporary {
				t.Errorf("%s is left behind", sockets)
			}
		})
	}
}

func TestPortInUse(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	taken := l.Addr().(*net.TCPAddr).Port

	t.Run("the configured one is refused", func(t *testing.T) {
		cfg := quick(t.TempDir())
		cfg.Port = taken
		_, err := Start(t.Context(), cfg)
		if !errors.Is(err, lockstep.ErrConflict) || !strings.Contains(err.Error(), fmt.Sprintf("port %d", taken)) {
			t.Errorf("got %v, want ErrConflict naming the port", err)
		}
	})
	t.Run("the one of the last run is replaced", func(t *testing.T) {
		cfg := quick(t.TempDir())
		if err := os.WriteFile(filepath.Join(cfg.Dir, "port"), fmt.Append(nil, taken, "\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		c := start(t, cfg)
		if c.Port() == taken {
			t.Error("the taken port was kept")
		}
		query(t, c.TCPURL("postgres"), "SELECT 1")
	})
}

func TestCreateDatabaseTwiceAndAtOnce(t *testing.T) {
	t.Parallel()
	c := start(t, quick(t.TempDir()))
	const name = `we "ird", näme`
	errs := make([]error, 4)
	var wg sync.WaitGroup
	for i := range errs {
		wg.Go(func() { errs[i] = c.CreateDatabase(t.Context(), name) })
	}
	wg.Wait()
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
	if err := c.CreateDatabase(t.Context(), name); err != nil {
		t.Error(err)
	}
	if got := query(t, c.URL(name), "SELECT current_database()"); got != name {
		t.Errorf("connected to %q, want %q", got, name)
	}
}

func TestTheLogHoldsNoValues(t *testing.T) {
	t.Parallel()
	c := start(t, quick(t.TempDir()))
	_, err := tryQuery(t.Context(), c.URL("postgres"), `
		CREATE TABLE people (email text PRIMARY KEY);
		INSERT INTO people VALUES ('secret@example.com'), ('secret@example.com')`)
	if err == nil {
		t.Fatal("the duplicate was taken")
	}
	text, err := os.ReadFile(c.lay.logFile())
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(text), "duplicate key") || strings.Contains(string(text), "secret@") {
		t.Errorf("want the error without the value; the log is\n%s", text)
	}
}

func TestTrimLogKeepsTheEnd(t *testing.T) {
	t.Parallel()
	lay := layout{dir: t.TempDir()}
	line := strings.Repeat("x", 1023) + "\n"
	if err := os.WriteFile(lay.logFile(), []byte(strings.Repeat(line, 17<<10)+"the end\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	lay.trimLog()
	text, err := os.ReadFile(lay.logFile())
	if err != nil {
		t.Fatal(err)
	}
	if len(text) > 1<<20 || !strings.HasSuffix(string(text), line+"the end\n") || !strings.HasPrefix(string(text), line) {
		t.Errorf("%d bytes are left, want whole lines of the last MB", len(text))
	}
}
