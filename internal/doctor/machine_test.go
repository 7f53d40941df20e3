package doctor_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"lockstep"
	"lockstep/internal/config"
	"lockstep/internal/doctor"
)

// childVariable makes this test binary examine the data directory that it names, as
// the user and with the limits that it was started with, and write the report.
const childVariable = "LOCKSTEP_DOCTOR_CHILD"

func child() int {
	c := config.Default()
	c.DataDir = os.Getenv(childVariable)
	c.Databases[0].URL = "postgres://nobody@127.0.0.1:1/none"
	r := doctor.Run(context.Background(), doctor.Options{Config: c}.Quick())
	if err := json.NewEncoder(os.Stdout).Encode(r); err != nil {
		return 1
	}
	return 0
}

// inChild examines the directory in a process of another user; prefix is a shell
// command that is run before.
func inChild(t testing.TB, dir, prefix string, user *syscall.Credential) doctor.Report {
	t.Helper()
	// Under root the test's own binary lies where only root gets at it.
	place := open(t)
	binary, err := os.ReadFile("/proc/self/exe")
	if err != nil {
		t.Skipf("this system does not show a process its own program: %v", err)
	}
	program := filepath.Join(place, "doctor.test")
	if err := os.WriteFile(program, binary, 0o755); err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), "/bin/sh", "-c", prefix+` exec "$0"`, program)
	cmd.Env = append(os.Environ(), childVariable+"="+dir)
	cmd.Dir = place
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: user}
	var said bytes.Buffer
	cmd.Stderr = &said
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%v\n%s", err, said.String())
	}
	var r doctor.Report
	if err := json.Unmarshal(out, &r); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return r
}

// open returns a directory that every user can pass through.
func open(t testing.TB) string {
	t.Helper()
	dir := t.TempDir()
	for _, d := range []string{filepath.Dir(dir), dir} {
		if err := os.Chmod(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// offline is a configuration that needs no server.
func offline(t testing.TB) *config.Config { return configure(t, "postgres://nobody@127.0.0.1:1/none") }

func TestADataDirectoryOfAnotherUser(t *testing.T) {
	t.Parallel()
	if os.Getuid() != 0 {
		t.Skip("becoming another user needs root")
	}
	dir := open(t)
	if err := os.Chmod(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	c := offline(t)
	nobody := &syscall.Credential{Uid: 65534, Gid: 65534}
	r := inChild(t, dir, "", nobody)
	want(t, r, "data_dir", doctor.Fail, dir+" belongs to root, and nobody may not write to it", "chown -R nobody "+dir, "run the node as root", "data_dir")
	want(t, r, "data_sync", doctor.Skip, "permission denied")

	if err := os.Chown(dir, 65534, 65534); err != nil {
		t.Fatal(err)
	}
	want(t, inChild(t, dir, "", nobody), "data_dir", doctor.Pass)
	c.DataDir = dir
	want(t, run(t, c), "data_dir", doctor.Warn, "belongs to nobody, and this is root", "chown -R root")

	if err := os.Chmod(dir, 0o500); err != nil {
		t.Fatal(err)
	}
	want(t, inChild(t, dir, "", nobody), "data_dir", doctor.Fail, "nobody may not write to", "chmod u+rwx")
}

func TestFewFilesMayBeOpen(t *testing.T) {
	t.Parallel()
	want(t, inChild(t, t.TempDir(), "ulimit -n 200;", nil), "open_files", doctor.Fail, "at most 200", "LimitNOFILE=65536")
	want(t, inChild(t, t.TempDir(), "ulimit -n 1000;", nil), "open_files", doctor.Warn, "at most 1000", "ulimit -n 65536")
}

func TestDataDirectoriesThatCannotBe(t *testing.T) {
	t.Parallel()
	c := offline(t)
	base := c.DataDir
	c.DataDir = filepath.Join(base, "a", "b")
	// However busy the disk is.
	r := doctor.Run(t.Context(), doctor.Options{Config: c}.Quick().SlowSync(time.Minute))
	want(t, r, "data_dir", doctor.Pass, "is not there yet; it can be made")
	want(t, r, "data_sync", doctor.Pass, "one durable write takes")
	if left, err := os.ReadDir(base); err != nil || len(left) != 0 {
		t.Errorf("something was left behind: %v, %v", left, err)
	}

	c.DataDir = filepath.Join(base, "file")
	if err := os.WriteFile(c.DataDir, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	r = run(t, c)
	want(t, r, "data_dir", doctor.Fail, "is not a directory", "mv ")
	if !errors.Is(r.Err(), lockstep.ErrEnvironment) {
		t.Errorf("the error is not of the environment: %v", r.Err())
	}
}

// mounted makes a file system in memory and returns its directory.
func mounted(t testing.TB, options string) string {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("a file system of one's own needs root")
	}
	dir := t.TempDir()
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, options); err != nil {
		t.Skipf("no file system can be mounted here: %v", err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(dir, 0); err != nil {
			t.Error(err)
		}
	})
	return dir
}

func TestDisks(t *testing.T) {
	t.Parallel()
	t.Run("full", func(t *testing.T) {
		t.Parallel()
		c := offline(t)
		c.DataDir = mounted(t, "size=1m")
		f, err := os.Create(filepath.Join(c.DataDir, "ballast"))
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		if _, err := io.Copy(f, io.LimitReader(zeros{}, 2<<20)); !errors.Is(err, syscall.ENOSPC) {
			t.Fatalf("the disk is not full: %v", err)
		}
		r := run(t, c)
		want(t, r, "data_space", doctor.Fail, "0 B of 1 MB are free", "du -xh", "retention")
		want(t, r, "data_sync", doctor.Fail, "no space left", "dmesg")
	})
	t.Run("nearly full, and in memory", func(t *testing.T) {
		t.Parallel()
		c := offline(t)
		c.DataDir = mounted(t, "size=1g")
		r := run(t, c)
		want(t, r, "data_space", doctor.Warn, "1 GB of 1 GB are free", "du -xh")
		want(t, r, "data_filesystem", doctor.Warn, "is in memory")
	})
	t.Run("smaller than what the stream may grow to", func(t *testing.T) {
		t.Parallel()
		c := offline(t)
		c.DataDir = mounted(t, "size=4g")
		c.Stream.Retention.Bytes = 50 << 30
		want(t, run(t, c), "data_space", doctor.Warn, "the streams may grow to 50 GB", "stream: {retention: {bytes: 2GB}}")
	})
	t.Run("without inodes", func(t *testing.T) {
		t.Parallel()
		c := offline(t)
		c.DataDir = mounted(t, "nr_inodes=50")
		want(t, run(t, c), "data_inodes", doctor.Fail, "of 50 inodes are free", "du -x --inodes")
		c.DataDir = mounted(t, "nr_inodes=1000")
		want(t, run(t, c), "data_inodes", doctor.Warn, "of 1000 inodes are free")
	})
	t.Run("read-only", func(t *testing.T) {
		t.Parallel()
		c := offline(t)
		c.DataDir = mounted(t, "size=1g")
		if err := syscall.Mount("tmpfs", c.DataDir, "tmpfs", syscall.MS_REMOUNT|syscall.MS_RDONLY, "size=1g"); err != nil {
			t.Fatal(err)
		}
		r := run(t, c)
		want(t, r, "data_dir", doctor.Fail, "mounted read-only", "remount,rw")
		if !errors.Is(r.Err(), lockstep.ErrEnvironment) {
			t.Errorf("the error is not of the environment: %v", r.Err())
		}
	})
	t.Run("slow", func(t *testing.T) {
		t.Parallel()
		r := doctor.Run(t.Context(), doctor.Options{Config: offline(t)}.Quick().SlowSync(time.Nanosecond))
		want(t, r, "data_sync", doctor.Warn, "one durable write takes", "SSD")
	})
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) { return len(p), nil }

func TestSecretFilesThatOthersCanRead(t *testing.T) {
	t.Parallel()
	c := offline(t)
	key := filepath.Join(c.DataDir, "key")
	if err := os.WriteFile(key, make([]byte, 32), 0o600); err != nil {
		t.Fatal(err)
	}
	want(t, run(t, c), "data_files", doctor.Pass)
	if err := os.Chmod(key, 0o644); err != nil {
		t.Fatal(err)
	}
	want(t, run(t, c), "data_files", doctor.Fail, "has mode 0644", "chmod 600 "+key)
	if err := errors.Join(os.Chmod(key, 0o600), os.WriteFile(key, []byte("short"), 0o600)); err != nil {
		t.Fatal(err)
	}
	want(t, run(t, c), "data_files", doctor.Fail, "has 5 bytes, not 32", "rm "+key)
}

func TestARunningNodeIsNoFault(t *testing.T) {
	t.Parallel()
	listener, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	c := offline(t)
	c.Listen = listener.Addr().String()
	r := run(t, c)
	want(t, r, "data_lock", doctor.Pass, "no node runs here")
	want(t, r, "port", doctor.Fail, "in use by another program", "ss -ltnp")
	hold(t, c.DataDir)
	r = run(t, c)
	want(t, r, "data_lock", doctor.Pass, "a node runs here: process "+strconv.Itoa(os.Getpid()))
	want(t, r, "port", doctor.Pass, "in use, by the node that runs here")
	o := doctor.Options{Config: offline(t), Online: true}.Quick()
	r = doctor.Run(t.Context(), o)
	want(t, r, "data_lock", doctor.Pass, "this node holds the lock")
	want(t, r, "data_sync", doctor.Skip, "while the node runs")
}

func TestAddresses(t *testing.T) {
	t.Parallel()
	c := offline(t)
	c.Listen = "0.0.0.0:0"
	want(t, run(t, c), "listen", doctor.Fail, "can be reached from outside", "tokens:")
	c.Tokens = []config.Token{{Name: "ci", Token: "tok-5678", Scopes: []string{"read"}}}
	r := run(t, c)
	want(t, r, "listen", doctor.Warn, "tokens travel there unencrypted", "proxy with TLS")
	want(t, r, "tokens", doctor.Warn, "fewer than 16 characters: ci", "openssl rand")
	c.Listen = "192.0.2.1:7300" // an address of documentation (RFC 5737)
	want(t, run(t, c), "port", doctor.Fail, "192.0.2.1 is not an address of this machine")
	c.Listen = "127.0.0.1:0"
	want(t, run(t, c), "listen", doctor.Pass)
}

func TestTheEncryptionKey(t *testing.T) {
	t.Parallel()
	c := offline(t)
	want(t, run(t, c), "encryption_key", doctor.Skip, "LOCKSTEP_KEY is not set")
	c.Key = config.Secret(strings.Repeat("k", 32))
	want(t, run(t, c), "encryption_key", doctor.Warn, "not random", "openssl rand -base64 32")
	c.Key = "0123456789abcdefghijklmnopqrstuv"
	want(t, run(t, c), "encryption_key", doctor.Pass)
}

func TestAPrivatePostgres(t *testing.T) {
	t.Parallel()
	c := configure(t, "")
	place := open(t)
	c.DataDir = filepath.Join(place, "data")
	want(t, run(t, c), "binaries", doctor.Pass, "PostgreSQL ")
	want(t, run(t, c), "connect", doctor.Skip, "does not run now")

	made := filepath.Join(c.DataDir, "postgres", "data")
	if err := errors.Join(os.MkdirAll(made, 0o755), os.WriteFile(filepath.Join(made, "PG_VERSION"), []byte("9\n"), 0o644)); err != nil {
		t.Fatal(err)
	}
	want(t, run(t, c), "binaries_version", doctor.Fail, "was made by PostgreSQL 9", "LOCKSTEP_PG_BIN=")

	if os.Getuid() == 0 {
		if err := os.Chmod(place, 0o700); err != nil {
			t.Fatal(err)
		}
		want(t, run(t, c), "binaries_access", doctor.Fail, "to whom "+place+" is closed", "chmod o+x "+place)
	}
	c.PGBin = "/nowhere"
	r := run(t, c)
	want(t, r, "binaries", doctor.Fail, "no program postgres in /nowhere", "apt-get install postgresql", "LOCKSTEP_PG_BIN")
	want(t, r, "binaries_version", doctor.Skip)
	if !errors.Is(r.Err(), lockstep.ErrEnvironment) {
		t.Errorf("the error is not of the environment: %v", r.Err())
	}
}
