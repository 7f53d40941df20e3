package deliver

import (
	"strconv"

	"lockstep"
	"lockstep/internal/filter"
)

// object is what a message tells of the row of a mirror table: values of system
// columns as they stand in the row's JSON. A value that was not sent is nil.
type object struct {
	upstream, id, created, updated, synced, raw []byte
}

// objectOf finds the members in the row. Nothing of their values is decoded.
func objectOf(row []byte) (o object) {
	const wanted = 6
	for at, found := 0, 0; found < wanted; {
		name, value, next := member(row, at)
		if name == nil {
			break
		}
		if dst := o.column(name); dst != nil {
			*dst = value
			found++
		}
		at = next
	}
	return o
}

// column returns where the value of the column belongs; nil: nowhere. The name is in
// quotes.
func (o *object) column(name []byte) *[]byte {
	switch string(name) {
	case `"id"`:
		return &o.upstream
	case `"_id"`:
		return &o.id
	case `"_created_at"`:
		return &o.created
	case `"_updated_at"`:
		return &o.updated
	case `"_synced_at"`:
		return &o.synced
	case `"_raw"`:
		return &o.raw
	}
	return nil
}

// appendView appends the row of a mirror table as the API's object, the record of
// the older contract. data is the API's JSON byte for byte as Postgres holds it. What
// the row does not have is null: columns that Postgres did not send, which
// metadata.unchanged names, and with another replica identity than FULL everything
// but the key of a deleted row.
func appendView(dst []byte, r lockstep.Record, from Mirrored) []byte {
	row := r.Row()
	if len(row) == 0 {
		return append(dst, "null"...) // larger than a change can be; see metadata.oversized
	}
	o := objectOf(row)
	dst = appendValue(append(dst, `{"id":`...), o.id)
	dst = lockstep.AppendJSONString(append(dst, `,"sync_id":`...), from.SyncID)
	dst = lockstep.AppendJSONString(append(dst, `,"collection_id":`...), from.Collection)
	dst = lockstep.AppendJSONString(append(dst, `,"provider":`...), from.Provider)
	dst = appendText(append(dst, `,"upstream_id":`...), o.upstream)
	dst = appendValue(append(dst, `,"data":`...), o.raw)
	dst = append(dst, `,"deleted":`...)
	dst = strconv.AppendBool(dst, r.Action() == lockstep.Delete)
	dst = appendValue(append(dst, `,"inserted_at":`...), o.synced)
	dst = appendValue(append(dst, `,"upstream_created_at":`...), o.created)
	dst = appendValue(append(dst, `,"upstream_updated_at":`...), o.updated)
	dst = append(dst, `,"updated_idx":`...)
	dst = strconv.AppendUint(dst, r.Seq(), 10)
	return append(dst, '}')
}

func appendValue(dst, value []byte) []byte {
	if len(value) == 0 {
		return append(dst, "null"...)
	}
	return append(dst, value...)
}

// appendText appends a value as text: an id that is a number stands in quotes.
func appendText(dst, value []byte) []byte {
	if len(value) == 0 || value[0] == '"' || value[0] == 'n' {
		return appendValue(dst, value)
	}
	dst = append(dst, '"')
	dst = append(dst, value...)
	return append(dst, '"')
}

// appendMembers appends the message's members, without the braces.
func (d *Delivery) appendMembers(dst []byte, o lockstep.MessageOptions) []byte {
	if o.Row = d.Row; d.Row != nil || !d.form.api {
		return lockstep.AppendMessageMembers(dst, d.Record, o)
	}
	dst = appendView(append(dst, `"record":`...), d.Record, d.form.from)
	return lockstep.AppendMessageEnd(append(dst, `,"changes":null,`...), d.Record, o)
}

// input returns what filter and transform see of a change.
func (m *matcher) input(r lockstep.Record) *filter.Input {
	f, _ := m.formOf(r)
	if !f.api {
		return filter.NewInput(r, m.database)
	}
	return filter.NewView(r, m.database, func() []byte {
		return appendView(make([]byte, 0, len(r.Row())), r, f.from)
	})
}
