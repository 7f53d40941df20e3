package backfill

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"lockstep"
	"lockstep/internal/capture/wal"
	"lockstep/internal/pgdb"
	"lockstep/internal/pgdb/pgtest"
)

// The oracle: writers change, insert and delete rows, and change keys, while the
// backfill runs and its process dies at random moments. What a consumer then has
// equals the table.
func TestTheConsumersViewEqualsTheTable(t *testing.T) {
	t.Parallel()
	for _, identity := range []string{"DEFAULT", "FULL"} {
		t.Run(identity, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, "CREATE TABLE a (id int PRIMARY KEY, v text, n int DEFAULT 0)", "ALTER TABLE a ALTER v SET STORAGE EXTERNAL", "ALTER TABLE a REPLICA IDENTITY "+identity,
				// Every third row has a value out of line, which its updates do not carry.
				"INSERT INTO a SELECT i, CASE WHEN i % 3 = 0 THEN repeat('x', 3000) || i ELSE 'v' || i END FROM generate_series(1, 2000) i").capturing("a")
			seed := rand.Uint64()
			t.Log("seed", seed)
			stop := w.writers(3, seed)
			random := rand.New(rand.NewPCG(seed, 0))
			id, v := "", Job{}
			for crashes := 0; ; crashes++ {
				r, kill := w.running(func(t *tuning) { t.most = 20 })
				if id == "" {
					id = start(t, r, Request{Tables: []string{"public.a"}}).ID
				}
				if crashes > 15 {
					v = awaits(t, r, id, Completed)
					kill()
					break
				}
				time.AfterFunc(time.Duration(random.IntN(150))*time.Millisecond, kill)
				kill2(t, r, id, kill)
			}
			stop()
			w.caughtUp()
			w.same(orders, "a")
			reads := w.reads(orders, "a")
			if len(reads) < 500 || v.Rows < uint64(len(reads)) {
				t.Errorf("%d keys were read, %d rows counted, %d overridden", len(reads), v.Rows, v.Overridden)
			}
			t.Logf("%d rows, %d overridden", v.Rows, v.Overridden)
		})
	}
}

// kill2 waits until the runner was ended or the job is.
func kill2(t *testing.T, r *Runner, id string, kill func()) {
	t.Helper()
	pgtest.Eventually(t, 10*time.Second, "the runner ends", func() bool {
		v, err := r.Get(t.Context(), id)
		return err == nil && v.State.Ended() || r.idle()
	})
	kill()
}

// idle reports whether no turn is being taken, as after the end of Run.
func (r *Runner) idle() bool {
	for _, j := range r.all() {
		j.mu.Lock()
		busy := j.stop != nil
		j.mu.Unlock()
		if busy {
			return false
		}
	}
	return true
}

// writers change table a until they are stopped.
func (w *world) writers(n int, seed uint64) (stop func()) {
	ctx, cancel := context.WithCancel(w.t.Context())
	pool, err := pgdb.Open(ctx, w.url, "writers")
	if err != nil {
		w.t.Fatal(err)
	}
	var group sync.WaitGroup
	for i := range n {
		random := rand.New(rand.NewPCG(seed, uint64(i+1)))
		group.Go(func() {
			for ctx.Err() == nil {
				_, err := pool.Exec(ctx, change(random))
				if err != nil && ctx.Err() == nil && !passes(sqlState(err)) && sqlState(err) != "23505" {
					w.t.Error(err)
					return
				}
			}
		})
	}
	stop = sync.OnceFunc(func() {
		cancel()
		group.Wait()
		pool.Close()
	})
	w.t.Cleanup(stop)
	return stop
}

// change is one statement, or a transaction of several.
func change(random *rand.Rand) string {
	id, other := random.IntN(2200)+1, random.IntN(2200)+1
	switch random.IntN(8) {
	case 0:
		return fmt.Sprintf("DELETE FROM a WHERE id = %d", id)
	case 1:
		return fmt.Sprintf("INSERT INTO a VALUES (%d, 'new %d') ON CONFLICT (id) DO UPDATE SET v = 'again %d'", id, random.IntN(1000), other)
	case 2:
		return fmt.Sprintf("UPDATE a SET id = %d WHERE id = %d", other, id)
	case 3:
		return fmt.Sprintf("BEGIN; DELETE FROM a WHERE id = %d; INSERT INTO a VALUES (%d, 'back'); UPDATE a SET n = n + 1 WHERE id = %d; COMMIT", id, id, id)
	case 4:
		return fmt.Sprintf("UPDATE a SET v = repeat('y', 3000) || %d WHERE id = %d", other, id)
	case 5:
		return fmt.Sprintf("BEGIN; UPDATE a SET v = 'never' WHERE id = %d; ROLLBACK", id)
	}
	return fmt.Sprintf("UPDATE a SET n = n + 1 WHERE id BETWEEN %d AND %d", id, id+3)
}

// A process that dies at any moment repeats nothing: neither before the page is in
// the log, nor between that and the save.
func TestNoPageIsRepeatedAfterACrash(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "CREATE TABLE a (id int PRIMARY KEY, v text)", "INSERT INTO a SELECT i, 'v' || i FROM generate_series(1, 300) i",
		"CREATE TABLE b (id int PRIMARY KEY, v text)", "INSERT INTO b SELECT * FROM a WHERE id <= 50").capturing("a", "b")
	crashing := &crashingStore{Store: w.store, random: rand.New(rand.NewPCG(1, 2))}
	w.store = crashing
	id, crashes := "", 0
	for {
		// Pages alone, and many that follow each other.
		r := w.runner(func(t *tuning) { t.most, t.stride = 4, []time.Duration{1, 20 * time.Millisecond}[crashes%2] })
		if id == "" {
			id = start(t, r, Request{}).ID
		} else if err := r.load(t.Context()); err != nil {
			t.Fatal(err)
		}
		j := r.job(id)
		if j == nil {
			break
		}
		for !crashing.crashed() && !j.ended() {
			r.turn(t.Context(), j)
		}
		crashes++
	}
	t.Log("crashes:", crashes)
	if crashes < 10 {
		t.Errorf("only %d crashes say little", crashes)
	}
	once(t, w.reads(orders, "a"), 300)
	once(t, w.reads(orders, "b"), 50)
	v, err := w.runner().Get(t.Context(), id)
	if err != nil || v.Rows != 350 || v.Tables[0].Rows != 300 || v.Tables[1].Rows != 50 {
		t.Errorf("got %+v, %v", v, err)
	}
}

// crashingStore loses every third save, and what follows until the process is
// another one.
type crashingStore struct {
	Store
	random *rand.Rand
	down   bool
}

func (s *crashingStore) crashed() bool {
	was := s.down
	s.down = false
	return was
}

// Save implements [Store].
func (s *crashingStore) Save(ctx context.Context, r Record, tables []int) error {
	if s.down = s.down || s.random.IntN(3) == 0; s.down {
		return errors.New("the process has died")
	}
	return s.Store.Save(ctx, r, tables)
}

// flaky is an Interleaver whose connection breaks.
type flaky struct {
	Interleaver
	mu   sync.Mutex
	turn int
}

// InterleaveEach implements [Interleaver].
func (f *flaky) InterleaveEach(ctx context.Context, oid uint32, read func(context.Context, uint64) (wal.Page, error), placed func(wal.Interleaved) error) error {
	return alone(ctx, f, oid, read, placed)
}

// Interleave implements [Interleaver]: every second time the page is in the log and
// nobody learns of it.
func (f *flaky) Interleave(ctx context.Context, oid uint32, read func(context.Context, uint64) (wal.Page, error)) (wal.Interleaved, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.turn++
	if f.turn%3 == 0 {
		return wal.Interleaved{}, fmt.Errorf("not streaming: %w", lockstep.ErrUnavailable)
	}
	result, err := f.Interleaver.Interleave(ctx, oid, read)
	if f.turn%2 == 0 && err == nil {
		return wal.Interleaved{}, fmt.Errorf("the connection broke: %w", lockstep.ErrUnavailable)
	}
	return result, err
}

// deaf is an Interleaver that stops listening while pages are on their way.
type deaf struct {
	Interleaver
	pages int
}

// InterleaveEach implements [Interleaver]: every sixth page is in the log, as may be
// those behind it, and nobody learns of it.
func (d *deaf) InterleaveEach(ctx context.Context, oid uint32, read func(context.Context, uint64) (wal.Page, error), placed func(wal.Interleaved) error) error {
	return d.Interleaver.InterleaveEach(ctx, oid, read, func(result wal.Interleaved) error {
		if d.pages++; d.pages%6 == 0 {
			return fmt.Errorf("the connection broke: %w", lockstep.ErrUnavailable)
		}
		return placed(result)
	})
}

func TestPagesOnTheirWayWhenAConnectionBreaksAreNotRepeated(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "CREATE TABLE a (id int PRIMARY KEY, v text)", "INSERT INTO a SELECT i, 'v' || i FROM generate_series(1, 300) i").capturing("a")
	broken := &deaf{Interleaver: w.capture}
	w.source.Capture = broken
	r, _ := w.running(func(t *tuning) { t.most, t.stride = 10, time.Minute })
	v := awaits(t, r, start(t, r, Request{Tables: []string{"public.a"}}).ID, Completed)
	once(t, w.reads(orders, "a"), 300)
	if v.Rows != 300 || broken.pages < 20 {
		t.Errorf("it says that %d rows went out, in %d pages", v.Rows, broken.pages)
	}
}

func TestAConnectionThatBreaksRepeatsNothing(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "CREATE TABLE a (id int PRIMARY KEY, v text)", "INSERT INTO a SELECT i, 'v' || i FROM generate_series(1, 100) i").capturing("a")
	w.source.Capture = &flaky{Interleaver: w.capture}
	r, _ := w.running(func(t *tuning) { t.most = 10 })
	v := awaits(t, r, start(t, r, Request{Tables: []string{"public.a"}}).ID, Completed)
	once(t, w.reads(orders, "a"), 100)
	if v.Rows != 100 {
		t.Errorf("it says that %d rows went out", v.Rows)
	}
}

// late is an Interleaver whose pages reach the log long after it has given up.
type late struct {
	Interleaver
	log  Log
	page *wal.Page
	turn int
}

// InterleaveEach implements [Interleaver].
func (l *late) InterleaveEach(ctx context.Context, oid uint32, read func(context.Context, uint64) (wal.Page, error), placed func(wal.Interleaved) error) error {
	return alone(ctx, l, oid, read, placed)
}

// Interleave implements [Interleaver].
func (l *late) Interleave(ctx context.Context, oid uint32, read func(context.Context, uint64) (wal.Page, error)) (wal.Interleaved, error) {
	if page := l.page; page != nil {
		l.page = nil
		if _, err := l.Interleaver.Interleave(ctx, oid, func(context.Context, uint64) (wal.Page, error) { return *page, nil }); err != nil {
			return wal.Interleaved{}, err
		}
	}
	if l.turn++; l.turn%2 == 0 {
		return l.Interleaver.Interleave(ctx, oid, read)
	}
	page, err := read(ctx, l.log.Last().Seq)
	if err != nil {
		return wal.Interleaved{}, err
	}
	l.page = &page
	return wal.Interleaved{}, fmt.Errorf("the connection broke: %w", lockstep.ErrUnavailable)
}

// A page may be on its way still when the next one is prepared: what counts is what
// lies before the next low watermark.
func TestAPageThatIsLateIsFound(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "CREATE TABLE a (id int PRIMARY KEY, v text)", "INSERT INTO a SELECT i, 'v' || i FROM generate_series(1, 100) i").capturing("a")
	w.source.Capture = &late{Interleaver: w.capture, log: w.source.Log}
	r, _ := w.running(func(t *tuning) { t.most = 10 })
	awaits(t, r, start(t, r, Request{Tables: []string{"public.a"}}).ID, Completed)
	once(t, w.reads(orders, "a"), 100)
}

// A capture that is away is waited for, and so is the control plane.
func TestWhatIsAwayIsWaitedFor(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "CREATE TABLE a (id int PRIMARY KEY, v text)", "INSERT INTO a SELECT i, 'v' || i FROM generate_series(1, 50) i")
	pgtest.Exec(t, w.url, "CREATE PUBLICATION p FOR TABLE a", "CREATE PUBLICATION p_inserts WITH (publish = 'insert,truncate')")
	stop := w.startCapture()
	stop()
	r, _ := w.running(func(t *tuning) { t.most = 10 })
	v := awaits(t, r, start(t, r, Request{Tables: []string{"public.a"}}).ID, Waiting)
	if v.Reason == "" || v.Left != -1 {
		t.Errorf("got %+v", v)
	}
	pgtest.Exec(t, w.url, "ALTER TABLE lockstep.backfill RENAME TO away")
	w.startCapture()
	w.caughtUp()
	pgtest.Exec(t, w.url, "ALTER TABLE lockstep.away RENAME TO backfill")
	awaits(t, r, v.ID, Completed)
	once(t, w.reads(orders, "a"), 50)
}
