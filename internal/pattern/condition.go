package pattern

import "strings"

// Condition is Match as an SQL condition over the columns that hold schema and table;
// quote makes an SQL literal of a text. The schemas that never match are left to the
// caller.
func (p Patterns) Condition(schema, table string, quote func(string) string) string {
	c := conditions{schema: schema, table: table, quote: quote}
	var parts []string
	if len(p.include) > 0 {
		parts = append(parts, "("+c.anyOf(p.include)+")")
	}
	if len(p.exclude) > 0 {
		parts = append(parts, "NOT ("+c.anyOf(p.exclude)+")")
	}
	if len(parts) == 0 {
		return "true"
	}
	return strings.Join(parts, " AND ")
}

// conditions writes patterns as SQL.
type conditions struct {
	schema, table string // columns
	quote         func(string) string
}

func (c conditions) anyOf(list []pattern) string {
	parts := make([]string, len(list))
	for i, one := range list {
		parts[i] = "(" + c.one(c.schema, one.schema) + " AND " + c.one(c.table, one.table) + ")"
	}
	return strings.Join(parts, " OR ")
}

func (c conditions) one(column string, g glob) string {
	if g.literal {
		return column + " = " + c.quote(g.text)
	}
	var b strings.Builder
	b.WriteString("^")
	for _, r := range g.text {
		switch {
		case r == '*':
			b.WriteString(".*")
		case r == '?':
			b.WriteString(".")
		case strings.ContainsRune(`\.+()[]{}|^$`, r):
			b.WriteRune('\\')
			b.WriteRune(r)
		default:
			b.WriteRune(r)
		}
	}
	b.WriteString("$")
	return column + "::text ~ " + c.quote(b.String())
}
