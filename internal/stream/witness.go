package stream

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"time"

	"lockstep"
)

// witness remembers outside of the bucket that an id has a state and how far it was,
// so that a state which is gone or older is noticed. It is a file beside the store,
// written once a second when something changed and at the end: no save waits for
// it, and after a crash it is at most about a second behind what was saved. What
// was lost of that second alone goes unnoticed.
type witness struct {
	path string

	mu      sync.Mutex
	ids     map[string]*standing
	changed bool
	damaged error // why the file could not be read, until somebody was told
}

// standing is how an id stands.
type standing struct {
	saves  sync.Mutex // one save at a time; before the witness' mu
	rollup rollup     // guarded by saves

	// Guarded by the witness' mu, as is the rest.
	revision uint64 // what the next Save must name
	actual   uint64 // the same in the bucket: it differs once the bucket was replaced. 0: there is none
	floor    uint64 // as last noted
	era      uint64 // likewise
	lost     bool   // the bucket has an older one, or none
	known    bool   // compared with the bucket since the start
}

const (
	witnessFile  = "witness"
	witnessEvery = time.Second
)

// written is an id's line of the file.
type written struct {
	ID       string `json:"id"`
	Revision uint64 `json:"revision"`
	Floor    uint64 `json:"floor,omitempty"`
	Era      uint64 `json:"era,omitempty"`
	Lost     bool   `json:"lost,omitempty"`
}

// readWitness reads the file of a directory; that there is none is no error. A
// damaged one gives a witness that knows nothing.
func readWitness(dir string) *witness {
	w := &witness{path: filepath.Join(dir, witnessFile), ids: map[string]*standing{}}
	data, err := os.ReadFile(w.path)
	if errors.Is(err, fs.ErrNotExist) {
		return w
	}
	if err == nil {
		err = w.parse(data)
	}
	if err != nil {
		w.damaged = fmt.Errorf("%s: %w", w.path, err)
		w.changed = true
	}
	return w
}

func (w *witness) parse(data []byte) error {
	sum, lines, _ := bytes.Cut(data, []byte("\n"))
	if string(sum) != checksumText(lines) {
		return fmt.Errorf("its checksum differs: %w", lockstep.ErrCorrupt)
	}
	for line := range bytes.Lines(lines) {
		var l written
		if err := json.Unmarshal(line, &l); err != nil {
			return errors.Join(err, lockstep.ErrCorrupt)
		}
		w.ids[l.ID] = &standing{revision: l.Revision, floor: l.Floor, era: l.Era, lost: l.Lost}
	}
	return nil
}

func checksumText(data []byte) string {
	return strconv.FormatUint(uint64(crc32.Checksum(data, crc32.MakeTable(crc32.Castagnoli))), 16)
}

// of returns the id's standing, making it when there is none.
func (w *witness) of(id string) *standing {
	w.mu.Lock()
	defer w.mu.Unlock()
	st := w.ids[id]
	if st == nil {
		st = &standing{}
		w.ids[id] = st
	}
	return st
}

// update changes an id's standing.
func (w *witness) update(st *standing, change func(*standing)) {
	w.mu.Lock()
	defer w.mu.Unlock()
	change(st)
	w.changed = true
}

func (w *witness) get(st *standing) (revision, actual uint64, known bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return st.revision, st.actual, st.known
}

// saw compares what the bucket holds of an id with what it should, and reports whether
// it turns out to be less, for the first time since the start.
func (w *witness) saw(st *standing, now kept) (less bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	least, was := st.revision, st.known && st.lost
	if st.known {
		least = st.actual
	}
	st.lost = st.lost || now.revision < least
	less = st.lost && !was
	st.known, st.actual, st.revision = true, now.revision, 0
	if now.value != nil {
		st.revision = now.revision
	}
	w.changed = true
	return less
}

// lost returns what is noted of an id, and whether the bucket has lost its state.
func (w *witness) lost(id string) (floor, era uint64, lost bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	st := w.ids[id]
	if st == nil {
		return 0, 0, false
	}
	return st.floor, st.era, st.lost
}

// replaced says that the bucket was replaced by what was found of it, now at these
// revisions, by subject. It returns the ids whose last state is not among it.
func (w *witness) replaced(found contents, revisions map[string]uint64) (lost []string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for id, st := range w.ids {
		key, err := encodeName(id)
		if err != nil {
			continue
		}
		subject := bucketSubject(stateBucket) + key
		least := st.revision
		if st.known {
			least = st.actual
		}
		if found.latest[subject].seq < least {
			st.lost = true
		}
		if st.lost {
			lost = append(lost, id)
		}
		st.actual = revisions[subject]
		if !st.known {
			st.revision = st.actual // nobody holds the one before
		}
		st.known = true
	}
	w.changed = true
	return lost
}

// highest returns the highest revision that was ever given.
func (w *witness) highest() uint64 {
	w.mu.Lock()
	defer w.mu.Unlock()
	most := uint64(0)
	for _, st := range w.ids {
		most = max(most, st.revision, st.actual)
	}
	return most
}

// keep writes the file as long as ctx lasts.
func (w *witness) keep(ctx context.Context, failed func(error)) {
	ticker := time.NewTicker(witnessEvery)
	defer ticker.Stop()
	failing := false
	for {
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return
		}
		err := w.write()
		if err != nil && !failing {
			failed(err)
		}
		failing = err != nil
	}
}

// write brings the file up to date, for good.
func (w *witness) write() error {
	w.mu.Lock()
	if !w.changed {
		w.mu.Unlock()
		return nil
	}
	w.changed = false
	var lines bytes.Buffer
	enc := json.NewEncoder(&lines)
	for id, st := range w.ids {
		if st.revision == 0 && !st.lost {
			continue // deleted, or not saved yet
		}
		if err := enc.Encode(written{id, st.revision, st.floor, st.era, st.lost}); err != nil {
			w.mu.Unlock()
			return fmt.Errorf("write %s: %w", w.path, err)
		}
	}
	w.mu.Unlock()
	data := append([]byte(checksumText(lines.Bytes())+"\n"), lines.Bytes()...)
	if err := replaceFile(w.path, data); err != nil {
		w.mu.Lock()
		w.changed = true
		w.mu.Unlock()
		return fmt.Errorf("write %s: %w", w.path, err)
	}
	return nil
}

// replaceFile replaces a file by one with that content, for good.
func replaceFile(path string, data []byte) error {
	f, err := os.OpenFile(path+".new", os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return err
	}
	if err := os.Rename(path+".new", path); err != nil {
		return err
	}
	return syncDir(filepath.Dir(path))
}
