package wal

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"lockstep"
)

// Alteration is a table that the stream describes otherwise than before.
//
// Postgres describes a table when a change of it follows, so that an alteration shows
// with the first change after it. A renamed column is one that was dropped and one
// that was added: the stream does not tell more.
type Alteration struct {
	Schema, Name string
	At           time.Time // commit of the transaction that showed it
	Columns      []ColumnChange
	More         int // columns that are not listed: at most 20 are
}

// ColumnChange is one difference.
type ColumnChange struct {
	Kind   string // column_added, column_dropped, type_changed, key_changed, identity_changed or table_renamed
	Column string // empty for those of the table
	Before string // the type, the key or the name; empty for what was added
	After  string
}

// The kinds of a [ColumnChange].
const (
	columnAdded     = "column_added"
	columnDropped   = "column_dropped"
	typeChanged     = "type_changed"
	keyChanged      = "key_changed"
	identityChanged = "identity_changed"
	tableRenamed    = "table_renamed"
)

const (
	// mostListed bounds what one alteration says: a table has up to 1,600 columns.
	mostListed = 20
	// mostShapes bounds what is remembered of tables that come and go.
	mostShapes = 20_000
	// namesTimeout bounds the look for the names of types: changes wait meanwhile.
	namesTimeout = 2 * time.Second
)

// shape is a table as it was described at a place in the WAL.
type shape struct {
	relation *relation
	at       lockstep.LSN // of the transaction's commit
	ordinal  uint32       // of the message before, in the transaction
}

// shapes are the tables as the stream described them last in this process, also by
// connections before. It is of Run's goroutine and of the decoders that follow each
// other.
type shapes struct{ byOID map[uint32]shape }

// forget is for another timeline, whose places cannot be compared with these.
func (s *shapes) forget() { s.byOID = nil }

// met keeps the newest description and returns the one before it; nil: there was none,
// or this one is not newer, as when a new connection comes by the same place again.
func (s *shapes) met(oid uint32, now shape) *relation {
	before, known := s.byOID[oid]
	if known && (now.at < before.at || now.at == before.at && now.ordinal < before.ordinal) {
		return nil
	}
	if s.byOID == nil || !known && len(s.byOID) >= mostShapes {
		s.byOID = map[uint32]shape{}
	}
	s.byOID[oid] = now
	return before.relation
}

// typeNames names types with what was said in parentheses behind them.
type typeNames func(ctx context.Context, types []typeOf) ([]string, error)

type typeOf struct {
	oid      uint32
	modifier int32
}

// compare tells whoever asked for it what became of the table since it was described
// last.
func (d *decoder) compare(ctx context.Context, r *relation) {
	if d.altered == nil {
		return
	}
	before := d.shapes.met(r.table.OID, shape{r, d.tx.tx.CommitLSN, d.tx.ordinal})
	if before == nil || bytes.Equal(before.definition, r.definition) && before.keyText() == r.keyText() {
		return
	}
	a := Alteration{Schema: r.table.Schema, Name: r.table.Name, At: time.UnixMicro(d.tx.tx.CommitTime)}
	changes := differences(before, r)
	if len(changes) == 0 {
		return
	}
	a.More = max(0, len(changes)-mostListed)
	changes = changes[:len(changes)-a.More]
	a.Columns = d.named(ctx, changes)
	d.altered(a)
}

// difference is a ColumnChange whose types have no names yet.
type difference struct {
	ColumnChange
	before, after *typeOf
}

func differences(before, now *relation) []difference {
	var out []difference
	add := func(kind, was, is string) {
		if was != is {
			out = append(out, difference{ColumnChange: ColumnChange{Kind: kind, Before: was, After: is}})
		}
	}
	add(tableRenamed, before.table.String(), now.table.String())
	add(keyChanged, before.keyText(), now.keyText())
	add(identityChanged, identityName(before.identity), identityName(now.identity))
	was := make(map[string]typeOf, len(before.columns))
	for _, c := range before.columns {
		was[c.name] = c.typeOf()
	}
	for _, c := range now.columns {
		old, known := was[c.name]
		delete(was, c.name)
		is := c.typeOf()
		switch {
		case !known:
			out = append(out, difference{ColumnChange{Kind: columnAdded, Column: c.name}, nil, &is})
		case old != is:
			out = append(out, difference{ColumnChange{Kind: typeChanged, Column: c.name}, &old, &is})
		}
	}
	for _, c := range before.columns {
		if old, left := was[c.name]; left {
			out = append(out, difference{ColumnChange{Kind: columnDropped, Column: c.name}, &old, nil})
		}
	}
	return out
}

// named puts the types' names in. Without them the rest is still worth telling.
func (d *decoder) named(ctx context.Context, changes []difference) []ColumnChange {
	var asked []typeOf
	for _, c := range changes {
		for _, t := range []*typeOf{c.before, c.after} {
			if t != nil && !slices.Contains(asked, *t) {
				asked = append(asked, *t)
			}
		}
	}
	var names []string
	if len(asked) > 0 && d.typeNames != nil {
		names, _ = d.typeNames(ctx, asked) // what cannot be named has its number
	}
	name := func(t *typeOf) string {
		if t == nil {
			return ""
		}
		if i := slices.Index(asked, *t); i < len(names) && names[i] != "" {
			return names[i]
		}
		return fmt.Sprintf("type %d", t.oid)
	}
	out := make([]ColumnChange, len(changes))
	for i, c := range changes {
		out[i] = c.ColumnChange
		out[i].Before, out[i].After = cmp.Or(name(c.before), c.Before), cmp.Or(name(c.after), c.After)
	}
	return out
}

func (c relationColumn) typeOf() typeOf { return typeOf{c.typeOID, c.modifier} }

// keyText names the key; its order is left out, as a later catalog may tell another.
func (r *relation) keyText() string {
	if len(r.keys) == 0 {
		return "whole row"
	}
	names := make([]string, len(r.keys))
	for i, k := range r.keys {
		names[i] = r.columns[k].name
	}
	slices.Sort(names)
	return strings.Join(names, ", ")
}

func identityName(letter byte) string {
	switch letter {
	case identityDefault:
		return "default"
	case identityIndex:
		return "index"
	case identityFull:
		return "full"
	}
	return "nothing"
}

// nameTypes asks the catalog as it is now: a type that has been dropped since has no
// name there.
func nameTypes(pool *pgxpool.Pool) typeNames {
	const query = `
SELECT CASE WHEN EXISTS (SELECT FROM pg_catalog.pg_type WHERE oid = t.id) THEN pg_catalog.format_type(t.id, t.modifier) ELSE '' END
FROM unnest($1::oid[], $2::int[]) WITH ORDINALITY AS t (id, modifier, place)
ORDER BY t.place`
	return func(ctx context.Context, types []typeOf) ([]string, error) {
		ctx, cancel := context.WithTimeout(ctx, namesTimeout)
		defer cancel()
		ids, modifiers := make([]uint32, len(types)), make([]int32, len(types))
		for i, t := range types {
			ids[i], modifiers[i] = t.oid, t.modifier
		}
		rows, err := pool.Query(ctx, query, ids, modifiers)
		if err != nil {
			return nil, fmt.Errorf("read the names of types: %w", err)
		}
		return pgx.CollectRows(rows, pgx.RowTo[string])
	}
}
