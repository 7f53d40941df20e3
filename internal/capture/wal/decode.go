package wal

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"strings"
	"sync/atomic"

	"lockstep"
)

// postgresEpoch is 2000-01-01, from which Postgres counts, in microseconds since
// 1970-01-01.
const postgresEpoch = 946684800 * 1_000_000

var errDamaged = errors.New("the message is damaged")

// decoder turns pgoutput messages (protocol 1) into changes. It is used by one
// goroutine, which holds the batch's lock.
type decoder struct {
	out      *batch
	resume   lockstep.Mark // what the log holds already
	relation relationSource
	secret   string // of the messages that carry a joining table's rows
	log      *slog.Logger
	counts   *counters
	gap      func(context.Context, Gap) error // before a gap is written; nil: nobody asks

	truncations *truncations

	shapes    *shapes
	altered   func(Alteration) // nil: nobody asks
	typeNames typeNames        // nil: types have numbers

	settling   *settling
	pagePrefix string                 // of watermarks, with its secret
	windows    atomic.Pointer[window] // which is waited for; nil: none
	window     *window                // whose changes are noted; nil: none
	// written is called after the commit of a high watermark; nil: there was none.
	written func(context.Context) error

	relations map[uint32]*relation
	tx        transaction
	size      int // of the message being decoded
	scratch   scratch
}

// transaction is the transaction being received.
type transaction struct {
	open    bool
	tx      lockstep.Tx
	ordinal uint32    // of the message being decoded, from 1
	next    uint32    // commit index of the next change
	skipTo  uint32    // ordinals up to here are in the log; MaxUint32: all of it is
	joined  *relation // the table whose rows follow as logical messages
}

func newDecoder(out *batch, source relationSource, resume lockstep.Mark) *decoder {
	return &decoder{
		out: out, resume: resume, relation: source, log: slog.New(slog.DiscardHandler), counts: &counters{},
		settling: newSettling(), truncations: &truncations{}, shapes: &shapes{}, relations: map[uint32]*relation{},
	}
}

// decode handles one message of pgoutput. The bytes are not kept.
func (d *decoder) decode(ctx context.Context, msg []byte) error {
	if len(msg) == 0 {
		return fmt.Errorf("empty message: %w", errDamaged)
	}
	kind, body := msg[0], msg[1:]
	d.size = len(msg)
	switch kind {
	case 'I', 'U', 'D', 'T':
		return d.change(ctx, kind, body)
	case 'B':
		return d.begin(body)
	case 'C':
		return d.commit(ctx, body)
	case 'O':
		return d.origin(body)
	case 'R':
		return d.learn(ctx, body)
	case 'Y':
		// A type's name: types are known by oid.
		return nil
	case 'M':
		return d.logicalMessage(ctx, body)
	}
	return fmt.Errorf("unknown message %q in the replication stream: this Postgres speaks a newer protocol than was asked for", kind)
}

func (d *decoder) begin(body []byte) error {
	if len(body) != 20 {
		return fmt.Errorf("begin of %d bytes: %w", len(body), errDamaged)
	}
	if d.tx.open {
		return fmt.Errorf("begin inside of transaction %d: %w", d.tx.tx.XID, errDamaged)
	}
	be := binary.BigEndian
	d.tx = transaction{open: true, tx: lockstep.Tx{
		CommitLSN:  lockstep.LSN(be.Uint64(body)),
		CommitTime: int64(be.Uint64(body[8:])) + postgresEpoch,
		XID:        be.Uint32(body[16:]),
	}}
	at := d.tx.tx.CommitLSN
	switch {
	case at < d.resume.CommitLSN || at == d.resume.CommitLSN && d.resume.Complete:
		d.tx.skipTo = math.MaxUint32
	case at == d.resume.CommitLSN:
		d.tx.skipTo, d.tx.next = d.resume.Ordinal, d.resume.CommitIdx+1
	}
	d.out.begin(&d.tx.tx)
	return nil
}

func (d *decoder) commit(ctx context.Context, body []byte) error {
	if len(body) != 25 {
		return fmt.Errorf("commit of %d bytes: %w", len(body), errDamaged)
	}
	if !d.tx.open {
		return fmt.Errorf("commit without a begin: %w", errDamaged)
	}
	be := binary.BigEndian
	if at := lockstep.LSN(be.Uint64(body[1:])); at != d.tx.tx.CommitLSN {
		return fmt.Errorf("commit at %s of a transaction that began as %s: %w", at, d.tx.tx.CommitLSN, errDamaged)
	}
	d.tx.open = false
	d.tx.joined = nil
	d.settling.met(d.tx.tx.XID)
	if err := d.out.commit(ctx, lockstep.LSN(be.Uint64(body[9:]))); err != nil {
		return err
	}
	if d.written == nil {
		return nil
	}
	written := d.written
	d.written = nil
	return written(ctx)
}

// originOf knows the replication origins under which Lockstep itself writes.
func originOf(name string) lockstep.Origin {
	switch {
	case strings.HasPrefix(name, "lockstep_sync"):
		return lockstep.OriginSync
	case strings.HasPrefix(name, "lockstep_proxy"):
		return lockstep.OriginProxy
	case strings.HasPrefix(name, "lockstep_binding"):
		return lockstep.OriginBinding
	}
	return lockstep.OriginUser
}

func (d *decoder) origin(body []byte) error {
	if len(body) < 9 || !d.tx.open {
		return fmt.Errorf("origin: %w", errDamaged)
	}
	name, _, ok := cutString(body[8:])
	if !ok {
		return fmt.Errorf("origin: %w", errDamaged)
	}
	d.tx.tx.Origin = originOf(string(name))
	return nil
}

// change handles the messages that count as changes of rows or tables.
func (d *decoder) change(ctx context.Context, kind byte, body []byte) error {
	if !d.tx.open {
		return fmt.Errorf("message %q outside of a transaction: %w", kind, errDamaged)
	}
	d.tx.ordinal++
	if kind == 'T' {
		return d.truncate(ctx, body)
	}
	if d.tx.ordinal <= d.tx.skipTo {
		return nil
	}
	if len(body) < 5 {
		return fmt.Errorf("message %q of %d bytes: %w", kind, len(body), errDamaged)
	}
	oid := binary.BigEndian.Uint32(body)
	r := d.relations[oid]
	if r == nil {
		return fmt.Errorf("message %q for the table with oid %d, which was not described: %w", kind, oid, errDamaged)
	}
	if !r.wanted {
		return nil
	}
	var err error
	switch kind {
	case 'I':
		err = d.insert(r, body[4:])
	case 'U':
		err = d.update(r, body[4:])
	case 'D':
		err = d.delete(r, body[4:])
	}
	if err != nil {
		return fmt.Errorf("decode %q of %s: %w", kind, r.table, err)
	}
	return d.out.ended(ctx)
}

// truncate makes one change for each table that was emptied, in their order. It is
// remembered also when the log has it: a gap that it explains may come after.
func (d *decoder) truncate(ctx context.Context, body []byte) error {
	if len(body) < 5 {
		return fmt.Errorf("truncate of %d bytes: %w", len(body), errDamaged)
	}
	n, oids := uint64(binary.BigEndian.Uint32(body)), body[5:]
	if uint64(len(oids)) != 4*n {
		return fmt.Errorf("truncate of %d tables in %d bytes: %w", n, len(oids), errDamaged)
	}
	for ; len(oids) > 0; oids = oids[4:] {
		oid := binary.BigEndian.Uint32(oids)
		d.truncations.met(oid, d.tx.tx.XID)
		if d.tx.ordinal <= d.tx.skipTo {
			continue
		}
		r := d.relations[oid]
		if r == nil {
			return fmt.Errorf("truncate of the table with oid %d, which was not described: %w", oid, errDamaged)
		}
		if r.wanted {
			d.emitWhole(r, lockstep.Truncate, nil)
		}
	}
	return d.out.ended(ctx)
}

// cutString reads a string that ends in a zero byte.
func cutString(b []byte) (s, rest []byte, ok bool) {
	return bytes.Cut(b, []byte{0})
}
