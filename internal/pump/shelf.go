package pump

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"

	"lockstep/internal/obs"
)

// saveEvery is how often one book is written: what has waited longest. So a node writes
// no more than keptBytes a second, whatever it sends to how many.
const saveEvery = time.Second

// shelf keeps books in a directory, a file each, so that they outlive the process: all
// of them when it ends, and after a kill what was written of them last. A file is for
// looking at what happened: nothing is decided by it, and one that cannot be read is
// begun anew.
type shelf struct {
	dir    string                // "": nothing is kept
	room   func(bytes int) error // whether the disk has room for so much; nil: it has
	saved  map[string]savedBook
	failed bool // the last book could not be written
}

// savedBook is how a book was written last.
type savedBook struct {
	last uint64
	at   time.Time
}

func newShelf(dir string, room func(bytes int) error) *shelf {
	return &shelf{dir: dir, room: room, saved: map[string]savedBook{}}
}

// bookFile is a book on disk.
type bookFile struct {
	Last      uint64    `json:"last"`
	Delivered []Attempt `json:"delivered"`
	Failed    []Attempt `json:"failed"`
}

func (s *shelf) path(consumer string) string {
	return filepath.Join(s.dir, url.PathEscape(consumer)+".json")
}

// open returns the book of a consumer as it was written last, or an empty one.
func (s *shelf) open(consumer string) (*Book, error) {
	b := &Book{}
	if s.dir == "" {
		return b, nil
	}
	content, err := os.ReadFile(s.path(consumer))
	if errors.Is(err, fs.ErrNotExist) {
		return b, nil
	}
	if err != nil {
		return b, fmt.Errorf("read the attempts of consumer %s: %w", consumer, err)
	}
	var f bookFile
	if err := json.Unmarshal(content, &f); err != nil {
		return b, fmt.Errorf("read the attempts of consumer %s from %s, they begin anew: %w", consumer, s.path(consumer), err)
	}
	b.fill(f)
	s.saved[consumer] = savedBook{last: b.newest()}
	return b, nil
}

// fill makes the book what the file says, within the bounds of a book.
func (b *Book) fill(f bookFile) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.last = f.Last
	b.delivered = f.Delivered[max(0, len(f.Delivered)-keptDelivered):]
	b.sour = f.Failed[max(0, len(f.Failed)-keptFailed):]
	for _, list := range [][]Attempt{b.delivered, b.sour} {
		for _, a := range list {
			b.bytes += weight(a)
			b.last = max(b.last, a.ID)
		}
	}
}

// written returns what is to be on disk of the book.
func (b *Book) written() bookFile {
	b.mu.Lock()
	defer b.mu.Unlock()
	return bookFile{Last: b.last, Delivered: append([]Attempt{}, b.delivered...), Failed: append([]Attempt{}, b.sour...)}
}

// newest is the ID of the last attempt.
func (b *Book) newest() uint64 {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.last
}

// save writes a book aside and puts it in its place: a kill leaves the one before. Where
// it cannot be written, its turn comes again after the others'.
func (s *shelf) save(consumer string, b *Book) error {
	f := b.written()
	s.saved[consumer] = savedBook{s.saved[consumer].last, time.Now()}
	content, err := json.Marshal(f)
	if err == nil && s.room != nil {
		err = s.room(len(content))
	}
	if err == nil {
		err = replaceFile(s.path(consumer), content)
	}
	if err != nil {
		return fmt.Errorf("write the attempts of consumer %s: %w", consumer, err)
	}
	s.saved[consumer] = savedBook{f.Last, time.Now()}
	return nil
}

// replaceFile leaves nothing of a content that there was no room for. It is not synced:
// after a power cut a file may be empty, and is begun anew.
func replaceFile(path string, content []byte) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return err
	}
	err := os.WriteFile(path+".new", content, 0o600)
	if err == nil {
		err = os.Rename(path+".new", path)
	}
	if err != nil {
		return errors.Join(err, os.RemoveAll(path+".new"))
	}
	return nil
}

// remove forgets a consumer.
func (s *shelf) remove(consumer string) error {
	delete(s.saved, consumer)
	if s.dir == "" {
		return nil
	}
	if err := os.Remove(s.path(consumer)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove the attempts of consumer %s: %w", consumer, err)
	}
	return nil
}

// sweep removes the files of consumers that were deleted while nothing ran.
func (s *shelf) sweep(here map[string]bool) error {
	if s.dir == "" {
		return nil
	}
	files, err := os.ReadDir(s.dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("look for attempts of deleted consumers: %w", err)
	}
	var errs []error
	for _, f := range files {
		id, err := url.PathUnescape(strings.TrimSuffix(f.Name(), ".json"))
		if err != nil || !here[id] {
			errs = append(errs, os.Remove(filepath.Join(s.dir, f.Name())))
		}
	}
	return errors.Join(errs...)
}

// sweepShelf forgets the attempts of consumers that are no more.
func (s *Set) sweepShelf(ctx context.Context) {
	here := map[string]bool{}
	for _, c := range s.Consumers() {
		here[c.ID()] = true
	}
	if err := s.shelf.sweep(here); err != nil {
		s.log.WarnContext(ctx, "attempts of deleted consumers are left on disk", obs.KeyError, err)
	}
}

// unsaved returns the books that have attempts which are not on disk.
func (s *Set) unsaved() map[string]*Book {
	if s.Dir == "" {
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	found := map[string]*Book{}
	for id, b := range s.books {
		if b.newest() != s.shelf.saved[id].last {
			found[id] = b
		}
	}
	return found
}

// saveOne writes the book that was written the longest ago of those that have something
// new.
func (s *Set) saveOne(ctx context.Context) {
	now := s.unsaved()
	next := ""
	for id := range now {
		if next == "" || s.shelf.saved[id].at.Before(s.shelf.saved[next].at) {
			next = id
		}
	}
	if next != "" {
		s.saveBook(ctx, next, now[next])
	}
}

// saveAll writes every book that has something new.
func (s *Set) saveAll(ctx context.Context) {
	for id, b := range s.unsaved() {
		s.saveBook(ctx, id, b)
	}
}

// saveBook writes one. That it cannot be written is no reason to stop sending, and is told
// once, until it can be again.
func (s *Set) saveBook(ctx context.Context, id string, b *Book) {
	err := s.shelf.save(id, b)
	if err != nil && !s.shelf.failed {
		s.log.WarnContext(ctx, "attempts are not kept over a restart; look at the disk of data_dir", obs.KeyConsumerID, id, obs.KeyError, err)
	}
	s.shelf.failed = err != nil
}
