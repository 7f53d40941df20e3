package mirror

import (
	"time"

	"lockstep/source"
)

// infer returns the type of column for a value of which nothing else is known; ""
// for null. Integers that no bigint holds are numeric, and a text is a time only if
// it is one to the letter.
func infer(value []byte) source.Type {
	switch kindOf(value) {
	case kindNull:
		return ""
	case kindBool:
		return source.Boolean
	case kindNumber:
		if isInteger(value) && skipDigits(value, 1) == len(value) {
			return source.Integer
		}
		return source.Numeric
	case kindString:
		if s := unquote(value); len(s) >= len("2006-01-02T15:04:05Z") && s[4] == '-' && s[10] == 'T' {
			if _, err := time.Parse(time.RFC3339Nano, string(s)); err == nil {
				return source.Timestamp
			}
		}
		return source.Text
	}
	return source.JSON
}

// holds says whether a column of a type keeps values of another type whole, so that
// no further column is needed for them.
func holds(column, value source.Type) bool {
	switch {
	case column == value, value == "", column == source.JSON:
		return true
	case column == source.Text:
		return value != source.JSON
	case column == source.Numeric:
		return value == source.Integer
	}
	return false
}

// widen returns the type that holds values of both types.
func widen(a, b source.Type) source.Type {
	switch {
	case a == "" || holds(b, a):
		return b
	case holds(a, b):
		return a
	case a == source.JSON || b == source.JSON:
		return source.JSON
	}
	return source.Text
}

// sqlType is the type of a column of the table.
func sqlType(t source.Type) string {
	switch t {
	case source.Timestamp, source.Unix, source.UnixMilli:
		return "timestamptz"
	}
	return string(t)
}
