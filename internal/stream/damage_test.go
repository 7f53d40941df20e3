package stream

import (
	"bytes"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"lockstep"
)

func TestDamagedBatchIsNamedAndNeverServed(t *testing.T) {
	t.Parallel()
	l := openLog(t, openServer(t, Config{}))
	append1(t, l, small(5), markAt(1))
	damaged, err := small(5).Seal(6, markAt(2))
	if err != nil {
		t.Fatal(err)
	}
	damaged[len(damaged)/2] ^= 1
	publishRaw(t, l, nats.Header{headerFirst: {"6"}, headerCount: {"5"}, headerTime: {"0"}}, damaged)
	mark, err := l.Recover(t.Context())
	if err != nil || mark.Seq != 10 || mark.CommitLSN != 1 {
		t.Fatalf("recovered %+v, error %v; want the position of the batch before, and no seq twice", mark, err)
	}
	append1(t, l, small(5), markAt(2))

	r := l.Reader(1)
	defer r.Close()
	if b, err := r.Next(timed(t)); err != nil || b.First != 1 {
		t.Fatalf("got %v, error %v", b, err)
	}
	for range 2 { // it does not go away
		_, err = r.Next(timed(t))
		wantCorrupt(t, err, 6, 10)
	}
	_, err = l.BatchOf(t.Context(), 8)
	wantCorrupt(t, err, 6, 10)
	r.Seek(11)
	if b, err := r.Next(timed(t)); err != nil || b.First != 11 {
		t.Errorf("got %v, error %v; want seq 11", b, err)
	}
}

func wantCorrupt(t testing.TB, err error, first, last uint64) {
	t.Helper()
	var corrupt *CorruptError
	if !errors.As(err, &corrupt) || corrupt.First != first || corrupt.Last != last || !errors.Is(err, lockstep.ErrCorrupt) {
		t.Fatalf("got error %v, want changes %d to %d to be damaged", err, first, last)
	}
}

// flip changes one byte of the block files where needle lies.
func flip(t testing.TB, dir, needle string) {
	t.Helper()
	blocks, err := filepath.Glob(filepath.Join(dir, "jetstream", "$G", "streams", "LOCKSTEP_app", "msgs", "*.blk"))
	if err != nil || len(blocks) == 0 {
		t.Fatalf("no block files: %v", err)
	}
	for _, block := range blocks {
		data, err := os.ReadFile(block)
		if err != nil {
			t.Fatal(err)
		}
		if at := bytes.Index(data, []byte(needle)); at >= 0 {
			f, err := os.OpenFile(block, os.O_RDWR, 0)
			if err == nil {
				_, err = f.WriteAt([]byte{data[at] ^ 1}, int64(at))
			}
			if err = errors.Join(err, f.Close()); err != nil {
				t.Fatal(err)
			}
			return
		}
	}
	t.Fatalf("%q is in no block", needle)
}

func named(name string) *lockstep.BatchWriter {
	w := &lockstep.BatchWriter{}
	w.Reset(nil)
	w.Begin(lockstep.Tx{CommitTime: 1})
	row := `{"name":"` + name + `"}`
	w.Close(append(w.Open(), row...), lockstep.RecordHead{Action: lockstep.Insert, Table: w.Table(orders), RecordLen: len(row)})
	return w
}

func TestByteFlippedOnDiskIsNoticed(t *testing.T) {
	t.Parallel()
	for _, victim := range []int{1, 5, 10} {
		t.Run(strconv.Itoa(victim), func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			s := openServer(t, Config{Dir: dir})
			l := openLog(t, s)
			for i := range 10 {
				append1(t, l, named("change-"+strconv.Itoa(i+1)+"."), markAt(lockstep.LSN(i)))
			}
			closeServer(t, s)
			flip(t, dir, "change-"+strconv.Itoa(victim)+".")

			l = openLog(t, openServer(t, Config{Dir: dir}))
			if _, err := l.Recover(t.Context()); err != nil {
				t.Fatal(err)
			}
			append1(t, l, named("after"), markAt(20))
			served, lost := readAround(t, l)
			for seq := range uint64(11) {
				if served[seq+1] == lost[seq+1] {
					t.Errorf("change %d: served %v, reported lost %v", seq+1, served[seq+1], lost[seq+1])
				}
			}
			if served[uint64(victim)] || !served[11] || l.Last().Seq != 11 {
				t.Errorf("served %v, lost %v, last %d", served, lost, l.Last().Seq)
			}
		})
	}
}

// readAround reads the whole log past whatever is gone or damaged.
func readAround(t testing.TB, l *Log) (served, lost map[uint64]bool) {
	t.Helper()
	served, lost = map[uint64]bool{}, map[uint64]bool{}
	r := l.Reader(1)
	defer r.Close()
	for next := uint64(1); next <= l.Last().Seq; {
		b, err := r.Next(timed(t))
		var corrupt *CorruptError
		var gone *lockstep.RetentionError
		to := next
		switch {
		case err == nil:
			for i := range b.Len() {
				if name := string(b.Record(i).Row()); next <= 10 && !strings.Contains(name, "change-"+strconv.FormatUint(next, 10)+".") {
					t.Errorf("change %d is %s", next, name)
				}
				served[b.Record(i).Seq()] = true
			}
			next = b.Mark.Seq + 1
			continue
		case errors.As(err, &corrupt):
			to = corrupt.Last + 1
		case errors.As(err, &gone):
			to = gone.First
		default:
			t.Fatal(err)
		}
		for ; next < to; next++ {
			lost[next] = true
		}
		r.Seek(to)
	}
	return served, lost
}

func TestPartsLeftByACrashArePassedOver(t *testing.T) {
	t.Parallel()
	l := openLog(t, openServer(t, Config{}))
	append1(t, l, small(5), markAt(1))
	leave := func(parts int) {
		for i := range parts {
			publishRaw(t, l, nats.Header{headerFirst: {"6"}, headerCount: {"40"}, headerTime: {"0"}, headerPart: {strconv.Itoa(i+1) + "/4"}}, []byte("half a batch"))
		}
	}
	leave(3)
	if mark, err := l.Recover(t.Context()); err != nil || mark.Seq != 5 || mark.CommitLSN != 1 {
		t.Fatalf("recovered %+v, error %v", mark, err)
	}
	append1(t, l, batchOf(20, 1<<20, time.Unix(1_790_000_000, 0)), markAt(2))
	append1(t, l, small(5), markAt(3))
	for seq := range uint64(30) {
		l.srv.cache.drop(l)
		l.index.clear()
		if b, err := l.BatchOf(t.Context(), seq+1); err != nil || b.First > seq+1 || b.Mark.Seq <= seq {
			t.Fatalf("BatchOf(%d) = %v, error %v", seq+1, b, err)
		}
	}
	l.srv.cache.drop(l)
	readTo(t, l, 1, 30)
}

func TestBatchInPartsComesBackWhole(t *testing.T) {
	t.Parallel()
	url, _ := natsServer(t) // 1 MB at most per message
	for _, cfg := range []Config{{Dir: t.TempDir()}, {URL: url}} {
		s := openServer(t, cfg)
		l := openLog(t, s)
		append1(t, l, batchOf(30, 1<<20, time.Unix(1_790_000_000, 0)), markAt(1))
		append1(t, l, batchOf(1, 9<<20, time.Unix(1_790_000_000, 0)), markAt(2))
		l.srv.cache.drop(l)
		r := l.Reader(1)
		if b, err := r.Next(timed(t)); err != nil || b.Len() != 30 || len(b.Record(29).Row()) != 1<<20 {
			t.Fatalf("got %v, error %v", b, err)
		}
		if b, err := r.Next(timed(t)); err != nil || b.First != 31 || len(b.Record(0).Row()) != 9<<20 {
			t.Fatalf("got %v, error %v", b, err)
		}
		r.Close()
		closeServer(t, s)
		if l = openLog(t, openServer(t, cfg)); l.Last().Seq != 31 {
			t.Errorf("last is %+v", l.Last())
		}
	}
}

func smallDisk(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=24m"); err != nil {
		t.Skipf("a small file system cannot be mounted here (needs root): %v", err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(dir, syscall.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	return dir
}

func fill(t *testing.T, dir string) (free func()) {
	t.Helper()
	path := filepath.Join(dir, "ballast")
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	for {
		if _, err := f.Write(make([]byte, 4096)); err != nil {
			break
		}
	}
	_ = f.Close()
	return func() {
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
	}
}

func TestFullDiskStopsTheLogBeforeAnythingBreaks(t *testing.T) {
	t.Parallel()
	dir := smallDisk(t)
	s := openServer(t, Config{Dir: dir})
	l := openLog(t, s)
	states, err := s.States(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var confirmed uint64
	for err = nil; err == nil; {
		if err = tryAppend(t.Context(), l, batchOf(100, 2000, time.Unix(1_790_000_000, 0)), markAt(1)); err == nil {
			confirmed += 100
		}
	}
	wantError(t, err, lockstep.ErrUnavailable)
	if !strings.Contains(err.Error(), "full") || !strings.Contains(err.Error(), dir) {
		t.Errorf("the error does not say what is full: %v", err)
	}
	if _, err := states.Save(t.Context(), "consumer", []byte("acked"), 0); err != nil {
		t.Errorf("an acknowledgement found no room: %v", err)
	}
	_, err = l.Recover(t.Context())
	for err == nil { // there may be room for the claim, but for no batch
		err = tryAppend(t.Context(), l, batchOf(100, 2000, time.Unix(1_790_000_000, 0)), markAt(1))
	}
	purge(t, l)
	eventually(t, "recovering", func() bool { _, err = l.Recover(t.Context()); return err == nil })
	if l.Last().Seq < confirmed {
		t.Errorf("last is %d, confirmed was %d", l.Last().Seq, confirmed)
	}
	append1(t, l, small(1), markAt(2))
}

func TestWriteErrorFailsAppendsAndRecoverRestartsTheStore(t *testing.T) {
	t.Parallel()
	dir := smallDisk(t)
	s := openServer(t, Config{Dir: dir, AckTimeout: 500 * time.Millisecond})
	l := openLog(t, s)
	append1(t, l, batchOf(100, 2000, time.Unix(1_790_000_000, 0)), markAt(1))
	free := fill(t, dir)
	// Past the check of the free space, as when others fill the disk in between.
	done := make(chan error, 100)
	for range cap(done) {
		w := batchOf(10, 200, time.Unix(1_790_000_000, 0))
		data, err := w.Seal(l.writer.nextSeq(), markAt(2))
		if err != nil {
			t.Fatal(err)
		}
		batch, err := lockstep.ParseBatch(data)
		if err != nil {
			t.Fatal(err)
		}
		m := stored{first: batch.First, count: uint64(batch.Len()), part: 1, parts: 1, clock: l.writer.tick(batch), data: data}
		l.writer.send(m, pending{batch: batch, done: func(err error) { done <- err }})
	}
	failed := false
	for i := range cap(done) {
		err := <-done
		if err == nil && failed {
			t.Fatalf("batch %d was confirmed after one before it had failed", i)
		}
		if err != nil {
			failed = true
			wantError(t, err, lockstep.ErrUnavailable)
		}
	}
	if !failed {
		t.Fatal("the disk was not full")
	}
	last := l.Last().Seq
	if _, err := l.Recover(t.Context()); err == nil {
		t.Error("recovered on a full disk")
	}
	free()
	mark, err := l.Recover(t.Context())
	if err != nil || mark.Seq < last {
		t.Fatalf("recovered %+v, error %v; %d was confirmed", mark, err, last)
	}
	append1(t, l, small(5), markAt(3))
	l.srv.cache.drop(l)
	readTo(t, l, 1, l.Last().Seq)
}

// disk is an ext4 in a file whose unsynced writes stay in memory: commit=600 keeps
// the kernel from writing them back during the test.
func disk(t *testing.T, image string) string {
	t.Helper()
	dir := t.TempDir()
	if out, err := exec.Command("mount", "-o", "loop,commit=600", image, dir).CombinedOutput(); err != nil {
		t.Skipf("an image cannot be mounted here (needs root and loop devices): %s", out)
	}
	t.Cleanup(func() {
		if out, err := exec.Command("umount", "-l", dir).CombinedOutput(); err != nil {
			t.Errorf("umount: %s", out)
		}
	})
	return dir
}

func TestPowerCutLosesNothingThatWasConfirmed(t *testing.T) {
	t.Parallel()
	image := filepath.Join(t.TempDir(), "disk")
	if err := os.WriteFile(image, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(image, 128<<20); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("mkfs.ext4", "-q", "-F", image).CombinedOutput(); err != nil {
		t.Skipf("mkfs.ext4 is missing here: %v %s", err, out)
	}
	s := openServer(t, Config{Dir: filepath.Join(disk(t, image), "stream")})
	l := openLog(t, s)
	appendMany(t, l, 300, 5)
	append1(t, l, batchOf(12, 1<<20, time.Unix(1_790_000_000, 0)), markAt(5))
	revision, err := openStates(t, s).Save(t.Context(), "consumer", []byte("acked"), 0)
	if err != nil {
		t.Fatal(err)
	}
	put(t, openDead(t, s), consumerA, letter(1))

	// What the image holds now is what a power cut would leave.
	data, err := os.ReadFile(image)
	if err == nil {
		err = os.WriteFile(image+"-cut", data, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
	s = openServer(t, Config{Dir: filepath.Join(disk(t, image+"-cut"), "stream")})
	l = openLog(t, s)
	if mark := l.Last(); mark.Seq != 1512 || mark.CommitLSN != 5 {
		t.Fatalf("the log ends at %+v, confirmed was 1512", mark)
	}
	readTo(t, l, 1, 1512)
	if value, got, err := openStates(t, s).Load(t.Context(), "consumer"); err != nil || string(value) != "acked" || got != revision {
		t.Errorf("state is %q at %d, error %v", value, got, err)
	}
	if _, err := openDead(t, s).Get(t.Context(), consumerA, 1); err != nil {
		t.Error(err)
	}
}
