package deliver

import (
	"context"
	"errors"
	"fmt"

	"lockstep"
	"lockstep/internal/filter"
)

// scan reads one batch of the log for a consumer that is not at the end of it, or
// lets it join the tail when there is nothing left to read. Whoever calls Next does
// it, one at a time. The caller holds mu, which scan gives back.
func (c *Consumer) scan(ctx context.Context) error {
	c.syncHead()
	w, m, from := c.w, c.match, c.w.beginRefill()
	again := from != 0
	if again && from >= w.head {
		// Nothing but what is kept here lies there.
		w.refilled(from)
		c.settleDown()
		c.mu.Unlock()
		return nil
	}
	if !again {
		from = w.head
	}
	if !again && c.attached {
		c.mu.Unlock()
		return nil
	}
	if from > c.log.Last().Seq {
		c.mu.Unlock()
		c.tail.attach(c)
		return nil
	}
	c.scanning = true
	limit := w.head
	c.mu.Unlock()

	batch, err := c.log.BatchOf(ctx, from)
	var found []change
	if err == nil {
		if again {
			found = c.reread(w, m, batch, from, limit)
		} else {
			found = look(m, batch, from, nil)
		}
	}

	c.mu.Lock()
	defer c.mu.Unlock()
	c.scanning = false
	close(c.scanned)
	c.scanned = make(chan struct{})
	if c.w != w || c.match != m {
		return nil // somebody sought, or changed the definition
	}
	if err != nil {
		return c.unreadable(from, err)
	}
	if again {
		for _, f := range found {
			w.refill(f)
		}
		w.refilled(min(batch.Mark.Seq+1, limit))
	} else if !c.attached && w.head == from {
		c.offer(found, batch.Mark.Seq+1)
	}
	c.settleDown()
	return nil
}

// offer hands what a scan found to the window. A barrier of every table ends it: the
// rest is read when that is settled. The caller holds mu.
func (c *Consumer) offer(found []change, end uint64) {
	for _, f := range found {
		c.w.offer(f)
		if f.sort == wholeBarrier {
			c.w.head = f.seq + 1
			return
		}
	}
	c.w.head = end
}

// unreadable makes a gap of what is gone, and returns every other error. The caller
// holds mu.
func (c *Consumer) unreadable(from uint64, err error) error {
	var (
		gone    *lockstep.RetentionError
		damaged *DamageError
	)
	switch {
	case errors.As(err, &gone) && gone.First > from:
		c.w.retention(c.b.now(), gone.First)
	case errors.As(err, &damaged) && damaged.First <= from && from <= damaged.Last:
		c.w.damaged(c.b.now(), damaged.First, damaged.Last)
	default:
		return fmt.Errorf("consumer %s: read changes from seq %d on: %w", c.def.Name, from, err)
	}
	c.requestSave()
	c.settleDown()
	return nil
}

// look returns the changes of a batch that match, from the one with seq from on.
func look(m *matcher, b *lockstep.Batch, from uint64, inputs *inputs) []change {
	tables := b.Tables()
	hashes := make([]uint64, len(tables)) // 0: not selected
	for i := range tables {
		if m.selects(&tables[i]) {
			hashes[i] = lockstep.KeyHash(&tables[i])
		}
	}
	first := 0
	if from > b.First {
		first = int(from - b.First)
	}
	found := make([]change, 0, b.Len()-min(first, b.Len()))
	for i := first; i < b.Len(); i++ {
		r := b.Record(i)
		h := hashes[r.TableNumber()]
		if h == 0 || !m.takes(r.Action()) {
			continue
		}
		found = appendMatch(found, m, r, h, inputs.of(i, r, m))
	}
	return found
}

// appendMatch appends what the window must know about r if the filter lets it pass.
func appendMatch(found []change, m *matcher, r lockstep.Record, tableHash uint64, in *filter.Input) []change {
	ok, fault := m.passes(r, in)
	if !ok {
		return found
	}
	c := m.place(r, tableHash)
	c.fault = fault
	return append(found, c)
}

// reread returns the changes of a batch, below limit, that the window lacks.
func (c *Consumer) reread(w *window, m *matcher, b *lockstep.Batch, from, limit uint64) []change {
	tables := b.Tables()
	var found []change
	// The window is asked first: it knows the few keys that are wanted, and that is
	// cheaper than the filter.
	c.mu.Lock()
	for i := range b.Len() {
		r := b.Record(i)
		if r.Seq() < from || r.Seq() >= limit || !m.takes(r.Action()) || !m.selects(&tables[r.TableNumber()]) {
			continue
		}
		if p := m.place(r, lockstep.KeyHash(&tables[r.TableNumber()])); w.wants(p.seq, p.key, p.table) {
			found = append(found, p)
		}
	}
	c.mu.Unlock()
	kept := found[:0]
	for _, f := range found {
		r, _ := b.Find(f.seq)
		var in *filter.Input
		if m.filter != nil {
			in = m.input(r)
		}
		ok, fault := m.passes(r, in)
		if f.fault = fault; ok {
			kept = append(kept, f)
		}
	}
	return kept
}

// inputs keeps what the filters see of the changes of one batch, so that consumers
// of one table decode a change once. It is used by one goroutine.
type inputs struct {
	size  int // of the batch
	rows  []*filter.Input
	views []*filter.Input // for consumers of collections
}

// of returns what the filter of m sees of the change, or nil when there is no filter.
func (n *inputs) of(i int, r lockstep.Record, m *matcher) *filter.Input {
	if m.filter == nil {
		return nil
	}
	if n == nil {
		return m.input(r)
	}
	list := &n.rows
	if m.collections != nil {
		list = &n.views
	}
	if *list == nil {
		*list = make([]*filter.Input, n.size)
	}
	if (*list)[i] == nil {
		(*list)[i] = m.input(r)
	}
	return (*list)[i]
}
