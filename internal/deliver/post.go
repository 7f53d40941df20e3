package deliver

import (
	"context"
	"encoding/json"
	"slices"
	"time"

	"lockstep"
	"lockstep/internal/obs"
)

const (
	letterTimeout = 15 * time.Second
	// The letters that wait are written together, so many and so large, and as many as
	// are made in that time: changes may have to be read from a slow disk.
	postStep  = 500
	postBytes = 8 << 20
	postTime  = letterTimeout / 3
)

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
			err = c.postLetters(w)
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

// requested returns the first requests that still stand, at most postStep and none twice,
// with what their letters are made of. Those that do not stand are forgotten.
func (w *window) requested() (list []parkRequest, of []handout) {
	w.parkQueue = slices.DeleteFunc(w.parkQueue, func(r parkRequest) bool { return w.letterOf(r) == none })
	seen := map[uint64]bool{}
	for _, r := range w.parkQueue[:min(len(w.parkQueue), postStep)] {
		if seen[r.seq] {
			break
		}
		seen[r.seq] = true
		list = append(list, r)
		of = append(of, handout{seq: r.seq, flags: w.entries[r.slot].flags, gap: w.gaps[r.seq]})
	}
	return list, of
}

// postLetters writes the letters of the first requests together; when all of them are on
// disk, their changes are settled one after the other. It is called with mu held, which
// it gives back.
func (c *Consumer) postLetters(w *window) error {
	list, of := w.requested()
	m, name := c.match, c.def.Name
	c.mu.Unlock()
	letters, err := c.makeLetters(m, list, of)
	if len(letters) == 0 {
		return err // nil: no request stands
	}
	ctx, cancel := context.WithTimeout(context.Background(), letterTimeout)
	defer cancel()
	if err := c.putLetters(ctx, letters); err != nil {
		return err
	}
	list = list[:len(letters)] // the others' turn comes again
	for i, l := range letters {
		c.b.log.WarnContext(ctx, "a change went to the dead letters", obs.KeyConsumer, name, obs.KeySeq, l.Seq, obs.KeyTable, l.Table,
			obs.KeyAttempt, list[i].attempts, obs.KeyReason, l.Reason)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, r := range list {
		if len(w.parkQueue) > 0 && w.parkQueue[0] == r {
			w.parkQueue = w.parkQueue[1:]
		}
		w.lettered(c.b.now(), r)
	}
	if c.w == w && c.err == nil {
		c.requestSave()
		c.settleDown()
	}
	return nil
}

func (c *Consumer) putLetters(ctx context.Context, letters []Letter) error {
	if len(letters) == 1 {
		return c.b.cfg.Dead.Put(ctx, c.id, letters[0])
	}
	return c.b.cfg.Dead.PutSome(ctx, c.id, letters)
}

// makeLetters makes letters as far as they are not too large together and making them
// takes no error and not too long. An error is that of the first one.
func (c *Consumer) makeLetters(m *matcher, list []parkRequest, of []handout) (letters []Letter, err error) {
	ctx, cancel := context.WithTimeout(context.Background(), letterTimeout)
	defer cancel()
	ends, size := time.Now().Add(postTime), 0
	for i, r := range list {
		if i > 0 && (size > postBytes || time.Now().After(ends)) {
			break
		}
		l, err := c.letter(ctx, m, of[i], r)
		if err != nil && i > 0 {
			break
		}
		if err != nil {
			return nil, err
		}
		size += len(l.Message) + len(l.Batch)
		letters = append(letters, l)
	}
	return letters, nil
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
	l.PKs = slices.Clone(json.RawMessage(record.PKs())) // not to keep the whole batch in memory
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
