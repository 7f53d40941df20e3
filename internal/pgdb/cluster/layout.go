package cluster

import (
	"bytes"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"lockstep"
)

const dataName = "data"

// longestSocket is the longest path of a Unix socket: sun_path is 108 bytes with
// its final zero (unix(7)).
const longestSocket = 107

// layout is what lies where in a cluster's directory.
type layout struct {
	dir       string // absolute, links followed
	socketDir string
	temporary bool // socketDir lies outside dir and goes when Postgres stops
}

func newLayout(dir string) (layout, error) {
	if dir == "" {
		return layout{}, fmt.Errorf("the private Postgres needs a directory: %w", lockstep.ErrInvalid)
	}
	dir, err := filepath.Abs(dir)
	if err == nil {
		// Postgres' user has to pass through, and sees no more than its own data.
		err = os.MkdirAll(dir, 0o711)
	}
	if err == nil {
		dir, err = filepath.EvalSymlinks(dir)
	}
	if err != nil {
		return layout{}, fmt.Errorf("create the directory of the private Postgres: %w: choose a data_dir that this user may write to: %w", err, lockstep.ErrEnvironment)
	}
	return layout{dir: dir}, nil
}

func (l *layout) data() string         { return filepath.Join(l.dir, dataName) }
func (l *layout) unfinished() string   { return filepath.Join(l.dir, dataName+".new") }
func (l *layout) pidFile() string      { return filepath.Join(l.data(), "postmaster.pid") }
func (l *layout) logFile() string      { return filepath.Join(l.dir, "postgres.log") }
func (l *layout) portFile() string     { return filepath.Join(l.dir, "port") }
func (l *layout) passwordFile() string { return filepath.Join(l.dir, "password") }

// version returns the major version that made the data directory; 0 for none.
func (l *layout) version() (int, error) {
	text, err := os.ReadFile(filepath.Join(l.data(), "PG_VERSION"))
	if err == nil {
		major, err := strconv.Atoi(strings.TrimSpace(string(text)))
		if err != nil {
			return 0, fmt.Errorf("%s/PG_VERSION holds %q, not the version of a Postgres: restore it, or move the directory away: %w",
				l.data(), text, lockstep.ErrInvalid)
		}
		return major, nil
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return 0, fmt.Errorf("read the version of the private Postgres: %w: %w", err, lockstep.ErrEnvironment)
	}
	entries, err := os.ReadDir(l.data())
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return 0, fmt.Errorf("read the private Postgres' directory: %w: %w", err, lockstep.ErrEnvironment)
	}
	if len(entries) > 0 {
		return 0, fmt.Errorf("%s is not empty and not a Postgres data directory (it has no PG_VERSION): choose another data_dir, or move it away: %w",
			l.data(), lockstep.ErrInvalid)
	}
	return 0, nil
}

// chooseSocketDir makes the directory of the Unix socket: below the cluster's
// directory if the path is short enough and open to Postgres' user, else below
// the temporary directory. Only Postgres' user and root can enter it.
func (l *layout) chooseSocketDir(a account) error {
	sum := sha256.Sum256([]byte(l.dir))
	short := fmt.Sprintf("lockstep-pg-%d-%s", a.uid, hex.EncodeToString(sum[:6]))
	own := filepath.Join(l.dir, "run")
	var last error
	for _, dir := range []string{own, filepath.Join(os.TempDir(), short), filepath.Join("/tmp", short)} {
		// A comma separates directories, in Postgres' setting and in a client's host.
		if len(dir)+len("/.s.PGSQL.65535") > longestSocket || strings.Contains(dir, ",") || a.closedParent(filepath.Dir(dir)) != "" {
			continue
		}
		if last = ensurePrivate(dir, a); last == nil {
			l.socketDir, l.temporary = dir, dir != own
			return nil
		}
	}
	if last == nil {
		last = errors.New("every candidate is too long or closed to Postgres' user " + a.name)
	}
	return fmt.Errorf("find a place for the socket of the private Postgres: %w: set TMPDIR to a short directory that is open to all: %w", last, lockstep.ErrEnvironment)
}

// ensurePrivate makes dir a directory of mode 0700 that belongs to the account.
// What somebody else put in its place is refused: /tmp is open to all.
func ensurePrivate(dir string, a account) error {
	err := os.Mkdir(dir, 0o700)
	if err == nil {
		return a.give(dir)
	}
	if !errors.Is(err, fs.ErrExist) {
		return err
	}
	info, err := os.Lstat(dir)
	if err != nil {
		return err
	}
	if !info.IsDir() {
		return fmt.Errorf("%s is in the way: it is not a directory", dir)
	}
	owner, _, err := ownerOf(dir)
	if err != nil {
		return err
	}
	if owner.uid != a.uid && owner.uid != uint32(os.Geteuid()) {
		return fmt.Errorf("%s is in the way: it belongs to user %s", dir, owner.name)
	}
	if err := os.Chmod(dir, 0o700); err != nil {
		return err
	}
	return a.give(dir)
}

// removeSocketDir removes a socket directory outside the cluster's directory.
func (l *layout) removeSocketDir() {
	if l.temporary {
		_ = os.RemoveAll(l.socketDir) // best effort: it holds nothing of worth
	}
}

// readPassword returns the password for TCP, or a fresh one that nobody knows yet.
func (l *layout) readPassword() (password string, fresh bool, err error) {
	text, err := os.ReadFile(l.passwordFile())
	if password = strings.TrimSpace(string(text)); err == nil && password != "" {
		return password, false, nil
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return "", false, fmt.Errorf("read the password of the private Postgres: %w: %w", err, lockstep.ErrEnvironment)
	}
	var secret [24]byte
	_, _ = rand.Read(secret[:]) // never fails since Go 1.24
	return base64.RawURLEncoding.EncodeToString(secret[:]), true, nil
}

// writeSmall replaces a file of the directory as a whole, with mode 0600.
func writeSmall(path, text string) error {
	if err := os.WriteFile(path+".new", []byte(text+"\n"), 0o600); err != nil {
		return err
	}
	return os.Rename(path+".new", path)
}

// keptPort returns the port of the last run; 0 for none.
func (l *layout) keptPort() int {
	text, err := os.ReadFile(l.portFile())
	if err != nil {
		return 0
	}
	port, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil || port < 1 || port > 65535 {
		return 0 // a damaged file costs a new port, no more
	}
	return port
}

// logSize returns where the next line of Postgres' log will go.
func (l *layout) logSize() int64 {
	info, err := os.Stat(l.logFile())
	if err != nil {
		return 0
	}
	return info.Size()
}

// logTail returns the last lines that Postgres has logged since from, indented.
func (l *layout) logTail(from int64) string {
	const most = 4096
	f, err := os.Open(l.logFile())
	if err != nil {
		return "  (no log: " + err.Error() + ")"
	}
	defer f.Close()
	if size := l.logSize(); size-from > most {
		from = size - most
	}
	text := make([]byte, most)
	n, _ := f.ReadAt(text, from) // io.EOF is the usual end
	lines := strings.Split(strings.TrimSpace(string(text[:n])), "\n")
	lines = lines[max(0, len(lines)-10):]
	return "  " + strings.Join(lines, "\n  ")
}

// trimLog keeps the log below 16 MB: what is older than its last MB is dropped.
// Postgres appends to the open file, so it is shortened in place, not renamed.
func (l *layout) trimLog() {
	const most, kept = 16 << 20, 1 << 20
	size := l.logSize()
	if size < most {
		return
	}
	f, err := os.OpenFile(l.logFile(), os.O_RDWR|os.O_APPEND, 0o600)
	if err != nil {
		return // the log is a help, not a duty
	}
	defer f.Close()
	tail := make([]byte, kept)
	n, _ := f.ReadAt(tail, size-kept)
	_, whole, _ := bytes.Cut(tail[:n], []byte("\n"))
	if f.Truncate(0) == nil {
		_, _ = f.Write(whole)
	}
}
