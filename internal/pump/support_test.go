package pump_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	"go.uber.org/goleak"

	"lockstep"
	"lockstep/internal/deliver"
	"lockstep/internal/pump"
	"lockstep/internal/stream"
	"lockstep/sink"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

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

// rig is a log on a disk and a broker.
type rig struct {
	t      testing.TB
	log    *stream.Log
	broker *deliver.Broker
	stop   func()
	note   string // in each row, to make it larger
}

func newRig(t testing.TB) *rig {
	t.Helper()
	s, err := stream.Open(t.Context(), stream.Config{Dir: t.TempDir(), Logger: quiet()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	r := &rig{t: t}
	if r.log, err = s.Log(t.Context(), "app"); err != nil {
		t.Fatal(err)
	}
	states, err := s.States(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	dead, err := s.Dead(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	r.broker = deliver.New(deliver.Config{
		Logs:   func(context.Context, string) (deliver.Log, error) { return onStream{r.log}, nil },
		States: states, Dead: realDead{dead}, Secret: []byte("0123456789abcdef0123456789abcdef"), Logger: quiet(),
	})
	r.stop = start(t, r.broker.Run)
	return r
}

func quiet() *slog.Logger { return slog.New(slog.DiscardHandler) }

// start runs something until the result is called or the test ends.
func start(t testing.TB, run func(context.Context) error) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	done := make(chan error, 1)
	go func() { done <- run(ctx) }()
	stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("run: %v", err)
		}
	})
	t.Cleanup(stop)
	return stop
}

// change is a row of the table orders.
type change struct {
	key    string
	action lockstep.Action // default insert
}

// append writes changes as one transaction, on disk when it returns, and returns the
// last one's seq.
func (r *rig) append(changes ...change) uint64 {
	r.t.Helper()
	table := &lockstep.Table{OID: 16001, Schema: "public", Name: "orders", Key: lockstep.KeyPrimary}
	var w lockstep.BatchWriter
	w.Reset(nil)
	at := r.log.Last().Seq
	w.Begin(lockstep.Tx{CommitLSN: lockstep.LSN(at + 1), CommitTime: time.Now().UnixMicro(), XID: 9})
	for i, c := range changes {
		action := max(c.action, lockstep.Insert)
		buf := w.Open()
		row, pks := `{"id":`+strconv.Quote(c.key)+`,"n":`+strconv.FormatUint(at+uint64(i)+1, 10)+`,"note":"`+r.note+`"}`, `[`+strconv.Quote(c.key)+`]`
		hash := lockstep.KeyHashPart(lockstep.KeyHash(table), []byte(c.key))
		if action.Whole() {
			row, pks, hash = "", "", lockstep.KeyHash(table)
		}
		w.Close(append(append(buf, row...), pks...), lockstep.RecordHead{
			Action: action, Table: w.Table(table), CommitIdx: uint32(i), KeyHash: hash, RecordLen: len(row), PKsLen: len(pks),
		})
	}
	done := make(chan error, 1)
	if err := r.log.Append(r.t.Context(), &w, lockstep.Mark{SystemID: 7, Timeline: 1, CommitLSN: lockstep.LSN(at + 1), Complete: true}, func(err error) { done <- err }); err != nil {
		r.t.Fatal(err)
	}
	if err := <-done; err != nil {
		r.t.Fatal(err)
	}
	return r.log.Last().Seq
}

// fill writes n changes of keys in turn.
func (r *rig) fill(n, keys int) {
	r.t.Helper()
	for at := 0; at < n; at += 500 {
		list := make([]change, min(500, n-at))
		for i := range list {
			list[i].key = "k" + strconv.Itoa((at+i)%keys)
		}
		r.append(list...)
	}
}

func (r *rig) consumer(change func(*deliver.Definition)) *deliver.Consumer {
	r.t.Helper()
	d := deliver.Definition{
		ID: uuid.NewString(), Kind: "webhook", Database: "app", Start: "beginning", AckWait: time.Minute,
		Backoff: deliver.Backoff{First: 2 * time.Millisecond, Max: 20 * time.Millisecond},
	}
	d.Name = "c-" + d.ID[:8]
	if change != nil {
		change(&d)
	}
	d.Defaults()
	c, err := r.broker.Put(r.t.Context(), d)
	if err != nil {
		r.t.Fatal(err)
	}
	return c
}

// pumping runs a pump with pauses that suit a test.
func pumping(t testing.TB, c *deliver.Consumer, s sink.Sink, change func(*pump.Config)) (p *pump.Pump, stop func()) {
	t.Helper()
	config := pump.Config{
		Consumer: c, Logger: quiet(), FirstPause: 5 * time.Millisecond, LongestPause: 40 * time.Millisecond,
		Open: func(context.Context) (pump.Opened, error) { return pump.Opened{Sink: s}, nil },
	}
	if change != nil {
		change(&config)
	}
	p = pump.New(config)
	return p, start(t, p.Run)
}

// receiver is a destination in memory that checks the order of each key: what arrives
// is the next of its key, or one that arrived before.
type receiver struct {
	mu      sync.Mutex
	byKey   map[string][]uint64 // accepted, in order, each once
	writing map[string]int
	seen    map[uint64]int
	total   int
	faults  []string
	// answer decides about a batch before it is accepted; nil: it is
	answer func(ctx context.Context, messages []sink.Message) (int, error)
	closed int
}

func newReceiver() *receiver {
	return &receiver{byKey: map[string][]uint64{}, writing: map[string]int{}, seen: map[uint64]int{}}
}

func (r *receiver) Write(ctx context.Context, messages []sink.Message) (int, error) {
	r.mu.Lock()
	keys := map[string]bool{}
	for _, m := range messages {
		keys[string(m.PKs)] = true
	}
	for k := range keys {
		if r.writing[k]++; r.writing[k] > 1 {
			r.faults = append(r.faults, fmt.Sprintf("key %s is in %d writes at once", k, r.writing[k]))
		}
	}
	answer := r.answer
	r.mu.Unlock()
	n, err := len(messages), error(nil)
	if answer != nil {
		n, err = answer(ctx, messages)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	for k := range keys {
		r.writing[k]--
	}
	bad := map[int]bool{}
	if partial, ok := errors.AsType[*sink.PartialError](err); ok {
		n = len(messages)
		for _, f := range partial.Failed {
			bad[f.Index] = true
		}
	}
	for i, m := range messages[:n] {
		if !bad[i] {
			r.accept(m)
		}
	}
	return n, err
}

func (r *receiver) accept(m sink.Message) {
	r.total++
	r.seen[m.Seq]++
	key := string(m.PKs)
	list := r.byKey[key]
	if len(list) > 0 && m.Seq <= list[len(list)-1] {
		if r.seen[m.Seq] == 1 {
			r.faults = append(r.faults, fmt.Sprintf("key %s: %d after %d", key, m.Seq, list[len(list)-1]))
		}
		return
	}
	r.byKey[key] = append(list, m.Seq)
	var body struct {
		Record   struct{ N uint64 }
		Metadata struct{ Seq uint64 }
	}
	if !m.Action.Whole() && (json.Unmarshal(m.Body, &body) != nil || body.Metadata.Seq != m.Seq || body.Record.N != m.Seq) {
		r.faults = append(r.faults, fmt.Sprintf("seq %d has the body %s", m.Seq, m.Body))
	}
}

func (r *receiver) Close(context.Context) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.closed++
	return nil
}

// distinct is how many different changes arrived.
func (r *receiver) distinct() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.seen)
}

func (r *receiver) decide(answer func(ctx context.Context, messages []sink.Message) (int, error)) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.answer = answer
}

// check fails the test with what went wrong, and checks how many arrived.
func (r *receiver) check(t testing.TB, want int) {
	t.Helper()
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, f := range r.faults[:min(len(r.faults), 10)] {
		t.Error(f)
	}
	if len(r.seen) != want {
		t.Errorf("%d different changes arrived, want %d", len(r.seen), want)
	}
}

// eventually waits for a condition that another goroutine makes true.
func eventually(t testing.TB, what string, cond func() bool) {
	t.Helper()
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	deadline := time.NewTimer(30 * time.Second)
	defer deadline.Stop()
	for !cond() {
		select {
		case <-tick.C:
		case <-deadline.C:
			t.Fatalf("not in time: %s", what)
		}
	}
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
