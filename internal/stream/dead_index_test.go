package stream

import (
	"bytes"
	"encoding/json"
	"errors"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"pgregory.net/rapid"

	"lockstep"
)

// lettersModel writes letters by several servers, one after the other, and knows what
// there must be.
type lettersModel struct {
	t    *rapid.T
	dir  string
	s    *Server
	d    *Dead
	want map[string]map[uint64]Letter
	old  [][]byte // the files of the index that there ever were
}

func (m *lettersModel) open() {
	s, err := Open(m.t.Context(), Config{Dir: m.dir})
	if err != nil {
		m.t.Fatal(err)
	}
	m.s = s
	if m.d, err = m.s.Dead(m.t.Context()); err != nil {
		m.t.Fatal(err)
	}
}

func (m *lettersModel) draw(t *rapid.T) (consumer string, seqs []uint64) {
	consumer = rapid.SampledFrom([]string{consumerA, consumerB}).Draw(t, "consumer")
	first := rapid.Uint64Range(1, 60).Draw(t, "seq")
	for i := range rapid.Uint64Range(1, 20).Draw(t, "letters") {
		seqs = append(seqs, first+i)
	}
	return consumer, seqs
}

// Put writes letters, some in the place of others.
func (m *lettersModel) Put(t *rapid.T) {
	consumer, seqs := m.draw(t)
	key := rapid.Uint64Range(0, 3).Draw(t, "key")
	var letters []Letter
	for _, seq := range seqs {
		l := letter(seq)
		l.Key = key<<32 | seq%3
		if rapid.IntRange(0, 30).Draw(t, "large") == 0 {
			l.Message = json.RawMessage(`"` + string(bytes.Repeat([]byte("x"), 9<<20)) + `"`)
		}
		letters = append(letters, l)
		m.want[consumer][seq] = l
	}
	if err := m.d.PutSome(t.Context(), consumer, letters); err != nil {
		t.Fatal(err)
	}
}

// Delete deletes letters.
func (m *lettersModel) Delete(t *rapid.T) {
	consumer, seqs := m.draw(t)
	if err := m.d.DeleteSome(t.Context(), consumer, seqs); err != nil {
		t.Fatal(err)
	}
	for _, seq := range seqs {
		delete(m.want[consumer], seq)
	}
}

// DeleteAll deletes a consumer's letters.
func (m *lettersModel) DeleteAll(t *rapid.T) {
	if rapid.IntRange(0, 3).Draw(t, "rare") > 0 {
		return
	}
	consumer, _ := m.draw(t)
	if err := m.d.DeleteAll(t.Context(), consumer); err != nil {
		t.Fatal(err)
	}
	clear(m.want[consumer])
}

// Doubt has the index compared with the stream, as after a write without an answer.
func (m *lettersModel) Doubt(t *rapid.T) {
	m.d.mu.Lock()
	defer m.d.mu.Unlock()
	m.d.doubt = true
	if rapid.Bool().Draw(t, "behind") {
		m.d.read = 0
	}
}

// Reopen opens the stream anew, with the file of the index as it was at any time: a kill
// leaves an older one.
func (m *lettersModel) Reopen(t *rapid.T) {
	if err := m.s.Close(); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(m.dir, lettersFile)
	data, err := os.ReadFile(path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		t.Fatal(err)
	}
	if err == nil {
		m.old = append(m.old, data)
	}
	switch rapid.IntRange(0, 3).Draw(t, "the file") {
	case 0:
		if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			t.Fatal(err)
		}
	case 1:
		if len(data) > 0 {
			data[rapid.IntRange(0, len(data)-1).Draw(t, "at")] ^= 4
			m.write(t, path, data)
		}
	case 2:
		if len(m.old) > 0 {
			m.write(t, path, rapid.SampledFrom(m.old).Draw(t, "older"))
		}
	}
	m.open()
}

func (m *lettersModel) write(t *rapid.T, path string, data []byte) {
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
}

func (m *lettersModel) check(t *rapid.T) {
	for consumer, want := range m.want {
		seqs := slices.Sorted(maps.Keys(want))
		if n, err := m.d.Count(t.Context(), consumer); err != nil || n != uint64(len(want)) {
			t.Fatalf("count is %d, error %v; want %d", n, err, len(want))
		}
		letters, next, err := m.d.List(t.Context(), consumer, 0, 1000)
		var got []uint64
		for _, l := range letters {
			got = append(got, l.Seq)
			if l.Key != want[l.Seq].Key || len(l.Message) != len(want[l.Seq].Message) {
				t.Fatalf("letter %d is not as it was written", l.Seq)
			}
		}
		if err != nil || (next == 0) != (len(got) == len(seqs)) || !slices.Equal(got, seqs[:len(got)]) {
			t.Fatalf("listed %v, next %d, error %v; want %v", got, next, err, seqs)
		}
		const key = 1<<32 | 1
		found, _, err := m.d.Find(t.Context(), consumer, key, 0, 1)
		first := slices.IndexFunc(seqs, func(s uint64) bool { k := want[s].Key; return k == key || k>>32 != 1 })
		if err != nil || (first < 0) != (len(found) == 0) || first >= 0 && found[0].Seq != seqs[first] {
			t.Fatalf("found %v, error %v; want the letter at %d of %v", found, err, first, seqs)
		}
	}
	// Whoever has no letters does not wait for the index; there may be none yet.
	if err := m.d.ready(t.Context()); err != nil {
		t.Fatal(err)
	}
	info, err := m.d.info(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	m.d.mu.Lock()
	defer m.d.mu.Unlock()
	if total := m.d.index.total(); total != info.State.Msgs {
		t.Fatalf("the index has %d messages, the stream %d", total, info.State.Msgs)
	}
}

func TestIndexOfLettersIsThatOfTheStreamWhateverFileItBeganWith(outer *testing.T) {
	outer.Parallel()
	ends := time.Now().Add(15 * time.Second) // each example opens the stream several times
	rapid.Check(outer, func(t *rapid.T) {
		if time.Now().After(ends) {
			return
		}
		m := &lettersModel{t: t, dir: outer.TempDir(), want: map[string]map[uint64]Letter{consumerA: {}, consumerB: {}}}
		m.open()
		defer func() {
			if err := m.s.Close(); err != nil {
				t.Error(err)
			}
		}()
		t.Repeat(map[string]func(*rapid.T){
			"put": m.Put, "delete": m.Delete, "delete all": m.DeleteAll, "doubt": m.Doubt, "reopen": m.Reopen, "": m.check,
		})
	})
}

// A file that a kill has left behind is of before deletions, replacements and new letters.
func TestIndexOfLettersGoesOnFromAnOlderFile(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	path := filepath.Join(dir, lettersFile)
	s := openServer(t, Config{Dir: dir})
	d := openDead(t, s)
	for seq := range uint64(10) {
		put(t, d, consumerA, letter(seq+1))
	}
	closeServer(t, s)
	older, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	s = openServer(t, Config{Dir: dir})
	d = openDead(t, s)
	if err := d.DeleteSome(t.Context(), consumerA, []uint64{1, 5, 6}); err != nil {
		t.Fatal(err)
	}
	put(t, d, consumerA, letter(2))
	put(t, d, consumerA, letter(11))
	closeServer(t, s)
	if err := os.WriteFile(path, older, 0o600); err != nil {
		t.Fatal(err)
	}
	d = openDead(t, openServer(t, Config{Dir: dir}))
	wantCount(t, d, consumerA, 8)
	if n, err := d.Behind(t.Context(), consumerA, 4); err != nil || n != 5 {
		t.Errorf("%d letters behind the fourth, error %v; want 5", n, err)
	}
}

// Letters that are replaced and deleted at the same time are all counted right.
func TestIndexOfLettersStandsConcurrentWrites(t *testing.T) {
	t.Parallel()
	s := openServer(t, Config{})
	d := openDead(t, s)
	var wg sync.WaitGroup
	for w := range uint64(8) {
		wg.Go(func() {
			for i := range uint64(60) {
				seq := (w*7+i*5)%20 + 1
				if i%2 == w%2 {
					put(t, d, consumerA, letter(seq))
				} else if err := d.Delete(t.Context(), consumerA, seq); err != nil && !errors.Is(err, lockstep.ErrNotFound) {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	letters, _, err := d.List(t.Context(), consumerA, 0, 100)
	if err != nil {
		t.Fatal(err)
	}
	info, err := d.info(t.Context())
	if err != nil || info.State.Msgs != uint64(len(letters)) {
		t.Errorf("%d letters are listed of %d, error %v", len(letters), info.State.Msgs, err)
	}
	wantCount(t, d, consumerA, uint64(len(letters)))
}

func TestWhoHasNoLettersDoesNotWaitForTheIndex(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s := openServer(t, Config{Dir: dir})
	put(t, openDead(t, s), consumerA, letter(1))
	closeServer(t, s)
	d := openDead(t, openServer(t, Config{Dir: dir}))
	d.mu.Lock()
	d.loading = &deadLoad{done: make(chan struct{})} // one that does not end
	d.mu.Unlock()
	wantCount(t, d, consumerB, 0)
}
