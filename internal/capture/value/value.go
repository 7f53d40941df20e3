// Package value turns the text form of Postgres values into JSON, by type.
//
// # Guarantees
//
//  1. What is appended is exactly one valid JSON value in valid UTF-8, whatever
//     the text: a text that its type cannot have becomes a JSON string of that
//     text, with [NoteMalformed]. Nothing panics.
//  2. Values are exact: no value passes through float64 or a decoded form. The
//     text of numbers is kept, json and jsonb are copied byte for byte.
//  3. Encoding allocates nothing beyond growing the destination.
//  4. Types are read from pg_type in one query for all of them, and only when a
//     type is met that is neither built in nor known already.
//
// The text must be the one that a type's output function writes with DateStyle
// ISO, IntervalStyle postgres, TimeZone UTC, extra_float_digits 3 and
// bytea_output hex: what pgoutput, COPY, the text protocol and ROW(...)::text
// carry. A cast such as inet::text or bpchar::text may write something else.
//
// # Forms
//
//	bool                     true, false
//	int2, int4, int8         number (int8 as a string when so configured)
//	numeric                  string, every digit kept
//	float4, float8           number; "NaN", "Infinity", "-Infinity"
//	json, jsonb              the text itself
//	timestamptz              "2026-11-21T10:00:00.123456Z"
//	timestamp                "2026-11-21T10:00:00.123456"
//	bytea                    base64 with padding
//	arrays                   nested arrays; null elements null; each element by its own type's rule
//	hstore                   object of strings and nulls
//	vector, halfvec          array of numbers
//	domains                  as their base type
//	everything else          string of Postgres' text
//
// Infinite timestamps, those before Christ and those after the year 9999 are
// strings of Postgres' text, and so is an array with a lower bound other than 1.
package value

// Note tells what a reader of the JSON cannot see. Notes are a set of bits.
type Note uint8

const (
	// NoteJSONNull: the value is a JSON null, not an SQL NULL. Both read null.
	NoteJSONNull Note = 1 << iota
	// NoteInvalidUTF8: bytes that are not UTF-8 became U+FFFD. Only a database
	// of encoding SQL_ASCII holds such bytes.
	NoteInvalidUTF8
	// NoteMalformed: the text is not one of its type, and became a string.
	NoteMalformed
)

// kind is a rule of the value table.
type kind uint8

const (
	kindText kind = iota
	kindBool
	kindInt
	kindFloat
	kindJSON
	kindTimestamp
	kindTimestampTZ
	kindBytea
	kindHstore
	kindVector
	kindArray
)

// shape is a type as far as encoding is concerned. It is immutable and shared.
type shape struct {
	kind  kind
	elem  *shape // of an array
	delim byte   // between the elements of an array
}

// Encoder writes values of one type. It is a small value, safe for concurrent
// use. The zero Encoder writes any text as a JSON string.
type Encoder struct {
	shape *shape
}

// Append appends the JSON form of the value whose Postgres text is given, which
// must not overlap dst's spare capacity. An SQL NULL has no text: callers write
// null themselves.
func (e Encoder) Append(dst, text []byte) ([]byte, Note) {
	if e.shape == nil {
		return appendString(dst, text)
	}
	return e.shape.append(dst, text)
}

func (s *shape) append(dst, text []byte) ([]byte, Note) {
	start := len(dst)
	var note Note
	var ok bool
	switch s.kind {
	case kindBool:
		dst, ok = appendBool(dst, text)
	case kindInt:
		dst, ok = appendInt(dst, text)
	case kindFloat:
		dst, ok = appendFloat(dst, text)
	case kindJSON:
		dst, note, ok = appendJSON(dst, text)
	case kindTimestamp:
		dst, ok = appendTimestamp(dst, text, "")
	case kindTimestampTZ:
		dst, ok = appendTimestamp(dst, text, "+00")
	case kindBytea:
		dst, ok = appendBytea(dst, text)
	case kindHstore:
		dst, note, ok = appendHstore(dst, text)
	case kindVector:
		dst, ok = appendVector(dst, text)
	case kindArray:
		dst, note, ok = s.appendArray(dst, text)
	default:
		return appendString(dst, text)
	}
	if ok {
		return dst, note
	}
	dst, note = appendString(dst[:start], text)
	return dst, note | NoteMalformed
}
