package api_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"lockstep"
	"lockstep/internal/api"
	"lockstep/internal/auth"
	"lockstep/internal/deliver"
)

// memLog is a log in memory.
type memLog struct {
	mu      sync.Mutex
	batches []*lockstep.Batch // guarded by mu
	first   uint64            // guarded by mu
	grown   chan struct{}     // guarded by mu; closed by each append
}

func newLog() *memLog { return &memLog{first: 1, grown: make(chan struct{})} }

// add appends a batch of inserts into public.orders with the given rows.
func (l *memLog) add(rows ...string) { l.addFor("", rows...) }

// addFor is add for rows that one consumer alone is to get.
func (l *memLog) addFor(consumer string, rows ...string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.batches = append(l.batches, sealed(consumer, uint64(len(l.batches)), l.last()+1, rows...))
	close(l.grown)
	l.grown = make(chan struct{})
}

func sealed(consumer string, n, first uint64, rows ...string) *lockstep.Batch {
	var w lockstep.BatchWriter
	w.Reset(nil)
	table := &lockstep.Table{OID: 1, Schema: "public", Name: "orders", Key: lockstep.KeyPrimary, Consumer: consumer}
	w.Begin(lockstep.Tx{CommitLSN: lockstep.LSN(1000 + n), CommitTime: time.Now().UnixMicro(), XID: 7})
	number := w.Table(table)
	for i, row := range rows {
		buf := append(w.Open(), row...)
		pks := fmt.Sprintf(`["%d"]`, i)
		w.Close(append(buf, pks...), lockstep.RecordHead{Action: lockstep.Insert, Table: number, CommitIdx: uint32(i), RecordLen: len(row), PKsLen: len(pks)})
	}
	data, err := w.Seal(first, lockstep.Mark{SystemID: 1, Timeline: 1, Complete: true})
	if err != nil {
		panic(err)
	}
	b, err := lockstep.ParseBatch(data)
	if err != nil {
		panic(err)
	}
	return b
}

func (l *memLog) last() uint64 {
	if len(l.batches) == 0 {
		return 0
	}
	return l.batches[len(l.batches)-1].Mark.Seq
}

// forget removes what lies before seq, as retention does.
func (l *memLog) forget(before uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.first = before
}

func (l *memLog) First() uint64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.first
}

func (l *memLog) Last() lockstep.Mark {
	l.mu.Lock()
	defer l.mu.Unlock()
	return lockstep.Mark{Seq: l.last()}
}

func (l *memLog) BatchOf(_ context.Context, seq uint64) (*lockstep.Batch, error) {
	b, _, err := l.find(seq)
	if err == nil && b == nil {
		err = fmt.Errorf("seq %d: %w", seq, lockstep.ErrNotFound)
	}
	return b, err
}

func (l *memLog) find(seq uint64) (*lockstep.Batch, <-chan struct{}, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if seq < l.first {
		return nil, nil, &lockstep.RetentionError{Asked: seq, First: l.first}
	}
	for _, b := range l.batches {
		if seq >= b.First && seq <= b.Mark.Seq {
			return b, nil, nil
		}
	}
	return nil, l.grown, nil
}

func (l *memLog) SeqAt(context.Context, time.Time) (uint64, error) { return l.First(), nil }

func (l *memLog) Reader(from uint64) *memReader { return &memReader{log: l, next: from} }

type memReader struct {
	log  *memLog
	next uint64
}

func (r *memReader) Next(ctx context.Context) (*lockstep.Batch, error) {
	for {
		b, grown, err := r.log.find(r.next)
		if err != nil {
			return nil, err
		}
		if b != nil {
			r.next = b.Mark.Seq + 1
			return b, nil
		}
		select {
		case <-grown:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

func (r *memReader) Seek(from uint64) { r.next = from }
func (r *memReader) Close()           {}

// memConsumer is a consumer that hands out what it is given.
type memConsumer struct {
	mu       sync.Mutex
	def      deliver.Definition // guarded by mu
	waiting  []string           // guarded by mu
	paused   bool               // guarded by mu
	wake     chan struct{}      // guarded by mu; closed by each give
	settled  []string           // guarded by mu: "ack t1", "nack t2 reason"
	stale    []string           // guarded by mu: answers of the next settling call
	sought   string             // guarded by mu
	letters  []api.Letter       // guarded by mu
	explodes bool               // guarded by mu: Next panics
	waits    int                // guarded by mu: calls of Next that wait
}

func newConsumer(d deliver.Definition) *memConsumer {
	return &memConsumer{def: d, wake: make(chan struct{})}
}

func (c *memConsumer) give(messages ...string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.waiting = append(c.waiting, messages...)
	close(c.wake)
	c.wake = make(chan struct{})
}

func (c *memConsumer) Definition() deliver.Definition {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.def
}

func (c *memConsumer) Standing() api.Standing {
	c.mu.Lock()
	defer c.mu.Unlock()
	return api.Standing{Pending: uint64(len(c.waiting)), Paused: c.paused, Dead: uint64(len(c.letters))}
}

func (c *memConsumer) Next(ctx context.Context, n int, wait time.Duration, _ string) (api.Handout, error) {
	timeout := time.NewTimer(wait)
	defer timeout.Stop()
	for {
		c.mu.Lock()
		if c.explodes {
			c.mu.Unlock()
			panic("seen by the test only")
		}
		if len(c.waiting) > 0 {
			break
		}
		wake := c.wake
		c.waits++
		c.mu.Unlock()
		if wait == 0 {
			return api.Handout{}, nil
		}
		select {
		case <-wake:
		case <-timeout.C:
			return api.Handout{}, nil
		case <-ctx.Done():
			return api.Handout{}, ctx.Err()
		}
	}
	defer c.mu.Unlock()
	out := slices.Clone(c.waiting[:min(n, len(c.waiting))])
	c.waiting = c.waiting[len(out):]
	return api.Handout{N: len(out), Pending: uint64(len(c.waiting)), AckPending: uint64(len(out)), Append: func(dst []byte, i int) []byte {
		return append(append(append(dst, `{"ack_token":"t`...), byte('0'+i%10)), `","attempt":1,`+out[i]+`}`...)
	}}, nil
}

func (c *memConsumer) settle(entries ...string) ([]string, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if slices.ContainsFunc(entries, func(e string) bool { return strings.Contains(e, "malformed") }) {
		return nil, fmt.Errorf("token 1 is malformed: %w", lockstep.ErrInvalid)
	}
	c.settled = append(c.settled, entries...)
	stale := c.stale
	c.stale = nil
	return stale, nil
}

func (c *memConsumer) Ack(_ context.Context, tokens []string) ([]string, error) {
	return c.settle("ack " + strings.Join(tokens, ","))
}

func (c *memConsumer) Nack(_ context.Context, tokens []string, o deliver.NackOptions) ([]string, error) {
	delay := "none"
	if o.Delay != nil {
		delay = o.Delay.String()
	}
	return c.settle(fmt.Sprintf("nack %s mode=%d delay=%s reason=%s", strings.Join(tokens, ","), o.Mode, delay, o.Reason))
}

func (c *memConsumer) Extend(_ context.Context, tokens []string, by time.Duration) ([]string, error) {
	return c.settle(fmt.Sprintf("extend %s by=%s", strings.Join(tokens, ","), by))
}

func (c *memConsumer) Pause(context.Context) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.paused = true
	return nil
}

func (c *memConsumer) Resume(context.Context) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.paused = false
	return nil
}

func (c *memConsumer) Seek(_ context.Context, to string) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if to == "nowhere" {
		return fmt.Errorf("%q is not a place: %w", to, lockstep.ErrInvalid)
	}
	c.sought = to
	return nil
}

func (c *memConsumer) Peek(_ context.Context, limit int, each func([]byte) error) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, m := range c.waiting[:min(limit, len(c.waiting))] {
		if err := each([]byte("{" + m + "}")); err != nil {
			return err
		}
	}
	return nil
}

func (c *memConsumer) Where(context.Context, uint64) (api.Whereabouts, error) {
	return api.Whereabouts{State: "in_flight", Attempts: 2, Reason: "held by a", Until: time.Unix(1, 0)}, nil
}

func (c *memConsumer) Letters(_ context.Context, q deliver.LetterQuery) (api.LetterPage, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	var out []api.Letter
	for _, l := range c.letters {
		if l.Seq > q.Cursor {
			out = append(out, l)
		}
	}
	if len(out) > q.Limit {
		return api.LetterPage{Letters: out[:q.Limit], Next: out[q.Limit-1].Seq}, nil
	}
	return api.LetterPage{Letters: out}, nil
}

func (c *memConsumer) RetryLetters(context.Context, deliver.LetterWork) (deliver.LetterProgress, error) {
	return deliver.LetterProgress{}, nil
}

func (c *memConsumer) DropLetters(context.Context, deliver.LetterWork) (deliver.LetterProgress, error) {
	return deliver.LetterProgress{}, nil
}

func (c *memConsumer) Letter(_ context.Context, seq uint64) (api.Letter, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, l := range c.letters {
		if l.Seq == seq {
			return l, nil
		}
	}
	return api.Letter{}, fmt.Errorf("no dead letter %d: %w", seq, lockstep.ErrNotFound)
}

func (c *memConsumer) RetryLetter(ctx context.Context, seq uint64) error {
	return c.DropLetter(ctx, seq)
}

func (c *memConsumer) DropLetter(ctx context.Context, seq uint64) error {
	if _, err := c.Letter(ctx, seq); err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.letters = slices.DeleteFunc(c.letters, func(l api.Letter) bool { return l.Seq == seq })
	return nil
}

// memBroker is a broker in memory.
type memBroker struct {
	mu  sync.Mutex
	all []*memConsumer // guarded by mu
}

func (b *memBroker) Find(idOrName string) (api.Consumer, bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, c := range b.all {
		if d := c.Definition(); d.ID == idOrName || d.Name == idOrName {
			return c, true
		}
	}
	return nil, false
}

func (b *memBroker) List() []api.Consumer {
	b.mu.Lock()
	defer b.mu.Unlock()
	var out []api.Consumer
	for _, c := range b.all {
		out = append(out, c)
	}
	return out
}

func (b *memBroker) Put(_ context.Context, d deliver.Definition) (api.Consumer, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, c := range b.all {
		if c.Definition().ID == d.ID {
			c.mu.Lock()
			defer c.mu.Unlock()
			c.def = d
			return c, nil
		}
	}
	c := newConsumer(d)
	b.all = append(b.all, c)
	return c, nil
}

func (b *memBroker) Remove(_ context.Context, id string) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.all = slices.DeleteFunc(b.all, func(c *memConsumer) bool { return c.Definition().ID == id })
	return nil
}

// memStore stores nothing: what counts in these tests is the broker.
type memStore struct{}

func (memStore) Insert(context.Context, deliver.Definition) error   { return nil }
func (memStore) Update(context.Context, deliver.Definition) error   { return nil }
func (memStore) Switched(context.Context, deliver.Definition) error { return nil }
func (memStore) Delete(context.Context, string) error               { return nil }

// memTokens is a store of tokens in memory.
type memTokens struct {
	mu  sync.Mutex
	all []auth.Token // guarded by mu
}

func (s *memTokens) Load(context.Context) ([]auth.Token, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.all), nil
}

func (s *memTokens) Insert(_ context.Context, t auth.Token) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.all = append(s.all, t)
	return nil
}
func (s *memTokens) Revoke(context.Context, string, time.Time) error   { return nil }
func (s *memTokens) Touch(context.Context, map[string]time.Time) error { return nil }

// memAudit keeps entries in memory.
type memAudit struct {
	mu      sync.Mutex
	entries []api.Entry // guarded by mu
}

func (a *memAudit) Record(_ context.Context, e api.Entry) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.entries = append(a.entries, e)
	return nil
}

func (a *memAudit) all() []api.Entry {
	a.mu.Lock()
	defer a.mu.Unlock()
	return slices.Clone(a.entries)
}

// waited returns how often a call of Next had to wait.
func (c *memConsumer) waited() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.waits
}

func (c *memConsumer) Replay(context.Context, uint64) error { return nil }

func (c *memConsumer) ReplayRange(context.Context, uint64, uint64) (int, error) { return 0, nil }

func (c *memConsumer) ReplayDead(context.Context, time.Time) (int, error) { return 0, nil }

func (c *memConsumer) SeqAt(context.Context, time.Time) (uint64, error) { return 1, nil }
