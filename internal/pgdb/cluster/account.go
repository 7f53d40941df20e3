package cluster

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"syscall"

	"lockstep"
)

// nobody is the user and group id for those without rights, where no user of
// that name exists.
const nobody = 65534

// account is the user that Postgres runs as: always the user of this process,
// except under root, where Postgres refuses to run.
type account struct {
	uid, gid uint32
	name     string
	other    bool // not the user of this process: processes are started with its id
}

// accountFor decides who Postgres runs as for a data directory that may exist.
func accountFor(data string) (account, error) {
	self := account{uid: uint32(os.Geteuid()), gid: uint32(os.Getegid())}
	self.name = userName(self.uid)
	owner, found, err := ownerOf(data)
	if err != nil {
		return account{}, err
	}
	if self.uid != 0 {
		if found && owner.uid != self.uid {
			return account{}, fmt.Errorf("the data directory %s belongs to user %s, and this process runs as %s: "+
				"run it as %s, or choose another data_dir: %w", data, owner.name, self.name, owner.name, lockstep.ErrEnvironment)
		}
		return self, nil
	}
	if found && owner.uid != 0 {
		owner.other = true
		return owner, nil
	}
	for _, name := range []string{"postgres", "nobody"} {
		if a, ok := lookup(name); ok {
			return a, nil
		}
	}
	return account{uid: nobody, gid: nobody, name: strconv.Itoa(nobody), other: true}, nil
}

func lookup(name string) (account, bool) {
	u, err := user.Lookup(name)
	if err != nil {
		return account{}, false
	}
	uid, err1 := strconv.ParseUint(u.Uid, 10, 32)
	gid, err2 := strconv.ParseUint(u.Gid, 10, 32)
	if err1 != nil || err2 != nil || uid == 0 {
		return account{}, false
	}
	return account{uid: uint32(uid), gid: uint32(gid), name: name, other: true}, true
}

func userName(uid uint32) string {
	id := strconv.FormatUint(uint64(uid), 10)
	if u, err := user.LookupId(id); err == nil {
		return u.Username
	}
	return id
}

func ownerOf(path string) (a account, found bool, err error) {
	info, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return account{}, false, nil
	}
	if err != nil {
		return account{}, false, fmt.Errorf("look at the private Postgres' directory: %w: %w", err, lockstep.ErrEnvironment)
	}
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return account{}, false, fmt.Errorf("the owner of %s is not known on this system: %w", path, lockstep.ErrEnvironment)
	}
	return account{uid: st.Uid, gid: st.Gid, name: userName(st.Uid)}, true, nil
}

// credential returns what a child process is started with; nil for our own user.
func (a account) credential() *syscall.Credential {
	if !a.other {
		return nil
	}
	return &syscall.Credential{Uid: a.uid, Gid: a.gid}
}

// give makes the account the owner of path.
func (a account) give(path string) error {
	if !a.other {
		return nil
	}
	return os.Lchown(path, int(a.uid), int(a.gid))
}

// giveTree makes the account the owner of path and everything below it.
func (a account) giveTree(path string) error {
	return filepath.WalkDir(path, func(p string, _ fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		return a.give(p)
	})
}

// closedParent returns the uppermost directory on the way to path, path included,
// that the account may not pass through; empty when there is none.
func (a account) closedParent(path string) string {
	if !a.other {
		return ""
	}
	parent := filepath.Dir(path)
	if parent != path {
		if closed := a.closedParent(parent); closed != "" {
			return closed
		}
	}
	info, err := os.Stat(path)
	if err != nil {
		return path
	}
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok || !a.mayPass(st.Uid, st.Gid, info.Mode().Perm()) {
		return path
	}
	return ""
}

func (a account) mayPass(uid, gid uint32, mode fs.FileMode) bool {
	switch {
	case uid == a.uid:
		return mode&0o100 != 0
	case gid == a.gid:
		return mode&0o010 != 0
	}
	return mode&0o001 != 0
}

// check says whether the account can run the binaries in bin.
func (a account) check(bin string) error {
	if closed := a.closedParent(bin); closed != "" {
		return fmt.Errorf("the Postgres binaries in %s cannot be run by user %s, which Postgres runs as under root: "+
			"directory %s is closed to it; move the binaries to a place that is open to all and set %s, or run as another user than root: %w",
			bin, a.name, closed, BinVariable, lockstep.ErrEnvironment)
	}
	return nil
}
