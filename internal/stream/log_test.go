package stream

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/nats-io/nats.go"

	"lockstep"
)

func TestEmptyLogHasNothingAndBeginsAtOne(t *testing.T) {
	t.Parallel()
	l := openLog(t, openServer(t, Config{}))
	mark, err := l.Recover(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if mark != (lockstep.Mark{}) || l.Last() != mark || l.First() != 1 {
		t.Errorf("got mark %+v, last %+v, first %d; want zero marks and 1", mark, l.Last(), l.First())
	}
	_, err = l.BatchOf(t.Context(), 1)
	wantError(t, err, lockstep.ErrNotFound)
}

func TestWhatWasAppendedIsThereAfterReopening(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s := openServer(t, Config{Dir: dir})
	l := openLog(t, s)
	appendMany(t, l, 20, 3)
	append1(t, l, small(2), markAt(77))
	want := markAt(77)
	want.Seq = 62
	if diff := cmp.Diff(want, l.Last()); diff != "" {
		t.Errorf("last differs (-want +got):\n%s", diff)
	}
	closeServer(t, s)

	l = openLog(t, openServer(t, Config{Dir: dir}))
	if diff := cmp.Diff(want, l.Last()); diff != "" {
		t.Errorf("last differs after reopening (-want +got):\n%s", diff)
	}
	mark, err := l.Recover(t.Context())
	if err != nil || mark != want {
		t.Errorf("recovered %+v, error %v; want %+v", mark, err, want)
	}
	append1(t, l, small(1), markAt(78))
	if got := l.Last().Seq; got != 63 {
		t.Errorf("next seq is %d, want 63", got)
	}
	readTo(t, l, 1, 63)
}

func TestDoneIsCalledInOrderAfterLastMoved(t *testing.T) {
	t.Parallel()
	l := openLog(t, openServer(t, Config{}))
	var order []uint64
	finished := make(chan struct{})
	for i := range uint64(200) {
		err := l.Append(t.Context(), small(2), markAt(1), func(err error) {
			if err != nil || l.Last().Seq < 2*i+2 {
				t.Errorf("batch %d: done with error %v while last is %d", i, err, l.Last().Seq)
			}
			if order = append(order, i); i == 199 {
				close(finished)
			}
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	<-finished
	for i, n := range order {
		if n != uint64(i) {
			t.Fatalf("done number %d was that of batch %d", i, n)
		}
	}
}

func TestBatchesWithoutChangesMoveTheMarkAndAreNotRead(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s := openServer(t, Config{Dir: dir})
	l := openLog(t, s)
	append1(t, l, small(1), markAt(1))
	for lsn := range lockstep.LSN(10) {
		append1(t, l, small(0), markAt(10+lsn))
	}
	append1(t, l, small(1), markAt(30))
	append1(t, l, small(0), markAt(31))
	if l.Last().CommitLSN != 31 || l.Last().Seq != 2 {
		t.Errorf("last is %+v", l.Last())
	}
	for range 2 { // from memory, then from the store
		r := l.Reader(1)
		for want := range uint64(2) {
			if b, err := r.Next(timed(t)); err != nil || b.First != want+1 {
				t.Fatalf("got %v, error %v; want seq %d", b, err, want+1)
			}
		}
		r.Close()
		l.srv.cache.drop(l)
	}
	closeServer(t, s)
	l = openLog(t, openServer(t, Config{Dir: dir}))
	if l.Last().CommitLSN != 31 || l.Last().Seq != 2 {
		t.Errorf("last after reopening is %+v", l.Last())
	}
}

func TestReaderAtTheEndIsWokenAndSharesTheBatch(t *testing.T) {
	t.Parallel()
	l := openLog(t, openServer(t, Config{}))
	const readers = 50
	got := make(chan *lockstep.Batch, readers)
	for range readers {
		go func() {
			r := l.Reader(1)
			defer r.Close()
			b, err := r.Next(timed(t))
			if err != nil {
				t.Error(err)
			}
			got <- b
		}()
	}
	append1(t, l, small(3), markAt(1))
	first := <-got
	for range readers - 1 {
		if b := <-got; b != first {
			t.Fatal("readers at the end got different copies of one batch")
		}
	}
	if b, err := l.BatchOf(t.Context(), 2); err != nil || b != first {
		t.Errorf("BatchOf gave another copy, error %v", err)
	}
}

func TestReadersBehindMeetTheEndWhileAppendsGoOn(t *testing.T) {
	t.Parallel()
	l := openLog(t, openServer(t, Config{CacheBytes: 64 << 10}))
	appendMany(t, l, 400, 5)
	const last = 2 * 400 * 5
	errs := make(chan error, 20)
	for range 20 {
		go func() {
			from := 1 + rand.Uint64N(1500)
			r := l.Reader(from)
			defer r.Close()
			for next := from; next <= last; {
				b, err := r.Next(timed(t))
				if err != nil || b.First > next || b.Mark.Seq < next {
					errs <- fmt.Errorf("from %d at %d: got %v, error %w", from, next, b, err)
					return
				}
				next = b.Mark.Seq + 1
			}
			errs <- nil
		}()
	}
	appendMany(t, l, 400, 5)
	for range 20 {
		if err := <-errs; err != nil {
			t.Error(err)
		}
	}
	if n := l.srv.behind.Load(); n != 0 {
		t.Errorf("%d readers still hold a window after Close", n)
	}
}

func TestWaitingReaderEndsWithItsContextAndWithTheServer(t *testing.T) {
	t.Parallel()
	s := openServer(t, Config{})
	l := openLog(t, s)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	r := l.Reader(1)
	defer r.Close()
	_, err := r.Next(ctx)
	wantError(t, err, context.Canceled)

	waiting := make(chan error)
	go func() {
		r := l.Reader(1)
		defer r.Close()
		_, err := r.Next(t.Context())
		waiting <- err
	}()
	closeServer(t, s)
	wantError(t, <-waiting, lockstep.ErrUnavailable)
	wantError(t, l.Append(t.Context(), small(1), markAt(1), func(error) {}), lockstep.ErrUnavailable)
}

func TestSecondOpenOfADirectoryIsRefusedByName(t *testing.T) {
	t.Parallel()
	s := openServer(t, Config{})
	_, err := Open(t.Context(), Config{Dir: s.cfg.Dir})
	wantError(t, err, lockstep.ErrConflict)
	if !strings.Contains(err.Error(), s.cfg.Dir) || !strings.Contains(err.Error(), fmt.Sprint(os.Getpid())) {
		t.Errorf("the error does not name directory and process: %v", err)
	}
	closeServer(t, s)
	openServer(t, Config{Dir: s.cfg.Dir})
}

func TestDatabasesDoNotMeet(t *testing.T) {
	t.Parallel()
	s := openServer(t, Config{})
	names := []string{"app", "APP", "a.b", "a=2Eb", "a b", "ä*>", "a/b"}
	for i, name := range names {
		l, err := s.Log(t.Context(), name)
		if err != nil {
			t.Fatal(err)
		}
		append1(t, l, small(i+1), markAt(1))
	}
	for i, name := range names {
		if l, err := s.Log(t.Context(), name); err != nil || l.Last().Seq != uint64(i+1) || l.Database() != name {
			t.Errorf("%q: last %+v, error %v", name, l.Last(), err)
		}
	}
	_, err := s.Log(t.Context(), "")
	wantError(t, err, lockstep.ErrInvalid)
}

func TestSecondWriterIsFenced(t *testing.T) {
	t.Parallel()
	url, _ := natsServer(t)
	a, b := openLog(t, openServer(t, Config{URL: url})), openLog(t, openServer(t, Config{URL: url}))
	append1(t, a, small(2), markAt(1))
	if mark, err := b.Recover(t.Context()); err != nil || mark.Seq != 2 {
		t.Fatalf("the second writer recovered %+v, error %v", mark, err)
	}
	append1(t, b, small(2), markAt(2))
	wantError(t, tryAppend(t.Context(), a, small(1), markAt(3)), lockstep.ErrFenced)
	wantError(t, tryAppend(t.Context(), a, small(1), markAt(3)), lockstep.ErrFenced)
	append1(t, b, small(2), markAt(4))
	readTo(t, b, 1, 6)
	readTo(t, a, 1, 6) // the one that lost follows

	if mark, err := a.Recover(t.Context()); err != nil || mark.Seq != 6 || mark.CommitLSN != 4 {
		t.Fatalf("taking over again gave %+v, error %v", mark, err)
	}
	append1(t, a, small(1), markAt(5))
	readTo(t, b, 1, 7)
}

func TestForeignMessageFencesAndIsPassedOver(t *testing.T) {
	t.Parallel()
	l := openLog(t, openServer(t, Config{}))
	append1(t, l, small(2), markAt(1))
	publishRaw(t, l, nil, []byte("not a batch"))
	err := tryAppend(t.Context(), l, small(1), markAt(2))
	wantError(t, err, lockstep.ErrFenced)
	if mark, err := l.Recover(t.Context()); err != nil || mark.Seq != 2 {
		t.Fatalf("recovered %+v, error %v", mark, err)
	}
	append1(t, l, small(1), markAt(2))
	l.srv.cache.drop(l)
	l.index.clear()
	readTo(t, l, 1, 3)
	for seq := range uint64(3) {
		if _, err := l.BatchOf(t.Context(), seq+1); err != nil {
			t.Errorf("BatchOf(%d): %v", seq+1, err)
		}
	}
}

func publishRaw(t testing.TB, l *Log, h nats.Header, data []byte) {
	t.Helper()
	if _, err := l.srv.js.PublishMsg(t.Context(), &nats.Msg{Subject: l.subject, Header: h, Data: data}); err != nil {
		t.Fatal(err)
	}
}

func TestLostConnectionFailsWhatIsInFlightAndRecoverFindsWhatIsThere(t *testing.T) {
	t.Parallel()
	url, restart := natsServer(t)
	l := openLog(t, openServer(t, Config{URL: url, AckTimeout: 2 * time.Second}))
	var next, confirmed uint64
	for round := range 3 {
		mark, err := l.Recover(t.Context())
		for errors.Is(err, lockstep.ErrUnavailable) {
			mark, err = l.Recover(t.Context())
		}
		if err != nil || mark.Seq < confirmed {
			t.Fatalf("recovered %+v, error %v; %d was confirmed", mark, err, confirmed)
		}
		next = mark.Seq + 1
		failed, results := false, make(chan error, 10_000)
		restarted := make(chan struct{})
		go func() {
			defer close(restarted)
			if round < 2 {
				restart()
			}
		}()
		sent := 0
		for range 500 {
			if err := l.Append(t.Context(), small(1), markAt(lockstep.LSN(next)), func(err error) { results <- err }); err != nil {
				break
			}
			sent++
		}
		for range sent {
			err := <-results
			if err == nil && failed {
				t.Fatal("a batch was confirmed after one before it had failed")
			}
			if err == nil {
				confirmed = next
				next++
			}
			failed = failed || err != nil
		}
		<-restarted
	}
	readTo(t, l, 1, confirmed)
	if confirmed == 0 {
		t.Error("nothing was ever confirmed")
	}
}

const appenderDir = "LOCKSTEP_TEST_APPENDER_DIR"

// appendUntilKilled is the child process of the test below: it appends batches of
// all sizes and prints the last seq of each one that is confirmed.
func appendUntilKilled(dir string) {
	s, err := Open(context.Background(), Config{Dir: dir})
	if err != nil {
		fmt.Println("error", err)
		return
	}
	l, err := s.Log(context.Background(), "app")
	if err == nil {
		_, err = l.Recover(context.Background())
	}
	for i := 0; err == nil; i++ {
		changes, size := 1+rand.IntN(20), 20
		if i%50 == 49 {
			changes, size = 20, 1<<20 // in parts
		}
		var last uint64
		seq := make(chan uint64, 1)
		err = l.Append(context.Background(), batchOf(changes, size, time.Unix(1_790_000_000, 0)), markAt(1), func(err error) {
			if err == nil {
				last = <-seq
				fmt.Println(last)
			}
		})
		seq <- l.writer.nextSeq() - 1
	}
	fmt.Println("error", err)
}

func TestKilledWriterLosesNothingThatWasConfirmed(t *testing.T) {
	t.Parallel()
	dir, confirmed := t.TempDir(), uint64(0)
	for range 6 {
		confirmed = max(confirmed, killAppender(t, dir))
	}
	s := openServer(t, Config{Dir: dir})
	l := openLog(t, s)
	if l.Last().Seq < confirmed {
		t.Fatalf("the log ends at %d, confirmed was %d", l.Last().Seq, confirmed)
	}
	if _, err := l.Recover(t.Context()); err != nil {
		t.Fatal(err)
	}
	append1(t, l, small(5), markAt(9))
	l.srv.cache.drop(l)
	readTo(t, l, 1, l.Last().Seq)
	for range 50 {
		seq := 1 + rand.Uint64N(l.Last().Seq)
		l.index.clear()
		l.srv.cache.drop(l)
		if b, err := l.BatchOf(t.Context(), seq); err != nil || seq < b.First || seq > b.Mark.Seq {
			t.Fatalf("BatchOf(%d) = %v, error %v", seq, b, err)
		}
	}
	t.Logf("%d changes survived, %d were confirmed", l.Last().Seq, confirmed)
}

// killAppender runs the child for a moment, kills it and returns the last seq that
// it saw confirmed.
func killAppender(t *testing.T, dir string) uint64 {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Duration(300+rand.IntN(700))*time.Millisecond)
	defer cancel()
	cmd := exec.CommandContext(ctx, os.Args[0])
	cmd.Env = append(os.Environ(), appenderDir+"="+dir)
	out, _ := cmd.Output() // it always ends by being killed
	if strings.Contains(string(out), "error") {
		t.Fatalf("the child failed: %s", out[strings.Index(string(out), "error"):])
	}
	var last uint64
	for line := range strings.Lines(string(out)) {
		// The last line may be cut off by the kill; a number cut short is only smaller.
		var seq uint64
		if _, err := fmt.Sscan(line, &seq); err == nil {
			last = max(last, seq)
		}
	}
	if last == 0 {
		t.Log("killed before anything was confirmed")
	}
	return last
}
