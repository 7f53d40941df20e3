package wal

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"

	"lockstep"
	"lockstep/internal/capture/publish"
	"lockstep/internal/capture/value"
	"lockstep/internal/obs"
)

// The prefixes of logical messages that mean something to capture, beside those of
// package publish, which a secret follows.
const (
	prefixAnnotations = "lockstep:annotations"
	prefixSetForeign  = "sequin:transaction_annotations.set"
	prefixClear       = "sequin:transaction_annotations.clear"
)

// logicalMessage handles what pg_logical_emit_message wrote. Only transactional
// messages count: the others arrive whether their transaction commits or not, at
// no place of the order of changes.
func (d *decoder) logicalMessage(ctx context.Context, body []byte) error {
	if len(body) < 9 {
		return fmt.Errorf("logical message of %d bytes: %w", len(body), errDamaged)
	}
	prefix, rest, ok := cutString(body[9:])
	if !ok || len(rest) < 4 || uint64(binary.BigEndian.Uint32(rest)) != uint64(len(rest)-4) {
		return fmt.Errorf("logical message: %w", errDamaged)
	}
	if body[0]&1 == 0 {
		return nil
	}
	if !d.tx.open {
		return fmt.Errorf("transactional message outside of a transaction: %w", errDamaged)
	}
	d.tx.ordinal++
	// What a message means for the changes after it holds also when the message
	// itself was read before a restart.
	content := rest[4:]
	switch {
	case string(prefix) == prefixAnnotations || string(prefix) == prefixSetForeign:
		d.annotate(ctx, content)
	case string(prefix) == prefixClear:
		d.tx.tx.Annotations = nil
		d.out.changed()
	case d.isJoin(prefix, publish.TablePrefix):
		return d.joinTable(ctx, content)
	case d.isJoin(prefix, publish.RowPrefix):
		return d.joinRow(ctx, content)
	case d.isJoin(prefix, publish.GapPrefix):
		return d.foundGap(ctx, content)
	case d.pagePrefix != "" && string(prefix) == d.pagePrefix:
		return d.mark(ctx, content)
	}
	return nil
}

func (d *decoder) annotate(ctx context.Context, content []byte) {
	if !json.Valid(content) {
		d.counts.badAnnotations.Add(1)
		d.log.WarnContext(ctx, "an annotation is not valid JSON and is ignored", "xid", d.tx.tx.XID, obs.KeyBytes, len(content))
		return
	}
	d.tx.tx.Annotations = bytes.Clone(bytes.TrimSpace(content))
	d.out.changed()
}

// isJoin compares the whole prefix. The secret keeps other roles, which may all
// write logical messages, from making up rows.
func (d *decoder) isJoin(prefix []byte, kind string) bool {
	return d.secret != "" && string(prefix) == kind+d.secret
}

// joinTable takes the announcement of the rows of a table that was published after
// they had been written, or of their absence.
func (d *decoder) joinTable(ctx context.Context, content []byte) error {
	d.tx.joined = nil
	var t publish.TableMessage
	if err := json.Unmarshal(content, &t); err != nil {
		return d.ignoreJoin(ctx, "its announcement is not valid: "+err.Error())
	}
	r, err := d.announced(ctx, &t)
	if refused, ok := errors.AsType[refusal](err); ok {
		return d.ignoreJoin(ctx, refused.Error())
	}
	if err != nil {
		return err
	}
	if known := d.relations[t.OID]; known != nil && *known.table == *r.table {
		r.table = known.table
	}
	d.tx.joined = r
	if t.Rows == publish.Missing && r.wanted && d.tx.ordinal > d.tx.skipTo {
		return d.writeGap(ctx, Gap{Reason: gapRowsMissing, Tables: []lockstep.Table{*r.table}})
	}
	return nil
}

// announced makes a relation out of an announcement. What makes no sense is a
// refusal.
func (d *decoder) announced(ctx context.Context, t *publish.TableMessage) (*relation, error) {
	r := &relation{table: &lockstep.Table{OID: t.OID, Schema: t.Schema, Name: t.Name}}
	for _, c := range t.Columns {
		column := newColumn(c.Name, c.TypeOID)
		column.flagged = c.Key
		encoder, err := d.relation.Encoder(ctx, c.TypeOID)
		if err != nil {
			return nil, fmt.Errorf("describe %s: %w", r.table, err)
		}
		column.encoder = encoder
		r.columns = append(r.columns, column)
	}
	if t.Identity != "" {
		r.identity = t.Identity[0]
	}
	r.wanted = d.relation.Wanted(t.Schema, t.Name)
	columns := r.find(t.KeyColumns)
	if len(columns) != len(t.KeyColumns) {
		return nil, refusal{fmt.Errorf("its announcement names key columns that it does not have: %w", lockstep.ErrInvalid)}
	}
	r.setKey(keyKindOf(t.KeyKind), columns)
	return r, nil
}

func keyKindOf(name string) lockstep.KeyKind {
	for _, k := range []lockstep.KeyKind{lockstep.KeyPrimary, lockstep.KeyIdentity} {
		if name == k.String() {
			return k
		}
	}
	return lockstep.KeyRow
}

// joinRow makes an insert of one row of the announced table.
func (d *decoder) joinRow(ctx context.Context, content []byte) error {
	r := d.tx.joined
	if r == nil || !r.wanted || d.tx.ordinal <= d.tx.skipTo {
		return nil
	}
	s := &d.scratch
	s.text = append(s.text[:0], content...) // the fields are cut in place
	var err error
	if s.fields, err = value.AppendFields(s.fields[:0], s.text); err != nil {
		return d.ignoreJoin(ctx, "a row of "+r.table.String()+" cannot be read: "+err.Error())
	}
	if len(r.columns) == 0 {
		s.fields = s.fields[:0]
	}
	if len(s.fields) != len(r.columns) {
		return d.ignoreJoin(ctx, fmt.Sprintf("a row of %s has %d columns where %d were announced", r.table, len(s.fields), len(r.columns)))
	}
	s.row = s.row[:0]
	for _, f := range s.fields {
		if f.Null {
			s.row = append(s.row, column{kind: columnNull})
			continue
		}
		s.row = append(s.row, column{columnText, f.Text})
	}
	d.emit(r, rowChange{action: lockstep.Insert, row: s.row, oldKnown: true})
	return d.out.ended(ctx)
}

// ignoreJoin drops a message that names the right secret and still makes no
// sense: stopping would stop for ever.
func (d *decoder) ignoreJoin(ctx context.Context, why string) error {
	d.counts.badJoins.Add(1)
	d.log.ErrorContext(ctx, "rows of a table that joined the publication are missing in the stream: "+why, "xid", d.tx.tx.XID)
	return nil
}
