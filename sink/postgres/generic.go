package postgres

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"

	"github.com/google/uuid"

	"lockstep"
	"lockstep/sink"
)

// genericDDL is the table of the older contract, with a few things that help.
func (c *Config) genericDDL(n name) string {
	var b strings.Builder
	fmt.Fprintf(&b, "CREATE SCHEMA IF NOT EXISTS %s; CREATE TABLE IF NOT EXISTS %s (", quote(n.schema), n)
	for i, col := range [][2]string{
		{"id", "uuid PRIMARY KEY"}, {"sync_id", "uuid"}, {"collection_id", "text NOT NULL"}, {"upstream_id", "text NOT NULL"},
		{"data", "jsonb"}, {"deleted", "boolean NOT NULL DEFAULT false"}, {"upstream_created_at", "timestamptz"}, {"upstream_updated_at", "timestamptz"},
		{"updated_idx", "bigint NOT NULL"}, {"inserted_at", "timestamptz NOT NULL DEFAULT now()"}, {"updated_at", "timestamptz NOT NULL DEFAULT now()"},
	} {
		if i > 0 {
			b.WriteString(", ")
		}
		b.WriteString(quote(c.generic(col[0])) + " " + col[1])
	}
	fmt.Fprintf(&b, "); CREATE INDEX IF NOT EXISTS %s ON %s (%s, %s)", quote(n.table+"_upstream"), n, quote(c.generic("collection_id")), quote(c.generic("upstream_id")))
	return b.String()
}

// generic is the name that a column of the generic table has.
func (c *Config) generic(column string) string { return or(c.Rename[column], column) }

// record makes the record of the generic table: the API's view as it is, or a row of
// any table in the same shape.
func record(m *sink.Message) (json.RawMessage, error) {
	view := find(m.Record, "collection_id")
	upstream := find(m.Record, "upstream_id")
	b := []byte{'{'}
	if view == nil || upstream == nil || find(m.Record, "data") == nil {
		b = appendRow(b, m)
	} else {
		known := false
		err := members(m.Record, func(name, v []byte) error {
			switch string(name) {
			case `"updated_idx"`, `"inserted_at"`, `"deleted"`, `"updated_at"`:
				return nil
			case `"data"`:
				if isNull(v) {
					return nil // it was not sent
				}
			case `"id"`:
				if known = !isNull(v); !known {
					return nil
				}
			}
			b = append(append(append(append(b, name...), ':'), v...), ',')
			return nil
		})
		if err != nil {
			return nil, err
		}
		if !known {
			b = appendID(b, find(m.Record, "sync_id"), view, upstream)
		}
	}
	at := m.CommitTime.UTC().Format("2006-01-02T15:04:05.000000Z")
	b = append(append(append(b, `"updated_idx":`...), strconv.FormatUint(m.Seq, 10)...), `,"deleted":`...)
	b = strconv.AppendBool(b, m.Action == lockstep.Delete)
	return fmt.Appendf(b, `,"inserted_at":%q,"updated_at":%q}`, at, at), nil
}

// appendRow appends the members for a row: its id is made of its table and key, so it
// is the same each time.
func appendRow(b []byte, m *sink.Message) []byte {
	collection := m.Schema + "." + m.Table
	upstream := string(m.PKs)
	var keys []string
	if json.Unmarshal(m.PKs, &keys) == nil && len(keys) == 1 {
		upstream = keys[0]
	}
	id := uuid.NewSHA1(uuid.NameSpaceURL, []byte("lockstep:"+m.Database+"\x00"+collection+"\x00"+string(m.PKs)))
	b = fmt.Appendf(b, `"id":%q,"collection_id":`, id)
	b = lockstep.AppendJSONString(b, collection)
	b = lockstep.AppendJSONString(append(b, `,"upstream_id":`...), upstream)
	return append(append(append(b, `,"data":`...), m.Record...), ',')
}

// appendID appends the id that the mirror gives to the record: it is missing where only
// the key of a deleted row is known.
func appendID(b, syncID, collection, upstream []byte) []byte {
	sync, err := unquote(syncID)
	name, err2 := unquote(collection)
	key, err3 := unquote(upstream)
	space, err4 := uuid.ParseBytes(sync)
	if err != nil || err2 != nil || err3 != nil || err4 != nil {
		return b
	}
	if _, short, ok := bytes.Cut(name, []byte(":")); ok {
		name = short
	}
	id := uuid.NewSHA1(space, append(append(append([]byte(nil), name...), 0), key...))
	return fmt.Appendf(b, `"id":%q,`, id)
}
