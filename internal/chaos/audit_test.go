package chaos_test

import (
	"cmp"
	"encoding/json"
	"fmt"
	"slices"
	"sync"
	"time"

	"lockstep/client"
)

// phase is how far a change has come with a consumer.
type phase uint8

const (
	handed  phase = iota
	sent          // an ack is on its way, or its answer was lost
	settled       // an ack was answered with success
)

// step is one version of a row, as the consumer got it.
type step struct {
	seq   uint64
	write uint64
	batch uint64 // the last delivery that brought it
	phase phase
}

// history is a row, as the consumer got it.
type history struct {
	steps []step
	done  int // how many of them, from the start, are settled
}

// holder is who was given a change last.
type holder struct {
	key      string
	token    string
	life     int64     // of the node when it was asked for
	until    time.Time // the lease does not end before
	released bool      // given back by a nack, answered or not
}

// audit is one consumer's record. It is told of every delivery and every answer.
type audit struct {
	consumer string
	lease    time.Duration
	life     func() int64 // counts the starts of the node

	mu        sync.Mutex
	rows      map[string]*history
	holders   map[uint64]holder
	faults    []string
	batches   uint64
	steps     int // distinct changes
	acked     int
	stale     int
	byRestart int // came again after a kill of the node
	byLease   int
	byNack    int
	most      int       // the most that came again after one restart
	inLife    int       // of this life
	lastLife  int64     // inLife is about
	heard     time.Time // of the last new change
	silence   time.Duration
}

func newAudit(consumer string, lease time.Duration, life func() int64) *audit {
	return &audit{consumer: consumer, lease: lease, life: life, rows: map[string]*history{}, holders: map[uint64]holder{}, heard: time.Now()}
}

// receive is told of a delivery: when it was asked for, and in which life of the node.
func (a *audit) receive(ds []client.Delivery, asked time.Time, life int64) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.batches++
	for i := range ds {
		a.delivery(&ds[i], asked, life)
	}
}

func (a *audit) delivery(d *client.Delivery, asked time.Time, life int64) {
	seq := d.Metadata.Seq
	if d.Action == "gap" || d.Action == "truncate" {
		a.fault("change %d: a %s, although none was provoked: %s", seq, d.Action, d.Metadata.Gap)
		return
	}
	key, version, write, err := content(&d.Change)
	if err != nil {
		a.fault("change %d: %v", seq, err)
		return
	}
	h := a.rows[key]
	if h == nil {
		h = &history{}
		a.rows[key] = h
	}
	at, again := slices.BinarySearchFunc(h.steps, seq, bySeq)
	switch {
	case again && h.steps[at].write != write:
		a.fault("%s: change %d came with other content than before", key, seq)
	case again:
		a.repeated(key, &h.steps[at])
	case at < len(h.steps):
		a.fault("%s: change %d came after change %d of the same row", key, seq, h.steps[at].seq)
		return
	case write != deleted && version != len(h.steps)+1:
		a.fault("%s: version %d (change %d) came after version %d", key, version, seq, len(h.steps))
		return
	default:
		h.steps = append(h.steps, step{seq: seq, write: write})
		a.steps++
		now := time.Now()
		a.silence, a.heard = max(a.silence, now.Sub(a.heard)), now
	}
	a.predecessors(key, h, at)
	h.steps[at].batch = a.batches
	a.holders[seq] = holder{key: key, token: d.Token, life: life, until: asked.Add(a.lease)}
}

// repeated judges a change that was handed out before.
func (a *audit) repeated(key string, s *step) {
	old, life := a.holders[s.seq], a.life()
	switch {
	case s.phase == settled:
		a.fault("%s: change %d came again after its ack was answered", key, s.seq)
	case old.released:
		a.byNack++
	case old.life != life:
		a.byRestart++
		if life != a.lastLife {
			a.inLife, a.lastLife = 0, life
		}
		a.inLife++
		a.most = max(a.most, a.inLife)
	case !time.Now().Before(old.until):
		a.byLease++
	default:
		a.fault("%s: change %d has two holders: the lease of the first lasts another %s", key, s.seq, time.Until(old.until))
	}
	if s.phase == sent {
		s.phase = handed // that ack did not count
	}
}

// predecessors holds a delivery to the order: what came before must be settled, or
// come with it.
func (a *audit) predecessors(key string, h *history, at int) {
	for h.done < len(h.steps) && h.steps[h.done].phase == settled {
		h.done++
	}
	for _, before := range h.steps[min(h.done, at):at] {
		if before.phase == handed && before.batch != a.batches {
			a.fault("%s: change %d was handed out before change %d was settled", key, h.steps[at].seq, before.seq)
			return
		}
	}
}

// find returns the step of a delivery.
func (a *audit) find(d *client.Delivery) *step { return a.step(keyOf(&d.Change), d.Metadata.Seq) }

func (a *audit) step(key string, seq uint64) *step {
	h := a.rows[key]
	if h == nil {
		return nil
	}
	at, ok := slices.BinarySearchFunc(h.steps, seq, bySeq)
	if !ok {
		return nil
	}
	return &h.steps[at]
}

func bySeq(s step, seq uint64) int { return cmp.Compare(s.seq, seq) }

// acking is told of an ack before it is sent.
func (a *audit) acking(ds []client.Delivery) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for i := range ds {
		if s := a.find(&ds[i]); s != nil && s.phase == handed && a.holders[s.seq].token == ds[i].Token {
			s.phase = sent
		}
	}
}

// answered is told of an ack's answer, with the tokens that were refused.
func (a *audit) answered(ds []client.Delivery, refused []string) {
	stale := map[string]bool{}
	for _, token := range refused {
		stale[token] = true
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	for i := range ds {
		s := a.find(&ds[i])
		if s == nil {
			continue // the fault was told when it came
		}
		held := a.holders[s.seq]
		switch {
		case stale[ds[i].Token]:
			a.stale++
			if s.phase == sent && held.token == ds[i].Token {
				s.phase = handed
			}
		case held.token != ds[i].Token && s.phase != settled:
			a.fault("change %d: the token of an earlier holder was accepted", s.seq)
		default:
			a.acked++
			s.phase = settled
			delete(a.holders, s.seq)
		}
	}
}

// nacking is told of a nack of the first n changes before it is sent: from then on they
// may come again, and so may what came with them and waits for them.
func (a *audit) nacking(ds []client.Delivery, n int) {
	refused := map[string]bool{}
	var released []client.Delivery
	for i := range ds {
		key := keyOf(&ds[i].Change)
		refused[key] = refused[key] || i < n
		if refused[key] {
			released = append(released, ds[i])
		}
	}
	a.change(released, func(h *holder) { h.released = true })
}

// extended is told of a lease that was extended, asked for at that time.
func (a *audit) extended(ds []client.Delivery, asked time.Time, by time.Duration) {
	a.change(ds, func(h *holder) { h.until = asked.Add(by) })
}

func (a *audit) change(ds []client.Delivery, f func(*holder)) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for i := range ds {
		if h := a.holders[ds[i].Metadata.Seq]; h.token == ds[i].Token {
			f(&h)
			a.holders[ds[i].Metadata.Seq] = h
		}
	}
}

func keyOf(c *client.Change) string {
	if len(c.Metadata.RecordPKs) != 1 {
		return c.Metadata.TableName
	}
	return c.Metadata.TableName + "/" + c.Metadata.RecordPKs[0]
}

// content reads a change and checks that it is what its writer wrote.
func content(c *client.Change) (key string, version int, write uint64, err error) {
	key = keyOf(c)
	if c.Action == "delete" {
		return key, 0, deleted, nil
	}
	return row(key, c.Record)
}

func row(key string, record []byte) (_ string, version int, write uint64, err error) {
	var r struct {
		Version int
		Write   uint64
		Body    string
	}
	if err := json.Unmarshal(record, &r); err != nil {
		return key, 0, 0, fmt.Errorf("%s: %s: %w", key, record, err)
	}
	if r.Body != bodyOf(r.Write) {
		return key, 0, 0, fmt.Errorf("%s: write %d came with a body that nobody wrote", key, r.Write)
	}
	return key, r.Version, r.Write, nil
}

// fault notes a broken promise. The caller holds mu.
func (a *audit) fault(format string, args ...any) {
	if len(a.faults) < 20 {
		a.faults = append(a.faults, "consumer "+a.consumer+": "+fmt.Sprintf(format, args...))
	}
}

func (a *audit) problems() []string {
	a.mu.Lock()
	defer a.mu.Unlock()
	return slices.Clone(a.faults)
}

// processed returns how many changes came.
func (a *audit) processed() int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.steps
}

// open returns how many changes are neither settled nor in an ack that was not
// answered: nobody knows whether that one counted, but if not they come again.
func (a *audit) open() (n int) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for seq, h := range a.holders {
		if s := a.step(h.key, seq); s == nil || s.phase == handed {
			n++
		}
	}
	return n
}

// compare holds the record to what was committed.
func (a *audit) compare(committed map[string][]uint64) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.most > inFlight {
		a.fault("%d changes came again after one restart, at most %d can have been in flight", a.most, inFlight)
	}
	for key, want := range committed {
		h := a.rows[key]
		if h == nil {
			a.fault("%s: %d changes were committed, none came", key, len(want))
			continue
		}
		for i, write := range want {
			if i >= len(h.steps) {
				a.fault("%s: %d changes were committed, %d came", key, len(want), len(h.steps))
				break
			}
			if h.steps[i].write != write {
				a.fault("%s: version %d came as write %d, committed was %d", key, i+1, h.steps[i].write, write)
				break
			}
		}
	}
	for key, h := range a.rows {
		if len(h.steps) > len(committed[key]) {
			a.fault("%s: %d changes came, %d were committed", key, len(h.steps), len(committed[key]))
		}
	}
}
