package stream

import (
	"bytes"
	"encoding/json"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"lockstep"
)

const (
	consumerA = "0191d7a5-8a6e-7c51-b0a5-0f6d4f0c0001"
	consumerB = "0191d7a5-8a6e-7c51-b0a5-0f6d4f0c0002"
)

func openDead(t testing.TB, s *Server) *Dead {
	t.Helper()
	d, err := s.Dead(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func letter(seq uint64) Letter {
	return Letter{
		Seq: seq, Database: "app", Reason: "boom", State: "parked", Attempts: 3, At: time.Date(2026, 11, 21, 10, 0, 0, 123456000, time.UTC),
		Table: "public.orders", PKs: json.RawMessage(`["7"]`), Message: json.RawMessage(fmt.Sprintf(`{ "seq": %d, "html":"<&>", "n": 1.10 }`, seq)),
	}
}

func put(t testing.TB, d *Dead, consumer string, l Letter) {
	t.Helper()
	if err := d.Put(t.Context(), consumer, l); err != nil {
		t.Fatal(err)
	}
}

func wantCount(t testing.TB, d *Dead, consumer string, want uint64) {
	t.Helper()
	if got, err := d.Count(t.Context(), consumer); err != nil || got != want {
		t.Errorf("count is %d, error %v; want %d", got, err, want)
	}
}

func TestLetterComesBackByteForByteAlsoAfterReopening(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s := openServer(t, Config{Dir: dir})
	d := openDead(t, s)
	want := letter(42)
	want.Batch = []byte{0, 1, 2, 255}
	put(t, d, consumerA, letter(42))
	put(t, d, consumerA, want) // replaces
	for range 2 {
		got, err := d.Get(t.Context(), consumerA, 42)
		if diff := cmp.Diff(want, got); diff != "" || err != nil {
			t.Errorf("letter differs, error %v (-want +got):\n%s", err, diff)
		}
		wantCount(t, d, consumerA, 1)
		wantCount(t, d, consumerB, 0)
		_, err = d.Get(t.Context(), consumerB, 42)
		wantError(t, err, lockstep.ErrNotFound)
		closeServer(t, s)
		s = openServer(t, Config{Dir: dir})
		d = openDead(t, s)
	}
}

func TestLettersAreListedInOrderOfSeqPageByPage(t *testing.T) {
	t.Parallel()
	s := openServer(t, Config{})
	d := openDead(t, s)
	for _, seq := range []uint64{500, 3, 20, 1 << 40, 100, 9} {
		put(t, d, consumerA, letter(seq))
	}
	put(t, d, consumerB, letter(4))
	var got []uint64
	pages := 0
	for after := uint64(0); pages == 0 || after != 0; pages++ {
		letters, next, err := d.List(t.Context(), consumerA, after, 2)
		if err != nil {
			t.Fatal(err)
		}
		for _, l := range letters {
			got = append(got, l.Seq)
		}
		after = next
	}
	if diff := cmp.Diff([]uint64{3, 9, 20, 100, 500, 1 << 40}, got); diff != "" || pages != 3 {
		t.Errorf("%d pages differ (-want +got):\n%s", pages, diff)
	}
}

func TestDeletedLettersAreGone(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s := openServer(t, Config{Dir: dir})
	d := openDead(t, s)
	for seq := range uint64(10) {
		put(t, d, consumerA, letter(seq+1))
		put(t, d, consumerB, letter(seq+1))
	}
	if err := d.Delete(t.Context(), consumerA, 5); err != nil {
		t.Fatal(err)
	}
	wantError(t, d.Delete(t.Context(), consumerA, 5), lockstep.ErrNotFound)
	wantCount(t, d, consumerA, 9)
	if err := d.DeleteAll(t.Context(), consumerB); err != nil {
		t.Fatal(err)
	}
	wantCount(t, d, consumerB, 0)
	put(t, d, consumerB, letter(1))
	closeServer(t, s)
	d = openDead(t, openServer(t, Config{Dir: dir}))
	wantCount(t, d, consumerA, 9)
	wantCount(t, d, consumerB, 1)
}

func TestLetterAboveTheMessageLimitLiesInPartsAndLeavesNone(t *testing.T) {
	t.Parallel()
	s := openServer(t, Config{})
	d := openDead(t, s)
	large := letter(7)
	large.Message = json.RawMessage(`"` + string(bytes.Repeat([]byte("x"), 20<<20)) + `"`)
	put(t, d, consumerA, letter(8))
	for range 2 {
		put(t, d, consumerA, large)
	}
	got, err := d.Get(t.Context(), consumerA, 7)
	if err != nil || !bytes.Equal(got.Message, large.Message) {
		t.Fatalf("got %d bytes, error %v", len(got.Message), err)
	}
	if letters, _, err := d.List(t.Context(), consumerA, 0, 10); err != nil || len(letters) != 2 || len(letters[0].Message) != len(large.Message) {
		t.Errorf("listed %d letters, error %v", len(letters), err)
	}
	wantCount(t, d, consumerA, 2)
	if err := d.Delete(t.Context(), consumerA, 7); err != nil {
		t.Fatal(err)
	}
	info, err := d.info(t.Context())
	if err != nil || info.State.Msgs != 1 {
		t.Errorf("%d messages are left, error %v; want 1", info.State.Msgs, err)
	}
}

func TestAnotherProcesssLettersAreSeen(t *testing.T) {
	t.Parallel()
	url, _ := natsServer(t)
	a, b := openDead(t, openServer(t, Config{URL: url})), openDead(t, openServer(t, Config{URL: url}))
	wantCount(t, a, consumerA, 0)
	for seq := range uint64(5) {
		put(t, b, consumerA, letter(seq+1))
	}
	wantCount(t, a, consumerA, 5)
	put(t, a, consumerA, letter(6))
	wantCount(t, b, consumerA, 6)
	if err := b.Delete(t.Context(), consumerA, 1); err != nil {
		t.Fatal(err)
	}
	wantCount(t, a, consumerA, 5)
	letters, next, err := a.List(t.Context(), consumerA, 2, 10)
	if err != nil || len(letters) != 4 || next != 0 {
		t.Errorf("listed %d letters, next %d, error %v", len(letters), next, err)
	}
}

func TestTenThousandLetters(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s := openServer(t, Config{Dir: dir})
	d := openDead(t, s)
	const letters, writers = 10_000, 8
	var wg sync.WaitGroup
	for w := range uint64(writers) {
		wg.Go(func() {
			for seq := w; seq < letters; seq += writers {
				if err := d.Put(t.Context(), consumerA, letter(seq+1)); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
	closeServer(t, s)
	d = openDead(t, openServer(t, Config{Dir: dir}))
	started := time.Now()
	wantCount(t, d, consumerA, letters)
	counted := time.Since(started)
	want := uint64(1)
	for after := uint64(0); ; {
		page, next, err := d.List(t.Context(), consumerA, after, 500)
		if err != nil {
			t.Fatal(err)
		}
		for _, l := range page {
			if l.Seq != want {
				t.Fatalf("got letter %d, want %d", l.Seq, want)
			}
			want++
		}
		if after = next; next == 0 {
			break
		}
	}
	if want != letters+1 {
		t.Errorf("listed %d letters", want-1)
	}
	t.Logf("first count %s, all pages %s", counted, time.Since(started)-counted)
}
