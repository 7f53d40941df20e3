package backfill

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/jackc/pgx/v5/pgconn"

	"lockstep/internal/capture/publish"
	"lockstep/internal/pgdb"
)

// shape is a table as the catalog has it in the snapshot of a page.
type shape struct {
	schema, name string
	kind         byte
	identity     byte // pg_class.relreplident
	columns      []publish.Column
	key          []keyColumn // in the order of the index
	filters      []string    // row filters of the publications; a row passes any of them
}

// keyColumn is one column of the key, and how its index orders it.
type keyColumn struct {
	name    string
	typeOID uint32
	place   int // in shape.columns
	collate string
	less    string // the operators, as they stand in SQL
	equal   string
	greater string
	upTo    string
	atLeast string
	class   uint32 // the operator class
	takes   uint32 // the type that its operators compare
}

var (
	errDropped = errors.New("the table was dropped")
	errMoved   = errors.New("the table was renamed")
	errNoKey   = errors.New("the index of its key is gone")
)

// generatedSince is the server version from which stored generated columns are
// published.
const generatedSince = 180000

const readColumnsSQL = `
SELECT n.nspname, c.relname, c.relkind, c.relreplident, a.attname, a.atttypid
FROM pg_catalog.pg_class c
JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
LEFT JOIN pg_catalog.pg_attribute a ON a.attrelid = c.oid
  AND a.attnum > 0
  AND NOT a.attisdropped
  AND (a.attgenerated = '' OR a.attgenerated = 's' AND $2)
WHERE c.oid = $1
ORDER BY a.attnum`

// The operators of an index column are those of its operator family, by strategy:
// less, up to, equal, at least, greater. A type of an extension has operators
// outside of the search path, and another class than the default has others.
const readKeySQL = `
SELECT x.indexrelid, a.attname, a.atttypid, k.class, coalesce(
    CASE WHEN k.coll <> a.attcollation THEN (
      SELECT ' COLLATE ' || pg_catalog.quote_ident(cn.nspname) || '.' || pg_catalog.quote_ident(l.collname)
      FROM pg_catalog.pg_collation l
      JOIN pg_catalog.pg_namespace cn ON cn.oid = l.collnamespace
      WHERE l.oid = k.coll
    ) END, ''), (
    SELECT pg_catalog.string_agg('OPERATOR(' || pg_catalog.quote_ident(pn.nspname) || '.' || p.oprname || ')', pg_catalog.chr(31) ORDER BY m.amopstrategy)
    FROM pg_catalog.pg_amop m
    JOIN pg_catalog.pg_operator p ON p.oid = m.amopopr
    JOIN pg_catalog.pg_namespace pn ON pn.oid = p.oprnamespace
    WHERE m.amopfamily = o.opcfamily
      AND m.amoplefttype = o.opcintype
      AND m.amoprighttype = o.opcintype
      AND m.amoppurpose = 's'
  ), o.opcintype
FROM pg_catalog.pg_index x
JOIN pg_catalog.pg_class i ON i.oid = x.indexrelid
JOIN pg_catalog.pg_am am ON am.oid = i.relam AND am.amname = 'btree'
CROSS JOIN LATERAL unnest(x.indkey::int2[], x.indclass::oid[], x.indcollation::oid[]) WITH ORDINALITY AS k(attnum, class, coll, place)
JOIN pg_catalog.pg_attribute a ON a.attrelid = x.indrelid AND a.attnum = k.attnum
JOIN pg_catalog.pg_opclass o ON o.oid = k.class
WHERE x.indrelid = $1
  AND k.place <= x.indnkeyatts
  AND (x.indisprimary OR x.indisreplident)
  AND x.indisunique AND x.indislive AND x.indisvalid AND x.indpred IS NULL
ORDER BY x.indisprimary DESC, x.indexrelid, k.place`

// What publications let through, since version 15. No row: everything.
const readNarrowedSQL = `
SELECT coalesce(pg_catalog.pg_get_expr(m.prqual, m.prrelid), ''), coalesce((
    SELECT pg_catalog.string_agg(a.attnum::text, ' ')
    FROM pg_catalog.pg_attribute a
    WHERE a.attrelid = m.prrelid AND a.attnum = ANY (m.prattrs::int2[])
  ), ''), coalesce((
    SELECT pg_catalog.string_agg(a.attname::text, pg_catalog.chr(31))
    FROM pg_catalog.pg_attribute a
    WHERE a.attrelid = m.prrelid AND a.attnum = ANY (m.prattrs::int2[])
  ), '')
FROM pg_catalog.pg_publication_rel m
JOIN pg_catalog.pg_publication p ON p.oid = m.prpubid
WHERE m.prrelid = $1
  AND p.pubname IN ($2, $3)`

const narrowedSince = 150000

// oid types of the parameters of the queries above.
const (
	oidOID  = 26
	boolOID = 16
	textOID = 25
	charOID = 18 // "char", which is no char(n)
)

// readShape reads what a table is. keys are the names of the columns of its key.
func readShape(ctx context.Context, pg *pgconn.PgConn, oid uint32, keys []string, publication string) (*shape, error) {
	version := serverVersion(pg)
	of := []byte(strconv.FormatUint(uint64(oid), 10))
	generated := strconv.AppendBool(nil, version >= generatedSince)
	found := pg.ExecParams(ctx, readColumnsSQL, [][]byte{of, generated}, []uint32{oidOID, boolOID}, nil, nil).Read()
	if found.Err != nil {
		return nil, found.Err
	}
	if len(found.Rows) == 0 {
		return nil, errDropped
	}
	first := found.Rows[0]
	s := &shape{schema: string(first[0]), name: string(first[1]), kind: first[2][0], identity: first[3][0]}
	for _, row := range found.Rows {
		if row[4] != nil {
			s.columns = append(s.columns, publish.Column{Name: string(row[4]), TypeOID: parseOID(row[5]), Key: slices.Contains(keys, string(row[4]))})
		}
	}
	if publication != "" && version >= narrowedSince {
		if err := s.narrow(ctx, pg, of, publication); err != nil {
			return nil, err
		}
	}
	return s, s.readKey(ctx, pg, of, keys)
}

// narrow leaves out the columns and rows that the publication does.
func (s *shape) narrow(ctx context.Context, pg *pgconn.PgConn, of []byte, publication string) error {
	names := [][]byte{of, []byte(publication), []byte(publication + publish.InsertsSuffix)}
	found := pg.ExecParams(ctx, readNarrowedSQL, names, []uint32{oidOID, textOID, textOID}, nil, nil).Read()
	if found.Err != nil {
		return found.Err
	}
	open := false
	for _, row := range found.Rows {
		if len(row[0]) == 0 {
			open = true
		} else {
			s.filters = append(s.filters, string(row[0]))
		}
		if len(row[2]) > 0 {
			published := strings.Split(string(row[2]), "\x1f")
			s.columns = slices.DeleteFunc(s.columns, func(c publish.Column) bool { return !slices.Contains(published, c.Name) })
		}
	}
	if open {
		s.filters = nil
	}
	return nil
}

// readKey finds the index over the columns of the key.
func (s *shape) readKey(ctx context.Context, pg *pgconn.PgConn, of []byte, keys []string) error {
	found := pg.ExecParams(ctx, readKeySQL, [][]byte{of}, []uint32{oidOID}, nil, nil).Read()
	if found.Err != nil {
		return found.Err
	}
	for at := 0; at < len(found.Rows); {
		end := at
		for end < len(found.Rows) && string(found.Rows[end][0]) == string(found.Rows[at][0]) {
			end++
		}
		if key := s.keyOf(found.Rows[at:end], keys); key != nil {
			s.key = key
			return nil
		}
		at = end
	}
	return errNoKey
}

// keyOf makes the key of an index's rows, or nil when it is another key.
func (s *shape) keyOf(rows [][][]byte, keys []string) []keyColumn {
	if len(rows) != len(keys) {
		return nil
	}
	var key []keyColumn
	for i, row := range rows {
		operators := strings.Split(string(row[5]), "\x1f")
		k := keyColumn{name: string(row[1]), typeOID: parseOID(row[2]), class: parseOID(row[3]), collate: string(row[4]), takes: parseOID(row[6])}
		k.place = slices.IndexFunc(s.columns, func(c publish.Column) bool { return c.Name == k.name })
		if k.name != keys[i] || k.place < 0 || len(operators) != 5 {
			return nil
		}
		k.less, k.upTo, k.equal, k.atLeast, k.greater = operators[0], operators[1], operators[2], operators[3], operators[4]
		key = append(key, k)
	}
	return key
}

// fingerprint tells keys apart whose values cannot be compared with each other.
func (s *shape) fingerprint(kind string) string {
	var b strings.Builder
	b.WriteString(kind)
	for _, k := range s.key {
		fmt.Fprintf(&b, " %s:%d:%d%s", pgdb.QuoteIdent(k.name), k.typeOID, k.class, k.collate)
	}
	return b.String()
}

// keyOfRow returns the key's values of a row.
func (s *shape) keyOfRow(row [][]byte) [][]byte {
	key := make([][]byte, len(s.key))
	for i, k := range s.key {
		key[i] = row[k.place]
	}
	return key
}

func parseOID(text []byte) uint32 {
	n, err := strconv.ParseUint(string(text), 10, 32)
	if err != nil {
		return 0
	}
	return uint32(n)
}

// serverVersion returns the number of the server's version, such as 150018.
func serverVersion(pg *pgconn.PgConn) int {
	text := pg.ParameterStatus("server_version")
	major := 0
	for _, c := range text {
		if c < '0' || c > '9' {
			break
		}
		major = 10*major + int(c-'0')
	}
	return major * 10000
}
