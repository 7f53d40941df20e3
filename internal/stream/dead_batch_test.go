package stream

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/nats-io/nats.go/jetstream"
)

// some makes the letters first to last, of a state.
func some(first, last uint64, state string) []Letter {
	var letters []Letter
	for seq := first; seq <= last; seq++ {
		l := letter(seq)
		l.State, l.Key = state, 1<<32|seq%5
		letters = append(letters, l)
	}
	return letters
}

// listAll reads all letters page by page.
func listAll(t testing.TB, d *Dead, consumer string) (all []Letter) {
	t.Helper()
	for after := uint64(0); ; {
		letters, next, err := d.List(t.Context(), consumer, after, 200)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, letters...)
		if next == 0 {
			return all
		}
		after = next
	}
}

// Letters that are written as one are letters like the others: in the place of older
// ones, beside those of other consumers and large ones, deleted, and found again by
// whoever opens the stream, with the file of the index and without.
func TestLettersThatAreWrittenAsOneAreLettersLikeOthers(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s := openServer(t, Config{Dir: dir})
	d := openDead(t, s)
	put(t, d, consumerA, letter(7))
	want := some(1, 2*batchLetters+3, "parked")
	large := 600
	want[large].Message = json.RawMessage(`"` + strings.Repeat("x", 9<<20) + `"`)
	if err := d.PutSome(t.Context(), consumerA, want[:large]); err != nil {
		t.Fatal(err)
	}
	if err := d.PutSome(t.Context(), consumerB, some(1, 40, "parked")); err != nil {
		t.Fatal(err)
	}
	if err := d.PutSome(t.Context(), consumerA, want[large:]); err != nil {
		t.Fatal(err)
	}
	again := some(100, 100+batchLeast, "retrying")
	if err := d.PutSome(t.Context(), consumerA, again); err != nil {
		t.Fatal(err)
	}
	copy(want[99:], again)
	if err := d.DeleteSome(t.Context(), consumerA, []uint64{1, 2, uint64(len(want))}); err != nil {
		t.Fatal(err)
	}
	want = want[2 : len(want)-1]
	for _, how := range []string{"at once", "opened again", "without the file"} {
		if got := listAll(t, d, consumerA); !reflect.DeepEqual(want, got) { // cmp takes a minute for the large one
			t.Errorf("%s: the %d letters differ from the %d that were put", how, len(got), len(want))
		}
		wantCount(t, d, consumerA, uint64(len(want)))
		wantCount(t, d, consumerB, 40)
		closeServer(t, s)
		if how == "opened again" {
			if err := os.Remove(dir + "/" + lettersFile); err != nil {
				t.Fatal(err)
			}
		}
		s = openServer(t, Config{Dir: dir})
		d = openDead(t, s)
	}
}

// What a server refuses as one is written one by one.
func TestLettersThatTheServerRefusesAsOneAreWrittenOneByOne(t *testing.T) {
	t.Parallel()
	s := openServer(t, Config{})
	d := openDead(t, s)
	stream, err := s.js.Stream(t.Context(), deadStream)
	if err != nil {
		t.Fatal(err)
	}
	cfg := stream.CachedInfo().Config
	cfg.AllowAtomicPublish = false
	if _, err := s.js.UpdateStream(t.Context(), cfg); err != nil {
		t.Fatal(err)
	}
	want := some(1, 100, "parked")
	if err := d.PutSome(t.Context(), consumerA, want); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, listAll(t, d, consumerA)); diff != "" {
		t.Errorf("letters differ (-want +got):\n%.1000s", diff)
	}
	// A stream of an older version is told to take letters as one when it is opened.
	if stream, err = s.js.Stream(t.Context(), deadStream); err != nil {
		t.Fatal(err)
	}
	if !s.allowBatches(t.Context(), stream) {
		t.Error("the stream does not take letters as one")
	}
	if err := d.PutSome(t.Context(), consumerB, want); err != nil {
		t.Fatal(err)
	}
	if subjects := d.marks(); len(subjects) != 1 {
		t.Errorf("after one batch there are %d marks", len(subjects))
	}
}

// marks returns the numbers of the messages that end a batch.
func (d *Dead) marks() (at []uint64) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for number, subject := range d.index.parts {
		if subject == deadMark {
			at = append(at, number)
		}
	}
	return at
}

const lettersDir = "LOCKSTEP_TEST_LETTERS_DIR"

// The test is a child process when it is told where to write: it puts
// letters together, each time one generation more, and prints what is confirmed.
func TestLettersOfAKilledWriterAreAllThere(t *testing.T) {
	if dir := os.Getenv(lettersDir); dir != "" {
		putUntilKilled(dir)
		return
	}
	t.Parallel()
	dir, confirmed := t.TempDir(), 0
	for range 4 {
		confirmed = max(confirmed, killPutter(t, dir))
	}
	if confirmed == 0 {
		t.Fatal("nothing was ever confirmed")
	}
	d := openDead(t, openServer(t, Config{Dir: dir}))
	all := listAll(t, d, consumerA)
	if len(all) < killLetters {
		t.Fatalf("%d letters are there, %d were confirmed", len(all), killLetters)
	}
	for i, l := range all {
		if l.Seq != uint64(i+1) || l.Attempts < confirmed {
			t.Fatalf("letter %d is of generation %d, confirmed was %d", l.Seq, l.Attempts, confirmed)
		}
	}
	wantCount(t, d, consumerA, uint64(len(all)))
}

const killLetters = 700

func putUntilKilled(dir string) {
	ctx := context.Background()
	s, err := Open(ctx, Config{Dir: dir})
	if err != nil {
		fmt.Println("failed", err)
		return
	}
	d, err := s.Dead(ctx)
	for generation := 1; err == nil; generation++ {
		var before Letter
		if before, err = d.Get(ctx, consumerA, 1); err == nil {
			generation = max(generation, before.Attempts+1)
		}
		letters := some(1, killLetters, "parked")
		for i := range letters {
			letters[i].Attempts = generation
		}
		if err = d.PutSome(ctx, consumerA, letters); err == nil {
			fmt.Println("confirmed", generation)
		}
	}
	fmt.Println("failed", err)
}

// killPutter runs the child until it has confirmed something and then a while longer,
// kills it and returns the last generation that it confirmed.
func killPutter(t *testing.T, dir string) (last int) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestLettersOfAKilledWriterAreAllThere$")
	cmd.Env = append(os.Environ(), lettersDir+"="+dir)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = cmd.Wait() }() // it was killed
	for lines := 0; ; {
		var word string
		var generation int
		if _, err := fmt.Fscan(out, &word, &generation); err != nil {
			if word == "failed" {
				t.Fatal("the child failed")
			}
			return last
		}
		last = generation
		if lines++; lines == 3 {
			time.AfterFunc(time.Duration(generation%5)*7*time.Millisecond, func() { _ = cmd.Process.Kill() })
		}
	}
}

// BenchmarkLettersPut tells how many letters a second are put, by how many are put
// together.
func BenchmarkLettersPut(b *testing.B) {
	for _, size := range []int{1, 16, 256, 500} {
		b.Run(fmt.Sprint(size), func(b *testing.B) {
			d := openDead(b, openServer(b, Config{}))
			seq, started := uint64(0), time.Now()
			for b.Loop() {
				letters := some(seq+1, seq+uint64(size), "parked")
				seq += uint64(size)
				if err := d.PutSome(b.Context(), consumerA, letters); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(seq)/time.Since(started).Seconds(), "letters/s")
		})
	}
}

// The index that is made of the blocks on the disk is that of the stream: letters that
// were replaced and deleted are not in it. What cannot be read there is said.
func TestIndexOfLettersIsMadeOfTheBlocks(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s := openServer(t, Config{Dir: dir})
	d := openDead(t, s)
	for _, letters := range [][]Letter{some(1, 300, "parked"), some(50, 90, "retrying"), some(400, 403, "parked")} {
		if err := d.PutSome(t.Context(), consumerA, letters); err != nil {
			t.Fatal(err)
		}
	}
	large := letter(1000)
	large.Message = json.RawMessage(`"` + strings.Repeat("x", 9<<20) + `"`)
	put(t, d, consumerA, large)
	put(t, d, consumerB, letter(1))
	if err := d.DeleteSome(t.Context(), consumerA, []uint64{1, 55, 300, 403}); err != nil {
		t.Fatal(err)
	}
	if err := d.DeleteAll(t.Context(), consumerB); err != nil {
		t.Fatal(err)
	}
	made := &Dead{srv: s, created: d.created, index: newLetterIndex()}
	if err := made.restoreBlocks(t.Context()); err != nil {
		t.Fatal(err)
	}
	if a, b := entries(made), entries(d); !reflect.DeepEqual(a, b) || len(b) != 301 {
		t.Errorf("the blocks have %d letters, written are %d", len(a), len(b))
	}
	if !reflect.DeepEqual(made.index.parts, d.index.parts) || len(d.index.parts) < 3 {
		t.Errorf("the blocks have the parts %v, written are %v", made.index.parts, d.index.parts)
	}
	last := info(t, d).State.LastSeq
	for name, change := range map[string]func([]byte) []byte{
		"a bit":   func(b []byte) []byte { b[len(b)/2] ^= 4; return b },
		"the end": func(b []byte) []byte { return b[:len(b)-9] },
	} {
		copied := t.TempDir()
		first := filepath.Join(salvager{dir}.streams(), deadStream, "msgs", "1.blk")
		data, err := os.ReadFile(first)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(copied, "1.blk"), change(data), 0o600); err != nil {
			t.Fatal(err)
		}
		r := &blocksReader{name: deadStream, index: newLetterIndex()}
		if err := r.read(t.Context(), copied, last); !errors.Is(err, errUnreadBlock) {
			t.Errorf("with %s damaged: error %v", name, err)
		}
	}
}

// entries returns what an index knows of consumerA's letters.
func entries(d *Dead) (list []letterEntry) {
	base, err := deadBase(consumerA)
	if err != nil {
		return nil
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.index.of(base).all(func(e letterEntry) bool {
		list = append(list, e)
		return true
	})
	return list
}

func info(t *testing.T, d *Dead) *jetstream.StreamInfo {
	t.Helper()
	i, err := d.info(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return i
}
