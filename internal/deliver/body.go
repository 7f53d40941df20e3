package deliver

import (
	"context"
	"errors"
	"fmt"
	"strconv"

	"lockstep"
)

// Delivery is one hand-out of a change.
type Delivery struct {
	Token   string // the right to settle it; empty when peeked, and when the call asked for claims
	Claim   Claim  // the same, within this process
	Attempt int    // 1 for the first
	Record  lockstep.Record
	Row     []byte // the transform's result, in place of the row; nil: there is no transform
	Late    bool   // out of the dead letters, after later changes of its key
	Key     uint64 // hash of what orders it: of the key, of the order_by columns, or of its own
	form    form
}

// AppendDelivery appends the delivery as the JSON object of the wire contract:
// ack_token, attempt, and the message with this consumer in its metadata.
func (c *Consumer) AppendDelivery(dst []byte, d Delivery) []byte {
	dst = append(dst, '{')
	if d.Token != "" {
		dst = append(dst, `"ack_token":"`...)
		dst = append(dst, d.Token...)
		dst = append(dst, `",`...)
	}
	dst = append(dst, `"attempt":`...)
	dst = strconv.AppendInt(dst, int64(d.Attempt), 10)
	dst = append(dst, ',')
	return append(c.appendMembers(dst, d), '}')
}

// AppendMessage appends the delivery as the message alone: without token and attempt.
func (c *Consumer) AppendMessage(dst []byte, d Delivery) []byte {
	return append(c.appendMembers(append(dst, '{'), d), '}')
}

// From says whose record is delivered in the API's view; false: it is a row.
func (d *Delivery) From() (Mirrored, bool) { return d.form.from, d.form.api }

// Message returns the delivery as AppendMessage writes it, the part of it that is the
// record, and the change's key as it stands there too: [] when there is none. They share
// memory of their own, and nothing else does.
func (c *Consumer) Message(d *Delivery) (message, record, pks []byte) {
	row, key := d.Record.Row(), d.Record.PKs()
	if d.Row != nil {
		row = d.Row
	}
	all := c.AppendMessage(make([]byte, 0, metadataRoom+len(row)+len(d.Record.Changes())+2*len(key)), *d)
	end := len(all)
	if len(key) == 0 {
		key = []byte(`[]`)
	}
	all = append(all, key...)
	message, pks = all[:end:end], all[end:]
	const before = len(`{"record":`)
	if len(row) > 0 && (d.Row != nil || !d.form.api) {
		return message, message[before : before+len(row) : before+len(row)], pks
	}
	_, record, _ = member(message, 0)
	return message, record, pks
}

// metadataRoom is what a message needs beside the change's own bytes, about.
const metadataRoom = 576

func (c *Consumer) appendMembers(dst []byte, d Delivery) []byte {
	return d.appendMembers(dst, lockstep.MessageOptions{Database: c.tail.database, ConsumerID: c.id, ConsumerName: c.name(), Late: d.Late})
}

// outcome is what else than being delivered may become of a hand-out.
type outcome struct {
	h     handout
	skip  bool   // does not match the filter any more
	fault string // its filter or transform failed
	err   error  // its body is gone
}

// bodies fetches what is handed out. Changes that turn out not to be deliverable are
// settled otherwise and left out. When reading fails, everything is given back.
func (c *Consumer) bodies(ctx context.Context, m *matcher, epoch uint32, hs []handout) ([]Delivery, error) {
	ds := make([]Delivery, 0, len(hs))
	var odd []outcome
	for _, h := range hs {
		d, o, err := c.deliver(ctx, m, h)
		if err != nil {
			c.mu.Lock()
			c.w.untake(c.b.now(), hs)
			c.settleDown()
			c.mu.Unlock()
			return nil, err
		}
		if o != (outcome{}) {
			o.h = h
			odd = append(odd, o)
		}
		d.Claim = Claim{h.token(epoch)}
		ds = append(ds, d)
	}
	if len(odd) > 0 {
		ds = c.leaveOut(epoch, hs, ds, odd)
	}
	return ds, nil
}

// sign gives each delivery its token.
func (c *Consumer) sign(ds []Delivery) {
	tokens := make([]byte, 0, len(ds)*tokenText)
	for i := range ds {
		tokens = c.signer.append(tokens, ds[i].Claim.token)
	}
	text := string(tokens)
	for i := range ds {
		ds[i].Token = text[i*tokenText : (i+1)*tokenText]
	}
}

// deliver makes the delivery of one hand-out. An error says that the log could not
// be asked; an outcome that the change cannot be delivered.
func (c *Consumer) deliver(ctx context.Context, m *matcher, h handout) (d Delivery, o outcome, err error) {
	r, err := c.record(ctx, h)
	if err != nil {
		if isGone(err) {
			return d, outcome{err: err}, nil
		}
		return d, o, fmt.Errorf("consumer %s: read change %d: %w", c.name(), h.seq, err)
	}
	d = Delivery{Attempt: h.attempt, Record: r, Late: h.flags&isLate != 0, Key: h.key}
	var known bool
	if d.form, known = m.formOf(r); !known {
		return d, outcome{skip: true}, nil
	}
	if h.flags&unchecked != 0 {
		if !m.selects(r.Table()) || !m.takes(r.Action()) {
			return d, outcome{skip: true}, nil
		}
		ok, fault := m.passes(r, m.input(r))
		if fault != "" || !ok {
			return d, outcome{skip: !ok, fault: fault}, nil
		}
	}
	if d.Row, err = m.row(r); err != nil {
		return d, outcome{fault: "transform: " + err.Error()}, nil
	}
	return d, o, nil
}

func isGone(err error) bool {
	var (
		gone    *lockstep.RetentionError
		damaged *DamageError
	)
	return errors.As(err, &gone) || errors.As(err, &damaged) || errors.Is(err, lockstep.ErrNotFound)
}

// leaveOut settles hand-outs that cannot be delivered, and returns the deliveries
// that still stand.
func (c *Consumer) leaveOut(epoch uint32, hs []handout, ds []Delivery, odd []outcome) []Delivery {
	c.mu.Lock()
	defer c.mu.Unlock()
	w := c.w
	if w.epoch != epoch {
		return nil // somebody sought: none of them is leased any more
	}
	w.now = c.b.now()
	skipped := map[uint64]bool{}
	for _, o := range odd {
		skipped[o.h.seq] = true
		switch {
		case o.err != nil:
			c.gone(o.h, o.err)
		case o.skip:
			w.skip(o.h)
		default:
			w.fault(o.h, o.fault)
		}
	}
	kept := ds[:0]
	for i, h := range hs {
		if !skipped[h.seq] && w.held(h) != none {
			kept = append(kept, ds[i])
		}
	}
	c.requestSave()
	c.settleDown()
	return kept
}

// gone makes a gap of a change whose body cannot be read. The caller holds mu.
func (c *Consumer) gone(h handout, err error) {
	if retention, ok := errors.AsType[*lockstep.RetentionError](err); ok {
		c.w.missing(h, byRetention)
		c.w.retention(c.b.now(), retention.First)
		return
	}
	c.w.missing(h, byDamage)
}

// record returns the body of a hand-out.
func (c *Consumer) record(ctx context.Context, h handout) (lockstep.Record, error) {
	if h.flags&hasLetter != 0 {
		l, err := c.b.cfg.Dead.Get(ctx, c.id, h.seq)
		if err == nil && len(l.Batch) > 0 {
			return c.recordOf(l)
		}
		if err != nil && !errors.Is(err, lockstep.ErrNotFound) {
			return lockstep.Record{}, err
		}
	}
	if h.flags&isGap != 0 && h.flags&hasLetter == 0 {
		return gapRecord(c.log.Last(), h.seq, h.gap)
	}
	return c.logged(ctx, h.seq)
}

// logged returns a change from the log.
func (c *Consumer) logged(ctx context.Context, seq uint64) (lockstep.Record, error) {
	if b := c.last.Load(); b != nil {
		if r, ok := b.Find(seq); ok {
			return r, nil
		}
	}
	b, err := c.log.BatchOf(ctx, seq)
	if err != nil {
		return lockstep.Record{}, err
	}
	c.last.Store(b)
	r, ok := b.Find(seq)
	if !ok {
		return r, fmt.Errorf("change %d is not in the batch that should hold it: %w", seq, lockstep.ErrNotFound)
	}
	return r, nil
}

// recordOf returns the change of a letter.
func (c *Consumer) recordOf(l Letter) (lockstep.Record, error) {
	b, err := lockstep.ParseBatch(l.Batch)
	if err != nil || b.Len() != 1 {
		return lockstep.Record{}, fmt.Errorf("dead letter %d: %w", l.Seq, errors.Join(err, lockstep.ErrCorrupt))
	}
	return b.Record(0), nil
}

// gapRecord makes the change that tells of lost ones.
func gapRecord(last lockstep.Mark, seq uint64, g gap) (lockstep.Record, error) {
	extra := append([]byte(`,"gap":{"state":"end","reason":"`), g.cause.String()...)
	extra = append(extra, `","from_lsn":null,"to_lsn":null,"missed":`...)
	extra = strconv.AppendUint(extra, g.missed, 10)
	extra = append(extra, `,"next_seq":`...)
	extra = strconv.AppendUint(extra, g.first, 10)
	extra = append(extra, '}')
	everything := &lockstep.Table{Key: lockstep.KeyRow}
	var w lockstep.BatchWriter
	w.Reset(nil)
	// No transaction commits at 0, so that the gap's identity is its own.
	w.Begin(lockstep.Tx{})
	w.Close(append(w.Open(), extra...), lockstep.RecordHead{
		Action: lockstep.Gap, Table: w.Table(everything), CommitIdx: uint32(g.first), KeyHash: lockstep.KeyHash(everything), ExtraLen: len(extra),
	})
	return seal(&w, seq, last)
}

// alone returns a sealed batch of one change, equal in everything a message tells.
func alone(r lockstep.Record) (lockstep.Record, error) {
	var w lockstep.BatchWriter
	w.Reset(nil)
	w.Begin(*r.Tx())
	buf := w.Open()
	for _, part := range [][]byte{r.Row(), r.Changes(), r.PKs(), r.Extra()} {
		buf = append(buf, part...)
	}
	w.Close(buf, lockstep.RecordHead{
		Action: r.Action(), OldKnown: r.OldKnown(), Table: w.Table(r.Table()), CommitIdx: r.CommitIdx(), KeyHash: r.KeyHash(),
		RecordLen: len(r.Row()), ChangesLen: len(r.Changes()), PKsLen: len(r.PKs()), ExtraLen: len(r.Extra()),
	})
	return seal(&w, r.Seq(), r.Batch().Mark)
}

func seal(w *lockstep.BatchWriter, seq uint64, mark lockstep.Mark) (lockstep.Record, error) {
	data, err := w.Seal(seq, mark)
	if err != nil {
		return lockstep.Record{}, err
	}
	b, err := lockstep.ParseBatch(data)
	if err != nil {
		return lockstep.Record{}, err
	}
	return b.Record(0), nil
}
