package deliver

import (
	"context"
	"encoding/json"
	"slices"
	"time"

	"lockstep"
	"lockstep/internal/obs"
)

const letterTimeout = 15 * time.Second

// post is the goroutine that writes letters and deletes those that are done with,
// as long as there are any. A letter is on disk before its change counts as
// settled, so a crash in between writes it a second time, over the first.
func (c *Consumer) post() {
	backoff := firstBackoff
	for {
		c.mu.Lock()
		w := c.w
		if c.err != nil || len(w.parkQueue)+len(w.erasable) == 0 {
			c.posting = false
			c.mu.Unlock()
			return
		}
		var err error
		if len(w.parkQueue) > 0 {
			err = c.postLetter(w, w.parkQueue[0])
		} else {
			err = c.eraseLetters(w, w.erasable[:min(len(w.erasable), workStep)])
		}
		if err == nil {
			backoff = firstBackoff
			continue
		}
		// The key of the change waits until its letter is on disk.
		c.b.log.ErrorContext(context.Background(), "a dead letter cannot be written; its key waits", obs.KeyConsumer, c.name(), obs.KeyError, err)
		select {
		case <-time.After(backoff):
		case <-c.over:
		case <-c.b.stop:
			c.mu.Lock()
			c.posting = false
			c.mu.Unlock()
			return
		}
		backoff = min(2*backoff, 30*lastBackoff)
	}
}

// postLetter writes the letter of the first request. It is called with mu held,
// which it gives back.
func (c *Consumer) postLetter(w *window, r parkRequest) error {
	s := w.letterOf(r)
	if s == none {
		w.parkQueue = w.parkQueue[1:]
		c.mu.Unlock()
		return nil
	}
	e := &w.entries[s]
	h := handout{seq: r.seq, flags: e.flags, gap: w.gaps[r.seq]}
	m, name := c.match, c.def.Name
	c.mu.Unlock()

	ctx, cancel := context.WithTimeout(context.Background(), letterTimeout)
	defer cancel()
	l, err := c.letter(ctx, m, h, r)
	if err == nil {
		err = c.b.cfg.Dead.Put(ctx, c.id, l)
	}
	if err != nil {
		return err
	}
	c.b.log.WarnContext(ctx, "a change went to the dead letters", obs.KeyConsumer, name, obs.KeySeq, r.seq, obs.KeyTable, l.Table,
		obs.KeyAttempt, r.attempts, obs.KeyReason, l.Reason)
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(w.parkQueue) > 0 && w.parkQueue[0] == r {
		w.parkQueue = w.parkQueue[1:]
	}
	w.lettered(c.b.now(), r)
	if c.w == w && c.err == nil {
		c.requestSave()
		c.settleDown()
	}
	return nil
}

// letter makes a change's letter.
func (c *Consumer) letter(ctx context.Context, m *matcher, h handout, r parkRequest) (Letter, error) {
	l := Letter{
		Seq: r.seq, Database: c.tail.database, Reason: shorten(r.reason), State: r.state, Attempts: r.attempts, At: c.b.timeOf(c.b.now()),
	}
	if r.key != 0 {
		l.Key = letterKey(m.order, r.key)
	}
	record, err := c.record(ctx, h)
	if err != nil {
		if isGone(err) {
			l.Reason = shorten(r.reason + "; the change itself is gone: " + err.Error())
			return l, nil
		}
		return l, err
	}
	own, err := alone(record)
	if err != nil {
		return l, err
	}
	l.Batch = own.Batch().Bytes()
	l.Key = letterKey(m.order, m.keyed(record).key)
	l.Table = record.Table().String()
	l.PKs = json.RawMessage(record.PKs())
	if len(l.PKs) == 0 {
		l.PKs = json.RawMessage("[]")
	}
	d := Delivery{Record: record}
	var known bool
	if d.form, known = m.formOf(record); known {
		d.Row, err = m.row(record)
	}
	if err != nil || !known {
		// A transform may be there to mask what nobody is to see: a letter that it
		// failed for shows no row. The letter's batch still holds it, for a retry.
		d.Row = []byte("null")
	}
	l.Message = append(d.appendMembers([]byte{'{'}, lockstep.MessageOptions{Database: c.tail.database}), '}')
	return l, nil
}

// eraseLetters deletes the letters of changes that were settled after a retry. It is
// called with mu held, which it gives back.
func (c *Consumer) eraseLetters(w *window, seqs []uint64) error {
	seqs = slices.Clone(seqs)
	c.mu.Unlock()
	ctx, cancel := context.WithTimeout(context.Background(), letterTimeout)
	defer cancel()
	if err := c.b.cfg.Dead.DeleteSome(ctx, c.id, seqs); err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(w.erasable) >= len(seqs) && slices.Equal(w.erasable[:len(seqs)], seqs) {
		w.erasable = w.erasable[len(seqs):]
	}
	for _, seq := range seqs {
		delete(w.spent, seq)
	}
	if len(w.erasable) == 0 && c.w == w && c.err == nil {
		c.requestSave()
	}
	return nil
}
