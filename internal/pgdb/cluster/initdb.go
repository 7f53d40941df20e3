package cluster

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"

	"lockstep"
)

// accessRules is pg_hba.conf: whoever can enter the socket's directory is trusted;
// over loopback the password is asked for; nobody else comes in.
const accessRules = `# Written by Lockstep when it made this cluster.
# TYPE  DATABASE     USER  ADDRESS       METHOD
local   all          all                 trust
local   replication  all                 trust
host    all          all   127.0.0.1/32  scram-sha-256
host    all          all   ::1/128       scram-sha-256
host    replication  all   127.0.0.1/32  scram-sha-256
host    replication  all   ::1/128       scram-sha-256
`

// ensureData makes the data directory if there is none. It is made under another
// name and renamed when complete, so that a crash in between leaves no half of one.
func (c *Cluster) ensureData(ctx context.Context) error {
	made, err := c.lay.version()
	if err != nil {
		return err
	}
	if made == 0 {
		if err := c.makeData(ctx); err != nil {
			return fmt.Errorf("make the private Postgres in %s: %w", c.lay.dir, err)
		}
		return nil
	}
	owner, _, err := ownerOf(c.lay.data())
	if err != nil {
		return err
	}
	if owner.uid != c.account.uid { // root copied or restored the directory
		if err := c.account.giveTree(c.lay.data()); err != nil {
			return fmt.Errorf("hand the data directory to user %s: %w: %w", c.account.name, err, lockstep.ErrEnvironment)
		}
	}
	return nil
}

func (c *Cluster) makeData(ctx context.Context) error {
	dir := c.lay.unfinished()
	if err := os.RemoveAll(dir); err != nil {
		return fmt.Errorf("%w: %w", err, lockstep.ErrEnvironment)
	}
	if err := os.Mkdir(dir, 0o700); err != nil {
		return fmt.Errorf("%w: %w", err, lockstep.ErrEnvironment)
	}
	if err := c.account.give(dir); err != nil {
		return fmt.Errorf("%w: %w", err, lockstep.ErrEnvironment)
	}
	if err := c.initdb(ctx, dir); err != nil {
		return err
	}
	if err := overwrite(filepath.Join(dir, "pg_hba.conf"), accessRules); err != nil {
		return err
	}
	if err := os.Remove(c.lay.data()); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := os.Rename(dir, c.lay.data()); err != nil {
		return err
	}
	// A password file of an earlier data directory means nothing to this one.
	if err := os.Remove(c.lay.passwordFile()); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	c.fresh = true
	return syncDir(c.lay.dir)
}

// overwrite replaces the content of a file, which keeps its owner, and has it on disk
// when it returns: after a power cut an empty file would let nobody in.
func overwrite(path, text string) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = f.WriteString(text)
	return errors.Join(err, f.Sync(), f.Close())
}

// initdb runs initdb. C.UTF-8 sorts by code point and knows upper and lower case
// beyond ASCII; a machine without it gets C.
func (c *Cluster) initdb(ctx context.Context, dir string) error {
	out, err := c.runInitdb(ctx, dir, "--locale=C.UTF-8")
	if err != nil && strings.Contains(out, "invalid locale") {
		out, err = c.runInitdb(ctx, dir, "--no-locale")
	}
	if err == nil {
		return nil
	}
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if errors.Is(err, syscall.EPERM) && c.account.other {
		return fmt.Errorf("start initdb as user %s: %w: this root may not change its user; run as another user: %w",
			c.account.name, err, lockstep.ErrEnvironment)
	}
	return fmt.Errorf("initdb: %w; its output:\n  %s\n%w", err, strings.ReplaceAll(out, "\n", "\n  "), lockstep.ErrEnvironment)
}

func (c *Cluster) runInitdb(ctx context.Context, dir, locale string) (string, error) {
	arg, held, err := c.account.reach(dir)
	if err != nil {
		return "", err
	}
	defer held.close()
	args := []string{
		"--pgdata=" + arg, "--username=" + superuser, "--encoding=UTF8", locale, "--lc-messages=C",
		// Replaced by accessRules before the first start.
		"--auth=trust", "--no-instructions",
	}
	if c.cfg.Settings["fsync"] == "off" {
		args = append(args, "--no-sync")
	}
	cmd := exec.CommandContext(ctx, filepath.Join(c.bin.Dir, "initdb"), args...)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	c.confine(cmd, held)
	p := run(cmd)
	<-p.done
	return strings.TrimSpace(out.String()), p.err
}

// held is a directory kept open for a child process that may not walk to it.
type held struct{ file *os.File }

func (h held) close() {
	if h.file != nil {
		_ = h.file.Close()
	}
}

// reach returns the name by which the account's processes get at a directory of
// theirs. Under root a parent may be closed to them (the home of root, a temporary
// directory of mode 0700); then the directory is handed over as file 3, and
// /proc/self/fd/3 leads to it without a walk through its parents.
func (a account) reach(dir string) (name string, h held, err error) {
	closed := a.closedParent(filepath.Dir(dir))
	if closed == "" {
		return dir, held{}, nil
	}
	if !canPassDirectory {
		return "", held{}, fmt.Errorf("%s is closed to user %s, which Postgres runs as under root: chmod o+x %s, or choose another data_dir: %w",
			closed, a.name, closed, lockstep.ErrEnvironment)
	}
	f, err := os.Open(dir)
	if err != nil {
		return "", held{}, err
	}
	return "/proc/self/fd/3", held{file: f}, nil
}

func syncDir(dir string) error {
	f, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer f.Close()
	return f.Sync()
}
