package backfill

import (
	"fmt"
	"slices"
	"strings"

	"lockstep/internal/pgdb"
)

// query writes the SQL of a slice, and gathers its parameters. Their types are
// those of the columns, so Postgres reads the cursor as it wrote it.
type query struct {
	slice  *slice
	shape  *shape
	alias  string
	values [][]byte
	types  []uint32
}

func newQuery(s *slice, shape *shape) *query {
	return &query{slice: s, shape: shape, alias: pgdb.QuoteIdent(shape.name)}
}

// fresh returns the query without parameters.
func (q *query) fresh() *query { return newQuery(q.slice, q.shape) }

func (q *query) selectRows(until [][]byte) string {
	columns := make([]string, len(q.shape.columns))
	for i, c := range q.shape.columns {
		columns[i] = q.alias + "." + pgdb.QuoteIdent(c.Name)
	}
	if q.slice.keysOnly {
		columns = q.keyColumns()
	}
	conditions := q.bounds(until)
	if q.slice.these != nil {
		conditions = append(conditions, q.these())
	}
	if q.slice.where != "" {
		// The line break ends whatever the condition's text ends with.
		conditions = append(conditions, "("+q.slice.where+"\n)")
	}
	return q.text(strings.Join(columns, ", "), conditions)
}

func (q *query) selectEdge(until [][]byte) string {
	return q.text(strings.Join(q.keyColumns(), ", "), q.bounds(until))
}

func (q *query) keyColumns() []string {
	columns := make([]string, len(q.shape.key))
	for i, k := range q.shape.key {
		columns[i] = q.alias + "." + pgdb.QuoteIdent(k.name)
	}
	return columns
}

func (q *query) text(columns string, conditions []string) string {
	if len(q.shape.filters) > 0 {
		conditions = append(conditions, "("+strings.Join(q.shape.filters, " OR ")+")")
	}
	text := "SELECT " + columns + " FROM " + q.from()
	if len(conditions) > 0 {
		text += " WHERE " + strings.Join(conditions, " AND ")
	}
	order := make([]string, len(q.shape.key))
	for i, k := range q.shape.key {
		order[i] = q.column(k) + " USING " + k.less
	}
	return text + " ORDER BY " + strings.Join(order, ", ")
}

// from is the table alone: rows of inheritance children are the children's. Its
// alias is its name, which conditions may use.
func (q *query) from() string {
	only := "ONLY "
	if q.shape.kind == 'p' {
		only = ""
	}
	return only + pgdb.QuoteIdent(q.shape.schema, q.shape.name) + " AS " + q.alias
}

func (q *query) column(k keyColumn) string {
	return q.alias + "." + pgdb.QuoteIdent(k.name) + k.collate
}

func (q *query) parameter(k keyColumn, v []byte) string {
	q.values, q.types = append(q.values, v), append(q.types, k.typeOID)
	if k.takes == charOID {
		// Postgres 18 fails to estimate a comparison with such a constant (cache lookup
		// failed for collation 0): it must not see one.
		return fmt.Sprintf("(SELECT $%d)", len(q.values))
	}
	return fmt.Sprintf("$%d", len(q.values))
}

func (q *query) bounds(until [][]byte) []string {
	var conditions []string
	if q.slice.after != nil {
		conditions = append(conditions, q.compare(q.slice.after, behind))
	}
	if until != nil {
		conditions = append(conditions, q.compare(until, upTo))
	}
	return conditions
}

// behind and upTo tell by which operators keys are compared: where all columns
// before are equal, where a column decides, and what the first column is in any case.
func behind(k keyColumn) (last, strict, wide string) { return k.greater, k.greater, k.atLeast }
func upTo(k keyColumn) (last, strict, wide string)   { return k.upTo, k.less, k.upTo }

// compare compares the key with values as rows are compared: by the first column
// that differs. Where all columns have the same operators, Postgres does it, and
// finds its place in the index by all of them; else by the first one.
func (q *query) compare(values [][]byte, side func(keyColumn) (last, strict, wide string)) string {
	columns, parameters := make([]string, len(values)), make([]string, len(values))
	first, _, wide := side(q.shape.key[0])
	same := true
	for i, k := range q.shape.key {
		columns[i], parameters[i] = q.column(k), q.parameter(k, values[i])
		last, _, _ := side(k)
		same = same && last == first
	}
	switch {
	case len(columns) == 1:
		return columns[0] + " " + first + " " + parameters[0]
	case same:
		return "ROW(" + strings.Join(columns, ", ") + ") " + first + " ROW(" + strings.Join(parameters, ", ") + ")"
	}
	// From the last column to the first: decided here, or equal here and further on.
	text := ""
	for i, column := range slices.Backward(columns) {
		last, strict, _ := side(q.shape.key[i])
		if text == "" {
			text = column + " " + last + " " + parameters[i]
			continue
		}
		text = "(" + column + " " + strict + " " + parameters[i] + " OR " + column + " " + q.shape.key[i].equal + " " + parameters[i] + " AND " + text + ")"
	}
	return columns[0] + " " + wide + " " + parameters[0] + " AND " + text
}

// these names rows by their keys.
func (q *query) these() string {
	rows := make([]string, len(q.slice.these))
	for i, values := range q.slice.these {
		parts := make([]string, len(values))
		for j, k := range q.shape.key {
			parts[j] = q.column(k) + " " + k.equal + " " + q.parameter(k, values[j])
		}
		rows[i] = "(" + strings.Join(parts, " AND ") + ")"
	}
	return "(" + strings.Join(rows, " OR ") + ")"
}
