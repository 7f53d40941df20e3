package stream

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"time"

	"lockstep"
)

// The index is kept in a file beside the embedded store, so that a start need not read
// every letter. It may be of any time: what was written later is read from the stream,
// which also tells what it has deleted; numbers of messages are given once. A file that
// does not fit the stream is not used.
const (
	lettersFile     = "letters"
	lettersMagic    = "lockstep letters 1\n"
	snapshotChanges = 50_000 // or a quarter of the letters, until the file is written anew
)

// snapshot is what the file says.
type snapshot struct {
	created int64  // when the stream was made
	read    uint64 // Dead.read
	index   *letterIndex
}

func (s snapshot) append(b []byte) []byte {
	b = append(b, lettersMagic...)
	b = binary.AppendVarint(b, s.created)
	b = binary.AppendUvarint(b, s.read)
	b = binary.AppendUvarint(b, uint64(len(s.index.sets)))
	for _, base := range slices.Sorted(maps.Keys(s.index.sets)) {
		set := s.index.sets[base]
		b = appendText(b, base)
		b = binary.AppendUvarint(b, uint64(set.n))
		var last letterEntry
		set.all(func(e letterEntry) bool {
			b = binary.AppendUvarint(b, e.seq-last.seq)
			b = binary.AppendVarint(b, int64(e.at-last.at))
			b = binary.LittleEndian.AppendUint64(b, e.key)
			last = e
			return true
		})
	}
	b = binary.AppendUvarint(b, uint64(len(s.index.parts)))
	for at, subject := range s.index.parts {
		b = appendText(binary.AppendUvarint(b, at), subject)
	}
	return binary.LittleEndian.AppendUint32(b, crc32.Checksum(b, crc32.MakeTable(crc32.Castagnoli)))
}

func appendText(b []byte, text string) []byte {
	return append(binary.AppendUvarint(b, uint64(len(text))), text...)
}

func parseSnapshot(b []byte) (s snapshot, err error) {
	end := len(b) - 4
	if end < len(lettersMagic) || string(b[:len(lettersMagic)]) != lettersMagic ||
		crc32.Checksum(b[:end], crc32.MakeTable(crc32.Castagnoli)) != binary.LittleEndian.Uint32(b[end:]) {
		return s, fmt.Errorf("it is cut off or its checksum differs: %w", lockstep.ErrCorrupt)
	}
	r := snapshotReader{b: b[len(lettersMagic):end]}
	s = snapshot{created: r.varint(), read: r.uvarint(), index: newLetterIndex()}
	for range r.uvarint() {
		base, n := r.text(), r.uvarint()
		var last letterEntry
		for range n {
			if r.bad {
				break
			}
			last = letterEntry{last.seq + r.uvarint(), last.at + uint64(r.varint()), r.fixed()}
			s.index.put(base, last)
		}
	}
	for range r.uvarint() {
		if r.bad {
			break
		}
		at := r.uvarint()
		if subject := r.text(); !r.bad {
			s.index.add(subject, at, 0)
		}
	}
	if r.bad || len(r.b) > 0 {
		return s, fmt.Errorf("it cannot be read: %w", lockstep.ErrCorrupt)
	}
	return s, nil
}

// snapshotReader reads values; after the end it gives zeros and is bad.
type snapshotReader struct {
	b   []byte
	bad bool
}

func (r *snapshotReader) cut(n int) []byte {
	if r.bad = r.bad || n <= 0 || n > len(r.b); r.bad {
		return nil
	}
	part := r.b[:n]
	r.b = r.b[n:]
	return part
}

func (r *snapshotReader) uvarint() uint64 {
	v, n := binary.Uvarint(r.b)
	if r.cut(n); r.bad {
		return 0
	}
	return v
}

func (r *snapshotReader) varint() int64 {
	v, n := binary.Varint(r.b)
	if r.cut(n); r.bad {
		return 0
	}
	return v
}

func (r *snapshotReader) fixed() uint64 {
	part := r.cut(8)
	if r.bad {
		return 0
	}
	return binary.LittleEndian.Uint64(part)
}

func (r *snapshotReader) text() string {
	n := r.uvarint()
	if n > uint64(len(r.b)) {
		r.bad = true
	}
	return string(r.cut(int(min(n, uint64(len(r.b))))))
}

// restore begins with the index of the file, if it fits the stream.
func (d *Dead) restore(ctx context.Context) {
	s, err := d.readSnapshot(ctx)
	if errors.Is(err, fs.ErrNotExist) {
		return
	}
	if err != nil {
		d.srv.log.WarnContext(ctx, "the index of the dead letters is not used: all letters are read", "error", err)
		return
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.index, d.read = s.index, s.read
}

func (d *Dead) readSnapshot(ctx context.Context) (snapshot, error) {
	data, err := os.ReadFile(filepath.Join(d.srv.embed.dir, lettersFile))
	if err != nil {
		return snapshot{}, err
	}
	s, err := parseSnapshot(data)
	if err != nil {
		return s, err
	}
	if s.created != d.created.UnixNano() {
		return s, fmt.Errorf("it is of another stream: %w", lockstep.ErrCorrupt)
	}
	return s, d.probe(ctx, s.index)
}

// probe compares the latest letters of each consumer with the stream: where a number
// has been given again, the stream has lost its end since.
func (d *Dead) probe(ctx context.Context, index *letterIndex) error {
	for base, set := range index.sets {
		var latest []letterEntry
		set.all(func(e letterEntry) bool {
			if len(latest) < loadProbes || latest[0].at < e.at {
				latest = append(latest, e)
				slices.SortFunc(latest, func(a, b letterEntry) int { return int(a.at) - int(b.at) })
				latest = latest[max(len(latest)-loadProbes, 0):]
			}
			return true
		})
		for _, e := range latest {
			m, err := d.srv.get(ctx, deadStream, getRequest{Seq: e.at})
			if errors.Is(err, errMissing) {
				continue // deleted since
			}
			if err != nil {
				return err
			}
			if subject := m.Header.Get(headerSubject); subject != base+strconv.FormatUint(e.seq, 10) {
				return fmt.Errorf("message %d is another one: %w", e.at, lockstep.ErrCorrupt)
			}
		}
	}
	return nil
}

// snapshotSoon writes the file when much has changed, in the background.
func (d *Dead) snapshotSoon() {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.srv.embed == nil || d.changes < snapshotChanges || d.saving || d.closed || d.changes < int(d.index.total()/4) {
		return
	}
	d.saving = true
	d.work.Go(func() {
		d.snapshot(d.life)
		d.mu.Lock()
		d.saving = false
		d.mu.Unlock()
	})
}

// snapshot writes the file. Without it a start takes longer, so that a failure is no more
// than a warning.
func (d *Dead) snapshot(ctx context.Context) {
	d.mu.Lock()
	if d.srv.embed == nil || !d.loaded || d.changes == 0 {
		d.mu.Unlock()
		return
	}
	data := snapshot{d.created.UnixNano(), d.read, d.index}.append(nil)
	d.changes = 0
	d.mu.Unlock()
	started := time.Now()
	if err := replaceFile(filepath.Join(d.srv.embed.dir, lettersFile), data); err != nil {
		d.srv.log.WarnContext(ctx, "the index of the dead letters cannot be written: the next start reads all letters", "error", err)
		return
	}
	d.srv.log.DebugContext(ctx, "the index of the dead letters is written", "bytes", len(data), "took", time.Since(started))
}

// close ends what is under way and writes the file.
func (d *Dead) close() {
	d.mu.Lock()
	d.closed = true
	d.mu.Unlock()
	d.end()
	d.work.Wait()
	d.snapshot(context.Background())
}
