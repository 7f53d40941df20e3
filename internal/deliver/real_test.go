package deliver_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"lockstep"
	"lockstep/internal/deliver"
	"lockstep/internal/stream"
)

// onStream gives delivery the real stream, as the engine does.
type onStream struct{ *stream.Log }

func (l onStream) Reader(from uint64) deliver.Reader { return l.Log.Reader(from) }

type realDead struct{ *stream.Dead }

func (d realDead) Put(ctx context.Context, consumer string, l deliver.Letter) error {
	return d.Dead.Put(ctx, consumer, stream.Letter(l))
}

func (d realDead) Get(ctx context.Context, consumer string, seq uint64) (deliver.Letter, error) {
	l, err := d.Dead.Get(ctx, consumer, seq)
	return deliver.Letter(l), err
}

func (d realDead) List(ctx context.Context, consumer string, after uint64, limit int) ([]deliver.Letter, uint64, error) {
	found, next, err := d.Dead.List(ctx, consumer, after, limit)
	var letters []deliver.Letter
	for _, l := range found {
		letters = append(letters, deliver.Letter(l))
	}
	return letters, next, err
}

// real is a broker on the real stream in a directory.
type real struct {
	server *stream.Server
	log    *stream.Log
	dead   *stream.Dead
	broker *deliver.Broker
}

func openReal(ctx context.Context, dir string) (*real, error) {
	quiet := slog.New(slog.DiscardHandler)
	s, err := stream.Open(ctx, stream.Config{Dir: dir, Logger: quiet})
	if err != nil {
		return nil, err
	}
	log, err := s.Log(ctx, "app")
	if err != nil {
		return nil, err
	}
	states, err := s.States(ctx)
	if err != nil {
		return nil, err
	}
	dead, err := s.Dead(ctx)
	if err != nil {
		return nil, err
	}
	b := deliver.New(deliver.Config{
		Logs:   func(context.Context, string) (deliver.Log, error) { return onStream{log}, nil },
		States: states, Dead: realDead{dead}, Secret: []byte("0123456789abcdef0123456789abcdef"), Logger: quiet,
		Mirrored: func(_, schema, table string) (deliver.Mirrored, bool) {
			return deliver.Mirrored{SyncID: acme, Sync: "acme", Provider: "stripe", Collection: "stripe:" + table}, schema == "stripe"
		},
	})
	return &real{server: s, log: log, dead: dead, broker: b}, nil
}

func newReal(t testing.TB, dir string) *real {
	t.Helper()
	r, err := openReal(t.Context(), dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := r.server.Close(); err != nil {
			t.Error(err)
		}
	})
	return r
}

// fillReal appends n changes in batches of size, of keys in turn.
func fillReal(ctx context.Context, log *stream.Log, n, size, keys int) error {
	source := newMemLog()
	var failed atomic.Pointer[error]
	for at := 0; at < n; at += size {
		rows := make([]row, min(size, n-at))
		for i := range rows {
			rows[i] = row{key: strconv.Itoa((at + i) % keys), extra: `,"payload":"` + strings.Repeat("x", 150) + `"`}
		}
		err := log.Append(ctx, source.fill(rows), lockstep.Mark{SystemID: 7, Timeline: 1, CommitLSN: lockstep.LSN(at + 1), Complete: true}, func(err error) {
			if err != nil {
				failed.Store(&err)
			}
		})
		if err != nil {
			return err
		}
	}
	for log.Last().Seq < uint64(n) {
		if e := failed.Load(); e != nil {
			return *e
		}
		if _, err := log.Recover(ctx); err != nil {
			return err
		}
	}
	return nil
}

func TestWorkersOnTheRealStreamGetEveryChangeOnceInOrder(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	r := newReal(t, dir)
	const n, keys = 30_000, 300
	if err := fillReal(t.Context(), r.log, n, 997, keys); err != nil {
		t.Fatal(err)
	}
	stop := run(t, r.broker)
	c, err := r.broker.Put(t.Context(), definition(func(d *deliver.Definition) { d.Backoff = deliver.Backoff{First: 1, Max: 1} }))
	if err != nil {
		t.Fatal(err)
	}
	var (
		mu   sync.Mutex
		last = map[string]uint64{} // the last acked of each key
		done int
		wg   sync.WaitGroup
	)
	for worker := range 4 {
		wg.Go(func() {
			random := rand.New(rand.NewPCG(1, uint64(worker)))
			for {
				res, err := c.Next(t.Context(), deliver.NextRequest{Batch: 1 + random.IntN(400), Wait: 100 * time.Millisecond})
				if err != nil {
					t.Error(err)
					return
				}
				mu.Lock()
				if done == n {
					mu.Unlock()
					return
				}
				mu.Unlock()
				var good, bad []string
				refused := map[string]bool{}
				mu.Lock()
				for _, d := range res.Deliveries {
					key := string(d.Record.PKs())
					if random.IntN(50) == 0 {
						refused[key] = true
						bad = append(bad, d.Token)
					}
					if refused[key] {
						continue
					}
					if d.Record.Seq() <= last[key] {
						t.Errorf("key %s: %d after %d", key, d.Record.Seq(), last[key])
					}
					last[key] = d.Record.Seq()
					good = append(good, d.Token)
				}
				done += len(good)
				mu.Unlock()
				settleBoth(t, c, good, bad)
			}
		})
	}
	wg.Wait()
	if s := c.Stats(); s.Floor != n || s.Pending != 0 {
		t.Errorf("at the end: %+v", s)
	}
	stop()
}

func settleBoth(t *testing.T, c *deliver.Consumer, good, bad []string) {
	t.Helper()
	if len(bad) > 0 {
		if stale, err := c.Nack(t.Context(), bad, deliver.NackOptions{}); err != nil || len(stale) > 0 {
			t.Errorf("nack: %d stale, error %v", len(stale), err)
		}
	}
	if len(good) > 0 {
		if stale, err := c.Ack(t.Context(), good); err != nil || len(stale) > 0 {
			t.Errorf("ack: %d stale, error %v", len(stale), err)
		}
	}
}

// childDir names the directory of a child that is to be killed.
const childDir = "LOCKSTEP_TEST_DELIVER_DIR"

const (
	crashChanges = 20_000
	crashKeys    = 50
)

// child works on a consumer until it is killed, and tells what it was given and what
// was acked: "d SEQ" and "a SEQ", the latter after the ack's success.
func child(dir string) error {
	ctx := context.Background()
	r, err := openReal(ctx, dir)
	if err != nil {
		return err
	}
	go func() { _ = r.broker.Run(ctx) }()
	c, err := r.broker.Put(ctx, crashDefinition())
	if err != nil {
		return err
	}
	var mu sync.Mutex
	tell := func(what string, seqs []uint64) {
		var b strings.Builder
		for _, s := range seqs {
			fmt.Fprintf(&b, "%s %d\n", what, s)
		}
		mu.Lock()
		defer mu.Unlock()
		_, _ = os.Stdout.WriteString(b.String())
	}
	failed := make(chan error)
	for worker := range 4 {
		go func() { failed <- childWork(ctx, c, 1+10*worker, tell) }()
	}
	return <-failed
}

func childWork(ctx context.Context, c *deliver.Consumer, batch int, tell func(string, []uint64)) error {
	for round := 0; ; round++ {
		res, err := c.Next(ctx, deliver.NextRequest{Batch: batch, Wait: time.Second})
		if err != nil {
			return err
		}
		if len(res.Deliveries) == 0 {
			if res.Pending+res.AckPending == 0 {
				return io.EOF
			}
			continue
		}
		var seqs []uint64
		for _, d := range res.Deliveries {
			seqs = append(seqs, d.Record.Seq())
		}
		tell("d", seqs)
		if round%17 == 0 {
			if _, err := c.Nack(ctx, tokens(res.Deliveries...), deliver.NackOptions{}); err != nil {
				return err
			}
			continue
		}
		stale, err := c.Ack(ctx, tokens(res.Deliveries...))
		if err != nil || len(stale) > 0 {
			return fmt.Errorf("%d stale: %w", len(stale), errors.Join(err, io.ErrUnexpectedEOF))
		}
		tell("a", seqs)
	}
}

func crashDefinition() deliver.Definition {
	return definition(func(d *deliver.Definition) {
		d.ID = "6e4f3b1a-0000-4000-8000-000000000001"
		d.Backoff = deliver.Backoff{First: time.Millisecond, Max: 5 * time.Millisecond}
	})
}

// TestKilledAtAnyMoment kills the process that delivers again and again. An acked
// change must never come again, and no change before its key's earlier ones are acked.
func TestKilledAtAnyMoment(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	r, err := openReal(t.Context(), dir)
	if err != nil {
		t.Fatal(err)
	}
	if err := fillReal(t.Context(), r.log, crashChanges, 500, crashKeys); err != nil {
		t.Fatal(err)
	}
	if err := r.server.Close(); err != nil {
		t.Fatal(err)
	}
	w := watcher{acked: map[uint64]bool{}, given: map[uint64]bool{}}
	for life := 0; !w.ended; life++ {
		w.watch(t, dir, life)
		if life > 500 {
			t.Fatal("it does not come to an end")
		}
	}
	// Some acks were saved and the process killed before it could tell.
	if len(w.given) != crashChanges {
		t.Errorf("%d of %d were handed out in the end", len(w.given), crashChanges)
	}
}

type watcher struct {
	acked map[uint64]bool
	given map[uint64]bool
	ended bool
}

// watch lets a child live for a moment and checks what it tells.
func (w *watcher) watch(t *testing.T, dir string, life int) {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), childDir+"="+dir)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	// Killed after so many lines: at another place of its work each time.
	limit := 200 + rand.IntN(4000)
	lines := bufio.NewScanner(out)
	n := 0
	for lines.Scan() {
		what, number, _ := strings.Cut(lines.Text(), " ")
		seq, err := strconv.ParseUint(number, 10, 64)
		if err != nil {
			t.Fatalf("life %d: %q", life, lines.Text())
		}
		w.line(t, what, seq)
		if n++; n == limit {
			if err := cmd.Process.Kill(); err != nil {
				t.Fatal(err)
			}
		}
	}
	err = cmd.Wait()
	var exit *exec.ExitError
	if errors.As(err, &exit) && exit.ExitCode() == childDone {
		w.ended = true
	} else if exit == nil || exit.ExitCode() != -1 {
		t.Fatalf("life %d: the child ended by itself: %v", life, err)
	}
}

func (w *watcher) line(t *testing.T, what string, seq uint64) {
	t.Helper()
	if what == "a" {
		w.acked[seq] = true
		return
	}
	if w.acked[seq] {
		t.Fatalf("change %d was handed out after its ack had been answered", seq)
	}
	w.given[seq] = true
	if before := seq - crashKeys; seq > crashKeys && !w.given[before] {
		t.Fatalf("change %d was handed out before change %d of its key", seq, before)
	}
}

// childDone is the exit code of a child that found nothing left to do.
const childDone = 42

// BenchmarkDeliver drains a filled stream with four workers, every ack on disk.
func BenchmarkDeliver(b *testing.B) {
	for _, keys := range []int{1 << 30, 1000} {
		for _, size := range []int{500, 100} {
			b.Run(fmt.Sprintf("keys=%d/batch=%d", keys, size), func(b *testing.B) { benchmarkDeliver(b, keys, size) })
		}
	}
}

func benchmarkDeliver(b *testing.B, keys, size int) {
	const n = 400_000
	r := newReal(b, b.TempDir())
	if err := fillReal(b.Context(), r.log, n, 1000, keys); err != nil {
		b.Fatal(err)
	}
	stop := run(b, r.broker)
	defer stop()
	for i := 0; b.Loop(); i++ {
		c, err := r.broker.Put(b.Context(), definition(func(d *deliver.Definition) { d.Name, d.MaxInFlight = fmt.Sprint(i), 10_000 }))
		if err != nil {
			b.Fatal(err)
		}
		var done atomic.Int64
		var wg sync.WaitGroup
		for range 4 {
			wg.Go(func() {
				for done.Load() < n {
					res, err := c.Next(b.Context(), deliver.NextRequest{Batch: size, Wait: 20 * time.Millisecond})
					if err != nil {
						b.Error(err)
						return
					}
					if len(res.Deliveries) > 0 {
						ack(b, c, res.Deliveries...)
						done.Add(int64(len(res.Deliveries)))
					}
				}
			})
		}
		wg.Wait()
	}
	b.ReportMetric(float64(n)*float64(b.N)/b.Elapsed().Seconds(), "changes/s")
}

func (d realDead) ListBefore(ctx context.Context, consumer string, before uint64, limit int) ([]deliver.Letter, uint64, error) {
	found, next, err := d.Dead.ListBefore(ctx, consumer, before, limit)
	list := make([]deliver.Letter, len(found))
	for i, letter := range found {
		list[i] = deliver.Letter(letter)
	}
	return list, next, err
}

func (d realDead) PutSome(ctx context.Context, consumer string, list []deliver.Letter) error {
	stored := make([]stream.Letter, len(list))
	for i, letter := range list {
		stored[i] = stream.Letter(letter)
	}
	return d.Dead.PutSome(ctx, consumer, stored)
}

func (d realDead) Find(ctx context.Context, consumer string, key, after uint64, limit int) ([]deliver.Letter, uint64, error) {
	found, next, err := d.Dead.Find(ctx, consumer, key, after, limit)
	list := make([]deliver.Letter, len(found))
	for i, letter := range found {
		list[i] = deliver.Letter(letter)
	}
	return list, next, err
}
