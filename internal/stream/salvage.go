package stream

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// Small buckets on which much depends are looked through before the server opens
// them: one damaged record would make it refuse every write to the bucket, or drop
// the records behind it. A damaged bucket is set aside as it is; what can be read of
// it is put into a fresh one, and the old one goes when that is complete. A crash at
// any moment finds the bucket aside, and begins anew.

// salvager does this for the embedded server in a directory.
type salvager struct{ dir string }

// salvaged are the buckets that are looked after so.
func salvaged() []string { return []string{stateBucket, markBucket} }

const bucketStream = "KV_" // what JetStream puts before a bucket's name

func bucketSubject(bucket string) string { return "$KV." + bucket + "." }

func (s salvager) streams() string {
	return filepath.Join(s.dir, "jetstream", "$G", "streams")
}
func (s salvager) place(bucket string) string { return filepath.Join(s.streams(), bucketStream+bucket) }
func (s salvager) aside(bucket string) string { return filepath.Join(s.dir, "aside-"+bucket) }
func (s salvager) trash(bucket string) string { return filepath.Join(s.dir, "trash-"+bucket) }

// inspect sets damaged buckets aside. The server does not run.
func (s salvager) inspect() (found map[string][]string, err error) {
	found = map[string][]string{}
	for _, bucket := range salvaged() {
		damage, err := s.inspectBucket(bucket)
		if err != nil {
			return nil, fmt.Errorf("look through %s: %w", s.place(bucket), err)
		}
		if len(damage) > 0 {
			found[bucket] = damage
		}
	}
	return found, nil
}

func (s salvager) inspectBucket(bucket string) (damage []string, err error) {
	if err := os.RemoveAll(s.trash(bucket)); err != nil {
		return nil, err
	}
	if s.under(bucket) {
		// What replaces it was not complete: it begins anew.
		return nil, os.RemoveAll(s.place(bucket))
	}
	if _, err := os.Stat(s.place(bucket)); errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	c, err := readStream(s.place(bucket), bucketStream+bucket, bucketSubject(bucket))
	if err != nil || len(c.damage) == 0 {
		return nil, err
	}
	return c.damage, s.move(s.place(bucket), s.aside(bucket))
}

// under reports whether the bucket is aside: not complete in its place.
func (s salvager) under(bucket string) bool {
	_, err := os.Stat(s.aside(bucket))
	return err == nil
}

// read returns what can be read of a bucket that is aside, by key.
func (s salvager) read(bucket string) (contents, error) {
	return readStream(s.aside(bucket), bucketStream+bucket, bucketSubject(bucket))
}

// finish drops the bucket aside: the one in its place is complete from here on.
func (s salvager) finish(bucket string) error {
	for _, dir := range []string{filepath.Join(s.place(bucket), "msgs"), s.place(bucket), s.streams()} {
		if err := syncDir(dir); err != nil {
			return err
		}
	}
	if err := s.move(s.aside(bucket), s.trash(bucket)); err != nil {
		return err
	}
	return os.RemoveAll(s.trash(bucket))
}

// move renames a directory for good.
func (s salvager) move(from, to string) error {
	if err := os.Rename(from, to); err != nil {
		return err
	}
	return errors.Join(syncDir(filepath.Dir(from)), syncDir(filepath.Dir(to)))
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
