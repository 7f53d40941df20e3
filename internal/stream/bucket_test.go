package stream

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"
)

// restartServer leaves s with a server that has nothing in memory of its files.
func restartServer(t testing.TB, s *Server) {
	t.Helper()
	s.embed.mu.Lock()
	s.embed.stop()
	err := s.embed.start()
	s.embed.mu.Unlock()
	if err == nil {
		err = s.heal(t.Context())
	}
	if err != nil {
		t.Fatal(err)
	}
}

// A disk rots while the server runs: what is in memory is saved again, and nobody waits
// for a person.
func TestSavesGoOnOverABucketThatRots(t *testing.T) {
	t.Parallel()
	for _, where := range []int{0, -blockHead - 15, -3} { // the value, a length, the headers
		t.Run(fmt.Sprint(where), func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			s := openServer(t, Config{Dir: dir})
			values, revisions := consumers(t, s, 20)
			l := openLog(t, s)
			append1(t, l, small(5), markAt(1))
			restartServer(t, s)
			path, data := blockOf(t, dir, stateBucket)
			at := bytes.LastIndex(data, []byte("round 19 of c2")) + where
			rot(t, path, at)
			var wg sync.WaitGroup
			begun := time.Now()
			for id := range values {
				own := map[string]uint64{id: revisions[id]}
				wg.Go(func() {
					for i := range 100 {
						value := fmt.Sprintf("%d after", i)
						revision, err := openStates(t, s).Save(t.Context(), id, []byte(value), own[id])
						if err != nil || revision <= own[id] && i > 0 {
							t.Errorf("save %d of %s: revision %d after %d, error %v", i, id, revision, own[id], err)
							return
						}
						own[id] = revision
					}
				})
			}
			wg.Wait()
			if took := time.Since(begun); took > 9*time.Second {
				t.Errorf("saves waited %s", took)
			}
			if _, err := l.Recover(timed(t)); err != nil {
				t.Fatal(err)
			}
			append1(t, l, small(5), markAt(2))
			closeServer(t, s)
			states := openStates(t, openServer(t, Config{Dir: dir}))
			for id := range values {
				value, _, err := states.Load(t.Context(), id)
				if _, _, lost := states.Lost(id); err != nil || lost != nil || string(value) != "99 after" {
					t.Errorf("%s has %q, errors %v, %v", id, value, err, lost)
				}
			}
		})
	}
}

func rot(t testing.TB, path string, at int) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	var b [1]byte
	_, err = f.ReadAt(b[:], int64(at))
	b[0] ^= 16
	if err == nil {
		_, err = f.WriteAt(b[:], int64(at))
	}
	if err = errors.Join(err, f.Close()); err != nil {
		t.Fatal(err)
	}
}

func TestStateOfManyTablesFits(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s := openServer(t, Config{Dir: dir})
	revisions := map[string]uint64{}
	large := strings.Repeat("x", maxPayload-headerRoom)
	for range 4 {
		save(t, openStates(t, s), "tables of app", large, revisions)
	}
	closeServer(t, s)
	// It is carried over like a small one.
	c, err := readStream(salvager{dir}.place(stateBucket), bucketStream+stateBucket, bucketSubject(stateBucket))
	if err != nil || len(c.damage) > 0 || len(c.latest) != 1 {
		t.Fatalf("found %d states and damage %v, error %v", len(c.latest), c.damage, err)
	}
	if err := (salvager{dir}).move(salvager{dir}.place(stateBucket), salvager{dir}.aside(stateBucket)); err != nil {
		t.Fatal(err)
	}
	value, _, err := openStates(t, openServer(t, Config{Dir: dir})).Load(t.Context(), "tables of app")
	if err != nil || string(value) != large {
		t.Errorf("%d bytes came back, error %v", len(value), err)
	}
}

func TestSupersededStatesGo(t *testing.T) {
	t.Parallel()
	s := openServer(t, Config{})
	values, revisions := consumers(t, s, 1)
	for range 200 {
		for id := range values {
			save(t, openStates(t, s), id, strings.Repeat("x", 1000), revisions)
		}
	}
	info, err := s.js.Stream(t.Context(), bucketStream+stateBucket)
	if err != nil {
		t.Fatal(err)
	}
	if n := info.CachedInfo().State.Msgs; n > rollupTimes*5 {
		t.Errorf("%d states are kept of 5 consumers", n)
	}
}

func TestBucketOfAnOlderVersionIsTakenOver(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s := openServer(t, Config{Dir: dir})
	kv, err := s.js.CreateKeyValue(t.Context(), jetstream.KeyValueConfig{Bucket: stateBucket, History: 1, Storage: jetstream.FileStorage})
	if err != nil {
		t.Fatal(err)
	}
	want, err := kv.Put(t.Context(), "c", []byte("old"))
	if err != nil {
		t.Fatal(err)
	}
	closeServer(t, s)
	s = openServer(t, Config{Dir: dir})
	value, revision, err := openStates(t, s).Load(t.Context(), "c")
	if _, _, lost := openStates(t, s).Lost("c"); err != nil || lost != nil || string(value) != "old" || revision != want {
		t.Fatalf("got %q at %d, errors %v, %v", value, revision, err, lost)
	}
	for range 3 {
		save(t, openStates(t, s), "c", "new", map[string]uint64{"c": revision})
		_, revision, _ = openStates(t, s).Load(t.Context(), "c")
	}
	info, err := s.js.Stream(t.Context(), bucketStream+stateBucket)
	if err != nil || info.CachedInfo().Config.MaxMsgsPerSubject != bucketHistory {
		t.Errorf("the bucket keeps %d, error %v", info.CachedInfo().Config.MaxMsgsPerSubject, err)
	}
}

func TestFirstSaveAfterAStartRemovesWhatIsSuperseded(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	revisions := map[string]uint64{}
	for range 5 {
		s := openServer(t, Config{Dir: dir})
		for range rollupTimes / 2 {
			save(t, openStates(t, s), "c", "x", revisions)
		}
		info, err := s.js.Stream(t.Context(), bucketStream+stateBucket)
		if err != nil {
			t.Fatal(err)
		}
		if n := info.CachedInfo().State.Msgs; n > rollupTimes {
			t.Errorf("%d states are kept of one consumer", n)
		}
		closeServer(t, s)
	}
}
