package stream

import (
	"errors"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/nats-io/nats.go/jetstream"

	"lockstep"
)

func TestAgeRemovesAllButTheLastBatchAndSeqsGoOn(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	cfg := Config{Dir: dir, Retention: Retention{Age: 100 * time.Millisecond}}
	s := openServer(t, cfg)
	l := openLog(t, s)
	appendMany(t, l, 10, 5)
	append1(t, l, small(0), markAt(99))
	eventually(t, "the log is empty", func() bool { return l.First() == 51 })
	if state, err := l.state(t.Context()); err != nil || state.Msgs != 1 {
		t.Errorf("%d messages are left, error %v; want the last one, which holds the position", state.Msgs, err)
	}
	r := l.Reader(7)
	defer r.Close()
	_, err := r.Next(timed(t))
	var gone *lockstep.RetentionError
	if !errors.As(err, &gone) || *gone != (lockstep.RetentionError{Asked: 7, First: 51}) {
		t.Fatalf("got %v, want a RetentionError from 7 to 51", err)
	}
	_, err = l.BatchOf(t.Context(), 50)
	if !errors.As(err, &gone) {
		t.Errorf("BatchOf: got %v, want a RetentionError", err)
	}
	closeServer(t, s)

	l = openLog(t, openServer(t, cfg))
	mark, err := l.Recover(t.Context())
	want := markAt(99)
	want.Seq = 50
	if diff := cmp.Diff(want, mark); diff != "" || err != nil {
		t.Fatalf("mark differs, error %v (-want +got):\n%s", err, diff)
	}
	append1(t, l, small(1), markAt(100))
	r = l.Reader(51)
	defer r.Close()
	if b, err := r.Next(timed(t)); err != nil || b.First != 51 {
		t.Errorf("got %v, error %v; want seq 51", b, err)
	}
}

func TestReaderThatFallsBehindIsToldWhatItMissedAndGoesOn(t *testing.T) {
	t.Parallel()
	l := openLog(t, openServer(t, Config{CacheBytes: 1, Retention: Retention{Age: 200 * time.Millisecond}}))
	appendMany(t, l, 10, 5)
	r := l.Reader(0)
	defer r.Close()
	if b, err := r.Next(timed(t)); err != nil || b.First != 1 {
		t.Fatalf("got %v, error %v", b, err)
	}
	eventually(t, "the beginning is gone", func() bool { return l.First() == 46 })
	append1(t, l, small(5), markAt(1))
	var gone *lockstep.RetentionError
	if _, err := r.Next(timed(t)); !errors.As(err, &gone) || gone.Asked != 6 || gone.First < 46 {
		t.Fatalf("got %v, want a RetentionError from 6", err)
	}
	r.Seek(gone.First)
	if b, err := r.Next(timed(t)); err != nil || b.First != gone.First {
		t.Errorf("got %v, error %v; want seq %d", b, err, gone.First)
	}
}

func TestBytesRemoveTheOldestAlsoInsideABatchInParts(t *testing.T) {
	t.Parallel()
	s := openServer(t, Config{Retention: Retention{Bytes: 1}, CacheBytes: 1 << 20})
	l := openLog(t, s)
	for range 12 {
		append1(t, l, batchOf(10, 1<<20, time.Unix(1_790_000_000, 0)), markAt(1)) // 10 MB, 11 parts
	}
	// 64 MB hold six batches and parts of a seventh, which is gone with its beginning.
	const first = 61
	eventually(t, "six batches are left", func() bool { return l.First() == first })
	readTo(t, l, first, 120)
	r := l.Reader(1)
	defer r.Close()
	var gone *lockstep.RetentionError
	if _, err := r.Next(timed(t)); !errors.As(err, &gone) || gone.First != first {
		t.Errorf("got %v, want a RetentionError to %d", err, first)
	}
}

func TestRetentionMakesWayForALargeBatch(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	cfg := Config{Dir: dir, Retention: Retention{Bytes: 1}}
	s := openServer(t, cfg)
	l := openLog(t, s)
	append1(t, l, batchOf(10, 7<<20, time.Unix(1_790_000_000, 0)), markAt(1))
	append1(t, l, batchOf(2, 20, time.Unix(1_790_000_000, 0)), markAt(2))
	readTo(t, l, 1, 12)
	closeServer(t, s)
	l = openLog(t, openServer(t, cfg))
	if l.Last().Seq != 12 || l.Last().CommitLSN != 2 {
		t.Errorf("last is %+v", l.Last())
	}
}

func TestFirstTellsTheTruthAfterAForeignPurge(t *testing.T) {
	t.Parallel()
	l := openLog(t, openServer(t, Config{}))
	appendMany(t, l, 10, 5)
	purge(t, l, jetstream.WithPurgeSequence(l.view().end.last-2))
	eventually(t, "first is 36", func() bool { return l.First() == 36 })
	l.srv.cache.drop(l)
	readTo(t, l, 36, 50)
}

func purge(t testing.TB, l *Log, opts ...jetstream.StreamPurgeOpt) {
	t.Helper()
	stream, err := l.srv.js.Stream(t.Context(), l.stream)
	if err == nil {
		err = stream.Purge(t.Context(), opts...)
	}
	if err != nil {
		t.Fatal(err)
	}
}

func TestMarkSurvivesAPurgeOfTheWholeStream(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s := openServer(t, Config{Dir: dir})
	l := openLog(t, s)
	appendMany(t, l, 10, 5)
	append1(t, l, small(1), markAt(500))
	purge(t, l)
	closeServer(t, s)
	l = openLog(t, openServer(t, Config{Dir: dir}))
	mark, err := l.Recover(t.Context())
	want := markAt(500)
	want.Seq = 51
	if diff := cmp.Diff(want, mark); diff != "" || err != nil {
		t.Fatalf("mark differs, error %v (-want +got):\n%s", err, diff)
	}
	if l.First() != 52 {
		t.Errorf("first is %d, want 52", l.First())
	}
	append1(t, l, small(1), markAt(501))
	readTo(t, l, 52, 52)
}

func TestSeqsAreNotUsedAgainWhenTheStreamWasPurgedUnseen(t *testing.T) {
	t.Parallel()
	l := openLog(t, openServer(t, Config{}))
	appendMany(t, l, 3, 5)
	if err := l.saveMark(t.Context()); err != nil {
		t.Fatal(err)
	}
	saved, err := l.savedMark(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	appendMany(t, l, 3, 5)
	purge(t, l)
	f, err := l.readEnd(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	// The saver may have been quicker than the purge; then the mark is exact.
	if now, _ := l.savedMark(t.Context()); now == saved && f.end.mark.Seq < 30+seqsPerMessage {
		t.Errorf("the log would go on at %d, where changes up to 30 have been", f.end.mark.Seq+1)
	}
}
