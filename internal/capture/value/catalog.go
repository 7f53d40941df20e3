package value

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"
)

// Type is a row of pg_type as far as encoding is concerned.
type Type struct {
	OID       uint32
	Name      string
	Kind      string // pg_type.typtype: b base, d domain, e enum, c composite, r range, m multirange, p pseudo
	Base      uint32 // of a domain: the type below it; else 0
	Elem      uint32 // of a true array: its element's type; else 0
	ElemDelim string // of a true array: what separates its elements
}

// Fetch reads the types of the database being captured: all that can matter, and
// those asked for in any case. See [FetchTypes].
type Fetch func(ctx context.Context, asked []uint32) ([]Type, error)

// Querier is a connection, a pool or a transaction.
type Querier interface {
	Query(ctx context.Context, sql string, args ...any) (pgx.Rows, error)
}

// True arrays are told by the element's typarray: int2vector and oidvector have
// an element type, too, and are written otherwise. Every table has a row type
// and an array of it; in a database of 100,000 tables they are most of pg_type,
// so they are read only when asked for, or when a domain lies over them.
const fetchTypes = `
SELECT t.oid, t.typname::text, t.typtype::text, t.typbasetype, COALESCE(e.oid, 0), COALESCE(e.typdelim::text, '')
FROM pg_catalog.pg_type t
LEFT JOIN pg_catalog.pg_type e ON e.oid = t.typelem AND e.typarray = t.oid
LEFT JOIN pg_catalog.pg_class c ON c.oid = COALESCE(NULLIF(t.typrelid, 0), e.typrelid)
WHERE c.oid IS NULL
   OR c.relkind = 'c'
   OR t.oid = ANY($1::oid[])
   OR t.oid IN (SELECT d.typbasetype FROM pg_catalog.pg_type d WHERE d.typtype = 'd')`

// FetchTypes is the body of a [Fetch]: one query on q, which is read to its end.
func FetchTypes(ctx context.Context, q Querier, asked []uint32) ([]Type, error) {
	rows, err := q.Query(ctx, fetchTypes, asked)
	if err != nil {
		return nil, fmt.Errorf("read pg_type: %w", err)
	}
	types, err := pgx.CollectRows(rows, pgx.RowToStructByPos[Type])
	if err != nil {
		return nil, fmt.Errorf("read pg_type: %w", err)
	}
	return types, nil
}

// Options is how a catalog's encoders write. The zero value is the default.
type Options struct {
	Int8AsString bool // int8 as a JSON string, for readers that round above 2^53
}

// unknownFor is how long an oid that pg_type did not hold is not asked for again.
const unknownFor = time.Minute

// Catalog knows the types of one database by oid. It is used by one goroutine.
type Catalog struct {
	fetch   Fetch
	options Options
	shapes  map[uint32]*shape
	unknown map[uint32]time.Time // when pg_type did not hold them
}

// NewCatalog returns a catalog that knows the built-in types, and calls fetch
// when it meets another.
func NewCatalog(fetch Fetch, o Options) *Catalog {
	c := &Catalog{fetch: fetch, options: o}
	c.Reset()
	return c
}

// Reset forgets all but the built-in types. Call it when the server behind fetch
// may be another one: oids of one cluster mean nothing in the next.
func (c *Catalog) Reset() {
	c.shapes = builtins(c.options)
	c.unknown = map[uint32]time.Time{}
}

// Encoder returns the encoder of a type. A type that pg_type does not hold (it
// was dropped since) is written as text, and asked for again after a minute. The
// error is fetch's: nothing is known then, and the caller tries again.
func (c *Catalog) Encoder(ctx context.Context, oid uint32) (Encoder, error) {
	if s, ok := c.shapes[oid]; ok {
		return Encoder{s}, nil
	}
	if at, ok := c.unknown[oid]; ok && time.Since(at) < unknownFor {
		return Encoder{}, nil
	}
	types, err := c.fetch(ctx, []uint32{oid})
	if err != nil {
		return Encoder{}, fmt.Errorf("look up the type with oid %d: %w", oid, err)
	}
	c.learn(types)
	if s, ok := c.shapes[oid]; ok {
		return Encoder{s}, nil
	}
	c.unknown[oid] = time.Now()
	return Encoder{}, nil
}

// learn adds types that are not known yet. Known ones stay: an oid means the
// same type for as long as a value of it can arrive.
func (c *Catalog) learn(types []Type) {
	byOID := make(map[uint32]*Type, len(types))
	for i := range types {
		byOID[types[i].OID] = &types[i]
	}
	for oid := range byOID {
		c.resolve(oid, byOID, nil)
	}
}

// resolve returns the shape of a type, resolving what it is built from first.
// path holds the types that wait for this one, lest a damaged catalog loop.
func (c *Catalog) resolve(oid uint32, types map[uint32]*Type, path []uint32) *shape {
	if s, ok := c.shapes[oid]; ok {
		return s
	}
	t := types[oid]
	if t == nil || slices.Contains(path, oid) {
		return &shape{kind: kindText}
	}
	delete(c.unknown, oid)
	path = append(path, oid)
	s := &shape{kind: kindText}
	switch {
	case t.Kind == "d":
		s = c.resolve(t.Base, types, path)
	case t.Elem != 0:
		s = &shape{kind: kindArray, elem: c.resolve(t.Elem, types, path), delim: delimiter(t.ElemDelim)}
	case t.Kind == "b":
		s = &shape{kind: extensionKind(t.Name)}
	}
	c.shapes[oid] = s
	return s
}

func delimiter(s string) byte {
	if s == "" {
		return ','
	}
	return s[0]
}

// extensionKind knows the base types of extensions by name: their oids and their
// schema differ from database to database.
func extensionKind(name string) kind {
	switch name {
	case "hstore":
		return kindHstore
	case "vector", "halfvec":
		return kindVector
	}
	return kindText
}
