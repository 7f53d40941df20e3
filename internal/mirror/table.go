package mirror

import (
	"encoding/hex"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/google/uuid"

	"lockstep/internal/pgdb"
	"lockstep/source"
)

// column is one column of a mirror table that a field lies in.
type column struct {
	key     string
	path    []string // of the value in the record
	typ     source.Type
	name    string // "": the table has no room for it
	current bool   // of the types that the field had, this is the one that it has now
	filled  bool   // also for rows that are older than it
	after   string // the id up to which it is filled
}

// comment marks a column as ours, and as that field's, whatever it is called.
func (c column) comment() string {
	return fmt.Sprintf("%s of the API, as %s; kept by Lockstep", strings.Join(c.path, "."), c.typ)
}

// table is one mirror table. Its fields belong to the mirror's turn, but for plan.
type table struct {
	collection source.Collection
	name       string
	idType     string // text or bigint
	columns    []column
	plan       atomic.Pointer[pathSet] // the volatile paths; read without the turn
	// byKey leads from a record's top-level keys to the columns, by their place.
	byKey map[string][]int
	// pending are columns that wait for their lock on the table.
	pending []field
	sql     statements
}

// discovers says whether the columns follow the records, for want of declared fields.
func (t *table) discovers() bool { return t.collection.Fields == nil }

// arrange sets what follows from the columns.
func (t *table) arrange(schema string) {
	t.byKey = map[string][]int{}
	for i, c := range t.columns {
		t.byKey[c.path[0]] = append(t.byKey[c.path[0]], i)
	}
	t.sql = newStatements(schema, t)
}

// row is a record as the table takes it. Cells are in Postgres' text form, in the
// order of [table.cellNames]; nil is NULL.
type row struct {
	id    string
	cells [][]byte
	noted int
}

// note says why a value is not in its column.
type note struct {
	Field  string `json:"field"`
	Reason string `json:"reason"`
}

// cellNames are the columns that rows have cells for.
func (t *table) cellNames() []string {
	names := []string{idColumn}
	for _, c := range t.columns {
		if c.name != "" {
			names = append(names, c.name)
		}
	}
	for _, c := range systemColumns() {
		names = append(names, c[0])
	}
	return names
}

// cellTypes are their types.
func (t *table) cellTypes() []string {
	types := []string{t.idType}
	for _, c := range t.columns {
		if c.name != "" {
			types = append(types, sqlType(c.typ))
		}
	}
	for _, c := range systemColumns() {
		types = append(types, c[1])
	}
	return types
}

// values encodes a record's fields, one cell for each of the columns, also those
// that the table has no room for. wanted gets the fields, of discovered ones, that
// need a column of another type.
func (t *table) values(data []byte, wanted map[string]source.Type) (cells [][]byte, notes []note) {
	cells = make([][]byte, len(t.columns))
	var scratch []byte
	eachMember(data, skipSpace(data, 0), 0, func(m member) {
		for _, i := range t.byKey[string(m.key)] {
			c := &t.columns[i]
			cells[i] = nil // of two equal keys the last counts
			value := dig(m.value, c.path[1:])
			if value == nil || c.name == "" {
				continue
			}
			var misfit string
			if cells[i], scratch, misfit = coerce(c.typ, value, scratch); misfit == "" || !c.current {
				continue
			}
			notes = append(notes, note{Field: c.name, Reason: misfit})
			if t.discovers() {
				wanted[string(m.key)] = widen(wanted[string(m.key)], infer(value))
			}
		}
	})
	return cells, notes
}

// unknown adds the fields of a record to wanted that no column is known for.
func (t *table) unknown(data []byte, wanted map[string]source.Type) {
	eachMember(data, skipSpace(data, 0), 0, func(m member) {
		if _, known := t.byKey[string(m.key)]; known || string(m.key) == idColumn || len(m.key) > longestKey {
			return
		}
		if typ := infer(m.value); typ != "" {
			wanted[string(m.key)] = widen(wanted[string(m.key)], typ)
		}
	})
}

// longestKey is up to which length a discovered field's name is taken for one.
const longestKey = 500

// fieldsOf returns what was discovered as fields, in the order of their names.
func fieldsOf(wanted map[string]source.Type) []field {
	fields := make([]field, 0, len(wanted))
	for _, key := range slices.Sorted(maps.Keys(wanted)) {
		fields = append(fields, field{key: key, name: snake(key), path: []string{key}, typ: wanted[key]})
	}
	return fields
}

// dig returns the value at a path below a value; nil when there is none.
func dig(value []byte, path []string) []byte {
	for _, key := range path {
		if kindOf(value) != kindObject {
			return nil
		}
		if value = memberOf(value, key); value == nil {
			return nil
		}
	}
	return value
}

// encode makes the row of a record.
func (t *table) encode(sync uuid.UUID, r *reading, wanted map[string]source.Type) *row {
	values, notes := t.values(r.data, wanted)
	if r.cleaned > 0 {
		notes = append(notes, note{Field: "_raw", Reason: fmt.Sprintf("%d places that Postgres cannot hold were replaced", r.cleaned)})
	}
	return &row{id: r.id, cells: t.cells(sync, r, values, notes), noted: len(notes)}
}

func (t *table) cells(sync uuid.UUID, r *reading, values [][]byte, notes []note) [][]byte {
	cells := make([][]byte, 0, len(values)+9)
	cells = append(cells, []byte(r.id))
	for i, v := range values {
		if t.columns[i].name != "" {
			cells = append(cells, v)
		}
	}
	id := uuid.NewSHA1(sync, []byte(t.collection.Name+"\x00"+r.id))
	var noted []byte
	if len(notes) > 0 {
		noted, _ = json.Marshal(notes) // strings only
	}
	return append(cells, []byte(id.String()), timeText(r.created), timeText(r.version), timeText(r.at),
		strconv.AppendUint(nil, uint64(r.rank), 10), hex.AppendEncode([]byte(`\x`), r.print[:]), r.data, noted)
}

// trimmedNote is part of the note of a row that has fewer columns than fields.
const trimmedNote = "fields are only here"

// trimmed is the row with at most so many fields, for tables whose rows Postgres
// calls too big: each value that it keeps elsewhere leaves 18 bytes of 8,160.
func (t *table) trimmed(r *row, most int, reason string) *row {
	cells := slices.Clone(r.cells)
	fields := len(cells) - 1 - len(systemColumns())
	kept := 0
	for i := 1; i <= fields; i++ {
		if cells[i] == nil {
			continue
		}
		if kept++; kept > most {
			cells[i] = nil
		}
	}
	noted, _ := json.Marshal([]note{{Field: "_raw", Reason: fmt.Sprintf("%d %s: %s", max(kept-most, 0), trimmedNote, reason)}}) // strings only
	cells[len(cells)-1] = noted
	return &row{id: r.id, cells: cells, noted: r.noted + 1}
}

// timeText is a time as Postgres reads it; NULL for the zero time.
func timeText(at time.Time) []byte {
	if at.IsZero() || at.Year() < 1 || at.Year() > 9999 {
		return nil
	}
	return at.UTC().AppendFormat(nil, "2006-01-02 15:04:05.999999+00")
}

// statements are the SQL of one table, as its columns are now.
type statements struct {
	look, insert, update, remove, count string
}

func newStatements(schema string, t *table) statements {
	relation := pgdb.QuoteIdent(schema, t.name)
	names, types := t.cellNames(), t.cellTypes()
	quoted := make([]string, len(names))
	for i, n := range names {
		quoted[i] = pgdb.QuoteIdent(n)
	}
	return statements{
		look: fmt.Sprintf(`
			SELECT id::text, _updated_at, _rank, _synced_at, _fingerprint
			FROM %s
			WHERE id = ANY ($1::text[]::%s[])`, relation, t.idType),
		insert: fmt.Sprintf("COPY %s (%s) FROM STDIN", relation, strings.Join(quoted, ", ")),
		update: updateStatement(relation, quoted, types, ""),
		remove: fmt.Sprintf("DELETE FROM %s WHERE id = ANY ($1::text[]::%s[])", relation, t.idType),
		count:  "SELECT count(*) FROM " + relation,
	}
}

// updateStatement sets columns from arrays of text, the first of which is the id.
func updateStatement(relation string, quoted, types []string, condition string) string {
	sets, arrays, aliases := make([]string, 0, len(quoted)), make([]string, len(quoted)), make([]string, len(quoted))
	for i := range quoted {
		arrays[i], aliases[i] = fmt.Sprintf("$%d::text[]", i+1), fmt.Sprintf("c%d", i)
		switch {
		case quoted[i] == `"_created_at"`: // what one look does not say another has said
			sets = append(sets, fmt.Sprintf("%s = coalesce(d.c%d::%s, t.%[1]s)", quoted[i], i, types[i]))
		case i > 0:
			sets = append(sets, fmt.Sprintf("%s = d.c%d::%s", quoted[i], i, types[i]))
		}
	}
	return fmt.Sprintf("UPDATE %s AS t SET %s FROM unnest(%s) AS d(%s) WHERE t.id = d.c0::%s %s",
		relation, strings.Join(sets, ", "), strings.Join(arrays, ", "), strings.Join(aliases, ", "), types[0], condition)
}
