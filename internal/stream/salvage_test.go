package stream

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"lockstep"
)

// recorder is a log that can be searched.
type recorder struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (r *recorder) Write(b []byte) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.text.Write(b)
}

func (r *recorder) logger() *slog.Logger {
	return slog.New(slog.NewTextHandler(r, &slog.HandlerOptions{Level: slog.LevelError}))
}

func (r *recorder) String() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.text.String()
}

// consumers saves states of ids c0 to c4 in turn, and returns what each has last and
// at which revision.
func consumers(t testing.TB, s *Server, rounds int) (values map[string]string, revisions map[string]uint64) {
	t.Helper()
	values, revisions = map[string]string{}, map[string]uint64{}
	states := openStates(t, s)
	for round := range rounds {
		for i := range 5 {
			id := fmt.Sprintf("c%d", i)
			save(t, states, id, fmt.Sprintf("round %d of %s", round, id), revisions)
			states.Note(id, uint64(round), 4)
			values[id] = fmt.Sprintf("round %d of %s", round, id)
		}
	}
	return values, revisions
}

func save(t testing.TB, states *States, id, value string, revisions map[string]uint64) {
	t.Helper()
	revision, err := states.Save(t.Context(), id, []byte(value), revisions[id])
	if err != nil {
		t.Fatalf("save %s: %v", id, err)
	}
	if revision <= revisions[id] {
		t.Fatalf("save %s: revision %d after %d", id, revision, revisions[id])
	}
	revisions[id] = revision
}

func copyDir(t testing.TB, from string) string {
	t.Helper()
	to := filepath.Join(t.TempDir(), "copy")
	if err := os.CopyFS(to, os.DirFS(from)); err != nil {
		t.Fatal(err)
	}
	return to
}

// blockOf returns the only block file of a bucket.
func blockOf(t testing.TB, dir, bucket string) (path string, data []byte) {
	t.Helper()
	path = filepath.Join(salvager{dir}.place(bucket), "msgs", "1.blk")
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return path, data
}

func rewrite(t testing.TB, path string, data []byte) {
	t.Helper()
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
}

// wantStates checks that each id has its last value, or is told as lost, of which
// there may be so many; and that every one takes saves, also after a restart.
func wantStates(t *testing.T, dir string, values map[string]string, mayLose int) (lost []string) {
	t.Helper()
	var log recorder
	s := openServer(t, Config{Dir: dir, Logger: log.logger()})
	states := openStates(t, s)
	revisions := map[string]uint64{}
	for id, want := range values {
		value, revision, err := states.Load(t.Context(), id)
		if err != nil && !errors.Is(err, lockstep.ErrNotFound) {
			t.Fatal(err)
		}
		floor, era, gone := states.Lost(id)
		switch {
		case gone == nil && string(value) == want:
		case gone == nil:
			t.Errorf("%s has %q, want %q, and nobody says so", id, value, want)
		default:
			wantError(t, gone, lockstep.ErrCorrupt)
			lost = append(lost, id)
			if floor != 19 || era != 4 {
				t.Errorf("%s is lost, with floor %d of era %d, noted was 19 of 4", id, floor, era)
			}
			if !strings.Contains(log.String(), id) {
				t.Errorf("%s is lost, and the log says %s", id, log.String())
			}
		}
		revisions[id] = revision
	}
	if len(lost) > mayLose {
		t.Errorf("lost are %v, damage was done to %d", lost, mayLose)
	}
	for id := range values {
		save(t, states, id, "after", revisions)
		if _, _, err := states.Lost(id); err != nil {
			t.Errorf("%s was saved: %v", id, err)
		}
	}
	closeServer(t, s)
	s = openServer(t, Config{Dir: dir})
	for id := range values {
		value, _, err := openStates(t, s).Load(t.Context(), id)
		if _, _, gone := openStates(t, s).Lost(id); err != nil || gone != nil || string(value) != "after" {
			t.Errorf("%s has %q, errors %v, %v", id, value, err, gone)
		}
	}
	closeServer(t, s)
	return lost
}

// harmed is a directory with states, of which copies are damaged.
type harmed struct {
	dir    string
	values map[string]string
	size   int // of the block
	tail   int // where the last states begin, and some more
}

func newHarmed(t *testing.T) harmed {
	t.Helper()
	h := harmed{dir: t.TempDir()}
	s := openServer(t, Config{Dir: h.dir})
	h.values, _ = consumers(t, s, 20)
	closeServer(t, s)
	_, data := blockOf(t, h.dir, stateBucket)
	h.size, h.tail = len(data), len(data)-5*150
	return h
}

// change changes the block of a copy.
func (h harmed) change(t *testing.T, change func([]byte) []byte) (work string) {
	t.Helper()
	work = copyDir(t, h.dir)
	path, data := blockOf(t, work, stateBucket)
	rewrite(t, path, change(data))
	return work
}

func TestOneDamagedBitCostsAtMostOneState(t *testing.T) {
	t.Parallel()
	h := newHarmed(t)
	random := rand.New(rand.NewPCG(1, 1))
	for range 12 {
		at, bit := h.tail+random.IntN(h.size-h.tail), random.IntN(8)
		wantStates(t, h.change(t, func(data []byte) []byte { data[at] ^= 1 << bit; return data }), h.values, 1)
	}
}

func TestDamagedLengthCostsAtMostOneState(t *testing.T) {
	t.Parallel()
	h := newHarmed(t)
	c, err := readStream(salvager{h.dir}.place(stateBucket), bucketStream+stateBucket, bucketSubject(stateBucket))
	if err != nil || len(c.damage) > 0 || len(c.latest) != 5 {
		t.Fatalf("an undamaged bucket has %d states and damage %v, error %v", len(c.latest), c.damage, err)
	}
	subject := bucketSubject(stateBucket) + "c2"
	for _, offset := range []int{-blockHead, -blockHead + 3, -2, len(subject), len(subject) + 3} {
		lost := wantStates(t, h.change(t, func(data []byte) []byte {
			data[bytes.LastIndex(data, []byte(subject))+offset] ^= 1 << 4
			return data
		}), h.values, 1)
		if offset > 0 && len(lost) > 0 {
			t.Errorf("offset %d: %v is lost, although only the length of its headers was wrong", offset, lost)
		}
	}
}

func TestCutOrLostStatesAreTold(t *testing.T) {
	t.Parallel()
	h := newHarmed(t)
	for _, size := range []int{0, h.tail / 2, h.size - 1} {
		wantStates(t, h.change(t, func(data []byte) []byte { return data[:size] }), h.values, 5)
	}
	work := copyDir(t, h.dir)
	if err := os.RemoveAll(salvager{work}.place(stateBucket)); err != nil {
		t.Fatal(err)
	}
	if lost := wantStates(t, work, h.values, 5); len(lost) != 5 {
		t.Errorf("without the bucket, lost are %v only", lost)
	}
}

func TestDamageAroundStatesCostsNone(t *testing.T) {
	t.Parallel()
	h := newHarmed(t)
	for _, file := range []string{
		filepath.Join(salvager{}.place(stateBucket), "meta.inf"), filepath.Join(salvager{}.place(stateBucket), "meta.sum"),
		filepath.Join(salvager{}.place(stateBucket), "msgs", "index.db"), witnessFile,
	} {
		work := copyDir(t, h.dir)
		data, err := os.ReadFile(filepath.Join(work, file))
		if err != nil {
			t.Fatal(err)
		}
		data[len(data)/2] ^= 1
		rewrite(t, filepath.Join(work, file), data)
		wantStates(t, work, h.values, 0)
	}
}

// A crash while a damaged bucket is replaced must leave the old one, or a complete new
// one.
func TestReplacingABucketSurvivesACrashAtEveryStep(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s := openServer(t, Config{Dir: dir})
	values, _ := consumers(t, s, 20)
	closeServer(t, s)
	path, data := blockOf(t, dir, stateBucket)
	data[bytes.LastIndex(data, []byte("round 19 of c2"))] ^= 1
	rewrite(t, path, data)
	if _, err := (salvager{dir}).inspect(); err != nil {
		t.Fatal(err)
	}
	if !(salvager{dir}).under(stateBucket) {
		t.Fatal("the damaged bucket is not aside")
	}
	// half a new bucket: what a crash leaves while it is filled
	half := copyDir(t, dir)
	h := openServer(t, Config{Dir: t.TempDir()})
	save(t, openStates(t, h), "c1", "not the last", map[string]uint64{})
	closeServer(t, h)
	if err := os.CopyFS(salvager{half}.place(stateBucket), os.DirFS(salvager{h.cfg.Dir}.place(stateBucket))); err != nil {
		t.Fatal(err)
	}
	// the old one is trash, but still there: the new one is complete
	done := copyDir(t, dir)
	closeServer(t, openServer(t, Config{Dir: done}))
	if err := os.CopyFS(salvager{done}.trash(stateBucket), os.DirFS(salvager{dir}.aside(stateBucket))); err != nil {
		t.Fatal(err)
	}
	for _, work := range []string{dir, half, done} {
		if lost := wantStates(t, work, values, 1); !slices.Equal(lost, []string{"c2"}) {
			t.Errorf("lost are %v", lost)
		}
		for _, left := range []string{salvager{work}.aside(stateBucket), salvager{work}.trash(stateBucket)} {
			if _, err := os.Stat(left); !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("%s is left: %v", left, err)
			}
		}
	}
}

func TestOlderStateIsToldUntilItIsSavedAnew(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s := openServer(t, Config{Dir: dir})
	consumers(t, s, 3)
	closeServer(t, s)
	old := copyDir(t, salvager{dir}.place(stateBucket))
	s = openServer(t, Config{Dir: dir})
	states := openStates(t, s)
	revisions := map[string]uint64{}
	for _, id := range []string{"c0", "c1"} {
		_, revisions[id], _ = states.Load(t.Context(), id)
		save(t, states, id, "newer", revisions)
	}
	states.Note("c0", 77, 1)
	if err := states.Delete(t.Context(), "c4"); err != nil {
		t.Fatal(err)
	}
	closeServer(t, s)
	if err := errors.Join(os.RemoveAll(salvager{dir}.place(stateBucket)), os.CopyFS(salvager{dir}.place(stateBucket), os.DirFS(old))); err != nil {
		t.Fatal(err)
	}
	for range 2 { // it stays so until somebody saves
		s = openServer(t, Config{Dir: dir})
		states = openStates(t, s)
		value, revision, err := states.Load(t.Context(), "c0")
		if err != nil || string(value) != "round 2 of c0" {
			t.Fatalf("got %q, error %v", value, err)
		}
		revisions["c0"] = revision
		floor, _, err := states.Lost("c0")
		if wantError(t, err, lockstep.ErrCorrupt); floor != 77 {
			t.Errorf("floor is %d, want 77", floor)
		}
		_, _, err = states.Load(t.Context(), "c2")
		if _, _, lost := states.Lost("c2"); err != nil || lost != nil {
			t.Errorf("c2 was not saved since: %v, %v", err, lost)
		}
		if err := s.witness.write(); err != nil {
			t.Fatal(err)
		}
		closeServer(t, s)
	}
	s = openServer(t, Config{Dir: dir})
	states = openStates(t, s)
	if _, err := states.Save(t.Context(), "c0", []byte("anew"), revisions["c0"]); err != nil {
		t.Fatal(err)
	}
	if _, _, err := states.Lost("c0"); err != nil {
		t.Error(err)
	}
}

func TestDeletedStateIsNotLost(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s := openServer(t, Config{Dir: dir})
	states := openStates(t, s)
	save(t, states, "c", "one", map[string]uint64{})
	if err := s.witness.write(); err != nil {
		t.Fatal(err)
	}
	witness, err := os.ReadFile(filepath.Join(dir, witnessFile))
	if err != nil {
		t.Fatal(err)
	}
	if err := states.Delete(t.Context(), "c"); err != nil {
		t.Fatal(err)
	}
	closeServer(t, s)
	for _, behind := range []bool{false, true} { // a crash leaves the witness behind
		if behind {
			rewrite(t, filepath.Join(dir, witnessFile), witness)
		}
		s = openServer(t, Config{Dir: dir})
		states = openStates(t, s)
		_, revision, err := states.Load(t.Context(), "c")
		wantError(t, err, lockstep.ErrNotFound)
		if _, _, err := states.Lost("c"); err != nil || revision != 0 {
			t.Errorf("deleted, and now at revision %d: %v", revision, err)
		}
		closeServer(t, s)
	}
	s = openServer(t, Config{Dir: dir})
	save(t, openStates(t, s), "c", "again", map[string]uint64{})
}
