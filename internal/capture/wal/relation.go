package wal

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"slices"

	"lockstep"
	"lockstep/internal/capture/value"
)

// The replica identities, as Relation messages and pg_class.relreplident name them.
const (
	identityDefault = 'd'
	identityIndex   = 'i'
	identityFull    = 'f'
)

// relation is a table as the stream last described it. It is immutable but for
// the number of its table in the current batch.
type relation struct {
	table      *lockstep.Table
	definition []byte // the message that described it
	identity   byte
	columns    []relationColumn
	keys       []int  // columns of the key, in key order; none: the whole row
	isKey      []bool // by column
	hash       uint64 // of the table, where each key's hash begins
	wanted     bool   // matches the configuration
	// oldIsKey says that old rows hold the key's columns only, whatever the
	// messages say of them.
	oldIsKey bool

	batch  uint64 // number is valid in this batch
	number uint16
}

type relationColumn struct {
	name    string
	label   []byte // the name as a JSON string, and a colon
	typeOID uint32
	// modifier is what was said in parentheses behind the type; -1: nothing.
	modifier int32
	flagged  bool // part of the replica identity
	encoder  value.Encoder
}

// relationSource tells what Relation messages do not.
type relationSource interface {
	// Wanted reports whether the configuration names the table.
	Wanted(schema, name string) bool
	// Encoder returns the encoder of a type.
	Encoder(ctx context.Context, oid uint32) (value.Encoder, error)
	// Keys reads the keys of a table as they are now, which may be later than
	// the stream is. An unknown table has none.
	Keys(ctx context.Context, oid uint32) (tableKeys, error)
}

// tableKeys are the keys of a table in the catalog.
type tableKeys struct {
	Primary  tableKey
	Identity tableKey // the replica identity index, when it is not the primary key
	Columns  int      // how many columns the table has, without generated ones
	// PartlyFull: the table is partitioned, has full identity itself, and has a
	// partition that has not.
	PartlyFull bool
	// FullBelow: it has not, and has a partition that has.
	FullBelow bool
}

// tableKey is a key's columns in the order of its index: their names, and their
// places in the table, from 0.
type tableKey struct {
	Names  []string
	Places []int
}

// learn handles a Relation message. Nothing happens when the definition is the
// one that is known: Postgres repeats it after every invalidation.
func (d *decoder) learn(ctx context.Context, body []byte) error {
	if len(body) < 4 {
		return fmt.Errorf("relation of %d bytes: %w", len(body), errDamaged)
	}
	oid := binary.BigEndian.Uint32(body)
	known := d.relations[oid]
	if known != nil && bytes.Equal(known.definition, body) {
		return nil
	}
	r, err := parseRelation(body)
	if err != nil {
		return fmt.Errorf("describe the table with oid %d: %w", oid, err)
	}
	r.wanted = d.relation.Wanted(r.table.Schema, r.table.Name)
	if r.wanted {
		if err := d.complete(ctx, r, known); err != nil {
			return fmt.Errorf("describe %s: %w", r.table, err)
		}
		d.compare(ctx, r)
	}
	d.relations[oid] = r
	return nil
}

// complete adds what the catalog tells: encoders and keys.
func (d *decoder) complete(ctx context.Context, r, known *relation) error {
	for i := range r.columns {
		c := &r.columns[i]
		e, err := d.relation.Encoder(ctx, c.typeOID)
		if err != nil {
			return err
		}
		c.encoder = e
	}
	keys, err := d.relation.Keys(ctx, r.table.OID)
	if err != nil {
		return err
	}
	kind, columns := r.chooseKey(keys, known)
	r.oldIsKey = keys.PartlyFull && r.identity == identityFull
	if keys.FullBelow && kind == lockstep.KeyRow {
		r.identity = identityFull // its rows are updated, too
	}
	r.setKey(kind, columns)
	// A table's pointer changes only when something changed: a batch names each
	// pointer once.
	if known != nil && *known.table == *r.table {
		r.table = known.table
	}
	return nil
}

func (r *relation) setKey(kind lockstep.KeyKind, columns []int) {
	r.table.Key, r.keys = kind, columns
	r.hash = lockstep.KeyHash(r.table)
	r.isKey = make([]bool, len(r.columns))
	for _, i := range columns {
		r.isKey[i] = true
	}
}

// chooseKey applies the rule of the package's documentation.
func (r *relation) chooseKey(now tableKeys, known *relation) (lockstep.KeyKind, []int) {
	flagged := r.flagged()
	primary := r.candidates(now.Primary, now.Columns)
	isFlagged := func(columns []int) bool { return sameSet(flagged, columns) }
	isIndex := r.identity == identityIndex && len(flagged) > 0
	switch {
	case r.identity == identityDefault && len(flagged) > 0,
		isIndex && len(now.Identity.Names) == 0 && slices.ContainsFunc(primary, isFlagged):
		return lockstep.KeyPrimary, r.ordered(flagged, known, primary)
	case isIndex:
		return lockstep.KeyIdentity, r.ordered(flagged, known, r.candidates(now.Identity, now.Columns))
	}
	if primary := r.find(now.Primary.Names); len(primary) > 0 {
		return lockstep.KeyPrimary, primary
	}
	return lockstep.KeyRow, nil
}

// candidates returns which columns of the stream may be those of a key in the
// catalog, the likeliest first. By their places they are found also after columns
// were renamed, or have swapped names; by name after others came or went.
func (r *relation) candidates(k tableKey, columns int) [][]int {
	if columns == len(r.columns) {
		return [][]int{k.Places, r.find(k.Names)}
	}
	return [][]int{r.find(k.Names)}
}

// ordered returns the columns that the stream calls the key in an order: the
// catalog's when it speaks of the same columns, else the one known before, else
// the columns' own.
func (r *relation) ordered(flagged []int, known *relation, candidates [][]int) []int {
	if known != nil {
		names := make([]string, 0, len(known.keys))
		for _, i := range known.keys {
			names = append(names, known.columns[i].name)
		}
		candidates = append(candidates, r.find(names))
	}
	for _, c := range candidates {
		if sameSet(flagged, c) {
			return c
		}
	}
	return flagged
}

func (r *relation) flagged() []int {
	var columns []int
	for i, c := range r.columns {
		if c.flagged {
			columns = append(columns, i)
		}
	}
	return columns
}

// find returns the columns with these names, or nothing when one is missing.
func (r *relation) find(names []string) []int {
	var columns []int
	for _, name := range names {
		i := slices.IndexFunc(r.columns, func(c relationColumn) bool { return c.name == name })
		if i < 0 {
			return nil
		}
		columns = append(columns, i)
	}
	return columns
}

func sameSet(a, b []int) bool {
	if len(a) != len(b) {
		return false
	}
	for _, i := range a {
		if !slices.Contains(b, i) {
			return false
		}
	}
	return true
}

func parseRelation(body []byte) (*relation, error) {
	r := &relation{definition: bytes.Clone(body), table: &lockstep.Table{OID: binary.BigEndian.Uint32(body), Key: lockstep.KeyRow}}
	schema, rest, ok := cutString(body[4:])
	if !ok {
		return nil, errDamaged
	}
	name, rest, ok := cutString(rest)
	if !ok || len(rest) < 3 {
		return nil, errDamaged
	}
	r.table.Schema, r.table.Name = string(schema), string(name)
	if len(schema) == 0 {
		// The protocol's way of saving bytes.
		r.table.Schema = "pg_catalog"
	}
	r.identity = rest[0]
	n := int(binary.BigEndian.Uint16(rest[1:]))
	rest = rest[3:]
	if n*10 > len(rest) {
		return nil, errDamaged
	}
	r.columns = make([]relationColumn, n)
	for i := range r.columns {
		if len(rest) < 1 {
			return nil, errDamaged
		}
		flags := rest[0]
		name, after, ok := cutString(rest[1:])
		if !ok || len(after) < 8 {
			return nil, errDamaged
		}
		r.columns[i] = newColumn(string(name), binary.BigEndian.Uint32(after))
		r.columns[i].flagged = flags&1 != 0
		r.columns[i].modifier = int32(binary.BigEndian.Uint32(after[4:]))
		rest = after[8:]
	}
	if len(rest) > 0 {
		return nil, errDamaged
	}
	return r, nil
}

func newColumn(name string, typeOID uint32) relationColumn {
	return relationColumn{name: name, typeOID: typeOID, label: append(lockstep.AppendJSONString(nil, name), ':')}
}
