package engine

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"lockstep"
	"lockstep/internal/dirlock"
)

// dataDir is the directory that a node keeps its state in, locked while it runs.
type dataDir struct {
	path string
	lock *dirlock.Lock
	key  []byte // 32 random bytes, made once: tokens and the joining of tables are signed with keys derived from it
}

// openDataDir makes and locks the directory. A second node gets ErrConflict.
func openDataDir(path string) (*dataDir, error) {
	path, err := filepath.Abs(path)
	if err != nil {
		return nil, fmt.Errorf("data_dir %s: %w", path, err)
	}
	// Searchable by everybody: the private Postgres runs as another user below it.
	// What is secret has a mode of its own.
	if err := os.MkdirAll(path, 0o755); err != nil {
		return nil, fmt.Errorf("make the data directory: %w; choose another with data_dir: %w", err, lockstep.ErrEnvironment)
	}
	lock, err := dirlock.Take(path)
	if errors.Is(err, lockstep.ErrConflict) {
		return nil, fmt.Errorf("data_dir: %w: stop the other lockstep, or choose another data_dir", err)
	}
	if err != nil {
		return nil, fmt.Errorf("data_dir: %w; it must be writable for this user: %w", err, lockstep.ErrEnvironment)
	}
	d := &dataDir{path: path, lock: lock}
	if d.key, err = d.loadKey(); err != nil {
		_ = lock.Release()
		return nil, err
	}
	return d, nil
}

func (d *dataDir) loadKey() ([]byte, error) {
	path := filepath.Join(d.path, "key")
	key, err := os.ReadFile(path)
	if err == nil {
		if len(key) != 32 {
			return nil, fmt.Errorf("%s has %d bytes, expected 32: restore it, or remove it (outstanding ack tokens go stale): %w", path, len(key), lockstep.ErrInvalid)
		}
		return key, nil
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("read the node's key: %w", err)
	}
	key = make([]byte, 32)
	rand.Read(key)
	if err := writeDurably(path, key); err != nil {
		return nil, fmt.Errorf("write the node's key: %w", err)
	}
	return key, nil
}

// writeDurably makes the file, aside first and then renamed, so that a crash leaves no
// half of it. It is on disk when this returns: a power cut would else leave an empty
// file under the right name.
func writeDurably(path string, content []byte) error {
	f, err := os.OpenFile(path+".new", os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(content)
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	if err := os.Rename(path+".new", path); err != nil {
		return err
	}
	dir, err := os.Open(filepath.Dir(path))
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}

// derive returns the key for one purpose.
func (d *dataDir) derive(purpose string) []byte {
	mac := hmac.New(sha256.New, d.key)
	mac.Write([]byte(purpose))
	return mac.Sum(nil)
}

// joinSecret is what marks the rows that a joining table brings along as ours.
func (d *dataDir) joinSecret(database string) string {
	return hex.EncodeToString(d.derive("join " + database)[:16])
}

// instance tells this node's connections from those of others. Every role of a
// server can read it.
func (d *dataDir) instance() string { return hex.EncodeToString(d.derive("instance")[:8]) }

func (d *dataDir) close() error { return d.lock.Release() }
