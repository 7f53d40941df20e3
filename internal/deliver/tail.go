package deliver

import (
	"context"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"lockstep"
	"lockstep/internal/obs"
)

// tail serves the consumers of one database that have come to the end of its log:
// one reader for all of them, which touches only those that a batch concerns. A
// consumer joins at its head and leaves when it has enough; where it stands is exact
// at both moments, so nothing is missed or offered twice.
type tail struct {
	database string
	log      Log
	logger   *slog.Logger
	mirrored func(database, schema, table string) (Mirrored, bool)
	pos      atomic.Uint64 // the next seq; everything below was offered. Written under mu

	mu       sync.Mutex // before Consumer.mu
	attached map[*Consumer]struct{}
	reading  bool
	members  map[*Consumer]struct{} // all consumers of the database
	interest map[string][]*Consumer // of members, by table
	joined   chan struct{}          // tells run that somebody is attached

	waitMu sync.Mutex
	moved  chan struct{} // closed at the next move; nil: nobody waits
}

// interestLimit bounds how many tables are remembered.
const interestLimit = 20_000

func newTail(database string, log Log, cfg Config) *tail {
	return &tail{database: database, log: log, logger: cfg.Logger, mirrored: cfg.Mirrored, attached: map[*Consumer]struct{}{}, members: map[*Consumer]struct{}{}, joined: make(chan struct{}, 1)}
}

// run reads the end of the log as long as somebody is attached, until ctx ends.
func (t *tail) run(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			t.detachAll()
			return
		case <-t.joined:
		}
		err := t.read(ctx)
		if err == nil || ctx.Err() != nil {
			continue
		}
		// Consumers meet the same trouble when they read by themselves, and tell.
		t.logger.WarnContext(ctx, "the end of the log cannot be read", obs.KeyDatabase, t.database, obs.KeyError, err)
		t.detachAll()
		select {
		case <-time.After(200 * time.Millisecond):
		case <-ctx.Done():
		}
	}
}

// read offers batches until nobody is attached.
func (t *tail) read(ctx context.Context) error {
	t.mu.Lock()
	t.reading = len(t.attached) > 0
	reading, from := t.reading, t.pos.Load()
	t.mu.Unlock()
	if !reading {
		return nil
	}
	r := t.log.Reader(from)
	defer r.Close()
	for {
		b, err := r.Next(ctx)
		if err != nil {
			t.mu.Lock()
			t.reading = false
			t.mu.Unlock()
			return err
		}
		if !t.dispatch(b) {
			return nil
		}
	}
}

// dispatch offers a batch to the consumers that it concerns. It reports false, and
// reading has ended, when nobody is attached.
func (t *tail) dispatch(b *lockstep.Batch) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	in := &inputs{size: b.Len()}
	tables := b.Tables()
	var touched []*Consumer
	numbers := map[*Consumer][]int{}
	for n := range tables {
		for _, c := range t.interested(&tables[n]) {
			if numbers[c] == nil {
				touched = append(touched, c)
			}
			numbers[c] = append(numbers[c], n)
		}
	}
	for _, c := range touched {
		c.receive(b, numbers[c], in)
	}
	t.pos.Store(b.Mark.Seq + 1)
	t.tell()
	t.reading = len(t.attached) > 0
	return t.reading
}

// interested returns the consumers that select the table, attached or not. The caller holds mu.
func (t *tail) interested(table *lockstep.Table) []*Consumer {
	name := tableKey(t.database, table, t.mirrored)
	if list, ok := t.interest[name]; ok {
		return list
	}
	var list []*Consumer
	for c := range t.members {
		if c.currentMatch().selects(table) {
			list = append(list, c)
		}
	}
	if t.interest == nil || len(t.interest) >= interestLimit {
		t.interest = map[string][]*Consumer{}
	}
	t.interest[name] = list
	return list
}

// join makes the consumer known to the tail.
func (t *tail) join(c *Consumer) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.members[c] = struct{}{}
	t.forget()
}

// forget makes the tail ask anew which consumer selects which table. The caller
// holds mu.
func (t *tail) forget() { t.interest = nil }

// attach lets a consumer join whose head lies at the end of the log. When the tail
// is further on already, the consumer reads on by itself.
func (t *tail) attach(c *Consumer) {
	t.mu.Lock()
	defer t.mu.Unlock()
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.attached || c.err != nil || !c.w.wantsMore(c.target()) {
		return
	}
	if len(t.attached) == 0 && !t.reading {
		t.pos.Store(c.w.head)
	}
	if c.w.head < t.pos.Load() {
		return
	}
	c.attached = true
	t.attached[c] = struct{}{}
	select {
	case t.joined <- struct{}{}:
	default:
	}
}

// detach lets a consumer leave where the tail is. The caller holds mu and the
// consumer's.
func (t *tail) detach(c *Consumer) {
	if !c.attached {
		return
	}
	c.syncHead()
	c.leave()
}

// leave ends being attached. The tail's lock and mu are held.
func (c *Consumer) leave() {
	c.attached = false
	delete(c.tail.attached, c)
	c.tail.tell()
}

func (t *tail) detachAll() {
	t.mu.Lock()
	defer t.mu.Unlock()
	for c := range t.attached {
		c.mu.Lock()
		t.detach(c)
		c.settleDown()
		c.mu.Unlock()
	}
	t.tell()
}

// tell wakes those who wait for the tail to move.
func (t *tail) tell() {
	t.waitMu.Lock()
	defer t.waitMu.Unlock()
	if t.moved != nil {
		close(t.moved)
		t.moved = nil
	}
}

// watch returns a channel that is closed when the tail moves, or a consumer leaves.
func (t *tail) watch() <-chan struct{} {
	t.waitMu.Lock()
	defer t.waitMu.Unlock()
	if t.moved == nil {
		t.moved = make(chan struct{})
	}
	return t.moved
}

// receive takes what a batch at the end of the log holds for the consumer. The tail's
// lock is held, so that neither the definition nor being attached can change.
func (c *Consumer) receive(b *lockstep.Batch, tables []int, in *inputs) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.attached {
		return
	}
	c.syncHead()
	if !c.w.wantsMore(c.target()) {
		c.tail.detach(c)
		c.notify()
		return
	}
	var found []change
	if len(tables) == 1 {
		found = lookAt(c.match, b, tables[0], c.w.head, in)
	} else {
		found = look(c.match, b, c.w.head, in)
	}
	c.offer(found, max(c.w.head, b.Mark.Seq+1))
	if len(c.w.holds) > 0 {
		// The scan stops at a barrier of every table.
		c.leave()
	}
	if len(found) > 0 {
		c.settleDown()
	}
}

// lookAt is look for a consumer that only one table of the batch concerns.
func lookAt(m *matcher, b *lockstep.Batch, table int, from uint64, in *inputs) []change {
	h := lockstep.KeyHash(&b.Tables()[table])
	rows := b.OfTable(table)
	found := make([]change, 0, len(rows))
	for _, i := range rows {
		r := b.Record(int(i))
		if r.Seq() < from || !m.takes(r.Action()) {
			continue
		}
		found = appendMatch(found, m, r, h, in.of(int(i), r, m))
	}
	return found
}

// currentMatch returns the matcher. The tail's lock is held.
func (c *Consumer) currentMatch() *matcher {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.match
}

// syncHead moves the head of an attached consumer to where the tail is: everything
// below was offered to whom it concerned. The caller holds mu.
func (c *Consumer) syncHead() {
	if c.attached {
		c.w.head = max(c.w.head, c.tail.pos.Load())
	}
}
