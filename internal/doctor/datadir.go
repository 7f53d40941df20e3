package doctor

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// dataDir are the checks of the directory that a node keeps its state in.
func (o Options) dataDir() group {
	path, err := filepath.Abs(o.Config.DataDir)
	if err != nil {
		path = o.Config.DataDir
	}
	d := &directory{Options: o, path: path, there: nearest(path)}
	return group{target: "data directory " + path, checks: []check{
		{id: "data_dir", run: d.writable,
			why: "the stream, the private Postgres and the node's key lie there; without it no node starts"},
		{id: "data_lock", run: d.locked,
			why: "one node at a time may use a data directory"},
		{id: "data_files", run: d.modes, fix: d.closeFiles,
			why: "the key signs the tokens of deliveries; whoever can read it can settle the changes of others"},
		{id: "data_space", run: d.space,
			why: "when the disk is full nothing more is captured, and the watched server keeps its write-ahead log meanwhile"},
		{id: "data_inodes", run: d.inodes,
			why: "without a free inode no file can be made, however much space there is"},
		{id: "data_filesystem", run: d.fileSystem,
			why: "what was acked has to be there after a power cut, on this machine, for as long as the node lives"},
		{id: "data_sync", run: d.sync, limit: o.limits.check + 2*o.limits.measure,
			why: "every batch is on disk before Postgres may forget it: the time of one fsync is the least delay of a change"},
	}}
}

type directory struct {
	Options
	path  string
	there string // the directory itself, or the nearest one above it that exists
}

// nearest returns path or the nearest directory above it that exists.
func nearest(path string) string {
	for {
		if _, err := os.Stat(path); !errors.Is(err, fs.ErrNotExist) || path == filepath.Dir(path) {
			return path
		}
		path = filepath.Dir(path)
	}
}

const otherDir = "# or choose another one in the configuration: data_dir"

// writeAndPass is the mode that access(2) is asked for: to make files in a
// directory one has to write to it and pass through it.
const writeAndPass = 0x2 | 0x1

func (d *directory) writable(context.Context) ([]verdict, error) {
	info, err := os.Stat(d.there)
	if err != nil {
		return one(lacking(otherDir, "%s cannot be looked at: %s", d.there, reason(err)))
	}
	if !info.IsDir() {
		return one(lacking("mv "+d.there+" "+d.there+".old\n"+otherDir, "%s is not a directory", d.there))
	}
	owner, uid := ownerOf(info)
	self := os.Geteuid()
	if err := syscall.Access(d.there, writeAndPass); err != nil {
		switch {
		case errors.Is(err, syscall.EROFS):
			return one(lacking("mount -o remount,rw <its file system>\n"+otherDir, "%s is on a file system that is mounted read-only", d.there))
		case uid != self:
			return one(lacking(fmt.Sprintf("chown -R %s %s\n# or run the node as %s\n%s", nameOf(self), d.there, owner, otherDir),
				"%s belongs to %s, and %s may not write to it", d.there, owner, nameOf(self)))
		}
		return one(lacking("chmod u+rwx "+d.there+"\n"+otherDir, "%s may not write to %s", nameOf(self), d.there))
	}
	switch {
	case d.there != d.path:
		return one(pass("%s is not there yet; it can be made", d.path))
	case uid != self:
		return one(warn(fmt.Sprintf("# run the node as %s, or make the directory this user's:\nchown -R %s %s", owner, nameOf(self), d.path),
			"%s belongs to %s, and this is %s: files that one of them makes the other may not be able to use", d.path, owner, nameOf(self)))
	}
	return one(pass("%s can be written to", d.path))
}

func ownerOf(info fs.FileInfo) (name string, uid int) {
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return "nobody knows", os.Geteuid()
	}
	return nameOf(int(st.Uid)), int(st.Uid)
}

func nameOf(uid int) string {
	id := strconv.Itoa(uid)
	if u, err := user.LookupId(id); err == nil {
		return u.Username
	}
	return "user " + id
}

func (d *directory) locked(context.Context) ([]verdict, error) {
	if d.Online {
		return one(pass("this node holds the lock"))
	}
	pid, held, err := holder(filepath.Join(d.path, "lock"))
	switch {
	case err != nil:
		return nil, err
	case held:
		return one(pass("a node runs here: process %s", pid))
	}
	return one(pass("no node runs here"))
}

// nodeHolds reports whether a node holds the data directory.
func (o Options) nodeHolds() bool {
	_, held, err := holder(filepath.Join(o.Config.DataDir, "lock"))
	return err == nil && held
}

// holder returns who holds the lock on a file, without trying to take it, which
// could make a node that starts at that moment fail. Locks of processes in another
// container do not show.
func holder(path string) (pid string, held bool, err error) {
	info, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return "", false, nil
	}
	if err != nil {
		return "", false, err
	}
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return "", false, errors.New("this system does not tell who holds a lock")
	}
	table, err := os.ReadFile("/proc/locks")
	if err != nil {
		return tryLock(path)
	}
	written, _ := os.ReadFile(path) // the pid, for file systems whose device numbers differ; may be closed to us
	last := strings.TrimSpace(string(written))
	for line := range strings.Lines(string(table)) {
		// 1: FLOCK  ADVISORY  WRITE 4711 fe:01:131095 0 EOF
		f := strings.Fields(line)
		if len(f) < 6 || f[1] != "FLOCK" {
			continue
		}
		place := strings.Split(f[5], ":")
		if len(place) != 3 || place[2] != strconv.FormatUint(st.Ino, 10) {
			continue
		}
		if sameDevice(place, uint64(st.Dev)) || f[4] == last {
			return f[4], true, nil
		}
	}
	return "", false, nil
}

// sameDevice compares major and minor number, in hexadecimal, with st_dev.
func sameDevice(place []string, dev uint64) bool {
	major := dev>>8&0xfff | dev>>32&^uint64(0xfff)
	minor := dev&0xff | dev>>12&^uint64(0xff)
	return place[0] == fmt.Sprintf("%02x", major) && place[1] == fmt.Sprintf("%02x", minor)
}

// tryLock takes a shared lock for a moment, where there is no other way to know.
func tryLock(path string) (pid string, held bool, err error) {
	f, err := os.Open(path)
	if err != nil {
		return "", false, err
	}
	defer f.Close()
	err = syscall.Flock(int(f.Fd()), syscall.LOCK_SH|syscall.LOCK_NB)
	if errors.Is(err, syscall.EWOULDBLOCK) {
		text, _ := os.ReadFile(path)
		return strings.TrimSpace(string(text)), true, nil
	}
	return "", false, err
}

// secretFiles are what nobody but the node's user may read, below the directory.
func secretFiles() []string { return []string{"key", "tokens.json", "postgres/password"} }

func (d *directory) modes(context.Context) ([]verdict, error) {
	var out []verdict
	for _, name := range secretFiles() {
		path := filepath.Join(d.path, name)
		info, err := os.Stat(path)
		switch {
		case errors.Is(err, fs.ErrNotExist):
			continue
		case err != nil:
			out = append(out, warn("", "%s cannot be looked at: %s", path, reason(err)))
		case info.Mode().Perm()&0o077 != 0:
			v := fail("chmod 600 "+path, "%s has mode %04o: others can read or write it", path, info.Mode().Perm())
			_, uid := ownerOf(info)
			v.fixable = uid == os.Geteuid()
			out = append(out, v)
		case name == "key" && info.Size() != 32:
			out = append(out, lacking("# restore it from a copy; or remove it, and outstanding deliveries are handed out again:\nrm "+path, "%s has %d bytes, not 32: no node starts with it", path, info.Size()))
		}
	}
	if len(out) == 0 {
		out = append(out, pass("what is secret in it is closed to others"))
	}
	return out, nil
}

const (
	leastSpace  = 256 << 20 // a few batches, the private Postgres' WAL, and room to mend things
	scarceSpace = 2 << 30
)

func (d *directory) space(context.Context) ([]verdict, error) {
	var st syscall.Statfs_t
	if err := syscall.Statfs(d.there, &st); err != nil {
		return nil, fmt.Errorf("the file system of %s: %w", d.there, err)
	}
	free, total := uint64(st.Bavail)*uint64(st.Bsize), uint64(st.Blocks)*uint64(st.Bsize)
	remedy := "du -xh --max-depth=2 " + d.there + " | sort -h | tail\n# make room, or bound the stream in the configuration: stream: {retention: {bytes: 10GB}}"
	said := fmt.Sprintf("%s of %s are free", size(int64(free)), size(int64(total)))
	if d.Config.Stream.URL != "" {
		if free < leastSpace {
			return one(warn(remedy, "%s", said))
		}
		return one(pass("%s", said))
	}
	wants := uint64(d.Config.Stream.Retention.Bytes) * uint64(max(1, len(d.Config.Databases)))
	switch {
	case free < leastSpace:
		return one(fail(remedy, "%s", said))
	case free < scarceSpace:
		return one(warn(remedy, "%s", said))
	case wants > free+d.kept():
		return one(warn("# in the configuration: stream: {retention: {bytes: "+strings.ReplaceAll(size(int64(free/2)/int64(max(1, len(d.Config.Databases)))), " ", "")+"}}",
			"%s, and the streams may grow to %s", said, size(int64(wants))))
	}
	return one(pass("%s", said))
}

// kept is how much the stream takes already.
func (d *directory) kept() (bytes uint64) {
	_ = filepath.WalkDir(filepath.Join(d.path, "stream"), func(_ string, e fs.DirEntry, err error) error {
		if err != nil || !e.Type().IsRegular() {
			return nil // what cannot be read is not counted
		}
		if info, err := e.Info(); err == nil {
			bytes += uint64(info.Size())
		}
		return nil
	})
	return bytes
}

func (d *directory) inodes(context.Context) ([]verdict, error) {
	var st syscall.Statfs_t
	if err := syscall.Statfs(d.there, &st); err != nil {
		return nil, fmt.Errorf("the file system of %s: %w", d.there, err)
	}
	remedy := "# remove small files that nobody needs; this shows where they are:\ndu -x --inodes --max-depth=2 " + d.there + " | sort -n | tail"
	switch {
	case st.Files == 0:
		return one(pass("this file system has no limit of files"))
	case st.Ffree < 100:
		return one(fail(remedy, "%d of %d inodes are free", st.Ffree, st.Files))
	case st.Ffree < 5000:
		return one(warn(remedy, "%d of %d inodes are free", st.Ffree, st.Files))
	}
	return one(pass("%d of %d inodes are free", st.Ffree, st.Files))
}

func (d *directory) fileSystem(context.Context) ([]verdict, error) {
	var st syscall.Statfs_t
	if err := syscall.Statfs(d.there, &st); err != nil {
		return nil, fmt.Errorf("the file system of %s: %w", d.there, err)
	}
	return one(judgeFileSystem(d.there, uint32(st.Type)))
}

// judgeFileSystem judges f_type, whose values statfs(2) lists.
func judgeFileSystem(path string, kind uint32) verdict {
	remedy := "# put it on a local disk, or on a volume that outlives the container: data_dir"
	switch kind {
	case 0x01021994, 0x858458f6:
		return warn(remedy, "%s is in memory: everything is gone when the machine stops", path)
	case 0x794c7630:
		return warn(remedy, "%s is in a container's own layer: everything is gone when the container is removed", path)
	case 0x6969, 0xff534d42, 0xfe534d42, 0x65735546:
		return warn(remedy, "%s is on a network or user file system: locks and fsync may not be what they promise there, and the network may go away", path)
	}
	return pass("%s is on a local file system", path)
}

// sync measures what one small durable write takes, in a file that has no name, so
// that nothing is left whatever happens.
func (d *directory) sync(ctx context.Context) ([]verdict, error) {
	if d.Online {
		return one(skip("not measured while the node runs: its stream writes there"))
	}
	f, err := os.CreateTemp(d.there, ".lockstep-doctor-*")
	if err != nil {
		return one(skip("not measured: %s", reason(err)))
	}
	defer f.Close()
	if err := os.Remove(f.Name()); err != nil {
		return nil, err
	}
	page := make([]byte, 4096)
	var took []time.Duration
	measure := d.limits.measure
	if d.nodeHolds() {
		measure /= 5 // its stream waits behind these writes
	}
	for end := time.Now().Add(measure); time.Now().Before(end) && ctx.Err() == nil && len(took) < 2000; {
		began := time.Now()
		if _, err := f.WriteAt(page, int64(len(took)%16*len(page))); err != nil {
			return one(fail("# see what is wrong with the disk:\ndmesg | tail", "a small write failed: %s", reason(err)))
		}
		if err := f.Sync(); err != nil {
			return one(fail("# see what is wrong with the disk:\ndmesg | tail", "fsync failed: %s", reason(err)))
		}
		took = append(took, time.Since(began))
	}
	if len(took) == 0 {
		return nil, context.Cause(ctx)
	}
	slices.Sort(took)
	median, worst := took[len(took)/2], took[len(took)-1]
	said := fmt.Sprintf("one durable write takes %s, %s at worst (%.0f per second)", round(median), round(worst), float64(time.Second)/float64(max(median, 1)))
	if median > d.limits.slowSync {
		return one(warn("# put data_dir on an SSD with a battery or capacitor behind its cache, and not on a network file system", "%s", said))
	}
	return one(pass("%s", said))
}

func round(d time.Duration) time.Duration {
	if d > 10*time.Millisecond {
		return d.Round(time.Millisecond)
	}
	return d.Round(10 * time.Microsecond)
}
